from __future__ import annotations

import dataclasses
import io
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console, RenderableType

from freezeout.report.plan_picture import build_savings_figure, draw_savings
from freezeout.report.plan_tables import (
    LayerRow,
    PlanRow,
    plan_text,
    print_plan,
    render_layers,
    render_plans,
)

LAYER = LayerRow(
    index=0,
    name="stem",
    forward=2e-3,
    backward=4e-3,
    optimizer=2.5e-4,
    flops=3_000_000_000,
    saved_bytes=12 * 2**20,
    parameter_bytes=2**21,
    state_bytes=2**21,
    share=0.625,
)
THREE_LAYERS = (
    LAYER,
    dataclasses.replace(
        LAYER,
        index=1,
        name="body.0.conv",
        forward=1e-3,
        backward=-2e-5,
        flops=0,
        saved_bytes=100,
        state_bytes=0,
        share=-0.002,
    ),
    dataclasses.replace(
        LAYER, index=2, name="head", forward=5e-4, optimizer=0.0, saved_bytes=2**20, share=0.3125
    ),
)
PLAN = PlanRow(
    spacing="linear",
    t0=0.5,
    seconds=4320.0,
    saving=0.173,
    low=0.161,
    high=0.184,
    flops_saving=0.24,
    memory_end=24_000_000,
    memory_mean_saving=0.22,
    first_scale=2.0,
    paper=0.14,
)
FOUR_PLANS = (
    PLAN,
    dataclasses.replace(PLAN, spacing="cubic", t0=0.5, saving=0.35, low=0.33, high=0.361),
    dataclasses.replace(PLAN, t0=0.75, saving=-0.004, low=-0.012, high=0.003, paper=0.07),
    dataclasses.replace(
        PLAN,
        spacing="budget",
        t0=None,
        low=None,
        high=None,
        first_scale=1.0,
        paper=None,
        memory_end=900,
    ),
)


def layer_table(rows: Any = THREE_LAYERS, **changes: Any) -> RenderableType:
    values = {"step_seconds": 0.01, "overhead_seconds": 6e-4, "saved_bytes": 14 * 2**20} | changes
    return render_layers(rows, **values)


def plan_table(rows: Any = FOUR_PLANS, **changes: Any) -> RenderableType:
    values = {"baseline_seconds": 5400.0, "total_steps": 100_000, "saved_bytes": 3 * 2**30}
    return render_plans(rows, **(values | changes))


def many_layers(count: int) -> list[LayerRow]:
    return [
        dataclasses.replace(
            LAYER, index=i, name=f"blocks.{i // 13}.layers.{i % 13}.conv", share=1 / (i + 1)
        )
        for i in range(count)
    ]


def on_terminal(table: RenderableType, width: int, encoding: str = "utf-8") -> str:
    """What a terminal shows, without the colours."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(
        file=stream, width=width, force_terminal=True, color_system="standard", legacy_windows=False
    )
    console.print(table)
    stream.flush()
    return re.sub("\x1b.*?m", "", raw.getvalue().decode(encoding))


# --- the tables ---------------------------------------------------------------------------------


def test_both_tables_in_full() -> None:
    assert plan_text(layer_table(), plan_table()).splitlines() == GOLDEN.strip("\n").splitlines()


GOLDEN = """
One training step: 10.0 ms, of which 0.60 ms outside the layers; 14.0 MiB held for the backward pass
                     forward backward optimizer FLOPs held params state   share
# layer                   ms       ms        ms  giga  MiB    MiB   MiB of step
----------------------------------------------------------------------------------------------------
0 stem                 2.000    4.000     0.250  3.00 12.0   2.00  2.00  62.5 % ####################
1 body.0.conv          1.000   -0.020     0.250  0.00 <0.1   2.00  0.00  -0.2 %
2 head                 0.500    4.000     0.000  3.00  1.0   2.00  2.00  31.2 % ##########
----------------------------------------------------------------------------------------------------
  outside the layers                                                      6.0 % ##
  whole step           3.500    7.980     0.500  6.00 14.0   6.00  4.00  99.5 %

Without freezing: 1h 30m in 100,000 training steps; 3.0 GiB held for the backward pass
               time of  predicted saving on              memory    mean    first   paper's
                   all  this machine, by        FLOPs   held at  memory  layer's  estimate
