"""Every kind of trouble finds a fault that is planted for it, and finds it again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reliability.kinds import KINDS
from tests.benchmarks.planted_faults import PLANTED

ROOT = Path(__file__).parents[2]


def test_every_kind_has_a_planted_fault():
    assert {kind for kind, _, _ in PLANTED.values()} == {*KINDS}


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_twice(name):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.planted_faults", name],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=800,
        check=True,
    )
    found = json.loads(ran.stdout)[name]
    kind = PLANTED[name][0]
    assert found.get("found"), found
    assert f"--reproduce {kind}:" in found["case"]
    if kind in ("damage", "outputs", "words"):  # nothing in them depends on the clock
        assert found["again"].splitlines()[-1] == found["found"].splitlines()[-1]
