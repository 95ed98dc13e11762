"""A member of a group in the test's own loop, and sinks that remember."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from headwater.kit import tasks
from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.happenings import Happening, Happenings
from headwater.kit.rng import SystemRng
from headwater.lane.kafka.consume import KafkaConsumer
from headwater.lane.kafka.produce import KafkaProducer
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings, ProduceSettings
from headwater.lane.kafka.sink import Advance, Answer, Event, Sink

WITHIN_S = 30.0
QUICK = {"batch_age_s": 0.1, "commit_interval_s": 0.1, "retry_first_s": 0.02, "retry_ceiling_s_max": 0.1}


class Told(Happenings):
    """Happenings that can be looked at."""

    def __init__(self) -> None:
        super().__init__("test", SystemClock(), Counters(), io.StringIO())
        self.seen: list[Happening] = []

    def emit(self, happening: Happening) -> None:
        self.seen.append(happening)
        super().emit(happening)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.seen if isinstance(one, kind)]


class Notes(Sink):
    """Takes everything and writes down what it was told."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, int, int, list[Event]]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.at: list[float] = []

    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        self.batches.append((topic, partition, first, last, list(events)))
        self.at.append(asyncio.get_running_loop().time())
        return await self.answer(partition, events)

    async def answer(self, partition: int, events: Sequence[Event]) -> Answer:
        return Advance()

    async def on_assign(self, topic: str, partition: int, first: int) -> int | None:
        self.calls.append(("assign", topic, partition))
        return None

    async def on_committed(self, topic: str, partition: int, offset: int) -> None:
        self.calls.append(("committed", partition, offset))

    async def on_idle(self, topic: str, partition: int) -> Answer | None:
        self.calls.append(("idle", partition))
        return None

    async def on_revoke(self, topic: str, partition: int, deadline_s: float) -> Answer | None:
        self.calls.append(("revoke", partition))
        return None

    async def on_lost(self, topic: str, partition: int) -> None:
        self.calls.append(("lost", partition))

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch[4]]

    @property
    def values(self) -> list[bytes]:
        return [event.value for event in self.events]

    def told(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]


def producer(servers: str, **settings: Any) -> KafkaProducer:
    return KafkaProducer(KafkaSettings(servers=servers), ProduceSettings(**settings), happenings=Told())


async def send(servers: str, topic: str, values: Sequence[bytes], partition: int = -1) -> None:
    """Events without keys."""
    async with producer(servers) as sending:
        await sending.send_many(topic, [(None, value) for value in values], partition=partition)


class Member(KafkaConsumer):
    """A member whose happenings can be looked at."""

    happenings: Told


@asynccontextmanager
async def member(
    servers: str, sink: Sink, topics: str | Sequence[str], name: str = "node-1", **settings: Any
) -> AsyncIterator[Member]:
    """A running member of the group that is called like the first topic."""
    topics = (topics,) if isinstance(topics, str) else tuple(topics)
    wanted = {"group": f"group-{topics[0]}", **QUICK, **settings}
    async with producer(servers) as dead_letters, tasks.Group("test", lambda *_: None) as group:
        consumer = Member(
            KafkaSettings(servers=servers),
            ConsumeSettings(topics=topics, member=name, **wanted),
            sink,
            clock=SystemClock(),
            rng=SystemRng(),
            happenings=Told(),
            dead_letters=dead_letters,
        )
        task = group.start(name, consumer.run())
        yield consumer
        consumer.stop()
        await asyncio.wait([task], timeout=WITHIN_S)


async def until(condition: Callable[..., Any], what: str = "", within_s: float = WITHIN_S) -> None:
    """Wait until it holds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while not condition():
        assert loop.time() < end, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


def stored(servers: str, topic: str, partition: int = 0, group: str = "") -> int:
    """The group's offset, negative where it has none."""
    asking = Consumer({"bootstrap.servers": servers, "group.id": group or f"group-{topic}", "log_level": 0})
    try:
        for _ in range(20):  # a fresh broker is still making the topic of the offsets
            try:
                return int(asking.committed([TopicPartition(topic, partition)], 30)[0].offset)
            except KafkaException:
                SystemClock().block(0.2)
        raise AssertionError(f"the broker does not tell the offsets of {topic}")
    finally:
        asking.close()


def content(servers: str, topic: str) -> dict[Any, list[Any]]:
    """Everything in a topic: partition → messages, read without a group."""
    reading = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "nobody",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        partitions = list(reading.list_topics(topic, 10).topics[topic].partitions)
        reading.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        found: dict[Any, list[Any]] = {partition: [] for partition in partitions}
        open_ones = set(partitions)
        while open_ones:
            for message in reading.consume(10_000, 0.2):
                if message.error() is not None:
                    open_ones.discard(message.partition())
                else:
                    found[message.partition()].append(message)
        return found
    finally:
        reading.close()
