"""What ``freezeout plan`` prints and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from freezeout.cli.plan_subject import Subject
from freezeout.cli.show import discard_output
from freezeout.cost import Costs
from freezeout.errors import RunError
from freezeout.paper_estimate import paper_saving
from freezeout.planner import plan
from freezeout.report.plan_tables import (
    LayerRow,
    PlanRow,
    print_plan,
    render_layers,
    render_plans,
)
from freezeout.saving import Plan
from freezeout.schedule import Spacing
from freezeout.training.checkpoint import write_atomically
from freezeout.training.folder import RunFolder

__all__ = ["Outcome", "show", "write", "write_costs"]

_SPACINGS: tuple[Spacing, ...] = ("linear", "squared", "cubic")
_TABLE_T0 = (0.9, 0.8, 0.7, 0.6, 0.5)
_TABLE_BUDGETS = (0.1, 0.2, 0.3, 0.4)
_WIDE = 0.1
_LEAST_ROUNDS = 6  # for an interval
_STEEP = 10.0
_PLOT_T0 = tuple(i / 20 for i in range(2, 21))
_PLOT_BUDGETS = tuple(i / 40 for i in range(1, 40))


@dataclass(frozen=True)
class Outcome:
    """All that there is to show.

    Attributes:
        subject: The network and its run.
        costs: Its measured costs.
        rates: Settings of rates, for schedules that are tried.
        chosen: The plan for a wish, if there was one.
    """

    subject: Subject
    costs: Costs
    rates: Mapping[str, Any]
    chosen: Plan | None

    def try_t0(self, t0: float, spacing: Spacing) -> Plan | None:
        """The plan with this `t0`; ``None`` where a warm-up leaves no room for it."""
        try:
            return plan(self.costs, self.subject.total_steps, t0=t0, spacing=spacing, **self.rates)
        except ValueError:
            if not self.rates["warmup_steps"]:
                raise
            return None

    def budgets(self, savings: Sequence[float]) -> list[Plan]:
        """Budget plans for those of the savings that can be reached."""
        tried = (
            plan(self.costs, self.subject.total_steps, saving=s, spacing="budget", **self.rates)
            for s in savings
        )
        return [made for made in tried if made.reached]


def show(outcome: Outcome, folder: RunFolder, stream: IO[str]) -> None:
    """Prints the layers, then the plan that was asked for or else schedules to choose from."""
    try:
        _show(outcome, folder, stream)
        stream.flush()
    except OSError:
        discard_output()


def _show(outcome: Outcome, folder: RunFolder, stream: IO[str]) -> None:
    costs, subject = outcome.costs, outcome.subject
    step = costs.step_seconds(0)
    print(f"{subject.title}  ({costs.device}, torch {costs.torch_version})", file=stream)
    for note in subject.notes:
        print(f"note: {note}", file=stream)
    if len(costs.rounds) < _LEAST_ROUNDS:
        print(
            f"note: fewer than {_LEAST_ROUNDS} rounds give no interval, and single layers may be "
            "far off (--rounds)",
            file=stream,
        )
    if _unsure(outcome):
        print(
            "note: the machine was disturbed while it was measured, so intervals are wide; measure "
            "again when it is quiet, or longer, with --rounds 20",
            file=stream,
        )
    print(file=stream)
    layers = render_layers(
        [
            LayerRow(
                index=i,
                name=layer.name,
                forward=layer.forward,
                backward=layer.backward,
                optimizer=layer.optimizer,
                flops=layer.forward_flops + layer.backward_flops,
                saved_bytes=layer.saved_bytes,
                parameter_bytes=layer.parameter_bytes,
                state_bytes=layer.state_bytes,
                share=layer.seconds / step,
            )
            for i, layer in enumerate(costs.layers)
        ],
        step_seconds=step,
        overhead_seconds=costs.overhead,
        saved_bytes=costs.saved_bytes(),
    )
    print_plan(layers, stream=stream)
    print(file=stream)
    if outcome.chosen is not None:
        print(outcome.chosen, file=stream)
        steepest = max(outcome.chosen.schedule.scales(len(costs)))
        if steepest > _STEEP:
            print(
                f"note: rates start at up to {steepest:.0f} times the base rate, which may "
                "diverge; --scale-cap 4 or --no-scaled is safer",
                file=stream,
            )
        print(file=stream)
        print(f"written: {folder.path}; train as planned:", file=stream)
        print(subject.usage(folder.plan_file), file=stream)
        return
    rows = _rows(outcome)
    curves = sum(row.t0 is not None for row in rows)
    if curves < len(_SPACINGS) * len(_TABLE_T0):
        print("Schedules that would freeze during the warm-up are left out.", file=stream)
    print_plan(
        render_plans(
            rows,
            baseline_seconds=subject.total_steps * step,
            total_steps=subject.total_steps,
            saved_bytes=costs.saved_bytes(),
        ),
        stream=stream,
    )
    print(file=stream)
    print(f"written: {folder.path} (costs.json, savings.png)", file=stream)
    print("for one schedule: --saving 25%, --time 2h or --t0 0.8", file=stream)


def _unsure(outcome: Outcome) -> bool:
    """Whether the paper's default could save much more or much less than predicted."""
    made = outcome.chosen or outcome.try_t0(0.8, "cubic")
    if made is None or made.interval is None:
        return False
    low, high = made.interval
    return high - low > _WIDE


