"""FreezeOut in the trainer of transformers: as its scheduler, resumed, in two processes."""

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

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import Trainer, TrainerCallback

from freezeout.integrations.transformers import FreezeOutCallback
from tests.integrations.stacks.pages import load_example, run_page
from tests.integrations.stacks.processes import check_weights, launch
from tests.integrations.stacks.transformers_run import (
    SETTINGS,
    CustomOptimizer,
    Stream,
    arguments,
    data,
    network,
    trainer,
)

LAYERS = [
    "bert.embeddings",
    "bert.encoder.layer.0",
    "bert.encoder.layer.1",
    "bert.pooler",
    "classifier",
]


class Begin(TrainerCallback):
    """Keeps what is frozen when training begins."""

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.flags = [p.requires_grad for p in model.parameters()]
        self.states = len(optimizer.state)


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_trainer_trains_as_a_loop_by_hand_does(tmp_path):
    callback = FreezeOutCallback(**SETTINGS)
    settings = {"train_sampling_strategy": "sequential", "warmup_steps": 3}
    run = trainer(tmp_path, callback, dropout=0.0, **settings)
    run.train()
    scheduler = callback.scheduler
    assert [layer.name for layer in scheduler.layers] == LAYERS
    assert scheduler.schedule == Schedule(warmup_steps=3, **SETTINGS)
    assert (scheduler.total_steps, scheduler.frozen, scheduler.progress) == (20, 4, 1.0)
    assert run.lr_scheduler is scheduler

    twin = trainer(tmp_path, dropout=0.0)
    model, optimizer = twin.model.train(), twin.create_optimizer()
    by_hand = FreezeOut(optimizer, model, 20, warmup_steps=3, **SETTINGS)
    rows = data()
    for step in range(20):
        batch = rows[8 * (step % 8) : 8 * (step % 8) + 8]
        inputs = {name: torch.stack([row[name] for row in batch]) for name in batch[0]}
        model(**inputs).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        by_hand.step()
        optimizer.zero_grad()
    assert same(run.model, model)

    losses = [row for row in run.state.log_history if "loss" in row]
    assert [row["freezeout/frozen"] for row in losses] == [0, 0, 0, 1, 1, 2, 3, 3, 4, 4]
    assert [row["freezeout/progress"] for row in losses] == [n / 10 for n in range(1, 11)]
    # rates are those before the step that was logged: of the first layer, and the highest now
    factors = [Schedule(warmup_steps=3, **SETTINGS).factors(n, 20, 5) for n in range(21)]
    assert [row["learning_rate"] for row in losses] == pytest.approx(
        [1e-2 * factors[n - 1][0] for n in range(2, 21, 2)]
    )
    assert [row["freezeout/learning_rate"] for row in losses] == pytest.approx(
        [1e-2 * max(factors[n]) for n in range(2, 21, 2)]
    )
    sizes = [layer.num_parameters for layer in scheduler.layers]
    assert losses[-1]["freezeout/frozen_fraction"] == sum(sizes[:4]) / sum(sizes)


RESUMED = {
    "as it comes": {},
    "own optimizer": {"kind": CustomOptimizer, "max_grad_norm": 0.5},
    "only freezing": {"cb": {"anneal": None}, "warmup_steps": 3, "lr_scheduler_type": "cosine"},
    "everything": {
        "gradient_accumulation_steps": 3,
        "activation_checkpointing": True,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "bf16": True,
        "warmup_steps": 2,
        "restore_callback_states_from_checkpoint": True,
    },
}


