"""The Kafka lane (protocol.md §8): a home's cuts go as frames to a topic; the owner of a partition takes them.

Home: ``Cursor`` keeps how far each partition has each writer, ``LaneHome`` sends. What is acknowledged by all
partitions is the cursor; it is soft, a restart begins from any older one, and Kafka being down is a backlog in the
home's own log.

Owner: ``Reader`` decides about each frame by INV-LANE-1: a frame that begins above what we have is not taken; of
others we take what is at or above it. So frames may come twice, overlap, or come again from an older cursor, and
each block is handed to ``append`` once, in order. ``LaneSink`` puts that behind a KafkaConsumer.

A frame of an unknown writer is a baseline only where the topic was read from its first event: there is nothing
before it. Any other gap sends the reader back to the first event once, and then asks the home to produce again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.errors import Broken
from headwater.kit.happenings import Happening
from headwater.lane.kafka import frame as frames
from headwater.lane.kafka.frame import Block, Frame
from headwater.lane.kafka.happenings import KafkaLaneBaseline
from headwater.lane.kafka.sink import Advance, Answer, Event, Revert, Sink

# -- home --------------------------------------------------------------------------------------------------------------


class Cursor:
    """Per partition and writer: what was sent, what is acknowledged. Pure.

    Acknowledges may come in any order; what counts is everything up to the first that is missing.
    """

    def __init__(self, partitions: int, begin: Mapping[WriterId, Position] | None = None) -> None:
        """``begin``: a cursor of before, or older."""
        self.partitions = partitions
        self.begin = dict(begin or {})
        self.sent_to: dict[tuple[int, WriterId], Position] = {}
        self.acked: dict[tuple[int, WriterId], Position] = {}
        self.waiting: dict[tuple[int, WriterId], deque[tuple[Position, list[bool]]]] = {}

    def next(self, partition: int, writer: WriterId) -> Position:
        """Where the next frame of this partition begins."""
        return self.sent_to.get((partition, writer), self.begin.get(writer, ZERO))

    def send(self, partition: int, writer: WriterId, to: Position) -> Callable[[], None]:
        """A frame up to ``to`` goes out; what to call when it is acknowledged."""
        place = partition, writer
        if to < self.next(partition, writer):
            raise Broken(
                f"a frame up to {to} after one up to {self.next(partition, writer)}", code="lane_order"
            )
        waiting = self.waiting.setdefault(place, deque())
        done = [False]
        waiting.append((to, done))
        self.sent_to[place] = to

        def acknowledge() -> None:
            done[0] = True
            while waiting and waiting[0][1][0]:
                upto, _ = waiting.popleft()
                if self.waiting.get(place) is waiting:
                    self.acked[place] = upto

        return acknowledge

    def at(self, writer: WriterId) -> Position:
        """The least that all partitions have acknowledged: a restart may begin here."""
        begin = self.begin.get(writer, ZERO)
        return min(self.acked.get((partition, writer), begin) for partition in range(self.partitions))

    def behind(self, writer: WriterId, to: Position) -> list[int]:
        """Partitions that were not told that there is nothing for them up to ``to``."""
        return [partition for partition in range(self.partitions) if self.next(partition, writer) < to]

    def back(self, partition: int, writer: WriterId, to: Position) -> None:
        """Send this partition again from ``to`` on: its reader asked, or a frame failed."""
        place = partition, writer
        self.sent_to[place] = to
        self.acked[place] = min(to, self.acked.get(place, self.begin.get(writer, ZERO)))
        self.waiting[place] = deque()


class Send(Protocol):
    """What a KafkaProducer does."""

    async def send_many(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes]], *, partition: int
    ) -> None: ...


class LaneHome:
    """Sends the cuts of one node."""

    def __init__(self, producer: Send, topic: str, home: int, cursor: Cursor) -> None:
        self.producer = producer
        self.topic = topic
        self.home = home
        self.cursor = cursor

    async def send(
        self, partition: int, writer: WriterId, to: Position, blocks: Sequence[Block], cut: bytes = b""
    ) -> None:
        """What is new of a writer for a partition, up to ``to``; on return Kafka has it. Call it in order; several may
        be on their way.

        Unavailable: Kafka does not take it. The partition is then sent again from what was acknowledged: the caller
        reads its log from ``cursor.next``.
        """
        begin = self.cursor.next(partition, writer)
        pieces = list(frames.frames(self.home, writer, begin, to, blocks, cut))
        acknowledge = self.cursor.send(partition, writer, to)
        key = partition.to_bytes(2, "big")
        try:
            await self.producer.send_many(
                self.topic, [(key, frames.encode(piece)) for piece in pieces], partition=partition
            )
        except BaseException:
            self.cursor.back(
                partition, writer, self.cursor.acked.get((partition, writer), self.start(writer))
            )
            raise
        acknowledge()

    def start(self, writer: WriterId) -> Position:
        return self.cursor.begin.get(writer, ZERO)


# -- owner -------------------------------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """These blocks are new."""

    blocks: Sequence[Block]
    skipped: tuple[Position, Position] | None = None
    """What the topic does not hold any more, where the frame is a baseline."""


class Gap(NamedTuple):
    """The frame begins above what we have of its writer."""

    mine: Position
    begin: Position


class Reader:
    """What one Kafka partition has of each writer. Pure."""

    def __init__(self, vector: Mapping[WriterId, Position], *, from_start: bool) -> None:
        """``vector``: what is there already. ``from_start``: the topic is read from its first event on."""
        self.vector = dict(vector)
        self.from_start = from_start

    def apply(self, frame: Frame) -> Taken | Gap:
        """INV-LANE-1 for one frame; what is taken is ours from now on. Broken: a block would be taken in part."""
        mine = self.vector.get(frame.writer, ZERO)
        skipped = None
        if frame.begin > mine:
            if mine != ZERO or not self.from_start:
                return Gap(mine, frame.begin)
            mine, skipped = frame.begin, (mine, frame.begin)
        if frame.to <= mine:
            return Taken((), skipped)
        first = mine.seq if mine.log == frame.to.log else 0
        for block in frame.blocks:
            if block.first_seq < first < block.first_seq + block.events:
                raise Broken(
                    f"writer {frame.writer:016x} is known up to {first}, inside the block from {block.first_seq}",
                    code="lane_block",
                )
        self.vector[frame.writer] = frame.to
        return Taken([block for block in frame.blocks if block.first_seq >= first], skipped)


class Mirror(Protocol):
    """What the owner does with what it takes, and what it knows."""

    def vector(self, partition: int) -> Mapping[WriterId, Position]:
        """What is there of each writer for this partition."""
        ...

    def offset(self, partition: int) -> int | None:
        """Where to begin in the topic: the least offset of the destinations' positions; None: nothing is known."""
        ...

    def append(self, partition: int, writer: WriterId, block: Block) -> None:
        """The next block of a writer."""
        ...

    def reached(self, partition: int, home: int, writer: WriterId, to: Position, cut: bytes) -> None:
        """Everything of the writer up to ``to`` was appended; ``cut`` as in the frame."""
        ...

    async def ask(self, partition: int, home: int, writer: WriterId, mine: Position) -> None:
        """Let the home produce again from ``mine``."""
        ...


