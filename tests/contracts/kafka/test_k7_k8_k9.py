"""K7: where reading begins. K8: the rate cap. K9: who reads what."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from confluent_kafka import TopicPartition

from headwater.kit.errors import Misconfigured
from headwater.lane.kafka.happenings import KafkaOffsetsSkipped, KafkaPartitionsUnowned
from headwater.lane.kafka.settings import Allocation
from tests.contracts.kafka.group import Notes, content, member, producer, send, stored, until
from tests.rigs.kafka import Kafka
from tests.thorough import often

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]


async def test_k7_a_new_group_reads_from_the_earliest(kafka: Kafka) -> None:
    topic, sink = kafka.topic(), Notes()
    await send(kafka.servers, topic, [b"old"])
    async with member(kafka.servers, sink, topic):
        await until(lambda: sink.values == [b"old"])


async def test_k7_a_new_group_with_latest_begins_at_the_end_and_stays_there_over_a_restart(
    kafka: Kafka,
) -> None:
    topic, sink, again = kafka.topic(), Notes(), Notes()
    await send(kafka.servers, topic, [b"old"] * 5)
    async with member(kafka.servers, sink, topic, begin="latest") as running:
        await until(lambda: running.partitions and stored(kafka.servers, topic) == 5)
    await send(kafka.servers, topic, [b"while it was away"])
    async with member(kafka.servers, again, topic, begin="latest"):
        await until(lambda: again.values)
    assert (sink.values, again.values) == ([], [b"while it was away"])


@pytest.mark.parametrize("restarted", [False, True])
async def test_k7_a_partition_made_later_is_read_from_its_first_event(kafka: Kafka, restarted: bool) -> None:
    topic, sink = kafka.topic(partitions=1), Notes()
    async with member(kafka.servers, sink, topic, begin="latest", metadata_s=0.5) as running:
        await until(lambda: running.partitions and stored(kafka.servers, topic) == 0)
        if not restarted:
            kafka.grow(topic, 2)
            await send(kafka.servers, topic, [b"early"], partition=1)
            await until(lambda: sink.values == [b"early"])
            return
    kafka.grow(topic, 2)
    await send(kafka.servers, topic, [b"early"], partition=1)
    async with member(kafka.servers, sink, topic, begin="latest"):
        await until(lambda: sink.values == [b"early"])


def trim(kafka: Kafka, topic: str, below: int) -> None:
    wanted = TopicPartition(topic, 0, below)
    kafka.admin.delete_records([wanted])[wanted].result()


@pytest.mark.parametrize(
    ("policy", "target", "values"), [("earliest", 70, list(range(70, 100))), ("latest", 100, [])]
)
async def test_k7_out_of_range_goes_on_by_policy_and_tells_what_is_skipped(
    kafka: Kafka, policy: str, target: int, values: list[int]
) -> None:
    topic, sink = kafka.topic(), Notes()
    await send(kafka.servers, topic, [b"%d" % n for n in range(30)])
    async with member(kafka.servers, Notes(), topic):
        await until(lambda: stored(kafka.servers, topic) == 30)
    await send(kafka.servers, topic, [b"%d" % n for n in range(30, 100)])
    trim(kafka, topic, 70)
    async with member(kafka.servers, sink, topic, out_of_range=policy) as running:
        await until(lambda: running.happenings.of(KafkaOffsetsSkipped))
        await send(kafka.servers, topic, [b"100"])
        await until(lambda: stored(kafka.servers, topic) == 101)
        (told,) = running.happenings.of(KafkaOffsetsSkipped)
    assert (told.topic, told.partition, told.begin, told.end, told.policy) == (topic, 0, 30, target, policy)
    assert [int(value) for value in sink.values] == [*values, 100]


async def test_k7_out_of_range_with_stop_stops(kafka: Kafka) -> None:
    topic = kafka.topic()
    await send(kafka.servers, topic, [b"x"] * 10)
    trim(kafka, topic, 6)

    class Knows(Notes):
        async def on_assign(self, topic: str, partition: int, first: int) -> int | None:
            return 2

    with pytest.raises(Misconfigured, match=r"offset 2 of .* is gone; the topic holds 6 up to 10"):
        async with member(kafka.servers, Knows(), topic, out_of_range="stop") as running:
            await asyncio.wait_for(running.ending.wait(), 20)


@pytest.mark.thorough
async def test_k8_the_rate_is_kept_over_all_partitions_within_ten_percent(kafka: Kafka) -> None:
    """Over 10 s in `make thorough`; over 10 s of virtual time in the unit tests, too."""
    topic, sink, rate = kafka.topic(partitions=3), Notes(), 2_000
    async with producer(kafka.servers) as sending:
        for n, count in enumerate((20_000, 6_000, 1_000)):
            await sending.send_many(topic, [(None, b"x" * 50)] * count, partition=n)
    async with member(kafka.servers, sink, topic, events_per_s_max=rate):
        await until(lambda: sink.batches)
        loop = asyncio.get_running_loop()
        begin, before = loop.time(), len(sink.events)
        await asyncio.sleep(often(4, 10))
        count, took = len(sink.events) - before, loop.time() - begin
    assert abs(count / took - rate) <= 0.1 * rate


@pytest.mark.parametrize(("partitions", "shares"), [(3, [1, 2]), (2, [1, 1])])
async def test_k9_balanced_shares_partitions_evenly(kafka: Kafka, partitions: int, shares: list[int]) -> None:
    topic = kafka.topic(partitions=partitions)
    async with (
        member(kafka.servers, Notes(), topic, "a") as one,
        member(kafka.servers, Notes(), topic, "b") as two,
    ):
        await until(lambda: sorted((len(one.partitions), len(two.partitions))) == shares)


async def test_k9_balanced_over_many_topics_the_load_differs_by_one_partition_at_most(kafka: Kafka) -> None:
    topics = [kafka.topic(partitions=3) for _ in range(5)]
    async with (
        member(kafka.servers, Notes(), topics, "a") as one,
        member(kafka.servers, Notes(), topics, "b") as two,
    ):
        await until(lambda: sorted((len(one.partitions), len(two.partitions))) == [7, 8])
    assert len(topics) * 3 == 15


async def test_k9_fixed_and_explicit_read_their_own_and_tell_what_nobody_reads(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=5)
    for partition in range(5):
        await send(kafka.servers, topic, [b"%d" % partition], partition=partition)
    fixed = Allocation(mode="fixed", count=2, members=("a", "b"))
    explicit = Allocation(mode="explicit", partitions={"a": {topic: (4, 0)}, "b": {topic: (1,)}})
    for allocation, mine, unowned in ((fixed, [2, 3], [4]), (explicit, [1], [2, 3])):
        sink = Notes()
        group = f"{allocation.mode}-{topic}"
        async with member(
            kafka.servers, sink, topic, "b", allocation=allocation, group=group, metadata_s=0.3
        ) as running:
            await until(lambda sink=sink, mine=mine: len(sink.events) == len(mine))
            assert [partition for _, partition in running.partitions] == mine
            (told,) = running.happenings.of(KafkaPartitionsUnowned)
            assert (told.topic, told.partitions) == (topic, unowned)
            await until(lambda mine=mine, group=group: stored(kafka.servers, topic, mine[0], group) == 1)
            if allocation is explicit:
                kafka.grow(topic, 6)
                await until(lambda running=running: len(running.happenings.of(KafkaPartitionsUnowned)) == 2)
        assert Counter(sink.values) == Counter(b"%d" % partition for partition in mine)
    with pytest.raises(Misconfigured, match="does not name the member c"):
        async with member(kafka.servers, Notes(), topic, "c", allocation=fixed, group="fixed-c") as running:
            await asyncio.wait_for(running.ending.wait(), 20)
    assert len(content(kafka.servers, topic)) == 6
