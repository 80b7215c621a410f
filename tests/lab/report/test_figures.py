"""Figures of a report: what is drawn, what is left out and why, colours, SVG."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from freezeout.lab.evidence import RunRecord, StepTime, mean_interval
from freezeout.lab.report import Column, Table
from freezeout.lab.report.figures import (
    CELL_FIGURES,
    CROSS_FIGURES,
    Drawing,
    RatesFigure,
    RunsFigure,
    SavingFigure,
    StepsFigure,
    TimeFigure,
    TradeoffFigure,
)
from freezeout.lab.report.grouping import ArmKey, by_arm, representative, shorten
from freezeout.lab.report.palette import COLORS, PAPER, Palette, family_of, layer_colors
from freezeout.lab.report.table import cell_text
from tests.lab.report.records import CELL, comparison, cut_short, record, two_cells

ALL = (*CELL_FIGURES, *CROSS_FIGURES)
BY_ID = [pytest.param(kind, id=kind.id) for kind in ALL]
ARM = ArmKey("cubic, t0 = 0.8", "variant", None)


def draw(kind: type[RunsFigure], records: Sequence[RunRecord], *, narrow: bool = False) -> Drawing:
    return kind(records).draw(narrow=narrow)


def marked(drawing: Drawing, text: str) -> list[Line2D]:
    """Lines and points whose note has a text at the start of a line."""
    gids = {gid for gid, mark in drawing.marks.items() if f"\n{text}" in f"\n{mark.text}"}
    return [line for axes in drawing.figure.axes for line in axes.lines if line.get_gid() in gids]


def csv_rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.csv())))


def panels(drawing: Drawing) -> list[Axes]:
    return [axes for axes in drawing.figure.axes if axes.get_label() != "<colorbar>"]


def test_a_tradeoff_point_stands_at_the_means_of_its_arm() -> None:
    runs = comparison()
    mean = mean_interval([run.error for run in runs if run.arm == ARM.arm and run.error])
    rows = [row for row in csv_rows(TradeoffFigure(runs).table()) if row["arm"] == ARM.arm]
    (row,) = [row for row in rows if row["what"] == "mean"]
    assert float(row["error_percent"]) == mean.mean
    assert (float(row["error_interval_low"]), float(row["error_interval_high"])) == mean.interval
    assert float(row["saving_percent"]) == pytest.approx(18)
    assert [float(r["error_percent"]) for r in rows if r["what"] == "run"] == [
        run.error for run in runs if run.arm == ARM.arm
    ]
    (point,) = marked(draw(TradeoffFigure, runs), f"{ARM.arm}\nmean of 5 runs")
    assert point.get_xdata()[0] == pytest.approx(18)
    assert point.get_ydata()[0] == pytest.approx(mean.mean)


def test_a_shortened_baseline_stands_at_the_share_of_steps_it_leaves_out() -> None:
    rows = csv_rows(TradeoffFigure(comparison()).table())
    found = {row["saving_percent"] for row in rows if row["kind"] == "equal-time"}
    assert [float(value) for value in found] == [pytest.approx(18)]
    assert not [row for row in rows if row["kind"] == "control"]


def test_points_of_equal_saving_are_not_drawn_over_each_other() -> None:
    drawing = draw(TradeoffFigure, comparison())
    places = [
        line.get_xdata()[0]
        for line in marked(drawing, "mean of 5 runs")
        if len(line.get_xdata()) == 1
    ]
    assert len(places) == 5
    assert len({round(place, 1) for place in places}) == 5


def test_the_time_figure_has_every_arm_and_ends_where_runs_end() -> None:
    runs = comparison()
    drawing = draw(TimeFigure, runs)
    for key, members in by_arm(runs).items():
        (point,) = marked(drawing, f"{key.arm}\nmean of 5 runs")
        spent = mean_interval([run.train_seconds / 60 for run in members])
        assert point.get_xdata()[0] == pytest.approx(spent.mean)
    axes = panels(drawing)[0]
    assert axes.get_xlabel() == "training time (minutes)"
    finals = [run.error for run in runs if run.error is not None]
    bottom, top = axes.get_ylim()
    assert bottom < min(finals) < max(finals) < top < 60, "early errors would squash the rest"


@pytest.mark.parametrize("kind", [TimeFigure, TradeoffFigure], ids=["time", "tradeoff"])
def test_no_error_above_100_has_room(kind: type[RunsFigure]) -> None:
    runs = [
        record(f"r{seed}", seed=seed, error=error, predicted=0.2)
        for seed, error in enumerate((70.0, 90.0, 99.0))
    ]
    bottom, top = panels(draw(kind, runs))[0].get_ylim()
    assert 0 <= bottom < 70
    assert 99 < top <= 100
    assert "cut off there" in kind(runs).caption(), "the interval ends above 100 %"


def test_intervals_lie_within_the_time_figure_unless_it_says_so() -> None:
    near = [record(f"r{i}", seed=i, error=20.0 + i, seconds=300.0 + 9 * i) for i in range(4)]
    assert "cut off there" not in TimeFigure(near).caption()
    (axes,) = panels(draw(TimeFigure, near))
    errors = mean_interval([run.error for run in near if run.error is not None])
    spent = mean_interval([run.train_seconds / 60 for run in near])
    for mean, (low, high) in ((errors, axes.get_ylim()), (spent, axes.get_xlim())):
        assert mean.low is not None
        assert mean.high is not None
        assert low < mean.low < mean.high < high
    far = [record(f"r{i}", seed=i, error=20.0 + i, seconds=100.0 + 300 * i) for i in range(2)]
    assert "cut off there" in TimeFigure(far).caption()


@pytest.mark.parametrize(
    ("seconds", "unit"), [(100.0, "seconds"), (2000.0, "minutes"), (50_000.0, "hours")]
)
def test_the_unit_of_time_fits(seconds: float, unit: str) -> None:
    runs = [record(seconds=seconds)]
    assert f"({unit})" in panels(draw(TimeFigure, runs))[0].get_xlabel()
    assert unit in TimeFigure(runs).caption()


def test_rates_end_at_their_freeze_step() -> None:
    run = record(layers=4)
    rows = csv_rows(RatesFigure([run]).table())
    for layer, freeze in enumerate(run.freeze_steps):
        points = [(int(r["step"]), float(r["rate"])) for r in rows if r["layer"] == str(layer)]
        if freeze is None:
            assert points[-1][0] == run.total_steps
        else:
            assert points[-1] == (freeze, 0.0)
        known = dict(zip(run.rate_steps, run.rates[layer], strict=True))
        assert all(known[step] == rate for step, rate in points[:-1])


def test_schedules_of_one_height_share_their_scale_and_others_do_not() -> None:
    alike = comparison()
    low, high = record(), record("b", arm="cubic, t0 = 0.3", t0=0.3)
    assert "Vertical scales differ" not in RatesFigure([low]).caption()
    assert "Vertical scales differ" in RatesFigure([low, high]).caption()
    for runs in (alike, [low, high]):
        for axes in panels(draw(RatesFigure, runs)):
            heights = [max(line.get_ydata()) for line in axes.lines]
            assert max(heights) <= axes.get_ylim()[1], "cut off"


def test_step_times_are_thinned_without_mixing_depths() -> None:
    times = tuple(StepTime(i + 1, 0.1 if i < 1500 else 0.05, int(i >= 1500)) for i in range(3000))
    run = record(step_times=times, total_steps=3000)
    rows = [row for row in csv_rows(StepsFigure([run]).table()) if row["quantity"] == "step time"]
    assert 100 <= len(rows) <= 200
    assert all(float(r["seconds"]) == (0.05 if r["frozen"] == "1" else 0.1) for r in rows)
    (line,) = [m for m in marked(draw(StepsFigure, [run]), run.name) if m.axes is not None][:1]
    assert list(line.get_ydata()) == [1000 * float(row["seconds"]) for row in rows]


def test_savings_lie_where_they_were_predicted_and_measured() -> None:
    run = record(predicted=0.2, predicted_interval=(0.15, 0.25), measured=0.21)
    far = record("far", predicted=0.2, measured=0.3)
    (point,) = marked(draw(SavingFigure, [run]), run.name)
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((20, 21))
    assert "1 of 1 runs" in SavingFigure([run]).caption()
    assert "1 of 2 runs" in SavingFigure([run, far]).caption()
    (row,) = csv_rows(SavingFigure([run]).table())
    assert [float(row[k]) for k in ("predicted", "predicted_interval_low", "measured")] == [
        0.2,
        0.15,
        0.21,
    ]


def test_predicted_intervals_lie_within_the_axes_unless_the_caption_says_so() -> None:
    wide = record(predicted=0.2, predicted_interval=(0.02, 0.28), measured=0.21)
    wider = record("b", predicted=0.2, predicted_interval=(-0.9, 0.9), measured=0.21)
    low, high = panels(draw(SavingFigure, [wide]))[0].get_xlim()
    assert low <= 2 < 28 < high
    assert "cut off" not in SavingFigure([wide]).caption()
    low, high = panels(draw(SavingFigure, [wider]))[0].get_xlim()
    assert -50 < low < high < 50, "points would be squashed"
    assert "cut off at the edges" in SavingFigure([wider]).caption()
    assert "against the baseline of the same cell and seed" in SavingFigure([wide]).caption()


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize(
    ("layers", "labels"),
    [(1, [0]), (10, list(range(10))), (12, list(range(12))), (20, list(range(0, 20, 2)))],
)
def test_the_scale_of_layers_skips_none_or_evenly(
    layers: int, labels: list[int], narrow: bool
) -> None:
    drawing = draw(RatesFigure, [record(layers=layers)], narrow=narrow)
    (scale,) = [axes for axes in drawing.figure.axes if axes.get_label() == "<colorbar>"]
    axis = scale.xaxis if narrow else scale.yaxis
    assert [label.get_text() for label in axis.get_ticklabels()] == [str(i) for i in labels]


def test_the_baseline_is_named_where_no_points_are() -> None:
    runs = comparison()
    late = [run for run in runs if run.kind == "baseline" or run.arm == ARM.arm]
    (name,) = [
        text for text in panels(draw(TradeoffFigure, late))[0].texts if "base" in text.get_text()
    ]
    assert name.get_horizontalalignment() == "left"


ODD = {
    "one run": [record()],
    "no test": [record(tested=())],
    "only baselines": [
        record(f"b{i}", arm="baseline", kind="baseline", spacing=None, t0=1.0, seed=i)
        for i in range(2)
    ],
    "unfinished": [cut_short(record()), cut_short(record("b", seed=1), 0.0)],
    "no steps": [record(steps=0, finished=False, tested=(), step_times=(), memory=())],
    "no times": [record(step_times=(), memory=(), rates=(), rate_steps=())],
    "only memory": [record(step_times=())],
    "forty layers": [record(layers=40, predicted=0.2, measured=0.2)],
    "one layer": [record(layers=1)],
    "long names": [record("x" * 300, arm="a very long arm " * 20, predicted=0.1, measured=0.1)],
    "odd names": [
        record("$a$ <b>&\x00\ud800", arm="中文 $\\frac$ & <i>", predicted=0.1, measured=0.1)
    ],
    "not finite": [
        record(
            predicted=math.nan,
            measured=math.inf,
            tested=(replace(record().tested[0], error=math.nan),),
        )
    ],
    "equal": [record(f"r{i}", seed=i, error=5.0, predicted=0.0, measured=0.0) for i in range(3)],
    "negative": [record(predicted=-0.05, measured=-0.1, error=0.0)],
    "given freeze times": [record(spacing=None, arm="given", predicted=0.1)],
    "many arms": [
        record(f"{s}{t}{u}", arm=f"{s}, {u}, t0 = {t / 10}", spacing=s, scaled=u, t0=t / 10)
        for s in ("linear", "squared", "cubic")
        for t in range(1, 10)
        for u in (True, False)
    ],
    "orphans": [record("e", arm="e", kind="equal-time", of="gone", spacing=None)],
}


@pytest.mark.parametrize("runs", [pytest.param(v, id=k) for k, v in ODD.items()])
def test_odd_records_are_drawn_or_left_out_with_a_reason(runs: list[RunRecord]) -> None:
    for kind in ALL:
        reason = kind(runs).missing
        if reason is not None:
            assert reason.endswith(".")
            assert "\n" not in reason
            continue
        assert kind(runs).caption()
        assert kind(runs).table().rows
        svg = kind(runs).on_page("p", "label", narrow=True)
        ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("kind", "case", "part"),
    [
        (TradeoffFigure, "only baselines", "freezes anything"),
        (TradeoffFigure, "no test", "finished and tested"),
        (TradeoffFigure, "one run", "predicted"),
        (TimeFigure, "no test", "tested"),
        (RatesFigure, "no times", "rates"),
        (StepsFigure, "no times", "memory"),
        (SavingFigure, "one run", "measured"),
    ],
)
def test_what_is_missing_is_said(kind: type[RunsFigure], case: str, part: str) -> None:
    assert part in (kind(ODD[case]).missing or "")


@pytest.mark.parametrize("kind", BY_ID)
def test_svg_has_the_colours_and_fonts_of_the_page_and_nothing_from_outside(
    kind: type[RunsFigure],
) -> None:
    svg = kind(comparison(seeds=2)).on_page("fig-", 'a "label"')
    assert "var(--ink)" in svg
    assert not re.findall(r"#[0-9a-f]{6}", svg), "a colour outside the palette"
    for part in ("http", "font-family", "<metadata", "<script"):
        assert part not in svg
    (rules,) = re.findall("<style>(.*?)</style>", svg)
    assert all(rule.startswith(".fig-") for rule in rules.rstrip("}").split("}")), "of the page"
    ids = re.findall(r' id="([^"]+)"', svg)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("fig-") for name in ids)
    references = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
    assert references
    assert set(references) <= set(ids)
    assert "<text" in svg


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_seen_on_both_backgrounds() -> None:
    for color in COLORS:
        if color.name in ("paper", "grid"):
            continue
        least = 4.5 if color.name in ("ink", "soft") else 3.0 if "hue" in color.name else 2.5
        assert contrast(color.light, PAPER.light) >= least, color
        assert contrast(color.dark, PAPER.dark) >= least, color
    assert len({color.light for color in COLORS}) == len(COLORS), "the page tells them by colour"


def test_arms_differ_by_more_than_colour() -> None:
    for runs in (comparison(seeds=1), ODD["many arms"]):
        palette = Palette(runs)
        styles = [palette[key] for key in by_arm(runs)]
        assert len({style.id for style in styles}) == len(styles)
        looks = [(style.color, style.marker) for style in styles]
        assert len(set(looks)) == len(looks)
    styles = [Palette(comparison())[key] for key in by_arm(comparison())]
    assert len({(style.marker, style.dash) for style in styles}) == len(styles)


def test_a_variant_its_equal_time_baseline_and_its_control_share_their_colour() -> None:
    runs = comparison(seeds=1)
    palette = Palette(runs)
    family = [palette[r] for r in runs if ARM.arm in (r.arm, r.of)]
    assert len(family) == 3
    assert len({style.color for style in family}) == 1
    assert len({style.marker for style in family}) == 3
    others = {palette[r].color for r in runs if ARM.arm not in (r.arm, r.of)}
    assert family[0].color not in others


def test_variants_with_another_number_of_freezes_are_on_another_line() -> None:
    some = [run for run in comparison(seeds=1) if run.kind == "variant" and run.spacing == "cubic"]
    few = [
        replace(r, arm=f"{r.arm}:max_freezes=1", name=f"{r.name} x", max_freezes=1) for r in some
    ]
    assert [key.arm for key in by_arm([*few, *some])] == [r.arm for r in (*some, *few)]
    assert not {family_of(run) for run in some} & {family_of(run) for run in few}


def test_arms_are_ordered_with_their_company() -> None:
    names = [key.arm for key in by_arm(reversed(comparison()))]
    assert names[0] == "baseline"
    at = names.index(ARM.arm)
    assert names[at + 1 : at + 3] == [f"equal time to {ARM.arm}", f"control of {ARM.arm}"]
    assert [run.seed for run in by_arm(reversed(comparison()))[ARM]] == [0, 1, 2, 3, 4]


def test_a_finished_run_stands_for_its_arm() -> None:
    runs = [cut_short(record("a", seed=0)), record("b", seed=2), record("c", seed=1)]
    assert representative(runs).name == "c"


def test_layers_have_colours() -> None:
    assert len(set(layer_colors(16))) == 16
    assert len(layer_colors(40)) == 40
    assert len(layer_colors(1)) == 1


def test_names_are_shortened_in_the_middle() -> None:
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 5) == "abc"
    assert shorten("a\x00\ud800", 9) == "a\ufffd\ufffd"


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [
        (Column("a", "a"), None, "–"),
        (Column("a", "a"), math.nan, "–"),
        (Column("a", "a"), True, "yes"),
        (Column("a", "a"), 12345, "12,345"),
        (Column("a", "a", decimals=1, scale=100, unit="%"), -0.234, "−23.4 %"),
        (Column("a", "a", decimals=1, signed=True), 0.25, "+0.2"),
        (Column("a", "a", decimals=0), -0.2, "0"),
        (Column("a", "a", decimals=1, interval=True), (-1.0, 2.0), "−1.0 to 2.0"),
        (Column("a", "a"), "x", "x"),
    ],
)
def test_values_are_shown_rounded(column: Column, value: object, shown: str) -> None:
    assert cell_text(column, value) == shown  # type: ignore[arg-type]


def test_tables_check_their_rows() -> None:
    with pytest.raises(ValueError, match=r"one value per column, 1 in all, got 2"):
        Table("t", "t", (Column("a", "a"),), ((1, 2),))
    with pytest.raises(ValueError, match=r"must hold a pair of numbers or None, got 1"):
        Table("t", "t", (Column("a", "a", interval=True),), ((1,),))
    with pytest.raises(ValueError, match=r"must hold one value or None"):
        Table("t", "t", (Column("a", "a"),), (((1.0, 2.0),),))


def test_csv_keeps_numbers_whole() -> None:
    columns = (Column("a", "a", decimals=1), Column("b", "b", interval=True))
    rows = ((1 / 3, (0.1, 0.2)), (None, None))
    assert Table("t", "t", columns, rows).csv() == (f"a,b_low,b_high\n{1 / 3!r},0.1,0.2\n,,\n")


def test_cells_keep_apart() -> None:
    runs = two_cells()
    assert {row["cell"] for row in csv_rows(SavingFigure(runs).table())} == {
        CELL,
        "WRN-40-4 on CIFAR-100",
    }
