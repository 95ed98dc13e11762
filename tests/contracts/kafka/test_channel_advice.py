"""The seed's figure: producer, slow consumers, Kafka, replayer, and the consumers again (R3 to R7, C5)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from headwater.cluster.channels.advice import AdviceSettings, Undelivered, encode, key_of
from headwater.cluster.channels.advisory import Advisory
from headwater.cluster.channels.inbound import InboundChannel, Received
from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.channels.replay import ReplaySettings
from headwater.cluster.channels.stops import Stops
from headwater.cluster.channels.topic import Directory, slot_of
from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.kit import tasks
from headwater.kit.clock import SystemClock
from headwater.kit.rng import SystemRng
from headwater.lane.kafka.advice import KafkaAdvice, SpoolSettings
from headwater.lane.kafka.happenings import KafkaDeadLetter
from headwater.lane.kafka.replay import KafkaReplayer, opened
from headwater.lane.kafka.settings import KafkaSettings
from headwater.peer import connection
from tests.contracts.kafka.group import Told, content, producer, until
from tests.rigs.kafka import Kafka
from tests.unit.peer.nodes import identity

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow, pytest.mark.timeout(120)]

NOW = ReplaySettings(healthy_s=0.2, backoff_s_max=0.1, attempts_max=3)
SLOTS = 64


class World:
    """Consumers by letter, one table, one spool."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.kafka = KafkaSettings(servers=kafka.servers)
        self.servers = kafka.servers
        self.spool = SpoolSettings(topic=topic, partitions=4)
        self.directory = Directory(1, (), {})
        self.channels: dict[str, InboundChannel] = {}
        self.addresses: dict[str, str] = {}
        self.events: dict[str, list[str]] = {}
        self.received: list[Received] = []
        self.bad: set[bytes] = set()
        self.advised: list[Advisory] = []
        self.told = Told()
        self.stack = AsyncExitStack()

    def discover(self) -> Directory:
        return self.directory

    async def consumer(self, letter: str) -> InboundChannel:
        whom, events = identity(letter), self.events.setdefault(letter, [])

        async def handle(batch: Sequence[Received]) -> None:
            assert all(self.directory.owns(whom.node, event.slot) for event in batch)
            if self.bad & {bytes(event.data) for event in batch}:
                raise ValueError("one of these is bad")
            events.extend(bytes(event.data).decode() for event in batch)
            self.received.extend(event._replace(data=memoryview(b"")) for event in batch)

        self.channels[letter] = InboundChannel("clicks", whom, self.discover, handle)
        listener = await connection.listen("127.0.0.1:0", whom, self.channels[letter].serve)
        self.stack.push_async_callback(listener.close)
        self.addresses[letter] = listener.address
        return self.channels[letter]

    def table(self, owners: str) -> None:
        nodes = {letter * 16: self.addresses[letter] for letter in owners}
        owner = tuple(owners[slot % len(owners)] * 16 for slot in range(SLOTS))
        self.directory = Directory(self.directory.epoch + 1, owner, nodes)

    @asynccontextmanager
    async def outbound(self, **more: Any) -> AsyncIterator[OutboundChannel]:
        whom = identity("p")
        async with (
            KafkaAdvice(self.spool, self.kafka, whom, happenings=self.told) as advice,
            OutboundChannel(
                "clicks", whom, self.discover, advise=self.advised.append, advice=advice, **more
            ) as out,
        ):
            yield out

    @asynccontextmanager
    async def replayer(self, letter: str = "r", **more: Any) -> AsyncIterator[KafkaReplayer]:
        one = KafkaReplayer(
            "clicks", self.spool, self.kafka, identity(letter), self.discover,
            happenings=self.told, **{"settings": NOW} | more,
        )  # fmt: skip
        async with tasks.Group("test", lambda *_: None) as group:
            task = group.start(letter, one.run())
            yield one
            one.stop()
            await asyncio.wait([task], timeout=20)
            assert task.done()

    @property
    def all(self) -> list[str]:
        return [event for events in self.events.values() for event in events]


