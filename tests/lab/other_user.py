"""A folder, and this process as a user whom the system does not let do everything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534


@contextmanager
def folder_of_another_user() -> Iterator[Path]:
    """Make a folder that any user can reach; in it this process is not root."""
    if os.name != "posix":
        pytest.skip("permissions are those of POSIX")
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:
        path = Path(place).resolve()
        path.chmod(0o777)
        if root:
            os.seteuid(_NOBODY)
        try:
            if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                pytest.skip("the folder for temporary files cannot be reached by another user")
            yield path
        finally:
            if root:
                os.seteuid(0)
