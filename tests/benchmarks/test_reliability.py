"""The tools of the reliability campaign: children, interruptions, damage, and the loop itself."""

import errno
import json
import os
import pickle
import signal
import time
from pathlib import Path

import pytest
import torch

import benchmarks.reliability.__main__ as program
from benchmarks.reliability.bits import differing, digest
from benchmarks.reliability.campaign import SEEDS, carry_out, next_kind, run_case
from benchmarks.reliability.case import Case, FoundError, Kind, judge
from benchmarks.reliability.children import End, have_ended, run_child
from benchmarks.reliability.harm import HARMS, MARK, draw_harm, harm
from benchmarks.reliability.interruptions import AtByte, AtMoment, AtOperation, count_operations
from benchmarks.reliability.mutations import hostile_value, mutated_bytes, mutated_tree

pytestmark = pytest.mark.multiprocess


def end(code=0, out="", err="", *, late=False):
    return End(code, out, err, 1.0, late)


# --- Children ----------------------------------------------------------------------------------


def test_a_child_ends_like_a_program(tmp_path):
    def talks():
        print(Path.cwd())
        return 7

    found = run_child(talks, tmp_path)
    assert (found.code, found.out, found.err) == (7, f"{tmp_path}\n", "")

    def fails():
        raise KeyError("gone")

    found = run_child(fails, tmp_path)
    assert found.code == 1
    assert "Traceback" in found.err
    assert "KeyError: 'gone'" in found.err

    def leaves():
        raise SystemExit("no")

    assert run_child(leaves, tmp_path).code == 1


def test_a_child_that_takes_too_long_is_killed(tmp_path):
    found = run_child(lambda: time.sleep(60) or 0, tmp_path, seconds=0.3)
    assert found.late
    assert found.code == -signal.SIGKILL
    assert found.seconds < 30


def test_a_child_gets_signals_at_their_moments(tmp_path):
    for number in (signal.SIGUSR1, signal.SIGKILL):
        how = AtMoment(0.2, number)
        found = run_child(lambda: time.sleep(600) or 0, tmp_path, signals=how.signals)
        assert found.code == -number
        assert found.seconds >= 0.2


def test_processes_that_go_on_are_seen():
    assert not have_ended([os.getpid()], 0.0)
    assert have_ended([2**22 + 1], 0.0)  # more than there can be


# --- Interruptions -----------------------------------------------------------------------------


def writes_three(folder):
    for name in "abc":
        (folder / name).write_text(name)
    (folder / "c").rename(folder / "d")
    return 0


@pytest.mark.parametrize(
    ("number", "left"),
    [(1, []), (2, ["a"]), (4, ["a", "b", "c"]), (5, ["a", "b", "d"])],
)
def test_a_kill_comes_before_its_file_operation(tmp_path, number, left):
    found = run_child(lambda: writes_three(tmp_path), tmp_path, AtOperation(number).install)
    assert found.killed is (number < 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_file_operations_are_counted(tmp_path):
    counting, count = count_operations()
    run_child(lambda: writes_three(tmp_path), tmp_path, counting.install)
    assert count() == 4


def test_only_operations_in_the_folder_count(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    counting, count = count_operations()
    run_child(lambda: writes_three(outside), inside, counting.install)
    assert count() == 0


def test_an_operation_fails_with_the_error_that_was_asked_for(tmp_path):
    def work():
        try:
            writes_three(tmp_path)
        except OSError as error:
            print(error.errno, error.filename)
        return 0

    found = run_child(work, tmp_path, AtOperation(2, error=errno.ENOSPC).install)
    assert found.out == f"{errno.ENOSPC} {tmp_path / 'b'}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_sync_fails_too(tmp_path):
    def work():
        with (tmp_path / "a").open("w") as file:
            os.fsync(file.fileno())
        return 0

    found = run_child(work, tmp_path, AtOperation(2, error=errno.EIO).install)
    assert "OSError" in found.err


@pytest.mark.parametrize("size", [0, 1, 1000, 6000])
def test_a_file_is_cut_within_a_write(tmp_path, size):
    def work():
        with (tmp_path / "a").open("wb", buffering=0) as file:
            for _ in range(8):
                file.write(bytes(1000))
        return 0

    found = run_child(work, tmp_path, AtByte(size).install)
    assert found.killed
    assert (tmp_path / "a").stat().st_size == size


def test_a_full_disk_is_an_error(tmp_path):
    def work():
        (tmp_path / "a").write_bytes(bytes(1000))
        return 0

    found = run_child(work, tmp_path, AtByte(10, kills=False).install)
    assert found.code == 1
    assert f"OSError: [Errno {errno.EFBIG}]" in found.err


# --- How a command may end ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        end(),
        end(0, "much\nis said", "and\nhere"),
        end(2, err="freezeout: error: no such folder. Give one.\n"),
    ],
)
def test_good_ends(good):
    judge(good)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (end(1, err="one line"), "exit code 1"),
        (end(-11), "SIGSEGV"),
        (end(2), "0 lines"),
        (end(2, err="freezeout: error: a\nb"), "2 lines"),
        (end(2, err="a warning"), "names no error"),
        (end(0, err="Traceback (most recent call last):\n  x\nKeyError"), "a traceback"),
        (end(2, out="Traceback (most recent call last):", err="error: x"), "a traceback"),
        (end(-9, late=True), "no end within"),
    ],
)
def test_bad_ends(bad, what):
    with pytest.raises(FoundError, match=what):
        judge(bad)


