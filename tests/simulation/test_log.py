"""The log keeps its promises on a disk that loses, tears, reorders and lies (protocol.md §2, §3, §15.2).

Each invariant has a test that the right parts pass under many seeds, and tests that put one broken part in place
and want the same oracle to find it. Rows L1–L7 and L10 of reference/protocol-why.md are among the faults.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from headwater.kit.simulate import run
from headwater.kit.simulate.run import Simulation
from tests.simulation import log_broken as broken
from tests.simulation.log_world import Parts, Weather, story

STORMY = Weather()
RESTORED = Weather(restore=30, wall_jump=0)
SICK_DISK = Weather(
    12,
    0,
    0,
    machine_crash=4,
    io_error=3,
    disk_full=0,
    wall_jump=0,
    retire=0,
    compress=0,
    kill_upkeep=0,
    replay=0,
    steps=60,
)
SPOILING = Weather(machine_crash=8, rot=8, lie=8, disk_full=0, wall_jump=0)
COMPRESSING = Weather(retire=20, disk_full=0, compress=3, kill_upkeep=10, replay=15, steps=50)
CALM = Weather(0, 0, 0, 0, 0, 0, 0, 0, 0, kill_upkeep=0, replay=0, steps=60)


def any_fault(sim: Simulation) -> None:
    """Kills, machine crashes (also inside recovery), EIO and clean pages, short writes, full disk, recycling."""
    story(sim, weather=STORMY)


def restored_folder(sim: Simulation) -> None:
    """The same, and now and then the data folder is replaced by an older copy of itself."""
    story(sim, weather=RESTORED)


def spoiling_disk(sim: Simulation) -> None:
    """The same, and bytes of the last blocks rot, and blocks that were said to be durable are not."""
    story(sim, weather=SPOILING)


def compressing(sim: Simulation) -> None:
    """Segments are compressed as soon as they can be, and nothing is given back, so that all is read to the end."""
    story(sim, weather=COMPRESSING)


def no_fault(sim: Simulation) -> None:
    """Nothing goes wrong; the order of everything is drawn."""
    story(sim, weather=CALM)


def any_weather(sim: Simulation) -> None:
    """`make simulate`: each of these in turn."""
    (any_fault, restored_folder, spoiling_disk, no_fault)[sim.seed % 4](sim)


@pytest.mark.slow
def test_every_acknowledged_event_survives_any_fault() -> None:
    """INV-LOG-1, INV-LOG-2, INV-LOG-3, INV-LOG-4, INV-LOG-5, INV-ORD-1."""
    run.simulate(any_fault, run.seeds(60))


@pytest.mark.slow
def test_no_position_is_given_twice_when_the_folder_is_restored() -> None:
    """INV-LOG-3, and readers whose vector is ahead of the folder go on with its new logs (INV-LOG-5)."""
    run.simulate(restored_folder, run.seeds(30))


@pytest.mark.slow
def test_what_a_disk_spoils_is_told_as_damage_and_nothing_else_is() -> None:
    """INV-LOG-1: below the watermark nothing vanishes in silence, and what nobody was promised is no damage."""
    run.simulate(spoiling_disk, run.seeds(60))


@pytest.mark.slow
def test_compression_takes_nothing_away_whenever_whoever_dies() -> None:
    """INV-LOG-1, INV-LOG-2: kills and crashes in each step, errors of the disk, readers across the change."""
    run.simulate(compressing, run.seeds(30))


@pytest.mark.slow
def test_cuts_keep_happens_before_without_any_fault() -> None:
    """INV-ORD-1."""
    run.simulate(no_fault, run.seeds(30))


def test_a_seed_is_one_history() -> None:
    first, second, other = (run.run_seed(any_fault, seed).disk for seed in (7, 7, 8))
    assert first.digest == second.digest != other.digest
    assert first.trace == second.trace


def test_histories_hold_what_they_are_meant_to_hold() -> None:
    """Not vacuous: acknowledgements, several logs, recycled segments, crashes, failed syncs all occur."""
    logs = acknowledged = recycled = 0
    met: Counter[str] = Counter()
    for seed in range(10):
        world = story(sim := Simulation(seed))
        logs += len(world.oracle.creators)
        acknowledged += len(world.oracle.acknowledged)
        recycled += sum("rename" in line and "spare-" in line and "/next" in line for line in sim.disk.trace)
        met += sim.disk.met
    assert logs > 40
    assert acknowledged > 400
    assert recycled > 5
    assert set(met) == {"EIO", "ENOSPC", "short", "killed", "crash", "dropped names"}


def test_spoilt_histories_hold_what_they_are_meant_to_hold() -> None:
    """Not vacuous: acknowledged events are lost in the middle, at the end, and where not even the watermark knows."""
    met: Counter[str] = Counter()
    for seed in range(20):
        oracle = story(Simulation(seed), weather=SPOILING).oracle
        for (_, log), end in oracle.ends.items():
            met["middle"] += any(d.next < end.seq for d in end.damaged)
            met["end"] += any(d.next == end.seq for d in end.damaged)
            met["unknown"] += any(p.log == log and p.first >= end.seq for p in oracle.acknowledged)
        met["lost"] += sum(map(oracle.excused, oracle.acknowledged))
    assert met["middle"] > 3
    assert met["end"] > 10
    assert met["unknown"] > 5
    assert met["lost"] > 50


def test_histories_hold_compressed_segments_of_each_fate() -> None:
    """Not vacuous: segments change form, are damaged before and after, and drafts are given up."""
    met: Counter[str] = Counter()
    for seed in range(12):
        met += story(Simulation(seed), weather=replace(SPOILING, compress=3)).compressed
    assert met["switched"] > 50
    assert met["damaged"] > 5
    assert met["rotten frame"] > 5 and met["rotten index"] > 0


def found(invariants: str, parts: Parts, weather: Weather = STORMY, seeds: int = 60) -> None:
    """The oracle names one of the invariants within so many seeds."""

    def scenario(sim: Simulation) -> None:
        story(sim, parts, weather)

    failure = run.first_failure(scenario, range(seeds))
    assert failure is not None, f"{seeds} seeds did not find it"
    assert any(name in str(failure[1]) for name in invariants.split()), failure


@pytest.mark.broken_variant
def test_acknowledging_before_sync_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2", Parts(worker_disk=broken.NoSync))


@pytest.mark.broken_variant
def test_taking_lost_bytes_for_a_torn_tail_is_found() -> None:
    found("INV-LOG-1", Parts(recover_all=broken.recover_without_watermark), SPOILING)


@pytest.mark.broken_variant
def test_taking_a_torn_tail_for_damage_is_found() -> None:
    found("INV-LOG-1 INV-LOG-3", Parts(recover_all=broken.recover_calling_everything_damage), SPOILING)


@pytest.mark.broken_variant
def test_trying_a_failed_sync_again_is_found() -> None:
    """INV-LOG-1: the second sync succeeds, the pages are clean, the bytes are gone."""
    found("INV-LOG-1 INV-LOG-2", Parts(worker_disk=broken.SyncTwice), replace(STORMY, io_error=10))


@pytest.mark.broken_variant
def test_a_segment_without_a_durable_name_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2 INV-LOG-5", Parts(worker_disk=broken.NoFolderSync))


@pytest.mark.broken_variant
def test_a_writer_without_a_durable_folder_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2 INV-LOG-5", Parts(worker_disk=broken.NoParentSync))


@pytest.mark.broken_variant
def test_ending_a_log_at_its_watermark_is_found() -> None:
    """INV-LOG-1: after a machine crash the watermark may hold any earlier value."""
    found("INV-LOG-1 INV-LOG-2", Parts(recover_all=broken.recover_by_watermark))


@pytest.mark.broken_variant
def test_a_watermark_before_the_sync_is_found() -> None:
    """INV-LOG-1: it says of a block that never came that it was durable, and the recovery calls it damage."""
    found("INV-LOG-1 INV-LOG-2", Parts(blocks=broken.EarlyWatermark))


@pytest.mark.broken_variant
def test_a_reader_that_believes_the_cache_is_found() -> None:
    found("INV-LOG-2", Parts(reader=broken.ReadsBeyondWatermark), SICK_DISK)


@pytest.mark.broken_variant
def test_recovering_from_the_cache_is_found() -> None:
    """INV-LOG-2: what a failed sync dropped is still in the cache, and is read, and goes with the machine."""
    found("INV-LOG-1 INV-LOG-2", Parts(supervisor_disk=broken.NothingDirect), replace(STORMY, io_error=10))


@pytest.mark.broken_variant
def test_keeping_a_tail_without_syncing_it_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2", Parts(supervisor_disk=broken.NoSync), replace(STORMY, kill_worker=8))


@pytest.mark.broken_variant
def test_believing_stale_blocks_is_found() -> None:
    found("INV-LOG-3", Parts(recover_all=broken.recover_believing_stale), replace(STORMY, retire=5))


@pytest.mark.broken_variant
def test_predictable_log_ids_are_found() -> None:
    found("INV-LOG-3", Parts(new_log_id=broken.predictable_log_id), RESTORED)


@pytest.mark.broken_variant
def test_appending_to_an_old_log_is_found() -> None:
    found("INV-LOG-4", Parts(blocks=broken.GoesOnInOldLog))


@pytest.mark.broken_variant
def test_deciding_an_end_twice_is_found() -> None:
    found("INV-LOG-4", Parts(recover_all=broken.recover_everything_again))


@pytest.mark.broken_variant
def test_leaving_a_log_before_its_end_is_found() -> None:
    found("INV-LOG-5", Parts(reader=broken.LeavesEarly))


@pytest.mark.broken_variant
def test_a_cut_without_its_time_is_found() -> None:
    found("INV-ORD-1", Parts(take=broken.take_without_time))


@pytest.mark.broken_variant
def test_draining_one_worker_first_is_found() -> None:
    found("INV-ORD-1", Parts(take=broken.take_first_writer_first), CALM)


@pytest.mark.broken_variant
def test_a_backlog_that_does_not_lower_the_time_is_found() -> None:
    found("INV-ORD-1", Parts(take=broken.take_whole_backlogs), CALM)


@pytest.mark.broken_variant
def test_dropping_the_plain_segment_before_the_name_of_the_compressed_one_is_durable_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2", Parts(switch=broken.switch_without_folder_sync), COMPRESSING)


@pytest.mark.broken_variant
def test_a_compressed_segment_that_was_never_synced_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2", Parts(upkeep_disk=broken.NoDraftSync), COMPRESSING)


@pytest.mark.broken_variant
def test_compressing_a_segment_that_is_still_written_is_found() -> None:
    found("INV-LOG-1 INV-LOG-2", Parts(compressing=broken.CompressesWhatIsWritten), COMPRESSING)


@pytest.mark.broken_variant
def test_not_reading_back_what_was_compressed_is_found() -> None:
    """INV-LOG-1: the sync failed, and the bytes are only in the cache."""
    ill = replace(COMPRESSING, io_error=4)
    found(
        "INV-LOG-1 INV-LOG-2",
        Parts(compressing=broken.CompressesUnchecked, upkeep_disk=broken.SyncIgnored),
        ill,
    )
