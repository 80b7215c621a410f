"""The paper's estimate: its published values, and where it departs from the schedule."""

import pytest

from freezeout.planning import densenet_costs, paper_saving
from freezeout.schedule import freeze_times

# DenseNet-BC, k = 12, L = 76: the speed axis of the paper's figure, in percent.
PUBLISHED = {
    "linear": (4.5, 9.0, 13.5, 18.0, 22.5, 27.0, 31.5, 36.0, 40.5),
    "cubic": (9.6, 17.8, 24.6, 30.3, 34.8, 38.5, 41.3, 43.4, 44.9),
}
T0S = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@pytest.mark.parametrize("spacing", PUBLISHED)
def test_published_values(spacing):
    costs = densenet_costs(76, 12)
    ours = [round(100 * paper_saving(costs, t0, spacing=spacing), 1) for t0 in T0S]
    assert tuple(ours) == PUBLISHED[spacing]


def test_costs_of_a_small_densenet_by_hand():
    """One layer per block, k = 2, images of 8 pixels; a transition halves 3 units to 1, 2 to 1."""
    stem = 3 * 9 * 4 * 64
    first = (4 * 8 + 9 * 8 * 2) * 64  # 4 channels in, a bottleneck of 4 k = 8
    second = (2 * 8 + 9 * 8 * 2) * 16
    third = (2 * 8 + 9 * 8 * 2) * 4
    assert densenet_costs(10, 2, image_size=8) == (stem, first, second, third)
    assert len(densenet_costs(76, 12)) == 37


@pytest.mark.parametrize(
    ("spacing", "power", "factor"), [("linear", 1, 1.3), ("squared", 2, 1.0), ("cubic", 3, 1.0)]
)
def test_two_equal_layers_by_hand(spacing, power, factor):
    """Freeze times run over i / L, to 0.75 and not to 1; only the linear ones have the 1.3."""
    saved = ((1 - 0.5**power) + (1 - 0.75**power)) / (2 + 2)
    assert paper_saving((7, 7), 0.5, spacing=spacing) == pytest.approx(factor * saved, rel=1e-15)
    by_schedule = sum(1 - t for t in freeze_times(2, 0.5, spacing=spacing)) / 4
    assert by_schedule < 0.9 * saved


def test_costs_weigh_the_layers_in_any_unit():
    first, last = paper_saving((1, 0), 0.5), paper_saving((0, 1), 0.5)
    assert first == (1 - 0.5**3) / 2
    assert last == (1 - 0.75**3) / 2
    assert paper_saving((3, 1), 0.5) == pytest.approx((3 * first + last) / 4, rel=1e-15)
    assert paper_saving((3e9, 1e9), 0.5) == pytest.approx(paper_saving((3, 1), 0.5), rel=1e-15)


def test_nothing_is_saved_at_t0_of_one():
    assert paper_saving((1, 2, 3), 1.0) == 0.0


@pytest.mark.parametrize(
    ("costs", "got"), [((), "0.0"), ((0, 0), "0.0"), ((1, -2), "-1.0"), ((1, float("nan")), "nan")]
)
def test_costs_must_add_up_to_something(costs, got):
    with pytest.raises(ValueError, match="costs") as caught:
        paper_saving(costs, 0.5)
    assert str(caught.value) == (
        f"costs must add up to more than 0, got {got}. Give forward FLOPs."
    )


def test_t0_and_spacing_are_those_of_a_schedule():
    with pytest.raises(ValueError, match=r"t0 must lie in \(0, 1\], got 2\."):
        paper_saving((1, 1), 2)
    with pytest.raises(TypeError, match="t0 must be a number"):
        paper_saving((1, 1), "0.5")
    with pytest.raises(ValueError, match=r"spacing must be one of .*, got 'quartic'"):
        paper_saving((1, 1), 0.5, spacing="quartic")


@pytest.mark.parametrize("depth", [4, 75, 77, 80])
def test_depths_that_no_densenet_has(depth):
    with pytest.raises(ValueError, match="depth") as caught:
        densenet_costs(depth, 12)
    assert str(caught.value) == (
        f"depth must be 6n + 4 for a whole n of at least 1, got {depth}. The paper's is 76."
    )
