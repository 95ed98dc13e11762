"""The road of one node in one process: real logs, processors, private runs and deliverers over a folder, and faults.

What the roles and the supervisor do around them is done here in the same few calls: recovery before a start, reports
that are read later than they were written, the ready log given back without the slowest, the raw log up to ``safe``.
Only the disk does not wait for syncs, and time is told to pass. Takeover by another node (protocol.md §7) gets its own
action here when there are several: what it needs is a processor that begins from any checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import takewhile
from types import SimpleNamespace
from typing import Any, Protocol
from unittest import mock

import duckdb
import msgspec

from headwater.config.report import Report
from headwater.destinations import registry
from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.memory import MemoryDestination, MemorySettings, Store
from headwater.destinations.port import (
    Outcome,
    OutcomeUnknown,
    PositionRow,
    PrivateRun,
    ProcessedAt,
    Step,
)
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory, State
from headwater.destinations.worker import status_of
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, ZERO, Position, Vector, WriterId, writer_id
from headwater.event.record import SINGLE, STAMP, Head, encode_head, encode_payload
from headwater.event.slots import slot_of
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.threads import inline
from headwater.log import compress, files, recover, retain
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader, ReadyWriter
from headwater.log.write import BlockWriter
from headwater.node import former, rawkeeper, retention
from headwater.node.roles.process import attached_to
from headwater.ops import standing
from headwater.ops.accepted import AcceptedCounter
from headwater.ops.reconcile import reconcile
from headwater.process import private
from headwater.process.dedupe import MINUTE_NS, Seen
from headwater.process.enrich.settings import EnrichSettings
from headwater.process.gather import Gatherer
from headwater.process.read import Reader
from headwater.process.run import Runner
from headwater.process.schema import LearnedSchema
from headwater.process.settings import ProcessSettings
from headwater.process.shape import Shaper
from headwater.process.worker import ProcessWorker
from tests.simulation.log_oracle import violated
from tests.simulation.road_oracle import Copy, Obligations, Row

SECRET = Secret(0x5EC2E7)
FOLDER_ID = 0xABCDEF0000
PARTITIONS = 4
WINDOW_S = 600.0
RETAIN_S = 1800.0
RAW_SEGMENT_BYTES = 12 * 1024
READY_SEGMENT_BYTES = 16 * 1024
IDS_BYTES_MAX = 1 << 30
REST_TURNS_MAX = 12
"""Quiescence takes 4 of them at most."""
HEAD = encode_head(Head("web", "plain", "POST", "/events"))
PLAIN: Any = SimpleNamespace(plain=True, default_type=lambda head: "track", split=None)
REFUSED_EVERY = 17
"""Every so many-th id is one that destinations refuse."""


class Killed(Exception):
    """The process is gone at this point."""


class Unsynced(SystemDisk):
    """The disk without waiting for it: nobody cuts the power here (test_log.py does)."""

    def sync(self, file: int) -> None:
        pass

    def sync_dir(self, path: str) -> None:
        pass


# -- destinations


FAULTS = ("down", "inside", "lost", "kept", "killed before", "killed after")
"""What a step meets: an error before it began, one inside it, an unknown outcome that was not or was a commit, the end
of the process on either side of the commit."""


class Faults:
    """A destination's steps under one fault each."""

    fault = ""
    placed: Mapping[int, PositionRow] | None = None
    """The position rows that were written last without a step."""

    def place(self, pipeline: str, rows: Mapping[int, PositionRow], *, missing_only: bool = False) -> None:
        super().place(pipeline, rows, missing_only=missing_only)  # type: ignore[misc]
        self.placed = dict(rows)

    def step(self, step: Step) -> Outcome:
        fault, self.fault = self.fault, ""
        if fault in ("down", "inside"):
            raise Unavailable(f"the destination failed: {fault}")
        if fault == "lost":
            raise OutcomeUnknown("the connection broke before COMMIT took effect")
        if fault == "killed before":
            raise Killed
        outcome: Outcome = super().step(step)  # type: ignore[misc]
        if fault == "kept":
            raise OutcomeUnknown("the connection broke after COMMIT took effect")
        if fault == "killed after":
            raise Killed
        return outcome


