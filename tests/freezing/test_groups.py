"""Parameter groups split by layer: their names, and the lists that optimizers keep beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from freezeout import FreezeOut
from freezeout.freezing.lists import Part, split_lists
from tests.freezing.optimizers import (
    SETTINGS,
    STEPS,
    Lists,
    LookaheadInLists,
    copies,
    make_net,
    train,
)


def by_kind(model: nn.Module, *names: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    for group, name in zip(groups, names, strict=False):
        group["name"] = name
    return groups


def names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [group["name"] for group in optimizer.param_groups]


# --- Names -------------------------------------------------------------------------------------


def test_groups_are_named_by_their_own_name_and_their_layer() -> None:
    model = make_net()
    optimizer = AdamW(by_kind(model, "decay", "rest"))
    FreezeOut(optimizer, model, STEPS)
    own = ["decay", "decay", "decay", "rest", "rest", "rest"]
    assert names(optimizer) == [f"{n}/{i}" for n, i in zip(own, (0, 2, 4) * 2, strict=True)]


@pytest.mark.parametrize("given", [(), ("", ""), ("all", "all")])
def test_no_two_groups_have_one_name(given: tuple[str, ...]) -> None:
    model = make_net()
    optimizer = AdamW(by_kind(model, *given))
    FreezeOut(optimizer, model, STEPS)
    before = "all/" if given and given[0] else ""
    assert names(optimizer) == [before + n for n in ("0", "2", "4", "0-2", "2-2", "4-2")]


def test_a_second_run_changes_no_name_and_no_group() -> None:
    model = make_net()
    optimizer = AdamW(by_kind(model, "decay", "rest"))
    FreezeOut(optimizer, model, STEPS)
    first = names(optimizer)
    FreezeOut(optimizer, model, STEPS)
    assert names(optimizer) == first
    FreezeOut(AdamW(by_kind(model), lr=0.1), model, STEPS)
    assert names(optimizer) == first


def test_nothing_is_named_where_nothing_is_split() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    FreezeOut(optimizer, model, STEPS, anneal=None)
    assert ["name" in group for group in optimizer.param_groups] == [False]


@pytest.mark.parametrize("old", ["no names", "equal names"])
def test_checkpoints_without_names_load_and_the_names_come_back(old: str) -> None:
    model = make_net()
    optimizer = AdamW(by_kind(model, "decay", "rest"))
    FreezeOut(optimizer, model, STEPS)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group.pop("name")
        if old == "equal names":
            group["name"] = "decay"
        group["weight_decay"] = 0.25
    before = names(optimizer)
    optimizer.load_state_dict(state)
    assert names(optimizer) == before
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.25}


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_the_rate_monitor_of_lightning_takes_the_groups(tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> Any:
            optimizer = AdamW(by_kind(self.net, "decay", "rest"))
            scheduler = FreezeOut(optimizer, self.net, STEPS, **SETTINGS)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    monitor = LearningRateMonitor("step")
    trainer = lightning.Trainer(
        max_steps=3,
        logger=CSVLogger(tmp_path),
        callbacks=[monitor],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    loader = DataLoader(torch.randn(8, 8), batch_size=2, num_workers=0)  # type: ignore[arg-type]
    trainer.fit(Module(), loader)
    logged = {name.removeprefix("lr-AdamW/") for name in monitor.lrs}
    assert logged == {f"{kind}/{layer}" for kind in ("decay", "rest") for layer in (0, 2, 4)}


# --- Lists beside the groups -------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
def test_all_layers_learn_under_an_optimizer_with_a_list_of_rates(groups: int) -> None:
    model = make_net()
    before = dict(zip(dict(model.named_parameters()), copies(model.parameters()), strict=True))
    optimizer = Lists(model.parameters() if groups == 1 else by_kind(model))
    if groups == 2:
        optimizer.param_groups[1]["lr"] = optimizer.base_lrs[1] = 0.05
    scheduler = FreezeOut(optimizer, model, STEPS, **SETTINGS)
    assert optimizer.base_lrs == [0.1, 0.1, 0.1, 0.05, 0.05, 0.05][: 3 * groups]
    train(model, optimizer, scheduler)
    assert [n for n, p in model.named_parameters() if torch.equal(p, before[n])] == []
    assert scheduler.frozen == 2


def test_slow_weights_in_lists_go_with_their_parameters() -> None:
    model = make_net()
    outer = LookaheadInLists(SGD(by_kind(model), lr=0.1))
    FreezeOut(outer, model, STEPS)
    assert [len(group["params"]) for group in outer.param_groups] == [1] * 6
    for group, kept in zip(outer.param_groups, outer.slow_weights, strict=True):
        assert all(torch.equal(p, slow) for p, slow in zip(group["params"], kept, strict=True))


def test_a_list_that_is_not_understood_is_refused_and_nothing_changes() -> None:
    model = make_net()
    optimizer = SGD(by_kind(model), lr=0.1)
    optimizer.phases = [0.3, 0.7]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"'phases', beside its 2 parameter groups.*anneal=None"):
        FreezeOut(optimizer, model, STEPS)
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 3]
    assert "initial_lr" not in optimizer.param_groups[0]
    FreezeOut(optimizer, model, STEPS, anneal=None)
    assert len(optimizer.param_groups) == 2


def test_settings_that_only_look_like_lists_beside_groups_are_left_alone() -> None:
    model = make_net()
    optimizer = SGD(by_kind(model), lr=0.1)
    optimizer.betas = (0.9, 0.99)  # type: ignore[attr-defined]
    optimizer.words = ["a", "b"]  # type: ignore[attr-defined]
    optimizer.history = [0.5, 0.4, 0.3]  # type: ignore[attr-defined]
    FreezeOut(optimizer, model, STEPS)
    assert len(optimizer.param_groups) == 6
    kept = (optimizer.betas, optimizer.words, optimizer.history)  # type: ignore[attr-defined]
    assert kept == ((0.9, 0.99), ["a", "b"], [0.5, 0.4, 0.3])


def test_a_list_of_one_entry_that_is_not_understood_is_left_alone() -> None:
    model = make_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.phases = [0.3]  # type: ignore[attr-defined]
    FreezeOut(optimizer, model, STEPS)
    assert optimizer.phases == [0.3]  # type: ignore[attr-defined]
    assert len(optimizer.param_groups) == 3


class Holder:
    """Anything with attributes."""


def test_collections_of_each_group_are_split_by_position() -> None:
    a, b, c = (nn.Parameter(torch.full((i + 1,), float(i))) for i in range(3))
    groups = [{"params": [a, b], "betas": (0.9, 0.99)}, {"params": [c], "betas": (0.8, 0.88)}]
    parts = [Part(0, 0, [1]), Part(0, 1, [0]), Part(1, 1, [0])]
    holder = Holder()
    slow = copies([a, b, c])
    holder.__dict__.update(
        nested=[slow[:2], slow[2:]],
        settings=[(0.9, 0.99), (0.8, 0.88)],
        tables=[{a: 1, b: 2}, {c: 3}],
        flat=slow,
        other=[slow[0]],
    )
    found = {new.name: new.value for new in split_lists([holder], groups, parts)}
    assert found.keys() == {"nested", "settings", "tables", "flat"}
    assert [[t is slow[i] for i, t in zip(k, e, strict=True)] for k, e in zip(
        ([1], [0], [2]), found["nested"], strict=True
    )] == [[True]] * 3  # fmt: skip
    assert found["settings"] == [(0.9, 0.99), (0.9, 0.99), (0.8, 0.88)]
    assert found["tables"] == [{b: 2}, {a: 1}, {c: 3}]
    assert [t is slow[i] for i, t in zip((1, 0, 2), found["flat"], strict=True)] == [True] * 3
