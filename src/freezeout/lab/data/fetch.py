"""Fetch official files from their official address. The only module that uses the network."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from freezeout.errors import DataError
from freezeout.lab.data import official
from freezeout.text import one_line

__all__ = ["default_data_dir", "fetch"]

_LOG = logging.getLogger(__name__)
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 20  # bytes


def default_data_dir() -> Path:
    """Return the folder used when none is given: the user's cache folder for ``freezeout``.

    Raises:
        DataError: If pooch, which knows where that is, is not installed.
    """
    return Path(_pooch().os_cache("freezeout"))


def fetch(
    name: str, root: Path, folder: str = "", *, wanted: str | None = None, download: bool
) -> Path:
    """Fetch an official file that was not found, and verify its MD5.

    The bytes arrive under a temporary name in the same folder, which is created, and removed again
    if the download fails and nothing else is in it. They get their final name only when the MD5 is
    the published one, so an interrupted or damaged download is never taken for the file. The start
    of a download is logged, at level ``INFO``.

    Args:
        name: File name, a key of ``official.ADDRESS``.
        root: The folder of all data.
        folder: Where inside ``root`` the file goes.
        wanted: What was looked for, for the message; ``name`` by default.
        download: Whether the network may be used.

    Returns:
        The path of the file.

    Raises:
        DataError: If ``download`` is off, the network or the disk fails, or what arrives is not
            the published file.
    """
    url = official.ADDRESS[name]
    target = root / folder
    missing = f"{wanted or name} was not found under {root}"
    advice = (
        "Give the folder that holds it with --data-dir (data_dir=), or download "
        f"{url} into that folder."
    )
    if not download:
        raise DataError(f"{missing}, and downloading is switched off. {advice}")
    pooch = _pooch()
    _LOG.info("fetching %s to %s", url, target)
    try:
        with _made(target), _quiet(pooch), ExitStack() as responses:

            def remember(response: Any, **_: object) -> None:
                responses.callback(response.close)

            path = pooch.retrieve(
                url,
                known_hash=f"md5:{official.MD5[name]}",
                fname=name,
                path=target,
                downloader=pooch.HTTPDownloader(
                    timeout=_TIMEOUT,
                    chunk_size=_CHUNK,
                    # pooch leaves the connection of a failed download open; this closes it.
                    hooks={"response": remember},
                ),
            )
    # pooch reports a wrong checksum as ValueError; the errors of requests are OSErrors.
    except (OSError, ValueError) as error:
        raise DataError(f"{missing}, and fetching it failed: {_reason(error)} {advice}") from error
    return Path(path)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; after a failure remove what was made of it and is still empty."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty ends it
            for each in made:
                each.rmdir()
        raise


def _pooch() -> ModuleType:
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            "where no folder is given, this data set needs pooch, which finds and fetches it and "
            "is not installed. Give a folder that holds the data with --data-dir (data_dir=), or "
            "run: pip install 'freezeout[lab]'."
        ) from error
    module: ModuleType = pooch
    return module


@contextmanager
def _quiet(pooch: ModuleType) -> Iterator[None]:
    """Keep pooch's own log handler from writing to the terminal: a library does not print."""
    logger: logging.Logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    """Return one line for people; the whole story stays in ``__cause__``."""
    text = one_line(error)
    # requests wraps a plain "connection refused" into three layers of class names.
    if "Max retries exceeded" in text and (found := re.search(r"\[Errno -?\d+\] [\w ]+", text)):
        text = f"no connection ({found.group()})"
    elif "IncompleteRead" in text:
        text = "the connection broke off"
    elif "known hash" in text:
        text = "what arrived is not the published file (another MD5)"
    text = textwrap.shorten(text.split(" for url: ")[0], 120, placeholder=" ...")
    return text if text.endswith(".") else f"{text}."