class LaneSink(Sink):
    """Frames of the topic to the mirror. An offset is done when the mirror has its blocks; what must be read again
    after a crash, the mirror's ``offset`` says."""

    def __init__(self, mirror: Mirror, emit: Callable[[Happening], None]) -> None:
        self.mirror = mirror
        self.emit = emit
        self.readers: dict[int, Reader] = {}
        self.firsts: dict[int, int] = {}
        self.asked: dict[tuple[int, WriterId], Position] = {}

    async def on_assign(self, topic: str, partition: int, first: int) -> int | None:
        begin = self.mirror.offset(partition)
        offset = first if begin is None else begin
        self.firsts[partition] = first
        self.readers[partition] = Reader(self.mirror.vector(partition), from_start=offset <= first)
        return offset

    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        reader = self.readers[partition]
        for event in events:
            frame = frames.decode(event.value)
            result = reader.apply(frame)
            if isinstance(result, Taken):
                self.take(partition, frame, result)
            elif not reader.from_start:
                reader.from_start = True
                return Revert(self.firsts[partition])
            elif self.asked.get((partition, frame.writer)) != result.mine:
                self.asked[partition, frame.writer] = result.mine
                await self.mirror.ask(partition, frame.home, frame.writer, result.mine)
        return Advance()

    def take(self, partition: int, frame: Frame, taken: Taken) -> None:
        if taken.skipped is not None:
            begin, end = (f"{at.log:x}.{at.seq}" for at in taken.skipped)
            self.emit(KafkaLaneBaseline(partition, f"{frame.writer:016x}", begin, end))
        for block in taken.blocks:
            self.mirror.append(partition, frame.writer, block)
        self.mirror.reached(partition, frame.home, frame.writer, frame.to, frame.cut)

    async def on_lost(self, topic: str, partition: int) -> None:
        self.readers.pop(partition, None)

    async def on_revoke(self, topic: str, partition: int, deadline_s: float) -> Answer | None:
        self.readers.pop(partition, None)
        return None
