"""Settings as TOML: what a user may get wrong and what a disk may, each in one line."""

import datetime

import pytest

from freezeout.errors import RunError
from freezeout.lab.training import Settings, read_toml
from freezeout.lab.training.toml import has_digest, read_saved_toml, toml_bytes, write_toml


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settings.toml"


def refusal(file, read=read_toml):
    with pytest.raises(RunError) as caught:
        read(file)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(file), "FILE")


def test_what_was_written_is_read_and_has_its_digest(file):
    values = Settings(times=(0.25, 1.0), data_dir="a # b").to_dict()
    write_toml(file, values)
    assert read_saved_toml(file) == read_toml(file) == values
    assert has_digest(file)
    assert file.read_text().startswith("# digest: ")
    file.write_bytes(toml_bytes(values))
    assert read_saved_toml(file) == values
    assert not has_digest(file)


@pytest.mark.parametrize("line", ["lr = 0.2", "lr = 1979-05-27", "lr = 0.1\nmore = 1"])
def test_a_changed_value_is_seen_in_what_was_saved_and_allowed_to_a_user(file, line):
    write_toml(file, {"lr": 0.1, "epochs": 3})
    file.write_text(file.read_text().replace("lr = 0.1", line))
    assert refusal(file, read_saved_toml) == (
        "the settings file FILE is damaged: its digest is another. If you have changed it by hand, "
        "remove the line '# digest: ...' in it. Copy it again, or start the run again."
    )
    assert not has_digest(file)
    assert read_toml(file)["epochs"] == 3  # a copy of it, given with --config


def test_comments_and_order_may_change(file):
    write_toml(file, {"lr": 0.1, "epochs": 3})
    first, *lines = file.read_text().splitlines()
    file.write_text("\n".join(["# mine", *reversed(lines), first]) + "\n")
    assert read_saved_toml(file) == {"lr": 0.1, "epochs": 3}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = 1\nb = \xff\n", "the settings file FILE is damaged: line 2 is not UTF-8."),
        (b"a = 'x\0y'", "FILE is not valid TOML: "),
        (b"a = 1\nb = = 2\n", "(at line 2, column 5). Fix that line."),
        (b"a = " + b"9" * 30, "FILE is not valid TOML: it holds an integer beyond 64 bits."),
        (b"a = " + b"9" * 5000, "it holds an integer of thousands of digits. Fix that line."),
        (b"a = " + b"[" * 100 + b"]" * 100, "it is nested more than 64 deep"),
        (b"a = " + b"[" * 100_000 + b"]" * 100_000, "it is nested too deep. Make it flat."),
        (b"a" + b".a" * 100_000 + b" = 1", "line 1 has a key or a text with more than 64 dots"),
        (b"\n[a" + b" . 'a b'" * 100_000 + b"]", "line 2 has a key or a text with more than 64"),
        (b"#" * (2 << 20), "FILE is damaged: it has more than 1,048,576 bytes. Give a TOML file."),
    ],
)
def test_what_is_no_file_of_settings_is_refused_in_one_line(file, content, words):
    file.write_bytes(content)
    for read in (read_toml, read_saved_toml):
        assert words.replace(" Give a TOML file.", "") in refusal(file, read)


def test_a_long_list_of_numbers_is_no_long_key(file):
    times = [i / 1000 for i in range(1, 1001)]
    file.write_text(f"# {'.' * 100}\ntimes = {times}\n")
    assert read_toml(file) == {"times": times}


def test_a_file_that_is_not_there_or_cannot_be_read(file):
    assert refusal(file) == "there is no settings file FILE. Give a TOML file."
    file.mkdir()
    assert refusal(file).startswith("cannot read the settings file FILE: Is a directory. That")


def test_values_that_no_setting_takes_are_read_and_then_refused(file):
    file.write_text("epochs = 2020-01-01\n")
    values = read_toml(file)
    assert values == {"epochs": datetime.date(2020, 1, 1)}
    with pytest.raises(RunError, match="epochs must be a whole number"):
        Settings.from_dict(values)
