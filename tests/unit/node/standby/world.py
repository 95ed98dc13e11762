"""A processor, its source, and a sink on another disk; both disks lose what they may.

Events are numbers of one of two writers. What is seen of a partition at a vector is a function of the events below it,
so the oracle needs no history: at any vector it knows the ids, and how many events were counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from headwater.event.commit import COUNTERS, Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.errors import Broken
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.simulate.view import Dead, ProcessDisk
from headwater.kit.threads import inline
from headwater.log import recover, retain
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader, ReadyWriter
from headwater.log.write import BlockWriter
from headwater.node.standby import entries
from headwater.node.standby.sink import Sink
from headwater.node.standby.source import Source
from headwater.process import idruns, state
from headwater.process.dedupe import MINUTE_NS, Ids, encode_ids
from headwater.process.idruns import Runs
from headwater.process.state import Fold, ids_in, of_partitions, parts_below

SECRET = Secret(0x5EC2E7)
PARTITIONS = 4
FOLLOWED = (0, 1, 3)
WRITERS = (WriterId(0xA0000), WriterId(0xB0000))
LOG = 5
WINDOW_MINUTES = 1000
PER_MINUTE = 10
DATA = "/data"
FOLDER = "/standby/aaaaaaaaaaaa0000-0"
READY_SEGMENT = 4 * 4096


def drawn(seed: int) -> Any:
    """A source of chance that belongs to one story."""
    return SimDisk(seed + 1_000_003).random


def partition_of(writer: WriterId, seq: int) -> int:
    return (seq + (writer >> 16)) % PARTITIONS


def ids_between(origin: Vector, target: Vector) -> Ids:
    """The ids of all events between two vectors."""
    events = [(w, n) for w in WRITERS for n in range(origin[w].seq, target[w].seq)]
    return (
        np.array([w for w, _ in events], np.uint64),
        np.array([n for _, n in events], np.uint64),
        np.array([n // PER_MINUTE for _, n in events], np.uint32),
        np.array([partition_of(w, n) for w, n in events], np.uint16),
    )


def known_ids(partition: int, at: Vector) -> set[tuple[int, int]]:
    """(writer, number) of the events of a partition below a vector."""
    return {(w, n) for w in WRITERS for n in range(at[w].seq) if partition_of(w, n) == partition}


def commit(partitions: tuple[int, ...], origin: Vector, target: Vector) -> Commit:
    ids = of_partitions(ids_between(origin, target), partitions)
    counts: dict[int, list[int]] = {}
    for partition in ids[3].tolist():
        counts.setdefault(partition, [0] * len(COUNTERS))[0] += 1
    sections = {"rows:events": memoryview(bytes(500))}
    if len(ids[0]):
        sections["ids"] = memoryview(encode_ids(ids))
    return Commit(partitions, origin, target, 1, len(ids[0]), {"web": counts} if counts else {}, sections)


def vector(one: int, two: int) -> Vector:
    return Vector(
        {WRITERS[0]: Position(LOG, one), WRITERS[1]: Position(LOG, two)}, clock=(1 + one + two) * MINUTE_NS
    )


def check(disk: Any, folder: str, fold: Fold) -> None:
    """The oracle: a folder holds exactly the state at the vectors that its fold names."""
    found: dict[int, list[tuple[int, int]]] = {p: [] for p in fold.vectors}
    for part in parts_below(folder, fold, fold.vectors, None, disk):
        for writer, number, _, partition in zip(*(array.tolist() for array in part.ids), strict=True):
            found[partition].append((writer, number))
    for partition, at in fold.vectors.items():
        expected = known_ids(partition, at)
        assert set(found[partition]) - expected == set(), f"ids ahead of {partition} at {at}"
        assert expected - set(found[partition]) == set(), f"ids missing of {partition} at {at}"
        assert fold.events_in(partition) == len(expected), f"counters of {partition} at {at}"


def process(disk: SimDisk, name: str) -> ProcessDisk:
    """A process whose death is not told again by each generator that is dropped with an open file."""
    view = disk.process(name)
    close = view.close

    def close_quietly(file: int) -> None:
        with suppress(Dead):  # the next call says it
            close(file)

    view.close = close_quietly  # type: ignore[method-assign]
    return view


class Processor:
    """What is on the owner's disk, as process/worker.py and process/state.py write it."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.logs = 0
        self.start()

    def start(self) -> None:
        """As a processor starts: end the old log, fold what is behind the saved fold, save."""
        self.view = view = self.disk.process("processor")
        for folder in (f"{DATA}/ready/0", f"{DATA}/state/0/ids"):
            view.mkdir(folder)
        for folder in (DATA, f"{DATA}/ready", f"{DATA}/state", f"{DATA}/state/0", "/"):
            view.sync_dir(folder)
        recover.recover_all(view, f"{DATA}/ready/0", SECRET, recover.no_streams)
        self.fold = state.load(view, f"{DATA}/state/0")
        self.runs = Runs(view, f"{DATA}/state/0")
        self.pending: list[bytes] = []
        reader = ReadyReader(view, f"{DATA}/ready/0", WriterId(0), self.fold.ready, secret=SECRET)
        while found := reader.read(1 << 20):
            for entry, after in found:
                assert all(self.fold.vectors.get(p, EMPTY) == entry.origin for p in entry.partitions)
                self.taken(entry, after)
        reader.close()
        self.logs += 1
        clock = SimClock(Time())
        self.writer = ReadyWriter(
            BlockWriter(
                view, clock, f"{DATA}/ready/0", WriterId(0), self.logs, start=1, offset_ns=0,
                segment_bytes=READY_SEGMENT, submit=inline, secret=SECRET,
            )
        )  # fmt: skip
        self.save()

    def taken(self, entry: Commit, after: Position) -> None:
        self.fold.apply(entry, after)
        self.pending.append(idruns.encode(ids_in(entry), idruns.about_of(entry)))

    def commit(self, partitions: tuple[int, ...], one: int, two: int) -> None:
        """So many events of each writer."""
        at = self.fold.vectors.get(partitions[0], EMPTY)
        entry = commit(partitions, at, vector(at[WRITERS[0]].seq + one, at[WRITERS[1]].seq + two))
        self.taken(entry, self.writer.append(entry))

    def groups(self) -> list[tuple[int, ...]]:
        """Partitions that stand at one vector."""
        by_vector: dict[Vector, list[int]] = {}
        for partition in range(PARTITIONS):
            by_vector.setdefault(self.fold.vectors.get(partition, EMPTY), []).append(partition)
        return [tuple(partitions) for partitions in by_vector.values()]

    def append(self) -> None:
        """The first half of saving."""
        if self.pending:
            self.runs.append(b"".join(self.pending))
            self.pending = []

    def save(self) -> None:
        self.append()
        state.save(self.view, f"{DATA}/state/0", self.fold)
        self.folded = self.fold.ready

    def moved(self, partitions: tuple[int, ...], at: Vector) -> None:
        """Partitions came back from another node, which went on with them from somewhere: as a start with its state."""
        seen = of_partitions(ids_between(EMPTY, at), partitions)
        self.pending.append(idruns.encode(seen, idruns.About(partitions, EMPTY, at)))
        counts = {p: [len(known_ids(p, at))] + [0] * (len(COUNTERS) - 1) for p in partitions}
        other = Fold(vectors=dict.fromkeys(partitions, at), counters={"web": counts})
        self.fold = self.fold.with_partitions(other, partitions)
        self.save()

    def give_back(self) -> None:
        """Ready entries go when they are folded (and delivered, which nobody here waits for)."""
        retain.retire(
            self.view, f"{DATA}/ready/0", self.folded, wanted=lambda *_: False,
            segment_bytes=READY_SEGMENT, spares_max=1,
        )  # fmt: skip


