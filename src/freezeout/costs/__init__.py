"""What a training step costs, layer by layer, measured on the real step."""

from freezeout.costs.bench import device_name, no_garbage_collection
from freezeout.costs.costs import Costs
from freezeout.costs.layer_cost import LayerCost
from freezeout.costs.measure import measure_costs
from freezeout.costs.threads import choose_threads, measure_threads
from freezeout.costs.trouble import order_statistic, trouble_words

__all__ = [
    "Costs",
    "LayerCost",
    "choose_threads",
    "device_name",
    "measure_costs",
    "measure_threads",
    "no_garbage_collection",
    "order_statistic",
    "trouble_words",
]
