"""The figure of plans: savings against `t0`, intervals, budgets, the plan that was chosen."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from freezeout.lab.report.figures import Drawing, PlanFigure
from freezeout.planning import Plan, paper_saving, plan
from freezeout.schedule import Spacing
from tests.strategies import made_costs

T0S = (0.4, 0.6, 0.8, 1.0)
SPACINGS: tuple[Spacing, ...] = ("linear", "squared", "cubic")
COSTS = made_costs([1.0, 0.6, 0.3], noise=[-0.1, -0.05, -0.02, 0.0, 0.03, 0.06, 0.1])
PAPER = [100.0, 200.0, 300.0, 400.0]


def planned(**settings: Any) -> Plan:
    return plan(settings.pop("costs", COSTS), 1000, **settings)


PLANS = [planned(t0=t0, spacing=spacing) for spacing in SPACINGS for t0 in T0S]
BUDGETS = [planned(saving=s, spacing="budget") for s in (0.1, 0.2, 0.3)]


def a_figure(**changes: Any) -> PlanFigure:
    values: dict[str, Any] = {
        "plans": PLANS,
        "paper_costs": PAPER,
        "budgets": BUDGETS,
        "chosen": PLANS[-2],
    } | changes
    return PlanFigure(values.pop("plans"), values.pop("paper_costs"), **values)


def lines_of(drawing: Drawing, axes: Axes) -> dict[str, Any]:
    """Curves by the id of their style."""
    return {
        drawing.marks[line.get_gid()].arms[0]: line
        for line in axes.lines
        if line.get_gid() in drawing.marks and line.get_linestyle() != "None"
    }


def bands_of(axes: Axes) -> list[PolyCollection]:
    return [item for item in axes.collections if isinstance(item, PolyCollection)]


def test_the_savings_are_drawn_in_percent() -> None:
    figure = a_figure()
    drawing = figure.draw()
    here, there = drawing.figure.axes[:2]
    left, right = lines_of(drawing, here), lines_of(drawing, there)
    names = {style.label: style.id for style in figure.legend}
    assert list(names)[:3] == list(SPACINGS)
    for i, name in enumerate(SPACINGS):
        line, estimates = left[names[name]], right[names[name]]
        assert list(line.get_xdata()) == list(estimates.get_xdata()) == list(T0S)
        savings = [100 * made.saving for made in PLANS[4 * i : 4 * i + 4]]
        assert list(line.get_ydata()) == pytest.approx(savings)
        paper = [100 * paper_saving(PAPER, t0, spacing=name) for t0 in T0S]
        assert list(estimates.get_ydata()) == pytest.approx(paper)
        assert line.get_color() == estimates.get_color()
    assert len({line.get_color() for line in left.values()}) == 4
    assert here.get_title() == "this machine (measured costs)"
    assert "backward = forward" in there.get_title()
    assert here.get_ylim() == there.get_ylim()


def test_the_table_has_what_is_drawn() -> None:
    rows = a_figure().rows()
    assert len(rows) == len(PLANS) + len(BUDGETS)
    made = PLANS[0]
    paper = paper_saving(PAPER, 0.4, spacing="linear")
    assert rows[0] == ("linear", 0.4, made.freeze_times[0], made.saving, made.interval, paper)
    assert rows[-1][:2] == ("budget", None)


def test_every_point_has_a_note_and_belongs_to_its_spacing() -> None:
    figure = a_figure()
    marks = [mark for mark in figure.draw().marks.values() if "t0 = 0.8" in mark.text]
    assert len(marks) == 2 * 3, "in both panels"
    assert {mark.text.split(",")[0] for mark in marks} == set(SPACINGS)
    saving = f"saving {100 * PLANS[-2].saving:.1f} %"
    assert any(mark.text.startswith("cubic") and saving in mark.text for mark in marks)
    assert {mark.arms for mark in marks} == {(style.id,) for style in figure.legend[:3]}


def test_a_budget_says_what_lies_across() -> None:
    figure = a_figure()
    drawing = figure.draw()
    line = lines_of(drawing, drawing.figure.axes[0])["budget"]
    assert line.get_xydata().tolist() == [
        pytest.approx([made.freeze_times[0], 100 * made.saving]) for made in BUDGETS
    ]
    assert "first layer's freeze time" in figure.legend[-1].label
    assert "freeze time of their first layer" in figure.caption()
    without = a_figure(budgets=())
    assert [style.label for style in without.legend] == list(SPACINGS)
    assert "budget" not in lines_of(without.draw(), without.draw().figure.axes[0])


def test_budgets_end_where_the_first_layer_is_at_its_least() -> None:
    more = [planned(saving=s, spacing="budget") for s in np.arange(0.02, 0.6, 0.02)]
    more = [made for made in more if made.reached]
    times = [made.freeze_times[0] for made in more]
    drawing = a_figure(budgets=more).draw()
    shown = list(lines_of(drawing, drawing.figure.axes[0])["budget"].get_xdata())
    assert 2 < len(shown) < len(more)
    assert shown == pytest.approx(times[: len(shown)])
    assert all(a > b for a, b in pairwise(shown))
    assert times[len(shown)] >= shown[-1]


def test_intervals_are_bands_where_they_are_known() -> None:
    drawing = a_figure().draw()
    here, there = drawing.figure.axes[:2]
    assert len(bands_of(here)) == 3
    assert not bands_of(there)
    (path,) = bands_of(here)[0].get_paths()
    ys = path.vertices[:, 1][path.vertices[:, 0] == 0.4]
    assert PLANS[0].interval is not None
    ends = [100 * end for end in PLANS[0].interval]
    assert sorted({round(y, 6) for y in ys}) == pytest.approx(ends, abs=1e-5)
    assert "95 % intervals" in a_figure().caption()

    brief = made_costs([1.0, 0.6, 0.3], noise=[0.0] * 3)
    some = [planned(t0=t0, spacing="linear", costs=brief) for t0 in T0S]
    figure = a_figure(plans=[*some, *PLANS[8:]])
    assert len(bands_of(figure.draw().figure.axes[0])) == 1
    figure = a_figure(plans=some)
    assert not bands_of(figure.draw().figure.axes[0])
    assert "interval" not in figure.caption()


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("chosen", [*PLANS[8:], BUDGETS[1]], ids=[*map(str, T0S), "budget"])
def test_the_chosen_plan_is_ringed_and_its_name_hides_no_curve(chosen: Plan, narrow: bool) -> None:
    drawing = a_figure(chosen=chosen).draw(narrow=narrow)
    here = drawing.figure.axes[0]
    (ring,) = [line for line in here.lines if line.get_markersize() == 12]
    x = chosen.freeze_times[0] if chosen.spacing == "budget" else chosen.schedule.t0
    assert ring.get_xydata().tolist() == [pytest.approx((x, 100 * chosen.saving))]
    drawing.place_labels()
    drawing.figure.draw_without_rendering()
    (note,) = here.texts
    assert note.get_text() == f"{chosen.spacing}: {100 * chosen.saving:.1f} %"
    box = note.get_bbox_patch().get_window_extent()
    for line in lines_of(drawing, here).values():
        pixels = line.get_transform().transform(line.get_xydata())
        for start, end in pairwise(pixels):
            assert box.count_contains(np.linspace(start, end, 400)) == 0
    panel = here.get_window_extent()
    assert panel.x0 <= box.x0 < box.x1 <= panel.x1
    assert panel.y0 <= box.y0 < box.y1 <= panel.y1


def test_nothing_is_clipped_and_the_legend_covers_no_data() -> None:
    figure = a_figure()
    drawing = figure.draw()
    drawing.add_title("a $ long_title " * 30)
    drawing.add_legend(figure.legend)
    drawing.place_labels()
    drawing.figure.draw_without_rendering()
    renderer = drawing.figure._get_renderer()
    page = drawing.figure.bbox
    (legend,) = drawing.figure.legends
    boxes = [legend.get_window_extent(renderer)]
    boxes += [axes.get_tightbbox(renderer) for axes in drawing.figure.axes]
    boxes += [drawing.figure._suptitle.get_window_extent(renderer)]
    for box in boxes:
        assert -1 <= box.x0 < box.x1 <= page.x1 + 1
        assert -1 <= box.y0 < box.y1 <= page.y1 + 1
    assert all(boxes[0].y1 <= axes.get_tightbbox(renderer).y0 for axes in drawing.figure.axes)


@pytest.mark.parametrize(
    "changes",
    [
        {"paper_costs": (), "budgets": (), "chosen": None},
        {"plans": PLANS[3:4], "paper_costs": (0.0,) * 4},
        {"plans": [planned(t0=t / 200, spacing="cubic") for t in range(10, 201)]},
        {"plans": [planned(t0=0.5, costs=made_costs([-0.2, -0.1], noise=[0.0]))], "budgets": ()},
    ],
    ids=["bare", "one", "dense", "negative"],
)
def test_odd_plans_can_be_drawn(changes: dict[str, Any]) -> None:
    figure = a_figure(**{"chosen": None, **changes})
    assert figure.missing is None
    assert figure.on_page("p", "label", narrow=True).startswith("<svg")
    assert figure.render("png")[:4] == b"\x89PNG"
    right = [text.get_text() for text in figure.draw().figure.axes[1].texts]
    assert ("no estimate" in right) == (sum(changes.get("paper_costs", PAPER)) == 0)


def test_what_is_missing_is_said() -> None:
    figure = PlanFigure([])
    assert figure.missing == "No schedule has a predicted saving."
    with pytest.raises(ValueError, match="figure 'savings' cannot be drawn: No schedule"):
        figure.draw()
