"""What a training step costs, layer by layer, measured on the real step."""

from freezeout.costs.bench import device_name, no_garbage_collection
from freezeout.costs.costs import Costs, LayerCost
from freezeout.costs.measure import measure_costs

__all__ = ["Costs", "LayerCost", "device_name", "measure_costs", "no_garbage_collection"]
