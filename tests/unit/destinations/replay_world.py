"""A small world for replays: events of two writers with copies, a chain made of them, and the raw log read again.

Nothing here is the code under test but the destination, the deliverer and the replays: the chain and the raw log are
written down in the plainest way, event by event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from headwater.destinations.deliver import Deliverer
from headwater.destinations.memory import MemorySettings
from headwater.destinations.port import Replayable
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.destinations.replay import Plan, Replays, Span
from headwater.destinations.replays import Book
from headwater.event import commit as commits
from headwater.event.commit import Commit
from headwater.event.piece import Piece, Range
from headwater.event.position import EMPTY, Position, Vector, WriterId
from tests.chains import LOG, STANDARD, ListChain
from tests.unit.destinations.test_deliver import Ticking, Unsynced

PARTITIONS = (0, 1, 2, 3)
MAIN = "cluster/warehouse/main"
WINDOW_US = 60_000_000 * 60
WRITERS = (WriterId(0xA0000), WriterId(0xA0001))
SETTLED = 1 << 60
OLD, NEW = 1.0, 2.0
"""What the column ``config`` holds: the configuration that made the row."""
DEAD = pa.schema(
    [
        ("writer", pa.uint64()), ("log", pa.uint64()), ("seq", pa.uint64()), ("row", pa.uint32()),
        ("stream", pa.string()), ("reason", pa.string()), ("field", pa.string()), ("body", pa.binary()),
    ]
)  # fmt: skip
Origin = tuple[int, int, int]


@dataclass(frozen=True)
class Event:
    """One event. ``good``: whether processing takes it, by configuration; ``erased``: its body is blanked meanwhile."""

    writer: int
    seq: int
    id: int
    received_us: int
    good_old: bool = True
    good_new: bool = True
    erased: bool = False

    @property
    def origin(self) -> Origin:
        return WRITERS[self.writer], LOG, self.seq

    @property
    def partition(self) -> int:
        return self.id % len(PARTITIONS)

    def alive(self, config: float) -> bool:
        return self.good_old if config == OLD else self.good_new and not self.erased


def vector(first: int, second: int) -> Vector:
    return Vector({w: Position(LOG, seq) for w, seq in zip(WRITERS, (first, second), strict=True) if seq})


def rows_of(events: Sequence[Event], config: float) -> pa.Table:
    columns: list[Any] = [
        pa.array([f"m{e.id}" for e in events], pa.string()),
        pa.array([e.received_us for e in events], pa.timestamp("us", "UTC")),
        pa.array(["app" if e.id % 3 else "web" for e in events], pa.string()).dictionary_encode(),
        pa.array([e.origin[0] for e in events], pa.uint64()),
        pa.array([LOG] * len(events), pa.uint64()),
        pa.array([e.seq for e in events], pa.uint64()),
        pa.array([0] * len(events), pa.uint32()),
        pa.array([e.partition for e in events], pa.uint16()),
    ]
    table = pa.table(columns, schema=STANDARD)
    return table.append_column("config", pa.array([config] * len(events), pa.float64()))


def ipc(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return memoryview(sink.getvalue())


@dataclass
class Log:
    """The events of the two writers, and the chain over them."""

    events: list[Event]
    seen: set[int] = field(default_factory=set)
    dead: set[Origin] = field(default_factory=set)
    """Letters of processing."""

    def between(self, origin: Vector, target: Vector) -> list[Event]:
        return [e for e in self.events if origin[e_writer(e)].seq <= e.seq < target[e_writer(e)].seq]

    def commit(self, origin: Vector, target: Vector) -> Commit:
        """What processing made of them, once, in order of receipt."""
        out, changes = [], dict[str, dict[int, list[int]]]()
        for event in sorted(self.between(origin, target), key=lambda e: (e.received_us, e.writer, e.seq)):
            stream = "app" if event.id % 3 else "web"
            change = changes.setdefault(stream, {}).setdefault(event.partition, [0] * len(commits.COUNTERS))
            change[0] += 1
            if not event.good_old:
                change[3] += 1
                self.dead.add(event.origin)
            elif event.id in self.seen:
                change[2] += 1
            else:
                self.seen.add(event.id)
                out.append(event)
                change[1] += 1
        sections = {"rows:events": ipc(rows_of(out, OLD))} if out else {}
        return Commit(PARTITIONS, origin, target, 1, 0, changes, sections)


def e_writer(event: Event) -> WriterId:
    return WRITERS[event.writer]


@dataclass
class FakeRaw:
    """The raw log of a replay: reads ``log`` with the new configuration, in pieces that ``sizes`` gives."""

    log: Log
    origin: Vector = EMPTY
    until: Vector = EMPTY
    sizes: Iterable[tuple[int, int]] = ()
    unreadable: frozenset[Origin] = frozenset()
    missing: str = ""
    window_us: int = WINDOW_US
    broken: Callable[[], None] = lambda: None
    private: Any = None

    @property
    def letters(self) -> FakeLetters:
        return FakeLetters(self.log)

    def plan(self, from_ns: int, to_ns: int, limit: Vector) -> Plan:
        until = self.until.meet(limit)
        events = len(self.log.between(self.origin.meet(until), until))
        return Plan(self.origin.meet(until), until, events, self.missing)

    def open(self, origin: Vector, until: Vector, rate: float) -> FakePieces:
        return FakePieces(self, origin, until)

    def open_private(self, partitions: tuple[int, ...], origin: Vector, until: Vector) -> Any:
        return self.private(partitions, origin, until)

    def settled_us(self, vector: Vector) -> int:
        """Events that are not below it were received then, or will be."""
        rest = [e.received_us for e in self.log.events if e.seq >= vector[e_writer(e)].seq]
        return min(rest, default=SETTLED)


@dataclass
class FakeLetters:
    log: Log

    def between(self, spans: Sequence[Span]) -> list[Origin]:
        return [o for o in sorted(self.log.dead) if any(o[0] == w and a <= o[1:] < b for w, a, b in spans)]

    def remove(self, origins: Sequence[Origin]) -> None:
        self.log.dead -= set(origins)


class FakePieces:
    """Reads [at, until)."""

    def __init__(self, raw: FakeRaw, at: Vector, until: Vector) -> None:
        self.raw, self.at, self.until = raw, at, until
        self.sizes = iter(raw.sizes)

    @property
    def ended(self) -> bool:
        return self.at == self.until

    def advance(self) -> Piece | None:
        self.raw.broken()
        more = next(self.sizes, (1 << 30, 1 << 30))
        steps = {w: self.at[w].seq + n for w, n in zip(WRITERS, more, strict=True)}
        ends = [min(self.until[w].seq, steps[w]) for w in WRITERS]
        target = vector(*ends)
        if target == self.at and target != self.until:
            return None
        events = self.raw.log.between(self.at, target)
        readable = [e for e in events if e.origin not in self.raw.unreadable]
        ranges = tuple(Range(*e.origin, e.seq + 1) for e in sorted(readable, key=lambda e: e.origin))
        alive = [e for e in readable if e.alive(NEW)]
        dead = [e for e in readable if not e.good_new and not e.erased]
        self.at = target
        return Piece(
            target, ranges, rows_of(alive, NEW) if alive else None, letters_of(dead) if dead else None
        )

    def close(self) -> None:
        pass


def letters_of(events: Sequence[Event]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"writer": e.origin[0], "log": LOG, "seq": e.seq, "row": 0, "reason": "bad", "field": "x",
             "stream": "app" if e.id % 3 else "web", "body": b"{}"}
            for e in events
        ],
        schema=DEAD,
    )  # fmt: skip


class World:
    """A destination with its deliverers, one after the other, over one log."""

    def __init__(self, folder: Path, log: Log, make: Callable[[], Replayable]) -> None:
        self.folder, self.log, self.make = folder, log, make
        self.ready = ListChain()
        self.clock = Ticking()
        self.raw = FakeRaw(log)
        self.letters = DeadLetters(":memory:", "warehouse")
        self.told: list[str] = []
        self.at = EMPTY
        self.start()

    def start(self) -> None:
        """A new process."""
        self.deliverer = Deliverer(
            "warehouse", self.make(), {"0": self.ready.open},
            Memory(Unsynced(), str(self.folder / "state.json"), MAIN), self.letters,
            MemorySettings(load_interval_min_ms=0, load_interval_max_ms=0), self.clock,
            partitions=len(PARTITIONS), owner="a", node_ns=self.clock.boot_ns,
            layouts={"events": rows_of([], OLD).schema},
            tell=lambda name, fields: self.told.append(name),
        )  # fmt: skip
        book = Book(Unsynced(), str(self.folder / "replays.json"))
        self.replays = Replays(self.deliverer, book, self.raw, 1e9)
        self.deliverer.replays = self.replays

    def commit(self, first: int, second: int) -> None:
        """Process up to there."""
        target = self.at.join(vector(first, second))
        if target != self.at:
            self.ready.entries.append(self.log.commit(self.at, target))
            self.at = target

    def round(self) -> None:
        self.clock.now_ns += 10**7 + int(min(self.deliverer.round(), 10) * 1e9)

    def run(self, rounds: int = 40) -> None:
        for _ in range(rounds):
            self.round()

    def replay(self, origin: Vector, until: Vector, **more: Any) -> dict[str, Any]:
        self.raw.origin, self.raw.until = origin, until
        return self.replays.start(0, 1, **more)

    def finish(self) -> dict[str, Any]:
        """Until nothing is under way; the last one."""
        for _ in range(3000):
            if self.replays.book.current is None:
                break
            self.round()
        assert self.replays.book.current is None
        return self.replays.list()[-1]

    # -- looking

    def held(self) -> list[dict[str, Any]]:
        store: Any = self.deliverer.destination
        if hasattr(store, "store"):
            return [dict(row) for row in store.store.rows.get("events", [])]
        found = store.write.sql("from events").to_arrow_table().to_pylist()
        return [dict(row) for row in found]

    def by_origin(self) -> dict[Origin, float]:
        """Origin → the configuration that made its row; AssertionError where one has two, or an id has."""
        rows = self.held()
        origins = [(r["_hw_writer"], r["_hw_log"], r["_hw_seq"]) for r in rows]
        assert len(set(origins)) == len(origins), "an origin is there twice"
        ids = [r["message_id"] for r in rows]
        assert len(set(ids)) == len(ids), "an id is there twice"
        return dict(zip(origins, (r["config"] for r in rows), strict=True))

    def check_ledger(self) -> None:
        """Counters and rows agree, by partition and stream."""
        count: dict[tuple[int, str], int] = {}
        for row in self.held():
            key = row["_hw_partition"], row["key_id"]
            count[key] = count.get(key, 0) + 1
        for partition, held in self.deliverer.destination.positions(MAIN).items():
            for stream, c in held.streams.items():
                assert c.rows == count.pop((partition, stream), 0), (partition, stream, c)
                assert c.out + c.revived == c.rows + c.dead + c.erased + c.skipped, (partition, stream, c)
                assert min(c) >= 0, c
        assert not count, count
