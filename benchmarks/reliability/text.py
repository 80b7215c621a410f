"""Hostile TOML, JSON and lines of JSON: every reader answers with one of our own errors, soon."""

from __future__ import annotations

import contextlib
import io
import mmap
import random
import resource
import time
import traceback
from pathlib import Path

from benchmarks.reliability.case import Case
from benchmarks.reliability.children import run_child
from benchmarks.reliability.mutations import as_json, hostile_value, mutated_bytes, mutated_tree
from benchmarks.reliability.readers import READERS, documents, plain_values
from freezeout.errors import FreezeOutError

__all__ = ["text"]

_INPUTS = 500  # of one case, in one process
_SECONDS = 1.0  # of processor time, for one input
_MEMORY = 1 << 30  # bytes above what the process has at first


def text(case: Case) -> None:
    """Feed some hundred mutated documents to the readers, in a process with little memory."""
    documents()
    at = mmap.mmap(-1, 8)

    def work() -> int:
        _limit_memory()
        (case.folder / "run").mkdir()
        for number in range(_INPUTS):
            at[:] = number.to_bytes(8, "little")
            found = _feed(case, number)
            if found:
                print(found)
                return 3
        return 0

    end = run_child(work, case.folder)
    number = int.from_bytes(at[:], "little")
    case.count("parser inputs", number + 1)
    if end.code or end.late:
        reader, content = _input(case.seed, number)
        shown = content if len(content) < 3000 else content[:3000] + b" ..."
        case.note(f"reader {reader!r}, input {number}: {shown!r}")
        case.check(False, f"{end.words}: {(end.out + end.err).strip()}")


def _feed(case: Case, number: int) -> str:
    """Let a reader read one input; return what is wrong with its answer, if anything."""
    reader, content = _input(case.seed, number)
    _lay_out(case.folder, READERS[reader].file, content)
    begun = time.process_time()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            READERS[reader].read(case.folder)
    except FreezeOutError:
        pass
    except BaseException:
        return f"not one of our own errors:\n{traceback.format_exc()}"
    took = time.process_time() - begun
    return f"{took:.1f} s of processor time" if took > _SECONDS else ""


def _lay_out(folder: Path, file: str, content: bytes) -> None:
    """Write an input, and the other files of a run where it is one of them."""
    if file.startswith("run/"):
        for name, valid in documents().items():
            if name in ("run/failed.json", "run/arm.json"):
                (folder / name).unlink(missing_ok=True)
            elif name.startswith("run/"):
                (folder / name).write_bytes(valid)
    (folder / file).write_bytes(content)


def _input(seed: int, number: int) -> tuple[str, bytes]:
    """Return the n-th input of a case: the reader, and what it is to read."""
    chance = random.Random(f"text:{seed}:{number}")
    reader = chance.choices([*READERS], [one.share for one in READERS.values()])[0]
    file = READERS[reader].file
    values = plain_values(file)
    way = chance.random()
    if values is not None and way < 0.55:
        return reader, as_json(mutated_tree(chance, values))
    if file.endswith(".jsonl") and way < 0.3:
        lines = documents()[file].splitlines()
        lines.insert(chance.randrange(len(lines) + 1), as_json(hostile_value(chance)))
        return reader, b"\n".join(lines) + b"\n"
    if way > 0.97:
        return reader, as_json(hostile_value(chance))
    return reader, mutated_bytes(chance, documents()[file])


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
