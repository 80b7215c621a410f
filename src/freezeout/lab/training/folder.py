"""The folder of a run: its settings, its log, its checkpoint; and who holds it."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from freezeout.errors import CheckpointError, CostError, RunError
from freezeout.lab.locks import FolderLock, is_lock
from freezeout.lab.training.checkpoint import load_checkpoint
from freezeout.lab.training.claims import drop_empty
from freezeout.lab.training.log import RunLog
from freezeout.lab.training.processes import ALONE, Processes
from freezeout.lab.training.settings import Settings, check_names
from freezeout.lab.training.toml import has_digest, read_saved_toml, write_toml
from freezeout.planning import Plan
from freezeout.storage import is_part, remove_parts, write_json
from freezeout.text import command

__all__ = ["RunFolder", "held", "slug"]


class RunFolder:
    """Files of one run.

    - ``settings.toml``: the full resolved settings.
    - ``log.jsonl``: one JSON object per line and event (``start``, ``freeze``, ``epoch``, ``end``).
    - ``checkpoint.pt``: the latest checkpoint.
    - ``plan.json``: what the run was predicted to cost, if it was.
    - ``summary.json``, ``run.png``, ``tensorboard/``: made by others.
    - ``.lock``, ``.lock.json``: which process holds the folder; see `held`.

    Args:
        path: The folder.
        made: Whether `next_free` made it for this run, so that it goes if nothing comes of it.
    """

    def __init__(self, path: Path, *, made: bool = False) -> None:
        self.path = path
        self.made = self._claimed = made
        self.settings_file = path / "settings.toml"
        self.log_file = path / "log.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.plan_file = path / "plan.json"
        # Until there are settings. A name that `is_part` knows, so that it counts for nothing.
        self._early_plan = path / ".plan.json.freezeout-part"
        self.summary_file = path / "summary.json"
        self.picture = path / "run.png"
        self.tensorboard = path / "tensorboard"
        self._log = RunLog(self.log_file)
        self._lock: FolderLock | None = None
        self._holds = 0
        self.notes: list[str] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return RunFolder, (self.path,)  # in another process, which does not hold it

    def check_empty(self, *, resumable: bool = True) -> None:
        """Raise `RunError` if the folder holds anything that should stay, or is a file.

        Locks and parts of our own count as nothing. So does the beginning of a run, see
        `only_begun`.

        Args:
            resumable: Whether what is in it could be a run: to go on with, or only begun.
        """
        with self._looking():
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"{self.path} is a file. Give a new or empty folder with --out.")
            if self.path.is_dir() and self._entries() and not (resumable and self.only_begun()):
                way = f", or go on with the run in it: {command('train', '--resume', self.path)}"
                raise RunError(
                    f"folder {self.path} is not empty. Give a new or empty folder with --out"
                    f"{way if resumable else '.'}"
                )

    def only_begun(self) -> bool:
        """Return whether there is nothing in the folder but a run of which no step was saved.

        A start that was killed leaves such a folder, at whatever moment: nothing, settings without
        a checkpoint, or a checkpoint of step 0. All files must be our own, and the settings as they
        were written, or they are not taken for a beginning.
        """
        names = {path.name for path in self._entries()}
        ours = {self.settings_file.name, self.log_file.name, self.checkpoint.name}
        ours |= {self.plan_file.name, self.tensorboard.name}
        if not names:
            return True
        if not names <= ours or not has_digest(self.settings_file):
            return False
        if self.checkpoint.name in names:
            with suppress(CheckpointError):
                step = load_checkpoint(self.checkpoint).get("step")
                return type(step) is int and step == 0
            return False
        return not self.has_steps()

    def has_steps(self) -> bool:
        """Return whether the log tells of anything but a start, or is damaged.

        Raises:
            RunError: If it cannot be read.
        """
        return any(r["event"] != "start" for r in self.read_log()) or bool(self.log_damage())

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

    def create(self, settings: Settings, plan: Plan | None = None) -> None:
        """Make the folder and save plan and settings in it; what was only begun in it goes.

        There are settings only once the plan is whole, so no moment of dying loses it.

        Args:
            settings: What the run is.
            plan: What it is predicted to cost, if it is.

        Raises:
            RunError: If it is not empty or cannot be written.
        """
        self.check_empty()
        self.make()
        self._clear()
        if plan is not None:
            write_json(self._early_plan, plan.to_dict())
        write_toml(self.settings_file, settings.to_dict())
        self._settle_plan()

    def _clear(self) -> None:
        """Remove the beginning of a run, so that it is one after each step of this, or nothing.

        Raises:
            RunError: If something cannot be removed.
        """
        try:
            if self.log_file.exists():
                self.rewind_log(0, 0)
            self.checkpoint.unlink(missing_ok=True)
            self.log_file.unlink(missing_ok=True)
            if self.plan_file.exists():
                self.plan_file.replace(self._early_plan)
            self.settings_file.unlink(missing_ok=True)
            self._early_plan.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot empty {self.path}: {error.strerror}. Fix permissions, or give another "
                "folder with --out."
            ) from error

    def _settle_plan(self) -> None:
        """Give the plan its name, if a start has settings, but died before it could do so.

        Raises:
            RunError: If it cannot be renamed.
        """
        with self._looking():
            if self._early_plan.is_file() and self.settings_file.is_file():
                self._early_plan.replace(self.plan_file)

    def check_run(self) -> None:
        """Raise `CheckpointError` if there is no run in the folder."""
        if _may_be_there(self.settings_file):
            return
        with self._looking():
            begun = self.path.is_dir() and not self._entries() and any(self.path.iterdir())
        if begun:
            raise CheckpointError(
                f"there is no run in {self.path} yet: its start was cut off before it had "
                f"settings. Start it again with --out {shlex.quote(str(self.path))}"
            )
        raise CheckpointError(
            f"there is no run in {self.path}: it has no settings.toml. "
            "Give the folder of a run with --resume."
        )

    def settings(self) -> Settings:
        """Return the settings saved in the folder.

        Raises:
            CheckpointError: If there are none.
            RunError: If they cannot be read, or have changed since they were saved.
        """
        self.check_run()
        values = read_saved_toml(self.settings_file)
        check_names(values, str(self.settings_file))
        return Settings.from_dict(values)

    def log(self, event: str, **values: Any) -> None:
        """Append one line to the log.

        Raises:
            RunError: If the disk does not take it.
        """
        self._log.append({"event": event, **{k: _plain(v) for k, v in values.items()}})

    def sync_log(self) -> None:
        """Bring the log to the disk, before a checkpoint that relies on it.

        Raises:
            RunError: If the disk does not take it.
        """
        self._log.sync()

    def read_log(self) -> list[dict[str, Any]]:
        """Return all whole records of the log; `log_damage` tells what is left out.

        Raises:
            RunError: If it cannot be read.
        """
        return self._log.read()

    def log_damage(self) -> list[str]:
        """Return what is wrong with damaged lines of the log: ``"line 3: not UTF-8"``.

        A last line that a crash cut off is not among them.

        Raises:
            RunError: If it cannot be read.
        """
        return self._log.damage()

    def rewind_log(self, step: int, epochs: int) -> None:
        """Drop what was logged after a checkpoint, because that will be done again.

        Args:
            step: Steps done in the checkpoint.
            epochs: Epochs finished in it.

        Raises:
            RunError: If it cannot be read or written.
        """
        self._log.rewind(step, epochs)

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
        if not _may_be_there(self.plan_file):
            return None
        try:
            return Plan.load(self.plan_file)
        except CostError as error:
            raise CheckpointError(
                f"{str(error).rstrip('.')}. Or delete {self.plan_file}, then the run goes on; only "
                "the comparison with the prediction is lost."
            ) from error

    def write_summary(self, values: Mapping[str, Any]) -> None:
        """Save the summary as JSON.

        Raises:
            RunError: If the disk does not take it.
        """
        write_json(self.summary_file, _plain(values), indent=2)

    def take(self, *, new: bool) -> None:
        """Hold the folder for this process; once more, if it holds it already.

        Args:
            new: Whether a run is to begin in it, and not to go on.

        Raises:
            RunError: If another process holds it, it cannot be written, or it holds something else.
        """
        check = self.check_empty if new else self.check_run
        check()
        first = self._lock is None
        if first:
            self._lock = self._locked()
        self._holds += 1
        try:
            if first:
                self._settle_plan()
                remove_parts(self.path)
            check()  # once more, for it may have changed until it was held
        except BaseException:
            self.let_go()
            raise

    def _locked(self) -> FolderLock:
        with self._looking():
            self.made = self.made or not self.path.exists()
        self.make()
        lock = FolderLock(self.path, say=self.notes.append)
        try:
            lock.__enter__()
        except BaseException:
            if self.made:
                with suppress(OSError):
                    self.path.rmdir()  # unless anybody has put anything in it
            raise
        return lock

    def let_go(self) -> None:
        """Undo one `take`; with the last, a folder made for a run that came to nothing goes."""
        self._holds -= 1
        if self._holds or self._lock is None:
            return
        lock, self._lock = self._lock, None
        if self.made:
            drop_empty(self.path, claimed=self._claimed)
        lock.__exit__(None, None, None)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot look into {self.path}: {error.strerror}. Fix permissions, or give another "
                "folder."
            ) from error

    def _entries(self) -> list[Path]:
        """Return what is in the folder besides locks and parts of our own."""
        return [path for path in self.path.iterdir() if not (is_lock(path) or is_part(path))]


@contextmanager
def held(folder: RunFolder, processes: Processes = ALONE, *, new: bool) -> Iterator[None]:
    """Hold the folder of a run; where several processes train together, rank 0 holds it.

    Args:
        folder: The folder.
        processes: Those that train together, all of which call this alike.
        new: Whether a run is to begin in it; it must then be new, empty or `RunFolder.only_begun`.

    Raises:
        RunError: If another process holds it, which is named, or it cannot be written.
        CheckpointError: If there is no run in it to go on with.
    """
    processes.from_main(lambda: folder.take(new=new))
    try:
        yield
    finally:
        if processes.main:
            folder.let_go()


def slug(text: str) -> str:
    """Return a text as part of a file name.

    Example:
        >>> slug("mypackage.nets:make_net on cifar10")
        'mypackage.nets-make_net-on-cifar10'
    """
    return re.sub(r"[^A-Za-z0-9.=_+-]+", "-", text).strip("-.") or "x"


def _may_be_there(file: Path) -> bool:
    """Return whether anything has that name, or nobody can tell, which reading it will say."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        pass
    return True


def _plain(value: Any) -> Any:
    """Replace what is not finite by null, because JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
