"""The spool has what came, claims nothing that did not, and gives it to mirrors as the home would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater.event.position import EMPTY, ZERO, Position, Vector, WriterId, writer_id
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Busy, Rejected, Unavailable
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.threads import inline
from headwater.lane import wire
from headwater.lane.home import RawLog, Stream
from headwater.lane.kafka.record import Record, Writing, decode, key_of
from headwater.lane.kafka.spool import Spool, SpoolHome, SpoolStream
from headwater.log.block import Secret
from tests.unit.lane.raw import gathered
from tests.unit.lane.world import HOME, PARTITIONS, HomeNode, OwnerNode, follow

NODE = f"{HOME:016x}"
FIRST, SECOND = (WriterId(writer_id(HOME, worker)) for worker in range(2))
ONE = [("single", 1, 0)]
KEY = key_of(b"secret", "main")
BODY_BYTES = 700
"""A record; some blocks go over two of them."""
SECRET = Secret(77)


class Topic:
    """What a home puts into it, turn by turn; a list keeps its order as a partition does."""

    def __init__(self, home: HomeNode) -> None:
        self.home = home
        self.session = 0
        self.records: list[Record] = []
        self.begin()

    def begin(self, at: Vector = EMPTY) -> None:
        """The home produces from a cursor on."""
        self.session += 1
        asked = wire.Open(
            stream="kafka",
            partitions=list(range(PARTITIONS)),
            origin=at.encode(),
            credit=1 << 40,
        )
        raw = RawLog(self.home.disk, self.home.raw, self.home.secret, PARTITIONS)
        self.stream = Stream(raw, asked, self.home.now, body_bytes=BODY_BYTES)
        self.writing = Writing(HOME, self.session, KEY, at)

    def turn(self) -> list[Record]:
        """What the home has now."""
        self.home.pass_time(2_000_000_000)
        fresh = [decode(one, KEY) for one in self.writing.records(self.stream.turn())]
        self.records += fresh
        return fresh


class Reading:
    """The spool of another node."""

    def __init__(self, path: Path, bytes_max: int = 1 << 30) -> None:
        self.path, self.bytes_max = path, bytes_max
        self.disk, self.clock = SystemDisk(), SimClock(Time())
        self.disk.mkdir(str(path))
        self.restart()

    def restart(self) -> None:
        """The process begins again."""
        self.spool = Spool(
            self.disk, f"{self.path}/kafka", "topic", secret=SECRET, clock=self.clock, report=lambda *told: None,
            bytes_max=self.bytes_max, thread=lambda name: inline, segment_bytes=4 * 4096,
        )  # fmt: skip

    @property
    def home(self) -> SpoolHome:
        return self.spool.home(NODE)

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            self.home.accept(record)
        self.home.flush()

    def stream(self, origin: Vector = EMPTY, partitions: Sequence[int] = range(PARTITIONS)) -> SpoolStream:
        """For a mirror that stands there."""
        asked = wire.Open(stream="main", partitions=list(partitions), origin=origin.encode(), credit=1 << 40)
        return SpoolStream(
            RawLog(self.disk, f"{self.path}/kafka", SECRET, PARTITIONS), asked, self.home, self.clock
        )

    def begins(self, writer: WriterId = FIRST) -> Position:
        return self.home.log(writer).begins


@pytest.fixture
def home(tmp_path: Path) -> HomeNode:
    return HomeNode(tmp_path / "home")


@pytest.fixture
def topic(home: HomeNode) -> Topic:
    return Topic(home)


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    return Reading(tmp_path / "reading")


def write(home: HomeNode, count: int, worker: int = 0, body_bytes: int = 300) -> None:
    for _ in range(count):
        home.write(worker, ONE, body_bytes)


def mirrored(tmp_path: Path, reading: Reading, home: HomeNode, name: str = "owner") -> list[Any]:
    """What an owner's mirror has of the home by the spool."""
    owner = OwnerNode(tmp_path / name, range(PARTITIONS))
    stream = reading.stream()
    for _ in range(3):
        reading.clock.time.advance_ns(2_000_000_000)
        owner.take(stream.turn())
    blocks, _ = follow(owner.disk, owner.raw, owner.secret, home.now(), EMPTY, mirror=owner.folder)
    return gathered(blocks)


def own(home: HomeNode) -> list[Any]:
    blocks, _ = follow(home.disk, home.raw, home.secret, home.now(), EMPTY)
    return gathered(blocks)


def test_a_mirror_of_the_spool_has_what_the_home_wrote(
    topic: Topic, reading: Reading, home: HomeNode, tmp_path: Path
) -> None:
    write(home, 5)
    write(home, 3, worker=1)
    reading.take(topic.turn())
    home.restart_worker(0)
    write(home, 4, body_bytes=2000)
    reading.take(topic.turn())
    assert any(record.skip for record in topic.records), "a block went over several records"
    assert mirrored(tmp_path, reading, home) == own(home)
    assert len(own(home)) == 12


def test_inv_lane_1_what_comes_again_is_dropped_by_its_position(
    topic: Topic, reading: Reading, home: HomeNode, tmp_path: Path
) -> None:
    write(home, 5)
    reading.take(topic.turn())
    home.restart_worker(0)
    write(home, 2)
    reading.take(topic.turn())
    topic.begin()  # the home lost its cursor
    write(home, 2, body_bytes=1500)
    reading.take(topic.turn())
    reading.restart()  # and the reader its offset
    reading.take(topic.records)
    assert (reading.begins(), reading.home.at[FIRST]) == (ZERO, home.ends()[FIRST])
    assert mirrored(tmp_path, reading, home) == own(home)


