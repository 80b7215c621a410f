"""A comparison on a terminal: reviewed output, every width, streams of every encoding."""

import io
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from freezeout.lab.evidence import Arm, compare_arms
from freezeout.lab.report.terminal import ComparisonTables, plain_text, print_to

GIB = 2**30


def comparison_text(comparison, width=80):
    return plain_text(ComparisonTables(comparison), width=width)


def by_seed(*values):
    return dict(enumerate(values))


FULL = Arm(
    name="full length",
    kind="baseline",
    errors=by_seed(5.0, 5.2, 4.9, 5.1, 5.3),
    seconds=by_seed(425, 431, 420, 427, 426),
    memory=by_seed(*[3 * GIB] * 5),
)


def family(name, errors, equal, *, equal_seconds=(352, 349, 350, 348, 351), control=None):
    """A variant, its equal-time baseline, its control."""
    errors = by_seed(*errors)
    return [
        Arm(
            name=name,
            kind="variant",
            errors=errors,
            seconds=by_seed(350, 352, 349, 351, 350),
            memory=by_seed(*[2 * GIB] * 5),
        ),
        Arm(
            name=f"plain, as long as {name}",
            kind="equal-time",
            of=name,
            errors=by_seed(*equal),
            seconds=by_seed(*equal_seconds[: len(equal)]),
            memory=by_seed(*[3 * GIB] * len(equal)),
        ),
        Arm(
            name=f"rates of {name}",
            kind="control",
            of=name,
            errors=errors if control is None else by_seed(*control),
            seconds=by_seed(428, 430, 425, 424, 429),
            memory=by_seed(*[3 * GIB] * 5),
        ),
    ]


VARIANT = (5.1, 5.2, 5.0, 5.3, 5.3)
PAID = family("cubic, t0 = 0.8", VARIANT, (6.0, 6.1, 5.9, 6.2, 6.3))
LOST = family(
    "linear, t0 = 0.5",
    (6.0, 6.1, 5.9, 6.2, 6.3),
    (5.4, 5.5, 5.2, 5.6),
    equal_seconds=(371, 372, 370, 373),
    control=(6.0, 6.1, 5.9, 6.2, 6.4),
)
ONE = compare_arms([FULL, *PAID], cell="resnet20 on cifar10, 30 epochs")
TWO = compare_arms([FULL, *PAID, *LOST], cell="resnet20 on cifar10, 30 epochs")
ALONE = compare_arms([FULL])

GOLDEN_80 = """\
resnet20 on cifar10, 30 epochs
                         error,        time in  time saved,              peak
arm               seeds  %            training  %                      memory
-----------------------------------------------------------------------------
full length           5  5.10 +-0.20    7m 06s  -                    3,221 MB
-----------------------------------------------------------------------------
cubic, t0 = 0.8       5  5.18 +-0.16    5m 50s  17.7 (17.1 to 18.3)  2,147 MB
  equal time          5  6.10 +-0.20    5m 50s  17.8 (16.6 to 19.0)  3,221 MB
  rates only          5  5.18 +-0.16    7m 07s  -0.3 (-1.3 to 0.6)   3,221 MB
-----------------------------------------------------------------------------
linear, t0 = 0.5      5  6.10 +-0.20    5m 50s  17.7 (17.1 to 18.3)  2,147 MB
  equal time          4  5.42 +-0.27    6m 12s  12.7 (11.6 to 13.9)  3,221 MB
  rates only          5  6.12 +-0.24    7m 07s  -0.3 (-1.3 to 0.6)   3,221 MB

Differences of error in points, over paired seeds
                 to equal               to full              its time to
arm              time                   run                  variant's, %
-------------------------------------------------------------------------------
cubic, t0 = 0.8  -0.92 (-0.98 to -0.86) 0.08 (-0.02 to 0.18) -
  equal time     -                      1.00 (0.91 to 1.09)  -0.1 (-1.0 to 0.7)
  rates only     -                      0.08 (-0.02 to 0.18) -
-------------------------------------------------------------------------------
linear, t0 = 0.5 0.62 (0.55 to 0.70)    1.00 (0.91 to 1.09)  -
  equal time     -                      0.38 (0.22 to 0.53)  6.0 (5.6 to 6.4)
  rates only     -                      1.02 (0.92 to 1.12)  -
Brackets and +-: 95 % intervals; error in % of the test data.

cubic, t0 = 0.8: Freezing paid: its error is 0.92 points lower than that of a
plain run of the same time (97.5 % interval -0.99 to -0.85). Freezing took 17.7
% less time than the full run (17.1 to 18.3) and ended 0.08 points higher (-0.02
to 0.18). Rates alone, with nothing frozen, end with the same error in all 5
seeds.

linear, t0 = 0.5: Freezing did not pay: its error is 0.62 points higher than
that of a plain run of the same time (97.5 % interval 0.52 to 0.73). Training
for fewer epochs does better. The equal-time baseline took 6.0 % longer than the
variant, so the comparison is hard on freezing. Freezing took 17.7 % less time
than the full run (17.1 to 18.3) and ended 1.00 points higher (0.91 to 1.09).

2 variants share the 5 % chance of a wrong verdict: verdicts use 97.5 %
intervals. Those in the tables hold with 95 % each.
Differences and savings are over the seeds that both arms have: the equal-time
baseline of linear, t0 = 0.5 lacks seed 4.
The rate-only control of linear, t0 = 0.5 ended with another error than the
variant in 1 of 5 seeds (4): there something other than the rates changed.
"""


