"""The deliverer and private runs: off the chain, and back on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from headwater.destinations.deliver import Deliverer
from headwater.destinations.settings import DestinationSettings
from headwater.destinations.worker import state_of
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Vector
from headwater.kit.errors import Unavailable
from headwater.kit.rng import SeededRng
from tests.chains import WRITER, ListReader, chain, commit, vector
from tests.unit.destinations.test_deliver import PARTITIONS, World, code, left_out


@dataclass
class Raw:
    """The raw log of a world: gives the rows of any stretch again, in pieces; remembers what was asked."""

    piece: int = 3
    gone: int = 0
    """Events below this number are no longer there."""
    incomplete: bool = False
    asked: list[tuple[tuple[int, ...], Vector, Vector]] = field(default_factory=list)
    closed: int = 0
    before: Callable[[], None] = lambda: None
    """Called before each piece."""

    def open(self, partitions: tuple[int, ...], origin: Vector, until: Vector) -> FakeRun:
        self.asked.append((partitions, origin, until))
        return FakeRun(self, partitions, origin, until)


@dataclass
class FakeRun:
    """A private run without a log (process/private.py is tested where it is)."""

    raw: Raw
    partitions: tuple[int, ...]
    at: Vector
    until: Vector

    @property
    def missing(self) -> int:
        return max(0, self.raw.gone - self.at[WRITER].seq)

    @property
    def incomplete(self) -> bool:
        return self.raw.incomplete

    @property
    def left(self) -> int:
        return self.until[WRITER].seq - self.at[WRITER].seq

    @property
    def ended(self) -> bool:
        return self.at == self.until

    def advance(self) -> Commit | None:
        self.raw.before()
        first, last = self.at[WRITER].seq, self.until[WRITER].seq
        if self.missing:
            nothing = Commit(self.partitions, self.at, vector(min(self.raw.gone, last)), 1, 0, {}, {})
            self.at = nothing.target
            return nothing
        count = min(self.raw.piece, last - first)
        whole = commit(first, count, PARTITIONS)
        rows = structs.replace(whole, partitions=tuple(PARTITIONS))
        self.at = rows.target
        return rows if set(self.partitions) == set(PARTITIONS) else subset(rows, self.partitions)

    def close(self) -> None:
        self.raw.closed += 1


def subset(whole: Commit, partitions: tuple[int, ...]) -> Commit:
    import pyarrow as pa

    from headwater.destinations.load import only
    from headwater.process.worker import ipc

    rows = only(pa.ipc.open_stream(whole.sections["rows:events"]).read_all(), partitions)
    changes = {
        stream: {p: counts for p, counts in by_partition.items() if p in partitions}
        for stream, by_partition in whole.changes.items()
    }
    return structs.replace(whole, partitions=partitions, sections={"rows:events": ipc(rows)}, changes=changes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def raw() -> Raw:
    return Raw()


def deliverer(world: World, raw: Raw, owner: str = "a", **more: Any) -> Deliverer:
    return world.deliverer(owner, open_private=raw.open, **more)


def test_a_new_destination_that_comes_late_begins_in_the_raw_log(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 2
    one = deliverer(world, raw)
    seen = []
    raw.before = lambda: seen.append(state_of(one))
    world.run(one)
    assert world.exact()
    assert set(seen) == {"catching_up"} and state_of(one) == "delivering"
    assert raw.asked == [(tuple(PARTITIONS), EMPTY, vector(8))] and raw.closed == 1
    assert one.catch_up.runs == 1 and one.counters["loads"] == 2
    web = one.seen.streams["web"]
    assert web.out == web.rows + web.dead + web.erased
    one.close()


@pytest.mark.parametrize(("left", "told"), [(8, True), (0, False)])
def test_only_a_run_that_has_something_to_read_is_told(
    world: World, raw: Raw, monkeypatch: pytest.MonkeyPatch, left: int, told: bool
) -> None:
    monkeypatch.setattr(FakeRun, "left", left)
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 2
    one = deliverer(world, raw)
    world.run(one)
    assert world.exact() and ("destination_behind" in world.told) is told
    one.close()


def test_a_destination_that_went_back_fills_itself_up_again(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5], PARTITIONS)
    first = deliverer(world, raw)
    world.run(first)
    backup = (list(world.store.rows["events"]), dict(world.store.positions))
    world.ready.entries += chain([3, 4], PARTITIONS, 5)
    world.run(first)
    first.close()
    world.ready.kept_from = 3
    world.ready.entries += chain([2], PARTITIONS, 12)
    world.store.rows["events"], world.store.positions = list(backup[0]), dict(backup[1])
    second = deliverer(world, raw, on_restored="pause")
    world.run(second)
    assert code(second) == "destination_went_back" and len(world.ids()) == 5
    second.close()
    third = deliverer(world, raw)
    world.run(third)
    assert world.exact()
    assert raw.asked == [(tuple(PARTITIONS), vector(5), vector(12))]
    third.close()


def test_inside_a_link_the_run_ends_with_it(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 7, 2], PARTITIONS)
    one = deliverer(world, raw)
    world.run(one, 2)
    raw.piece = 4
    world.ready.entries[:] = chain([12, 2], PARTITIONS)  # the chain was cut otherwise
    world.run(one)
    assert world.exact()
    one.close()


def test_where_the_ready_log_is_empty_processing_says_how_far_it_is(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    world.ready.kept_from = 2
    one = deliverer(world, raw, processed=world.processed)
    world.run(one, 400)
    assert world.exact()
    assert raw.asked == [(tuple(PARTITIONS), EMPTY, vector(8))]
    one.close()


def test_what_a_ready_log_keeps_back_is_not_taken_from_the_raw_log(
    world: World, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a destination would be ahead of the standby of its owner (node/standby/backed.py)."""
    world.ready.entries += chain([5, 3], PARTITIONS)
    one = deliverer(world, raw, processed=world.processed)
    monkeypatch.setattr(ListReader, "waits", True)
    monkeypatch.setattr(ListReader, "read", lambda self, bytes_max: [])
    world.run(one, 400)
    assert raw.asked == [] and not world.store.rows.get("events")
    monkeypatch.undo()
    world.run(one, 400)
    assert world.exact() and raw.asked == []
    one.close()


