"""R7: who stops a replay, for how long, and what holds while the store is away."""

from __future__ import annotations

from headwater.cluster.channels.stops import Stops
from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.kit.rng import SeededRng
from headwater.kit.simulate.clock import SimClock, Time


class World:
    def __init__(self):
        self.time = Time()
        self.clock = SimClock(self.time)
        self.board = Board()
        self.store = MemoryStore(self.board, "shop.clicks.stops", self.clock, SeededRng(1))
        self.here, self.there = Stops(self.store, self.clock), Stops(self.store, self.clock)

    async def owners(self, after_s=1.0):
        """As a replayer elsewhere sees it."""
        self.time.advance(after_s)
        return sorted(stop.owner for stop in await self.there.all())


async def test_r7_a_stop_holds_while_anybody_has_one_and_ends_by_itself():
    world = World()
    await world.here.stop("alice", reason="the database is being moved")
    await world.here.stop("bob", ttl_s=60)
    assert await world.owners() == ["alice", "bob"]
    [stop] = [stop for stop in await world.there.all() if stop.owner == "alice"]
    assert (stop.ttl_s, stop.reason) == (720, "the database is being moved")
    await world.here.start("alice")
    assert await world.owners() == ["bob"]
    assert await world.owners(57) == ["bob"]
    assert await world.owners(2) == []


async def test_r7_twelve_minutes_where_nothing_else_is_said_and_anew_when_it_is_said_again():
    world = World()
    await world.here.stop("alice")
    assert await world.owners(700) == ["alice"]
    await world.here.stop("alice")
    assert await world.owners(718) == ["alice"]
    assert await world.owners(2) == []


async def test_r7_while_the_store_is_away_what_was_known_holds_until_it_expires():
    world = World()
    await world.here.stop("bob", ttl_s=60)
    assert await world.owners() == ["bob"]
    world.board.down = True
    assert await world.owners(50) == ["bob"]
    assert await world.owners(10) == []


async def test_r7_a_stop_that_cannot_be_read_is_one():
    world = World()
    await world.store.put_node("carol", b"\xffstop!", 60)
    await world.store.put_node("dave", b'{"owner":"someone else"}', 60)
    assert await world.owners() == ["carol", "dave"]
