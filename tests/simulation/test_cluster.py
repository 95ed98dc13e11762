"""Whole nodes under faults: lane, standby, takeover, delivery (protocol.md §6, §7, §9, §14, §15).

Seeds are dear here (about a second of CPU for forty of the cluster), so few run with the other tests; for a long run:
``make simulate SCENARIO=tests.simulation.test_cluster:any_faults ARGS="--minutes 20"``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from headwater.kit.clock import SystemClock
from headwater.kit.simulate import run
from headwater.kit.simulate.run import Simulation
from tests.simulation.cluster_broken import VARIANTS
from tests.simulation.cluster_story import alone, anything, crossing, play
from tests.simulation.cluster_world import World
from tests.simulation.member_world import SECOND
from tests.simulation.road_world import row_of

SEEDS = int(os.environ.get("HEADWATER_SEEDS", "44"))
BUDGET_NS = 45 * SECOND
"""On a machine that does much else beside fewer seeds fit in: control goes from thread to thread of the machine ten
thousand times in each."""


def any_faults(sim: Simulation) -> None:
    """`make simulate`: three nodes with their processes, their network, their disks, a store and a warehouse."""
    play(sim)


def faults_alone(sim: Simulation) -> None:
    """One fault after the other: every event is one row."""
    play(sim, kind=alone)


def faults_together(sim: Simulation) -> None:
    """Anything beside anything: nothing is lost, no event is two rows."""
    play(sim, kind=anything)


def copies_across_a_cut(sim: Simulation) -> None:
    """Clients send events again at the other side of a cut: a commit waits for its standby for so long that its owner
    is none by then."""
    play(sim, kind=crossing)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_loses_nothing_and_doubles_nothing_under_any_faults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """INV-DEST, INV-STATE, INV-LANE-1, INV-LANE-2, INV-ORD-1, INV-OWN-1, INV-CLU-2, INV-DST-1, INV-LED-1; everything
    is delivered when the faults end. 44 seeds, or as many as there is time for."""
    clock, ran = SystemClock(), 0
    end_ns = clock.boot_ns() + BUDGET_NS
    for seed in run.seeds(SEEDS):
        if clock.boot_ns() > end_ns and ran and "HEADWATER_SEEDS" not in os.environ:
            break
        ran += run.simulate(any_faults, [seed])
    with capsys.disabled():
        print(f"\ncluster: {ran} histories in {(clock.boot_ns() - end_ns + BUDGET_NS) / 1e9:.0f} s")


@pytest.mark.slow
def test_a_history_holds_what_it_is_meant_to_hold_and_a_seed_is_one_history() -> None:
    """Not vacuous: steps, moves, private runs and raw that is given back all occur."""

    def told(seed: int) -> tuple[World, object]:
        world = play(Simulation(seed), kind=anything)
        rows = [row_of(row) for row in world.store.rows["events"]]
        return world, (world.time.now_ns, world.loop.steps, rows)

    met: Counter[str] = Counter()
    for seed in (2, 3):
        world, history = told(seed)
        met += world.met
        met["epochs"] += world.nodes[0].member.membership.table.epoch
    assert told(3)[1] == history
    assert met["steps"] > 30 and met["segments given back"] > 3 and met["safe"] > 3
    assert met["destination_behind"] > 0 and met["epochs"] > 6


@pytest.mark.slow
def test_a_copy_across_a_cut_is_one_row_where_delivery_waits_until_its_owner_is_none() -> None:
    """The wait that the product has, 2 s, is shorter: with it these seeds have doubles (docs/decisions/0007, What the
    simulation covers)."""
    run.simulate(copies_across_a_cut, [18, 33, 42])


@pytest.mark.slow
@pytest.mark.broken_variant
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "kind", "words", "first"),
    [
        ("blind", anything, "INV-DEST|INV-LED-1", 27),
        ("safe for itself", anything, "INV-LANE-2|not at rest", 6),
        ("asks further", anything, "INV-DEST|not at rest", 0),
        ("no ids", alone, "INV-DEST", 0),
    ],
)
def test_a_broken_cluster_is_found(
    name: str, kind: Callable[[World], object], words: str, first: int
) -> None:
    """INV-DEST, INV-LANE-1, INV-LANE-2, INV-DST-1, INV-STATE."""

    def scenario(sim: Simulation) -> None:
        play(sim, VARIANTS[name], kind)

    failure = run.first_failure(scenario, range(first, first + 12))
    assert failure is not None, "12 seeds did not find it"
    assert any(word in str(failure[1]) for word in words.split("|")), failure
