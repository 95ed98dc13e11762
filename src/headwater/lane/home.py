"""The home side: sends the node's own raw log to the owners of its events, as far as they let it.

Each stream reads its own cuts (log/cut: the time first, then the watermarks) from where its owner says that it stands;
the home keeps nothing durable about anybody. A stream without anything new sends an empty cut once a second, so that
the owner's time moves on. What a stream may send is bounded by the credit that its owner grants, and checked before a
cut: a cut that has begun is sent whole, so it never stops where no reader could go on. The streams of a connection
take turns, a cut each. Reading, blanking and hashing are done in threads.

Measured with three owners, each a third of 1 KiB events, on two cores with other work (benchmarks/mirror.py), CPU per
event: in blocks of 16, 21 µs here and 3 µs at each owner; in blocks of 600, 3.5 µs and 1 µs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from headwater.event.position import Position, WriterId
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Rejected, Unavailable
from headwater.kit.tasks import Group, Report
from headwater.lane import wire
from headwater.lane.blank import Blanked, blank, unwanted
from headwater.lane.wire import BlockHead, Connection, Gap, Moment, Outgoing, Packer
from headwater.log import cut, files
from headwater.log.block import Secret
from headwater.log.read import Block, LogReader
from headwater.peer.frames import Frame, Kind

CUT_BYTES = 2 * 1024 * 1024
"""Read of the log for one cut; a stream's turn is that long."""
FULL_BYTES = CUT_BYTES // 4
"""A cut with more than this has more behind it; after a smaller one its stream waits, so that the next is worth it."""
POLL_S = 0.02
EMPTY_S = 1.0
STREAMS_MAX = 64
"""On one connection."""

Now = Callable[[], Moment]
MakeStream = Callable[[wire.Open], "Stream"]


@dataclass(frozen=True, slots=True)
class RawLog:
    """The raw log of this node."""

    disk: Disk
    path: str
    secret: Secret
    partitions: int


class Stream:
    """One stream of one owner. ``turn`` runs in a thread; ``close`` waits for it."""

    def __init__(
        self,
        raw: RawLog,
        asked: wire.Open,
        now: Now,
        cut_bytes: int = CUT_BYTES,
        body_bytes: int = 0,
    ) -> None:
        """``now``: the T of a cut, asked before the watermarks are read; ``body_bytes``: as of a Packer."""
        self.raw = raw
        self.cut_bytes = cut_bytes
        self.body_bytes = body_bytes
        self.name = asked.stream
        self.now = now
        self.origin = asked.origin_vector
        self.until = asked.until_vector
        self.unwanted = unwanted(asked.partitions, raw.partitions)
        self.credit = asked.credit
        self.readers: dict[WriterId, LogReader] = {}
        self.stands: dict[WriterId, Position] = {}
        """Behind what was sent."""
        self.ended: dict[WriterId, int] = {}
        """The last log whose end was told."""
        self.sent_ns = 0
        self.full = False
        """The last cut was large: there is more."""
        self.short = False
        """The last cut ended at an earlier time than its own: that all up to now was sent is still to be said."""
        self.lock = threading.Lock()
        self.closed = False

    def turn(self) -> list[Outgoing]:
        """The frames of the next cut; none while there is nothing to say."""
        with self.lock:
            if self.closed:
                return []
            return self._turn()

    def _turn(self) -> list[Outgoing]:
        now = self.now()  # before the watermarks are read: INV-ORD-1 stands on this order
        late = self.boot_ns(now) - self.sent_ns >= EMPTY_S * 1e9
        if self.credit <= 0:
            self.full = False
            return self.sending([wire.alive(self.name)], now) if late else []
        self.discover()
        found = cut.take(self.readers, self.origin, now[:2], now.node_time_ns, self.cut_bytes)
        blocks = found.blocks if found is not None else []
        packer = Packer(self.name, self.body_bytes)
        for block in blocks:
            self.add(packer, block)
        for writer in self.readers:
            self.tell_end(packer, writer)
        self.full = sum(block.header.disk_bytes for block in blocks) >= FULL_BYTES
        if not (blocks or packer.frames or late or self.short):
            return []
        self.short = found is not None and found.bound != now[:2]
        packer.flush(lowered(found.bound, blocks) if found is not None and self.short else now)
        return self.sending(packer.frames, now)

    def discover(self) -> None:
        """Find the writers."""
        raw = self.raw
        cut.discover(raw.disk, raw.path, self.readers, self.origin, self.until, secret=raw.secret)

    def boot_ns(self, now: Moment) -> int:
        """By which time it is known how long nothing was sent."""
        return now.boot_ns

    def sending(self, frames: list[Outgoing], now: Moment) -> list[Outgoing]:
        """Frames that will be sent."""
        self.sent_ns = self.boot_ns(now)
        self.credit -= sum(len(frame.body) for frame in frames)
        return frames

    def add(self, packer: Packer, block: Block) -> None:
        """A block, behind the end of the log before it."""
        header, writer = block.header, block.writer
        before = self.stands.get(writer, self.origin[writer])
        if before.log not in (0, header.log_id):
            self.tell_end(packer, writer, passed=True)
        self.stands[writer] = block.after
        if block.payload is None:
            left, gap = Blanked((), 0), self.why_missing(block)
        else:
            left, gap = blank(block.payload, self.unwanted), Gap.NONE
        head = BlockHead(
            int(writer),
            header.log_id,
            header.first_seq,
            header.events,
            left.records,
            header.start,
            header.boot_ns,
            header.node_time_ns,
            sum(map(len, left.parts)),
            gap,
        )
        packer.add(head, left.parts)

    def tell_end(self, packer: Packer, writer: WriterId, *, passed: bool = False) -> None:
        """Say where the log in which a writer's stream stands has ended, once all of it was sent. One that was
        ``passed`` has, whatever its files say: those of old logs may be gone."""
        at = self.stands.get(writer, self.origin[writer])
        if not at.log or self.ended.get(writer) == at.log:
            return
        end = files.read_end(self.raw.disk, self.folder(writer), at.log)
        if passed or (end is not None and end.seq <= at.seq):
            self.ended[writer] = at.log
            packer.end_log(wire.Ended(stream=self.name, writer=int(writer), log=at.log, seq=at.seq))

    def why_missing(self, block: Block) -> Gap:
        """Whether retention gave the stretch back: it goes from the oldest on."""
        log, behind = block.header.log_id, block.header.next_seq
        held = [s.first for s in files.segments(self.raw.disk, self.folder(block.writer)) if s.log == log]
        return Gap.DAMAGED if held and held[0] < behind else Gap.GIVEN_BACK

    def folder(self, writer: WriterId) -> str:
        """Of a writer's logs."""
        return f"{self.raw.path}/{writer:016x}"

    def close(self) -> None:
        """Release the files; waits for a turn that has begun."""
        with self.lock:
            self.closed = True
            for reader in self.readers.values():
                reader.close()


