"""States made by hand: refused in one line, or trained on as if nothing were wrong with them."""

import copy
import math
import random

import pytest
import torch

from freezeout.errors import CheckpointError, FreezeOutError
from freezeout.lab.training import Trainer, prepare
from freezeout.lab.training.saved_state import check_position
from tests.lab.runs import small

ODD = [
    *(None, True, -1, 0, 1, 3, 10**30, 0.5, -0.5, math.nan, math.inf, "", "x", b"x"),
    *([], [1], {}, {"a": 1}, (), (1, 2), torch.zeros(()), torch.zeros(2, 3), torch.ones(1)),
    *(torch.zeros(0), torch.zeros(4, dtype=torch.int64), torch.zeros(3, device="meta")),
    *(torch.eye(3).to_sparse(), torch.zeros(1).expand(16), torch.complex(*torch.ones(2, 1))),
]


def trainer(**changes):
    settings, dataset = prepare(small(threads=1, model="resnet-8-2", train_size=48, **changes))
    return Trainer(settings, dataset)


def saved(kind, steps):
    made = trainer(optimizer=kind, **({"lr": 0.01} if kind == "adamw" else {}))
    for _ in range(steps):
        made.clock.begin_step(made.frozen)
        made.take_step(*next(made.batches()))
        made.clock.end_step()
        made.clock.close(made.step)
        if made.batch == made.epoch_steps:
            made.finish_epoch()
    return made, made.state_dict()


@pytest.fixture(scope="module", params=[("sgd", 4), ("adamw", 5)], ids=["sgd", "adamw"])
def made(request):
    """The trainer of a state, and the state, in the second epoch with something frozen."""
    _, state = saved(*request.param)
    kind = request.param[0]
    fresh = trainer(optimizer=kind, **({"lr": 0.01} if kind == "adamw" else {}))
    return fresh, fresh.state_dict(), state


def places(value, path=()):
    """Where something is, in all of a state."""
    yield path
    if isinstance(value, (dict, list, tuple)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def changed(state, path, draw):
    """A copy of a state in which one thing is another, gone or more."""
    *way, last = path
    made = copy.deepcopy(state)
    holder = made
    for key in way:
        if isinstance(holder[key], tuple):
            holder[key] = list(holder[key])
        holder = holder[key]
    value, kind = holder[last], draw.choice(("odd", "odd", "gone", "more", "bent"))
    if kind == "gone" and isinstance(holder, (dict, list)):
        del holder[last]
    elif kind == "more" and isinstance(value, (dict, list)):
        more = draw.choice(ODD)
        value.append(more) if isinstance(value, list) else value.update(
            {draw.choice(("x", 7)): more}
        )
    elif kind == "bent" and isinstance(value, torch.Tensor):
        bent = draw.choice((lambda t: t.double(), lambda t: t[None], lambda t: t * math.nan))
        holder[last] = bent(value)
    else:
        holder[last] = draw.choice(ODD)
    return made


def goes_on(made):
    """Train two steps and close the epoch, as a resumed run does."""
    for _ in range(2):
        if made.finished:
            return
        batch = next(made.batches(), None)
        if batch is not None:
            made.take_step(*batch)
        made.clock.close(made.step)
        made.read()
        if made.batch >= made.epoch_steps:
            made.finish_epoch()
    made.state_dict()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_changed_is_refused_in_one_line_or_does_no_harm(made, seed):
    fresh, begun, state = made
    draw = random.Random(seed)
    every = [path for path in places(state) if path and path[0] != "settings"]
    refused, lines = 0, []
    for _ in range(80):
        top = draw.choice([path[0] for path in every])
        path = draw.choice([path for path in every if path[0] == top])
        hostile = changed(state, path, draw)
        try:
            fresh.load_state_dict(hostile)
            goes_on(fresh)
        except FreezeOutError as error:
            refused += 1
            lines.append(str(error).count("\n"))
        # One that was refused leaves the trainer such that a good state can be loaded.
        fresh.load_state_dict(begun)
    assert refused > 40
    assert set(lines) == {0}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("optimizer", "param_groups", 0, "lr"), "x", "the optimizer's lr is 'x'"),
        (("optimizer", "param_groups", 0, "lr"), math.nan, "the optimizer's lr is nan"),
        (("optimizer", "param_groups", 0, "params"), [1], "groups hold other parameters"),
        (("optimizer", "state", 999), {}, "holds something for 999"),
        (("step",), 3, r"position \(3, 1, \d\) is not valid"),
        (("epoch",), True, "position .* is not valid"),
        (("batch",), 10**9, "position .* is not valid"),
        (("history",), [], "its history has another length"),
        (("history", 0, "epoch"), 2, "its history is out of order"),
        (("history", 0, "seconds"), "x", "its seconds is none of a record of epoch"),
        (("sums", "images"), -1, "its sums are not valid"),
        (("elapsed",), math.inf, "its sums are not valid"),
        (("clock", "seconds"), torch.zeros(4), "its clock is"),
        (("clock", "counts"), torch.zeros_like, "counted other steps"),
        (("scheduler", "last_epoch"), 3, "its scheduler is at another step"),
        (("scheduler", "turn"), "before", "its scheduler is at another step"),
        (("generators",), [], "it has no random generators"),
        (("generator",), torch.zeros(7), "the checkpoint belongs to another"),
        (("model", "more"), torch.zeros(1), "the model's state has other names"),
    ],
)
def test_what_loading_would_take_without_a_word_is_refused(made, path, value, words):
    fresh, _, state = made
    hostile = copy.deepcopy(state)
    holder = hostile
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value(holder[path[-1]]) if callable(value) else value
    weights = [p.clone() for p in fresh.model.parameters()]
    with pytest.raises(CheckpointError, match=words):
        fresh.load_state_dict(hostile)
    assert all(map(torch.equal, weights, fresh.model.parameters()))


def test_optimizer_state_of_another_shape_is_refused_and_of_shared_memory_is_copied(made):
    fresh, begun, state = made
    hostile = copy.deepcopy(state)
    values = hostile["optimizer"]["state"]
    index = next(i for i, entry in values.items() if entry)
    name = next(n for n in values[index] if n != "step")
    real = values[index][name]
    values[index][name] = real.new_zeros(()).expand(real.shape)  # all numbers are one
    fresh.load_state_dict(hostile)
    goes_on(fresh)
    fresh.load_state_dict(begun)
    values[index][name] = real.new_zeros(real.numel() + 1)
    with pytest.raises(CheckpointError, match=f"the optimizer's {name} is .*, where .* is needed"):
        fresh.load_state_dict(hostile)


@pytest.mark.parametrize(
    ("position", "sound"),
    [
        ((0, 0, 0), True),
        ((4, 0, 4), True),  # all steps of an epoch that is still open
        ((4, 1, 0), True),
        ((11, 2, 3), True),
        ((11, 3, 0), True),
        ((12, 3, 0), False),
        ((11, 3, 1), False),
        ((11, 4, 0), False),
        ((5, 0, 5), False),
        ((12, 2, 4), False),
        ((4, 0, 3), False),
        ((4.0, 1, 0), False),
        ((-1, 0, -1), False),
    ],
)
def test_a_position_is_one_at_which_a_run_saves(position, sound):
    lengths = {"total_steps": 11, "epochs": 3, "length": 4}
    if sound:
        check_position(*position, **lengths)
        return
    with pytest.raises(ValueError, match="is not valid"):
        check_position(*position, **lengths)
