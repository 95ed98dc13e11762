"""The deliver loop over a destination in memory, with faults; and what happens without the comparison.

INV-DST-1: only a step writes, and it compares before it writes. The broken variants of
reference/protocol_model.py (blind, epoch only) must lose or double rows in the same histories.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from msgspec import structs

from headwater.destinations import remember, worker
from headwater.destinations.alarm import PATIENCE_S
from headwater.destinations.chain import OUT
from headwater.destinations.deliver import Deliverer
from headwater.destinations.memory import MemoryDestination, MemorySettings, Store
from headwater.destinations.port import (
    NOWHERE,
    OpenPrivate,
    Outcome,
    OutcomeUnknown,
    PositionRow,
    ProcessedAt,
    Step,
)
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.event.position import EMPTY, Vector
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Rejected, Unavailable
from headwater.kit.rng import SeededRng
from tests.chains import LOG, ListChain, chain, commit, vector

PARTITIONS = (0, 1, 2, 3)
PIPELINE = "cluster/warehouse/main"


class Ticking:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def boot_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def block(self, seconds: float) -> None:
        raise NotImplementedError


def code(one: Deliverer) -> str | None:
    """Why it is paused."""
    return one.trouble.code if one.trouble is not None else None


class Unsynced(SystemDisk):
    """The disk without waiting for it; no test here cuts the power."""

    def sync(self, file: int) -> None:
        pass

    def sync_dir(self, path: str) -> None:
        pass


class World:
    """One destination, one ready log, and deliverers of it."""

    def __init__(self, folder: Path, kind: Callable[[Store], MemoryDestination] = MemoryDestination) -> None:
        self.folder = folder
        self.kind = kind
        self.store = Store()
        self.ready = ListChain()
        self.clock = Ticking()
        self.told: list[str] = []
        self.names = 0

    def deliverer(
        self,
        owner: str = "a",
        destination: MemoryDestination | None = None,
        unknown: Callable[[Vector], bool] = lambda vector: False,
        open_private: OpenPrivate | None = None,
        processed: Callable[[], ProcessedAt] = lambda: NOWHERE,
        stood_when: Callable[[int, Vector], Vector] = lambda at_ns, limit: limit,
        **settings: Any,
    ) -> Deliverer:
        folder = self.folder / owner
        folder.mkdir(exist_ok=True)
        return Deliverer(
            "warehouse",
            destination or self.kind(self.store),
            {"0": self.ready.open},
            Memory(Unsynced(), str(folder / "state.json"), PIPELINE),
            DeadLetters(":memory:", "warehouse"),
            MemorySettings(**settings),
            self.clock,
            partitions=len(PARTITIONS),
            owner=owner,
            node_ns=self.clock.boot_ns,
            unknown=unknown,
            open_private=open_private,
            processed=processed,
            stood_when=stood_when,
            tell=lambda name, fields: self.told.append(name),
        )

    def processed(self) -> ProcessedAt:
        """Where the chain ends, and all that it let out."""
        outs: dict[int, dict[str, int]] = {p: {} for p in PARTITIONS}
        for entry in self.ready.entries:
            for stream, changes in entry.changes.items():
                for partition, change in changes.items():
                    outs[partition][stream] = outs[partition].get(stream, 0) + change[OUT]
        return ProcessedAt(dict.fromkeys(PARTITIONS, self.ready.entries[-1].target), outs)

    def run(self, deliverer: Deliverer, rounds: int = 30) -> None:
        """Rounds, time passing as the deliverer asks for."""
        for _ in range(rounds):
            self.clock.now_ns += int(deliverer.round() * 1e9) + 1_000_000

    def ids(self) -> list[str]:
        return [row["message_id"] for row in self.store.rows.get("events", [])]

    def exact(self) -> bool:
        end = self.ready.entries[-1].target if self.ready.entries else EMPTY
        held = {p: row.vector for (_, p), row in self.store.positions.items()}
        whole = held == dict.fromkeys(PARTITIONS, end.encode())
        return whole and sorted(self.ids()) == sorted(
            f"m{n}" for n in range(next((at.seq for at in end.values()), 0))
        )


def left_out(deliverer: Deliverer) -> int:
    """Events counted as skipped; the counters of every stream add up."""
    for counts in deliverer.seen.streams.values():
        assert counts.out == counts.rows + counts.dead + counts.erased + counts.skipped
    return sum(counts.skipped for counts in deliverer.seen.streams.values())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_chain_is_delivered_and_counted(world: World) -> None:
    world.ready.entries += chain([5, 3, 7], PARTITIONS)
    deliverer = world.deliverer()
    world.run(deliverer)
    assert world.exact()
    assert deliverer.seen.streams["web"].rows + deliverer.seen.streams["app"].rows == 15
    assert deliverer.seen.streams["web"].out == 10
    assert deliverer.seen.passed["0"].seq == 3
    world.ready.entries += chain([4], PARTITIONS, 15)
    world.run(deliverer)
    assert world.exact()
    deliverer.close()


def test_small_commits_become_one_load_when_behind(world: World) -> None:
    world.ready.entries += chain([2] * 20, PARTITIONS)
    deliverer = world.deliverer(load_rows=16)
    world.run(deliverer)
    assert world.exact()
    assert deliverer.counters["loads"] == 3
    deliverer.close()


def test_the_first_rows_after_silence_go_at_once_the_next_wait(world: World) -> None:
    deliverer = world.deliverer()
    deliverer.round()
    world.clock.now_ns += 10**10
    world.ready.entries += chain([1], PARTITIONS)
    deliverer.round()
    assert world.exact()
    world.ready.entries += chain([1], PARTITIONS, 1)
    world.clock.now_ns += 50_000_000
    deliverer.round()
    assert not world.exact()
    world.clock.now_ns += 150_000_000
    deliverer.round()
    assert world.exact()
    deliverer.close()


@pytest.mark.parametrize(("late_s", "whole"), [(60, False), (1, True)])
def test_late_rows_wait_for_a_full_load_while_more_keep_coming(
    world: World, late_s: int, whole: bool
) -> None:
    world.clock.now_ns = 1_790_000_000_000_000_000 + late_s * 10**9
    deliverer = world.deliverer(load_rows=20_000)
    world.ready.entries += chain([3000], PARTITIONS)
    world.run(deliverer, 1)
    for number in range(1, 4):
        world.ready.entries += chain([3000], PARTITIONS, 3000 * number)
        world.clock.now_ns += 250_000_000
        deliverer.round()
    assert bool(world.ids()) is whole
    world.clock.now_ns += 500_000_000
    deliverer.round()
    assert world.exact(), "no more came: what waits goes"
    deliverer.close()


def test_a_restart_goes_on_where_the_destination_stands(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    first = world.deliverer()
    world.run(first)
    first.close()
    world.ready.entries += chain([7], PARTITIONS, 8)
    second = world.deliverer()
    world.run(second)
    assert world.exact()
    second.close()


def test_a_destination_that_is_down_is_tried_again(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    world.store.up = False
    deliverer = world.deliverer()
    world.run(deliverer, 3)
    assert code(deliverer) == "unavailable"
    world.store.up = True
    world.run(deliverer)
    assert world.exact()
    assert code(deliverer) is None
    assert world.told == ["destination_waits", "destination_resumed"]
    deliverer.close()


def test_a_destination_that_stays_down_becomes_an_error_once(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    world.store.up = False
    deliverer = world.deliverer()
    world.run(deliverer, 3)
    assert world.told == ["destination_waits"]
    for _ in range(10):
        world.clock.now_ns += int(PATIENCE_S / 5 * 1e9)
        world.run(deliverer, 1)
    assert world.told == ["destination_waits", "destination_paused"]
    deliverer.close()


# -- unknown outcomes


class Cut(MemoryDestination):
    """Loses the connection during a COMMIT: ``before`` it took effect, or after."""

    cuts: tuple[str, ...] = ()

    def step(self, step: Step) -> Outcome:
        cut, self.cuts = (self.cuts[0], self.cuts[1:]) if self.cuts else ("", ())
        if cut == "before":
            raise OutcomeUnknown("cut before")
        outcome = super().step(step)
        if cut == "after":
            raise OutcomeUnknown("cut after")
        return outcome


@pytest.mark.parametrize("cuts", [["before"], ["after"], ["after", "before", "after", "after"]])
def test_inv_dst_1_an_unknown_outcome_is_read_back(world: World, cuts: list[str]) -> None:
    """INV-DST-1: the connection is cut during COMMIT; both results."""
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    destination = Cut(world.store)
    destination.cuts = tuple(cuts)
    deliverer = world.deliverer(destination=destination, load_rows=3)
    world.run(deliverer)
    assert world.exact()
    assert deliverer.counters["unknown"] == len(cuts)
    deliverer.close()


# -- paused


def test_a_lost_position_row_pauses_and_adopt_mends(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    deliverer = world.deliverer()
    world.run(deliverer)
    world.store.positions.clear()
    world.ready.entries += chain([4], PARTITIONS, 8)
    world.run(deliverer)
    assert code(deliverer) == "position_missing"
    assert deliverer.trouble is not None
    assert deliverer.trouble.fields["command"] == "headwater destination adopt warehouse --from now"
    assert len(world.ids()) == 8
    with pytest.raises(Rejected):
        deliverer.adopt("beginning")
    with pytest.raises(Rejected):
        deliverer.adopt("here")
    deliverer.adopt("now")
    world.ready.entries += chain([2], PARTITIONS, 12)
    world.run(deliverer)
    assert code(deliverer) is None
    assert world.ids() == [f"m{n}" for n in [*range(8), 12, 13]]
    deliverer.close()


def test_a_destination_that_knows_later_logs_than_the_node_pauses_and_skips_nothing(world: World) -> None:
    """A restored data folder and a clock that went back: the new log's id is below the one that was delivered."""
    world.ready.entries += chain([5], PARTITIONS)
    first = world.deliverer()
    world.run(first)
    first.close()
    shutil.rmtree(world.folder / "a")  # what the deliverer remembered is of before the delivery too
    world.ready.entries[:] = [structs.replace(commit(0, 4, PARTITIONS), target=vector(4, LOG - 1))]
    given_out = [LOG - 1]
    second = world.deliverer(unknown=lambda v: any(at.log > given_out[0] for at in v.values()))
    world.run(second)
    assert code(second) == "destination_ahead"
    assert second.trouble is not None and "restart" in second.trouble.help
    assert remember.last_log(Unsynced(), str(world.folder / "a" / "state.json")) == LOG
    second.adopt("here")
    world.run(second)
    assert code(second) == "destination_ahead"
    given_out[0] = LOG  # the next start has read what the deliverer remembers
    later = commit(0, 3, PARTITIONS)
    world.ready.entries.append(structs.replace(later, origin=vector(4, LOG - 1), target=vector(3, LOG + 1)))
    world.run(second)
    assert code(second) == "off_chain"
    assert len(world.ids()) == 5
    second.close()


