"""FreezeOut in Lightning's trainer: as its scheduler, as a callback, resumed, in two processes."""

from contextlib import nullcontext

import pytest
import torch

from freezeout import (
    CheckpointError,
    FreezeOut,
    FreezeOutError,
    FrozenPrefixWarning,
    MovementWarning,
    Schedule,
)

pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import Logger

from freezeout.integrations.lightning import FreezeOutCallback
from tests.integrations.stacks.lightning_run import SETTINGS, Module, loader, trainer
from tests.integrations.stacks.pages import load_example, run_page
from tests.integrations.stacks.processes import check_weights, launch

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    # Lightning's, on resume; frozen layers are in inference mode
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
]


def fit(module, *callbacks, ckpt_path=None, **settings):
    run = trainer(callbacks=list(callbacks), **settings)
    run.fit(module, loader(), loader(32), ckpt_path=ckpt_path)
    return run


def scheduler_of(run, callback=None):
    return callback.scheduler if callback else run.lr_scheduler_configs[0].scheduler


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def by_hand():
    module = Module()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    scheduler = FreezeOut(optimizer, module, 40, **SETTINGS)
    for _ in range(5):
        for x, y in loader():
            optimizer.zero_grad()
            module.loss(module.net(x), y).backward()
            optimizer.step()
            scheduler.step()
    return module


@pytest.mark.parametrize("kind", ["own scheduler", "callback", "manual optimization"])
def test_trainer_trains_as_a_loop_by_hand_does(kind):
    own = kind == "own scheduler"
    module = Module(own=own, manual=kind == "manual optimization")
    callback = None if own else FreezeOutCallback(**SETTINGS)
    stop = EarlyStopping("val_loss", patience=9)
    run = fit(module, stop, *([callback] if callback else []))
    scheduler = scheduler_of(run, callback)
    assert scheduler.total_steps == 40
    assert (scheduler.frozen, scheduler.progress) == (3, 1.0)
    assert same(module, by_hand())
    # step 17 is the first after the first layer froze; validation came in between, every epoch
    assert module.modes == [[True, True]] * 16 + [[False, True]] * 24
    run.validate(module, loader(32), verbose=False)
    assert not module.net[1].training
    frozen = [p for p in module.parameters() if not p.requires_grad]
    assert len(frozen) == 8
    assert not any(p in run.optimizers[0].state for p in frozen)


@pytest.mark.parametrize("own", [True, False], ids=["own scheduler", "callback"])
def test_accumulation_clipping_and_mixed_precision_count_updates(own):
    module = Module(own=own)
    callback = None if own else FreezeOutCallback(**SETTINGS)
    run = fit(
        module,
        *([callback] if callback else []),
        accumulate_grad_batches=3,
        gradient_clip_val=0.5,
        precision="bf16-mixed",
    )
    scheduler = scheduler_of(run, callback)
    assert scheduler.total_steps == 15  # eight batches are three updates
    assert (scheduler.frozen, scheduler.progress) == (3, 1.0)
    # the first layer froze with the sixth update, that of batch 16: epochs end an accumulation
    assert [m[0] for m in module.modes] == [True] * 16 + [False] * 24


