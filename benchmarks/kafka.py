"""Kafka channels against the driver alone: CPU of this process per event of 1 KB, the broker on the other core.

The broker is a real one (tests/rigs/kafka.py). This process, driver threads included, has the server's core. The
references do what an application without Headwater would: one `produce` with a callback per event; `consume` of many,
key and value read. Both are as idempotent and as acknowledged.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import time
from collections.abc import Callable, Sequence

import confluent_kafka
from confluent_kafka import TopicPartition

from benchmarks import events
from benchmarks.harness import Options, Result, median
from benchmarks.servers import CACHE, SERVER_CORE
from headwater.kit import tasks
from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.happenings import Happenings
from headwater.kit.rng import SystemRng
from headwater.lane.kafka import driver
from headwater.lane.kafka.consume import KafkaConsumer
from headwater.lane.kafka.produce import KafkaProducer
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings, ProduceSettings
from headwater.lane.kafka.sink import Advance, Answer, Event, Sink
from tests.rigs import kafka as rig

FOLDER = CACHE / "kafka-broker"
PARTITIONS, BYTES, WARM_UP, AT_ONCE = 4, 1_000, 50_000, 2_000
Record = tuple[bytes, bytes]
Run = Callable[[str, str, Sequence[Record]], None]


def records(count: int) -> list[Record]:
    """Events of 1 KB with keys of 3,000 visitors; every value is different."""
    return [
        (b"visitor-%d" % (n * 7919 % 3_000), (b"%012d" % n + line)[:BYTES].ljust(BYTES))
        for n, line in enumerate(events.lines(count))
    ]


def send_many(servers: str, topic: str, batch: Sequence[Record]) -> None:
    async def main() -> None:
        async with KafkaProducer(KafkaSettings(servers=servers)) as producer:
            await producer.send_many(topic, batch)

    asyncio.run(main())


def send_each(servers: str, topic: str, batch: Sequence[Record]) -> None:
    """Each event awaited by a caller of its own, so many callers at once."""

    async def main() -> None:
        async with KafkaProducer(KafkaSettings(servers=servers)) as producer:

            async def caller(own: Sequence[Record]) -> None:
                for key, value in own:
                    await producer.send(topic, value, key=key)

            await asyncio.gather(*(caller(batch[n::AT_ONCE]) for n in range(AT_ONCE)))

    asyncio.run(main())


def driver_produce(servers: str, topic: str, batch: Sequence[Record]) -> None:
    settings = driver.producer(KafkaSettings(servers=servers), ProduceSettings(), lambda _: None)
    producer = confluent_kafka.Producer(settings)
    left = len(batch)

    def delivered(error: object, _: object) -> None:
        nonlocal left
        assert error is None
        left -= 1

    for n, (key, value) in enumerate(batch):
        producer.produce(topic, value, key, on_delivery=delivered)
        if n % 1_000 == 0:
            producer.poll(0)
    producer.flush()
    assert left == 0


class Count(Sink):
    """Takes everything, looks at each key and value, ends after so many."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = asyncio.Event()
        self.size = 0

    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        self.size += sum([len(event.value) + len(event.key or b"") for event in events])
        self.left -= len(events)
        if self.left <= 0:
            self.done.set()
        return Advance()


def batches(servers: str, topic: str, batch: Sequence[Record]) -> None:
    async def main() -> None:
        sink = Count(len(batch))
        consumer = KafkaConsumer(
            KafkaSettings(servers=servers),
            ConsumeSettings(group=f"bench-{time.monotonic_ns()}", topics=(topic,), member="bench"),
            sink,
            clock=SystemClock(),
            rng=SystemRng(),
            happenings=Happenings("bench", SystemClock(), Counters(), io.StringIO()),
            dead_letters=KafkaProducer(KafkaSettings(servers=servers)),
        )
        async with tasks.Group("bench", lambda *_: None) as group:
            task = group.start("consume", consumer.run())
            await sink.done.wait()
            consumer.stop()
            await asyncio.wait([task])

    asyncio.run(main())


def driver_consume(servers: str, topic: str, batch: Sequence[Record]) -> None:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": servers, "group.id": "driver", "enable.auto.commit": False, "log_level": 0}
    )
    consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
    left, size = len(batch), 0
    while left > 0:
        for message in consumer.consume(5_000, 0.1):
            assert message.error() is None
            size += len(message.value()) + len(message.key() or b"")
            left -= 1
    consumer.close()


def compare(name: str, runs: dict[str, Run], options: Options, *, filled: bool) -> Result:
    """Rounds in turns; `filled`: the topic holds the events already."""
    result = Result(name, ["what", "events/s", "CPU µs/event", "events/s/core", "÷ driver"])
    whole = records(options.events)
    spent: dict[str, list[tuple[float, float]]] = {what: [] for what in runs}
    pinned = os.sched_getaffinity(0)
    shutil.rmtree(FOLDER, ignore_errors=True)
    others = pinned - {SERVER_CORE} or pinned
    os.sched_setaffinity(0, others)  # what the broker inherits
    try:
        with rig.running(FOLDER) as kafka:
            os.sched_setaffinity(0, {SERVER_CORE})
            topic = kafka.topic(partitions=PARTITIONS)
            send_many(kafka.servers, topic, whole if filled else whole[:WARM_UP])  # the broker warms up
            for number in range(options.rounds):
                for what in list(runs)[:: -1 if number % 2 else 1]:
                    target = topic if filled else kafka.topic(partitions=PARTITIONS)
                    begin, cpu = time.perf_counter(), time.process_time()
                    runs[what](kafka.servers, target, whole)
                    spent[what].append((time.perf_counter() - begin, time.process_time() - cpu))
    finally:
        os.sched_setaffinity(0, pinned)
    us = {what: median([cpu for _, cpu in rounds]) / len(whole) * 1e6 for what, rounds in spent.items()}
    base = us[next(iter(runs))]
    for what, rounds in spent.items():
        wall = median([seconds for seconds, _ in rounds])
        result.rows.append(
            [
                what,
                round(len(whole) / wall),
                round(us[what], 2),
                round(1e6 / us[what]),
                round(us[what] / base, 2),
            ]
        )
    result.notes.append(
        f"{len(whole):,} events of {BYTES} B, {PARTITIONS} partitions, one broker on the other core; CPU of this"
        " process, the driver's threads included; start and end of the client are in it."
    )
    return result


def produce(options: Options) -> Result:
    """Into the broker, lz4, acks=all, idempotent."""
    runs = {"driver": driver_produce, "headwater send_many": send_many, "headwater send": send_each}
    return compare("kafka-produce", runs, options, filled=False)


def consume(options: Options) -> Result:
    """Out of the broker. A group is new each time, so that joining it is in the wall time."""
    return compare("kafka-consume", {"driver": driver_consume, "headwater": batches}, options, filled=True)


WORKLOADS = {
    "kafka-produce": ("events of 1 KB into a real broker: CPU against the driver alone", produce),
    "kafka-consume": (
        "events of 1 KB out of a real broker, in micro-batches: CPU against the driver alone",
        consume,
    ),
}