def test_where_the_raw_log_no_longer_holds_what_it_lacks_it_pauses(world: World, raw: Raw) -> None:
    half_delivered(world, raw, gone=8)
    one = deliverer(world, raw)
    world.run(one)
    assert code(one) == "raw_gone"
    assert len(world.ids()) == 5
    raw.gone = 0
    world.clock.now_ns += 10**10
    world.run(one)
    assert world.exact()
    one.close()


def half_delivered(world: World, raw: Raw, gone: int) -> None:
    """5 of 12 events delivered; the rest has left the ready log, and the first ``gone`` the raw log."""
    world.ready.entries += chain([5], PARTITIONS)
    first = deliverer(world, raw)
    world.run(first)
    first.close()
    world.ready.entries += chain([3, 4], PARTITIONS, 5)
    world.ready.kept_from = 2
    raw.gone = gone


def test_a_new_destination_takes_what_is_left_and_counts_the_rest(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 2
    raw.gone = 6
    one = deliverer(world, raw, processed=world.processed)
    world.run(one, 100)
    assert world.ids() == [f"m{n}" for n in range(6, 12)]
    assert left_out(one) == 6 and not one.memory.skips
    assert world.told.count("destination_skips") == world.told.count("destination_skipped") == 1
    one.close()


def test_start_at_a_time_takes_what_came_since_and_counts_the_rest(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 2
    asked: list[tuple[int, Vector]] = []

    def stood_when(at_ns: int, limit: Vector) -> Vector:
        asked.append((at_ns, limit))
        return vector(6)

    start = "2026-11-21T18:00:00Z"
    one = deliverer(world, raw, processed=world.processed, stood_when=stood_when, start=start)
    world.run(one, 100)
    assert world.ids() == [f"m{n}" for n in range(6, 12)]
    assert left_out(one) == 6 and asked == [(1_795_284_000 * 10**9, vector(12))]
    one.close()


def test_a_start_that_is_neither_a_word_nor_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="start: expected beginning, now or a time"):
        DestinationSettings(start="yesterday")


def test_that_ids_below_a_run_are_not_known_is_told_once(world: World, raw: Raw) -> None:
    half_delivered(world, raw, gone=0)
    raw.incomplete = True
    one = deliverer(world, raw, load_rows=2)
    world.run(one, 60)
    assert world.exact() and world.told.count("destination_ids_incomplete") == 1
    one.close()


@pytest.mark.parametrize("how", ["setting", "command"])
def test_a_destination_that_is_written_off_takes_what_is_left_and_counts_the_rest(
    world: World, raw: Raw, how: str
) -> None:
    half_delivered(world, raw, gone=8)
    one = deliverer(
        world, raw, processed=world.processed, on_raw_full="write_off" if how == "setting" else "refuse"
    )
    if how == "command":
        world.run(one)
        assert code(one) == "raw_gone"
        one.write_off()
        one.close()  # the word is remembered
        one = deliverer(world, raw, processed=world.processed)
    world.clock.now_ns += 10**10
    world.run(one, 100)
    assert world.ids() == [f"m{n}" for n in (*range(5), *range(8, 12))]
    assert left_out(one) == 3 and not one.memory.skips and not one.memory.written_off
    one.close()


def test_what_was_left_out_is_reckoned_while_processing_is_further(world: World, raw: Raw) -> None:
    """The commits between are taken off; where they are not there yet, it waits."""
    half_delivered(world, raw, gone=8)
    world.ready.entries += chain([2, 3], PARTITIONS, 12)
    told = world.processed()
    one = deliverer(world, raw, processed=lambda: told, on_raw_full="write_off", load_rows=1)
    world.run(one, 100)
    assert left_out(one) == 3
    one.close()


@pytest.mark.parametrize("on_restored", ["refill", "pause"])
def test_what_was_left_out_is_counted_again_in_a_copy_that_had_not_counted_it(
    world: World, raw: Raw, on_restored: str
) -> None:
    half_delivered(world, raw, gone=8)
    one = deliverer(world, raw, processed=world.processed, on_raw_full="write_off", on_restored=on_restored)
    while one.catch_up.runs == 0 or one.catch_up.run is not None:
        world.run(one, 1)
    rows, positions = list(world.store.rows["events"]), dict(world.store.positions)
    assert (left_out(one), one.memory.skips) == (0, True)
    world.ready.entries += chain([2], PARTITIONS, 12)
    world.run(one, 200)
    assert (left_out(one), one.memory.skips) == (3, False)
    world.store.rows["events"], world.store.positions = rows, positions
    world.ready.entries += chain([1], PARTITIONS, 14)
    world.run(one, 20)
    if on_restored == "pause":
        assert code(one) == "destination_went_back"
        one.adopt("here")
    world.run(one, 200)
    assert (len(world.ids()), left_out(one), one.memory.uncounted) == (12, 3, False)
    one.close()


def test_a_crash_before_the_first_row_forgets_nothing_of_what_is_left_out(world: World, raw: Raw) -> None:
    half_delivered(world, raw, gone=8)
    one = deliverer(world, raw, on_raw_full="write_off")
    while one.catch_up.run is None:
        world.run(one, 1)
    world.run(one, 3)  # some rows, nothing reckoned; then it is killed, and the setting is taken back
    again = deliverer(world, raw, processed=world.processed)
    world.run(again, 100)
    assert world.ids() == [f"m{n}" for n in (*range(5), *range(8, 12))]
    assert left_out(again) == 3
    again.close()


def test_what_is_paused_stays_so_each_time_that_it_is_tried_again(world: World, raw: Raw) -> None:
    half_delivered(world, raw, gone=8)
    world.told.clear()
    one = deliverer(world, raw)
    paused = []
    for _ in range(20):
        world.run(one, 1)
        paused.append(code(one))
    assert set(paused) == {"raw_gone"}
    assert world.told == ["destination_paused"]
    one.close()


def test_a_run_that_breaks_off_is_begun_again_where_the_destination_stands(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 2
    pieces = 0

    def before() -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            raise Unavailable("the disk is away", code="ready_unreadable")

    raw.before = before
    one = deliverer(world, raw)
    world.run(one, 60)
    assert world.exact()
    assert [asked[1] for asked in raw.asked] == [EMPTY, vector(3)]
    assert raw.closed == 2
    one.close()


@pytest.mark.parametrize("seed", range(20))
def test_inv_dst_1_two_deliverers_and_private_runs_neither_lose_nor_double(
    world: World, raw: Raw, seed: int
) -> None:
    """INV-DST-1, INV-DEST: whoever steps second finds the position moved; the ready log is freed at random."""
    rng = SeededRng(seed)
    owners = [deliverer(world, raw, name, load_rows=1 + rng.below(9)) for name in "ab"]
    sent = 0
    for _ in range(60):
        size = 1 + rng.below(6)
        world.ready.entries += chain([size], PARTITIONS, sent)
        sent += size
        raw.piece = 1 + rng.below(5)
        if rng.below(3) == 0:
            world.ready.kept_from = max(world.ready.kept_from, len(world.ready.entries) - rng.below(4))
            for one in owners:
                if rng.below(2):
                    one.rows, one.certain = None, False
                    for part in one.chains.values():
                        part.rewind()
        for one in owners:
            world.run(one, rng.below(4))
    for one in owners:
        world.run(one, 60)
    assert world.exact()
    for one in owners:
        one.close()


def made_ready(one: Deliverer) -> bool:
    return one.catch_up.coming is not None


def test_the_next_load_is_made_ready_while_one_is_written(world: World, raw: Raw) -> None:
    world.ready.entries += chain([9, 3], PARTITIONS)
    world.ready.kept_from = 1
    one = deliverer(world, raw, load_rows=6)
    world.run(one, 1)
    assert (len(world.ids()), made_ready(one)) == (0, False)
    world.run(one, 1)
    assert (len(world.ids()), made_ready(one)) == (6, True)
    world.run(one)
    assert world.exact() and not made_ready(one)
    one.close()


def test_what_was_made_ready_is_dropped_with_the_run(world: World, raw: Raw) -> None:
    """Somebody else stepped meanwhile: the load that waits begins where the destination no longer stands."""
    world.ready.entries += chain([9, 3], PARTITIONS)
    world.ready.kept_from = 1
    one = deliverer(world, raw, load_rows=3)
    while not world.ids():
        world.run(one, 1)
    other = deliverer(world, Raw(), "b", load_rows=6)
    world.run(other, 40)
    world.run(one, 40)
    assert world.exact() and raw.closed == len(raw.asked)
    one.close()
    other.close()


def test_adopt_from_the_beginning_takes_what_the_raw_log_still_holds(world: World, raw: Raw) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    first = deliverer(world, raw)
    world.run(first)
    first.close()
    world.ready.kept_from = 2
    world.store.rows.clear()
    world.store.positions.clear()
    world.store.exists = False
    second = deliverer(world, raw, processed=world.processed)
    world.run(second)
    assert code(second) == "destination_missing"
    processed = dict.fromkeys(PARTITIONS, vector(12))
    raw.gone = 2
    told = second.adopt("beginning", processed=processed)
    assert told["skipped_events"] == 2
    world.run(second, 100)
    assert world.ids() == [f"m{n}" for n in range(2, 12)] and left_out(second) == 2
    second.close()


def test_adopt_from_here_forgets_nothing_of_what_was_left_out_before(world: World, raw: Raw) -> None:
    half_delivered(world, raw, gone=8)
    one = deliverer(world, raw, on_raw_full="write_off")
    while 8 not in [v[WRITER].seq for v in one.have.values()]:
        world.run(one, 1)  # beyond what is gone, nothing reckoned
    assert one.memory.skips
    one.adopt("here")
    one.close()
    again = deliverer(world, raw, processed=world.processed)
    world.run(again, 100)
    assert world.ids() == [f"m{n}" for n in (*range(5), *range(8, 12))]
    assert left_out(again) == 3
    again.close()