@pytest.mark.parametrize("name", RESUMED)
def test_resumed_run_ends_as_the_uninterrupted_one(name, tmp_path):
    settings = dict(RESUMED[name])
    given = {**SETTINGS, **settings.pop("cb", {})}
    settings |= {"save_strategy": "steps", "save_steps": 12}
    whole = trainer(tmp_path, FreezeOutCallback(**given), **settings)
    whole.train()
    (tmp_path / "checkpoint-20").rename(tmp_path / "whole")

    callback, begin = FreezeOutCallback(**given), Begin()
    resumed = trainer(tmp_path, callback, begin, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 20
    assert same(resumed.model, whole.model)
    assert callback.scheduler.frozen == 4
    # two layers were frozen after step 12 already; what they had in the optimizer is not back
    first_two = sum(len(layer.parameters) for layer in callback.scheduler.layers[:2])
    assert begin.flags == [False] * first_two + [True] * (len(begin.flags) - first_two)
    assert begin.states == len(begin.flags) - first_two
    ours, theirs = (run.optimizer.state_dict() for run in (resumed, whole))
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    assert len(ours["state"]) == 2  # weight and bias of the classifier
    logs = [[r for r in run.state.log_history if "loss" in r] for run in (resumed, whole)]
    assert logs[0][-1]["loss"] == logs[1][-1]["loss"]
    if name == "only freezing":
        plain = trainer(tmp_path, **settings)
        plain.train()
        theirs = [r for r in plain.state.log_history if "loss" in r]
        assert [r["learning_rate"] for r in logs[1]] == [r["learning_rate"] for r in theirs]
        assert logs[1][3]["loss"] == theirs[3]["loss"]  # the eighth step is the last before
        assert logs[1][4]["loss"] != theirs[4]["loss"]  # the first layer is frozen


def test_resuming_with_other_settings_is_refused(tmp_path):
    def run(**given):
        callback = FreezeOutCallback(**{**SETTINGS, **given})
        return trainer(tmp_path, callback, save_strategy="steps", save_steps=12, max_steps=12)

    run().train()
    with pytest.raises(CheckpointError, match=r"t0=0\.4 there but t0=0\.5 here"):
        run(t0=0.5).train(resume_from_checkpoint=True)
    with pytest.raises((CheckpointError, ValueError), match=r"parameter group|was not saved by"):
        run(anneal=None).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("settings", [{}, {"anneal": None}], ids=["rates", "only freezing"])
def test_a_checkpoint_of_the_model_alone_is_refused(settings, tmp_path):
    def run():
        callback = FreezeOutCallback(**SETTINGS, **settings)
        return trainer(tmp_path, callback, save_strategy="steps", save_steps=12, max_steps=12)

    alone = run()
    alone.args.save_only_model = True
    alone.train()
    with pytest.raises(
        CheckpointError, match="resumes at step 12, but its checkpoint has no state"
    ):
        run().train(resume_from_checkpoint=True)


def test_no_update_before_the_checkpoint_is_no_reason_to_refuse_it(tmp_path):
    def run():
        callback = FreezeOutCallback(**SETTINGS)
        made = trainer(tmp_path, callback, save_strategy="steps", save_steps=4, max_steps=8)
        return made, callback

    run()[0].train()
    saved = tmp_path / "checkpoint-4"
    state = torch.load(saved / "scheduler.pt", weights_only=True)
    torch.save(state | {"last_epoch": 0}, saved / "scheduler.pt")  # a scaler skipped all four
    resumed, callback = run()
    resumed.train(resume_from_checkpoint=str(saved))
    assert (resumed.state.global_step, callback.scheduler.progress) == (8, 0.5)


class CustomScheduler(CustomOptimizer):
    """A trainer whose user makes optimizer and scheduler."""

    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)
        self._created_lr_scheduler = True
        return self.lr_scheduler


def test_a_create_scheduler_of_the_trainer_sets_the_rates_or_is_told_that_it_does_not(tmp_path):
    with pytest.warns(
        UserWarning, match=r"CustomScheduler\.create_scheduler is not called, because"
    ):
        run = trainer(tmp_path, FreezeOutCallback(**SETTINGS), kind=CustomScheduler, max_steps=5)
    run.train()
    assert isinstance(run.lr_scheduler, FreezeOut)
    callback = FreezeOutCallback(anneal=None, **SETTINGS)
    run = trainer(tmp_path, callback, kind=CustomScheduler, max_steps=5)
    run.train()
    assert callback.scheduler.frozen == 3
    assert [g["lr"] for g in run.optimizer.param_groups] == [0.05 * 0.5**5]


