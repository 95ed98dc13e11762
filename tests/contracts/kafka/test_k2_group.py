"""K2: members of a group come, go, die, and come back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from headwater.kit.errors import Lost
from headwater.lane.kafka.sink import Answer, Event
from tests.contracts.kafka.child import Child
from tests.contracts.kafka.group import Notes, member, producer, stored, until
from tests.rigs.kafka import Kafka
from tests.thorough import often

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]


@pytest.mark.thorough
async def test_k2_a_planned_move_takes_only_what_moves_and_stops_nothing_else(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=6)
    first, second = Notes(), Notes()
    stop = asyncio.Event()
    seen: dict[int, list[float]] = {}

    class Watched(Notes):
        async def answer(self, partition: int, events: Sequence[Event]) -> Answer:
            seen.setdefault(partition, []).append(asyncio.get_running_loop().time())
            return await super().answer(partition, events)

    first = Watched()

    async def load() -> None:
        async with producer(kafka.servers, linger_ms=0) as sending:
            while not stop.is_set():
                await asyncio.gather(*(sending.send(topic, b"x", partition=n) for n in range(6)))
                await asyncio.sleep(0.05)

    loading = asyncio.get_running_loop().create_task(load())
    async with member(kafka.servers, first, topic, "node-1", heartbeat_s=0.5, session_timeout_s=6) as one:
        await until(lambda: len(one.partitions) == 6 and len(seen) == 6)
        async with member(
            kafka.servers, second, topic, "node-2", heartbeat_s=0.5, session_timeout_s=6
        ) as two:
            await until(lambda: len(one.partitions) == len(two.partitions) == 3)
            await asyncio.sleep(1)
            stayed = {partition for _, partition in one.partitions}
            moved = set(range(6)) - stayed
            assert {call[1] for call in first.told("revoke")} == moved
            assert not first.told("lost")
        stop.set()
        await loading
    for partition in stayed:
        times = seen[partition]
        assert max(after - before for before, after in itertools.pairwise(times)) < 2.0


async def test_k2_a_restart_within_the_session_moves_nothing(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=4)
    staying = Notes()
    async with member(kafka.servers, staying, topic, "node-1") as one:
        async with member(kafka.servers, Notes(), topic, "node-2") as two:
            await until(lambda: len(one.partitions) == len(two.partitions) == 2)
            before = two.partitions
            calls = list(staying.told("assign")) + list(staying.told("revoke"))
        async with member(kafka.servers, Notes(), topic, "node-2") as again:
            await until(lambda: len(again.partitions) == 2)
            assert again.partitions == before
            assert staying.told("assign") + staying.told("revoke") == calls


@pytest.mark.thorough
async def test_k2_the_partitions_of_a_killed_member_move_within_fifteen_seconds(kafka: Kafka) -> None:
    """With the default session [10 s] in `make thorough`; here one of 3 s, and 5 s for all else as there."""
    topic = kafka.topic(partitions=4)
    loop = asyncio.get_running_loop()
    session_s = often(3.0, 10.0)
    more = {"session_timeout_s": session_s, "heartbeat_s": session_s / 10}
    async with member(kafka.servers, Notes(), topic, "node-1", **more) as one:
        with Child(kafka.servers, topic, name="node-2", **more) as child:
            await until(lambda: child.partitions() == 2 == len(one.partitions), "both have two")
            child.kill()
            killed = loop.time()
            await until(lambda: len(one.partitions) == 4, within_s=20)
    assert loop.time() - killed <= session_s + 5 + 1  # the member's own end is in it


@pytest.mark.thorough
async def test_k2_two_processes_of_one_name_are_never_both_members(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=2)
    errors: list[BaseException] = []

    async def older() -> None:
        try:
            async with member(kafka.servers, Notes(), topic, "twin", heartbeat_s=0.5) as one:
                started.set()
                await one.ending.wait()
                await until(lambda: False, within_s=20)
        except BaseException as error:
            errors.append(error)

    started = asyncio.Event()
    task = asyncio.get_running_loop().create_task(older())
    await started.wait()
    await asyncio.sleep(2)
    async with member(kafka.servers, Notes(), topic, "twin", heartbeat_s=0.5) as younger:
        await until(lambda: len(younger.partitions) == 2)
        await asyncio.wait([task], timeout=20)
        assert [type(error) for error in errors] == [Lost]
        assert "another process uses the same member name" in str(errors[0])


async def test_k2_what_a_leaving_member_has_done_is_committed_before_others_read_on(kafka: Kafka) -> None:
    topic = kafka.topic()
    one, two = Notes(), Notes()
    async with producer(kafka.servers) as sending:
        await sending.send_many(topic, [(None, b"%d" % n) for n in range(1_000)])
        async with member(kafka.servers, one, topic, commit_interval_s=1_000.0):
            await until(lambda: len(one.values) == 1_000)
        assert stored(kafka.servers, topic) == 1_000
        await sending.send_many(topic, [(None, b"%d" % n) for n in range(1_000, 1_100)])
        async with member(kafka.servers, two, topic):
            await until(lambda: len(two.values) == 100)
    assert [int(value) for value in one.values + two.values] == list(range(1_100))
