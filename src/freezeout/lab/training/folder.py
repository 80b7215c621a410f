"""The folder of a run: its settings, its log, its checkpoint."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freezeout.errors import CheckpointError, CostError, RunError
from freezeout.lab.training.settings import Settings, check_names
from freezeout.lab.training.toml import read_toml, toml_bytes
from freezeout.planning import Plan
from freezeout.storage import write_atomically, write_json, write_text
from freezeout.text import command

__all__ = ["RunFolder", "next_free", "slug"]


class RunFolder:
    """Files of one run.

    - ``settings.toml``: the full resolved settings.
    - ``log.jsonl``: one JSON object per line and event (``start``, ``freeze``, ``epoch``, ``end``).
    - ``checkpoint.pt``: the latest checkpoint.
    - ``plan.json``: what the run was predicted to cost, if it was.
    - ``summary.json``, ``run.png``, ``tensorboard/``: made by others.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file = path / "settings.toml"
        self.log_file = path / "log.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.plan_file = path / "plan.json"
        self.summary_file = path / "summary.json"
        self.picture = path / "run.png"
        self.tensorboard = path / "tensorboard"

    def check_empty(self, *, resumable: bool = True) -> None:
        """Raise `RunError` if the folder holds anything, or is a file.

        Args:
            resumable: Whether what is in it could be a run to go on with.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"{self.path} is a file. Give a new or empty folder with --out.")
            if self.path.is_dir() and any(self.path.iterdir()):
                way = f", or go on with the run in it: {command('train', '--resume', self.path)}"
                raise RunError(
                    f"folder {self.path} is not empty. Give a new or empty folder with --out"
                    f"{way if resumable else '.'}"
                )
        except OSError as error:
            raise RunError(
                f"cannot look into {self.path}: {error.strerror}. Give another folder with --out."
            ) from error

    def make(self) -> None:
        """Make the folder itself.

        Raises:
            RunError: If it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot make folder {self.path}: {error.strerror}. "
                "Give one that can be written with --out."
            ) from error

    def create(self, settings: Settings) -> None:
        """Make the folder and save the settings in it.

        Raises:
            RunError: If it is not empty or cannot be written.
        """
        self.check_empty()
        self.make()
        write_atomically(
            self.settings_file, lambda file: file.write(toml_bytes(settings.to_dict()))
        )

    def settings(self) -> Settings:
        """Return the settings saved in the folder.

        Raises:
            CheckpointError: If there are none.
            RunError: If they cannot be read.
        """
        if not self.settings_file.is_file():
            raise CheckpointError(
                f"there is no run in {self.path}: it has no settings.toml. "
                "Give the folder of a run with --resume."
            )
        values = read_toml(self.settings_file)
        check_names(values, str(self.settings_file))
        return Settings.from_dict(values)

    def log(self, event: str, **values: Any) -> None:
        """Append one line to the log.

        Raises:
            RunError: If the disk does not take it.
        """
        line = json.dumps({"event": event, **{k: _plain(v) for k, v in values.items()}})
        try:
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(
                f"cannot write {self.log_file}: {error.strerror}. What was saved before is "
                "untouched; make room or fix permissions, then go on with: "
                f"{command('train', '--resume', self.path)}"
            ) from error

    def read_log(self) -> list[dict[str, Any]]:
        """Return all whole lines of the log; one that a crash cut off is left out."""
        if not self.log_file.exists():
            return []
        records = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def rewind_log(self, step: int) -> None:
        """Drop what was logged after `step`, because those steps will be done again."""
        kept = [r for r in self.read_log() if r.get("step", 0) <= step and r.get("event") != "end"]
        write_text(self.log_file, "".join(json.dumps(record) + "\n" for record in kept))

    def write_plan(self, plan: Plan) -> None:
        """Save what the run is predicted to cost.

        Raises:
            RunError: If the disk does not take it.
        """
        write_json(self.plan_file, plan.to_dict())

    def plan(self) -> Plan | None:
        """Return what the run was predicted to cost, or ``None`` if it was not.

        Raises:
            CheckpointError: If the file is damaged.
        """
        if not self.plan_file.is_file():
            return None
        try:
            return Plan.load(self.plan_file)
        except CostError as error:
            raise CheckpointError(
                f"{self.plan_file} is damaged or cannot be read: {error} Delete it, then the run "
                "goes on; only the comparison with the prediction is lost."
            ) from error

    def write_summary(self, values: Mapping[str, Any]) -> None:
        """Save the summary as JSON.

        Raises:
            RunError: If the disk does not take it.
        """
        write_json(self.summary_file, _plain(values), indent=2)


def next_free(parent: Path, stem: str) -> Path:
    """Return the first of ``parent/stem-1``, ``-2`` ... that does not exist."""
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def slug(text: str) -> str:
    """Return a text as part of a file name.

    Example:
        >>> slug("mypackage.nets:make_net on cifar10")
        'mypackage.nets-make_net-on-cifar10'
    """
    return re.sub(r"[^A-Za-z0-9.=_+-]+", "-", text).strip("-.") or "x"


def _plain(value: Any) -> Any:
    """Replace what is not finite by null, because JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
