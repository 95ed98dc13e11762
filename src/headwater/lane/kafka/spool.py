"""What came out of the topic, of all other homes, until the mirrors of this node have read it.

``kafka/<writer>/`` are folders like those of copies (lane/copies_held): segments with whole blocks, as stretches
without a gap, synced before an offset is noted. ``kafka/stands`` notes the offsets, and the T of each home's newest
complete cut; what is read again from an older one is dropped by its position (INV-LANE-1). All of it is a cache: where
something is missing, mirrors ask the home for it, and over ``bytes_max`` the oldest goes.

A stream of the spool (``SpoolStream``) is what a home's own stream is, as far as the topic has come. It ends as soon as
any log of its home has a gap before what comes next: a T with a gap below it would break INV-ORD-1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headwater.config.report import replace
from headwater.event.position import Position, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, read_whole
from headwater.kit.errors import Rejected, Unavailable
from headwater.kit.threads import Submit, answer
from headwater.lane import wire
from headwater.lane.copies_held import CopyLog, Held, HeldHome, Shelf
from headwater.lane.copies_read import Loopback
from headwater.lane.home import RawLog, Stream
from headwater.lane.kafka.record import Record
from headwater.lane.wire import BlockHead, Connection, Gap, Moment
from headwater.log.read import LogReader
from headwater.peer.frames import Frame, Kind
from headwater.peer.identity import Hello

STAY_S = 5.0
"""How long a mirror follows the spool, or a home, until it is asked again which of them it should."""
FULL_SHARE = 0.75
"""The oldest goes above it."""
Stands = Callable[[WriterId], Position]


class SpoolLog(CopyLog):
    """What came of one writer. Not for two threads at once."""

    def take(self, head: BlockHead, payload: bytes | memoryview) -> None:
        """The next block, or one that is here already. Busy: there is no room."""
        if Position(head.log, head.first_seq + head.events) <= self.at:
            return
        try:
            self.check(head)
        except Rejected:
            if Position(head.log, head.first_seq) < self.at and head.gap is Gap.NONE:
                raise
            self.begin_stretch(Position(head.log, head.first_seq))
        super().take(head, payload)

    def end(self, log: int, seq: int) -> None:
        """The home has decided where a log ends; of a log that is behind us, or not here, nobody needs to know."""
        if log == self.at.log and seq == self.at.seq and not self.ended:
            super().end(log, seq)

    @property
    def begins(self) -> Position:
        """From where on everything is here that came."""
        return self.stretches[-1].begins


class SpoolHome(HeldHome):
    """What came of one home. ``accept`` and ``flush`` run in its thread."""

    def __init__(self, shelf: Shelf, node: str, submit: Submit, moment: Moment) -> None:
        super().__init__(shelf, node, submit)
        self.session = self.number = -1
        self.heard_ns = 0
        """When something of it came last, boot time."""
        self.whole = moment
        """The T of the newest complete cut that is durable here."""
        self.taken = moment
        """The same, not yet durable."""

    @property
    def spooled(self) -> dict[WriterId, SpoolLog]:
        return {writer: log for writer, log in list(self.logs.items()) if isinstance(log, SpoolLog)}

    def log(self, writer: WriterId) -> SpoolLog:
        """The folder of a writer. Rejected: it is not this home's."""
        found = self.logs.get(writer)
        if not isinstance(found, SpoolLog):
            self.check_own(writer)
            found = self.logs[writer] = SpoolLog(self.shelf, writer)
        return found

    def accept(self, record: Record) -> None:
        """The next record of this home. Rejected: not what a home says. Busy: no room; it may come again."""
        if record.session == self.session and record.number <= self.number:
            return
        follows = record.session == self.session and record.number == self.number + 1
        if not follows:
            self.begun, self.pieces = None, []
        before = self.begun, list(self.pieces)
        with self.lock:
            for writer, at in record.begins.items():
                self.log(WriterId(writer)).stand(at)
        try:
            self.apply(record.frame if self.begun is None else record.whole_frame)
        except BaseException:
            self.begun, self.pieces = before
            raise
        self.session, self.number = record.session, record.number
        self.heard_ns = self.shelf.clock.boot_ns()

    def apply(self, frame: Frame) -> None:
        """One frame of the home."""
        if frame.kind == Kind.DATA:
            self.take(wire.message(frame, wire.Data), frame.body)
        elif frame.kind == Kind.ENDED:
            self.end_log(wire.message(frame, wire.Ended))

    def end_cut(self, moment: Moment) -> None:
        """Everything up to this time came."""
        self.taken = max(self.taken, moment)

    def flush(self) -> None:
        """What came is durable on return, and may be read."""
        with self.lock:
            for log in self.spooled.values():
                log.sync()
            self.whole = self.taken

    def covers(self, stands: Stands) -> bool:
        """Whether all that follows for who stands there is here, or will come."""
        return all(stands(writer) >= log.begins for writer, log in self.spooled.items())

    def has_more(self, stands: Stands) -> bool:
        """Whether anything is here that who stands there does not have."""
        return any(log.at > stands(writer) >= log.begins for writer, log in self.spooled.items())

    def make_room(self) -> None:
        """The older half of each log goes."""
        with self.lock:
            for log in self.spooled.values():
                if log.segments:
                    segment, _ = log.segments[len(log.segments) // 2]
                    log.retire(Position(segment.log, segment.first))


class Noted(msgspec.Struct, frozen=True):
    """``kafka/stands``."""

    topic: str
    offsets: dict[int, int]
    """The next one to read, of each Kafka partition."""
    moments: dict[str, tuple[int, int, int]]
    """Node id → T of its newest complete cut."""


class Spool(Held):
    """All homes."""

    homes: dict[str, SpoolHome]  # type: ignore[assignment]

    def __init__(self, disk: Disk, root: str, topic: str, **held: Any) -> None:
        self.path = f"{root}/stands"
        self.topic = topic
        self.noted = read_noted(disk, self.path, topic)
        self.offsets = dict(self.noted.offsets)
        super().__init__(disk, root, **held)

    def home(self, node: str) -> SpoolHome:
        """What came of a home."""
        if node not in self.homes:
            moment = Moment(*self.noted.moments.get(node, (0, 0, 0)))
            self.homes[node] = SpoolHome(self.shelf, node, self.thread(f"spool-{node}"), moment)
        return self.homes[node]

    async def accept(self, node: str, records: list[Record]) -> list[Rejected]:
        """Records of one home, in order; durable on return. Those that no home would say are left out, and returned.
        Busy, OSError: there is no room; they may come again."""
        home = self.home(node)
        refused: list[Rejected] = []

        def work() -> None:
            for record in records:
                try:
                    home.accept(record)
                except Rejected as error:
                    refused.append(error)
            home.flush()

        await answer(home.submit, work)
        return refused

    def note(self) -> None:
        """Keep where we stand."""
        moments = {node: tuple(home.whole) for node, home in self.homes.items()}
        replace(self.disk, self.path, msgspec.msgpack.encode(Noted(self.topic, self.offsets, moments)))  # type: ignore[arg-type]

    def make_room(self) -> None:
        """Give back the oldest where there is little room left."""
        if self.bytes > FULL_SHARE * self.bytes_max:
            for home in list(self.homes.values()):
                home.submit(home.make_room)

    def stretch(self, writer: WriterId, node: str) -> tuple[Position, Position] | None:
        """From where to where a writer's log is here."""
        log = self.homes[node].spooled.get(writer) if node in self.homes else None
        return (log.begins, log.at) if log is not None else None


def read_noted(disk: Disk, path: str, topic: str) -> Noted:
    """What was noted of this topic; nothing where that cannot be read."""
    try:
        noted = msgspec.msgpack.decode(read_whole(disk, path), type=Noted)
    except (FileNotFoundError, msgspec.DecodeError):
        return Noted(topic, {}, {})
    return noted if noted.topic == topic else Noted(topic, {}, noted.moments)


class SpoolStream(Stream):
    """A stream of one home, out of the spool. Unavailable in a turn: a gap comes next."""

    def __init__(self, raw: RawLog, asked: wire.Open, home: SpoolHome, clock: Clock) -> None:
        super().__init__(raw, asked, lambda: home.whole)
        self.home = home
        self.clock = clock

    def boot_ns(self, now: Moment) -> int:
        return self.clock.boot_ns()

    def discover(self) -> None:
        """Find the writers; after the T of the cut was read, so that no gap lies below it unseen."""
        if not self.home.covers(lambda writer: self.stands.get(writer, self.origin[writer])):
            raise Unavailable(f"the topic lacks something of node {self.home.node}", code="kafka_gap")
        for writer, log in self.home.spooled.items():
            if writer not in self.readers and log.at > self.origin[writer]:
                until = self.until[writer] if self.until is not None else None
                self.readers[writer] = LogReader(
                    self.raw.disk, log.folder, writer, self.origin[writer], until, secret=self.raw.secret
                )


class Brief:
    """A connection that ends after a while, so that it is asked again whom to follow."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self.connection = connection
        self.clock = clock
        self.until_ns = clock.boot_ns() + int(STAY_S * 1e9)

    @property
    def peer(self) -> Hello:
        return self.connection.peer

    async def send(self, kind: int, header: Mapping[str, Any], *body: bytes | memoryview) -> None:
        await self.connection.send(kind, header, *body)

    async def receive(self) -> Frame | None:
        if self.clock.boot_ns() >= self.until_ns:
            return None
        return await self.connection.receive()

    async def close(self) -> None:
        await self.connection.close()


def loopback(spool: Spool, home: SpoolHome, partitions: int, me: str, clock: Clock) -> Connection:
    """A connection that gives the streams of a home out of the spool."""
    raw = RawLog(spool.disk, spool.shelf.root, spool.shelf.secret, partitions)
    hello = Hello(protocol=(1, 1), cluster="", node=me, incarnation=0, folder=me)
    return Brief(Loopback(hello, lambda asked: SpoolStream(raw, asked, home, clock), clock), clock)
