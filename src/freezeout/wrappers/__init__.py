"""Let what wraps a model follow its frozen prefix: DDP, FSDP2, ``torch.compile``, checkpointing."""

from freezeout.wrappers.agreement import is_joined
from freezeout.wrappers.checkpointing import refuse_reentrant
from freezeout.wrappers.companions import Companions, Replace
from freezeout.wrappers.compile import Graphs, Region, graphs_of, recompile_trouble, regions
from freezeout.wrappers.ddp import reduced_elements, rewrap
from freezeout.wrappers.discovery import instances_of, subclasses_of, wrappers_of
from freezeout.wrappers.fsdp import (
    are_gathered_each_pass,
    gathered_forms,
    is_sharded,
    reshard,
)

__all__ = [
    "Companions",
    "Graphs",
    "Region",
    "Replace",
    "are_gathered_each_pass",
    "gathered_forms",
    "graphs_of",
    "instances_of",
    "is_joined",
    "is_sharded",
    "recompile_trouble",
    "reduced_elements",
    "refuse_reentrant",
    "regions",
    "reshard",
    "rewrap",
    "subclasses_of",
    "wrappers_of",
]
