"""What is read: right, or refused in one line that says which of four things is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from freezeout.errors import CheckpointError, RunError
from freezeout.storage import (
    KeptFile,
    check_values,
    json_line,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_json_lines,
    read_text,
    write_json,
)
from freezeout.storage import reading as reading_module

PLAN = KeptFile("plan", "Give a plan.json.", "Plan again.", CheckpointError)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


def refusal(file: Path, read=read_json) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(file, PLAN)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(str(file), "FILE")


def test_what_was_written_is_read(file):
    write_json(file, {"a": [1, 2.5], "b": None})
    assert read_json(file, PLAN) == {"a": [1, 2.5], "b": None}
    assert "digest" in json.loads(file.read_text())


def test_a_file_of_before_there_were_digests_is_read(file):
    file.write_text('{"a": 1}')
    assert read_json(file, PLAN) == {"a": 1}


def test_four_sentences_for_four_things(file, tmp_path):
    assert refusal(file) == "there is no plan FILE. Give a plan.json."
    file.mkdir()
    assert refusal(file) == (
        "cannot read the plan FILE: Is a directory. That says nothing against its content: make "
        "it readable, then do the same again."
    )
    file.rmdir()
    write_json(file, {"rate": 0.1})
    file.write_text(file.read_text().replace("0.1", "0.3"))
    assert refusal(file) == (
        "the plan FILE is damaged: its digest is another. If you have changed it by hand, remove "
        '"digest" in it. Plan again.'
    )
    other = PLAN.of_another_version(file, "layout 3, known is 2")
    assert str(other).replace(str(file), "FILE") == (
        "the plan FILE is of another version of freezeout: layout 3, known is 2. Use the version "
        "that wrote it. Plan again."
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_without_permission_it_is_unreadable_not_damaged(file):
    file.write_text("{}")
    file.chmod(0)
    assert "Permission denied" in refusal(file)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_no_file_can_have(tmp_path, name):
    with pytest.raises(CheckpointError, match=r"there is no plan|cannot read the plan"):
        read_bytes(tmp_path / name, PLAN)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1: expecting value"),
        (b'{"a": 1,\n "b": }', "line 2: expecting value"),
        (b'{"a": 1}\n{}', "line 2: extra data"),
        (b'{"a": "\xff"}', "line 1 is not UTF-8"),
        (b'{\n"a": "\xc3("}', "line 2 is not UTF-8"),
        (b"[1]", "it holds no object, but list"),
        (b"null", "it holds no object, but NoneType"),
        (b'{"a": 1e999}', "the number 1e999... is too large"),
        (b'{"a": ' + b"9" * 400 + b".0}", "the number 999999999999... is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it holds an integer of thousands of digits"),
        (b'{"a": 9223372036854775808}', "it holds an integer beyond 64 bits"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "it is nested more than 64 deep"),
        (b"[" * 500_000, "it is nested more than 64 deep"),
        (b'{"a":' * 500_000, "it is nested more than 64 deep"),
        (b'{"a": 1\x00}', "line 1: expecting ',' delimiter"),
    ],
)
def test_damage_is_named_with_its_line(file, content, reason):
    file.write_bytes(content)
    assert refusal(file) == f"the plan FILE is damaged: {reason}. Plan again."


def test_a_file_has_a_size_that_it_may_have(file):
    file.write_text("x" * 11)
    with pytest.raises(CheckpointError, match="it has more than 10 bytes"):
        read_text(file, PLAN, most=10)
    assert read_text(file, PLAN, most=11) == "x" * 11


def test_the_error_is_a_run_error_unless_said(tmp_path):
    with pytest.raises(RunError):
        read_json(tmp_path / "x", KeptFile("thing", "Give one.", "Make one."))


def test_depth_and_integers_are_bounded():
    check_values({"a": [[-(2**63), 2**63 - 1, 1e308, True, "x"]]})
    for wrong in ([2**63], {"a": [-(2**63) - 1]}):
        with pytest.raises(ValueError, match="64 bits"):
            check_values(wrong)
    deep: list[object] = []
    for _ in range(62):
        deep = [deep]
    check_values(deep)
    with pytest.raises(ValueError, match="64 deep"):
        check_values([[[deep]]])
    assert parse_json('{"a": [1, 1.5, null]}') == {"a": [1, 1.5, None]}


def test_a_damaged_line_costs_that_line(file):
    lines = [json_line({"event": "epoch", "step": step}) for step in range(6)]
    lines[1] = lines[1].replace("1", "7", 1)
    lines[2] = "[]\n"
    lines[3] = "\n"
    file.write_bytes("".join(lines).encode() + b"\xff\n" + b'{"event": "e')
    found, wrong = read_json_lines(file, PLAN)
    assert [record["step"] for record in found] == [0, 4, 5]
    assert found[0] == {"event": "epoch", "step": 0}
    assert wrong == [
        "line 2: its checksum is another",
        "line 3: no object, but list",
        "line 7: not UTF-8",
    ]


def test_a_line_of_the_wrong_shape_is_left_out_with_its_number(file):
    def check(values):
        if "step" not in values:
            raise ValueError("it has no step")

    file.write_text('{"a": 1}\n{"step": 1}\n')
    assert read_json_lines(file, PLAN, check=check) == (
        [{"step": 1}],
        ["line 1: it has no step"],
    )


def test_lines_of_before_there_were_checksums_and_none_at_all(file):
    assert read_json_lines(file, PLAN) == ([], [])
    file.write_text('{"step": 1}\n{"step": 2}')
    assert read_json_lines(file, PLAN) == ([{"step": 1}, {"step": 2}], [])
    file.unlink()
    file.mkdir()
    assert "Is a directory" in refusal(file, read_json_lines)


READERS = (read_bytes, read_text, read_json, read_json_lines)
NO_FILE = "FILE is no plan, but a pipe or a device, which may have no end. Give a plan.json."


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with a name")
@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_not_waited_for(file, read):
    os.mkfifo(file)
    assert refusal(file, read) == NO_FILE
    with pytest.raises(OSError, match="not a regular file"), open_regular(file):
        pass


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null"])
def test_a_device_is_not_read(file, read, device):
    if not Path(device).exists():
        pytest.skip("there is no such device")
    file.symlink_to(device)
    assert refusal(file, read) == NO_FILE


def test_a_link_to_a_regular_file_is_followed(file, tmp_path):
    (tmp_path / "other").write_text("{}")
    file.symlink_to("other")
    assert read_json(file, PLAN) == {}
    with open_regular(file) as opened:
        assert opened.read() == b"{}"


def test_a_file_that_has_nothing_to_give_yet_is_not_taken_for_an_empty_one(file, monkeypatch):
    """As ``/proc/kmsg``, which is regular by its mode."""
    file.touch()
    read, write = os.pipe()
    monkeypatch.setattr(reading_module, "_at_once", lambda path, flags: read)
    monkeypatch.setattr(reading_module.stat, "S_ISREG", lambda mode: True)
    os.set_blocking(read, False)
    assert "cannot read the plan FILE: Resource temporarily unavailable" in refusal(file)
    os.close(write)


def test_a_file_that_is_too_large_is_not_even_read(file, monkeypatch):
    monkeypatch.setattr(reading_module, "_MOST_JSON", 20)
    file.write_text(json.dumps({"a": "x" * 11}))
    assert len(read_json(file, PLAN)["a"]) == 11
    file.write_text(json.dumps({"a": "x" * 12}))
    assert "is damaged: it has more than 20 bytes" in refusal(file)
    assert read_json_lines(file, PLAN) == ([], [])  # a last line that is no line
    file.write_text(f"{file.read_text()}\n")
    assert read_json_lines(file, PLAN) == ([], ["line 1: more than 20 bytes"])
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert "is damaged: it has more than 20 bytes" in refusal(file)
