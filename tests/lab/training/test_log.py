"""The log of a run: a damaged line costs that line, and what is done again is logged once."""

import json
import os

import pytest

from freezeout.errors import RunError
from freezeout.lab.training.log import RunLog, check_record
from freezeout.storage import json_line


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path / "log.jsonl")


def epoch(number, step, **more):
    return {"event": "epoch", "step": step, "epoch": number, "train_loss": 0.5, **more}


def freeze(index, step):
    return {"event": "freeze", "step": step, "index": index, "name": f"layer{index}"}


START = {"event": "start", "step": 0, "total_steps": 8, "layers": ["a"], "freeze_steps": [None, 3]}
END = {"event": "end", "step": 8, "finished": True, "seconds": 1.5}


def test_what_was_logged_is_read_and_each_line_has_its_checksum(log):
    assert (log.read(), log.damage()) == ([], [])
    for record in (START, epoch(1, 4), END):
        log.append(record)
    assert log.read() == [START, epoch(1, 4), END]
    assert log.damage() == []
    assert all("sum" in json.loads(line) for line in log.path.read_text().splitlines())
    assert log.sync() is None


def test_a_damaged_line_costs_that_line_and_is_told(log):
    lines = [json_line(record).encode() for record in (START, epoch(1, 4), freeze(0, 5), END)]
    lines[1] = lines[1].replace(b"0.5", b"0.7")
    lines[2] = lines[2].replace(b"layer0", b"l\xffyer0")
    lines[3:3] = [b"[1]\n", b'{"event": "epoch", "step": "x", "epoch": 1}\n', b'{"step": 1}\n']
    log.path.write_bytes(b"".join(lines) + b'{"event": "ep')
    assert log.read() == [START, END]
    assert log.damage() == [
        "line 2: its checksum is another",
        "line 3: not UTF-8",
        "line 4: no object, but list",
        "line 5: its step is none of a record of epoch",
        "line 6: it has no event",
    ]
    log.rewind(8, 1)
    assert (log.read(), log.damage()) == ([START], [])


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"event": "epoch", "step": 1}, "epoch"),
        ({"event": "epoch", "step": 1, "epoch": 1.0}, "epoch"),
        ({"event": "epoch", "step": True, "epoch": 1}, "step"),
        ({"event": "epoch", "step": -1, "epoch": 1}, "step"),
        ({"event": "freeze", "step": 1}, "index"),
        ({"event": "unfreeze", "step": 1, "index": 0, "name": 3}, "name"),
        ({"event": "start"}, "step"),
        ({**START, "freeze_steps": [1, "x"]}, "freeze_steps"),
        ({**START, "layers": "ab"}, "layers"),
        ({**START, "settings": []}, "settings"),
        ({**END, "finished": 1}, "finished"),
        (epoch(1, 4, test_error="low"), "test_error"),
        (epoch(1, 4, memory=1.5), "memory"),
    ],
)
def test_a_record_has_the_shape_of_its_event(record, name):
    with pytest.raises(ValueError, match=f"^its {name} is none of a record of {record['event']}$"):
        check_record(record)
    check_record({"event": "of another version", "step": 0})
    check_record(epoch(1, 4, test_error=None, memory=None))


def test_an_epoch_stays_only_where_the_checkpoint_has_finished_it(log):
    for record in (START, freeze(0, 3), epoch(1, 4), freeze(1, 5), epoch(2, 8), END):
        log.append(record)
    log.rewind(8, 1)  # saved with all steps of the second epoch done, but not closed
    assert log.read() == [START, freeze(0, 3), epoch(1, 4), freeze(1, 5)]
    log.rewind(4, 1)
    assert log.read() == [START, freeze(0, 3), epoch(1, 4)]
    log.rewind(4, 0)
    assert log.read() == [START, freeze(0, 3)]
    log.rewind(-1, 0)
    assert log.read() == []


def test_what_an_older_version_logged_twice_is_kept_once(log):
    resumes = [{"event": "resume", "step": 4, "processes": n} for n in (2, 1, 2)]
    for record in (START, freeze(0, 3), epoch(1, 4), epoch(1, 4, train_loss=0.5), *resumes):
        log.append(record)
    log.rewind(4, 1)
    assert log.read() == [START, freeze(0, 3), epoch(1, 4), *resumes[:2]]


def test_a_log_that_cannot_be_read_or_written_says_so(log):
    log.path.mkdir()
    with pytest.raises(RunError, match=r"cannot read the log .*log.jsonl: Is a directory"):
        log.read()
    way = rf"freezeout train --resume {log.path.parent}$"
    with pytest.raises(RunError, match=rf"cannot write .*log.jsonl: Is a directory.*{way}"):
        log.append(START)
    with pytest.raises(RunError, match=r"cannot write .*log.jsonl: Is a directory"):
        log.sync()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_log_without_permission_says_so(log):
    log.append(START)
    log.path.chmod(0)
    with pytest.raises(RunError, match="Permission denied"):
        log.read()
