from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from rich.console import Console

from freezeout.report import (
    DepthCost,
    EpochLine,
    LineDisplay,
    LiveDisplay,
    RunSummary,
    SilentDisplay,
    Status,
    build_figure,
    draw_run,
    format_seconds,
    make_display,
    measured_saving,
    print_summary,
    summary_text,
)
from freezeout.report.live import frozen_strip

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
NAMES = ["stem", "body.0", "body.1", "body.2", "head"]
FREEZE_STEPS = [100, 250, 1200, 1600, None]


def a_status(**changes: Any) -> Status:
    status = Status(1000, 2000, 6, 10, 0.4321, 87.65, 2, 5, 425.0, -12.0)
    return dataclasses.replace(status, **changes)


def an_epoch(**changes: Any) -> EpochLine:
    line = EpochLine(5, 10, 0.5, 12.345, 11.2, 62.0, 2, 5, 95.0)
    return dataclasses.replace(line, **changes)


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), width=width, height=24, force_terminal=True, legacy_windows=False
    )


def paper_like(width: int, file: Any = None) -> Console:
    """A console that is no terminal: the live lines come out once, at the end, without codes."""
    file = io.StringIO() if file is None else file
    return Console(file=file, width=width, force_terminal=False, legacy_windows=False)


def written(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def live_text(width: int, status: Status | None, names: list[str], freeze: list[Any]) -> list[str]:
    console = paper_like(width)
    with LiveDisplay(console) as display:
        display.start(names, freeze, "t", 2000)
        if status is not None:
            display.update(status)
    lines = written(console).splitlines()
    assert lines[0] == "t"
    return lines[1:]


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


# --- the strip of layers ------------------------------------------------------------------------


@given(st.data(), st.integers(1, 200), st.integers(1, 200), st.booleans())
def test_strip_shows_the_frozen_prefix_and_fits(
    data: st.DataObject, layers: int, width: int, ascii_only: bool
) -> None:
    frozen = data.draw(st.integers(0, layers))
    cold, warm, mixed = "*|+" if ascii_only else "❄▮▯"

    text = frozen_strip(layers, frozen, width=width, ascii_only=ascii_only)

    lines = text.plain.split("\n")
    assert len(lines) <= 3
    assert all(1 <= len(line) <= width for line in lines)
    assert len(lines) == len(frozen_strip(layers, 0, width=width).plain.split("\n"))
    cells = "".join(lines).replace(" ", "")
    assert re.fullmatch(f"{re.escape(cold)}*{re.escape(mixed)}?{re.escape(warm)}*", cells)
    if layers <= 3 * width:
        assert cells.count(cold) == frozen
        assert cells.count(warm) == layers - frozen
    else:
        group = math.ceil(layers / (3 * width))
        assert cells.count(warm) == math.ceil(layers / group) - math.ceil(frozen / group)
    if ascii_only:
        assert text.plain.isascii()


def test_strip_says_what_it_was_given() -> None:
    with pytest.raises(ValueError, match="got 6 of 5"):
        frozen_strip(5, 6, width=80)
    with pytest.raises(ValueError, match="got 0"):
        frozen_strip(5, 2, width=0)


# --- the live display ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            60,
            [
                "━━━━━━━━━━━━╸━━━━━━━━━━━━  50 %  step 1,000/2,000  epoch  6/10",
                "loss 0.4321  accuracy 87.7 %   left 7m 05s    saved -12 s",
                "❄ ❄ ▮ ▮ ▮",
                "2/5 frozen, next: body.1 at step 1,200",
            ],
        ),
        (
            40,
            [
                "━━  50 %  step 1,000/2,000  epoch  6/10",
                "loss 0.4321  accuracy 87.7 %",
                "left 7m 05s    saved -12 s",
                "❄ ❄ ▮ ▮ ▮",
                "2/5 frozen, next: body.1 at step 1,200",
            ],
        ),
    ],
)
def test_live_lines_in_full(width: int, expected: list[str]) -> None:
    lines = live_text(width, a_status(), NAMES, FREEZE_STEPS)

    assert [line.rstrip() for line in lines[1:]] == expected[1:]
    assert lines[0].strip("━╸╺ ") == expected[0].strip("━╸╺ ")
    assert len(lines[0]) == width


