"""Habits of optimizers outside PyTorch, each shown by a small one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD

from tests.compatibility import pattern_classes as c
from tests.compatibility.rows import Row
from tests.compatibility.small_run import by_closure, two_steps


def _of(kind: type[c.Plain], **settings: Any) -> Callable[[nn.Module], Any]:
    return lambda model: kind(model.parameters(), **settings)


def _over(kind: Callable[[SGD], Any]) -> Callable[[nn.Module], Any]:
    return lambda model: kind(SGD(model.parameters(), lr=0.1, momentum=0.9))


def _two_groups(kind: type[c.Plain]) -> Callable[[nn.Module], Any]:
    def make(model: nn.Module) -> Any:
        parameters = list(model.parameters())
        return kind([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.05}])

    return make


def _two_step(model: nn.Module) -> Any:
    return c.TwoSteps(model.parameters(), lr=0.1, momentum=0.9)


def _calls_parent(model: nn.Module) -> Any:
    c.Plain(model.parameters())  # from now on its step has hooks
    return c.CallsItsParent(model.parameters())


_AT_RATE = "at a rate of zero there is no decay"
_IN_ATTRIBUTES = "what it holds in attributes is not in its state_dict"
_CASTS = "PyTorch loads state in the precision of the parameter"
_REACHED = "reached frozen parameters"
_WROTE = "moved after the step of SGD was done"
_ALONE: Any = {"anneals": (None,), "twin": "neither"}

ROWS = [
    Row("a gradient of zeros where there is none", _of(c.ZeroFills), "told", _REACHED),
    Row("weight decay without a gradient", _of(c.DecaysAll), anneals=("cosine",), note=_AT_RATE),
    Row("weight decay without a gradient", _of(c.DecaysAll), "told", _REACHED, **_ALONE),
    Row(
        "momentum that rolls on",
        _of(c.RollsOn),
        "told",
        _REACHED,
        resume_differs=_IN_ATTRIBUTES,
        **_ALONE,
    ),
    Row("a list of the groups' rates", _of(c.ListOfRates)),
    Row("a list of the groups' rates", _two_groups(c.ListOfRates), note="two groups"),
    Row(
        "a list of anything for the groups",
        _two_groups(c.ListOfUnknown),
        "refused",
        "'trust'",
        anneals=("cosine",),
    ),
    Row("slow weights by parameter", _over(c.Lookahead), twin="neither", keeps_state=True),
    Row("slow weights by position", _over(c.LookaheadByPosition), "told", _WROTE, twin="neither"),
    Row("around another, without super().__init__", _over(c.Private)),
    Row(
        "two steps around each update",
        _two_step,
        update=two_steps,
        twin="no gradients",
        resume_differs="its state_dict has nothing of the optimizer within",
    ),
    Row(
        "no rate: lr=None",
        _of(c.Plain, lr=None),
        "refused",
        "no learning rate",
        anneals=("cosine",),
    ),
    Row("gradients by a closure alone", _of(c.ClosureOnly), update=by_closure),
    Row("state by id", _of(c.StateById), resume_differs=_IN_ATTRIBUTES),
    Row(
        "groups of its own",
        _of(c.CopiesGroups),
        "refused",
        "groups of its own",
        anneals=("cosine",),
    ),
    Row("groups of its own", _of(c.CopiesGroups), anneals=(None,), twin="no gradients"),
    Row("updates in the backward pass", _of(c.InBackward)),
    Row("copies in float32", _of(c.Masters), net="half", resume_differs=_CASTS),
    Row(
        "copies in float32, by position",
        _of(c.MastersInAList),
        net="half",
        resume_differs=_IN_ATTRIBUTES,
    ),
    Row(
        "copies in float32, by position, decayed",
        _of(c.DecayedMasters),
        "told",
        _REACHED,
        net="half",
        twin="neither",
        resume_differs=_IN_ATTRIBUTES,
    ),
    Row("a step that calls its parent's", _calls_parent),
    Row(
        "one rate for all parameters",
        _of(c.OneRate),
        "refused",
        "finds one rate",
        anneals=("cosine",),
    ),
    Row("one rate for all parameters", _of(c.OneRate), anneals=(None,), twin="no gradients"),
]
