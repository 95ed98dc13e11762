"""kill -9 under load: every acknowledged event is in the warehouse exactly once (INV-DEST, seen from outside).

The short form of `make chaos` (tests/chaos): each process, also while it stands still, and the supervisor. The oracle
stands outside the product: it knows what was sent and what was acknowledged, and reads the destinations through
`headwater sql`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.faults import World
from tests.chaos.load import Load
from tests.chaos.oracle import Oracle, Violation
from tests.chaos.run import Report, run_round
from tests.journeys.running import Running

SEED = int(os.environ.get("HEADWATER_SEED", "20261121"))
ONCE = ["kill each", "kill supervisor", "kill frozen", "kill each"]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_inv_dest_kill_9_of_any_process_at_any_moment_neither_loses_nor_doubles(
    make_node: Callable[..., Running], tmp_path: Path
) -> None:
    """INV-DEST, INV-LED-1."""
    assert set(ONCE) <= set(faults.DRAWN)
    world = World(tmp_path, make_node, str(SEED))
    report, load = Report(SEED), Load(world.node, clients=2)
    run_round(world, load, oracle := Oracle(world.node), report, 0, ONCE)
    assert report.acknowledged > 100
    assert world.kills.total() >= 8
    load.acknowledged.add("never-sent")  # the oracle sees what is not there
    with pytest.raises(Violation, match=r"1 of .* lost"):
        oracle.one(load, "second")
