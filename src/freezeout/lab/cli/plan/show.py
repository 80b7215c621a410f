"""What ``freezeout plan`` prints and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, get_args

from freezeout.costs import Costs, trouble_words
from freezeout.lab.cli.plan.subject import Subject
from freezeout.lab.report.terminal import LayerTable, PlanTable, print_to
from freezeout.lab.streams import outlive
from freezeout.lab.training import RunFolder
from freezeout.planning import Plan, plan
from freezeout.schedule import Spacing
from freezeout.storage import write_json

__all__ = ["PlanResult", "show", "write", "write_costs"]

_SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
_TABLE_T0 = (0.9, 0.8, 0.7, 0.6, 0.5)
_TABLE_BUDGETS = (0.1, 0.2, 0.3, 0.4)
_WIDE = 0.1
_LEAST_ROUNDS = 6  # for an interval
_STEEP = 10.0
_PLOT_T0 = tuple(i / 20 for i in range(2, 21))
_PLOT_BUDGETS = tuple(i / 40 for i in range(1, 40))


@dataclass(frozen=True)
class PlanResult:
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
        """Return the plan with this `t0`; ``None`` where a warm-up leaves no room for it."""
        try:
            return plan(self.costs, self.subject.total_steps, t0=t0, spacing=spacing, **self.rates)
        except ValueError:
            if not self.rates["warmup_steps"]:
                raise
            return None

    def curves(self) -> list[Plan]:
        """Return the plans of the table, but those without room for a warm-up."""
        tried = (self.try_t0(t0, spacing) for spacing in _SPACINGS for t0 in _TABLE_T0)
        return [made for made in tried if made is not None]

    def budgets(self, savings: Sequence[float]) -> list[Plan]:
        """Return budget plans for those of the savings that can be reached."""
        tried = (
            plan(self.costs, self.subject.total_steps, saving=s, spacing="budget", **self.rates)
            for s in savings
        )
        return [made for made in tried if made.reached]


def show(result: PlanResult, folder: RunFolder, stream: IO[str]) -> None:
    """Print the layers, then the plan that was asked for or else schedules to choose from."""
    with outlive(stream):
        _show(result, folder, stream)
        stream.flush()


def _show(result: PlanResult, folder: RunFolder, stream: IO[str]) -> None:
    costs, subject = result.costs, result.subject
    spoilt = trouble_words(costs.trouble)
    if spoilt:
        print(spoilt, file=stream)
    print(f"{subject.title}  ({costs.device}, torch {costs.torch_version})", file=stream)
    for note in subject.notes:
        print(f"note: {note}", file=stream)
    if len(costs.rounds) < _LEAST_ROUNDS:
        print(
            f"note: fewer than {_LEAST_ROUNDS} rounds give no interval, and single layers may be "
            "far off (--rounds)",
            file=stream,
        )
    if not spoilt and _unsure(result):
        print(
            "note: the machine was disturbed while it was measured, so intervals are wide; measure "
            "again when it is quiet, or longer, with --rounds 20",
            file=stream,
        )
    print(file=stream)
    print_to(stream, LayerTable(costs))
    print(file=stream)
    if result.chosen is not None:
        print(result.chosen, file=stream)
        steepest = max(result.chosen.schedule.scales(len(costs)))
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
    curves = result.curves()
    if len(curves) < len(_SPACINGS) * len(_TABLE_T0):
        print("Schedules that would freeze during the warm-up are left out.", file=stream)
    plans = [*curves, *result.budgets(_TABLE_BUDGETS)]
    print_to(stream, PlanTable(plans, subject.paper_costs(costs)))
    print(file=stream)
    print(f"written: {folder.path} (costs.json, savings.png)", file=stream)
    print("for one schedule: --saving 25%, --time 2h or --t0 0.8", file=stream)


def _unsure(result: PlanResult) -> bool:
    """Return whether the paper's default could save much more or much less than predicted."""
    made = result.chosen or result.try_t0(0.8, "cubic")
    if made is None or made.interval is None:
        return False
    low, high = made.interval
    return high - low > _WIDE


def write_costs(costs: Costs, folder: RunFolder) -> None:
    """Make the folder and write ``costs.json``.

    Raises:
        RunError: If the disk does not take it.
    """
    folder.make()
    write_json(folder.path / "costs.json", costs.to_dict())


def write(result: PlanResult, folder: RunFolder) -> None:
    """Write ``savings.png`` and, where a plan was asked for, ``plan.json``.

    Raises:
        RunError: If the disk does not take them.
    """
    from freezeout.lab.report.figures import PlanFigure

    if result.chosen is not None:
        folder.write_plan(result.chosen)
    tried = (result.try_t0(t0, spacing) for spacing in _SPACINGS for t0 in _PLOT_T0)
    figure = PlanFigure(
        [made for made in tried if made is not None],
        result.subject.paper_costs(result.costs),
        budgets=result.budgets(_PLOT_BUDGETS),
        chosen=result.chosen,
    )
    figure.save(folder.path / "savings.png", f"{result.subject.title}: predicted saving")