@pytest.mark.parametrize("own", [True, False], ids=["own scheduler", "callback"])
def test_resumed_run_ends_as_the_uninterrupted_one(own, tmp_path):
    def callbacks():
        return [] if own else [FreezeOutCallback(**SETTINGS)]

    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole = Module(own=own)
    first = fit(whole, *callbacks(), keep, enable_checkpointing=True)
    saved = tmp_path / "epoch=2.ckpt"  # 24 of 40 steps: two layers are frozen
    checkpoint = torch.load(saved, weights_only=True)
    assert len(checkpoint["optimizer_states"][0]["state"]) == 4

    resumed, again = Module(own=own), callbacks()
    second = fit(resumed, *again, ckpt_path=saved)
    scheduler = scheduler_of(second, *again)
    assert same(resumed, whole)
    assert resumed.modes == [[False, True]] * 16
    assert (scheduler.frozen, scheduler.progress) == (3, 1.0)
    states = [run.optimizers[0].state_dict()["state"] for run in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert len(states[0]) == 2  # weight and bias of the last layer
    for name, value in states[0].items():
        assert all(torch.equal(value[k], states[1][name][k]) for k in value)

    if not own:
        with pytest.raises(CheckpointError, match=r"t0=0\.4 there but t0=0\.5 here"):
            fit(Module(), FreezeOutCallback(t0=0.5, spacing="linear"), ckpt_path=saved)
        # a state that was restored for another purpose does not reach the next fit
        callback = FreezeOutCallback(**SETTINGS)
        run = trainer(callbacks=[callback], max_epochs=1)
        fresh = Module()
        run.validate(fresh, loader(32), verbose=False, ckpt_path=saved)
        run.fit(fresh, loader(), loader(32))
        assert callback.scheduler.last_epoch == 8


def test_a_checkpoint_to_validate_has_no_part_in_freezing(tmp_path):
    other, last = tmp_path / "other.ckpt", tmp_path / "last.ckpt"
    fit(Module(), FreezeOutCallback(t0=0.8), max_epochs=2).save_checkpoint(other)
    callback = FreezeOutCallback(**SETTINGS)
    best = ModelCheckpoint(tmp_path / "best", "{epoch}", monitor="val_loss", mode="max")
    run = fit(Module(), callback, best, enable_checkpointing=True)
    run.save_checkpoint(last)
    assert best.best_model_path.endswith("epoch=0.ckpt")  # before anything froze
    loss = run.callback_metrics["val_loss"].item()
    for path in ("best", other, last):
        found = run.validate(ckpt_path=path, dataloaders=loader(32), verbose=False)
        assert (found[0]["val_loss"] == loss) is (path == last)
        assert (callback.scheduler.frozen, callback.scheduler.progress) == (3, 1.0)
        assert not run.lightning_module.net[0].weight.requires_grad


@pytest.mark.parametrize("settings", [{}, {"anneal": None}], ids=["rates", "only freezing"])
def test_a_checkpoint_without_the_callback_is_refused(settings, tmp_path):
    saved = tmp_path / "saved.ckpt"
    fit(Module(), max_epochs=2).save_checkpoint(saved)
    with pytest.raises(CheckpointError, match="of update 16, was saved without FreezeOutCallback"):
        fit(Module(), FreezeOutCallback(**SETTINGS, **settings), ckpt_path=saved)
    # nothing is missing in one of before the first update, such as that of a search for a rate
    callback = FreezeOutCallback(**SETTINGS, **settings)
    finder = LearningRateFinder(num_training_steps=20)
    module = Module()
    module.lr = 1e-2
    fit(module, finder, callback, enable_checkpointing=True, default_root_dir=tmp_path)
    assert (callback.scheduler.frozen, callback.scheduler.progress) == (3, 1.0)


def test_freezing_alone_leaves_the_rates_to_the_module():
    class Decaying(Module):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    callback = FreezeOutCallback(anneal=None, **SETTINGS)
    run = fit(Decaying(), callback)
    assert callback.scheduler.frozen == 3
    assert [g["lr"] for g in run.optimizers[0].param_groups] == [1e-2 * 0.5**5]
    with pytest.raises(FreezeOutError, match="made ExponentialLR, and FreezeOutCallback would set"):
        fit(Decaying(), FreezeOutCallback())


def test_freezes_are_logged():
    class Recorder(Logger):
        name, version = "recorder", 0

        def __init__(self):
            super().__init__()
            self.found = []

        def log_metrics(self, metrics, step=None):
            if "freezeout/frozen" in metrics:
                self.found.append((step, metrics))

        def log_hyperparams(self, *args, **kwargs):
            pass

    recorder = Recorder()
    fit(Module(), FreezeOutCallback(schedule=Schedule(**SETTINGS)), logger=recorder)
    assert [(step, m["freezeout/frozen"]) for step, m in recorder.found] == [
        (0, 0.0),
        (16, 1.0),
        (24, 2.0),
        (32, 3.0),
    ]
    last = recorder.found[-1][1]
    assert last["freezeout/progress"] == 0.8
    assert last["freezeout/frozen_fraction"] == pytest.approx(1 - 34 / 754)
    assert 0 < last["freezeout/learning_rate"] < 1e-2


def test_averaged_weights_are_those_of_the_frozen_layers():
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    module = Module()
    fit(module, FreezeOutCallback(**SETTINGS), averaging.EMAWeightAveraging(decay=0.5))
    assert same(module.net[0], by_hand().net[0]) is False  # averaged over the first steps too
    torch.testing.assert_close(module.net[0].weight, by_hand().net[0].weight, rtol=0, atol=1e-4)
    assert not module.net[0].weight.requires_grad


class Plateau(Module):
    """Cuts its rates where the loss goes up, which it is made to do after the third epoch."""

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "loss"}

    def on_validation_epoch_end(self):
        self.log("loss", float(self.current_epoch == 2) - 0.1 * self.current_epoch)


