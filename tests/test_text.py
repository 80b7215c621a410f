"""Numbers, durations, tables and errors as text."""

import csv
import io
import math
import subprocess

import pytest

from freezeout.text import (
    command,
    csv_text,
    did_you_mean,
    first_line,
    fixed,
    format_seconds,
    interval_text,
    milliseconds,
    one_line,
    percent,
    plain_table,
    precise_seconds,
    printable,
    quoted,
    size_text,
    unit_for,
)


@pytest.mark.parametrize("value", [-0.0, -0.04, 0.04])
def test_zero_has_no_minus_sign(value):
    assert fixed(value, 1) == "0.0"
    assert fixed(-0.06, 1) == "-0.1"
    assert fixed(-0.4, 0) == "0"


def test_fractions_are_written_as_percentages():
    assert percent(-0.0004) == "0.0 %"
    assert percent(-0.0006) == "-0.1 %"
    assert percent(1.0) == "100.0 %"


def test_an_interval_stands_behind_its_percentage():
    assert interval_text(None) == ""
    assert interval_text((-0.0001, 0.1)) == " (0.0 to 10.0)"


def test_milliseconds_have_two_decimals():
    assert milliseconds(1.5) == "1500.00 ms"
    assert milliseconds(-1e-9) == "0.00 ms"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2560, "2.5 KiB"),
        (99.94 * 1024, "99.9 KiB"),
        (99.95 * 1024, "100 KiB"),
        (3 * 2**30, "3.0 GiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes_have_a_unit_and_few_digits(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("largest", "of", "unit", "power"),
    [(999, "FLOPs", "", 0), (1000, "FLOPs", "kilo", 3), (10**19, "FLOPs", "peta", 15)],
)
def test_units_fit_the_largest_number(largest, of, unit, power):
    name, factor = unit_for(largest, of)
    assert name == unit
    assert factor == pytest.approx(10.0**-power)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (-0.01, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1m 00s"),
        (3599.4, "59m 59s"),
        (3599.6, "1h 00m"),
        (-425.0, "-7m 05s"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_durations_round_to_the_next_unit(seconds, text):
    assert format_seconds(seconds) == text


def test_short_durations_can_have_three_digits():
    assert precise_seconds(0.0123456) == "0.0123 s"
    assert precise_seconds(9.994) == "9.99 s"
    assert precise_seconds(9.996) == format_seconds(9.996) == "10 s"


def test_the_second_column_of_a_table_stands_to_the_left():
    rows = [("n", "name", "time"), ("10", "a", "1"), ("2", "longer", "")]
    assert plain_table(rows) == [" n  name    time", "10  a          1", " 2  longer"]


def test_near_names_are_suggested_and_far_ones_are_not():
    assert did_you_mean("spaceing", ["t0", "spacing"], "Try t0.") == "Did you mean 'spacing'?"
    assert did_you_mean("xyz", ["t0", "spacing"], "Try t0.") == "Try t0."


def test_errors_are_written_in_one_line():
    error = RuntimeError("\n no kernel:\n\t it is too new.\n")
    assert one_line(error) == "no kernel: it is too new."
    assert first_line(error) == "no kernel"


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_error_without_text_is_called_by_its_type(text):
    assert one_line(KeyboardInterrupt(text)) == "KeyboardInterrupt"
    assert first_line(KeyboardInterrupt(text)) == "KeyboardInterrupt"
    assert first_line(ValueError("...")) == "ValueError"


@pytest.mark.parametrize(
    "word",
    [
        *("a", "", "my runs/1", "two  blanks", " ", "it's", "$(id)", "`id`;id", "-x", "~/a", "*"),
        *("two\nlines", "tab\there", "\x1b[1mbold's\\", "caf\xe9", "no \udcff7 utf", "\xa0", "\\"),
    ],
)
def test_a_quoted_word_is_one_word_of_the_shell_again(word):
    line = command("train", "--resume", word)
    assert " ".join(line.split()) == line  # it may stand in one line with others
    assert line.isprintable()
    shown = line.replace("freezeout", r"printf '%s\0'", 1)
    done = subprocess.run(["bash", "-c", shown], capture_output=True, check=True)
    expected = [part.encode("utf-8", "surrogateescape") for part in ("train", "--resume", word)]
    assert done.stdout.split(b"\0")[:-1] == expected


def test_ordinary_words_are_left_as_they_are():
    assert (
        command("report", "runs/compare-digits_1.5") == "freezeout report runs/compare-digits_1.5"
    )
    assert quoted("caf\xe9") == "'caf\xe9'"
    assert printable("caf\xe9 \u2713") == "caf\xe9 \u2713"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_of_text_is_no_formula(start):
    text = csv_text([("name",), (f"{start}cmd|x",)])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["name"], [f"'{start}cmd|x"]]


def test_numbers_in_cells_stay_numbers():
    assert csv_text([(-1, -0.5, "-1e-3", "+2", "-inf", None)]) == "-1,-0.5,-1e-3,+2,-inf,\n"


def test_an_error_in_one_line_controls_no_terminal():
    assert one_line(ValueError("a\x1b[2Jb\nc\udcff")) == r"a\x1b[2Jb c\udcff"