@pytest.mark.parametrize("missing", range(12))
def test_inv_lane_1_a_record_that_is_missing_is_a_gap_that_is_known_and_what_follows_is_there(
    topic: Topic, reading: Reading, home: HomeNode, missing: int
) -> None:
    write(home, 12, body_bytes=900)
    topic.turn()
    assert len(topic.records) > 13
    reading.take(topic.records[:missing] + topic.records[missing + 1 :])
    topic.turn()
    reading.take(topic.records[-1:])
    assert ZERO < reading.begins() <= reading.home.at[FIRST] == home.ends()[FIRST]
    assert not reading.home.covers(lambda writer: ZERO)
    assert reading.home.covers(reading.begins)
    with pytest.raises(Unavailable, match="lacks"):
        reading.stream().turn()


def test_a_gap_before_nothing_more_is_known_too(topic: Topic, reading: Reading, home: HomeNode) -> None:
    write(home, 3)
    topic.turn()
    reading.take(topic.turn())  # an empty cut: where the home stands
    assert reading.begins() == home.ends()[FIRST] and any(reading.home.whole)
    assert not reading.home.covers(lambda writer: ZERO)


def test_a_log_that_is_missing_between_two_is_a_gap(topic: Topic, reading: Reading, home: HomeNode) -> None:
    write(home, 2)
    home.restart_worker(0)
    reading.take(topic.turn())
    write(home, 2)
    home.restart_worker(0)
    topic.turn()
    write(home, 2)
    reading.take(topic.turn())
    assert reading.begins() > Position(2, 0)
    assert not reading.home.covers(lambda writer: Position(1, 2))


def test_inv_ord_1_a_gap_of_one_writer_stops_the_stream_before_a_later_cut_of_another(
    topic: Topic, reading: Reading, home: HomeNode
) -> None:
    write(home, 2)
    write(home, 2, worker=1)
    reading.take(topic.turn())
    stream = reading.stream()
    stream.turn()
    write(home, 2)
    topic.turn()  # lost
    write(home, 2, worker=1)
    reading.take(topic.turn())
    with pytest.raises(Unavailable, match="lacks"):
        stream.turn()


def test_a_restart_finds_what_was_durable_with_its_moment(
    topic: Topic, reading: Reading, home: HomeNode, tmp_path: Path
) -> None:
    write(home, 5)
    reading.take(topic.turn())
    reading.spool.offsets[0] = 17
    reading.spool.note()
    whole = reading.home.whole
    reading.restart()
    assert (reading.spool.offsets, reading.home.whole) == ({0: 17}, whole)
    assert mirrored(tmp_path, reading, home) == own(home)


@pytest.mark.parametrize("spoilt", [b"", b"\x93", b"garbage"])
def test_a_note_that_cannot_be_read_is_none(reading: Reading, spoilt: bytes) -> None:
    reading.spool.offsets[0] = 17
    reading.spool.note()
    Path(reading.spool.path).write_bytes(spoilt)
    reading.restart()
    assert reading.spool.offsets == {}


def test_without_room_a_record_waits_and_comes_again_whole(
    topic: Topic, home: HomeNode, tmp_path: Path
) -> None:
    reading = Reading(tmp_path / "reading", bytes_max=2 * 4 * 4096)
    write(home, 12, body_bytes=900)
    topic.turn()
    taken = 0
    with pytest.raises(Busy):
        for record in topic.records:
            reading.home.accept(record)
            taken += 1
    reading.spool.bytes_max = 1 << 30
    reading.home.log(FIRST).rooms.prepare()
    reading.take(topic.records[max(0, taken - 1) :])  # also what it has already
    assert (reading.begins(), reading.home.at[FIRST]) == (ZERO, home.ends()[FIRST])
    assert mirrored(tmp_path, reading, home) == own(home)


def test_the_oldest_goes_where_room_is_short_and_that_is_known(
    topic: Topic, reading: Reading, home: HomeNode
) -> None:
    write(home, 40, body_bytes=900)
    reading.take(topic.turn())
    before = reading.spool.bytes
    reading.spool.bytes_max = before
    reading.spool.make_room()
    assert reading.spool.bytes < before
    assert ZERO < reading.begins() < reading.home.at[FIRST]
    assert not reading.home.covers(lambda writer: ZERO)


def test_what_no_home_says_is_refused(topic: Topic, reading: Reading, home: HomeNode) -> None:
    write(home, 1)
    (record, *_) = topic.turn()
    with pytest.raises(Rejected, match="from node"):
        reading.spool.home("0123456789ab0000").accept(record)


def test_a_cut_is_not_given_to_anybody_before_it_is_durable(
    topic: Topic, reading: Reading, home: HomeNode
) -> None:
    reading.take(topic.turn())
    whole = reading.home.whole
    write(home, 2)
    for record in topic.turn():
        reading.home.accept(record)
    assert reading.home.whole == whole
    assert reading.home.log(FIRST).cell().get() == 0
    reading.home.flush()
    assert reading.home.whole > whole
    assert reading.home.log(FIRST).cell().get() == 2