def test_the_cuts_of_a_plateau_are_followed_also_by_a_resumed_run(tmp_path):
    callback = FreezeOutCallback(**SETTINGS)
    module = Plateau()
    saves = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(module, callback, saves, enable_checkpointing=True)
    assert callback.scheduler.base_lrs == pytest.approx([0.005] * 4)
    assert callback.scheduler.frozen == 3
    for epoch in (1, 3):  # before the cut, and after it
        resumed, again = Plateau(), FreezeOutCallback(**SETTINGS)
        fit(resumed, again, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert again.scheduler.base_lrs == callback.scheduler.base_lrs
        assert same(resumed, module)


def test_stochastic_averaging_is_refused_where_it_spoils_a_frozen_norm():
    def averaging():
        return StochasticWeightAveraging(1e-2, swa_epoch_start=2)

    with pytest.raises(FreezeOutError, match=r"statistics .* layer 0 \(net\.0\) will be frozen"):
        fit(Module(), FreezeOutCallback(**SETTINGS), averaging())
    callback = FreezeOutCallback(**SETTINGS)
    with pytest.warns(UserWarning, match="SWALR sets the rates of the same optimizer"):
        run = fit(Module(norm=False), callback, averaging())
    assert (callback.scheduler.frozen, callback.scheduler.progress) == (3, 1.0)
    assert [g["lr"] for g in run.optimizers[0].param_groups] == [0.0] * 4  # rates of FreezeOut
    module = Module()
    with pytest.warns(UserWarning, match="SWALR sets the rates of the same optimizer"):
        fit(module, FreezeOutCallback(schedule=Schedule(t0=1.0), total_steps=41), averaging())
    assert module.net[1].running_var.ne(1).all()  # nothing freezes, so it is gathered again


def test_a_second_fit_anneals_over_what_is_left():
    module, callback = Module(), FreezeOutCallback(**SETTINGS)
    run = fit(module, callback)
    assert callback.scheduler.total_steps == 40
    run.fit_loop.max_epochs = 8
    with pytest.warns(FrozenPrefixWarning, match="an earlier freeze left frozen learn again"):
        run.fit(module, loader(), loader(32))
    assert (callback.scheduler.total_steps, callback.scheduler.progress) == (24, 1.0)


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({}, 24),  # of five epochs of eight updates two are done; Lightning begins the third again
        ({"accumulate_grad_batches": 3}, 9),
        ({"max_steps": 30}, 10),
        ({"max_steps": 30, "max_epochs": -1}, 10),
    ],
    ids=["epochs", "accumulation", "steps", "steps alone"],
)
def test_a_fit_after_one_that_broke_off_anneals_over_what_is_left(settings, total):
    class Breaking(Module):
        def training_step(self, batch, index):
            if len(self.modes) == 20:
                self.modes.append([])
                raise KeyError("broken")
            return super().training_step(batch, index)

    module, callback = Breaking(), FreezeOutCallback(**SETTINGS)
    run = trainer(callbacks=[callback], **settings)
    with pytest.raises(KeyError, match="broken"):
        run.fit(module, loader(), loader(32))
    with pytest.warns(FrozenPrefixWarning, match="an earlier freeze left frozen learn again"):
        run.fit(module, loader(), loader(32))
    assert (callback.scheduler.total_steps, callback.scheduler.progress) == (total, 1.0)