@pytest.fixture
async def world(kafka: Kafka) -> AsyncIterator[World]:
    kafka.topics_made += 1
    one = World(kafka, f"spool.clicks-{kafka.topics_made}")
    yield one
    await one.stack.aclose()


async def send(out: OutboundChannel, first: int, count: int = 200) -> None:
    for n in range(first, first + count):
        await out.send(f"k{n % 40}", f"k{n % 40}:{n}".encode())


def in_order(events: Sequence[str]) -> bool:
    last: dict[str, int] = {}
    for event in events:
        key, _, number = event.partition(":")
        if int(number) <= last.get(key, -1):
            return False
        last[key] = int(number)
    return True


def is_live(out: OutboundChannel) -> bool:
    assert out.spooling is not None
    return not out.spooling.bars and not any(road.slowness.slow for road in out.roads.values())


def balanced(out: OutboundChannel) -> bool:
    counts = out.counts
    return counts["accepted"] == counts["delivered"] + counts["spooled"] + counts["lost"] + out.pending_events


async def test_what_a_slow_consumer_does_not_take_goes_through_kafka_and_comes_in_order(world: World) -> None:
    """R3, R4, R5: under events that never stop; live flow resumes; nothing is lost, nothing comes twice."""
    slow = await world.consumer("a")
    await world.consumer("b")
    world.table("ab")
    async with world.replayer(), world.outbound() as out:
        n = 0
        for _ in range(2):
            spooled = out.counts["spooled"]
            slow.pause()
            while out.counts["spooled"] < spooled + 500:
                await send(out, n)
                n += 200
                await asyncio.sleep(0.05)
                assert balanced(out)
            slow.resume()
            while not is_live(out):
                await send(out, n, 20)
                n += 20
                await asyncio.sleep(0.02)
        spooled = out.counts["spooled"]
        await send(out, n)
        assert await out.drain(20) == 0
        assert out.counts["spooled"] == spooled  # live flow again
        assert balanced(out)
        assert out.counts["lost"] == 0
    assert sorted(int(event.split(":")[1]) for event in world.all) == list(range(n + 200))
    assert in_order(world.events["a"])
    assert in_order(world.events["b"])
    replayed = [event for event in world.received if event.replays]
    assert {event.producer for event in replayed} == {out.producer}
    assert world.channels["a"].counts["replayed"] == len(replayed) >= 1000
    said = [(one.reason, one.action) for one in world.advised]
    assert said.count(("slow_consumer", "spooling")) == said.count(("slow_consumer", "resumed")) == 2


async def test_what_dead_producers_and_replayers_leave_goes_to_the_owners_of_today(world: World) -> None:
    """R4, R5: a producer that comes back waits behind what it left; keys of a consumer that is gone move on."""
    (await world.consumer("a")).pause()
    await world.consumer("b")
    world.table("a")
    async with world.outbound() as out:
        await send(out, 0)
        assert await out.drain(20) == 0
        assert out.counts["spooled"] == 200
    async with world.replayer():
        await until(lambda: bool(world.channels["a"].turns), "the replayer waits for the paused consumer")
    world.table("b")
    async with world.outbound() as out:
        await send(out, 200)
        async with world.replayer("s"):
            await until(lambda: len(world.events["b"]) == 400, "all of it came")
            await until(lambda: is_live(out), "and the keys are free")
    assert in_order(world.events["b"])
    assert not world.events["a"]


async def test_r6_what_fails_again_and_again_is_set_aside_and_holds_up_nothing(world: World) -> None:
    await world.consumer("a")
    world.table("a")
    world.bad = {b"k1:1"}
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with world.replayer(), world.outbound() as out:
        await send(out, 0)
        await until(lambda: len(world.events["a"]) == 199, "all others")
        await until(lambda: is_live(out), "and the keys are free")
        await send(out, 200)
        assert await out.drain(20) == 0
    assert in_order(world.events["a"])
    assert len(set(world.events["a"])) == 399
    [letter] = [one for part in content(world.servers, world.spool.dead).values() for one in part]
    headers = dict(letter.headers())
    assert int(headers["headwater-attempts"]) >= NOW.attempts_max
    assert headers["headwater-error"].endswith(b"ValueError: one of these is bad")
    assert opened(letter.value(), identity("x")).data == b"k1:1"
    assert [advisory.error for advisory in world.advised if advisory.reason == "failed"] == [
        "ValueError: one of these is bad"
    ]