spacing    t0    steps  its measured costs      saved   the end   saved     rate   (FLOPs)
------------------------------------------------------------------------------------------
linear   0.50   1h 12m  17.3 % (16.1 to 18.4)  24.0 %  22.9 MiB  22.0 %    2.00x    14.0 %
linear   0.75   1h 12m  -0.4 % (-1.2 to 0.3)   24.0 %  22.9 MiB  22.0 %    2.00x     7.0 %
------------------------------------------------------------------------------------------
cubic    0.50   1h 12m  35.0 % (33.0 to 36.1)  24.0 %  22.9 MiB  22.0 %    2.00x    14.0 %
------------------------------------------------------------------------------------------
budget      -   1h 12m  17.3 %                 24.0 %     900 B  22.0 %    1.00x         -
------------------------------------------------------------------------------------------
Predicted saving: of the time of training steps, from layer costs measured on this machine; its 95 %
interval in brackets.
Paper's estimate: the paper's FLOP formula (backward as cheap as forward).
"""


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("count", [1, 39, 200])
def test_every_layer_has_one_line_that_fits(width: int, count: int) -> None:
    rows = many_layers(count)
    for text in (
        plan_text(layer_table(rows), width=width),
        plan_text(layer_table(rows, width=width), width=200),
        on_terminal(layer_table(rows), width),
    ):
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        rules = [i for i, line in enumerate(lines) if line[0] in "-─"]
        assert rules[1] - rules[0] == count + 1
        for i, line in enumerate(lines[rules[0] + 1 : rules[1]]):
            assert re.match(rf" *{i} +\S*layers\.{i % 13}\.conv +2\.\d", line)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_schedule_has_one_line_that_fits(width: int) -> None:
    lines = plan_text(plan_table(), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if re.match(r"(linear|cubic|budget) ", line)] == [
        "linear",
        "linear",
        "cubic",
        "budget",
    ]
    assert sum(line.startswith("---") for line in lines) == 4
    for words in ("17.3 % (16.1 to 18.4)", "this machine", "paper's", "14.0 %"):
        assert any(words in line for line in lines)


def test_what_has_no_room_is_named() -> None:
    rows = many_layers(39)
    assert "No room" not in plan_text(layer_table(rows), plan_table(), width=100)
    narrow = " ".join(plan_text(layer_table(rows), width=60).split())
    assert "No room at this width for: parameters, optimizer state, FLOPs, optimizer." in narrow
    assert "params" not in narrow
    narrow = " ".join(plan_text(plan_table(), width=60).split())
    assert "No room at this width for: mean memory saved, rate factor, FLOPs saved." in narrow
    assert "2.00x" not in narrow


@settings(max_examples=50, deadline=None)
@given(
    st.integers(40, 160),
    st.lists(
        st.tuples(
            st.text("ab.学_", min_size=1, max_size=60),
            st.floats(-1e-3, 1e3),
            st.integers(0, 10**15),
            st.floats(-0.5, 1.5),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_any_layers_fit_from_60_columns_on(width: int, layers: list[Any]) -> None:
    rows = [
        dataclasses.replace(
            LAYER, index=i, name=name, forward=t, flops=n, saved_bytes=n, state_bytes=n, share=share
        )
        for i, (name, t, n, share) in enumerate(layers)
    ]
    for text in (plan_text(layer_table(rows), width=width), on_terminal(layer_table(rows), width)):
        lines = text.splitlines()
        assert all(cell_len(line) <= width for line in lines)
        if width >= 60:
            start = next(i for i, line in enumerate(lines) if line[0] in "-─")
            assert [line.split()[0] for line in lines[start + 1 : start + 1 + len(rows)]] == [
                str(i) for i in range(len(rows))
            ]


def test_wide_characters_push_nothing_out_of_line() -> None:
    rows = [dataclasses.replace(LAYER, name="学" * 40), dataclasses.replace(LAYER, index=1)]
    lines = on_terminal(layer_table(rows), 80).splitlines()
    wide, usual = (next(line for line in lines if line.startswith(start)) for start in "01")
    assert cell_len(wide) == cell_len(usual)
    assert wide.endswith("62.5 % " + usual.rpartition(" ")[2])


def test_a_terminal_that_is_too_narrow_cuts_lines_but_never_wraps_them() -> None:
    for table, rows in ((layer_table(), 3), (plan_table(), 4)):
        lines = on_terminal(table, 30).splitlines()
        start = next(i for i, line in enumerate(lines) if line[0] == "─")
        body = [
            line for line in lines[start + 1 :] if re.match(r"[012] |linear|cubic|budget", line)
        ]
        assert len(body) == rows
        end = next(i for i, line in enumerate(lines) if line in body[-1:])
        assert set(lines[start + 1 : end + 1]) <= {*body, "─" * 30}


def test_bars_are_proportional_and_only_for_what_is_above_zero() -> None:
    lines = plan_text(layer_table()).splitlines()
    bars = {line.split()[1]: line.count("#") for line in lines if re.match("[012] ", line)}
    assert bars["stem"] == 2 * bars["head"] > 0
    assert bars["body.0.conv"] == 0
    assert "-0.2 %" in next(line for line in lines if "body.0.conv" in line)
    for share in (math.nan, -1.0, 0.0):
        text = plan_text(layer_table([dataclasses.replace(LAYER, share=share)], overhead_seconds=0))
        assert text.count("#") == 1  # the heading of the index


@pytest.mark.parametrize(
    ("encoding", "blocks"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), ("cp437", False)],
)
def test_blocks_only_where_the_terminal_has_them(encoding: str, blocks: bool) -> None:
    text = on_terminal(layer_table(), 80, encoding)
    assert ("█" in text) == ("─" in text) == blocks
    assert ("###" in text) == ("---" in text) == (not blocks)
    assert "?" not in text
    assert plan_text(layer_table(), plan_table()).isascii()


def test_microseconds_have_a_unit_in_any_encoding() -> None:
    rows = [dataclasses.replace(LAYER, forward=2e-6, backward=4e-6, optimizer=0.0)]
    assert "µs" in on_terminal(layer_table(rows, step_seconds=1e-5), 80)
    text = on_terminal(layer_table(rows, step_seconds=1e-5), 80, "ascii")
    assert " us " in text
    assert "2.000" in text


class TerminalStream(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [io.TextIOWrapper, TerminalStream])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.parametrize("columns", ["100", "30"])
def test_tables_are_printed_in_any_encoding(
    kind: type[io.TextIOWrapper], encoding: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    raw = io.BytesIO()
    tables = layer_table([dataclasses.replace(LAYER, name="größe")]), plan_table()
    stream = kind(raw, encoding=encoding)
    print_plan(*tables, stream=stream)
    text = raw.getvalue().decode(encoding)
    assert text.endswith("\n")
    plain = re.sub("\x1b.*?m", "", text)
    assert "linear" in plain
    if kind is TerminalStream:
        assert "\x1b[1m" in text
        assert max(map(len, plain.splitlines())) <= int(columns)
        assert ("─" in plain) == (encoding == "utf-8")
    else:
        assert text == plan_text(*tables).encode(encoding, "replace").decode(encoding) + "\n"
        assert ("gr??e" in text) == (encoding == "ascii")


def test_intervals_and_the_papers_column_are_optional() -> None:
    bare = [dataclasses.replace(PLAN, low=None, high=None, paper=None)]
    text = plan_text(plan_table(bare))
    assert "17.3 %" in text
    for words in (" to ", "interval", "Paper's", "paper's", "estimate", "FLOP formula"):
        assert words not in text
    mixed = plan_text(plan_table([*bare, PLAN]))
    assert "Paper's estimate: the paper's FLOP formula (backward as cheap as forward)." in mixed
    assert "95 % interval in brackets" in " ".join(mixed.split())
    assert next(line for line in mixed.splitlines() if line.startswith("linear")).endswith(" -")


def test_rows_and_tables_say_what_they_were_given() -> None:
    cases = [
        (lambda: layer_table([]), "rows must hold at least one layer, got none. Give"),
        (lambda: plan_table([]), "rows must hold at least one schedule, got none. Give"),
        (lambda: layer_table(step_seconds=0.0), "above 0 and finite, got 0.0. Measure"),
        (lambda: layer_table(step_seconds=math.nan), "got nan"),
        (lambda: plan_table(total_steps=0), "at least 1, got 0. Count"),
        (lambda: layer_table(width=39), "at least 40 columns, got 39. Try 80."),
        (lambda: plan_table(width=39), "at least 40 columns, got 39. Try 80."),
        (lambda: plan_text(width=39), "at least 40 columns, got 39. Try 80."),
        (lambda: dataclasses.replace(PLAN, low=None), "both None, got None and 0.184. Leave"),
    ]
    for act, words in cases:
        with pytest.raises(ValueError, match=re.escape(words)) as caught:
            act()
        assert "\n" not in str(caught.value)


# --- the picture --------------------------------------------------------------------------------

T0S = (0.4, 0.6, 0.8, 1.0)


def a_plan(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "curves": {
            name: [(t, 0.4 * (1 - t**p), 0.38 * (1 - t**p), 0.43 * (1 - t**p)) for t in T0S]
            for p, name in enumerate(("linear", "squared", "cubic"), 1)
        },
        "paper": {"linear": [(t, 0.2 * (1 - t)) for t in T0S], "cubic": [(0.4, 0.3), (0.8, 0.2)]},
        "budget": [(0.5, 0.2), (0.2, 0.3)],
        "title": "resnet20 on cifar10",
        "chosen": (0.8, 0.4 * (1 - 0.8**3), "cubic 0.8"),
    }
    return values | changes


def lines_of(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines if line.get_label()[0] != "_"}


def bands_of(axes: Any) -> list[PolyCollection]:
    return [item for item in axes.collections if isinstance(item, PolyCollection)]


def test_picture_holds_the_savings_in_percent() -> None:
    here, there = build_savings_figure(**a_plan()).axes[:2]
    left, right = lines_of(here), lines_of(there)
    for power, name in enumerate(("linear", "squared", "cubic"), 1):
        assert list(left[name].get_xdata()) == list(T0S)
        assert list(left[name].get_ydata()) == pytest.approx([40 * (1 - t**power) for t in T0S])
    assert list(right) == ["linear", "cubic"]
    assert right["cubic"].get_xydata().tolist() == [[0.4, 30.0], [0.8, 20.0]]
    assert left["cubic"].get_color() == right["cubic"].get_color() != left["linear"].get_color()
    assert here.get_title() == "this machine (measured costs)"
    assert "backward = forward" in there.get_title()
    assert here.get_ylim() == there.get_ylim()


def test_budget_says_what_lies_across() -> None:
    here = build_savings_figure(**a_plan()).axes[0]
    ((label, line),) = [item for item in lines_of(here).items() if "budget" in item[0]]
    assert line.get_xydata().tolist() == [[0.5, 20.0], [0.2, 30.0]]  # by saving
    assert "freeze time of the first layer, not t0" in label
    without = build_savings_figure(**a_plan(budget=None)).axes[0]
    assert list(lines_of(without)) == ["linear", "squared", "cubic"]


def test_intervals_are_bands_where_they_are_known() -> None:
    figure = build_savings_figure(**a_plan())
    assert len(bands_of(figure.axes[0])) == 3
    assert not bands_of(figure.axes[1])
    (path,) = bands_of(figure.axes[0])[0].get_paths()
    ys = path.vertices[:, 1][path.vertices[:, 0] == 0.4]
    assert sorted({round(y, 6) for y in ys}) == [22.8, 25.8]
    (legend,) = figure.legends
    assert "interval" in [text.get_text() for text in legend.get_texts()]

    curve = [(t, 0.1, None, None) if t > 0.7 else (t, 0.1, 0.05, 0.15) for t in T0S]
    figure = build_savings_figure(**a_plan(curves={"linear": curve}))
    (path,) = bands_of(figure.axes[0])[0].get_paths()
    assert path.vertices[:, 0].max() == 0.6

    bare = {"linear": [(t, 0.1, None, None) for t in T0S]}
    figure = build_savings_figure(**a_plan(curves=bare))
    assert not bands_of(figure.axes[0])
    assert "interval" not in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("x", [0.4, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("name", ["cubic 0.8", "cubic, t0 = 0.8, $ the one that was wanted: 20 %"])
def test_the_chosen_point_is_ringed_and_its_name_hides_no_curve(x: float, name: str) -> None:
    point = (x, 0.4 * (1 - x**3))
    figure = build_savings_figure(**a_plan(chosen=(*point, name)))
    here = figure.axes[0]
    (ring,) = [line for line in here.lines if line.get_label() == "_chosen"]
    assert ring.get_xydata().tolist() == [pytest.approx((x, 100 * point[1]))]
    figure.draw_without_rendering()
    (note,) = here.texts
    assert " ".join(note.get_text().split()) == name
    box = note.get_bbox_patch().get_window_extent()
    for line in lines_of(here).values():
        pixels = line.get_transform().transform(line.get_xydata())
        for start, end in pairwise(pixels):
            assert box.count_contains(np.linspace(start, end, 400)) == 0
    panel = here.get_window_extent()
    assert panel.x0 <= box.x0 < box.x1 <= panel.x1
    assert panel.y0 <= box.y0 < box.y1 <= panel.y1


def test_nothing_is_clipped_and_the_legend_covers_no_data() -> None:
    figure = build_savings_figure(**a_plan(title="a $ long_title " * 30))
    figure.draw_without_rendering()
    renderer = figure._get_renderer()
    page = figure.bbox
    (legend,) = figure.legends
    boxes = [legend.get_window_extent(renderer)]
    boxes += [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [figure._suptitle.get_window_extent(renderer)]
    for box in boxes:
        assert -1 <= box.x0 < box.x1 <= page.x1 + 1
        assert -1 <= box.y0 < box.y1 <= page.y1 + 1
    assert all(boxes[0].y1 <= axes.get_tightbbox(renderer).y0 for axes in figure.axes)


@pytest.mark.parametrize(
    "arguments",
    [
        a_plan(paper={}, budget=None, chosen=None),
        a_plan(curves={"linear": [(1.0, 0.0, None, None)]}, paper={"linear": []}),
        a_plan(curves={"linear": [(0.5, -0.1, -0.2, None)], "cubic": []}),
        a_plan(curves={f"own{i}": [(0.5, 0.1 * i, None, None)] for i in range(7)}, budget=[]),
        a_plan(curves={"linear": [(t / 200, 0.1, 0.0, 0.2) for t in range(1, 201)]}),
        a_plan(title="学" * 300, chosen=(0.0, 5.0, "学")),
    ],
    ids=["bare", "one", "negative", "own", "dense", "wide"],
)
def test_odd_plans_can_be_drawn(tmp_path: Path, arguments: dict[str, Any]) -> None:
    draw_savings(tmp_path / "plan.png", **arguments)
    header = (tmp_path / "plan.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG\r\n\x1a\n")
    assert [int.from_bytes(header[i : i + 4], "big") for i in (16, 20)] == [1200, 600]


def test_the_same_plan_gives_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    draw_savings(first, **a_plan())
    draw_savings(second, **a_plan())
    assert first.read_bytes() == second.read_bytes()
    assert sorted(tmp_path.iterdir()) == [first, second]
    draw_savings(second, **a_plan(chosen=None))
    assert first.read_bytes() != second.read_bytes()


def test_a_failure_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.png"
    path.write_bytes(b"old")

    def half(_figure: Figure, target: Any, **_options: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        draw_savings(path, **a_plan())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_picture_says_what_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end in \.png, got 'plan\.svg'\. Choose"):
        draw_savings(tmp_path / "plan.svg", **a_plan())
    with pytest.raises(ValueError, match=r"at least one point, got none in \['linear'\]\. Predict"):
        build_savings_figure(**a_plan(curves={"linear": []}))
    with pytest.raises(ValueError, match=r"along each of curves, got \[0\.5, 0\.4\] for 'cubic'"):
        build_savings_figure(
            **a_plan(curves={"cubic": [(0.5, 0.1, None, None), (0.4, 0.1, None, None)]})
        )
    with pytest.raises(ValueError, match=r"along each of paper, got \[0\.5, 0\.5\] for 'cubic'"):
        build_savings_figure(**a_plan(paper={"cubic": [(0.5, 0.1), (0.5, 0.1)]}))


def test_the_tables_need_no_matplotlib_and_the_picture_no_pyplot() -> None:
    code = (
        "import sys, freezeout.report.plan_tables\n"
        "assert 'matplotlib' not in sys.modules, 'too early'\n"
        "import freezeout.report.plan_picture\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
