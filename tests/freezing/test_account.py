"""Every parameter is accounted for: who moves it, who froze it, who has forgotten it."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam

from freezeout import (
    FreezeOut,
    Freezer,
    FrozenPrefixWarning,
    MovementError,
    MovementWarning,
    PrefixError,
    split_layers,
    unfreeze,
)
from freezeout.freezing import Account, Entry
from tests.freezing.optimizers import SETTINGS, STEPS, copies, loss_of, make_net, moved, train

NAMES = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


def learning_of(model: nn.Module) -> list[nn.Parameter]:
    """What trainers give an optimizer: what requires a gradient."""
    return [p for p in model.parameters() if p.requires_grad]


# --- The account itself ------------------------------------------------------------------------


def test_every_parameter_is_of_exactly_one_kind() -> None:
    model = make_net()
    model[2].bias.requires_grad_(False)
    freezer = Freezer(split_layers(model), SGD([*model[0].parameters(), model[2].bias], lr=0.1))
    freezer.optimizers.append(SGD([model[2].weight], lr=0.1))
    other = Adam([model[4].weight])
    with pytest.warns(MovementWarning, match=r"no optimizer holds '4.bias', .* 0.44 % of the"):
        freezer.set_depth(1)
    account = freezer.account()
    assert [(e.name, e.kind, e.holder) for e in account.entries] == [
        ("0.weight", "frozen", None),
        ("0.bias", "frozen", None),
        ("2.weight", "learns", None),
        ("2.bias", "frozen by hand", None),
        ("4.weight", "held elsewhere", "Adam"),
        ("4.bias", "in no optimizer", None),
    ]
    assert account.names("frozen") == NAMES[:2]
    kinds = ("learns", "frozen", "frozen by hand", "in no optimizer", "held elsewhere")
    assert sum(account.share(kind) for kind in kinds) == pytest.approx(1.0)  # type: ignore[arg-type]
    assert "held elsewhere  1" in str(account)
    assert other.param_groups[0]["params"][0].requires_grad


def test_an_account_is_a_value() -> None:
    entry = Entry("a", "learns", 3)
    assert Account((entry,)) == Account((Entry("a", "learns", 3),))
    assert Account(()).share("frozen") == 0.0


# --- Nothing that is thawed may be outside every optimizer -------------------------------------


@pytest.mark.parametrize("control", [False, True])
def test_a_second_stage_without_what_is_still_frozen_is_refused(control: bool) -> None:
    from freezeout.reference import RateOnly

    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    train(model, optimizer, FreezeOut(optimizer, model, STEPS, **SETTINGS))
    second = SGD(learning_of(model), lr=0.1)
    flags = [p.requires_grad for p in model.parameters()]
    assert flags.count(False) == 4
    with pytest.raises(ValueError, match=r"lacks 4 parameters.*'0.weight', '0.bias', '2.weight'"):
        (RateOnly if control else FreezeOut)(second, model, STEPS, **SETTINGS)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert len(second.param_groups) == 1
    unfreeze(model)
    third = SGD(learning_of(model), lr=0.1)
    before = dict(zip(NAMES, copies(model.parameters()), strict=True))
    train(model, third, FreezeOut(third, model, STEPS, **SETTINGS), stop=15)
    assert moved(model, before) == list(NAMES)


def test_a_second_stage_with_all_parameters_goes_on() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    train(model, optimizer, FreezeOut(optimizer, model, STEPS, **SETTINGS))
    second = SGD(model.parameters(), lr=0.1)
    with pytest.warns(FrozenPrefixWarning, match="learn again: '0.weight'"):
        FreezeOut(second, model, STEPS, **SETTINGS)
    assert all(p.requires_grad for p in model.parameters())


def test_the_trainer_of_transformers_builds_such_an_optimizer() -> None:
    transformers = pytest.importorskip("transformers")
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    train(model, optimizer, FreezeOut(optimizer, model, STEPS, **SETTINGS))
    arguments = transformers.TrainingArguments("unused", report_to=[], use_cpu=True)
    second = transformers.Trainer(model, arguments).create_optimizer()
    with pytest.raises(ValueError, match="lacks 4 parameters"):
        FreezeOut(second, model, STEPS)
    unfreeze(model)
    FreezeOut(transformers.Trainer(model, arguments).create_optimizer(), model, STEPS)


def test_two_optimizers_of_a_second_stage_hold_everything_together() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    train(model, optimizer, FreezeOut(optimizer, model, STEPS, **SETTINGS))
    matrices = SGD([p for p in model.parameters() if p.ndim > 1], lr=0.1)
    rest = Adam([p for p in model.parameters() if p.ndim == 1])
    with pytest.warns(FrozenPrefixWarning, match="learn again: '0.weight'"):
        first = FreezeOut(matrices, model, STEPS, **SETTINGS)
    second = FreezeOut(rest, model, STEPS, together_with=first)
    assert second.freezer.account().names("learns") == NAMES


# --- What no optimizer holds -------------------------------------------------------------------


def test_an_optimizer_of_the_head_alone_is_told_before_the_first_update() -> None:
    model = make_net()
    optimizer = SGD(model[4].parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    before = copies(model.parameters())
    with pytest.warns(MovementWarning, match=r"no optimizer holds '0.weight'.* and 1 more.*92 %"):
        train(model, optimizer, scheduler, stop=1)
    assert not torch.equal(before[4], model[4].weight)
    train(model, optimizer, scheduler, start=1)  # told once, and frozen with its layer
    assert scheduler.frozen == 2
    assert model[0].weight.grad is None
    assert not model[0].weight.requires_grad
    assert torch.equal(before[0], model[0].weight)


def test_what_the_user_froze_is_meant() -> None:
    model = make_net()
    model[:3].requires_grad_(False)
    for held in (model[4].parameters(), model.parameters()):
        optimizer = SGD(held, lr=0.1)
        train(model, optimizer, FreezeOut(optimizer, model, STEPS, t0=1.0), stop=3)
    assert not model[0].weight.requires_grad


def test_strict_raises_what_no_optimizer_holds() -> None:
    model = make_net()
    optimizer = SGD(model[4].parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, strict=True, **SETTINGS)
    with pytest.raises(MovementError, match="no optimizer holds"):
        train(model, optimizer, scheduler, stop=1)


@pytest.mark.parametrize("order", ["optimizers first", "one after the other"])
def test_optimizers_together_hold_everything_in_any_order(order: str) -> None:
    model = make_net()
    halves = [list(model[:3].parameters()), list(model[4].parameters())]
    one = SGD(halves[0], lr=0.1)
    two = Adam(halves[1]) if order == "optimizers first" else None
    first = FreezeOut(one, model, STEPS, **SETTINGS)
    two = two or Adam(halves[1])
    second = FreezeOut(two, model, STEPS, together_with=first)
    for n in range(STEPS - 2):
        loss_of(model, n).backward()
        for optimizer, scheduler in ((one, first), (two, second)):
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    assert first.frozen == 2
    assert not any(p.requires_grad for p in model[:3].parameters())
    assert second.freezer.account().names("learns") == NAMES[4:]


def test_a_part_that_is_added_or_replaced_is_told_at_the_next_freeze() -> None:
    for surgery in (
        lambda m: m[4].register_parameter("scale", nn.Parameter(torch.ones(2))),
        lambda m: m[4].load_state_dict(copy.deepcopy(m[4].state_dict()), assign=True),
    ):
        model = make_net()
        optimizer = SGD(model.parameters(), lr=0.1)
        scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
        train(model, optimizer, scheduler, stop=19)
        surgery(model)
        advice = r"what came later takes freezeout.unfreeze\(model\), a new optimizer"
        with pytest.warns(MovementWarning, match=rf"no optimizer holds '4\..*{advice}"):
            train(model, optimizer, scheduler, start=19, stop=20)
        assert scheduler.frozen == 1


# --- What another optimizer holds --------------------------------------------------------------


class Critic(nn.Module):
    """A head on an encoder that others use, too."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor, detach: bool = False) -> torch.Tensor:
        z = self.encoder(x)
        return self.head(z.detach() if detach else z)