def write_costs(costs: Costs, folder: RunFolder) -> None:
    """Makes the folder and writes ``costs.json``.

    Raises:
        RunError: If the disk does not take it.
    """
    folder.make()
    write_atomically(folder.path / "costs.json", lambda file: file.write(costs.to_json()))


def write(outcome: Outcome, folder: RunFolder) -> None:
    """Writes ``savings.png`` and, where a plan was asked for, ``plan.json``.

    Raises:
        RunError: If the disk does not take them.
    """
    from freezeout.report.plan_picture import draw_savings

    if outcome.chosen is not None:
        folder.write_plan(outcome.chosen)
    paper = outcome.subject.paper_costs(outcome.costs)
    budgets = outcome.budgets(_PLOT_BUDGETS)
    chosen = outcome.chosen
    try:
        draw_savings(
            folder.path / "savings.png",
            curves={spacing: _curve(outcome, spacing) for spacing in _SPACINGS},
            paper={
                spacing: [(t0, paper_saving(paper, t0, spacing=spacing)) for t0 in _PLOT_T0]
                for spacing in _SPACINGS
            }
            if sum(paper) > 0
            else {},
            budget=_until_the_first_layer_is_at_its_least(budgets),
            title=f"{outcome.subject.title}: predicted saving",
            chosen=None if chosen is None else _mark(chosen),
        )
    except OSError as error:
        raise RunError(
            f"cannot write {folder.path / 'savings.png'}: {error.strerror or error}. "
            "Make room, or give another folder with --out."
        ) from error


def _curve(
    outcome: Outcome, spacing: Spacing
) -> list[tuple[float, float, float | None, float | None]]:
    points = []
    for t0 in _PLOT_T0:
        made = outcome.try_t0(t0, spacing)
        if made is not None:
            points.append((t0, made.saving, *(made.interval or (None, None))))
    return points


def _until_the_first_layer_is_at_its_least(budgets: Sequence[Plan]) -> list[tuple[float, float]]:
    """Freeze time of the first layer against saving; beyond, only later layers move."""
    points: list[tuple[float, float]] = []
    for made in budgets:
        if points and made.freeze_times[0] >= points[-1][0]:
            break
        points.append((made.freeze_times[0], made.saving))
    return points


def _mark(chosen: Plan) -> tuple[float, float, str]:
    own = chosen.schedule.times is not None
    at = chosen.freeze_times[0] if own else chosen.schedule.t0
    return at, chosen.saving, f"{chosen.spacing}: {100 * chosen.saving:.1f} %"


def _rows(outcome: Outcome) -> list[PlanRow]:
    paper = outcome.subject.paper_costs(outcome.costs)
    rows = []
    for spacing in _SPACINGS:
        for t0 in _TABLE_T0:
            made = outcome.try_t0(t0, spacing)
            if made is not None:
                estimate = paper_saving(paper, t0, spacing=spacing) if sum(paper) > 0 else None
                rows.append(_row(made, t0, estimate))
    rows.extend(_row(made, None, None) for made in outcome.budgets(_TABLE_BUDGETS))
    return rows


def _row(made: Plan, t0: float | None, paper: float | None) -> PlanRow:
    low, high = made.interval or (None, None)
    end = made.depth_at(made.total_steps - 1)
    return PlanRow(
        spacing=made.spacing,
        t0=t0,
        seconds=made.seconds,
        saving=made.saving,
        low=low,
        high=high,
        flops_saving=made.flops_saving,
        memory_end=made.costs.saved_bytes(end),
        memory_mean_saving=made.activation_saving,
        first_scale=made.schedule.scales(len(made.costs))[0],
        paper=paper,
    )