@pytest.mark.parametrize("layers", [4, 12, 110])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_live_lines_keep_their_number_and_width(width: int, layers: int) -> None:
    names = [f"features.block{i}.convolution" for i in range(layers)]
    freeze = [10 * i + 10 for i in range(layers - 1)] + [None]
    moments = [None] + [
        a_status(step=step, frozen=frozen, layers=layers, loss=loss, seconds_left=left)
        for step, frozen, loss, left in [
            (0, 0, math.nan, None),
            (1, 0, 23.4567, 9e5),
            (1999, layers - 1, 0.0001, 0.4),
        ]
    ]

    shown = [live_text(width, moment, names, freeze) for moment in moments]

    assert len({len(lines) for lines in shown}) == 1
    assert all(len(line) <= width for lines in shown for line in lines)
    assert f"{layers - 1}/{layers} frozen, no more to come" in shown[-1][-1]
    assert "next: " in shown[0][-1]
    assert "at step 10" in shown[0][-1]
    assert all("saved" in lines[1] for lines in shown)


@pytest.mark.parametrize("width", [45, 60])
def test_a_long_layer_name_leaves_room_for_its_step(width: int) -> None:
    last = live_text(width, None, ["x" * 80 + ".end", "head"], [1200, None])[-1]
    assert len(last) == width
    assert "next: …x" in last
    assert last.endswith("x.end at step 1,200")


def test_live_display_says_when_nothing_will_freeze() -> None:
    assert live_text(80, None, ["a", "b"], [None, None])[-1] == "0/2 frozen, none will freeze"


def test_live_epochs_are_a_table_that_fits_sixty_columns() -> None:
    console = paper_like(60)
    with LiveDisplay(console) as display:
        display.start(NAMES, FREEZE_STEPS, "t", 2000)
        display.epoch(an_epoch(epochs=100, layers=110, frozen=107))
        display.epoch(an_epoch(epoch=6, epochs=100, layers=110, test_error=None))
    assert written(console).splitlines()[1:4] == [
        "  epoch    loss train err test err     time  frozen    saved",
        "  5/100  0.5000   12.35 %  11.20 %   1m 02s 107/110   1m 35s",
        "  6/100  0.5000   12.35 %        -   1m 02s   2/110   1m 35s",
    ]


def test_live_display_in_ascii_where_the_terminal_knows_no_more() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    long = "a.very.long.name.of.a.module.in.a.network.layer.é.0"
    with LiveDisplay(paper_like(60, file)) as display:
        display.start([long, "head"], [1200, None], "é" * 70, 2000)
        display.message("naïve")
        display.update(a_status(layers=2, frozen=0))
    file.flush()
    text = raw.getvalue().decode("ascii")
    assert "na?ve" in text
    assert "".join(text.split()).startswith("?" * 70)
    assert "| |" in text
    assert re.search(r"next: \.\.\..*layer\.\?\.0 at step 1,200", text)


def test_live_freeze_counts_before_the_next_update() -> None:
    console = paper_like(80)
    with LiveDisplay(console) as display:
        display.start(NAMES, FREEZE_STEPS, "t", 2000)
        display.update(a_status(frozen=2))
        display.freeze(2, "body.1", 1200)
    assert "❄ ❄ ❄ ▮ ▮" in written(console)
    assert "3/5 frozen, next: body.2" in written(console)


def test_updates_redraw_at_most_ten_times_a_second() -> None:
    clock, console = Clock(), terminal()
    with LiveDisplay(console, clock=clock) as display:
        display.start(NAMES, FREEZE_STEPS, "t", 2000)
        before = written(console).count("loss")
        for step in range(1000):
            clock.now += 1 / 1000
            display.update(a_status(step=step))
        drawn = written(console).count("loss") - before
        assert 9 <= drawn <= 11
    assert "step   999/2,000" in written(console)


