"""A kind of file that is kept, and the four sentences about one that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from freezeout.errors import FreezeOutError, RunError
from freezeout.text import first_line

__all__ = ["KeptFile", "NotRegularError"]


class NotRegularError(OSError):
    """A pipe or a device is in the place of a file."""


@dataclass(frozen=True)
class KeptFile:
    """A kind of file, with the words for what may be wrong with one.

    *Not there*, *unreadable*, *damaged* and *of another version* call for different things to do,
    so each has a sentence of its own.

    Attributes:
        noun: What it is: ``"checkpoint"``.
        find: What to do where there is none: a whole sentence.
        remake: What to do where one is damaged or of another version: a whole sentence.
        error: What is raised.
    """

    noun: str
    find: str
    remake: str
    error: type[FreezeOutError] = RunError

    def missing(self, path: Path) -> FreezeOutError:
        """Return the error of one that is not there."""
        return self.error(f"there is no {self.noun} {path}. {self.find}")

    def unreadable(self, path: Path, error: OSError) -> FreezeOutError:
        """Return the error of one that the system does not let us read; it may be whole."""
        if isinstance(error, FileNotFoundError):
            return self.missing(path)
        if isinstance(error, NotRegularError):
            return self.error(
                f"{path} is no {self.noun}, but a pipe or a device, which may have no end. "
                f"{self.find}"
            )
        return self.error(
            f"cannot read the {self.noun} {path}: {error.strerror or first_line(error)}. That says "
            "nothing against its content: make it readable, then do the same again."
        )

    def damaged(self, path: Path, reason: str) -> FreezeOutError:
        """Return the error of one whose content is not what was written, or is no such file.

        Args:
            path: The file.
            reason: What is wrong with it, without a full stop; with the line, if it is text.
        """
        return self.error(f"the {self.noun} {path} is damaged: {reason}. {self.remake}")

    def of_another_version(self, path: Path, reason: str) -> FreezeOutError:
        """Return the error of one that is whole and has another layout.

        Args:
            path: The file.
            reason: Which layout it has and which is known, without a full stop.
        """
        return self.error(
            f"the {self.noun} {path} is of another version of freezeout: {reason}. Use the version "
            f"that wrote it. {self.remake}"
        )
