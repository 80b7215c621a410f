"""What a layer is: cut any model into an ordered list of layers, input first."""

from freezeout.layers.checks import check_belongs, check_something_learns
from freezeout.layers.layer import Layer, Layers, LayerSpec, learns_at_all, unwrap
from freezeout.layers.marks import FROZEN, forget_marks, freeze_parameter, is_ours, thaw_parameters
from freezeout.layers.members import modules_in, named_modules, named_parameters, parameters_in
from freezeout.layers.restoring import put_back, same_bits
from freezeout.layers.split import split_layers

__all__ = [
    "FROZEN",
    "Layer",
    "LayerSpec",
    "Layers",
    "check_belongs",
    "check_something_learns",
    "forget_marks",
    "freeze_parameter",
    "is_ours",
    "learns_at_all",
    "modules_in",
    "named_modules",
    "named_parameters",
    "parameters_in",
    "put_back",
    "same_bits",
    "split_layers",
    "thaw_parameters",
    "unwrap",
]
