"""Channels that find their consumers through a real store: join, death, and the store away (seed 001; M5, H1)."""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from headwater.cluster.channels.discovery import DiscoverySettings, Member, Watch, store_of
from headwater.cluster.channels.inbound import InboundChannel, Received
from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.cluster.stores.port import Store
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.clock import SystemClock
from headwater.kit.rng import SystemRng
from headwater.peer import connection
from tests.parts import require_part
from tests.rigs.redis import Single
from tests.rigs.zookeeper import ZooKeeper
from tests.unit.peer.nodes import identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SETTINGS = DiscoverySettings(record_ttl_s=2.0, look_s=0.1)
SECRET = "redis-secret-91"
WITHIN_S = 30.0


class Memory:
    """The board of one process, as a rig."""

    def __init__(self) -> None:
        self.board = Board()

    def up(self) -> None:
        self.board.down = False

    def down(self) -> None:
        self.board.down = True

    def close(self) -> None:
        pass


RIGS: dict[str, tuple[tuple[str, ...], Callable[[Path], Any]]] = {
    "memory": ((), lambda folder: Memory()),
    "redis": (("redis",), lambda folder: Single(folder, password=SECRET)),
    "zookeeper": (("java", "zookeeper"), ZooKeeper),
}
TOPICS = itertools.count(1)


@pytest.fixture(scope="module")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    made: dict[str, Any] = {}

    def rig(name: str) -> Any:
        parts, make = RIGS[name]
        for part in parts:
            require_part(part)
        if name not in made:
            made[name] = make(tmp_path_factory.mktemp(name))
        made[name].up()
        return made[name]

    yield rig
    for one in made.values():
        one.close()


class Consumer:
    """One consumer, with all that belongs to it."""

    def __init__(self, letter: str, store: Store) -> None:
        self.whom = identity(letter)
        self.store = store
        self.events: list[str] = []
        self.stack = AsyncExitStack()
        self.member = Member("clicks", self.whom, store, SETTINGS)

    async def start(self) -> None:
        await self.stack.enter_async_context(self.member)
        channel = InboundChannel("clicks", self.whom, self.member.directory, self.take)
        listener = await connection.listen("127.0.0.1:0", self.whom, channel.serve)
        self.stack.push_async_callback(listener.close)
        await self.member.join(listener.address)

    async def take(self, events: Sequence[Received]) -> None:
        self.events += [bytes(event.data).decode() for event in events]

    async def die(self) -> None:
        """Nothing is said to anybody."""
        await self.stack.aclose()
        await self.store.close()


class World:
    """Consumers by letter, and a producer, at one store."""

    def __init__(self, name: str, rig: Any) -> None:
        self.name = name
        self.rig = rig
        self.topic = f"clicks{next(TOPICS)}"
        self.consumers: dict[str, Consumer] = {}
        self.stores: list[Store] = []

    def store(self) -> Store:
        if isinstance(self.rig, Memory):
            return MemoryStore(self.rig.board, f"shop.{self.topic}", SystemClock(), SystemRng())
        wanted: dict[str, Any] = {"call_timeout_s": 0.8} | self.rig.settings
        if self.name == "zookeeper":
            wanted["session_timeout_s"] = 2.0
        made = store_of(StoreSettings(**wanted), "shop", self.topic)
        self.stores.append(made)
        return made

    async def consumer(self, letter: str) -> Consumer:
        self.consumers[letter] = Consumer(letter, self.store())
        await self.consumers[letter].start()
        return self.consumers[letter]

    @property
    def all(self) -> list[str]:
        return [event for consumer in self.consumers.values() for event in consumer.events]

    async def close(self) -> None:
        for consumer in self.consumers.values():
            await consumer.stack.aclose()
        for store in self.stores:
            await store.close()


@pytest.fixture(params=list(RIGS))
async def world(request: pytest.FixtureRequest, rigs: Callable[[str], Any]) -> AsyncIterator[World]:
    one = World(request.param, rigs(request.param))
    yield one
    one.rig.up()
    await one.close()


async def until(true: Callable[[], bool], what: str) -> None:
    end = asyncio.get_running_loop().time() + WITHIN_S
    while not true():
        assert asyncio.get_running_loop().time() < end, f"not within {WITHIN_S} s: {what}"
        await asyncio.sleep(0.02)


async def send(out: OutboundChannel, first: int, count: int = 200) -> set[str]:
    sent = [f"k{n % 40}:{n}" for n in range(first, first + count)]
    for event in sent:
        await out.send(event.split(":")[0], event.encode())
    return set(sent)


def in_order(events: Sequence[str]) -> bool:
    last: dict[str, int] = {}
    for event in events:
        key, _, number = event.partition(":")
        if int(number) <= last.get(key, -1):
            return False
        last[key] = int(number)
    return True


async def test_consumers_come_die_and_the_store_goes_and_comes_and_no_event_is_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """M5, H1, C3, R5: found through the store, direct afterwards; what a dead one had goes to the others."""
    caplog.set_level(logging.DEBUG)
    a = await world.consumer("a")
    store = world.store()
    async with (
        Watch("clicks", identity("p"), store, SETTINGS) as watch,
        OutboundChannel("clicks", identity("p"), watch.directory) as out,
    ):
        sent = await send(out, 0)
        assert await out.drain(WITHIN_S) == 0
        b = await world.consumer("b")
        await until(lambda: len(set(watch.directory().owner)) == 2, "b has slots")
        sent |= await send(out, 200)
        assert await out.drain(WITHIN_S) == 0
        assert b.events

        before = watch.directory()
        world.rig.down()
        await until(
            lambda: bool(watch.trouble and a.member.trouble and b.member.trouble), "the store is away"
        )
        sent |= await send(out, 400)
        assert await out.drain(WITHIN_S) == 0  # events do not pass the store
        await asyncio.sleep(SETTINGS.record_ttl_s * 1.5)
        sent |= await send(out, 600)
        assert await out.drain(WITHIN_S) == 0
        assert watch.directory() == before
        world.rig.up()
        await until(lambda: not (watch.trouble or a.member.trouble or b.member.trouble), "it is back")
        assert watch.directory().owner == before.owner

        await a.die()  # the leader
        sent |= await send(out, 800)
        await until(lambda: set(watch.directory().owner) == {"b" * 16}, "b owns everything")
        assert await out.drain(WITHIN_S) == 0
        assert set(world.all) == sent
        assert in_order(a.events)
        assert in_order(b.events)

        c = await world.consumer("c")
        await until(lambda: len(set(watch.directory().owner)) == 2, "c has slots")
        assert await b.member.leave(WITHIN_S)
        await until(lambda: set(watch.directory().owner) == {"c" * 16}, "c owns everything")
        sent |= await send(out, 1000)
        assert await out.drain(WITHIN_S) == 0
        assert set(world.all) == sent
        assert c.events
    await store.close()
    said = io.StringIO()
    said.writelines(f"{record.getMessage()}\n" for record in caplog.records)
    assert SECRET not in said.getvalue()
