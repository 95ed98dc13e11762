"""K3 and K4: micro-batches, and what a sink may answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from headwater.kit.errors import Broken
from headwater.lane.kafka.sink import Advance, Answer, Event, Hold, Revert
from tests.contracts.kafka.group import Notes, member, producer, send, stored, until
from tests.rigs.kafka import Kafka

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]


class Answers(Notes):
    """Gives these answers, then Advance."""

    def __init__(self, *answers: Answer, **calls: Answer) -> None:
        super().__init__()
        self.answers = list(answers)
        self.at_calls = calls

    async def answer(self, partition: int, events: Sequence[Event]) -> Answer:
        return self.answers.pop(0) if self.answers else Advance()

    async def on_idle(self, topic: str, partition: int) -> Answer | None:
        await super().on_idle(topic, partition)
        return self.at_calls.get("idle")

    async def on_revoke(self, topic: str, partition: int, deadline_s: float) -> Answer | None:
        await super().on_revoke(topic, partition, deadline_s)
        return self.at_calls.get("revoke")


def spans(sink: Notes) -> list[tuple[int, int]]:
    return [(first, last) for _, _, first, last, _ in sink.batches]


def values(count: int, size: int = 10, first: int = 0) -> list[bytes]:
    return [b"%0*d" % (size, n) for n in range(first, first + count)]


async def test_k3_a_batch_is_one_partition_without_gaps_closed_by_count(kafka: Kafka) -> None:
    topic, sink = kafka.topic(partitions=3), Notes()
    async with producer(kafka.servers) as sending:
        await sending.send_many(topic, [(b"%d" % n, b"x") for n in range(5_000)])
    async with member(kafka.servers, sink, topic, batch_events_max=700):
        await until(lambda: len(sink.events) == 5_000)
    ends: dict[int, int] = {}
    for _, partition, first, last, events in sink.batches:
        assert first == ends.get(partition, 0)
        assert [event.offset for event in events] == list(range(first, last + 1))
        assert len(events) <= 700
        ends[partition] = last + 1
    assert len(ends) == 3
    assert sum(ends.values()) == 5_000


async def test_k3_a_batch_is_closed_by_size_and_the_sink_may_change_it_within_the_bound(kafka: Kafka) -> None:
    topic = kafka.topic()
    sink = Answers(Advance(next_bytes=20_000), Advance(next_bytes=1 << 30))
    await send(kafka.servers, topic, values(100, 1_000))
    async with member(kafka.servers, sink, topic, batch_bytes=10_000, batch_bytes_max=40_000):
        await until(lambda: len(sink.events) == 100)
    counts = [len(batch[4]) for batch in sink.batches]
    assert counts[0] <= 10_000 // 1_000
    assert 10 < counts[1] <= 20
    assert 20 < counts[2] <= 40


async def test_k3_an_event_over_the_size_is_a_batch_of_its_own(kafka: Kafka) -> None:
    topic, sink = kafka.topic(), Notes()
    await send(kafka.servers, topic, [b"a", b"b" * 5_000, b"c"])
    async with member(kafka.servers, sink, topic, batch_bytes=2_000):
        await until(lambda: len(sink.events) == 3)
    assert spans(sink) == [(0, 0), (1, 1), (2, 2)]


async def test_k3_a_batch_is_closed_by_age(kafka: Kafka) -> None:
    topic, sink = kafka.topic(), Notes()
    loop = asyncio.get_running_loop()
    async with (
        producer(kafka.servers) as sending,
        member(kafka.servers, sink, topic, batch_age_s=1.0) as running,
    ):
        await until(lambda: running.partitions)
        await sending.send(topic, b"first")
        begin = loop.time()
        await asyncio.sleep(0.5)
        await sending.send(topic, b"second")
        await until(lambda: sink.batches)
    assert 0.9 <= sink.at[0] - begin < 2.0
    assert sink.values == [b"first", b"second"]
    assert spans(sink) == [(0, 1)]


async def test_k4_only_what_was_advanced_is_committed(kafka: Kafka) -> None:
    topic = kafka.topic()
    sink = Answers(Hold(), Hold(), Advance(upto=14), Hold())
    await send(kafka.servers, topic, values(40))
    async with member(kafka.servers, sink, topic, batch_events_max=10) as running:
        await until(lambda: len(sink.batches) == 4 and sink.told("committed"))
        await asyncio.sleep(0.5)
        assert stored(kafka.servers, topic) == 15
        assert running.failure is None
    assert sink.told("committed")[-1] == ("committed", 0, 15)
    again = Notes()
    async with member(kafka.servers, again, topic):
        await until(lambda: len(again.events) == 25)
    assert spans(again)[0][0] == 15
    assert stored(kafka.servers, topic) == 40


async def test_k4_revert_goes_back_to_what_is_not_done_after_the_wait(kafka: Kafka) -> None:
    topic = kafka.topic()
    sink = Answers(Advance(), Hold(), Revert(wait_s=0.5), Advance(), Revert(offset=5))
    await send(kafka.servers, topic, values(30))
    async with member(kafka.servers, sink, topic, batch_events_max=10):
        await until(lambda: len(sink.batches) >= 8 and stored(kafka.servers, topic) == 30)
    assert spans(sink) == [(0, 9), (10, 19), (20, 29), (10, 19), (20, 29), (5, 14), (15, 24), (25, 29)]
    assert sink.at[3] - sink.at[2] >= 0.5
    assert all(event.value == values(30)[event.offset] for event in sink.events)


async def test_k4_an_answer_that_cannot_be_right_stops_the_member(kafka: Kafka) -> None:
    topic = kafka.topic()
    await send(kafka.servers, topic, values(10))
    with pytest.raises(Broken, match=r"advanced .* to 99; it has had 0 up to 9"):
        async with member(kafka.servers, Answers(Advance(upto=99)), topic) as running:
            await asyncio.wait_for(running.ending.wait(), 20)
    assert stored(kafka.servers, topic) == 0


async def test_k4_idle_is_told_once_and_may_advance(kafka: Kafka) -> None:
    topic = kafka.topic()
    sink = Answers(Hold(), idle=Advance())
    await send(kafka.servers, topic, values(3))
    async with member(kafka.servers, sink, topic, idle_s=0.4):
        await until(lambda: stored(kafka.servers, topic) == 3)
        await asyncio.sleep(1.2)
        assert len(sink.told("idle")) == 1
        await send(kafka.servers, topic, values(3))
        await until(lambda: len(sink.told("idle")) == 2)


async def test_k4_a_revoked_partition_may_still_advance_in_time(kafka: Kafka) -> None:
    topic = kafka.topic()
    sink = Answers(Hold(), Hold(), revoke=Advance(upto=7))
    await send(kafka.servers, topic, values(10))
    async with member(kafka.servers, sink, topic):
        await until(lambda: len(sink.events) == 10)
    assert sink.told("revoke") == [("revoke", 0)]
    assert stored(kafka.servers, topic) == 8


async def test_k4_a_sink_that_does_not_end_by_the_deadline_is_told_to_discard(kafka: Kafka) -> None:
    topic = kafka.topic()

    class Stuck(Notes):
        async def answer(self, partition: int, events: Sequence[Event]) -> Any:
            await asyncio.sleep(60)

    sink = Stuck()
    await send(kafka.servers, topic, values(10))
    async with member(kafka.servers, sink, topic, revoke_deadline_s=0.5):
        await until(lambda: sink.batches)
    assert sink.told("lost") == [("lost", 0)]
    assert not sink.told("revoke")
    assert stored(kafka.servers, topic) == 0
