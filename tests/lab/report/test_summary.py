"""The summary at the end of a run."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freezeout.lab.report.terminal import plain_text, print_to, render_summary
from freezeout.lab.training import DepthCost, RunSummary, measured_saving


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
        "out": "runs/one",
        "device": "cpu",
        "precision": "float32",
    }
    return RunSummary(**(values | changes))


def summary_text(summary: RunSummary, width: int = 80) -> str:
    return plain_text(render_summary(summary), width=width)


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


def test_the_saving_is_that_of_the_costs() -> None:
    costs = (DepthCost(0, 10, 0.2), DepthCost(1, 30, 0.1))
    assert a_summary(costs).saving == measured_saving(costs)
    assert a_summary(()).saving is None


def test_summary_width_has_a_floor() -> None:
    with pytest.raises(ValueError, match="at least 40, got 39"):
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
    print_to(stream, render_summary(a_summary(out="ü", model="学")))
    text = raw.getvalue().decode("ascii")
    assert text.endswith("\n")
    assert "finished: ? on cifar10" in re.sub("\x1b.*?m", "", text)
    if kind is TerminalStream:
        assert "\x1b[1m" in text
    else:
        assert text == summary_text(a_summary(out="?", model="?"), 100) + "\n"


def test_summary_keeps_what_the_stream_can_show() -> None:
    stream = io.StringIO()
    print_to(stream, render_summary(a_summary(out="ü")))
    assert stream.getvalue() == summary_text(a_summary(out="ü"), 100) + "\n"