def test_the_reviewed_output_at_80_columns():
    assert comparison_text(TWO, 80) + "\n" == GOLDEN_80


def test_at_120_columns_nothing_is_left_out():
    text = comparison_text(TWO, 120)
    assert "No room" not in text
    assert (
        "6.0 (5.6 to 6.4)" in text
    )  # the equal-time baseline's time, in percent more than the variant's
    assert "linear, t0 = 0.5 " in text


def test_where_there_is_no_room_columns_go_and_are_named():
    text = " ".join(comparison_text(TWO, 50).split())
    assert "No room at this width for: peak memory, seeds, time in training." in text
    assert "No room at this width for: its time to the variant's, to full run." in text
    assert text.count("linear, t0 = 0.5 ") >= 2
    assert "time saved" in text


def test_variants_that_differ_at_the_end_of_their_names_are_told_apart():
    names = [f"cubic with scaled rates, t0 = 0.{digit}" for digit in (5, 8)]
    made = [arm for name in names for arm in family(name, VARIANT, VARIANT)]
    lines = comparison_text(compare_arms([FULL, *made]), 80).splitlines()
    for digit in (5, 8):  # in both tables and in the verdict
        assert sum(bool(re.match(rf"cubic wi.*t0 = 0\.{digit}\b", line)) for line in lines) == 3


def test_a_single_arm_has_one_table_and_no_verdict():
    text = comparison_text(ALONE)
    assert "full length" in text
    for word in ("Differences", "Freezing", "time saved", "peak"):
        assert (word in text) == (word == "peak")


def test_one_seed_shows_no_interval():
    made = [
        Arm(name="full", kind="baseline", errors={0: 5.0}, seconds={0: 100.0}),
        Arm(name="cubic", kind="variant", errors={0: 5.5}, seconds={0: 80.0}),
        Arm(name="short", kind="equal-time", of="cubic", errors={0: 5.25}, seconds={0: 80.0}),
    ]
    text = comparison_text(compare_arms(made))
    variant = next(line for line in text.splitlines() if line.startswith("cubic "))
    assert variant.split() == ["cubic", "1", "5.50", "1m", "20s", "20.0"]
    assert "(" not in text.partition("Brackets")[0].replace("(s)", "")
    assert "only one seed is paired" in " ".join(text.split())


def test_a_control_that_agrees_is_said_beside_the_verdict():
    agreeing = " ".join(comparison_text(ONE).split())
    assert "Rates alone, with nothing frozen, end with the same error in all 5 seeds." in agreeing
    differing = " ".join(comparison_text(compare_arms([FULL, *LOST])).split())
    assert "Rates alone" not in differing
    assert "something other than the rates changed" in differing


@settings(max_examples=25)
@given(st.integers(40, 200), st.sampled_from([ONE, TWO, ALONE]), st.booleans())
def test_no_line_is_wider_than_asked_and_verdicts_are_whole(width, comparison, terminal):
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, color_system=None, legacy_windows=False
    )
    console.print(ComparisonTables(comparison))
    text = stream.getvalue()
    assert all(cell_len(line) <= width for line in text.splitlines())
    words = " ".join(text.split())
    for verdict in comparison.verdicts:
        assert " ".join(verdict.sentence.split()) in words
    for note in comparison.notes:
        assert " ".join(note.split()) in words


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_terminal_gets_rules_and_colour_and_a_file_gets_ascii(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, file = _Terminal(), io.StringIO()
    print_to(terminal, ComparisonTables(ONE))
    print_to(file, ComparisonTables(ONE))
    assert "─" in terminal.getvalue()
    assert "±" in terminal.getvalue()
    assert "\x1b[1;32m" in terminal.getvalue()  # paid: bold green
    assert file.getvalue() == comparison_text(ONE, 100) + "\n"
    assert file.getvalue().isascii()


def test_names_that_a_stream_cannot_write_become_question_marks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    comparison = compare_arms([FULL, *family("κυβικό", VARIANT, VARIANT)])
    print_to(stream, ComparisonTables(comparison))
    assert b"??????" in raw.getvalue()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="width must be at least 40, got 39"):
        comparison_text(ONE, 39)
    with pytest.raises(ValueError, match="at least one row, got none"):
        comparison_text(compare_arms([]))


def test_rendering_needs_no_plots():
    program = (
        "import sys, freezeout.lab.report.terminal.comparison_tables\n"
        "print('matplotlib' in sys.modules, 'rich' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600
    )
    assert ran.stdout == "False True\n"