@pytest.mark.parametrize(
    ("write_seconds", "fewest", "most"),
    [(0.004, 6, 9), (0.5, 2, 4)],  # the pause is a hundred redraws, but never above a second
)
def test_a_slow_terminal_is_redrawn_less_often(
    write_seconds: float, fewest: int, most: int
) -> None:
    clock = Clock()

    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            clock.now += write_seconds
            return super().write(text)

    console = Console(file=Slow(), width=80, height=24, force_terminal=True, legacy_windows=False)
    with LiveDisplay(console, clock=clock) as display:
        display.start(NAMES, FREEZE_STEPS, "t", 2000)
        before = written(console).count("loss")
        for _ in range(3000):
            clock.now += 1 / 1000
            display.update(a_status())
        drawn = written(console).count("loss") - before
    assert fewest <= drawn <= most


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_terminal_as_it_was(error: type[BaseException]) -> None:
    console = terminal()
    streams = sys.stdout, sys.stderr
    display = LiveDisplay(console)

    def run() -> None:
        with display:
            display.start(NAMES, FREEZE_STEPS, "t", 2000)
            assert HIDE_CURSOR in written(console)
            assert SHOW_CURSOR not in written(console)
            assert sys.stdout is not streams[0]
            raise error

    with pytest.raises(error):
        run()
    text = written(console)
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == streams
    display.stop()
    display.update(a_status())
    assert written(console) == text


def test_a_failing_first_drawing_leaves_the_terminal_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = terminal()
    streams = sys.stdout, sys.stderr
    failed: list[int] = []

    def once(*_args: Any, **_kwargs: Any) -> Any:
        if not failed:
            failed.append(1)
            raise KeyboardInterrupt
        return frozen_strip(5, 0, width=80)

    monkeypatch.setattr("freezeout.report.live.frozen_strip", once)
    with pytest.raises(KeyboardInterrupt):
        LiveDisplay(console).start(NAMES, FREEZE_STEPS, "t", 2000)
    text = written(console)
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == streams


def test_markup_in_names_is_shown_as_it_is() -> None:
    console = paper_like(80)
    with LiveDisplay(console) as display:
        display.start(["[bold]x", "head"], [1200, None], "[red]title :smile:", 2000)
        display.message("[/] odd")
    text = written(console)
    assert "[red]title :smile:" in text
    assert "[/] odd" in text
    assert "next: [bold]x at" in text


# --- lines, silence, and the choice -------------------------------------------------------------


def test_line_display_in_full() -> None:
    stream = io.StringIO()
    with LineDisplay(stream) as display:
        display.start(NAMES, FREEZE_STEPS, "resnet20 on cifar10", 2000)
        display.update(a_status())
        display.freeze(0, "stem", 100)
        display.epoch(an_epoch())
        display.message("checkpoint written")
        display.epoch(an_epoch(epoch=10, saved_seconds=None, train_error=None, train_loss=math.nan))
    assert stream.getvalue() == (
        "resnet20 on cifar10\n"
        "2000 steps, 5 layers, 4 of them will freeze\n"
        "step 100  froze layer 0 (stem)  frozen 1/5\n"
        "epoch  5/10  loss 0.5000  train error 12.35 %  test error 11.20 %  time 1m 02s  "
        "frozen 2/5  saved 1m 35s\n"
        "checkpoint written\n"
        "epoch 10/10  loss nan  train error -  test error 11.20 %  time 1m 02s  frozen 2/5\n"
    )


def test_line_display_writes_what_the_encoding_lacks_as_question_marks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    LineDisplay(stream).message("naïve")
    assert raw.getvalue() == b"na?ve\n"  # and it is flushed


def test_silent_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with make_display("none") as display:
        display.start(NAMES, FREEZE_STEPS, "t", 2000)
        display.update(a_status())
        display.epoch(an_epoch())
        display.freeze(0, "stem", 1)
        display.message("x")
    assert isinstance(display, SilentDisplay)
    assert capsys.readouterr() == ("", "")


def test_auto_is_lines_in_a_pipe_even_where_colour_is_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    display = make_display("auto", stream=stream)
    assert isinstance(display, LineDisplay)
    display.start(NAMES, FREEZE_STEPS, "t", 2000)
    display.epoch(an_epoch())
    assert "epoch" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
    assert isinstance(make_display("live", stream=stream), LiveDisplay)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_auto_is_live_on_a_terminal_that_can_move_its_cursor(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as stream:
            display = make_display(stream=stream)
            assert type(display) is (LineDisplay if term == "dumb" else LiveDisplay)
            assert isinstance(make_display("lines", stream=stream), LineDisplay)
    finally:
        os.close(master)


def test_make_display_says_what_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"must be one of 'auto', .*got 'loud'"):
        make_display("loud")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got both"):
        make_display(console=terminal(), stream=io.StringIO())


