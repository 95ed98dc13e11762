import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from headwater.kit.errors import Busy, Lost, Rejected
from headwater.kit.queues import BoundedQueue
from headwater.kit.simulate import loop


def queue(events_max: int = 3, bytes_max: int = 100) -> BoundedQueue[str]:
    return BoundedQueue("queue", events_max=events_max, bytes_max=bytes_max)


def run(main: Coroutine[Any, Any, None]) -> None:
    loop.run(main)


async def put(q: BoundedQueue[str], item: str, events: int = 1, size: int = 0) -> None:
    await q.put(item, events, size)


def test_both_limits_hold() -> None:
    q = queue()
    q.offer("a", 2, 10)
    with pytest.raises(Busy):
        q.offer("b", 2, 10)
    with pytest.raises(Busy):
        q.offer("b", 1, 91)
    q.offer("b", 1, 90)
    assert (q.take(), q.take(), q.events, q.size_bytes) == ("a", "b", 0, 0)


def test_what_never_fits_is_rejected_at_once() -> None:
    with pytest.raises(Rejected):
        queue().offer("a", 1, 101)


def test_shedding_is_counted_with_its_reason() -> None:
    q = queue()
    assert q.shed("a", "slow subscriber", 3)
    assert not q.shed("b", "slow subscriber", 2)
    assert q.shed_events == {"slow subscriber": 2}


def test_who_waits_comes_in_turn_and_nobody_overtakes() -> None:
    async def main() -> None:
        q = queue()
        q.offer("a", 3)
        big = asyncio.create_task(put(q, "big", 3))
        await asyncio.sleep(1)
        small = asyncio.create_task(put(q, "small", 1))
        await asyncio.sleep(1)
        with pytest.raises(Busy):
            q.offer("late")
        assert [await q.get() for _ in range(3)] == ["a", "big", "small"]
        await asyncio.gather(big, small)

    run(main())


def test_who_gives_up_waiting_has_put_nothing_and_lets_the_next_in() -> None:
    async def main() -> None:
        q = queue()
        q.offer("a", 2)
        big = asyncio.create_task(put(q, "big", 3))
        small = asyncio.create_task(put(q, "small", 1))
        await asyncio.sleep(1)
        big.cancel()
        await small
        assert [q.take(), q.take()] == ["a", "small"]
        assert not q.entries

    run(main())


def test_getting_waits_and_a_cancelled_getter_takes_nothing() -> None:
    async def main() -> None:
        q = queue()
        first = asyncio.create_task(q.get())
        second = asyncio.create_task(q.get())
        await asyncio.sleep(1)
        q.offer("a")
        first.cancel()
        assert await second == "a"

    run(main())


def test_a_closed_queue_is_emptied_and_then_lost() -> None:
    async def main() -> None:
        q = queue()
        q.offer("a", 3)
        waiting = asyncio.create_task(put(q, "b"))
        await asyncio.sleep(1)
        q.close()
        with pytest.raises(Lost):
            await waiting
        with pytest.raises(Lost):
            q.offer("c")
        assert await q.get() == "a"
        with pytest.raises(Lost):
            await q.get()

    run(main())
