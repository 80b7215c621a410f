"""Archives: only what `torch.save` writes is taken; damage is seen before anything is loaded."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable

import pytest
import torch

from freezeout.storage import add_archive_digest, archive_trouble

STATE = {"weight": torch.arange(40.0), "step": 7}


def saved(*, digest: bool) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file)
    if digest:
        add_archive_digest(file)
    return file.getvalue()


def trouble(content: bytes) -> str:
    return archive_trouble(io.BytesIO(content))


def made(change: Callable[[zipfile.ZipInfo], object], **more: bytes) -> bytes:
    """An archive put together by hand, which has a digest again."""
    source, file = zipfile.ZipFile(io.BytesIO(saved(digest=False))), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for entry in source.infolist():
            info = zipfile.ZipInfo(entry.filename)
            info.external_attr = 0o600 << 16
            change(info)
            archive.writestr(info, source.read(entry))
        for name, content in more.items():
            archive.writestr(name, content)
    add_archive_digest(file)
    return file.getvalue()


def as_folder(info: zipfile.ZipInfo) -> None:
    info.external_attr |= 0x10


def as_link(info: zipfile.ZipInfo) -> None:
    info.external_attr = 0o120777 << 16


def packed(info: zipfile.ZipInfo) -> None:
    info.compress_type = zipfile.ZIP_DEFLATED


def moved(info: zipfile.ZipInfo) -> None:
    info.filename = info.filename.replace("data/0", "data/../0")


@pytest.mark.parametrize("digest", [True, False])
def test_what_torch_saves_has_no_trouble(digest):
    assert trouble(saved(digest=digest)) == ""


def test_any_changed_bit_of_one_with_a_digest_is_named():
    content, draw = saved(digest=True), random.Random(0)
    for _ in range(500):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        assert trouble(bytes(damaged)) in (
            "its digest is another",
            "it does not end as an archive does",
        )


def test_a_changed_bit_of_one_without_is_named_or_refused_by_torch_or_does_no_harm():
    content, draw = saved(digest=False), random.Random(0)
    named = 0
    for _ in range(1500):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        if trouble(bytes(damaged)):
            named += 1
            continue
        try:
            found = torch.load(io.BytesIO(damaged), weights_only=True)
        except Exception:
            continue
        assert found["step"] == 7
        assert torch.equal(found["weight"], STATE["weight"])
    assert named > 500


def test_an_entry_marked_as_a_folder_is_refused():
    # By one bit, in a file without a digest: torch would leave the memory as it was.
    content = bytearray(saved(digest=False))
    place = content.rindex(b"archive/data/0") - 46 + 38 if b"archive/data/0" in content else None
    assert place is not None
    content[place] |= 0x10
    assert "marked as something else than a file" in trouble(bytes(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: made(as_folder), "marked as something else than a file"),
        (lambda: made(as_link), "marked as something else than a file"),
        (lambda: made(packed), "is packed"),
        (lambda: made(moved), "is none of torch.save"),
        (lambda: made(bool, **{"archive/code/x.py": b"1"}), "'archive/code/x.py' is none of"),
        (lambda: made(bool, **{"other/data/1": b"1"}), "'other/data/1' is none of"),
        (lambda: b"before" + saved(digest=False), "does not begin as an archive does"),
        (lambda: saved(digest=False) + b"after", "does not end as an archive does"),
        (lambda: b"", "does not end as an archive does"),
    ],
)
def test_what_torch_does_not_write_is_refused(content, words):
    assert words in trouble(content())
    assert trouble(made(bool)) == ""
