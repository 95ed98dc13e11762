"""Threads and processes of a simulation: one at a time, and gone when they die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from headwater.kit.simulate import threads
from headwater.kit.simulate.threads import Life, Machine, ProcessLoop, ThreadClock


@pytest.fixture
def loop() -> Iterator[ProcessLoop]:
    made = ProcessLoop(1)
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


def test_a_thread_blocks_while_others_go_on(loop: ProcessLoop) -> None:
    clock, seen = ThreadClock(loop.virtual), []

    def work(name: str, seconds: float) -> None:
        for _ in range(2):
            clock.block(seconds)
            seen.append((name, round(loop.time(), 3)))

    async def main() -> None:
        both = [threads.Thread(work, (name, seconds)) for name, seconds in (("slow", 3), ("quick", 1))]
        for one in both:
            one.start()
        await clock.sleep(10)
        assert not any(one.is_alive() for one in both)

    loop.run_until_complete(main())
    assert seen == [("quick", 1), ("quick", 2), ("slow", 3), ("slow", 6)]


def test_work_of_the_executor_may_block(loop: ProcessLoop) -> None:
    clock = ThreadClock(loop.virtual)

    def work() -> str:
        clock.block(5)
        return "done"

    assert loop.run_until_complete(asyncio.to_thread(work)) == "done"
    assert loop.time() >= 5


def lived(loop: ProcessLoop, happen: Callable[[Life, Machine], None]) -> list[float]:
    """When a process ticked, to which something happens at 2.5 s; 10 s in all."""
    clock, ticks = ThreadClock(loop.virtual), []
    machine = Machine(loop, "machine")

    async def tick() -> None:
        try:
            while True:
                await clock.sleep(1)
                ticks.append(round(loop.time(), 3))
        finally:
            ticks.append(-1)

    async def main() -> None:
        life = Life(machine, "process")
        life.begin(tick())
        await clock.sleep(2.5)
        happen(life, machine)
        await clock.sleep(7.4)
        loop.pending.clear()

    loop.run_until_complete(main())
    return ticks


def test_a_dead_process_does_nothing_any_more_not_even_in_the_end(loop: ProcessLoop) -> None:
    assert lived(loop, lambda life, machine: life.kill()) == [1, 2]


def test_a_machine_that_stands_still_goes_on_later(loop: ProcessLoop) -> None:
    def pause(life: Life, machine: Machine) -> None:
        machine.paused = True
        loop.call_later(4, machine.resume)

    assert lived(loop, pause)[:5] == [1, 2, 6.5, 7.5, 8.5]


def test_a_killed_thread_is_unwound_and_lets_go_of_its_lock(loop: ProcessLoop) -> None:
    clock, lock, seen = ThreadClock(loop.virtual), threads.Lock(), []

    def hold() -> None:
        with lock:
            clock.block(100)
        seen.append("went on")

    async def main() -> None:
        life = Life(Machine(loop, "machine"), "process")
        life.context.run(threads.Thread, hold).start()
        threads.Thread(hold).start()
        await clock.sleep(1)
        life.kill()
        await clock.sleep(150)

    loop.run_until_complete(main())
    assert seen == ["went on"]


def test_a_wait_ends_in_time_or_with_the_event(loop: ProcessLoop) -> None:
    event, seen = threads.Event(), []

    def wait() -> None:
        seen.append((event.wait(2), round(loop.time())))
        seen.append((event.wait(), round(loop.time())))

    async def main() -> None:
        threads.Thread(wait).start()
        loop.call_later(5, event.set)
        await ThreadClock(loop.virtual).sleep(9)

    loop.run_until_complete(main())
    assert seen == [(False, 2), (True, 5)]