async def test_r6_what_is_too_old_and_what_no_producer_wrote_is_set_aside_at_once(world: World) -> None:
    await world.consumer("a")
    world.table("a")
    key = key_of(identity("p"))
    events = [
        Undelivered("clicks", "p-1", 1, slot_of("k"), 1000, b"old"),
        Undelivered("others", "p-1", 2, slot_of("k"), 1000, b"of another topic"),
        Undelivered("clicks", "p-1", 3, slot_of("k"), SystemClock().wall_ns() // 1_000_000, b"good"),
    ]
    async with world.outbound(), producer(world.servers) as stranger:
        for value in (
            *(encode(event, key) for event in events[:2]),
            b"nonsense",
            encode(events[2], b"x" * 32),
        ):
            await stranger.send(world.spool.topic, value, partition=0)
        await stranger.send(world.spool.topic, encode(events[2], key), partition=0)
        async with world.replayer():
            await until(lambda: world.events["a"] == ["good"], "the good one")
    errors = [told.error for told in world.told.of(KafkaDeadLetter)]
    assert [error.split(" (")[0] for error in errors] == [
        "older than 86400 s",
        "an event of the topic 'others'",
        "8 bytes that no producer of this cluster has signed",
        f"{len(encode(events[2], key))} bytes that no producer of this cluster has signed",
    ]
    letters = content(world.servers, world.spool.dead)
    assert sum(map(len, letters.values())) == 4


async def test_r7_a_stop_holds_the_replay_until_its_owner_takes_it_back_or_it_expires(world: World) -> None:
    await world.consumer("a")
    clock = SystemClock()
    stops = Stops(MemoryStore(Board(), "shop.clicks.stops", clock, SystemRng()), clock)
    await stops.stop("alice", reason="the database is being moved")
    async with world.outbound(advice_settings=AdviceSettings(look_s=0.1)) as out:
        await send(out, 0)
        await until(lambda: out.counts["spooled"] == 200, "nobody owns anything")
        world.table("a")
        async with world.replayer(stops=stops) as replayer:
            await until(lambda: replayer.replay.waits_for == "stopped by alice", "it says why")
            await stops.stop("bob", ttl_s=1.5)
            await stops.start("alice")
            await until(lambda: replayer.replay.waits_for == "stopped by bob", "bob's still holds")
            assert not world.events["a"]
            await until(lambda: len(world.events["a"]) == 200, "it has expired")
            assert replayer.replay.waits_for == ""
    assert in_order(world.events["a"])


async def test_r3_kafka_away_fills_memory_up_to_its_bound_and_loses_nothing(
    own_kafka: Kafka,
) -> None:
    """C5, R4: killed and started again."""
    world = World(own_kafka, "spool.clicks")
    slow = await world.consumer("a")
    world.table("a")
    async with world.outbound(pending_events_max=1000) as out:
        await send(out, 0)
        assert await out.drain(20) == 0
        own_kafka.brokers[0].kill()
        slow.pause()
        sending = asyncio.get_running_loop().create_task(send(out, 200, 3000))
        await until(lambda: bool(out.waiting), "it pushes back")
        assert out.pending_events == 1000
        assert out.counts["spooled"] == 0
        own_kafka.brokers[0].start()
        own_kafka.brokers[0].ready()
        await sending
        assert await out.drain(40) == 0
        assert balanced(out)
        slow.resume()
        async with world.replayer():
            await until(lambda: len(world.events["a"]) == 3200, "all of it came")
    assert in_order(world.events["a"])
    await world.stack.aclose()
