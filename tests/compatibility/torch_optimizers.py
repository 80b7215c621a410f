"""All of ``torch.optim``: every class, and the ways of making it that run on a CPU."""

from __future__ import annotations

import inspect

import torch

from tests.compatibility.rows import Row, of_class
from tests.compatibility.small_run import by_closure
from tests.contracts import CASES, Case

_MATRICES = ("Muon",)
_DIFFERENT_RATES = {
    "Rprop": "takes only the size of its first step from the rate",
    "ASGD": "moves once more at the rate of the step before",
}


def classes() -> set[str]:
    """The names of all optimizers of the installed version."""
    return {
        name
        for name, item in vars(torch.optim).items()
        if inspect.isclass(item)
        and issubclass(item, torch.optim.Optimizer)
        and item is not torch.optim.Optimizer
    }


def _row(case: Case) -> Row:
    name = case.kind.__name__
    net = "matrices" if name in _MATRICES else "sparse" if case.net == "sparse" else "mlp"
    why = _DIFFERENT_RATES.get(name, "")
    return Row(
        case.name,
        case.make,
        net=net,
        note=f"it {why}" if why else "",
        twin="no gradients" if why else "rates",
        why=why,
    )


ROWS = [
    *map(_row, CASES),
    Row(
        "LBFGS",
        of_class(torch.optim.LBFGS, {"lr": 0.1, "max_iter": 2}),
        "refused",
        "it moves parameters that have no gradient",
        net="mlp",
        update=by_closure,
    ),
]
