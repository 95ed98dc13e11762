"""K5: consumer processes that are killed at any instant."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headwater.kit import tasks
from headwater.kit.rng import SystemRng
from tests.contracts.kafka.child import Child
from tests.contracts.kafka.group import producer, stored, until
from tests.rigs.kafka import Kafka
from tests.thorough import often

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow, pytest.mark.thorough]
OPTIONS = {"heartbeat_s": 0.3, "session_timeout_s": 2.0, "batch_events_max": 50, "batch_age_s": 0.02}


@asynccontextmanager
async def load(kafka: Kafka, topic: str) -> AsyncIterator[list[int]]:
    """Events as long as the block lasts; the list holds how many were sent, when it is over."""
    stop, sent = asyncio.Event(), [0]

    async def send() -> None:
        async with producer(kafka.servers, linger_ms=0) as sending:
            while not stop.is_set():
                await sending.send_many(topic, [(b"%d" % n, b"%d" % n) for n in range(sent[0], sent[0] + 40)])
                sent[0] += 40
                await asyncio.sleep(0.01)

    async with tasks.Group("load", lambda *_: None) as group:
        task = group.start("send", send())
        yield sent
        stop.set()
        await asyncio.wait([task])


async def next_life(child: Child) -> list[tuple[int, int]]:
    """What the child saw since now, once that is something of both partitions."""
    lines = len(child.seen())
    await until(
        lambda: len({partition for partition, _ in child.seen()[lines:]}) == 2, "events of both partitions"
    )
    return child.seen()[lines:]


@pytest.mark.timeout(240)
async def test_k5_killed_often_a_warehouse_with_its_position_has_each_event_once(kafka: Kafka) -> None:
    """Twenty times in `make thorough`: each life costs a join of the group."""
    topic = kafka.topic(partitions=2)
    with Child(kafka.servers, topic, name="node-1", exact=True, **OPTIONS) as child:
        async with load(kafka, topic) as sent:
            for _ in range(often(6, 20)):
                before = len(child.seen())
                await until(lambda before=before: len(child.seen()) > before, "events after a start")
                await asyncio.sleep(SystemRng().below(300) / 1000)
                child.kill()
                child.start()
        await until(lambda: len(child.rows()) >= sent[0], "all rows")
        assert Counter(map(int, child.rows())) == Counter(range(sent[0]))


async def test_k5_killed_every_offset_is_seen_and_repeats_are_those_since_the_last_commit(
    kafka: Kafka,
) -> None:
    topic = kafka.topic(partitions=2)
    repeats = 0
    with Child(kafka.servers, topic, name="node-1", commit_interval_s=0.5, **OPTIONS) as child:
        async with load(kafka, topic) as sent:
            for _ in range(often(2, 5)):
                await next_life(child)
                await asyncio.sleep(0.6 + SystemRng().below(400) / 1000)
                child.kill()
                before = child.seen()
                committed = [max(0, stored(kafka.servers, topic, n)) for n in (0, 1)]
                child.start()
                after = await next_life(child)
                for n in (0, 1):
                    reached = max((offset + 1 for partition, offset in before if partition == n), default=0)
                    assert next(offset for partition, offset in after if partition == n) == committed[n]
                    repeats += reached - committed[n]
        await until(lambda: len(set(child.seen())) == sent[0], "every offset")
    assert repeats > 0
