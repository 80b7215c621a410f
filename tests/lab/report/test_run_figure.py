"""The figure of a run: rates with freeze points, step times with their medians."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from freezeout.lab.evidence import RunRecord, StepTime
from freezeout.lab.report.figures import Drawing, RunFigure
from freezeout.lab.report.palette import PAPER
from tests.lab.report.records import record


def a_run(layers: int = 5, **changes: Any) -> RunRecord:
    """A run of 1000 steps, linear freeze times from 0.5, with one slow window."""
    times = [0.5 + 0.5 * i / max(1, layers - 1) for i in range(layers)]
    steps = tuple(range(0, 1001, 10))
    freeze: list[int | None] = [math.ceil(1000 * t) for t in times[:-1]]
    freeze.append(None)
    windows = []
    for step in range(10, 1001, 10):
        frozen = sum(at is not None and at < step for at in freeze)
        seconds = 0.1 * (1 - 0.5 * frozen / layers) * (1 + 0.01 * (step % 3))
        windows.append((step, 5.0 if step == 20 else seconds, frozen))
    values: dict[str, Any] = {
        "layer_names": tuple(f"block.{i}" for i in range(layers)),
        "rate_steps": steps,
        "rates": tuple(
            tuple(0.05 / t * (1 + math.cos(math.pi * min(1.0, s / 1000 / t))) for s in steps)
            for t in times
        ),
        "freeze_steps": tuple(freeze),
        "step_times": timed(windows),
        "total_steps": 1000,
        "steps": 1000,
    }
    return record(layers=layers, **values | changes)


def timed(windows: Sequence[tuple[int, float, int]]) -> tuple[StepTime, ...]:
    return tuple(StepTime(*window) for window in windows)


def drawn(run: RunRecord) -> Figure:
    return RunFigure(run).draw().figure


def curves(figure: Figure) -> list[Line2D]:
    """The rate curves: every line of the upper panel that is no straight mark."""
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]


def dots(figure: Figure) -> list[Line2D]:
    return [line for line in figure.axes[0].lines if line.get_marker() == "o"]


def places(points: Sequence[Line2D]) -> list[Any]:
    return [
        pytest.approx((point.get_xdata()[0], point.get_ydata()[0]), abs=1e-12) for point in points
    ]


def labelled(axes: Axes, label: str) -> list[Any]:
    return [artist for artist in axes.get_children() if artist.get_label() == label]


def upright(axes: Axes) -> list[float]:
    return [line.get_xdata()[0] for line in axes.lines if list(line.get_ydata()) == [0, 1]]


@pytest.mark.parametrize("layers", [2, 5, 110])
def test_there_is_a_curve_per_layer_and_a_dot_per_freeze(layers: int) -> None:
    run = a_run(layers)
    figure = drawn(run)
    lines = curves(figure)
    assert len(lines) == layers
    for layer, line in enumerate(lines):
        freeze = run.freeze_steps[layer]
        before = [s for s in run.rate_steps if freeze is None or s < freeze]
        assert list(line.get_xdata())[: len(before)] == pytest.approx([s / 10 for s in before])
        known = run.rates[layer][: len(before)]
        assert list(line.get_ydata())[: len(before)] == pytest.approx(known)
        assert line.get_xdata()[-1] == pytest.approx(100 if freeze is None else freeze / 10)
        assert line.get_ydata()[-1] == pytest.approx(0.0, abs=1e-12)
    freezes = [(at / 10, 0.0) for at in run.freeze_steps if at is not None]
    assert places(dots(figure)) == freezes
    # The dot has its curve's colour; layers have different ones as far as there are any.
    assert dots(figure)[0].get_markerfacecolor() == lines[0].get_color()
    assert len({line.get_color() for line in lines}) == min(layers, 16)


def test_rates_that_do_not_anneal_keep_their_value_at_the_freeze_point() -> None:
    figure = drawn(a_run(rates=((0.1,) * 101,) * 5))
    assert [point.get_ydata()[0] for point in dots(figure)] == pytest.approx([0.1] * 4)


def test_a_control_freezes_nothing() -> None:
    figure = drawn(a_run(kind="control", of="a"))
    assert not dots(figure)
    assert not upright(figure.axes[1])
    assert all(line.get_xdata()[-1] == 100 for line in curves(figure))


def test_the_step_time_panel_starts_at_zero_and_ignores_outliers() -> None:
    lower = drawn(a_run()).axes[1]
    bottom, top = lower.get_ylim()
    assert bottom == 0.0
    assert 102 < top < 150
    (inside,) = labelled(lower, "step times")
    (above,) = labelled(lower, "slower, beyond the axis")
    assert len(inside.get_xdata()) == 99
    assert list(above.get_xdata()) == pytest.approx([2])
    assert 0.9 * top < above.get_ydata()[0] < top


def test_step_time_medians_are_a_stair_over_the_frozen_depth() -> None:
    run = a_run()
    drawing = RunFigure(run).draw()
    lower = drawing.figure.axes[1]
    (stair,) = labelled(lower, "median per frozen depth")

    by_depth: dict[int, list[float]] = {}
    for time in run.step_times:
        by_depth.setdefault(time.frozen, []).append(1000 * time.seconds)
    heights = []
    for depth in sorted(by_depth):
        values = sorted(by_depth[depth])
        middle = (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2
        heights += [middle, middle]
    assert list(stair.get_ydata()) == pytest.approx(heights)
    ends = [max(t.step for t in run.step_times if t.frozen == depth) for depth in range(5)]
    starts = [0, *ends[:-1]]
    corners = [x / 10 for pair in zip(starts, ends, strict=True) for x in pair]
    assert list(stair.get_xdata()) == pytest.approx(corners)
    change = round(100 * (heights[-1] / heights[0] - 1))
    assert change < 0
    assert f"−{-change} %" in [text.get_text() for text in lower.texts]
    note = drawing.marks[str(stair.get_gid())].text
    assert f"4 frozen: {heights[-1]:.3g} ms" in note.splitlines()


@pytest.mark.parametrize("last", [0.03, 0.035, 0.06, 0.12])
@pytest.mark.parametrize("windows", [2, 5, 30])
def test_the_end_label_leaves_the_median_lines_free(last: float, windows: int) -> None:
    times = [(10 * i, 0.1, 0) for i in range(1, 71)]
    times += [(700 + 10 * i, 0.055, 1) for i in range(1, 31 - windows)]
    times += [(1000 - 10 * i, last, 2) for i in reversed(range(windows))]
    drawing = RunFigure(a_run(step_times=timed(times))).draw()
    drawing.place_labels()
    lower = drawing.figure.axes[1]
    canvas = FigureCanvasAgg(drawing.figure)
    canvas.draw()
    (label,) = [text for text in lower.texts if text.get_text().endswith(" %")]
    box = label.get_bbox_patch().get_window_extent(canvas.get_renderer())
    for line in lower.lines:
        if list(line.get_ydata()) == [0, 1] or line.get_label() == "step times":
            continue  # a hairline at a freeze; points
        pixels = line.get_transform().transform(line.get_xydata())
        for start, end in itertools.pairwise(pixels):
            along = np.linspace(start, end, 500)
            assert box.count_contains(along[~np.isnan(along).any(axis=1)]) == 0
    inside = lower.get_window_extent()
    assert inside.y0 < box.y0 < box.y1 < inside.y1
    assert inside.x0 < box.x0 < box.x1 < inside.x1
    assert not box.overlaps(lower.get_legend().get_window_extent())


def test_medians_of_few_windows_are_dashed() -> None:
    times = [(10 * i, 0.1, 0) for i in range(1, 51)]
    times += [(500 + 10 * i, 0.08, 1) for i in range(1, 5)]
    times += [(540 + 10 * i, 0.06, 2) for i in range(1, 6)]
    lower = drawn(a_run(step_times=timed(times))).axes[1]
    (solid,) = labelled(lower, "median per frozen depth")
    (dashed,) = labelled(lower, "median of fewer than 5 times")
    assert [y for y in solid.get_ydata() if y == y] == pytest.approx([100, 100, 60, 60])
    assert [y for y in dashed.get_ydata() if y == y] == pytest.approx([100, 80, 80, 60])
    assert dashed.get_linewidth() < solid.get_linewidth()
    assert dashed.is_dashed()
    assert not solid.is_dashed()
    shown = [text.get_text() for text in lower.get_legend().get_texts()]
    assert "median of fewer than 5 times" in shown
    usual = drawn(a_run()).axes[1].get_legend().get_texts()
    assert "median of fewer than 5 times" not in [text.get_text() for text in usual]


def test_freezes_are_hairlines_across_the_step_times() -> None:
    assert upright(drawn(a_run()).axes[1]) == pytest.approx([50, 62.5, 75, 87.5])


def test_an_interrupted_run_is_shaded_and_its_coming_freezes_are_hollow() -> None:
    run = a_run()
    times = tuple(time for time in run.step_times if time.step <= 700)
    cut = a_run(step_times=times, steps=700, finished=False)
    figure = drawn(cut)
    hollow = [point.get_markerfacecolor() == PAPER.light for point in dots(figure)]
    assert hollow == [False, False, True, True]
    assert "stopped at step 700" in [text.get_text() for text in figure.axes[0].texts]
    assert all(axes.patches[0].get_x() == pytest.approx(70) for axes in figure.axes[:2])
    assert "hollow dots" in RunFigure(cut).caption()
    assert not drawn(run).axes[0].patches
    assert "hollow dots" not in RunFigure(run).caption()
    assert sorted(upright(figure.axes[1])) == pytest.approx([50, 62.5, 70])


def test_rates_recorded_only_so_far_end_without_a_dot() -> None:
    run = a_run()
    rates = tuple(row[:56] for row in run.rates)
    figure = drawn(a_run(rate_steps=run.rate_steps[:56], rates=rates, steps=550))
    assert places(dots(figure)) == [(50, 0.0)]


def test_the_axis_shows_progress_and_steps() -> None:
    lower = drawn(a_run()).axes[1]
    assert lower.get_xlim() == (0, 100)
    assert lower.xaxis.get_major_formatter()(40, 2) == "40\n400"


def test_names_of_few_layers_are_written_beside_their_colours() -> None:
    def names(run: RunRecord, *, narrow: bool = False) -> list[str]:
        drawing: Drawing = RunFigure(run).draw(narrow=narrow)
        axis = drawing.figure.axes[2].xaxis if narrow else drawing.figure.axes[2].yaxis
        return [label.get_text() for label in axis.get_ticklabels()]

    assert names(a_run(3)) == ["0  block.0", "1  block.1", "2  block.2"]
    assert names(a_run(3), narrow=True) == ["0", "1", "2"]
    assert names(a_run(20)) == [str(i) for i in range(0, 20, 2)]
    assert names(a_run(2, layer_names=("$a" * 30, "b"))) == ["0  …a" + "$a" * 8, "1  b"]


@pytest.mark.parametrize(
    "run",
    [
        a_run(1),
        a_run(1, step_times=timed([(10, 0.1, 0)])),
        a_run(2, step_times=()),
        a_run(step_times=timed([(10, 0.0, 0), (20, 0.0, 1)])),
        a_run(step_times=timed([(10, 0.1, 3), (20, 0.1, 4)])),
        a_run(step_times=timed([(10, math.nan, 0), (20, 0.1, 0)])),
        a_run(steps=0, finished=False, step_times=()),
        a_run(rates=((0.0,) * 101,) * 5, base_rate=0.0),
        a_run(steps=990, finished=False),
        a_run(layer_names=("$a_{$", "b" * 60, "学", "\ud800", "e"), name="a\x00$"),
    ],
    ids=["one", "1-window", "none", "0", "resumed", "nan", "nothing", "zeros", "late", "names"],
)
def test_odd_runs_can_be_drawn(run: RunRecord) -> None:
    figure = RunFigure(run)
    assert figure.missing is None
    assert figure.on_page("p", "label", narrow=True).startswith("<svg")
    assert figure.table().rows
    assert figure.render("png")[:4] == b"\x89PNG"


def test_what_is_missing_is_said() -> None:
    reason = "No learning rates were recorded."
    run = a_run(rates=(), rate_steps=())
    for odd in (
        run,
        a_run(rates=((0.1,),) * 5),
        a_run(freeze_steps=(1, None)),
        a_run(total_steps=0),
    ):
        assert RunFigure(odd).missing == reason
    with pytest.raises(ValueError, match=f"figure 'run' cannot be drawn: {reason}"):
        RunFigure(run).draw()