# --- Bits --------------------------------------------------------------------------------------


def test_one_bit_makes_another_digest():
    values = {"w": torch.zeros(3), "s": [1, 2.0, None, "x", True]}
    assert digest(values) == digest({"w": torch.zeros(3), "s": [1, 2.0, None, "x", True]})
    other = torch.zeros(3)
    other[1] = -0.0
    for changed in (
        {**values, "w": other},
        {**values, "w": torch.zeros(3, dtype=torch.float64)},
        {**values, "w": torch.zeros(1, 3)},
        {**values, "s": [1, 2, None, "x", True]},
        {**values, "s": [1, 2.0, None, "x", 1]},
        {"s": values["s"], "w": values["w"]},
    ):
        assert digest(changed) != digest(values)


def test_what_differs_is_named():
    assert differing({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]


# --- Damage and hostile texts ------------------------------------------------------------------


def archive(path, value=0.0):
    torch.save({"format": 1, "weights": torch.full((300,), value), "steps": [1, 2]}, path)
    return path


@pytest.mark.parametrize("way", [*HARMS])
@pytest.mark.parametrize("name", ["a.pt", "a.json"])
def test_every_harm_changes_a_file(tmp_path, way, name):
    path = tmp_path / name
    archive(path) if name == "a.pt" else path.write_text('{"format": 1, "steps": [1, 2]}')
    if HARMS[way].archives and name != "a.pt":
        return
    before = path.read_bytes()
    other = archive(tmp_path / "other", 1.0)
    words = [harm(Case("test", seed, tmp_path).random, path, way, other) for seed in range(1)]
    assert words[0].startswith(f"{way}: ")
    assert not path.is_file() or path.read_bytes() != before


def test_a_bit_is_one_bit(tmp_path):
    for seed in range(50):
        path = archive(tmp_path / "a.pt")
        before = path.read_bytes()
        harm(Case("test", seed, tmp_path).random, path, "bit", None)
        after = path.read_bytes()
        changed = [a ^ b for a, b in zip(before, after, strict=True) if a != b]
        assert [bin(one).count("1") for one in changed] == [1]


def test_a_hostile_file_leaves_its_mark_where_it_is_unpickled(tmp_path):
    for seed in range(20):
        path = archive(tmp_path / f"{seed}.pt")
        harm(Case("test", seed, tmp_path).random, path, "pickle", None)
        try:
            torch.load(path, weights_only=False)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            continue
        if (tmp_path / MARK).is_dir():
            break
    assert (tmp_path / MARK).is_dir()


def test_text_files_get_no_harm_of_archives(tmp_path):
    ways = {draw_harm(Case("test", n, tmp_path).random, tmp_path / "a.json") for n in range(200)}
    assert "bit" in ways
    assert "hand-made" not in ways


def test_mutations_are_decided_by_the_seed(tmp_path):
    tree = {"a": [1, 2.5, {"b": "text"}], "c": True}
    kept = json.dumps(tree)
    for make in (
        lambda chance: mutated_tree(chance, tree),
        lambda chance: mutated_bytes(chance, kept.encode()),
        hostile_value,
    ):
        made = [repr(make(Case("test", seed, tmp_path).random)) for seed in range(100)]
        assert made == [repr(make(Case("test", seed, tmp_path).random)) for seed in range(100)]
        assert len(set(made)) > 40
    assert json.dumps(tree) == kept


# --- The loop ----------------------------------------------------------------------------------


def counts(case):
    case.count("things")
    case.note("it was done")


def finds_seven(case):
    counts(case)
    case.check(case.seed % SEEDS != 7, "seven is wrong")


def breaks(case):
    raise ZeroDivisionError


def test_a_case_says_what_it_found_and_how_to_see_it_again():
    outcome = run_case("sevens", finds_seven, 7)
    assert outcome.counts == {"things": 1}
    assert str(outcome.finding) == (
        "FOUND by sevens:7: seven is wrong\n    it was done\n"
        "  again: python -m benchmarks.reliability --reproduce sevens:7"
    )
    assert run_case("sevens", finds_seven, 8).finding is None


def test_a_defect_of_the_campaign_is_found_too():
    finding = run_case("broken", breaks, 0).finding
    assert "ZeroDivisionError" in finding.text


def carried_out(kinds, **options):
    given = {"seconds": 0.5, "seed": 0, "processes": 1, "keep_going": False, **options}
    return carry_out(kinds, tell=lambda tally, seconds: None, **given)


def test_the_campaign_ends_at_the_first_finding():
    tally = carried_out({"sevens": Kind(finds_seven, 1.0)}, seconds=60.0)
    assert [finding.seed for finding in tally.findings] == [7]
    assert tally.cases["sevens"] == 8


def test_it_may_go_on():
    tally = carried_out({"sevens": Kind(finds_seven, 1.0)}, keep_going=True, seed=3)
    assert [finding.seed for finding in tally.findings] == [3 * SEEDS + 7]
    assert tally.cases["sevens"] > 8


def test_processes_share_the_cases():
    tally = carried_out({"sevens": Kind(finds_seven, 1.0)}, processes=2, keep_going=True)
    assert len(tally.findings) == 1


def test_a_process_that_dies_ends_the_campaign():
    with pytest.raises(RuntimeError, match="ended with 5"):
        carried_out({"deadly": Kind(lambda case: os._exit(5), 1.0)})


def test_kinds_share_the_time():
    kinds = {"a": Kind(counts, 1.0), "b": Kind(counts, 4.0)}
    spent = {"a": 0.0, "b": 0.0}
    for _ in range(100):
        spent[next_kind(kinds, spent)] += 1.0
    assert spent == {"a": 20.0, "b": 80.0}


def test_the_program_writes_its_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "get_ready", lambda: None)
    monkeypatch.setattr(
        program, "KINDS", {"sevens": Kind(finds_seven, 1.0), "easy": Kind(counts, 1.0)}
    )
    out = tmp_path / "figures.json"
    assert program.main(["--minutes", "0.005", "--only", "easy", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["passed"]
    assert result["counts"]["things"] == result["kinds"]["easy"]["cases"] > 0
    assert program.main(["--minutes", "1", "--only", "sevens", "--out", str(out)]) == 1
    result = json.loads(out.read_text())
    assert not result["passed"]
    assert result["findings"][0]["case"] == "sevens:7"
    assert "again: python -m" in capsys.readouterr().out
    assert program.main(["--reproduce", "sevens:7"]) == 1
    assert program.main(["--reproduce", "sevens:8"]) == 0
    with pytest.raises(SystemExit):
        program.main(["--reproduce", "eights:8"])
