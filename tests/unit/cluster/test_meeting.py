"""A node at its store: what is asked for is done once it answers, and what it says is told."""

from __future__ import annotations

import pytest

from headwater.cluster import table
from headwater.cluster.meeting import Meeting
from headwater.cluster.stores.memory import Board, MemoryStore
from headwater.cluster.stores.port import Holder, Lease
from headwater.cluster.table import Member, NodeRecord, Table
from headwater.kit.counters import Counters
from headwater.kit.rng import SeededRng
from headwater.kit.simulate.clock import SimClock, Time

A, B = "00000000000a0000", "00000000000b0000"
LEASE_S = 10.0


def record(node: str) -> NodeRecord:
    return NodeRecord(node=node, name=node[-5], incarnation=1, member_address=f"{node[-5]}:7510")


def table_of(epoch: int) -> Table:
    return Table(
        epoch=epoch, leader=A, leader_incarnation=1, cluster_id=A,
        members={A: Member(incarnation=1)}, owner=[A], standby=[""],
    )  # fmt: skip


class SlowStore(MemoryStore):
    """Giving a lease takes a second."""

    time: Time

    async def acquire(self, holder: Holder, ttl_s: float) -> Lease | None:
        lease = await super().acquire(holder, ttl_s)
        self.time.advance(1.0)
        return lease


class At:
    """One node at a store that several share."""

    def __init__(self, board: Board, clock: SimClock, time: Time, node: str) -> None:
        self.node = node
        self.leases: list[int] = []
        self.looks: list[tuple[set[str], int]] = []
        self.counters = Counters()
        self.store = SlowStore(board, "c", clock, SeededRng(int(node, 16)))
        self.store.time = time
        self.meeting = Meeting(
            self.store, clock, self.counters, self.seen, self.leases.append,
            look_s=1.0, record_ttl_s=10.0, lease_ttl_s=LEASE_S,
        )  # fmt: skip

    def seen(self, records: dict[str, NodeRecord], newest: Table | None) -> None:
        self.looks.append((set(records), newest.epoch if newest else 0))


class World:
    def __init__(self) -> None:
        self.time = Time()
        self.clock = SimClock(self.time)
        self.board = Board()
        self.a, self.b = (At(self.board, self.clock, self.time, node) for node in (A, B))

    def lease_end(self) -> int:
        """When a lease ends that is got now."""
        return self.clock.boot_ns() + int(LEASE_S * 1e9)


async def test_a_record_that_is_published_is_seen_by_others_and_lives_on() -> None:
    world = World()
    world.a.meeting.publish(record(A))
    for _ in range(5):
        await world.a.meeting.turn()
        await world.b.meeting.turn()
        world.time.advance(6.0)
    assert world.b.looks == [({A}, 0)] * 5


async def test_a_record_that_the_store_forgot_is_written_again() -> None:
    world = World()
    world.a.meeting.publish(record(A))
    await world.a.meeting.turn()
    world.board.expiring.clear()
    await world.a.meeting.turn()
    await world.b.meeting.turn()
    assert world.b.looks[-1] == ({A}, 0)


async def test_the_lease_counts_from_before_the_call_and_goes_to_one() -> None:
    """M2, M3."""
    world = World()
    for at in (world.a, world.b):
        at.meeting.ask_lease(Holder(at.node, 1))
    end = world.lease_end()
    await world.a.meeting.turn()
    await world.b.meeting.turn()
    assert (world.a.leases, world.b.leases) == ([end], [0])


async def test_the_lease_of_a_dead_node_is_taken_and_of_another_one_is_not() -> None:
    world = World()
    world.a.meeting.ask_lease(Holder(A, 1))
    await world.a.meeting.turn()
    world.b.meeting.ask_lease(Holder(B, 1), "00000000000c0000")
    await world.b.meeting.turn()
    assert world.b.leases == [0]
    world.b.meeting.ask_lease(Holder(B, 1), A)
    await world.b.meeting.turn()
    assert world.b.leases[-1] == world.lease_end() - 10**9
    world.a.meeting.ask_lease(Holder(A, 1))
    await world.a.meeting.turn()
    assert world.a.leases[-1] == 0, "the one that was deposed finds out at its next try"


@pytest.mark.parametrize("drops", [True, False])
async def test_a_new_incarnation_gets_a_lease_of_its_own(drops: bool) -> None:
    world = World()
    world.a.meeting.ask_lease(Holder(A, 1))
    await world.a.meeting.turn()
    if drops:
        world.a.meeting.drop_lease()
    world.a.meeting.ask_lease(Holder(A, 2))
    await world.a.meeting.turn()
    assert await world.a.store.leader() == Holder(A, 2)


async def test_while_the_store_is_down_nothing_is_said_and_all_of_it_is_done_afterwards() -> None:
    """M5."""
    world = World()
    world.board.down = True
    world.a.meeting.publish(record(A))
    world.a.meeting.put(table_of(4))
    world.a.meeting.put(table_of(5))
    await world.a.meeting.turn()
    assert world.a.looks == [] and "memory of this process" in world.a.meeting.trouble
    world.board.down = False
    await world.a.meeting.turn()
    await world.b.meeting.turn()
    assert world.a.meeting.trouble == ""
    assert world.b.looks == [({A}, 5)]


async def test_what_is_no_record_and_no_table_is_counted_and_passed_over() -> None:
    """S3."""
    world = World()
    await world.a.store.put_node(A, b"nonsense", 10.0)
    await world.a.store.put_node(B, table.encode(record(A)), 10.0)
    await world.a.store.put_table(3, b"nonsense")
    await world.b.meeting.turn()
    assert world.b.looks == [(set(), 0)]
    told = {labels["code"]: value for _, labels, value in world.b.counters}
    assert told == {"bad_noderecord": 2, "bad_table": 1}


async def test_a_reset_clears_the_store_and_says_this_nodes_part_again() -> None:
    world = World()
    world.a.meeting.publish(record(A))
    world.b.meeting.publish(record(B))
    world.a.meeting.put(table_of(7))
    await world.a.meeting.turn()
    await world.b.meeting.turn()
    world.a.meeting.clear()
    world.time.advance(2.0)
    await world.a.meeting.turn()
    assert world.a.looks[-1] == ({A}, 0)
    await world.b.meeting.turn()
    assert world.b.looks[-1] == ({A, B}, 0)


async def test_who_leaves_takes_its_record_and_its_lease_along() -> None:
    world = World()
    world.a.meeting.publish(record(A))
    world.a.meeting.ask_lease(Holder(A, 1))
    await world.a.meeting.turn()
    await world.a.meeting.close(leaves=True)
    assert await world.b.store.leader() is None
    assert await world.b.store.nodes() == {}
