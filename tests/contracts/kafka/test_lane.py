"""The Kafka lane over a real broker: a home's frames, an owner that takes, dies, and begins elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from headwater.event.position import ZERO, Position, WriterId
from headwater.lane.kafka import frame as frames
from headwater.lane.kafka.frame import Block
from headwater.lane.kafka.happenings import KafkaLaneBaseline
from headwater.lane.kafka.lane import Cursor, LaneHome, LaneSink
from tests.contracts.kafka.group import Told, member, producer, until
from tests.contracts.kafka.test_k7_k8_k9 import trim
from tests.rigs.kafka import Kafka

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]
WRITER, OTHER = WriterId(0xA10001), WriterId(0xA10002)


class Mirror:
    """Keeps what it is given, and knows what it was told."""

    def __init__(self, vector: Mapping[WriterId, Position] | None = None, offset: int | None = None) -> None:
        self.had = dict(vector or {})
        self.from_offset = offset
        self.blocks: dict[WriterId, list[int]] = {}
        self.at: dict[WriterId, Position] = {}
        self.asked: list[tuple[int, int, WriterId, Position]] = []

    def vector(self, partition: int) -> Mapping[WriterId, Position]:
        return self.had

    def offset(self, partition: int) -> int | None:
        return self.from_offset

    def append(self, partition: int, writer: WriterId, block: Block) -> None:
        assert block.payload == b"x" * 1_000
        self.blocks.setdefault(writer, []).append(block.first_seq)

    def reached(self, partition: int, home: int, writer: WriterId, to: Position, cut: bytes) -> None:
        assert (home, cut) == (7, b"T%d" % to.seq)
        self.at[writer] = to

    async def ask(self, partition: int, home: int, writer: WriterId, mine: Position) -> None:
        self.asked.append((partition, home, writer, mine))


async def take(kafka: Kafka, topic: str, mirror: Mirror, until_at: Mapping[WriterId, Position]) -> Told:
    told = Told()
    async with member(kafka.servers, LaneSink(mirror, told.emit), topic):
        await until(lambda: mirror.at == dict(until_at) or mirror.asked)
    return told


async def produce(kafka: Kafka, topic: str, writer: WriterId, seqs: range, begin: int = 0) -> None:
    """Cuts of two blocks of ten events each."""
    async with producer(kafka.servers, event_bytes_max=frames.FRAME_BYTES_MAX) as sending:
        home = LaneHome(sending, topic, 7, Cursor(1, {writer: Position(1, begin)} if begin else None))
        for seq in seqs:
            blocks = [Block(first, 10, b"h", b"x" * 1_000) for first in (seq, seq + 10)]
            await home.send(0, writer, Position(1, seq + 20), blocks, b"T%d" % (seq + 20))
        assert home.cursor.at(writer) == Position(1, seqs.stop)


async def test_inv_lane_1_frames_of_two_writers_and_a_home_that_begins_again_come_out_once(
    kafka: Kafka,
) -> None:
    topic = kafka.topic(config=frames.TOPIC_CONFIG)
    await produce(kafka, topic, WRITER, range(0, 200, 20))
    await produce(kafka, topic, OTHER, range(0, 60, 20))
    await produce(kafka, topic, WRITER, range(100, 300, 20), begin=100)  # an older cursor
    mirror, ends = Mirror(), {WRITER: Position(1, 300), OTHER: Position(1, 60)}
    await take(kafka, topic, mirror, ends)
    assert mirror.blocks == {WRITER: list(range(0, 300, 10)), OTHER: list(range(0, 60, 10))}
    # The next owner's mirror stands elsewhere, and knows an offset: it goes on from there, whatever the group says.
    other = Mirror({WRITER: Position(1, 80)}, offset=4)
    await take(kafka, topic, other, ends)
    assert other.blocks == {WRITER: list(range(80, 300, 10)), OTHER: list(range(0, 60, 10))}


async def test_a_gap_is_first_looked_for_in_the_topic_and_then_asked_of_the_home(kafka: Kafka) -> None:
    topic = kafka.topic(config=frames.TOPIC_CONFIG)
    await produce(kafka, topic, WRITER, range(0, 200, 20))
    found = Mirror({WRITER: Position(1, 40)}, offset=5)  # the offset is too far
    await take(kafka, topic, found, {WRITER: Position(1, 200)})
    assert (found.blocks[WRITER], found.asked) == (list(range(40, 200, 10)), [])
    trim(kafka, topic, 4)
    lost = Mirror({WRITER: Position(1, 40)})
    await take(kafka, topic, lost, {WRITER: Position(1, 200)})
    assert lost.asked == [(0, 7, WRITER, Position(1, 40))]
    assert lost.blocks == {}


async def test_a_writer_that_the_topic_forgot_the_beginning_of_is_taken_from_there_and_told(
    kafka: Kafka,
) -> None:
    topic = kafka.topic(config=frames.TOPIC_CONFIG)
    await produce(kafka, topic, WRITER, range(0, 200, 20))
    trim(kafka, topic, 4)
    mirror = Mirror()
    told = await take(kafka, topic, mirror, {WRITER: Position(1, 200)})
    assert mirror.blocks == {WRITER: list(range(80, 200, 10))}
    assert told.of(KafkaLaneBaseline) == [KafkaLaneBaseline(0, f"{WRITER:016x}", "0.0", "1.80")]
    assert ZERO not in mirror.at.values()
