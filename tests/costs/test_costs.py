"""`Costs` as a value: files, arithmetic, the table, and which depths are measured."""

import itertools
import json
import math

import pytest
import torch

from freezeout import CostError, Costs, FreezeOut, Schedule, measure_costs, plan
from freezeout.costs.bench import MOST_DEPTHS, _spread
from tests.costs.costly import prices, true_seconds
from tests.costs.networks import measured, mlp

# --- Costs as a value --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def costs():
    return measure_costs(mlp(), torch.randn(3, 8), rounds=2)


def test_costs_survive_a_file(costs, tmp_path):
    costs.save(tmp_path / "costs.json")
    assert Costs.load(tmp_path / "costs.json") == costs
    assert json.loads((tmp_path / "costs.json").read_text())["batch_size"] == 3


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"layers": []}', "null", "{nonsense"])
def test_a_damaged_file_is_one_error(tmp_path, text):
    (tmp_path / "costs.json").write_text(text)
    with pytest.raises(CostError):
        Costs.load(tmp_path / "costs.json")


def test_damaged_values_are_one_error(costs):
    good = costs.to_dict()
    for key, value in [
        ("depths", [0, 2]),
        ("depths", [1, 2, 3]),
        ("rounds", []),
        ("rounds", [[1.0]]),
        ("rounds", [[1.0, 1.0, 1.0, -1.0]]),
        ("rounds", [[1.0, 1.0, 1.0, math.nan]]),
        ("layers", good["layers"][:1]),
        ("layers", [{"name": "x"}] * 4),
        ("layers", [{**good["layers"][0], "forward": math.nan}, *good["layers"][1:]]),
        ("layers", [{**good["layers"][0], "backward": "1"}, *good["layers"][1:]]),
        ("layers", [{**good["layers"][0], "saved_bytes": 1.5}, *good["layers"][1:]]),
        ("layers", [{**good["layers"][0], "saved_bytes": -1}, *good["layers"][1:]]),
        ("overhead", None),
        ("rounds", [["1.0"] * 4]),
    ]:
        with pytest.raises(CostError, match="these are not costs"):
            Costs.from_dict({**good, key: value})
    with pytest.raises(CostError, match="these are not costs"):
        Costs.from_dict({k: v for k, v in good.items() if k != "device"})


def test_overhead_is_added_to_every_step(costs):
    more = costs.with_overhead(0.25)
    for depth in range(len(costs)):
        assert more.step_seconds(depth) == pytest.approx(costs.step_seconds(depth) + 0.25)
    assert more.rounds[1][0] == pytest.approx(costs.rounds[1][0] + 0.25)
    assert plan(more, 100, t0=0.5).saving < plan(costs, 100, t0=0.5).saving or (
        plan(costs, 100, t0=0.5).saving <= 0
    )
    for bad in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match="seconds must be at least 0 and finite"):
            costs.with_overhead(bad)


def test_accumulation_repeats_all_but_the_optimizer(virtual):
    price = prices(5)
    costs = measured(virtual, price, seconds=0.001)
    four = costs.accumulated(4)
    for depth in range(5):
        expected = 4 * true_seconds(price, depth) + 0.001 * (5 - depth)
        assert four.step_seconds(depth) == pytest.approx(expected)
        assert four.rounds[0][depth] == pytest.approx(expected)
        assert four.step_flops(depth) == 4 * costs.step_flops(depth)
    assert four.saved_bytes() == costs.saved_bytes()
    assert costs.accumulated(1) == costs
    for bad, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match=r"micro_batches must be (a whole number of )?at least 1"):
            costs.accumulated(bad)


def test_depths_out_of_range_are_refused(costs):
    for depth in (-1, 4):
        for what in (costs.step_seconds, costs.step_flops, costs.saved_bytes, costs.state_bytes):
            with pytest.raises(ValueError, match=f"depth must lie in 0 to 3, got {depth}"):
                what(depth)


def test_the_table_names_every_layer_and_adds_up(virtual):
    costs = measured(virtual, prices(4))
    lines = str(costs).splitlines()
    assert [line.split()[1] for line in lines[1:-1]] == list(costs.names)
    assert lines[-1].startswith("step: ")
    assert len({len(line.split()) for line in lines[1:-1]}) == 1


def test_rounds_stretched_to_every_depth_keep_what_was_measured(virtual):
    price = prices(20)
    found = measured(virtual, price)
    for row, full in zip(found.rounds, found.round_seconds(), strict=True):
        assert len(full) == 20
        assert [full[d] for d in found.depths] == pytest.approx(list(row))
        assert full == pytest.approx([found.step_seconds(d) for d in range(20)])


# --- Which depths ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 6, 7, 12, 40, 200])
@pytest.mark.parametrize("shape", ["even", "first", "last", "nothing"])
def test_measured_depths_reach_from_end_to_end_and_divide_the_cost(count, shape):
    weights = {
        "even": [1.0] * count,
        "first": [100.0] + [0.01] * (count - 1),
        "last": [0.01] * (count - 2) + [100.0, 1.0],
        "nothing": [0.0] * count,
    }[shape]
    depths = _spread(weights)
    assert depths == sorted(set(depths))
    assert depths[0] == 0
    assert depths[-1] == count - 1
    assert len(depths) == min(count, MOST_DEPTHS)
    if shape == "even" and count > 20:
        gaps = [b - a for a, b in itertools.pairwise(depths)]
        assert max(gaps) <= 1.5 * (count - 1) / (MOST_DEPTHS - 1)


def test_the_same_cut_as_freezeout_makes():
    net = mlp()
    costs = measure_costs(net, torch.randn(2, 8), rounds=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    made = plan(costs, 100, t0=0.5, spacing="linear")
    scheduler = FreezeOut(optimizer, net, made.total_steps, schedule=made.schedule)
    assert scheduler.layers.names == costs.names
    assert scheduler.freeze_steps == made.freeze_steps
    made.check(scheduler.layers)
    assert isinstance(made.schedule, Schedule)
