"""The live display and its strip of layers."""

from __future__ import annotations

import io
import math
import re
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from freezeout.lab.report.terminal import LiveDisplay
from freezeout.lab.report.terminal.live import frozen_strip
from tests.lab.report.terminals import (
    FREEZE_STEPS,
    HIDE_CURSOR,
    NAMES,
    SHOW_CURSOR,
    Clock,
    a_freeze,
    a_moment,
    an_epoch,
    begin,
    live_text,
    paper_like,
    terminal,
    written,
)

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
    lines = live_text(width, a_moment(), NAMES, FREEZE_STEPS)

    assert [line.rstrip() for line in lines[1:]] == expected[1:]
    assert lines[0].strip("━╸╺ ") == expected[0].strip("━╸╺ ")
    assert len(lines[0]) == width


@pytest.mark.parametrize("layers", [4, 12, 110])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_live_lines_keep_their_number_and_width(width: int, layers: int) -> None:
    names = [f"features.block{i}.convolution" for i in range(layers)]
    freeze = [10 * i + 10 for i in range(layers - 1)] + [None]
    moments = [None] + [
        a_moment(step=step, frozen=frozen, loss=loss, seconds_left=left)
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
    assert re.search("next: xx+…x+[.]end at step 1,200$", last)


def test_live_display_says_when_nothing_will_freeze() -> None:
    assert live_text(80, None, ["a", "b"], [None, None])[-1] == "0/2 frozen, none will freeze"


def test_live_epochs_are_a_table_that_fits_sixty_columns() -> None:
    console = paper_like(60)
    with LiveDisplay(console) as display:
        begin(display, names=["x"] * 110, freeze_steps=[None] * 110, epochs=100)
        display.epoch(an_epoch(frozen=107))
        display.epoch(an_epoch(epoch=6, test_error=None))
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
        begin(display, "é" * 70, names=[long, "head"], freeze_steps=[1200, None])
        display.message("naïve")
        display.progress(a_moment(frozen=0))
    file.flush()
    text = raw.getvalue().decode("ascii")
    assert "na?ve" in text
    assert "".join(text.split()).startswith("?" * 70)
    assert "| |" in text
    assert re.search(r"next: a\.very.*\.\.\..*r\.\?\.0 at step 1,200", text)


def test_live_freeze_counts_before_the_next_update() -> None:
    console = paper_like(80)
    with LiveDisplay(console) as display:
        begin(display)
        display.progress(a_moment(frozen=2))
        display.freeze(a_freeze(2, 1200))
    assert "❄ ❄ ❄ ▮ ▮" in written(console)
    assert "3/5 frozen, next: body.2" in written(console)


def test_updates_redraw_at_most_ten_times_a_second() -> None:
    clock, console = Clock(), terminal()
    with LiveDisplay(console, clock=clock) as display:
        begin(display)
        before = written(console).count("loss")
        for step in range(1000):
            clock.now += 1 / 1000
            display.progress(a_moment(step=step))
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
        begin(display)
        before = written(console).count("loss")
        for _ in range(3000):
            clock.now += 1 / 1000
            display.progress(a_moment())
        drawn = written(console).count("loss") - before
    assert fewest <= drawn <= most


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_the_terminal_as_it_was(error: type[BaseException]) -> None:
    console = terminal()
    streams = sys.stdout, sys.stderr
    display = LiveDisplay(console)

    def run() -> None:
        with display:
            begin(display)
            assert HIDE_CURSOR in written(console)
            assert SHOW_CURSOR not in written(console)
            assert sys.stdout is not streams[0]
            raise error

    with pytest.raises(error):
        run()
    text = written(console)
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == streams
    display.close()
    display.progress(a_moment())
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

    monkeypatch.setattr("freezeout.lab.report.terminal.live.frozen_strip", once)
    with pytest.raises(KeyboardInterrupt):
        begin(LiveDisplay(console))
    text = written(console)
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)
    assert (sys.stdout, sys.stderr) == streams


def test_markup_in_names_is_shown_as_it_is() -> None:
    console = paper_like(80)
    with LiveDisplay(console) as display:
        names, freeze_steps = ["[bold]x", "head"], [1200, None]
        begin(display, "[red]title :smile:", names=names, freeze_steps=freeze_steps)
        display.message("[/] odd")
    text = written(console)
    assert "[red]title :smile:" in text
    assert "[/] odd" in text
    assert "next: [bold]x at" in text