def test_a_restored_destination_pauses_and_fills_itself_up_again(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    deliverer = world.deliverer(load_rows=5, on_restored="pause")
    world.run(deliverer, 2)
    backup = (list(world.store.rows["events"]), dict(world.store.positions))
    assert len(backup[0]) == 5
    world.run(deliverer)
    world.store.rows["events"], world.store.positions = list(backup[0]), dict(backup[1])
    world.ready.entries += chain([4], PARTITIONS, 8)
    world.run(deliverer)
    assert code(deliverer) == "destination_went_back"
    assert "destination_went_back" in world.told
    assert len(world.ids()) == 5
    deliverer.adopt("here")
    world.run(deliverer)
    assert world.exact()
    deliverer.close()


def test_a_restored_destination_is_seen_after_a_restart_too(world: World) -> None:
    world.ready.entries += chain([5], PARTITIONS)
    first = world.deliverer()
    world.run(first)
    first.close()
    world.store.positions = {key: PositionRow(EMPTY.encode()) for key in world.store.positions}
    second = world.deliverer(on_restored="pause")
    world.run(second)
    assert code(second) == "destination_went_back"
    second.close()


def test_a_destination_that_is_gone_pauses(world: World) -> None:
    world.ready.entries += chain([5], PARTITIONS)
    first = world.deliverer()
    world.run(first)
    first.close()
    world.store = Store()
    second = world.deliverer()
    world.run(second)
    assert code(second) == "destination_missing"
    assert second.trouble is not None
    assert "goes on by itself when it is put back" in second.trouble.message
    assert second.trouble.fields["command"] == "headwater destination adopt warehouse --from beginning"
    assert not world.store.exists
    second.adopt("beginning")
    world.run(second)
    assert world.exact()
    second.close()


def test_the_beginning_that_one_node_adopts_is_the_beginning_for_all_nodes(world: World) -> None:
    """Its own rows are there at once: nobody else could begin anew after that."""
    world.ready.entries += chain([5, 3], PARTITIONS[:2]) + chain([4], PARTITIONS[2:])
    nodes = [world.deliverer(name) for name in "ab"]
    for one, owned in zip(nodes, (PARTITIONS[:2], PARTITIONS[2:]), strict=True):
        one.own(owned)
        world.run(one)
    before = world.ids()
    assert len(before) == 12
    world.store.rows.clear()
    world.store.positions.clear()
    for one in nodes:
        one.rows = None
        world.run(one, 2)
    assert {code(one) for one in nodes} == {"position_missing"}
    nodes[0].adopt("beginning")
    world.run(nodes[0])
    assert len(world.ids()) == 8
    world.run(nodes[1])
    assert code(nodes[1]) is None
    assert sorted(world.ids()) == sorted(before)
    for one in nodes:
        one.close()


def test_a_new_destination_that_comes_too_late_pauses_and_adopt_counts_what_it_skips(world: World) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 1
    deliverer = world.deliverer()
    world.run(deliverer)
    assert code(deliverer) == "chain_begins_later"
    assert world.ids() == []
    deliverer.adopt("now", {p: {"web": 3} for p in PARTITIONS})
    world.ready.entries += chain([2], PARTITIONS, 12)
    world.run(deliverer)
    assert world.ids() == ["m12", "m13"]
    web = deliverer.seen.streams["web"]
    assert web.skipped == 12
    assert web.out == web.rows + web.dead + web.erased + web.skipped
    deliverer.close()


def test_start_now_begins_at_the_end_of_the_chain(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    deliverer = world.deliverer(start="now", processed=world.processed)
    world.run(deliverer)
    world.ready.entries += chain([4], PARTITIONS, 8)
    world.run(deliverer)
    assert world.ids() == ["m8", "m9", "m10", "m11"]
    assert left_out(deliverer) == 8
    deliverer.close()


def test_start_now_waits_until_processing_says_where_it_stands(world: World) -> None:
    world.ready.entries += chain([5], PARTITIONS)
    told = NOWHERE
    deliverer = world.deliverer(start="now", processed=lambda: told)
    world.run(deliverer)
    assert code(deliverer) == "processing_silent" and not world.store.positions
    told = world.processed()
    world.run(deliverer, 60)
    assert world.exact() is False and world.ids() == [] and left_out(deliverer) == 5
    deliverer.close()


def test_adopt_now_is_refused_until_processing_says_where_it_stands(world: World) -> None:
    world.ready.entries += chain([5], PARTITIONS)
    deliverer = world.deliverer()
    with pytest.raises(Unavailable) as raised:
        deliverer.adopt("now", {}, {p: vector(5) for p in PARTITIONS[:-1]})
    assert raised.value.code == "processing_silent" and not world.store.positions
    deliverer.adopt("now", {p: {"web": 5} for p in PARTITIONS}, {p: vector(5) for p in PARTITIONS})
    assert {row.total.skipped for row in world.store.positions.values()} == {5}
    deliverer.close()


def test_adopt_now_skips_what_the_chain_still_holds_and_counts_it(world: World) -> None:
    world.ready.entries += chain([5, 3], PARTITIONS)
    world.store.up = False
    deliverer = world.deliverer()
    world.store.up = True
    deliverer.adopt("now")
    world.ready.entries += chain([4], PARTITIONS, 8)
    world.run(deliverer)
    assert world.ids() == ["m8", "m9", "m10", "m11"]
    total = [row.total for row in world.store.positions.values()]
    assert sum(t.skipped for t in total) == 8
    assert sum(t.out for t in total) == 12
    deliverer.close()


def test_a_hole_in_the_chain_pauses(world: World) -> None:
    """A damaged commit in the ready log: what is behind it never loads over the hole."""
    entries = chain([5, 3, 4], PARTITIONS)
    world.ready.entries += [entries[0], entries[2]]
    deliverer = world.deliverer()
    world.run(deliverer)
    assert code(deliverer) == "off_chain"
    assert len(world.ids()) == 5
    assert deliverer.seen.passed["0"].seq == 1
    deliverer.close()


# -- refused rows


def test_refused_rows_become_dead_letters_before_the_step_and_are_counted_with_it(world: World) -> None:
    world.ready.entries += chain([5, 20], PARTITIONS)
    refused = {"m3", "m9", "m24"}
    destination = MemoryDestination(world.store, lambda row: row["message_id"] not in refused)
    deliverer = world.deliverer(destination=destination)
    world.run(deliverer)
    assert set(world.ids()) == {f"m{n}" for n in range(25)} - refused
    total = [row.total for row in world.store.positions.values()]
    assert (sum(t.out for t in total), sum(t.rows for t in total), sum(t.dead for t in total)) == (25, 22, 3)
    held = deliverer.dead.base.execute(
        "select writer, seq, partition, stream from dead order by seq"
    ).fetchall()
    writer = "abcdef0000000000"
    assert held == [(writer, 3, 3, "app"), (writer, 9, 1, "app"), (writer, 24, 0, "app")]
    deliverer.close()


def test_a_crash_between_dead_letters_and_step_doubles_neither(world: World) -> None:
    world.ready.entries += chain([5], PARTITIONS)

    class Crashing(Cut):
        def step(self, step: Step) -> Outcome:
            if all(
                row["message_id"] != "m3"
                for sets in step.tables.values()
                for t in sets
                for row in t.to_pylist()
            ):
                return super().step(step)
            return MemoryDestination.step(self, step)

    destination = Crashing(world.store, lambda row: row["message_id"] != "m3")
    destination.cuts = ("before", "before")
    deliverer = world.deliverer(destination=destination)
    world.run(deliverer)
    assert world.ids() == ["m0", "m1", "m2", "m4"]
    assert deliverer.dead.count() == 1
    assert sum(row.total.dead for row in world.store.positions.values()) == 1
    deliverer.close()


def test_a_destination_that_refuses_everything_is_paused_instead(world: World) -> None:
    world.ready.entries += chain([50], PARTITIONS)
    destination = MemoryDestination(world.store, lambda row: False)
    deliverer = world.deliverer(destination=destination, refused_tries_max=20)
    world.run(deliverer)
    assert code(deliverer) == "refuses_rows"
    assert deliverer.dead.count() == 0
    assert {row.vector for row in world.store.positions.values()} == {EMPTY.encode()}
    deliverer.close()


# -- random histories, and what they find without the comparison


class Blind(MemoryDestination):
    """Commits without comparing; the position only grows."""

    def matches(self, step: Step) -> bool:
        return True


class EpochOnly(MemoryDestination):
    """Fences by the owner's epoch alone: the usual answer, and not enough (protocol-why.md P3)."""

    newest: ClassVar[dict[int, str]] = {}
    """The newest owner that wrote, by store; a restore does not even take it back."""

    def matches(self, step: Step) -> bool:
        if step.owner < self.newest.get(id(self.store), ""):
            return False
        self.newest[id(self.store)] = step.owner
        return True


def history(world: World, seed: int) -> bool:
    """Two owners of all partitions, restarts, unknown outcomes, an outage, a restore; exact at the end?"""
    rng = SeededRng(seed)
    events = 0
    owners: list[Deliverer] = [world.deliverer("a", load_rows=1 + rng.below(12))]
    backup: tuple[list[dict[str, Any]], dict[tuple[str, int], PositionRow]] | None = None
    for _ in range(60):
        x = rng.below(100)
        if x < 35:
            size = 1 + rng.below(5)
            world.ready.entries.append(commit(events, size, PARTITIONS))
            events += size
        elif x < 75:
            step(world, owners[rng.below(len(owners))], rng)
        elif x < 80 and len(owners) < 3:
            owners.append(world.deliverer("abc"[len(owners)], load_rows=1 + rng.below(12)))
        elif x < 85:
            world.store.up = not world.store.up
        elif x < 92:
            backup = (list(world.store.rows.get("events", [])), dict(world.store.positions))
        elif backup is not None and backup[1] and world.store.up:
            world.store.rows["events"], world.store.positions = list(backup[0]), dict(backup[1])
    world.store.up = True
    for _ in range(12):
        for owner in owners:
            world.run(owner, 8)
            if code(owner) == "destination_went_back":
                owner.adopt("here")
    for owner in owners:
        owner.close()
    return world.exact() if events else True


def step(world: World, owner: Deliverer, rng: SeededRng) -> None:
    """One round of one owner, some time later; what an operator would do is done at the end."""
    owner.round()
    world.clock.now_ns += rng.below(3) * 10**9


def violations(folder: Path, kind: Callable[[Store], MemoryDestination], seeds: range) -> int:
    found = 0
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir(parents=True)
        found += not history(World(place, kind), seed)
    return found


@pytest.mark.slow
def test_inv_dst_1_random_histories_are_exact(tmp_path: Path) -> None:
    """INV-DST-1: two owners, outages, restores; the comparison alone keeps it exact."""
    assert violations(tmp_path, MemoryDestination, range(50)) == 0


@pytest.mark.slow
@pytest.mark.broken_variant
@pytest.mark.parametrize("kind", [Blind, EpochOnly])
def test_without_the_comparison_rows_are_lost_or_doubled(
    tmp_path: Path, kind: type[MemoryDestination]
) -> None:
    """The hole that INV-DST-1 closes: a blind commit, or a fence by epoch only."""
    assert violations(tmp_path, kind, range(15)) > 0


def test_the_vector_of_a_step_is_canonical() -> None:
    assert vector(3).encode() == vector(3).encode()


def test_the_beginning_is_refused_where_the_chain_no_longer_holds_it(world: World) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    processed = dict.fromkeys(PARTITIONS, world.ready.entries[-1].target)
    for kept_from in (1, 3):  # some of it is gone, and all of it
        world.ready.kept_from = kept_from
        with pytest.raises(Rejected, match="no longer hold"):
            world.deliverer().adopt("beginning", {}, processed)


def test_now_is_where_processing_stands_though_the_chain_is_empty(world: World) -> None:
    world.ready.entries += chain([5, 3, 4], PARTITIONS)
    world.ready.kept_from = 3
    processed = dict.fromkeys(PARTITIONS, world.ready.entries[-1].target)
    deliverer = world.deliverer()
    told = deliverer.adopt("now", {p: {"web": 3} for p in PARTITIONS}, processed)
    assert told["skipped_events"] == 3 * len(PARTITIONS)
    world.ready.entries += chain([2], PARTITIONS, 12)
    world.run(deliverer)
    assert world.ids() == ["m12", "m13"]


def test_the_wait_of_rows_begins_with_the_deliverer_and_the_last_load_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.clock.now_ns = 10**15
    world.ready.entries += chain([1, 1], PARTITIONS)
    one = world.deliverer(load_rows=1, load_interval_min_ms=1)
    assert one.seen.loaded_ns == 0
    one.round()
    assert one.seen.waiting_rows > 0
    assert one.seen.age_s == 0
    assert one.seen.loaded_ns == world.clock.now_ns


def test_a_paused_destination_goes_on_being_late(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ready.entries += chain([1], PARTITIONS)
    one = world.deliverer()
    world.run(one, 3)
    world.store.positions.clear()
    one.rows = None
    world.ready.entries += chain([1, 1], PARTITIONS)[1:]
    one.round()
    assert one.trouble is not None
    world.clock.now_ns += 60 * 10**9
    assert worker.status_of(one)["lag"]["age_s"] >= 60