@pytest.mark.parametrize("mode", ["live", "lines", "none"])
def test_start_checks_its_arguments(mode: Any) -> None:
    display = make_display(mode, stream=io.StringIO())
    with pytest.raises(ValueError, match="got 5 and 1"):
        display.start(NAMES, [None], "t", 10)
    with pytest.raises(ValueError, match="got 0 and 0"):
        display.start([], [], "t", 10)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        display.start(NAMES, FREEZE_STEPS, "t", 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (-0.01, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1m 00s"),
        (425.2, "7m 05s"),
        (3599.4, "59m 59s"),
        (3599.6, "1h 00m"),
        (-45000.0, "-12h 30m"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


# --- the measured saving ------------------------------------------------------------------------


def test_measured_saving_is_the_formula() -> None:
    costs = [DepthCost(0, 100, 0.2), DepthCost(3, 50, 0.14), DepthCost(1, 25, 0.18)]
    spent = 100 * 0.2 + 50 * 0.14 + 25 * 0.18
    assert measured_saving(costs) == pytest.approx(1 - spent / (175 * 0.2), rel=1e-12)
    assert measured_saving(costs) == pytest.approx(0.1)


def test_measured_saving_is_negative_when_steps_grow_slower() -> None:
    assert measured_saving([DepthCost(0, 1, 0.1), DepthCost(1, 1, 0.3)]) == pytest.approx(-1.0)


@pytest.mark.parametrize(
    "costs",
    [
        [],
        [DepthCost(0, 10, 0.1)],
        [DepthCost(1, 10, 0.1), DepthCost(2, 10, 0.1)],
        [DepthCost(0, 0, 0.1), DepthCost(1, 10, 0.1)],
        [DepthCost(0, 10, 0.1), DepthCost(1, 0, 0.1)],
        [DepthCost(0, 10, 0.0), DepthCost(1, 10, 0.1)],
    ],
)
def test_measured_saving_is_none_without_something_to_compare(costs: list[DepthCost]) -> None:
    assert measured_saving(costs) is None


def test_depth_costs_say_what_they_were_given() -> None:
    with pytest.raises(ValueError, match=r"once in depth_costs, got \[0, 1, 1\]"):
        measured_saving([DepthCost(1, 1, 0.1), DepthCost(0, 1, 0.1), DepthCost(1, 1, 0.2)])
    with pytest.raises(ValueError, match="frozen must be 0 or more, got -1"):
        DepthCost(-1, 1, 0.1)
    with pytest.raises(ValueError, match="steps must be 0 or more, got -2"):
        DepthCost(1, -2, 0.1)
    for odd in (math.nan, math.inf, -0.1):
        with pytest.raises(ValueError, match=f"finite and 0 or more, got {odd}"):
            DepthCost(1, 1, odd)


# --- the summary --------------------------------------------------------------------------------


def a_summary(costs: tuple[DepthCost, ...] | None = None, **changes: Any) -> RunSummary:
    if costs is None:
        costs = (
            DepthCost(0, 1000, 0.0623),
            DepthCost(3, 500, 0.05),
            DepthCost(11, 500, 0.0302),
        )
    values: dict[str, Any] = {
        "model": "resnet20",
        "data": "cifar10",
        "steps": 2000,
        "epochs": 20,
        "test_error": 7.419,
        "train_seconds": 103.2,
        "total_seconds": 130.1,
        "seconds_per_epoch": (6.5,) * 10 + (3.9,) * 10,
        "depth_costs": costs,
        "frozen_layers": 11,
        "layers": 12,
        "saving": measured_saving(costs),
        "out": "runs/one",
        "device": "cpu",
        "precision": "float32",
    }
    return RunSummary(**(values | changes))


def test_summary_in_full() -> None:
    assert summary_text(a_summary()).splitlines() == [
        "finished: resnet20 on cifar10  (cpu, float32)",
        "test error      7.42 %",
        "total time      2m 10s, of which 1m 43s in 2,000 steps",
        "time per epoch  mean 5.2 s, first 6.5 s, last 3.9 s (20 epochs)",
        "frozen          11 of 12 layers at the end",
        "saving          17.8 % measured, against this run's own unfrozen steps",
        "                by median step times: 102.40 s, at the unfrozen pace 124.60 s",
        "step time       62.3 ms unfrozen, 30.2 ms with 11 frozen",
        "                Unfrozen steps come first; drift counts.",
        "run folder      runs/one",
    ]


def test_summary_of_an_interrupted_run_that_grew_slower() -> None:
    costs = (DepthCost(0, 1000, 0.0623), DepthCost(3, 500, 0.07))
    text = summary_text(
        a_summary(
            costs,
            interrupted=True,
            steps=1500,
            total_steps=8000,
            test_error=None,
            seconds_per_epoch=(6.5,),
        ),
        100,
    )
    assert "interrupted: resnet20" in text
    assert "1,500 of 8,000 steps" in text
    assert "test error      not measured" in text
    assert "6.5 s (1 of 20 epochs)" in text
    assert "-4.1 % measured" in text
    assert "Steps with frozen layers took longer here." in text
    assert "took longer" not in summary_text(a_summary())


@pytest.mark.parametrize(
    ("costs", "frozen", "words"),
    [
        ((DepthCost(0, 9, 0.1),), 0, "none: nothing froze"),
        ((), 0, "none: nothing froze"),
        ((DepthCost(0, 9, 0.1),), 4, "not known: no step with frozen layers was timed"),
        ((DepthCost(4, 9, 0.1),), 4, "not known: this run has no unfrozen steps to compare with"),
        ((DepthCost(0, 9, 0.0), DepthCost(1, 9, 0.1)), 1, "took no measurable time"),
    ],
)
def test_summary_says_why_there_is_no_saving(
    costs: tuple[DepthCost, ...], frozen: int, words: str
) -> None:
    text = summary_text(a_summary(costs, frozen_layers=frozen, seconds_per_epoch=()))
    assert words in text
    assert "measured, against" not in text
    assert "no epoch finished (0 of 20)" in text


step_counts = st.integers(1, 9) | st.integers(1, 50_000)
step_seconds = st.integers(1, 200).map(lambda n: n * 1.1e-4) | st.floats(1e-4, 20.0)


@settings(max_examples=50)
@given(
    step_counts,
    step_seconds,
    st.lists(st.tuples(step_counts, step_seconds), min_size=1, max_size=5),
    st.integers(60, 200),
)
def test_the_shown_saving_follows_from_the_shown_seconds(
    steps: int, seconds: float, later: list[tuple[int, float]], width: int
) -> None:
    costs = (
        DepthCost(0, steps, seconds),
        *(DepthCost(i + 1, n, m) for i, (n, m) in enumerate(later)),
    )
    text = summary_text(a_summary(costs), width)
    assert len(text.splitlines()) <= 15
    assert all(len(line) <= width for line in text.splitlines())
    assert text.isascii()
    assert "\x1b" not in text
    flat = " ".join(text.split())
    percent = float(re.findall(r"(-?[\d.]+) % measured", flat)[0])
    spent, unfrozen = (
        float(number.replace(",", ""))
        for number in re.findall(r"times: ([\d.,]+) s, at the unfrozen pace ([\d.,]+) s", flat)[0]
    )
    assert percent == pytest.approx(100 * (1 - spent / unfrozen), rel=1e-3, abs=0.07)


def test_summary_refuses_a_saving_that_contradicts_its_seconds() -> None:
    with pytest.raises(ValueError, match=r"got 0\.5\. Pass measured_saving"):
        a_summary(saving=0.5)
    with pytest.raises(ValueError, match=r"got None"):
        a_summary(saving=None)
    with pytest.raises(ValueError, match=r"which give None, got 0\.0"):
        a_summary((), saving=0.0)


def test_summary_width_has_a_floor() -> None:
    with pytest.raises(ValueError, match="at least 40 columns, got 39"):
        summary_text(a_summary(), 39)


class TerminalStream(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [io.TextIOWrapper, TerminalStream])
@pytest.mark.parametrize("columns", ["80", "30"])
def test_summary_is_printed_in_any_encoding(
    kind: type[io.TextIOWrapper], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    raw = io.BytesIO()
    stream = kind(raw, encoding="ascii")
    print_summary(a_summary(out="ü", model="学"), stream)
    text = raw.getvalue().decode("ascii")
    assert text.endswith("\n")
    assert "finished: ? on cifar10" in re.sub("\x1b.*?m", "", text)
    if kind is TerminalStream:
        assert "\x1b[1m" in text
    else:
        assert text == summary_text(a_summary(out="?", model="?")) + "\n"


def test_summary_keeps_what_the_stream_can_show() -> None:
    stream = io.StringIO()
    print_summary(a_summary(out="ü"), stream)
    assert stream.getvalue() == summary_text(a_summary(out="ü")) + "\n"


# --- the picture --------------------------------------------------------------------------------


def a_picture(layers: int = 5, **changes: Any) -> dict[str, Any]:
    """Arguments of a run of 1000 steps, linear freeze times from 0.5, with one slow window."""
    times = [0.5 + 0.5 * i / max(1, layers - 1) for i in range(layers)]
    steps = list(range(0, 1001, 10))
    freeze: list[int | None] = [math.ceil(1000 * t) for t in times[:-1]]
    freeze.append(None)

    def windows() -> list[tuple[int, float, int]]:
        found = []
        for step in range(10, 1001, 10):
            frozen = sum(at is not None and at < step for at in freeze)
            seconds = 0.1 * (1 - 0.5 * frozen / layers) * (1 + 0.01 * (step % 3))
            found.append((step, 5.0 if step == 20 else seconds, frozen))
        return found

    return {
        "layer_names": [f"block.{i}" for i in range(layers)],
        "steps": steps,
        "rates": [
            [0.05 / t * (1 + math.cos(math.pi * min(1.0, s / 1000 / t))) for s in steps]
            for t in times
        ],
        "freeze_steps": freeze,
        "step_times": windows(),
        "total_steps": 1000,
        "title": "a run",
        "base_rate": 0.1,
    } | changes


def curves(figure: Figure) -> list[Any]:
    """The rate curves: every line of the upper panel that is no straight mark."""
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]


def labelled(axes: Any, label: str) -> list[Any]:
    return [artist for artist in axes.get_children() if artist.get_label() == label]


@pytest.mark.parametrize("layers", [2, 5, 110])
def test_picture_has_a_curve_per_layer_and_a_dot_per_freeze(layers: int) -> None:
    arguments = a_picture(layers)
    figure = build_figure(**arguments)

    lines = curves(figure)
    assert len(lines) == layers
    for layer, line in enumerate(lines):
        freeze = arguments["freeze_steps"][layer]
        before = [s for s in arguments["steps"] if freeze is None or s < freeze]
        assert list(line.get_xdata())[: len(before)] == pytest.approx([s / 1000 for s in before])
        known = arguments["rates"][layer][: len(before)]
        assert list(line.get_ydata())[: len(before)] == pytest.approx(known)
        assert line.get_xdata()[-1] == pytest.approx(1.0 if freeze is None else freeze / 1000)
        assert line.get_ydata()[-1] == pytest.approx(0.0, abs=1e-12)
    (dots,) = labelled(figure.axes[0], "freeze points")
    expected = [(at / 1000, 0.0) for at in arguments["freeze_steps"] if at is not None]
    assert dots.get_offsets().tolist() == [pytest.approx(point, abs=1e-12) for point in expected]
    # The dot has its curve's colour, and each layer a colour of its own.
    assert dots.get_facecolors()[0].tolist() == pytest.approx(to_rgba(lines[0].get_color()))
    assert len({line.get_color() for line in lines}) == layers


def test_rates_that_do_not_anneal_keep_their_value_at_the_freeze_point() -> None:
    flat = [[0.1] * 101 for _ in range(5)]
    figure = build_figure(**a_picture(rates=flat))
    (dots,) = labelled(figure.axes[0], "freeze points")
    assert dots.get_offsets()[:, 1].tolist() == pytest.approx([0.1] * 4)


def test_step_time_panel_starts_at_zero_and_ignores_outliers() -> None:
    arguments = a_picture()
    lower = build_figure(**arguments).axes[1]

    bottom, top = lower.get_ylim()
    assert bottom == 0.0
    assert 102 < top < 150
    (inside,) = labelled(lower, "step times")
    (above,) = labelled(lower, "slower, beyond the axis")
    assert len(inside.get_offsets()) == 99
    assert above.get_offsets()[:, 0].tolist() == pytest.approx([0.02])


def test_step_time_medians_are_a_stair_over_the_frozen_depth() -> None:
    arguments = a_picture()
    lower = build_figure(**arguments).axes[1]
    (stair,) = labelled(lower, "median per frozen depth")

    by_depth: dict[int, list[float]] = {}
    for _, seconds, frozen in arguments["step_times"]:
        by_depth.setdefault(frozen, []).append(1000 * seconds)
    heights = []
    for depth in sorted(by_depth):
        values = sorted(by_depth[depth])
        middle = (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2
        heights += [middle, middle]
    assert list(stair.get_ydata()) == pytest.approx(heights)
    ends = [max(s for s, _, k in arguments["step_times"] if k == depth) for depth in range(5)]
    starts = [0, *ends[:-1]]
    corners = [x / 1000 for pair in zip(starts, ends, strict=True) for x in pair]
    assert list(stair.get_xdata()) == pytest.approx(corners)
    change = round(100 * (heights[-1] / heights[0] - 1))
    assert change < 0
    assert f"−{-change} %" in [text.get_text() for text in lower.texts]


@pytest.mark.parametrize("last", [0.03, 0.035, 0.06, 0.12])
@pytest.mark.parametrize("windows", [2, 5, 30])
def test_the_end_label_leaves_the_median_lines_free(last: float, windows: int) -> None:
    times = [(10 * i, 0.1, 0) for i in range(1, 71)]
    times += [(700 + 10 * i, 0.055, 1) for i in range(1, 31 - windows)]
    times += [(1000 - 10 * i, last, 2) for i in reversed(range(windows))]
    figure = build_figure(**a_picture(step_times=times))
    lower = figure.axes[1]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (label,) = [text for text in lower.texts if text.get_text().endswith(" %")]
    box = label.get_bbox_patch().get_window_extent(canvas.get_renderer())
    for line in lower.lines:
        if list(line.get_ydata()) == [0, 1]:
            continue  # a hairline at a freeze
        points = line.get_transform().transform(line.get_xydata())
        for start, end in itertools.pairwise(points):
            along = np.linspace(start, end, 500)
            assert box.count_contains(along[~np.isnan(along).any(axis=1)]) == 0
    inside = lower.get_window_extent()
    assert inside.y0 < box.y0 < box.y1 < inside.y1


def test_medians_of_few_windows_are_dashed() -> None:
    times = [(10 * i, 0.1, 0) for i in range(1, 51)]
    times += [(500 + 10 * i, 0.08, 1) for i in range(1, 5)]
    times += [(540 + 10 * i, 0.06, 2) for i in range(1, 6)]
    lower = build_figure(**a_picture(step_times=times)).axes[1]
    (solid,) = labelled(lower, "median per frozen depth")
    (dashed,) = labelled(lower, "median of fewer than 5 windows")
    assert [y for y in solid.get_ydata() if y == y] == pytest.approx([100, 100, 60, 60])
    assert [y for y in dashed.get_ydata() if y == y] == pytest.approx([100, 80, 80, 60])
    assert dashed.get_linewidth() < solid.get_linewidth()
    assert dashed.get_linestyle() == "--"
    shown = [text.get_text() for text in lower.get_legend().get_texts()]
    assert "median of fewer than 5 windows" in shown
    usual = build_figure(**a_picture()).axes[1].get_legend().get_texts()
    assert "median of fewer than 5 windows" not in [text.get_text() for text in usual]


def test_freezes_are_hairlines_across_the_step_times() -> None:
    lower = build_figure(**a_picture()).axes[1]
    upright = [line for line in lower.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in upright] == pytest.approx([0.5, 0.625, 0.75, 0.875])


def test_interrupted_run_is_shaded_and_its_coming_freezes_are_hollow() -> None:
    arguments = a_picture()
    times = [record for record in arguments["step_times"] if record[0] <= 700]
    figure = build_figure(**(arguments | {"step_times": times, "done_steps": 700}))

    (dots,) = labelled(figure.axes[0], "freeze points")
    hollow = [face.tolist() == [1.0, 1.0, 1.0, 1.0] for face in dots.get_facecolors()]
    assert hollow == [False, False, True, True]
    assert "stopped at step 700" in [text.get_text() for text in figure.axes[0].texts]
    assert all(axes.patches[0].get_x() == pytest.approx(0.7) for axes in figure.axes[:2])
    assert not build_figure(**arguments).axes[0].patches
    upright = [line for line in figure.axes[1].lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in upright] == pytest.approx([0.5, 0.625, 0.7])


def test_rates_recorded_only_so_far_end_without_a_dot() -> None:
    arguments = a_picture()
    part = {
        "steps": arguments["steps"][:56],
        "rates": [row[:56] for row in arguments["rates"]],
        "done_steps": 550,
    }
    figure = build_figure(**(arguments | part))
    (dots,) = labelled(figure.axes[0], "freeze points")
    assert dots.get_offsets().tolist() == [pytest.approx((0.5, 0.0), abs=1e-12)]


def test_axis_shows_progress_and_steps() -> None:
    lower = build_figure(**a_picture()).axes[1]
    assert lower.get_xlim() == (0.0, 1.0)
    assert lower.xaxis.get_major_formatter()(0.4, 2) == "0.4\n400"


@pytest.mark.parametrize(
    "arguments",
    [
        a_picture(1),
        a_picture(1, step_times=[(10, 0.1, 0)]),
        a_picture(2, step_times=[]),
        a_picture(step_times=[(10, 0.0, 0), (20, 0.0, 1)]),
        a_picture(step_times=[(10, 0.1, 3), (20, 0.1, 4)]),
        a_picture(steps=[], rates=[[]] * 5, done_steps=0),
        a_picture(rates=[[0.0] * 101] * 5, base_rate=None),
        a_picture(done_steps=990),
        a_picture(
            title="a $ long_title \\frac{ 学 " * 40, layer_names=["$a_{$", "b" * 60, "学", "", "e"]
        ),
    ],
    ids=["one", "one-window", "no-times", "zero", "resumed", "nothing", "zeros", "late", "names"],
)
def test_odd_runs_can_be_drawn(tmp_path: Path, arguments: dict[str, Any]) -> None:
    draw_run(tmp_path / "run.png", **arguments)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_run_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    draw_run(first, **a_picture())
    draw_run(second, **a_picture())
    assert first.read_bytes() == second.read_bytes()
    assert (b"<svg" in first.read_bytes()) == (suffix == ".svg")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_a_failure_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.png"
    path.write_bytes(b"old")

    def half(_figure: Figure, target: Any, **_options: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        draw_run(path, **a_picture())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_picture_says_what_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png or \.svg, got 'run\.bmp'"):
        draw_run(tmp_path / "run.bmp", **a_picture())
    with pytest.raises(ValueError, match="got 5, 5 and 2"):
        build_figure(**a_picture(freeze_steps=[1, None]))
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        build_figure(**a_picture(layer_names=[], rates=[], freeze_steps=[]))
    with pytest.raises(ValueError, match="101 in all, got 1"):
        build_figure(**a_picture(rates=[[0.1]] * 5))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        build_figure(**a_picture(total_steps=0))


def test_matplotlib_is_loaded_only_for_a_picture_and_pyplot_never(tmp_path: Path) -> None:
    code = (
        "import sys, freezeout.report as report\n"
        "assert 'rich' in sys.modules\n"
        "assert 'matplotlib' not in sys.modules, 'too early'\n"
        f"report.draw_run({str(tmp_path / 'x.png')!r}, layer_names=['a'], steps=[0, 1],\n"
        "    rates=[[1.0, 0.0]], freeze_steps=[None], step_times=[], total_steps=1, title='t')\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
        "assert not hasattr(report, 'no_such_name')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").exists()