def actor_and_critic(**options: Any) -> tuple[Any, ...]:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1))
    critic, actor = Critic(encoder), Critic(encoder)
    theirs, ours = Adam(critic.parameters(), lr=1e-3), Adam(actor.head.parameters(), lr=1e-3)
    last = FreezeOut(theirs, critic, 400, t0=0.8, spacing="linear")
    return encoder, critic, actor, theirs, ours, last, FreezeOut(ours, actor, 40, **options)


def play(
    critic: nn.Module, actor: nn.Module, theirs: Any, ours: Any, *schedulers: Any, steps: int
) -> None:
    for n in range(steps):
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(n))
        y = (x.sum(1) > 0).long()
        for net, optimizer, scheduler, detach in (
            (critic, theirs, schedulers[0], False),
            (actor, ours, schedulers[1], True),
        ):
            optimizer.zero_grad()
            F.cross_entropy(net(x, detach), y).backward()
            optimizer.step()
            scheduler.step()


def test_what_another_optimizer_trains_is_not_frozen() -> None:
    encoder, *rest, ours = actor_and_critic(**SETTINGS)
    before = copies(encoder.parameters())
    with pytest.warns(FrozenPrefixWarning, match=r"another optimizer \(Adam\) holds 'encoder.0"):
        play(*rest, ours, steps=38)
    assert ours.frozen > 0
    assert all(p.requires_grad for p in encoder.parameters())
    assert all(module.training for module in encoder.modules())
    assert not any(map(torch.equal, before, encoder.parameters()))
    assert ours.freezer.depth == 2
    assert not rest[1].head[0].weight.requires_grad  # the actor's own
    assert ours.freezer.account().names("held elsewhere")[0] == "encoder.0.weight"
    ours.freezer.unfreeze()
    assert all(p.requires_grad for p in rest[1].parameters())


