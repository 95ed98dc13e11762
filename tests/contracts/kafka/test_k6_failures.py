"""K6: sinks that fail, and events that they cannot take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from headwater.kit.errors import Busy, Misconfigured, Unavailable
from headwater.lane.kafka.happenings import KafkaDeadLetter, KafkaSinkBack, KafkaSinkDown
from headwater.lane.kafka.sink import Advance, Answer, Event, Hold
from tests.contracts.kafka.group import Notes, content, member, producer, send, stored, until
from tests.rigs.kafka import Kafka

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]


class Picky(Notes):
    """Fails on batches that hold one of these values, as a warehouse that says only "no" would."""

    def __init__(self, *bad: bytes, answer: Answer = Advance()) -> None:  # noqa: B008 - a value
        super().__init__()
        self.bad = set(bad)
        self.taken: list[bytes] = []
        self.usual = answer

    async def answer(self, partition: int, events: Sequence[Event]) -> Answer:
        if self.bad & {event.value for event in events}:
            raise ValueError("one of these is bad")
        self.taken += [event.value for event in events]
        return self.usual


async def test_k6_bad_events_go_to_the_dead_letter_topic_and_all_others_go_on_in_order(kafka: Kafka) -> None:
    """R6."""
    topic = kafka.topic()
    dead = kafka.topic("dead")
    sink = Picky(b"3", b"77")
    async with producer(kafka.servers) as sending:
        await sending.send(topic, b"0", key=b"k0")
        for n in range(1, 100):
            await sending.send(topic, b"%d" % n, key=b"k%d" % n, headers={"mine": b"yes"})
    async with member(
        kafka.servers, sink, topic, batch_events_max=100, retries_max=2, dead_letter_topic=dead
    ) as running:
        await until(lambda: stored(kafka.servers, topic) == 100)
        told = running.happenings.of(KafkaDeadLetter)
    assert [int(value) for value in sink.taken] == [n for n in range(100) if n not in (3, 77)]
    letters = content(kafka.servers, dead)[0]
    assert [(letter.key(), letter.value()) for letter in letters] == [(b"k3", b"3"), (b"k77", b"77")]
    headers = dict(letters[0].headers())
    assert int(headers.pop("headwater-attempts")) >= 4
    assert headers == {
        "mine": b"yes",
        "headwater-topic": topic.encode(),
        "headwater-partition": b"0",
        "headwater-offset": b"3",
        "headwater-group": f"group-{topic}".encode(),
        "headwater-error": b"ValueError: one of these is bad",
    }
    assert [(one.topic, one.offset) for one in told] == [(topic, 3), (topic, 77)]


async def test_k6_a_failure_that_passes_is_retried_whole_and_kills_no_event(kafka: Kafka) -> None:
    topic = kafka.topic()

    class Twice(Picky):
        async def answer(self, partition: int, events: Sequence[Event]) -> Answer:
            if len(self.batches) <= 2:
                raise ValueError("not now")
            return await super().answer(partition, events)

    sink = Twice()
    await send(kafka.servers, topic, [b"%d" % n for n in range(10)])
    async with member(kafka.servers, sink, topic, retry_first_s=0.2, retry_ceiling_s_max=1.0):
        await until(lambda: stored(kafka.servers, topic) == 10)
    assert [(first, last) for _, _, first, last, _ in sink.batches] == [(0, 9)] * 3
    assert sink.at[1] - sink.at[0] >= 0.1
    assert sink.at[2] - sink.at[1] >= 0.2


async def test_k6_a_dead_letter_among_events_that_are_held_is_passed_only_with_them(kafka: Kafka) -> None:
    topic, dead = kafka.topic(), kafka.topic("dead")
    sink = Picky(b"4", answer=Hold())
    await send(kafka.servers, topic, [b"%d" % n for n in range(10)])
    async with member(kafka.servers, sink, topic, batch_events_max=5, retries_max=0, dead_letter_topic=dead):
        await until(lambda: len(sink.taken) == 9)
        await asyncio.sleep(0.4)
        assert stored(kafka.servers, topic) == 0
        sink.usual = Advance()
        await send(kafka.servers, topic, [b"10"])
        await until(lambda: stored(kafka.servers, topic) == 11)


@pytest.mark.thorough
async def test_k6_a_sink_that_says_it_is_down_waits_alone_and_the_group_keeps_the_member(
    kafka: Kafka,
) -> None:
    topic = kafka.topic(partitions=2)

    class Down(Picky):
        down = True

        async def answer(self, partition: int, events: Sequence[Event]) -> Answer:
            if partition == 0 and self.down:
                raise (
                    Unavailable("the warehouse is away")
                    if len(self.batches) % 2
                    else Busy("full", retry_after_s=0.1)
                )
            return await super().answer(partition, events)

    sink = Down()
    async with (
        producer(kafka.servers, linger_ms=0) as sending,
        member(
            kafka.servers,
            sink,
            topic,
            session_timeout_s=2.0,
            heartbeat_s=0.3,
            ahead_bytes_max=20_000,
            retries_max=1,
        ) as running,
    ):
        for n in range(60):
            await asyncio.gather(
                sending.send_many(topic, [(None, b"%06d" % n * 20)] * 10, partition=0),
                sending.send(topic, b"other %d" % n, partition=1),
            )
            await asyncio.sleep(0.05)
        await until(lambda: len(sink.taken) == 60)
        worker = running.workers[topic, 0][0]
        assert (
            worker.part.waiting_bytes < 120_000 * 1.84 / 1.2 / 2
        )  # about half of what was sent: it is paused
        assert len(running.happenings.of(KafkaSinkDown)) == 1
        sink.down = False
        await until(lambda: len(sink.taken) == 660)
        assert len(running.happenings.of(KafkaSinkBack)) == 1
    assert len(sink.told("assign")) == 2
    assert not sink.told("lost")
    assert [value for value in sink.taken if not value.startswith(b"other")] == [
        b"%06d" % n * 20 for n in range(60) for _ in range(10)
    ]


async def test_k6_without_a_dead_letter_topic_the_member_stops_and_says_so(kafka: Kafka) -> None:
    topic = kafka.topic()
    await send(kafka.servers, topic, [b"0"])
    with pytest.raises(Misconfigured, match=f"producing to {topic}.dead"):
        async with member(kafka.servers, Picky(b"0"), topic, retries_max=0) as running:
            await asyncio.wait_for(running.ending.wait(), 30)
    assert stored(kafka.servers, topic) == 0
