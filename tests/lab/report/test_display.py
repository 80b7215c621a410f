"""Lines, silence, and the choice of a display."""

from __future__ import annotations

import io
import math
import os
import pty
from typing import Any

import pytest

from freezeout.lab.report.terminal import LineDisplay, LiveDisplay, make_display
from freezeout.lab.training import Observer
from freezeout.text import format_seconds
from tests.lab.report.terminals import a_freeze, a_moment, an_epoch, begin

# --- lines, silence, and the choice -------------------------------------------------------------


def test_line_display_in_full() -> None:
    stream = io.StringIO()
    with LineDisplay(stream) as display:
        begin(display, "resnet20 on cifar10")
        display.progress(a_moment())
        display.freeze(a_freeze(0, 100))
        display.freeze(a_freeze(0, 101, frozen=False))
        display.epoch(an_epoch())
        display.message("checkpoint written")
        display.epoch(an_epoch(epoch=10, saved_seconds=None, test_error=None, train_loss=math.nan))
    assert stream.getvalue() == (
        "resnet20 on cifar10\n"
        "2000 steps, 5 layers, 4 of them will freeze\n"
        "step 100  froze layer 0 (stem)  frozen 1/5\n"
        "epoch  5/10  loss 0.5000  train error 12.35 %  test error 11.20 %  time 1m 02s  "
        "frozen 2/5  saved 1m 35s\n"
        "checkpoint written\n"
        "epoch 10/10  loss nan  train error 12.35 %  test error -  time 1m 02s  frozen 2/5\n"
    )


def test_line_display_writes_what_the_encoding_lacks_as_question_marks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    LineDisplay(stream).message("naïve")
    assert raw.getvalue() == b"na?ve\n"  # and it is flushed


def test_silent_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with make_display("none") as display:
        begin(display)
        display.progress(a_moment())
        display.epoch(an_epoch())
        display.freeze(a_freeze(0, 1))
        display.message("x")
    assert type(display) is Observer
    assert capsys.readouterr() == ("", "")


def test_auto_is_lines_in_a_pipe_even_where_colour_is_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    display = make_display("auto", stream=stream)
    assert isinstance(display, LineDisplay)
    begin(display)
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


@pytest.mark.parametrize("mode", ["lines", "live"])
def test_a_reader_that_goes_away_does_not_stop_the_run(mode: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, make_display(mode, stream=stream) as display:
        begin(display)
        display.progress(a_moment())
        display.epoch(an_epoch())
        display.freeze(a_freeze(0, 1))
        display.message("x")
        assert os.fstat(writer).st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116


def test_a_stream_without_a_file_may_fail_too() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    display = LineDisplay(Full())
    begin(display)
    display.message("x")


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