class Tables(MemoryDestination):
    """A destination in memory that minds its columns, and refuses some ids."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, lambda row: not is_refused(row["message_id"]))

    def step(self, step: Step) -> Outcome:
        for name, sets in step.tables.items():
            for rows in sets:
                if not self.store.columns.get(name, set()).issuperset(rows.schema.names):
                    violated("INV-DST-4", f"a row comes before table {name} has its columns")
        return super().step(step)


class FaultyTables(Faults, Tables):
    pass


class FaultyDuckDb(Faults, DuckDbDestination):
    pass


def is_refused(name: str) -> bool:
    """Whether destinations in memory refuse a message id."""
    return int(name[1:]) % REFUSED_EVERY == REFUSED_EVERY - 1


class Shelf(Protocol):
    """What of a destination outlives its deliverers; another copy can be put in its place."""

    refuses: bool
    shared: bool
    """Whether two deliverers can have it open at a time."""

    def make(self, world: World) -> Any: ...
    def rows(self) -> list[Row]: ...
    def positions(self) -> dict[int, PositionRow]: ...
    def copy(self) -> Any: ...
    def restore(self, copy: Any) -> None: ...


@dataclass
class MemoryShelf:
    """A store in memory."""

    store: Store = field(default_factory=Store)
    refuses = shared = True
    made: MemoryDestination | None = None

    def make(self, world: World) -> MemoryDestination:
        return world.parts.destination(self.store)

    def rows(self) -> list[Row]:
        return [row_of(row) for row in self.store.rows.get("events", [])]

    def positions(self) -> dict[int, PositionRow]:
        return {p: row for (_, p), row in self.store.positions.items()}

    def copy(self) -> Store:
        return deepcopy(self.store)

    def restore(self, copy: Store) -> None:
        kept = deepcopy(copy)
        for name in ("exists", "rows", "columns", "positions"):
            setattr(self.store, name, getattr(kept, name))


@dataclass
class DuckDbShelf:
    """A DuckDB file."""

    folder: str
    refuses = shared = False
    made: FaultyDuckDb | None = None

    @property
    def path(self) -> str:
        return f"{self.folder}/warehouse.duckdb"

    def make(self, world: World) -> FaultyDuckDb:
        settings = deliver_settings(DuckDbSettings, path=self.path)
        self.made = FaultyDuckDb(settings, self.path, self.folder, world.clock)
        return self.made

    def query(self, statement: str) -> list[Any]:
        if self.made is not None and self.made.is_open:
            return self.made.write.execute(statement).fetchall()
        if not os.path.exists(self.path):
            return []
        with duckdb.connect(self.path) as base:
            return base.execute(statement).fetchall()

    def rows(self) -> list[Row]:
        known = self.query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'events'")
        found = self.query(f"SELECT {', '.join(COLUMNS)} FROM events") if known else []
        return [Row(*values) for values in found]

    def positions(self) -> dict[int, PositionRow]:
        if self.made is not None and self.made.is_open:
            return self.made.positions("node/place/main")
        other = registry.make(
            deliver_settings(DuckDbSettings, path=self.path),
            registry.Place(self.folder, self.folder, SimClock(Time())),
        )
        if not os.path.exists(self.path):
            return {}
        other.open(create=False)
        try:
            return other.positions("node/place/main")
        finally:
            other.close()

    def copy(self) -> bytes | None:
        if self.made is not None:
            self.made.close()
        if not os.path.exists(self.path):
            return None
        with open(self.path, "rb") as file:
            return file.read()

    def restore(self, copy: bytes | None) -> None:
        if self.made is not None:
            self.made.close()
        if copy is None:
            if os.path.exists(self.path):
                os.unlink(self.path)
            return
        with open(self.path, "wb") as file:
            file.write(copy)


COLUMNS = ("message_id", "_hw_writer", "_hw_log", "_hw_seq", "_hw_partition")


def row_of(row: Mapping[str, Any]) -> Row:
    """As the oracle sees it."""
    return Row(*(row[name] for name in COLUMNS))


def deliver_settings(kind: type[Any], **more: Any) -> Any:
    """Settings under which a few rows are a load, and nobody waits long."""
    return kind(
        **{
            "load_rows": 6,
            "load_interval_min_ms": 1,
            "load_interval_max_ms": 2,
            "load_interval_behind_ms": 3,
            "retry_interval_s": 0.2,
            **more,
        }
    )


@dataclass
class Owed:
    """What of a destination differs from everything that was accepted."""

    skips: dict[int, list[tuple[Vector, Vector]]] = field(default_factory=dict)
    gone: set[Copy] = field(default_factory=set)
    """Events that it may lack: the raw log did not hold them when a private run began below them."""
    doubtful: bool = False
    """A run said that it did not know all ids below it."""
    uncounted: bool = False
    """It is a copy that had not counted what was left out, and its deliverer has not seen that yet."""
    lenient: bool = False
    """A former deliverer left something out, of which the newest does not know."""


@dataclass
class Place:
    """A destination with its deliverers: the newest is the one that reports; older ones never learn that they were
    replaced."""

    name: str
    shelf: Any
    start: str
    on_restored: str
    on_raw_full: str = "refuse"
    deliverers: list[Deliverer] = field(default_factory=list)
    runs: list[tuple[PrivateRun, set[Copy]]] = field(default_factory=list)
    """Each with the events of its stretch that the raw log no longer held when it began."""
    owed: Owed = field(default_factory=Owed)
    """What of it is known to be left out; goes back with it."""
    memories: list[bytes] = field(default_factory=list)
    copies: list[tuple[Any, Owed]] = field(default_factory=list)
    up: bool = True
    began: dict[int, Vector] = field(default_factory=dict)
    """For a place that starts now: what processing had said when it was added."""
    below_safe: bool = False
    """Whether it may ask for what was safe: it was restored, is new and begins at the beginning, or was given up."""

    @property
    def memory(self) -> Memory:
        """Of the newest deliverer."""
        return self.deliverers[-1].memory

    @property
    def unreckoned(self) -> bool:
        """Whether its deliverer knows of events that were left out and are not counted; one that has only just begun
        has not read it yet."""
        if self.memories and not self.memory.vectors:
            return flags_of(self.memories[-1])[0]
        return self.memory.unreckoned

    @property
    def counted(self) -> bool:
        """Whether all that was left out is in its counters."""
        return not (self.unreckoned or self.owed.uncounted or self.owed.lenient)


@dataclass(frozen=True)
class Parts:
    """What the road is made of; a broken variant replaces one."""

    processor: type[ProcessWorker] = ProcessWorker
    destination: Callable[[Store], MemoryDestination] = FaultyTables
    private: type[private.PrivateRun] = private.PrivateRun
    deliverer: type[Deliverer] = Deliverer
    safe: Callable[[Mapping[str, Report], int, Iterable[str]], Vector] = retention.safe_vector
    epoch: Callable[[int], int] = lambda start: start


class SmallCuts(ProcessSettings, frozen=True):
    """Settings of processing whose cuts may be smaller than an operator could want."""

    def __post_init__(self) -> None:
        pass


class World:
    """One node's folder and everything that runs on it."""

    def __init__(
        self, data: str, parts: Parts, *, cut_bytes_max: int = 1 << 20, piece_bytes: int = 1 << 20
    ) -> None:
        self.data = data
        self.parts = parts
        self.cut_bytes_max = cut_bytes_max
        self.piece_bytes = piece_bytes
        self.disk = Unsynced()
        self.clock = SimClock(Time())
        self.offset_ns = self.clock.wall_ns() - self.clock.boot_ns()
        self.oracle = Obligations(int(WINDOW_S // 60))
        for name in ("raw", "ready", "state"):
            os.makedirs(f"{data}/{name}")
        self.logs = 0
        self.starts = 1
        self.ids = 0
        self.names = 0
        self.owners = 0
        self.collectors: dict[int, BlockWriter] = {}
        self.pending: dict[int, list[tuple[str, int]]] = {}
        self.workers = 1
        self.processors: dict[int, ProcessWorker] = {}
        self.told: dict[str, dict[str, Any]] = {}
        """What each processor says."""
        self.reports: dict[str, Report] = {}
        """What others have read of it."""
        self.places: dict[str, Place] = {}
        self.schema = LearnedSchema(f"{data}/schema.ndjson", columns_max=20)
        self.shaper = shaper()
        self.shaper.schema = self.schema
        self.accepted = AcceptedCounter(self.disk, f"{data}/raw", SECRET)
        self.young_gone = False
        """Whether the quota took segments that are younger than retention wishes."""
        self.start_processors()

    def close(self) -> None:
        """Release all files."""
        for place in self.places.values():
            for one in place.deliverers:
                one.close()
        for processor in self.processors.values():
            crash(processor)
        for collector in self.collectors.values():
            collector.close()

    # -- the door

    def receive(self, writer: int, backs: Sequence[int]) -> None:
        """Events come in and wait for their block: 0 is a new one, n a copy of the n-th last."""
        for back in backs:
            number = self.ids + 1 - back
            if back == 0 or number < 1:
                number = self.ids = self.ids + 1
            self.pending.setdefault(writer, []).append((f"m{number}", self.node_ns()))
            self.pass_time(0.001)

    def write(self, writer: int) -> None:
        """The block of a collector is closed and becomes durable."""
        waiting = self.pending.pop(writer, [])
        if not waiting:
            return
        known = writer_id(FOLDER_ID, writer)
        if writer not in self.collectors:
            self.collectors[writer] = self.block_writer(
                f"{self.data}/raw/{known:016x}", known, RAW_SEGMENT_BYTES
            )
        bodies = [json.dumps(event(name)).encode() for name, _ in waiting]
        stamps = [
            STAMP.pack(at, bytes(16), len(body), 0, 1, 0, slot_of(anonymous(name)), SINGLE, 0)
            for (name, at), body in zip(waiting, bodies, strict=True)
        ]
        collector, count = self.collectors[writer], len(waiting)
        counts = {"web": (count, collector.next_seq + count)}
        payload = encode_payload(stamps, bodies, [HEAD], [], counts, count)
        after = collector.write(payload, records=count, events=count)
        for seq, (name, at) in enumerate(waiting, after.seq - count):
            copy = Copy(known, Position(after.log, seq), at // MINUTE_NS)
            self.oracle.durable(name, slot_of(anonymous(name)) % PARTITIONS, copy)

    def restart_collector(self, writer: int) -> None:
        """What was not durable was never answered."""
        self.pending.pop(writer, None)
        if writer in self.collectors:
            self.collectors.pop(writer).close()
            self.recover_raw(writer)

    def recover_raw(self, writer: int) -> None:
        recover.recover_all(self.disk, f"{self.data}/raw/{writer_id(FOLDER_ID, writer):016x}", SECRET)

    def block_writer(self, folder: str, writer: int, segment_bytes: int) -> BlockWriter:
        """A new log."""
        self.logs += 1
        return BlockWriter(
            self.disk, self.clock, folder, WriterId(writer), self.logs, secret=SECRET, start=self.starts,
            offset_ns=self.offset_ns, segment_bytes=segment_bytes, submit=inline,
        )  # fmt: skip

    # -- processing

    def start_processors(self) -> None:
        for number in range(self.workers):
            self.start_processor(number)

    def start_processor(self, number: int) -> None:
        """As the supervisor does: its log is recovered first."""
        folder = f"{self.data}/ready/{number}"
        recover.recover_all(self.disk, folder, SECRET, recover.no_streams)
        ready = ReadyWriter(self.block_writer(folder, number, READY_SEGMENT_BYTES))
        append = ready.append

        def appended(entry: Commit) -> Position:
            after = append(entry)
            self.oracle.committed(entry)
            return after

        ready.append = appended  # type: ignore[method-assign]
        worker = self.parts.processor(
            number,
            SmallCuts(workers=self.workers, cut_bytes_max=self.cut_bytes_max, dedupe_window_s=WINDOW_S,
                      dedupe_memory_bytes=1 << 20),
            self.data, self.disk, self.clock,
            SimpleNamespace(start=lambda: self.starts, offset_ns=lambda: self.offset_ns),
            ready, partial(self.runner, damage_here=number == 0),
            lambda report: self.told.update({f"process-{number}": report}),
            secret=SECRET, partitions=PARTITIONS, config_epoch=self.parts.epoch(self.starts),
            ids_bytes_max=IDS_BYTES_MAX,
        )  # fmt: skip
        worker.recover()
        self.processors[number] = worker

    def runner(self, owned: Sequence[int], *, damage_here: bool) -> Runner:
        """Processing of some partitions."""
        return Runner(
            Gatherer(lambda name: PLAIN), Reader(self.schema, depth_max=3), self.shaper,
            owned=owned, partitions=PARTITIONS, damage_here=damage_here,
        )  # fmt: skip

    def process(self, number: int, turns: int, fault: str = "") -> None:
        """Turns of a processor; it may be killed on either side of a commit, and starts again."""
        number %= self.workers
        worker = self.processors[number]
        if fault:
            append = worker.ready.append

            def killed(entry: Commit) -> Position:
                if fault == "killed after":
                    append(entry)
                raise Killed

            worker.ready.append = killed  # type: ignore[method-assign]
        try:
            for _ in range(turns):
                self.pass_time(0.002)
                if not worker.step():
                    break
        except Killed:
            self.restart_processor(number)
        else:
            if fault:
                worker.ready.append = append  # type: ignore[method-assign]

    def save_folds(self) -> None:
        """Time for each processor to save what it has committed; the ready log is kept for it before."""
        self.pass_time(1.1)
        for number in list(self.processors):
            self.process(number, 1)

    def restart_processor(self, number: int) -> None:
        number %= self.workers
        crash(self.processors.pop(number))
        self.start_processor(number)

    def restart_node(self, workers: int) -> None:
        """Everything ends at once; what is read at the next start is what the disk holds."""
        for writer in list(self.collectors):
            self.restart_collector(writer)
        self.pending.clear()
        for number in list(self.processors):
            crash(self.processors.pop(number))
        self.starts += 1
        self.workers = workers
        self.told.clear()
        self.reports.clear()
        self.start_processors()
        for place in self.places.values():
            self.restart_deliverer(place, 0, zombie=False)

    # -- destinations

    def add(self, start: str, on_restored: str, shelf: Any = None, on_raw_full: str = "refuse") -> Place:
        """A new destination in the configuration."""
        self.names += 1
        name = f"place{self.names}"
        place = Place(name, shelf or MemoryShelf(), start, on_restored, on_raw_full)
        place.below_safe = start == "beginning" and bool(self.oracle.copies)
        if start == "now":
            place.began = dict(standing.processed(self.reports).vectors)
        self.places[name] = place
        self.start_deliverer(place)
        return place

    def start_deliverer(self, place: Place) -> None:
        """A process that delivers, with what its predecessor remembered."""
        self.owners += 1
        folder = f"{self.data}/state/deliver-{place.name}"
        os.makedirs(folder, exist_ok=True)
        memory = Memory(self.disk, f"{folder}/state.json", "node/place/main")
        kind = MemorySettings if isinstance(place.shelf, MemoryShelf) else DuckDbSettings
        one = self.parts.deliverer(
            place.name, place.shelf.make(self),
            {str(n): partial(self.open_ready, n) for n in self.ready_folders()},
            memory, DeadLetters(f"{folder}/dead.sqlite", place.name),
            deliver_settings(kind, start=place.start, on_restored=place.on_restored, on_raw_full=place.on_raw_full),
            self.clock,
            partitions=PARTITIONS, owner=f"{self.owners:06}", node_ns=self.node_ns,
            open_private=partial(self.open_private, place),
            processed=self.processed_at,
        )  # fmt: skip
        place.deliverers.append(one)

    def ready_folders(self) -> list[int]:
        """Every processor that is, or was."""
        known = {int(n) for n in os.listdir(f"{self.data}/ready") if n.isdigit()}
        return sorted(known | set(range(self.workers)))

    def processed_at(self) -> ProcessedAt:
        """What the deliver role reads of the reports."""
        told = standing.passed(self.reports)
        vectors = {int(p): Vector.decode(bytes.fromhex(text)) for p, text in told["vectors"].items()}
        return ProcessedAt(vectors, {int(p): dict(streams) for p, streams in told["passed"].items()})

    def open_ready(self, number: int, at: Position) -> ReadyReader:
        return ReadyReader(self.disk, f"{self.data}/ready/{number}", WriterId(number), at, secret=SECRET)

    def open_private(
        self, place: Place, partitions: tuple[int, ...], origin: Vector, until: Vector
    ) -> PrivateRun:
        """What the deliver role opens; remembered, for what it says about itself."""
        seen = Seen(partitions=PARTITIONS, memory_bytes=1 << 20, window_s=WINDOW_S)
        run = self.parts.private(
            self.disk, f"{self.data}/raw", SECRET, self.clock,
            self.runner(partitions, damage_here=False), seen,
            id_folders=[f"{self.data}/state/{number}" for number in self.ready_folders()],
            partitions=partitions, origin=origin, until=until,
            now=lambda: (self.starts, self.clock.boot_ns()), bytes_max=self.piece_bytes,
            config_epoch=self.starts,
        )  # fmt: skip
        if run.missing and not place.below_safe:
            violated("SAFE", f"{place.name} asks for {run.missing} events that were given back: {origin}")
        place.runs.append((run, self.gone(partitions, origin, until) if run.missing else set()))
        return run

    def gone(self, partitions: tuple[int, ...], origin: Vector, until: Vector) -> set[Copy]:
        """The events of a stretch that the raw log no longer holds."""
        held = {}
        for writer in self.oracle.ends:
            for segment in reversed(files.segments(self.disk, f"{self.data}/raw/{writer:016x}")):
                held[writer, segment.log] = segment.first
        return {
            copy
            for name, copies in self.oracle.copies.items()
            if self.oracle.partition[name] in partitions
            for copy in copies
            if origin[copy.writer] <= copy.position < until[copy.writer]
            and copy.position.seq < held.get((copy.writer, copy.position.log), 1 << 62)
        }

    def deliver(self, place: Place, rounds: int, fault: str = "", which: int = -1) -> None:
        """Rounds of one deliverer, time passing as it asks for."""
        one = place.deliverers[which % len(place.deliverers)]
        destination: Any = one.destination
        destination.fault = fault
        destination.placed = None
        try:
            for _ in range(rounds):
                if not place.up:
                    destination.fault = "down"
                wait_s = one.round()
                place.owed.gone.update(*(gone for run, gone in place.runs if one.catch_up.run is run))
                self.pass_time(min(wait_s, 0.3) + 0.001)
        except Killed:
            crash_deliverer(one)
            place.deliverers.remove(one)
            if not place.deliverers or which == -1:
                self.start_deliverer(place)
        destination.fault = ""
        if place.start == "now" and destination.placed is not None:
            self.began(place, destination.placed)
        if place.unreckoned:
            place.owed.uncounted = False
        elif any(former.memory.unreckoned for former in place.deliverers) or (
            place.owed.uncounted and len(place.deliverers) > 1
        ):
            place.owed.lenient = True  # two processes beside each other do not know what the other left out
        place.owed.doubtful |= any(run.incomplete for run, _ in place.runs)
        if place.owed.doubtful and not place.below_safe and not self.young_gone:
            violated("SAFE", f"ids below {place.name} are gone, though none of them is old")
        place.runs = [pair for pair in place.runs if any(d.catch_up.run is pair[0] for d in place.deliverers)]
        self.remember(place)

    def began(self, place: Place, rows: Mapping[int, PositionRow]) -> None:
        """A destination that starts now stands somewhere: what is below was left out, and none of it comes later."""
        for p, row in rows.items():
            at = Vector.decode(row.vector)
            if not place.began.get(p, EMPTY) <= at:
                violated("INV-DEST", f"{place.name} starts now, and stands at {at}, below {place.began[p]}")
            if at != EMPTY and not place.owed.skips.get(p):
                place.owed.skips[p] = [(EMPTY, at)]

    def remember(self, place: Place) -> None:
        """Keep what the deliverer has saved: a later one may find any of it."""
        path = f"{self.data}/state/deliver-{place.name}/state.json"
        if os.path.exists(path):
            with open(path, "rb") as file:
                saved = file.read()
            if not place.memories or place.memories[-1] != saved:
                place.memories = [*place.memories[-4:], saved]

    def restart_deliverer(self, place: Place, older: int, *, zombie: bool) -> None:
        """A new process delivers, with what was saved last or ``older`` saves before; the former one may go on."""
        last = flags_of(place.memories[-1]) if place.memories else None
        known = list(takewhile(lambda saved: flags_of(saved) == last, reversed(place.memories)))
        if known and older:
            saved = known[older % len(known)]
            with open(f"{self.data}/state/deliver-{place.name}/state.json", "wb") as file:
                file.write(saved)
        kept = place.deliverers[-1:] if zombie and place.shelf.shared else []
        for one in place.deliverers:
            if one not in kept:
                crash_deliverer(one)
        place.deliverers = kept
        self.start_deliverer(place)

    def copy(self, place: Place) -> None:
        """Somebody makes a copy of the destination."""
        owed = deepcopy(place.owed)
        owed.uncounted = owed.uncounted or place.unreckoned
        place.copies = [*place.copies[-2:], (place.shelf.copy(), owed)]

    def restore(self, place: Place, which: int) -> None:
        """Somebody puts a copy in its place: rows and positions go back together."""
        copy, owed = place.copies[which % len(place.copies)]
        place.shelf.restore(copy)
        place.owed, place.below_safe = deepcopy(owed), True

    def operate(self, place: Place, start: str) -> bool:
        """An operator decides for a paused destination; what is left out is known from here on."""
        one = place.deliverers[-1]
        if one.trouble is None or not place.up:
            return False
        before = place.shelf.positions()
        said = self.processed_at()
        safe, place.below_safe = place.below_safe, place.below_safe or start == "beginning"
        try:
            one.adopt(start, said.outs, said.vectors)
        except HeadwaterError:  # it says what is wrong with the decision
            place.below_safe = safe
            return False
        if start == "now":
            for p, row in place.shelf.positions().items():
                old = Vector.decode(before[p].vector) if p in before else EMPTY
                if (new := Vector.decode(row.vector)) != old:
                    place.owed.skips.setdefault(p, []).append((old, new))
        elif start == "beginning":
            place.owed = Owed()
        place.owed.uncounted &= start == "here" and not place.unreckoned
        return True

    def write_off(self, place: Place) -> None:
        """An operator says that the raw log need not be kept for a destination."""
        place.deliverers[-1].write_off()

    # -- around it

    def node_ns(self) -> int:
        return self.clock.boot_ns() + self.offset_ns

    def pass_time(self, seconds: float) -> None:
        self.clock.block(seconds)

    def wait(self, minutes: int) -> None:
        """Nothing happens for a while, but blocks are not kept open for it."""
        for writer in list(self.pending):
            self.write(writer)
        self.pass_time(60.0 * minutes)

    def tell(self) -> None:
        """Everybody's reports are written and read."""
        for place in self.places.values():
            detail = {"destinations": {place.name: status_of(place.deliverers[-1])}}
            self.report(f"deliver-{place.name}", detail)
        for role, told in self.told.items():
            self.report(role, told)

    def report(self, role: str, detail: dict[str, Any]) -> None:
        detail = msgspec.json.decode(msgspec.json.encode(detail))
        self.reports[role] = Report(role=role, pid=1, start=self.starts, detail=detail)

    def retire_raw(self, *, over_quota: bool) -> None:
        """What the supervisor does each while."""
        self.young_gone |= over_quota
        safe = self.parts.safe(self.reports, PARTITIONS, self.places)
        spared = self.expendable()
        needed = [name for name in self.places if name not in spared]
        kept = retention.keep(
            self.disk, f"{self.data}/raw", safe, SECRET, self.parts.safe(self.reports, PARTITIONS, needed),
            now_ns=self.node_ns(), retain_s=RETAIN_S,
            raw_bytes_max=0 if over_quota else 1 << 40, headroom_bytes=0,
            segment_bytes=RAW_SEGMENT_BYTES, spares_max=1,
        )  # fmt: skip
        if kept.given_up_segments:
            for name in spared:
                self.places[name].below_safe = True

    def expendable(self) -> set[str]:
        """The destinations for which the logs need not be kept when they are full."""
        settings: Any = SimpleNamespace(destinations=self.places)
        return rawkeeper.expendable(settings, self.reports) & self.places.keys()

    def compress(self) -> None:
        """What the upkeep process does with segments that are all delivered; the next pass over raw puts them in their
        places."""
        safe = self.parts.safe(self.reports, PARTITIONS, self.places)
        with mock.patch.object(compress, "PLAIN_BYTES_MIN", 0):
            for writer in self.oracle.ends:
                folder = f"{self.data}/raw/{writer:016x}"
                for segment, after in compress.candidates(self.disk, folder, safe[writer]):
                    for _ in compress.compress(self.disk, folder, segment, after, SECRET, 1):
                        pass

    def retire_ready(self, held_bytes_max: int) -> None:
        """What each processor's role does each while, and the supervisor with former processors."""
        delivered = standing.delivered(self.reports)
        for number in self.processors:
            folder = f"{self.data}/ready/{number}"
            passed = {
                name: delivered[name].ready_passed.get(str(number), ZERO) if name in delivered else ZERO
                for name in self.places
            }
            attached = attached_to(
                passed, partial(retain.held_bytes, self.disk, folder), held_bytes_max, self.expendable()
            )
            folded = Position(*self.told[f"process-{number}"]["folded"])
            retain.retire(
                self.disk, folder, min([folded, *attached.values()]), wanted=lambda *_: False,
                segment_bytes=READY_SEGMENT_BYTES, spares_max=1,
            )  # fmt: skip
        former.retire(self.disk, self.data, self.reports, self.workers, self.places, SECRET)

    def examine(self) -> None:
        """Every destination, and the ledger over the reports as they were read."""
        for place in self.places.values():
            refused = list(filter(is_refused, self.oracle.copies)) if place.shelf.refuses else ()
            self.oracle.examine(
                place.name, place.shelf.rows(), place.shelf.positions(), place.owed.skips,
                doubtful=place.owed.doubtful, refused=refused, gone=place.owed.gone,
                reckoned=place.counted,
            )  # fmt: skip
        self.reconcile()

    def reconcile(self) -> None:
        """INV-LED-1 as an operator sees it."""
        told = standing.delivered(self.reports)
        exact = {n for n, place in self.places.items() if place.counted and not place.owed.doubtful}
        delivered = {n: told[n] for n in exact & told.keys()}
        processed = standing.processed(self.reports)
        for one in reconcile(self.accepted.count(), processed, delivered):
            if not one.holds:
                violated("INV-LED-1", f"reconcile says: {one.problems}")

    # -- rest

    def settle(self, victim: Place | None = None) -> None:
        """No more faults, but for one destination that stays down: everybody else gets everything (INV-DST-3); then
        that one does. One more event comes: a destination that was restored is looked at with the next load."""
        self.receive(0, [0])
        for writer in list(self.pending):
            self.write(writer)
        for place in self.places.values():
            place.up = place is not victim
        self.come_to_rest([p for p in self.places.values() if p is not victim], victim)
        if victim is not None:
            victim.up = True
            self.receive(0, [0])
            self.write(0)
            self.come_to_rest([victim])
        self.examine()

    def come_to_rest(self, places: Sequence[Place], down: Place | None = None) -> None:
        """Until these have everything."""
        for _ in range(REST_TURNS_MAX):
            for number in self.processors:
                self.process(number, 200)
            self.tell()
            for place in sorted(
                self.places.values(), key=places.__contains__
            ):  # one that is down meets it first
                self.deliver(place, 12 if place in places else 3)
                self.mend(place)
            self.pass_time(1.1)
            if all(self.is_complete(place) for place in places):
                break
        rule = "INV-DEST" if down is None else "INV-DST-3"
        for place in places:
            self.oracle.complete(rule, place.name, place.shelf.positions(), PARTITIONS)
            if not place.counted and not place.owed.lenient:
                violated(
                    "INV-LED-1", f"{place.name} stands on the chain and has not counted what it left out"
                )

    def is_complete(self, place: Place) -> bool:
        positions = place.shelf.positions()
        end = Vector(self.oracle.ends)
        return (
            len(positions) == PARTITIONS
            and all(end <= Vector(Vector.decode(row.vector).entries) for row in positions.values())
            and (place.counted or place.owed.lenient)
        )

    def mend(self, place: Place) -> None:
        """What an operator does who reads what status says."""
        trouble = place.deliverers[-1].trouble
        command = "" if trouble is None else str(trouble.fields.get("command") or "")
        if command and not self.operate(place, command.split()[-1]):
            self.operate(place, "now")


@cache
def shaper() -> Shaper:
    """One for all worlds: its patterns take long to read. It keeps nothing of an event."""
    return Shaper(EnrichSettings(), LearnedSchema("", columns_max=0))


def flags_of(saved: bytes) -> tuple[bool, bool, bool]:
    """Of what a deliverer remembers, what is durable at once."""
    state = msgspec.json.decode(saved, type=State)
    return state.skips or state.uncounted, state.written_off, state.left_out


def anonymous(name: str) -> str:
    """Whose event it is: copies are of one visitor."""
    return f"a{int(name[1:]) % 7}"


def event(name: str) -> dict[str, Any]:
    """An event; some have a column that others lack."""
    number = int(name[1:])
    more = {"properties": {f"plan{number % 3}": number}} if number % 4 == 0 else {}
    return {"event": "Clicked", "messageId": name, "anonymousId": anonymous(name), **more}


def crash(worker: ProcessWorker) -> None:
    """What a killed processor leaves: nothing is saved, files are closed by the system."""
    worker.store.close()
    worker.ready.blocks.close()
    for group in worker.groups:
        group.close()


def crash_deliverer(one: Deliverer) -> None:
    """The same of a deliverer."""
    one.catch_up.end()
    for chain in one.chains.values():
        chain.close()
    one.destination.close()
    one.dead.close()


def remove(path: str) -> None:
    """A world's folder."""
    shutil.rmtree(path, ignore_errors=True)
