"""The tables of a plan."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from freezeout.costs import Costs, LayerCost
from freezeout.lab.report.terminal import LayerTable, PlanTable, plain_text, print_to
from freezeout.planning import paper_saving, plan

LAYER = LayerCost(
    name="stem",
    forward=2e-3,
    frozen_forward=1e-3,
    backward=4e-3,
    optimizer=2.5e-4,
    forward_flops=1_000_000_000,
    backward_flops=2_000_000_000,
    saved_bytes=12 * 2**20,
    parameter_bytes=2**21,
    gradient_bytes=2**21,
    state_bytes=2**21,
)
THREE_LAYERS = (
    LAYER,
    dataclasses.replace(
        LAYER,
        name="body.0.conv",
        forward=1e-5,
        backward=-3e-5,
        optimizer=0.0,
        forward_flops=0,
        backward_flops=0,
        saved_bytes=100,
        state_bytes=0,
    ),
    dataclasses.replace(LAYER, name="head", forward=1e-3, backward=1.875e-3, saved_bytes=2**20),
)
NOISE = (0.0, 0.02, -0.01, -0.02, 0.01, -0.01, 0.01, 0.02)


def costs_of(layers: Sequence[LayerCost] = THREE_LAYERS, rounds: Sequence[float] = NOISE) -> Costs:
    """Costs of which each round saw frozen steps slower by such a fraction."""
    depths = tuple(range(len(layers)))
    made = Costs(
        layers=tuple(layers),
        overhead=6e-4,
        depths=depths,
        rounds=((1.0,) * len(layers),),
        batch_size=32,
        device="CPU, 1 thread",
        threads=1,
        torch_version="2.13.0",
    )
    step = [max(1e-9, made.step_seconds(depth)) for depth in depths]
    seen = tuple(
        tuple(t * (1 + (noise if d else 0)) for d, t in enumerate(step)) for noise in rounds
    )
    return dataclasses.replace(made, rounds=seen)


def layer_table(layers: Sequence[LayerCost] = THREE_LAYERS) -> LayerTable:
    return LayerTable(costs_of(layers))


def plan_table(costs: Costs | None = None, paper: Sequence[float] = (3.0, 0.0, 1.0)) -> PlanTable:
    costs = costs_of() if costs is None else costs
    plans = [
        plan(costs, 100_000, t0=0.5, spacing="linear"),
        plan(costs, 100_000, t0=0.75, spacing="linear"),
        plan(costs, 100_000, t0=0.5, spacing="cubic", scaled=False),
        plan(costs, 100_000, saving=0.2, spacing="budget"),
    ]
    return PlanTable(plans, paper)


def many_layers(count: int) -> list[LayerCost]:
    return [
        dataclasses.replace(
            LAYER, name=f"blocks.{i // 13}.layers.{i % 13}.conv", forward=4e-3 / (i + 1)
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


def test_both_tables_in_full() -> None:
    assert plain_text(layer_table(), plan_table()).splitlines() == GOLDEN.strip("\n").splitlines()


GOLDEN = """
One training step: 9.955 ms, of which 0.600 ms outside the layers; 13.0 MiB held for the backward
pass
                       forward  backward  optimizer  FLOPs  held  params  state    share
#  layer                    ms        ms         ms   giga   MiB     MiB    MiB  of step
----------------------------------------------------------------------------------------------------
0  stem                  2.000     4.000      0.250   3.00  12.0    2.00   2.00   62.8 %  ##########
1  body.0.conv           0.010    -0.030      0.000   0.00  <0.1    2.00   0.00   -0.2 %
2  head                  1.000     1.875      0.250   3.00   1.0    2.00   2.00   31.4 %  #####
----------------------------------------------------------------------------------------------------
   outside the layers                                                              6.0 %  #
   whole step            3.010     5.845      0.500   6.00  13.0    6.00   4.00  100.0 %

