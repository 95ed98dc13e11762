"""The decisions of the Kafka channels that need no broker: keys, allocation, where to begin, rate, room, settings."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from headwater.kit.errors import Misconfigured
from headwater.kit.simulate import loop
from headwater.kit.simulate.clock import SimClock, Time
from headwater.lane.kafka import allocate, begin
from headwater.lane.kafka.keys import murmur2, partition_of
from headwater.lane.kafka.produce import Room, cut
from headwater.lane.kafka.rate import Rate
from headwater.lane.kafka.settings import Allocation, ConsumeSettings, KafkaSettings, ProduceSettings


@pytest.mark.parametrize(
    ("key", "hash_value"),
    [  # of the tests of Kafka's Java client
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_k1_keys_are_hashed_as_the_java_client_does(key: bytes, hash_value: int) -> None:
    assert murmur2(key) == hash_value & 0xFFFFFFFF
    assert partition_of(key, 10) == (hash_value & 0x7FFFFFFF) % 10


def test_k9_fixed_takes_by_the_place_in_the_list() -> None:
    fixed = Allocation(mode="fixed", count=2, members=("a", "b"))
    counts = {"t": 5, "u": 3}
    assert allocate.own(fixed, "a", counts) == {"t": [0, 1], "u": [0, 1]}
    assert allocate.own(fixed, "b", counts) == {"t": [2, 3], "u": [2]}
    assert allocate.unowned(fixed, counts) == {"t": [4]}


def test_k9_explicit_takes_what_it_says_and_nothing_twice() -> None:
    explicit = Allocation(mode="explicit", partitions={"a": {"t": (2, 0)}, "b": {"t": (7,)}})
    assert allocate.own(explicit, "a", {"t": 4}) == {"t": [0, 2]}
    assert allocate.own(explicit, "b", {"t": 4}) == {}
    assert allocate.unowned(explicit, {"t": 4, "u": 1}) == {"t": [1, 3], "u": [0]}
    twice = Allocation(mode="explicit", partitions={"a": {"t": (1,)}, "b": {"t": (1,)}})
    with pytest.raises(Misconfigured, match="partition 1 of t is given to a and to b"):
        allocate.own(twice, "a", {"t": 4})
    with pytest.raises(Misconfigured, match="does not name the member c"):
        allocate.own(explicit, "c", {"t": 4})


@pytest.mark.parametrize(
    ("policy", "partition", "known", "offset"),
    [
        ("earliest", 0, begin.Known(2, False), 3),
        ("latest", 0, begin.Known(2, False), 9),
        ("latest", 2, begin.Known(2, False), 3),  # made after the member looked
        ("latest", 1, begin.Known(2, True), 3),  # the group is not new: the partition is
    ],
)
def test_k7_only_a_new_group_begins_at_the_end_and_only_where_it_looked(
    policy: Any, partition: int, known: begin.Known, offset: int
) -> None:
    assert begin.first_offset(policy, partition, known, 3, 9) == offset


@pytest.mark.parametrize(("events", "owned"), [(10, 6), (100, 3), (250, 6)])
def test_k8_over_ten_seconds_a_member_takes_its_share_within_ten_percent(events: int, owned: int) -> None:
    time = Time()
    clock = SimClock(time)
    taken = 0

    async def main() -> None:
        nonlocal taken
        rate = Rate(1_000, clock)
        rate.owns(owned, 6)

        async def partition() -> None:
            nonlocal taken
            while clock.boot_ns() - start < 10e9:
                count = min(events, rate.batch_events_max)
                await rate.take(count)
                taken += count

        start = clock.boot_ns()
        await asyncio.gather(*(partition() for _ in range(3)))

    loop.run(main(), 1, time)
    wanted = 10_000 * owned / 6
    assert abs(taken - wanted) <= 0.1 * wanted


def test_k1_who_waits_for_room_gets_it_in_order_and_a_cancelled_one_takes_none() -> None:
    order: list[str] = []

    async def main() -> None:
        room = Room(10, 100)
        await room.take(8, 10)

        async def want(name: str, events: int) -> None:
            await room.take(events, 1)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(want("large", 9))
            gone = group.create_task(want("gone", 2))
            group.create_task(want("small", 1))
            while len(room.waiting) < 3:
                await asyncio.wait([gone], timeout=0.001)
            assert order == []  # there is room for the small one, but it is not its turn
            gone.cancel()
            room.give(8, 10)
        assert (room.events, room.size) == (0, 98)

    loop.run(main(), 1)
    assert order == ["large", "small"]


def test_pieces_keep_both_bounds_and_an_oversize_event_is_a_piece_of_its_own() -> None:
    assert list(cut([1, 1, 1, 9, 1, 5, 5], 2, 8)) == [(0, 2, 2), (2, 3, 1), (3, 4, 9), (4, 6, 6), (6, 7, 5)]
    assert list(cut([], 2, 8)) == []


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (KafkaSettings, {"servers": ""}, "servers: expected host:port"),
        (KafkaSettings, {"servers": "a:1", "properties": {"acks": "1"}}, "acks may not be set"),
        (KafkaSettings, {"servers": "a:1", "sevrers": 1}, "unknown field"),
        (ProduceSettings, {"queue_bytes_max": 10}, "event_bytes_max: expected at most queue_bytes_max"),
        (ConsumeSettings, {"group": "g", "topics": [], "member": "m"}, "at least one of `topics`"),
        (
            ConsumeSettings,
            {"group": "g", "topics": ["t"], "member": "m", "batch_bytes": 1 << 30},
            "batch_bytes_max",
        ),
        (
            ConsumeSettings,
            {"group": "g", "topics": ["t"], "member": "m", "heartbeat_s": 9},
            "at most half of",
        ),
        (Allocation, {"mode": "fixed"}, "fixed needs `count`"),
        (Allocation, {"mode": "explicit"}, "explicit needs `partitions`"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(kind: type, given: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(given, kind)
