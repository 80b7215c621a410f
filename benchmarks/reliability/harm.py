"""Ways to damage a file."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.mutations import place

__all__ = ["HARMS", "MARK", "Harm", "draw_harm", "harm"]

MARK = "code-was-run"
"""Folder that a hostile file makes beside the damaged one, if it gets to run."""


@dataclass(frozen=True)
class Harm:
    """A way to damage a file.

    Attributes:
        apply: Damages it, and says in words how. It draws from the generator, and may use a file of
            the same kind from elsewhere.
        share: How often it is chosen, beside the others.
        foreign: Whether what comes out may be valid and other than before.
        archives: Whether it is for archives alone.
    """

    apply: Callable[[random.Random, Path, Path | None], str]
    share: float
    foreign: bool = False
    archives: bool = False


def draw_harm(chance: random.Random, path: Path) -> str:
    """Draw a way of `HARMS` that suits a file."""
    suiting = {n: one for n, one in HARMS.items() if path.suffix == ".pt" or not one.archives}
    return chance.choices([*suiting], [one.share for one in suiting.values()])[0]


def harm(chance: random.Random, path: Path, way: str, other: Path | None) -> str:
    """Damage a file in a way of `HARMS`; return how, in words."""
    return f"{way}: {HARMS[way].apply(chance, path, other)}"


def _bit(chance: random.Random, path: Path, other: Path | None) -> str:
    content = bytearray(path.read_bytes())
    if not content:
        return "nothing in it"
    position = _position(chance, len(content))
    bit = chance.randrange(8)
    content[position] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {position} of {len(content)}"


def _position(chance: random.Random, size: int) -> int:
    """Draw a place, more often at both ends, where the headers of archives are."""
    end = min(size, 4096)
    where = chance.random()
    if where < 0.25:
        return chance.randrange(end)
    return size - 1 - chance.randrange(end) if where < 0.5 else chance.randrange(size)


def _cut(chance: random.Random, path: Path, other: Path | None) -> str:
    size = path.stat().st_size
    length = chance.choice((0, chance.randrange(size + 1), max(0, size - 1 - chance.randrange(64))))
    os.truncate(path, length)
    return f"{length} bytes of {size} are left"


def _zeros(chance: random.Random, path: Path, other: Path | None) -> str:
    content = bytearray(path.read_bytes())
    begin = chance.randrange(len(content) + 1)
    end = min(len(content), begin + int(4096 ** chance.random()))
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    return f"bytes {begin} to {end} are zero"


def _noise(chance: random.Random, path: Path, other: Path | None) -> str:
    content = bytearray(path.read_bytes())
    begin = chance.randrange(len(content) + 1)
    added = chance.randbytes(int(256 ** chance.random()))
    if chance.random() < 0.5:
        content[begin : begin + len(added)] = added
    else:
        content[begin:begin] = added
    path.write_bytes(content)
    return f"{len(added)} random bytes at {begin}"


def _folder(chance: random.Random, path: Path, other: Path | None) -> str:
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def _pipe(chance: random.Random, path: Path, other: Path | None) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a pipe in its place"


def _device(chance: random.Random, path: Path, other: Path | None) -> str:
    device = chance.choice(("/dev/zero", "/dev/full", "/dev/null"))
    path.unlink()
    path.symlink_to(device)
    return f"a link to {device} in its place"


def _version(chance: random.Random, path: Path, other: Path | None) -> str:
    new = chance.choice((b"0", b"2", b"99", b"-1", b'"1"', b"true", b"null", b"1e400", b"9" * 5000))
    content = path.read_bytes()
    if path.suffix == ".pt":
        state = torch.load(io.BytesIO(content), weights_only=True)
        torch.save({**state, "format": 99}, path)
        return "format 99"
    changed = re.sub(rb'("?format"?\s*[:=]\s*)\d+', rb"\g<1>" + new, content, count=1)
    path.write_bytes(changed)
    return f"format {new[:20].decode()}" if changed != content else "it has no version"


def _swapped(chance: random.Random, path: Path, other: Path | None) -> str:
    if other is None:
        return "there is no other"
    shutil.copyfile(other, path)
    return "that of another run"


class _Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.makedirs, (str(self.mark),)


def _pickle(chance: random.Random, path: Path, other: Path | None) -> str:
    hostile = _Hostile(path.parent / MARK)
    protocol = chance.randrange(2, 6)
    content = pickle.dumps(chance.choice((hostile, {"format": hostile})), protocol=protocol)
    how = chance.randrange(3)
    if how == 0:
        path.write_bytes(content)
    elif how == 1:  # as torch writes it
        torch.save({"format": 1, "settings": {}, "model": hostile}, path)
    elif zipfile.is_zipfile(path):
        _put_in(path, content)
    else:
        path.write_bytes(path.read_bytes() + content)
    return f"a pickle that runs code, form {how}, protocol {protocol}"


def _put_in(path: Path, content: bytes) -> None:
    """Put a pickle in the place of the one in an archive, with right checksums."""
    with zipfile.ZipFile(path) as archive:
        parts = [(item, archive.read(item)) for item in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for item, part in parts:
            archive.writestr(item.filename, content if item.filename.endswith("data.pkl") else part)


def _made(chance: random.Random, path: Path, other: Path | None) -> str:
    """Write a valid archive with one value that does not belong there."""
    state = torch.load(path, weights_only=True)
    inside, key = place(chance, state)
    new: Any = chance.choice(
        (
            None,
            -1,
            10**30,
            1e308,
            float("nan"),
            "text",
            [],
            {},
            True,
            torch.zeros(3),
            torch.zeros(0),
        )
    )
    if chance.random() < 0.2:
        del inside[key]
        new = "nothing"
    else:
        inside[key] = new
    torch.save(state, path)
    return f"{key!r} is {new!r}"


HARMS: dict[str, Harm] = {
    "bit": Harm(_bit, 8.0),
    "cut": Harm(_cut, 2.0),
    "zeros": Harm(_zeros, 2.0),
    "noise": Harm(_noise, 2.0),
    "folder": Harm(_folder, 0.5),
    "pipe": Harm(_pipe, 0.5),
    "device": Harm(_device, 0.5),
    "version": Harm(_version, 0.5),
    "swapped": Harm(_swapped, 1.0, foreign=True),
    "pickle": Harm(_pickle, 1.0),
    "hand-made": Harm(_made, 2.0, foreign=True, archives=True),
}
"""By name."""
