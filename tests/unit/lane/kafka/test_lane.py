"""The home's cursor moves only over what Kafka has; a mirror follows Kafka while that has what it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headwater.event.position import EMPTY, ZERO, Position, WriterId, writer_id
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Unavailable
from headwater.kit.happenings import Happening
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.threads import inline
from headwater.lane.home import RawLog
from headwater.lane.kafka.happenings import KafkaLaneGoesOn, KafkaLaneWaits
from headwater.lane.kafka.home import WAITS_S, KafkaHome
from headwater.lane.kafka.lane import SPEAKS_S, KafkaLane
from headwater.lane.kafka.record import decode, key_of
from headwater.lane.kafka.settings import KafkaSettings
from headwater.lane.kafka.spool import Brief, Spool
from headwater.lane.wire import Moment
from headwater.log.block import Secret
from tests.unit.lane.world import HOME, OWNER, PARTITIONS, HomeNode

KEY = key_of(b"secret", "main")
NODE, ME = f"{HOME:016x}", f"{OWNER:016x}"
FIRST = WriterId(writer_id(HOME, 0))
SECOND_NS = 10**9


class Broker:
    """Takes records while it is there."""

    def __init__(self) -> None:
        self.there = True
        self.values: list[bytes] = []
        self.came = asyncio.Event()

    async def send_many(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes]], *, partition: int = -1
    ) -> None:
        if not self.there:
            raise Unavailable("away", code="kafka_away")
        assert {key for key, _ in records} == {HOME.to_bytes(8, "big")}
        self.values += [value for _, value in records]
        self.came.set()

    @property
    def begins(self) -> list[Position]:
        """Where each session began."""
        told = [decode(value, KEY) for value in self.values]
        return [one.begins.get(FIRST, ZERO) for one in told if one.number == 1]


class Producing:
    """A home that produces, on a clock that is moved by hand."""

    def __init__(self, path: Path) -> None:
        self.node = HomeNode(path / "home")
        self.node.disk.mkdir(f"{path}/kafka")
        self.path = f"{path}/kafka/cursor"
        self.told: list[Happening] = []
        self.restart()

    def restart(self) -> None:
        """The process begins again."""
        raw = RawLog(self.node.disk, self.node.raw, self.node.secret, PARTITIONS)
        self.home = KafkaHome(
            raw, self.node.now, self.node.clock, self.told.append, home=HOME, topic="t", key=KEY, path=self.path
        )  # fmt: skip

    async def run(self, broker: Broker) -> None:
        """Until all there is was sent, or Kafka does not take it."""
        self.node.pass_time(2 * SECOND_NS)
        broker.came.clear()
        loop = asyncio.get_running_loop()
        task, came = loop.create_task(self.home.produce(broker)), loop.create_task(broker.came.wait())
        await asyncio.wait([task, came], return_when=asyncio.FIRST_COMPLETED)
        came.cancel()
        if task.done():
            task.result()
        task.cancel()
        await asyncio.wait([task])

    def spoil(self, cursor: bytes | None) -> None:
        """Something happened to the file of the cursor."""
        Path(self.path).unlink()
        if cursor is not None:
            Path(self.path).write_bytes(cursor)


@pytest.fixture
def producing(tmp_path: Path) -> Producing:
    return Producing(tmp_path)


async def test_a_restart_goes_on_from_what_kafka_has(producing: Producing) -> None:
    broker = Broker()
    for _ in range(3):
        producing.node.write(0, [("single", 1, 0)])
    await producing.run(broker)
    assert producing.home.cursor[FIRST] == Position(1, 3)
    broker.there = False
    producing.node.write(0, [("single", 1, 0)])
    with pytest.raises(Unavailable):
        await producing.run(broker)
    assert producing.home.cursor[FIRST] == Position(1, 3), "Kafka does not have it"
    broker.there = True
    producing.restart()
    await producing.run(broker)
    assert broker.begins == [ZERO, Position(1, 3)]
    assert producing.home.cursor[FIRST] == Position(1, 4)


@pytest.mark.parametrize("spoilt", [None, b"", b"nonsense"])
async def test_without_a_cursor_everything_is_sent_again(producing: Producing, spoilt: bytes | None) -> None:
    broker = Broker()
    producing.node.write(0, [("single", 1, 0)])
    await producing.run(broker)
    producing.home.note()
    producing.spoil(spoilt)
    producing.restart()
    assert producing.home.cursor == EMPTY
    await producing.run(broker)
    assert broker.begins == [ZERO, ZERO]


def test_that_kafka_takes_nothing_is_told_once_and_that_it_is_over(producing: Producing) -> None:
    home, clock = producing.home, producing.node
    home.since_ns = clock.clock.boot_ns()
    home.look()
    assert (home.says, producing.told) == ("", [])
    clock.pass_time(int((WAITS_S + 1) * SECOND_NS))
    home.look()
    home.look()
    assert "Kafka takes no events since 6 s" in home.says
    assert [type(one) for one in producing.told] == [KafkaLaneWaits]
    home.taken({})
    home.look()
    assert (home.says, home.waiting_s) == ("", 0)
    assert [type(one) for one in producing.told] == [KafkaLaneWaits, KafkaLaneGoesOn]


class Following:
    """A node that decides whom its mirrors of the home follow."""

    def __init__(self, path: Path) -> None:
        disk, self.time = SystemDisk(), Time()
        self.clock = clock = SimClock(self.time)
        disk.mkdir(f"{path}/raw")
        self.spool = Spool(
            disk, f"{path}/kafka", "t", secret=Secret(1), clock=clock, report=lambda *told: None,
            bytes_max=1 << 30, thread=lambda name: inline, segment_bytes=4 * 4096,
        )  # fmt: skip
        raw = RawLog(disk, f"{path}/raw", Secret(1), PARTITIONS)
        home = KafkaHome(
            raw, lambda: Moment(1, 1, 1), clock, lambda one: None, home=OWNER, topic="t", key=KEY, path=f"{path}/c"
        )  # fmt: skip
        self.is_away = False
        self.lane = KafkaLane(
            home, self.spool, KafkaSettings(servers="nobody:1"), me=ME, group="g", partitions=1, replication=0,
            away=lambda node: self.is_away, direct=self.direct, clock=clock, rng=None,  # type: ignore[arg-type]
            happenings=None,  # type: ignore[arg-type]
        )  # fmt: skip

    async def direct(self, home: str, stands: object) -> tuple[str, Any]:
        if self.is_away:
            raise Unavailable("away, and no copies", code="no_copies")
        return home, None

    def hear(self, begins: Position, at: Position) -> None:
        """The home has spoken through Kafka, and so much of it is here."""
        spooled = self.spool.home(NODE)
        log = spooled.log(FIRST)
        log.begin_stretch(begins)
        log.at = at
        spooled.whole = Moment(1, 1, 1)
        spooled.heard_ns = self.clock.boot_ns()

    def works(self) -> None:
        """Kafka has acknowledged all for long enough."""
        self.lane.home.works_ns = self.clock.boot_ns() - int((SPEAKS_S + 1) * SECOND_NS)

    async def by(self, stands: Position) -> str:
        """The way to follow the home for who stands there; `none` where there is none now."""
        self.lane.by.clear()
        try:
            _, connection = await self.lane.source(NODE, lambda writer: stands)
        except Unavailable:
            return "none"
        assert isinstance(connection, Brief), "it is asked again, after a while"
        return self.lane.by[NODE]


@pytest.fixture
def following(tmp_path: Path) -> Following:
    return Following(tmp_path)


async def test_a_home_that_speaks_through_kafka_is_followed_there_from_where_all_of_it_is(
    following: Following,
) -> None:
    following.hear(Position(1, 10), Position(1, 20))
    assert await following.by(Position(1, 10)) == "kafka"
    assert await following.by(Position(1, 25)) == "kafka", "it will come"
    assert await following.by(Position(1, 9)) == "direct"


async def test_before_kafka_works_a_home_is_waited_for_and_then_followed_itself(following: Following) -> None:
    assert await following.by(ZERO) == "none"
    following.works()
    assert await following.by(ZERO) == "direct"


async def test_a_home_that_falls_silent_is_followed_itself_only_while_kafka_works(
    following: Following,
) -> None:
    following.hear(ZERO, Position(1, 20))
    following.time.advance_ns(int((SPEAKS_S + 1) * SECOND_NS))
    assert await following.by(Position(1, 20)) == "none", "Kafka is down"
    assert await following.by(Position(1, 5)) == "kafka", "what is here is given all the same"
    following.works()
    assert await following.by(Position(1, 20)) == "direct"


async def test_a_home_that_is_away_is_followed_as_far_as_its_events_came(following: Following) -> None:
    following.hear(ZERO, Position(1, 20))
    following.is_away = True
    assert await following.by(Position(1, 5)) == "kafka"
    assert await following.by(Position(1, 20)) == "none"
    needed = {FIRST: (Position(1, 5), Position(1, 20))}
    assert following.lane.lacking(needed) == {}
    more = {FIRST: (Position(1, 5), Position(1, 21))}
    assert following.lane.lacking(more) == more