def test_bad_use_says_what_to_do():
    class Two(Module):
        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.net[0], self.net[3])]

    with pytest.raises(FreezeOutError, match=r"drives one optimizer, but .* made 2"):
        fit(Two(manual=True), FreezeOutCallback())
    with pytest.raises(FreezeOutError, match="made a FreezeOut, and FreezeOutCallback would make"):
        fit(Module(own=True), FreezeOutCallback(anneal=None))
    with pytest.raises(FreezeOutError, match=r"is not known .* FreezeOutCallback\(total_steps="):
        fit(Module(), FreezeOutCallback(), max_epochs=-1)
    with pytest.raises(ValueError, match="t0 must lie in"):
        FreezeOutCallback(t0=1.5)
    with pytest.raises(TypeError, match="schedule already holds all settings, got t0 beside it"):
        FreezeOutCallback(schedule=Schedule(), t0=0.5)
    with pytest.raises(TypeError, match=r"must be a freezeout.Schedule, got 0\.5"):
        FreezeOutCallback(schedule=0.5)


def test_the_page_runs():
    run_page("lightning")


@pytest.mark.parametrize("callback", [False, True])
def test_the_example_learns_and_freezes(callback, capsys):
    accuracy, frozen = load_example("lightning_digits").main(epochs=2, callback=callback)
    assert frozen == 5
    assert accuracy > 60
    assert "net.4.0" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_exchange_less_and_train_and_resume_as_one(tmp_path):
    first, second = launch("lightning_run", tmp_path)
    assert first == second
    assert first["frozen"] == [3, 3]
    assert first["exchanged"] == [722] * 16 + [578] * 8 + [306] * 8 + [34] * 8
    assert first["resumed"] == first["exchanged"][24:]
    module = Module(norm=False)
    fit(module, FreezeOutCallback(**SETTINGS))
    check_weights(tmp_path, module.state_dict(), atol=1e-4)


class EndFirst(Module):
    """Defined from the output to the input; its forward runs all of it, or the start alone."""

    def __init__(self, *, whole=True):
        super().__init__()
        del self.net
        torch.manual_seed(0)
        self.end, self.middle, self.start = (
            torch.nn.Linear(32, 2),
            torch.nn.Linear(16, 32),
            torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2)),
        )
        self.whole = whole

    def forward(self, x):
        return self.end(self.middle(self.start(x).relu()).relu()) if self.whole else self.start(x)

    def training_step(self, batch, index):
        return self.loss(self.end(self.middle(self.start(batch[0]).relu()).relu()), batch[1])

    def validation_step(self, batch, index):
        pass


@pytest.mark.filterwarnings("ignore:layer . .* is frozen, but its output")  # of the wrong order
def test_the_first_samples_show_the_order():
    def run(module, **given):
        callback = FreezeOutCallback(**SETTINGS, **given)
        run = trainer(callbacks=[callback])
        run.fit(module, loader(), loader(32))
        return callback.scheduler.layers.names, module

    names, module = run(EndFirst())
    assert names == ("start.0", "middle", "end")
    also, twin = run(EndFirst(), example=torch.ones(2, 8))
    assert also == names
    assert same(module, twin)
    assert run(EndFirst(whole=False))[0] == ("end", "middle", "start.0")
    own = EndFirst()
    own.example_input_array = torch.ones(1, 8)
    assert run(own)[0] == names


@pytest.mark.filterwarnings("ignore:layer . .* is frozen, but its output")  # of the wrong order
def test_a_checkpoint_of_the_order_of_definition_is_resumed_in_it(tmp_path):
    """As saved before the first samples showed the order."""
    callback = FreezeOutCallback(**SETTINGS, layers=["end", "middle", "start.0"])
    run = trainer(callbacks=[callback], max_epochs=2)
    run.fit(EndFirst(), loader(), loader(32))
    run.save_checkpoint(tmp_path / "old.ckpt")
    callback = FreezeOutCallback(**SETTINGS, total_steps=callback.scheduler.total_steps)
    again = trainer(callbacks=[callback], max_epochs=2)
    again.fit(EndFirst(), loader(), loader(32), ckpt_path=tmp_path / "old.ckpt")
    assert callback.scheduler.layers.names == ("end", "middle", "start.0")


@pytest.mark.parametrize("witness", [True, False])
def test_who_writes_to_a_frozen_layer_is_told_of_it(witness):
    class Meddle(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step == 20:  # the first layer froze after step 16
                with torch.no_grad():
                    pl_module.net[0].weight.add_(1.0)

    told = pytest.warns(MovementWarning, match=r"moved: 'net\.0\.weight'")
    with told if witness else nullcontext():
        fit(Module(), FreezeOutCallback(witness=witness, **SETTINGS), Meddle())