def test_checkpointed_backward_stops_at_frozen_layers(tmp_path):
    needed = []

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            for layer in model.bert.encoder.layer:
                layer.register_forward_hook(
                    lambda module, args, out: needed.append(out.requires_grad)
                )

    settings = {"activation_checkpointing": True, "max_steps": 20}
    trainer(tmp_path, FreezeOutCallback(strict=True, **SETTINGS), Look(), **settings).train()
    # blocks froze after steps 11 and 14, the embeddings before them after step 8
    assert needed == [True, True] * 11 + [False, True] * 3 + [False, False] * 6
    with pytest.raises(FreezeOutError, match="use_reentrant=True, which drops the gradients"):
        trainer(
            tmp_path,
            FreezeOutCallback(),
            activation_checkpointing_kwargs={"use_reentrant": True},
            **settings,
        ).train()


@pytest.mark.parametrize("witness", [True, False])
def test_who_writes_to_a_frozen_layer_is_told_of_it(tmp_path, witness):
    class Meddle(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 12:  # the embeddings froze after step 8
                with torch.no_grad():
                    model.bert.embeddings.word_embeddings.weight.add_(1.0)

    run = trainer(tmp_path, FreezeOutCallback(witness=witness, **SETTINGS), Meddle())
    told = pytest.warns(MovementWarning, match="moved: 'bert.embeddings.word_embeddings.weight'")
    with told if witness else nullcontext():
        run.train()


def test_loggers_see_it_and_training_again_begins_again(tmp_path):
    class Reporter(TrainerCallback):
        def __init__(self):
            self.seen = []

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.seen.append(set(logs))

    reporter, callback = Reporter(), FreezeOutCallback(**SETTINGS)
    run = trainer(tmp_path, reporter, callback)
    run.train()
    assert all("freezeout/frozen" in names for names in reporter.seen if "loss" in names)
    assert not any("freezeout/frozen" in names for names in reporter.seen if "loss" not in names)
    first = callback.scheduler
    assert not run.model.bert.pooler.training
    with pytest.warns(FrozenPrefixWarning, match="an earlier freeze left frozen learn again"):
        run.train()
    assert callback.scheduler is not first
    assert callback.scheduler.base_lrs == first.base_lrs
    assert (callback.scheduler.frozen, callback.scheduler.progress) == (4, 1.0)
    assert run.state.log_history[0]["freezeout/frozen"] == 0


def test_bad_use_says_what_to_do(tmp_path):
    late = trainer(tmp_path)
    callback = FreezeOutCallback(**SETTINGS)
    late.add_callback(callback)
    with pytest.raises(FreezeOutError, match=r"added after the Trainer was made.*callback.bind"):
        late.train()
    callback.bind(late)
    late.train()
    assert callback.scheduler.frozen == 4
    with pytest.raises(FreezeOutError, match="already tied to another Trainer"):
        trainer(tmp_path, callback)

    twice = trainer(tmp_path, FreezeOutCallback(**SETTINGS))
    second = FreezeOutCallback(**SETTINGS)
    twice.add_callback(second)
    with pytest.raises(FreezeOutError, match="has two FreezeOutCallbacks"):
        second.bind(twice)
    twice.pop_callback(FreezeOutCallback)
    twice.remove_callback(FreezeOutCallback)
    twice.train()
    assert not isinstance(twice.lr_scheduler, FreezeOut)  # taken out again

    optimizer = torch.optim.SGD(network().parameters(), 0.1)
    theirs = torch.optim.lr_scheduler.ConstantLR(optimizer)
    own = trainer(tmp_path, FreezeOutCallback())
    own.optimizer, own.lr_scheduler = optimizer, theirs
    with pytest.raises(FreezeOutError, match=r"given ConstantLR.*would set the same rates"):
        own.train()
    with pytest.raises(ValueError, match="ask for 3 warm-up steps, but FreezeOutCallback for 2"):
        trainer(tmp_path, FreezeOutCallback(warmup_steps=2), warmup_steps=3).train()
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    with pytest.raises(FreezeOutError, match="cannot stand beside ReduceLROnPlateau"):
        trainer(tmp_path, FreezeOutCallback(anneal=None), **plateau).train()
    with pytest.warns(UserWarning, match="lr_scheduler_type='polynomial' has no effect"):
        trainer(
            tmp_path, FreezeOutCallback(**SETTINGS), lr_scheduler_type="polynomial", max_steps=4
        ).train()
    with pytest.raises(ValueError, match="t0 must lie in"):
        FreezeOutCallback(t0=1.5)


def test_the_page_runs():
    run_page("transformers")


def test_the_example_learns_and_freezes(tmp_path):
    main = load_example("transformers_text").main
    bits, frozen = main(steps=20)
    assert frozen == 6
    assert bits < 6.5  # a character of 128, unknown, has seven
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, " * 2000)
    assert main(steps=8, data=text)[0] < bits


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_exchange_less_and_train_and_resume_as_one(tmp_path):
    first, second = launch("transformers_run", tmp_path)
    assert first == second
    assert first["frozen"] == [4, 4]
    assert first["exchanged"] == [5458] * 8 + [4754] * 3 + [2530] * 3 + [306] * 3 + [34] * 3
    assert first["resumed"] == first["exchanged"][12:]
    settings = {"kind": CustomOptimizer, "train_sampling_strategy": "sequential"}
    run = trainer(tmp_path, FreezeOutCallback(**SETTINGS), dropout=0.0, **settings)
    run.train()
    check_weights(tmp_path, run.model.state_dict(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:layer . .* is frozen, but its output")  # of the wrong order
def test_the_first_samples_show_the_order(tmp_path):
    """This network defines its head first; the runs are the same, shuffled, with dropout."""
    from transformers import CamembertConfig, CamembertForTokenClassification

    def run(**given):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
        config = CamembertConfig(vocab_size=32, intermediate_size=24, pad_token_id=1, **sizes)
        model = CamembertForTokenClassification(config)
        rows = [{"input_ids": r["input_ids"], "labels": r["input_ids"] % 2} for r in data()]
        callback = FreezeOutCallback(**SETTINGS, **given)
        run = Trainer(model, arguments(tmp_path), train_dataset=rows, callbacks=[callback])
        run.train()
        return callback.scheduler.layers.names, model

    names, model = run()
    blocks = tuple(f"roberta.encoder.layer.{i}" for i in (0, 1))
    assert names == ("roberta.embeddings", *blocks, "classifier")
    rows = data()[0]["input_ids"][None]
    also, twin = run(example={"input_ids": rows})
    assert also == names
    assert same(model, twin)
    _, other = run(layers=["classifier", *names[:3]])
    assert not same(model, other)


def test_a_stream_is_trained_on_resumed_and_without_an_example_told(tmp_path):
    """It gives no sample before training, so the order is that of definition."""
    settings = {"save_strategy": "steps", "save_steps": 12, "dataset": Stream()}
    told = pytest.warns(FrozenPrefixWarning, match=r"as from a stream.*Pass example=")
    callback = FreezeOutCallback(**SETTINGS)
    whole = trainer(tmp_path, callback, dropout=0.0, **settings)
    with told:
        whole.train()
    assert [layer.name for layer in callback.scheduler.layers] == LAYERS
    assert (callback.scheduler.total_steps, callback.scheduler.frozen) == (20, 4)

    numbered = trainer(
        tmp_path, FreezeOutCallback(**SETTINGS), dropout=0.0, train_sampling_strategy="sequential"
    )
    numbered.train()  # the same samples in the same order
    assert same(numbered.model, whole.model)

    callback = FreezeOutCallback(**SETTINGS, example={"input_ids": data()[0]["input_ids"][None]})
    resumed = trainer(tmp_path, callback, dropout=0.0, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-12"))
    assert callback.scheduler.frozen == 4
    assert same(resumed.model, whole.model)
