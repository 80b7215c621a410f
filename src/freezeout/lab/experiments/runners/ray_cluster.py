"""A Ray cluster as seen from outside: whether it answers, has room, and is still there."""

from __future__ import annotations

import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from freezeout.errors import RunError
from freezeout.text import first_line

__all__ = ["Pulse", "check_address", "check_room", "connection"]

_ANSWER = 60.0  # seconds for a cluster to answer
_LOST = 60.0  # seconds without an answer after which a cluster is given up

_ADDRESS = re.compile(r"(?:ray://)?(\[[0-9a-fA-F:]+\]|[^\s/:]+):([0-9]{1,5})")
_HINT = (
    "Give what `ray start --head` printed: HOST:PORT, or ray://HOST:PORT from outside of the "
    "cluster, or auto."
)


class Pulse:
    """Whether the cluster is still there: Ray itself would wait for its answers forever."""

    def __init__(self, ray: Any, address: str) -> None:
        self._address = ray.get_runtime_context().gcs_address if address == "auto" else address
        self._felt = self._heard = time.monotonic()

    def feel(self) -> None:
        """Look now and then.

        Raises:
            ConnectionError: If it has been gone for a while.
        """
        now = time.monotonic()
        if now - self._felt < _LOST / 10:
            return
        self._felt = now
        reason = _silence(self._address)
        if reason is None:
            self._heard = now
        elif now - self._heard >= _LOST:
            raise ConnectionError(f"no answer for {_LOST:g} seconds: {reason}")


def check_room(ray: Any, threads: int, *, gpu: bool) -> None:
    """Refuse runs that no machine is large enough for: Ray would wait for one forever.

    Args:
        ray: The module, connected.
        threads: CPUs that a run takes.
        gpu: Whether some run takes a GPU.

    Raises:
        RunError: If there is no such machine.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(m.get("CPU", 0) >= threads and (m.get("GPU", 0) >= 1 or not gpu) for m in machines):
        return
    wanted = f"{threads} CPU{'s' if threads > 1 else ''}{' and a GPU' if gpu else ''}"
    has = ", ".join(f"{m.get('CPU', 0):g} CPUs and {m.get('GPU', 0):g} GPUs" for m in machines)
    raise RunError(
        f"a run takes {wanted}, but no machine of the Ray cluster has that ({has}). Ask for less "
        "with --threads or --device, or add a machine."
    )


def check_address(address: str) -> None:
    """Raise `RunError` if no cluster answers at an address.

    It is tried in a process of its own: Ray takes minutes to give up, and then ends the process.
    """
    _import_ray()
    missing = f"there is no Ray cluster at {address}"
    if address != "auto":
        if not _ADDRESS.fullmatch(address):
            raise RunError(f"{address!r} is not an address of a Ray cluster. {_HINT}")
        reason = _silence(address)
        if reason is not None:
            raise RunError(f"{missing} ({reason}). {_HINT}")
    program = (
        "import sys, ray\n"
        "try:\n"
        "    ray.init(sys.argv[1], log_to_driver=False)\n"
        "except Exception as error:\n"
        "    sys.exit('\\n' + ' '.join(str(error).split()))\n"
    )
    # From outside, a process of our own is started on the cluster first.
    limit = 2 * _ANSWER if address.startswith("ray://") else _ANSWER
    try:
        tried = subprocess.run(
            [sys.executable, "-c", program, address],
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{missing} (no answer in {limit:.0f} seconds). {_HINT}") from error
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RunError(f"{missing} ({reason.rstrip('.')[:300]}). {_HINT}")


def _silence(address: str) -> str | None:
    """Return why nobody listens at an address; ``None`` if somebody does."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return "it has no port"
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=5.0).close()
    except (OSError, OverflowError, ValueError) as error:  # a host or a port that cannot be
        return getattr(error, "strerror", None) or first_line(error)
    return None


@contextmanager
def connection(address: str) -> Iterator[Any]:
    """Connect to a cluster, and leave nothing of the connection behind."""
    ray = _import_ray()
    if ray.is_initialized():
        raise RunError(
            "this process is connected to a Ray cluster already. Call ray.shutdown() before."
        )
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
        yield ray
    finally:
        ray.shutdown()
        if main:  # Ray sets one of its own
            signal.signal(signal.SIGTERM, handler)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise RunError(
            "runs on a Ray cluster need Ray, which is not installed. Run: "
            "pip install 'freezeout[ray]'"
        ) from error
    return ray
