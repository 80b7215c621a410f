"""The benchmark of a step at toy size: what it compares, counts and writes. Nothing is timed."""

import itertools
import json
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common import ratios
from benchmarks.step import by_hand, cost, loops, memory
from freezeout import FreezeOut, split_layers

DEPTHS = {"densenet-10-4": 7, "wrn-10-1": 5, "resnet-8-4": 5, "vgg11-4": 9}
EVERY_DEPTH = [(name, depth) for name, count in DEPTHS.items() for depth in range(count)]


def toy(name):
    return loops.Settings(model=name, image_size=8, channels=1, batch_size=4)


@pytest.mark.parametrize("name", DEPTHS)
def test_every_depth_of_the_toy_networks_is_tested(name):
    assert len(split_layers(toy(name).network())) == DEPTHS[name]


# the floor


@pytest.mark.parametrize(("name", "depth"), EVERY_DEPTH)
def test_floor_computes_the_same_loss_and_gradients_bit_for_bit(name, depth):
    settings = toy(name)
    subject = loops.driven(settings, depth)
    twin, floor = loops.floor_of(settings, subject)
    batch = settings.batches()[1]
    losses = []
    subject.optimizer.zero_grad()
    for forward in (subject.model, floor):
        torch.manual_seed(1)
        loss = settings.loss(forward, batch)
        loss.backward()
        losses.append(loss)
    assert subject.scheduler.frozen == depth
    assert torch.equal(*losses)
    frozen = [id(p) for p in subject.frozen_parameters()]
    for ours, theirs in zip(subject.model.parameters(), twin.parameters(), strict=True):
        if id(ours) in frozen:
            assert ours.grad is None
            assert theirs.grad is None
        else:
            assert torch.equal(ours.grad, theirs.grad)
    trained = sum(p.numel() for group in floor.groups for p in group)
    assert trained == sum(p.numel() for p in subject.model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", DEPTHS)
def test_stages_by_hand_are_the_forward_pass(name):
    settings = toy(name)
    model = settings.network()
    x = settings.batches()[0][0]
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    for stage in by_hand.stages(model):
        x = stage.run(x)
    assert torch.equal(x, expected)


class Operators(TorchDispatchMode):
    """Counts what torch really runs, forward, backward and in the optimizer."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operators(step):
    """The operators of an ordinary step: past the first ones, which are looked at closely.

    What should learn is watched for some twenty updates, and all bits are summed up after 32 and
    64.
    """
    for _ in range(40):
        step()
    with Operators() as seen:
        step()
    return seen.counts


@pytest.mark.parametrize(("name", "depth"), EVERY_DEPTH)
def test_a_step_runs_the_same_operators_as_the_floor(name, depth):
    settings = toy(name)
    subject = loops.driven(settings, depth)
    _, floor = loops.floor_of(settings, subject)
    optimizer = loops.sgd(floor.groups)
    cosine = CosineAnnealingLR(optimizer, T_max=loops.TOTAL_STEPS)
    by_hand_step = loops.training_step(settings, floor, optimizer, cosine)
    ours = operators(subject.step)
    assert ours == operators(by_hand_step)
    fewer = ours.total() < operators(loops.driven(settings, 0).step).total()
    assert fewer == (depth > 0)


def test_disagreement_with_the_floor_is_noticed():
    settings = toy("wrn-10-1")
    subject = loops.driven(settings, 2)
    twin, floor = loops.floor_of(settings, subject)
    before = [b.clone() for b in subject.model.buffers()]
    assert loops.floor_agrees(settings, subject, twin, floor)
    assert all(map(torch.equal, before, subject.model.buffers()))
    assert all(p.grad is None for p in subject.model.parameters())
    with torch.no_grad():
        twin.stem.weight[0, 0, 0, 0] += 0.5
    assert not loops.floor_agrees(settings, subject, twin, floor)


def test_a_floor_that_trains_other_layers_is_noticed():
    settings = toy("wrn-10-1")
    subject = loops.driven(settings, 2)
    twin, _ = loops.floor_of(settings, subject)
    twin.requires_grad_(True)
    other = by_hand.Floor(twin, split_layers(twin), 1)
    assert not loops.floor_agrees(settings, subject, twin, other)


def test_floor_refuses_a_cut_within_a_piece():
    model = toy("wrn-10-1").network()
    inner = ["stem", "blocks.block1_layer1.conv1", "blocks.block1_layer1.conv2"]
    norms = ["blocks.block1_layer1.norm1", "blocks.block1_layer1.norm2"]
    rest = ["blocks.block2_layer1", "blocks.block3_layer1", ["norm", "classifier"]]
    layers = split_layers(model, layers=[*inner, *norms, *rest])
    with pytest.raises(ValueError, match="first 2 layers of WideResNet do not end where"):
        by_hand.Floor(model, layers, 2)


def test_floor_knows_only_the_networks_of_the_library():
    with pytest.raises(TypeError, match="no forward pass by hand is written for Linear"):
        by_hand.stages(torch.nn.Linear(2, 2))


# what is held


@pytest.mark.parametrize(("name", "depth"), EVERY_DEPTH)
def test_prefix_holds_nothing(name, depth):
    found = loops.holding(toy(name), depth)
    assert found.good
    assert found.prefix_saved == found.prefix_state == found.prefix_gradients == 0
    assert (found.prefix_state_before > 0) == (depth > 0)
    assert found.total_saved > 0
    assert found.total_state > 0


def only_rates(depth):
    """A prefix that learns nothing and yet is not frozen: its rates are zero, nothing else."""
    settings = toy("resnet-8-4")
    model = settings.network()
    layers = split_layers(model)
    optimizer = loops.sgd(loops.groups_by_layer(layers))
    for group in optimizer.param_groups[:depth]:
        group["lr"] = 0.0
    batch = settings.batches()[0]
    settings.loss(model, batch).backward()
    optimizer.step()
    saved = memory.saved_for_backward(layers, depth, lambda: settings.loss(model, batch))
    return saved, optimizer, [p for layer in layers[:depth] for _, p in layer.parameters]


@pytest.mark.parametrize("depth", range(1, 5))
def test_a_prefix_whose_rates_alone_are_zero_is_seen_to_hold_memory(depth):
    saved, optimizer, prefix = only_rates(depth)
    size = 4 * sum(p.numel() for p in prefix)
    assert 0 < saved.prefix < saved.total
    assert memory.state_bytes(optimizer, prefix) == size
    assert memory.gradient_bytes(prefix) == size


def test_a_prefix_that_holds_anything_is_not_good():
    good = loops.Holding(1, 0, 0, 8, 0, 100, 100)
    assert good.good
    assert not loops.Holding(1, 4, 0, 8, 0, 100, 100).good
    assert not loops.Holding(1, 0, 4, 8, 0, 100, 100).good
    assert not loops.Holding(1, 0, 0, 8, 4, 100, 100).good
    assert not loops.Holding(1, 0, 0, 0, 0, 100, 100).good  # there was nothing to let go


def test_bytes_saved_are_counted_exactly():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 2))
    layers = split_layers(model)
    x = torch.randn(7, 3)

    def forward():
        return model(x).square().sum()

    saved = memory.saved_for_backward(layers, 0, forward)
    # the batch and the output of the sigmoid; the output of the model, which the square saves
    assert saved.total == 4 * 7 * (3 + 5 + 2)
    assert saved.prefix == 0
    assert memory.saved_for_backward(layers, 1, forward).prefix == 4 * 7 * (3 + 5)
    model[0].requires_grad_(False)
    frozen = memory.saved_for_backward(layers, 1, forward)
    assert (frozen.prefix, frozen.total) == (0, 4 * 7 * (5 + 2))
    assert sum(frozen.by_layer) == frozen.total


def test_a_storage_counts_once_in_full_and_parameters_do_not():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    layers = split_layers(model)
    base = torch.randn(10, 4)

    def forward():
        x = base[:2]
        y = model[1](model[0](x))
        return F.mse_loss(y, x) + (model[0].weight * y[0]).sum()

    # the storage behind both views of the batch, the hidden values, the output
    assert memory.saved_for_backward(layers, 0, forward).total == 4 * (40 + 8 + 8)


# statistics


@pytest.mark.parametrize(
    ("count", "level", "ends"),
    # from tables of the sign test: order statistics of the median, counted from one
    [
        (5, 0.95, None),
        (6, 0.95, (1, 6)),
        (10, 0.95, (2, 9)),
        (20, 0.95, (6, 15)),
        (8, 0.99, (1, 8)),
    ],
)
def test_interval_of_a_median(count, level, ends):
    values = list(range(1, count + 1))
    assert ratios.median_interval(values[::-1], level) == ends
    if ends is not None:
        low, high = ends
        outside = 2 * sum(math.comb(count, i) for i in range(low)) / 2**count
        assert outside <= 1 - level
        assert high == count + 1 - low


def test_no_interval_without_values():
    assert ratios.median_interval([], 0.95) is None


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (None, "undecided"),
        ((0.99, 1.01), "holds"),
        ((1.005, 1.011), "undecided"),
        ((1.0101, 1.02), "fails"),
    ],
)
def test_verdict(interval, verdict):
    assert ratios.judge(interval, 1.01) == verdict


def test_orders_use_every_permutation_equally_often():
    drawn = list(itertools.islice(ratios.orders(3, seed=0), 60))
    permutations = list(itertools.permutations(range(3)))
    assert [drawn.count(p) for p in permutations] == [10] * 6
    assert drawn[:6] != permutations
    assert drawn == list(itertools.islice(ratios.orders(3, seed=0), 60))


class FakeTime:
    """A clock that only the variants move."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        self.calls = []
        monkeypatch.setattr(ratios.time, "perf_counter", lambda: self.now)

    def variant(self, name, seconds, **more):
        durations = itertools.cycle(seconds)

        def step():
            self.calls.append(name)
            self.now += next(durations)

        return ratios.Variant(step, **more)


CPU = torch.device("cpu")


def test_a_ratio_is_the_median_over_rounds_of_times_side_by_side(monkeypatch):
    clock = FakeTime(monkeypatch)
    variants = {"a": clock.variant("a", [3.0]), "b": clock.variant("b", [2.0])}
    question = ratios.Question("a / b", "a", "b", bar=1.6)
    effort = ratios.Effort(rounds=8, looks=3, warmup=2)
    (answer,) = ratios.compare(variants, [question], effort, CPU)
    assert (answer.median, answer.low, answer.high) == (1.5, 1.5, 1.5)
    assert (answer.rounds, answer.seconds, answer.verdict) == (8, (3.0, 2.0), "holds")
    assert clock.calls.count("a") == clock.calls.count("b") == 10
    (answer,) = ratios.compare(variants, [ratios.Question("a / b", "a", "b", bar=1.4)], effort, CPU)
    assert (answer.rounds, answer.verdict) == (8, "fails")


def test_measuring_goes_on_while_undecided(monkeypatch):
    clock = FakeTime(monkeypatch)
    variants = {"a": clock.variant("a", [1.0, 3.0]), "b": clock.variant("b", [2.0])}
    questions = [ratios.Question("a / b", "a", "b", bar=1.0), ratios.Question("b / a", "b", "a")]
    effort = ratios.Effort(rounds=8, looks=3)
    first, second = ratios.compare(variants, questions, effort, CPU)
    assert (first.low, first.high, first.verdict) == (0.5, 1.5, "undecided")
    assert first.rounds == effort.most_rounds == 32
    assert second.verdict is None


def test_preparation_is_outside_the_clock_and_calls_are_summed_up_by_their_median(monkeypatch):
    clock = FakeTime(monkeypatch)

    def prepare():
        clock.now += 100.0

    variants = {
        "a": clock.variant("a", [1.0, 5.0, 2.0], before=prepare, calls=3),
        "b": clock.variant("b", [1.0]),
    }
    effort = ratios.Effort(rounds=8, looks=1)
    (answer,) = ratios.compare(variants, [ratios.Question("a / b", "a", "b")], effort, CPU)
    assert answer.median == 2.0


def test_chances_of_being_wrong_are_shared_among_looks():
    assert ratios.Effort(looks=1).level == pytest.approx(0.95)
    assert ratios.Effort(looks=5).level == pytest.approx(0.99)


# the command


@pytest.mark.slow
def test_quick_run_writes_everything_down(tmp_path, capsys):
    out = tmp_path / "new" / "result.json"
    words = ["--quick", "--depths", "0,2,4", "--device", "cpu", "--out", str(out)]
    status = cost.main(words)
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert status == (0 if result["passed"] else 1)
    assert result["passed"] == (not result["shortcomings"])
    assert ("Every bar holds." in printed) == result["passed"]
    assert all(f"not met: {line}" in printed for line in result["shortcomings"])
    assert set(result) == {
        "benchmark",
        "format",
        "date",
        "hardware",
        "versions",
        "settings",
        "layers",
        "statistics",
        "comparisons",
        "memory",
        "shortcomings",
        "passed",
    }
    assert set(result["hardware"]) == {"cpu", "cores", "threads", "gpu", "load"}
    assert result["hardware"]["threads"] == 1
    assert result["versions"]["torch"] == torch.__version__
    assert {"python", "freezeout", "cuda"} <= set(result["versions"])
    assert result["settings"]["model"] == "resnet-8-4"
    assert result["settings"]["depths"] == [0, 2, 4]
    assert result["statistics"]["clock"] == "wall"
    assert result["statistics"]["confidence_of_all_looks"] == 0.95

    bars = [(row["bar"], row["depth"]) for row in result["comparisons"] if row["bar"] is not None]
    assert bars == [(2.0, None), (1.01, None), *((1.02, depth) for depth in (0, 2, 4))]
    for row in result["comparisons"]:
        low, high = row["interval"]
        assert low <= row["median"] <= high
        assert len(row["seconds"]) == 2
        assert row["level"] >= 0.95
        assert row["rounds"] >= 8
        assert row["name"] in printed
        expected = {None} if row["bar"] is None else {"holds", "fails", "undecided"}
        assert row["verdict"] in expected
        missed = row["verdict"] in ("fails", "undecided")
        assert any(line.startswith(f"{row['name']}:") for line in result["shortcomings"]) == missed
    assert [row["depth"] for row in result["memory"]] == [0, 2, 4]
    assert all(row["verdict"] == "holds" and row["bar"] == 0 for row in result["memory"])


def test_memory_that_is_held_is_named():
    bad = cost.describe_holding(loops.Holding(2, 4, 0, 8, 0, 100, 100))
    assert bad["verdict"] == "fails"
    lines = cost.shortcomings({"comparisons": [], "memory": [bad]})
    assert len(lines) == 1
    assert lines[0].startswith("2 frozen: prefix holds 4 bytes for backward")


def test_depths_can_be_chosen():
    assert cost.parse_depths("all", 3) == [0, 1, 2]
    assert cost.parse_depths("2,0", 3) == [0, 2]
    for wrong in ("3", "-1", "a", ""):
        with pytest.raises(ValueError, match="from 0 to 2 with commas"):
            cost.parse_depths(wrong, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depths", "9"], "numbers from 0 to 4"),
        (["--repeats", "0"], "must be at least 1, got 0"),
        (["--device", "cuda", "--clock", "cpu"], "sees no work of a GPU"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cost.main(["--quick", "--device", "cpu", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_subject_is_driven_by_the_scheduler_itself():
    subject = loops.driven(toy("resnet-8-4"), 2)
    assert isinstance(subject.scheduler, FreezeOut)
    assert subject.scheduler.last_epoch == loops.STEPS_BEFORE_FREEZE
    before = [p.clone() for p in subject.model.parameters()]
    subject.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, subject.model.parameters(), strict=True)]
    frozen = {id(p) for p in subject.frozen_parameters()}
    assert [id(p) not in frozen for p in subject.model.parameters()] == moved
