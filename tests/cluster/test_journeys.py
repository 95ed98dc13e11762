"""Every journey once more, its node being one of three (tests/journeys/three.py): `make journeys` runs them by
themselves, `make thorough` all of them in here, `make test` a few.

Each file runs in a pytest of its own, since the number of nodes is of a whole run.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.parts import ROOT
from tests.thorough import THOROUGH

FOLDER = ROOT / "tests" / "journeys"
FILE_S = 1500
PASSED, NOTHING_RAN = 0, 5
FEW = (
    "test_main_road.py::test_ctrl_c_drains_and_a_second_start_goes_on",
    "test_trouble.py::test_explain_tells_of_each_copy_what_became_of_it",
    "test_kill.py",
)
"""One of each kind: a restart, questions over all nodes, kill -9 under load."""


def of_a_node() -> list[str]:
    """The journeys that begin with a node; others start what they speak of themselves."""
    found = sorted(FOLDER.glob("test_*.py"))
    return [
        one.name for one in found if "make_node" in (told := one.read_text()) or "make_shared_node" in told
    ]


def on_three(*names: str) -> subprocess.CompletedProcess[str]:
    """Run these on three nodes."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n0", *names],
        cwd=ROOT, env={**os.environ, "HEADWATER_JOURNEYS_NODES": "3"}, capture_output=True, text=True,
        timeout=FILE_S, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(FILE_S)
@pytest.mark.parametrize("name", of_a_node())
@pytest.mark.thorough
def test_every_journey_passes_unchanged_on_three_nodes(name: str) -> None:
    done = on_three(str(FOLDER / name))
    assert done.returncode in (PASSED, NOTHING_RAN), done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(FILE_S)
@pytest.mark.skipif(THOROUGH, reason="all of them run")
def test_journeys_of_each_kind_pass_unchanged_on_three_nodes() -> None:
    done = on_three(*(f"{FOLDER}/{name}" for name in FEW))
    assert done.returncode == PASSED, done.stdout[-8000:] + done.stderr[-2000:]