class World:
    """One owner, one standby, and a road between them that may break."""

    make_source: Callable[..., Source] = Source
    make_sink: Callable[..., Sink] = Sink

    def __init__(self, seed: int) -> None:
        self.random = drawn(seed)
        self.owner, self.other = SimDisk(seed), SimDisk(seed + 1)
        self.processor = Processor(self.owner)
        self.road: list[bytes] = []
        self.promised: Mapping[int, Vector] = {}
        self.moves = 0
        self.bases = 0
        self.connect()

    def connect(self) -> None:
        """A new connection: the sink says what it holds, a source goes on from there."""
        self.view = process(self.other, "standby")
        self.sink = self.make_sink(self.view, FOLDER, window_minutes=WINDOW_MINUTES)
        known = self.sink.known(FOLLOWED)
        self.source = self.make_source(
            process(self.owner, "lane"), DATA, 0, FOLLOWED, secret=SECRET, window_minutes=WINDOW_MINUTES,
            after=entries.vectors(known.standing), ready=Position(*known.ready) if known.standing else None,
        )  # fmt: skip
        self.road = []

    # -- what may happen -----------------------------------------------------------------------------------------------

    def step(self, name: str) -> None:
        """One of STEPS; whoever dies starts again."""
        with suppress(Dead):
            getattr(self, name)()
        self.mend()

    def mend(self) -> None:
        if self.processor.view.dead:
            self.again(self.processor.start)
        if self.view.dead or self.source.disk.dead:  # type: ignore[attr-defined]
            self.again(self.connect)

    def again(self, start: Callable[[], None]) -> None:
        while True:
            try:
                return start()
            except Dead:
                continue

    def commit(self) -> None:
        group = self.random.choice(self.processor.groups())
        self.processor.commit(group, self.random.randrange(4), self.random.randrange(1, 4))

    def append(self) -> None:
        self.processor.append()

    def save(self) -> None:
        self.processor.save()

    def give_back(self) -> None:
        self.processor.give_back()

    def move(self) -> None:
        """Some partitions come back from elsewhere: further, or beside, or (a fork that lost) behind."""
        group = self.random.choice(self.processor.groups())
        some = tuple(p for p in group if self.random.random() < 0.6) or group
        at = self.processor.fold.vectors.get(some[0], EMPTY)
        one, two = (max(0, at[w].seq + self.random.randrange(-4, 6)) for w in WRITERS)
        self.moves += 1
        self.processor.moved(some, vector(one, two + 1))

    def pull(self) -> None:
        try:
            found = self.source.pull(self.random.choice((1, 1, 500, 1 << 20)))
        except FileNotFoundError:  # a segment was given back in the moment in which it was to be opened
            return
        self.bases += sum(isinstance(entries.decode(e), entries.Base) for e in found)
        self.road += found

    def deliver(self) -> None:
        for _ in range(self.random.choice((1, 2, 5, 50))):
            if self.road:
                entry = entries.decode(self.road.pop(0))
                self.sink.take(entry)
                if isinstance(entry, entries.Base):
                    self.keep()

    def keep(self) -> None:
        self.sink.save()
        self.promised = self.sink.synced
        self.verify()

    def cut(self) -> None:
        """The connection breaks; what is under way is gone."""
        self.sink.close()
        self.connect()

    def other_standby(self) -> None:
        """The table names another node, which has nothing."""
        self.other = SimDisk(self.random.randrange(1 << 30))
        self.promised = {}
        self.connect()

    def kill_standby(self) -> None:
        self.view.die_at(self.random.randrange(1, 12))
        self.deliver()
        self.keep()

    def crash_standby(self) -> None:
        self.other.crash()
        self.connect()
        self.holds_what_it_promised()

    def kill_source(self) -> None:
        self.source.disk.die_at(self.random.randrange(1, 30))  # type: ignore[attr-defined]
        self.pull()

    def kill_owner(self) -> None:
        self.processor.view.die_at(self.random.randrange(1, 12))
        self.commit()
        self.processor.save()
        self.processor.give_back()

    def crash_owner(self) -> None:
        self.owner.crash()
        self.again(self.processor.start)
        self.connect()

    def race(self) -> None:
        """The processor goes on between any two calls of the source."""
        inside = False
        left = self.random.randrange(1, 8)

        def between(view: ProcessDisk, call: str) -> None:
            nonlocal inside, left
            if inside or not left or view.name != "lane" or self.random.random() < 0.8:
                return
            inside, left = True, left - 1
            with suppress(Dead):  # the processor's end is not the source's
                self.random.choice(
                    (self.commit, self.commit, self.append, self.save, self.give_back, self.move)
                )()
            inside = False

        self.owner.between = between
        try:
            self.pull()
        finally:
            self.owner.between = None

    # -- the oracle ----------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """What a start of this node would find now is a state at a vector."""
        disk = self.other.process("reader")
        check(disk, FOLDER, state.load(disk, FOLDER))

    def holds_what_it_promised(self) -> None:
        saved = state.load(self.other.process("reader"), FOLDER).vectors
        if not self.moves:
            for partition, at in self.promised.items():
                assert at <= saved.get(partition, EMPTY), "what was promised as durable is gone"
        self.verify()

    def settle(self) -> None:
        """Nothing happens any more: the standby comes to where the processor stands."""
        self.mend()
        for group in self.processor.groups():
            self.processor.commit(
                group, 30, 30
            )  # beyond everything that a base behind the last one took back
        self.processor.save()
        self.connect()
        for _ in range(3):
            while found := self.source.pull(1 << 20):
                self.road += found
            while self.road:
                self.sink.take(entries.decode(self.road.pop(0)))
        self.keep()
        expected = {p: v for p, v in self.processor.fold.vectors.items() if p in FOLLOWED}
        assert {p: v for p, v in self.sink.synced.items() if p in FOLLOWED} == expected
        assert self.sink.synced.keys() <= set(FOLLOWED)
        check(self.processor.view, f"{DATA}/state/0", self.processor.fold)