Without freezing: 16m 36s in 100,000 training steps; 13.0 MiB held for the backward pass
               time of  predicted saving on             memory    mean    first   paper's
                   all  this machine, by        FLOPs  held at  memory  layer's  estimate
spacing    t0    steps  its measured costs      saved  the end   saved     rate   (FLOPs)
-----------------------------------------------------------------------------------------
linear   0.50  12m 38s  23.8 % (23.3 to 24.3)  16.7 %  1.0 MiB  46.2 %    2.00x    27.1 %
linear   0.75  14m 37s  11.9 % (11.6 to 12.2)   8.3 %  1.0 MiB  23.1 %    1.33x    13.5 %
-----------------------------------------------------------------------------------------
cubic    0.50   9m 55s  40.2 % (39.3 to 41.2)  29.2 %  1.0 MiB  80.8 %    1.00x    38.1 %
-----------------------------------------------------------------------------------------
budget      -  13m 16s  20.0 % (19.6 to 20.4)  12.6 %  1.0 MiB  35.0 %    1.61x         -
Predicted saving: of the time of training steps, from layer costs measured on this machine; its 95 %
interval in brackets.
Paper's estimate: the paper's FLOP formula (backward as cheap as forward).
"""


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("count", [2, 39, 200])
def test_every_layer_has_one_line_that_fits(width: int, count: int) -> None:
    rows = many_layers(count)
    for text in (
        plain_text(layer_table(rows), width=width),
        on_terminal(layer_table(rows), width),
    ):
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        rules = [i for i, line in enumerate(lines) if line[0] in "-─"]
        assert rules[1] - rules[0] == count + 1
        for i, line in enumerate(lines[rules[0] + 1 : rules[1]]):
            assert re.match(rf" *{i} +blo\S*\.{i % 13}\.conv +\d+\.\d+ +", line)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_schedule_has_one_line_that_fits(width: int) -> None:
    lines = plain_text(plan_table(), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if re.match(r"(linear|cubic|budget) ", line)] == [
        "linear",
        "linear",
        "cubic",
        "budget",
    ]
    assert sum(line.startswith("---") for line in lines) == 3
    for words in ("23.8 % (23.3 to 24.3)", "this machine", "paper's", "27.1 %"):
        assert any(words in line for line in lines)


def test_what_has_no_room_is_named() -> None:
    rows = many_layers(39)
    assert "No room" not in plain_text(layer_table(rows), plan_table(), width=110)
    narrow = " ".join(plain_text(layer_table(rows), width=60).split())
    assert "No room at this width for: parameters, optimizer state, FLOPs, optimizer." in narrow
    assert "params" not in narrow
    narrow = " ".join(plain_text(plan_table(), width=60).split())
    assert "No room at this width for: mean memory saved, rate factor, FLOPs saved." in narrow
    assert "2.00x" not in narrow


@settings(max_examples=50)
@given(
    st.integers(40, 160),
    st.lists(
        st.tuples(
            st.text("ab.学_", min_size=1, max_size=60),
            st.floats(-1e-3, 1e3),
            st.integers(0, 10**15),
        ),
        min_size=2,
        max_size=6,
    ),
)
def test_any_layers_fit_from_60_columns_on(width: int, layers: list[Any]) -> None:
    rows = [
        dataclasses.replace(
            LAYER, name=name, forward=t, forward_flops=n, saved_bytes=n, state_bytes=n
        )
        for name, t, n in layers
    ]
    for text in (plain_text(layer_table(rows), width=width), on_terminal(layer_table(rows), width)):
        lines = text.splitlines()
        assert all(cell_len(line) <= width for line in lines)
        if width >= 60:
            start = next(i for i, line in enumerate(lines) if line[0] in "-─")
            assert [line.split()[0] for line in lines[start + 1 : start + 1 + len(rows)]] == [
                str(i) for i in range(len(rows))
            ]


def test_wide_characters_push_nothing_out_of_line() -> None:
    rows = [dataclasses.replace(LAYER, name="学" * 40), LAYER]
    lines = on_terminal(layer_table(rows), 80).splitlines()
    wide, usual = (next(line for line in lines if line.startswith(start)) for start in "01")
    assert cell_len(wide) == cell_len(usual)
    assert wide.partition(" % ")[2] == usual.partition(" % ")[2] != ""


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
    lines = plain_text(layer_table()).splitlines()
    bars = {line.split()[1]: line.count("#") for line in lines if re.match("[012] ", line)}
    assert bars["stem"] == 2 * bars["head"] > 0
    assert bars["body.0.conv"] == 0
    assert "-0.2 %" in next(line for line in lines if "body.0.conv" in line)


@pytest.mark.parametrize(
    ("encoding", "blocks"),
    [("utf-8", True), ("ascii", False), ("latin-1", False), ("cp437", False)],
)
def test_blocks_only_where_the_terminal_has_them(encoding: str, blocks: bool) -> None:
    text = on_terminal(layer_table(), 80, encoding)
    assert ("█" in text) == ("─" in text) == blocks
    assert ("###" in text) == ("---" in text) == (not blocks)
    assert "?" not in text
    assert plain_text(layer_table(), plan_table()).isascii()


def test_microseconds_have_a_unit_in_any_encoding() -> None:
    rows = [dataclasses.replace(LAYER, forward=2e-6, backward=4e-6, optimizer=0.0)] * 2
    assert "µs" in on_terminal(layer_table(rows), 80)
    text = on_terminal(layer_table(rows), 80, "ascii")
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
    tables = layer_table([dataclasses.replace(LAYER, name="größe"), LAYER]), plan_table()
    stream = kind(raw, encoding=encoding)
    print_to(stream, *tables)
    text = raw.getvalue().decode(encoding)
    assert text.endswith("\n")
    plain = re.sub("\x1b.*?m", "", text)
    assert "linear" in plain
    if kind is TerminalStream:
        assert "\x1b[1m" in text
        assert max(map(len, plain.splitlines())) <= int(columns)
        assert ("─" in plain) == (encoding == "utf-8")
    else:
        assert text == plain_text(*tables).encode(encoding, "replace").decode(encoding) + "\n"
        assert ("gr??e" in text) == (encoding == "ascii")


def test_intervals_and_the_papers_column_are_optional() -> None:
    one_round = costs_of(rounds=(0.0,))
    text = plain_text(plan_table(one_round, paper=()))
    assert "23.8 %" in text
    for words in (" to ", "interval", "Paper's", "paper's", "estimate", "FLOP formula"):
        assert words not in text
    assert plain_text(plan_table(one_round, paper=(0.0, 0.0, 0.0))) == text
    mixed = plain_text(plan_table())
    assert "Paper's estimate: the paper's FLOP formula (backward as cheap as forward)." in mixed
    assert "95 % interval in brackets" in " ".join(mixed.split())
    estimate = paper_saving((3.0, 0.0, 1.0), 0.5, spacing="cubic")
    cubic = next(line for line in mixed.splitlines() if line.startswith("cubic"))
    assert cubic.endswith(f" {100 * estimate:.1f} %")
    budget = next(line for line in mixed.splitlines() if line.startswith("budget"))
    assert budget.endswith(" -")


def test_a_loss_of_time_is_shown_as_such() -> None:
    slow = dataclasses.replace(LAYER, frozen_forward=7e-3)
    text = plain_text(PlanTable([plan(costs_of([slow, LAYER]), 100, t0=0.5, spacing="linear")]))
    line = next(line for line in text.splitlines() if line.startswith("linear"))
    assert re.search(r" -\d\.\d % \(-\d\.\d to -?\d\.\d\) ", line)


def test_tables_say_what_they_were_given() -> None:
    with pytest.raises(ValueError, match="at least one plan, got none"):
        PlanTable([])
    with pytest.raises(ValueError, match=r"at least 40, got 39\. It counts columns; try 80\."):
        plain_text(layer_table(), width=39)
