"""Read and write settings as TOML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from freezeout.errors import RunError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_toml", "toml_bytes"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        RunError: If it cannot be read or is not TOML; the message names file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"cannot read settings from {path}: {error.strerror}. Give a TOML file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not valid TOML: {error}. Fix that line.") from error


def toml_bytes(values: dict[str, Any]) -> bytes:
    """Return values as TOML."""
    import tomli_w

    return tomli_w.dumps(values).encode()