class Lossy(World):
    """Some commits are never told, as if a source did not know that they were there."""

    def pull(self) -> None:
        super().pull()
        deltas = [e for e in self.road if isinstance(entries.decode(e), entries.Delta)]
        if deltas and self.random.random() < 0.3:
            self.road.remove(self.random.choice(deltas))

    def deliver(self) -> None:
        try:
            super().deliver()
        except Broken as refused:
            assert refused.code == "standby_gap"
            self.cut()


STEPS = (
    "commit", "append", "save", "give_back", "move", "pull", "deliver", "keep", "cut", "other_standby",
    "kill_standby", "crash_standby", "kill_source", "kill_owner", "crash_owner", "race",
)  # fmt: skip
WEIGHTS = (8, 2, 4, 2, 1, 6, 8, 5, 2, 2, 2, 1, 2, 2, 1, 3)


def steps(seed: int, count: int) -> Iterator[str]:
    yield from drawn(seed).choices(STEPS, WEIGHTS, k=count)


def story(world: type[World], seed: int, names: list[str]) -> World:
    """All of these steps, then the end."""
    told = world(seed)
    for name in names:
        told.step(name)
    told.settle()
    return told


__all__ = ["DATA", "FOLDER", "STEPS", "Lossy", "World", "check", "commit", "story", "vector"]