def lowered(bound: tuple[int, int], blocks: list[Block]) -> Moment:
    """The T of a cut that a backlog has cut short."""
    times = [block.header.node_time_ns for block in blocks if block.payload is not None]
    return Moment(*bound, max(times, default=0))


class Home:
    """Serves the connections of owners."""

    def __init__(
        self, raw: RawLog, now: Now, clock: Clock, report: Report, copies: MakeStream | None = None
    ) -> None:
        """``copies``: a stream of the copies that this node has of another home; Rejected where it gives none."""
        self.raw = raw
        self.now = now
        self.copies = copies
        self.clock = clock
        self.report = report
        self.sent_bytes = 0

    async def serve(self, connection: Connection, opened: Frame) -> None:
        """From its first frame on, until the connection ends on either side. Rejected: the owner asks for what cannot
        be."""
        streams: dict[str, Stream] = {}
        frame: Frame | None = opened
        try:
            async with Group("lane home", self.report) as group:
                group.start(f"send to {connection.peer.node}", self.send_forever(connection, streams))
                while frame is not None:
                    self.take(streams, frame)
                    frame = await connection.receive()
        except OSError:
            pass  # our own files cannot be read: it was reported, and the owner tries again
        finally:
            for stream in streams.values():
                stream.close()

    def take(self, streams: dict[str, Stream], frame: Frame) -> None:
        """One frame of an owner."""
        if frame.kind == Kind.OPEN:
            asked = wire.message(frame, wire.Open)
            if len(streams) >= STREAMS_MAX and asked.stream not in streams:
                raise Rejected(f"more than {STREAMS_MAX} streams on one connection", code="too_many_streams")
            if max(asked.partitions, default=0) >= self.raw.partitions:
                raise Rejected(
                    f"partition {max(asked.partitions)}, where there are {self.raw.partitions}",
                    code="lane_format",
                )
            former, streams[asked.stream] = streams.get(asked.stream), self.make(asked)
            if former is not None:
                former.close()
        elif frame.kind == Kind.CREDIT:
            credit = wire.message(frame, wire.Credit)
            if credit.stream in streams:
                streams[credit.stream].credit += credit.bytes
        elif frame.kind == Kind.CLOSE:
            stream = streams.pop(wire.message(frame, wire.Close).stream, None)
            if stream is not None:
                stream.close()

    def make(self, asked: wire.Open) -> Stream:
        """The stream that is asked for. Rejected: there are no copies of that home to be had here."""
        if not asked.home:
            return Stream(self.raw, asked, self.now)
        if self.copies is None:
            raise Rejected("this node keeps no copies", code="no_copies")
        return self.copies(asked)

    async def send_forever(self, connection: Connection, streams: dict[str, Stream]) -> None:
        """Turn by turn, while the connection stands."""
        while True:
            more = False
            for stream in list(streams.values()):
                for kind, header, body in await asyncio.to_thread(stream.turn):
                    try:
                        await connection.send(kind, header, body)
                    except Unavailable:  # it has ended; the reading side sees that too
                        return
                    self.sent_bytes += len(body)
                more |= stream.full
            if not more:
                await self.clock.sleep(POLL_S)