def test_strict_refuses_before_anything_changes() -> None:
    _, *rest, ours = actor_and_critic(strict=True, **SETTINGS)
    with pytest.raises(PrefixError, match=r"another optimizer \(Adam\) holds"):
        play(*rest, ours, steps=38)
    assert ours.frozen == 0
    assert all(p.requires_grad for p in rest[1].parameters())


def leftover_in_a_circle(model: nn.Module) -> Any:
    optimizer = Adam(model.parameters())
    optimizer.myself = optimizer  # type: ignore[attr-defined]
    return None


def forgotten(model: nn.Module) -> Any:
    return Adam(model.parameters())  # kept by the test, and never stepped


@pytest.mark.parametrize("leave", [leftover_in_a_circle, forgotten])
def test_optimizers_that_do_nothing_any_more_do_not_count(leave: Callable[..., Any]) -> None:
    model = make_net()
    gc.collect()
    gc.disable()
    try:
        kept = leave(model)
        optimizer = SGD(model[2:].parameters(), lr=0.1)
        scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
        with pytest.warns(MovementWarning, match="no optimizer holds '0.weight', '0.bias', "):
            train(model, optimizer, scheduler)
    finally:
        gc.enable()
    assert scheduler.frozen == 2
    assert not model[0].weight.requires_grad
    assert kept is None or kept.param_groups[0]["params"][0] is model[0].weight


def test_an_average_of_the_model_and_a_generator_are_no_business_of_ours() -> None:
    model, generator = make_net(), nn.Linear(4, 8)
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer, other = SGD(model.parameters(), lr=0.1), Adam(generator.parameters())
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    before = copies(generator.parameters())
    for n in range(STEPS - 2):
        loss_of(model, n).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        F.cross_entropy(model(generator(torch.randn(4, 4))), torch.zeros(4).long()).backward()
        other.step()
        other.zero_grad()
        optimizer.zero_grad()
        average.update_parameters(model)
    assert scheduler.frozen == 2
    assert scheduler.freezer.verified
    assert not any(map(torch.equal, before, generator.parameters()))


# --- What two optimizers train -----------------------------------------------------------------


def _take_turns(model: nn.Module, other: Any, *, steps: bool = True, strict: bool = False) -> None:
    """Update with one of the freezer's, then with the other."""
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, strict=strict, **SETTINGS)
    for n in range(STEPS - 1):
        train(model, optimizer, scheduler, start=n, stop=n + 1)
        if steps:
            loss_of(model, n).backward()
            other.step()
            other.zero_grad()
    assert scheduler.frozen == 2


@pytest.mark.parametrize("make", [SGD, Adam])
@pytest.mark.parametrize("part", [None, 0, 2])
def test_what_another_optimizer_trains_too_is_told_when_it_freezes(make: Any, part: Any) -> None:
    model = make_net()
    other = make((model if part is None else model[part]).parameters(), lr=0.01)
    with pytest.warns(
        FrozenPrefixWarning, match=f"also held by another optimizer .{make.__name__}"
    ):
        _take_turns(model, other)
    model = make_net()
    with pytest.raises(PrefixError, match="together_with= to the second"):
        _take_turns(model, make(model.parameters(), lr=0.01), strict=True)


def test_an_optimizer_that_comes_during_the_run_is_told_too() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    train(model, optimizer, scheduler, stop=5)
    other = Adam(model[0].parameters(), lr=0.01)
    train(model, other, stop=1)
    with pytest.warns(FrozenPrefixWarning, match=r"^'0.weight', '0.bias' are also held .* .Adam."):
        train(model, optimizer, scheduler, start=5)
    assert scheduler.frozen == 2


def test_an_optimizer_that_only_lies_around_or_trains_what_learns_is_not_told() -> None:
    model = make_net()
    leftover = Adam(model.parameters())
    loss_of(model, 0).backward()
    leftover.step()
    _take_turns(model, leftover, steps=False, strict=True)
    assert not model[0].weight.requires_grad
    model = make_net()
    _take_turns(model, SGD(model[4].parameters(), lr=0.01), strict=True)
    assert not model[0].weight.requires_grad


def test_optimizers_that_step_in_the_backward_pass_are_told_together() -> None:
    """One for each parameter, as in PyTorch's own tutorial, beside the one for all."""
    model = make_net()
    within = {p: Adam([p], lr=1e-3) for p in model.parameters()}

    def step(parameter: nn.Parameter) -> None:
        within[parameter].step()
        within[parameter].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    optimizer = SGD(model.parameters(), lr=0.1)
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    with pytest.warns(FrozenPrefixWarning) as caught:
        train(model, optimizer, scheduler)
    said = [str(warning.message).partition(" are also held")[0] for warning in caught]
    assert said == ["'0.weight', '0.bias'", "'2.weight', '2.bias'"]
    assert scheduler.frozen == 2
