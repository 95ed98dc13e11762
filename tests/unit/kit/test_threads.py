"""Work on another thread, and its answer."""

import asyncio
import threading

import pytest

from headwater.kit.threads import Thread, answer, inline


async def test_the_answer_is_what_the_work_returns_or_raises() -> None:
    thread = Thread("work")
    assert await answer(thread, threading.get_ident) == thread.thread.ident
    for submit in (thread, inline):
        with pytest.raises(ZeroDivisionError):
            await answer(submit, lambda: 1 / 0)
        assert await answer(submit, lambda: 7) == 7
    assert thread.close()


async def test_work_that_nobody_waits_for_any_more_is_done_before_the_next() -> None:
    thread, going, done = Thread("work"), threading.Event(), list[int]()

    def slow() -> None:
        going.wait(5)
        done.append(1)

    task = asyncio.get_running_loop().create_task(answer(thread, slow))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and not done
    going.set()
    await answer(thread, lambda: done.append(2))
    assert done == [1, 2] and thread.close()


def test_an_answer_after_the_end_of_the_loop_ends_no_thread() -> None:
    thread, going = Thread("work"), threading.Event()

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(answer(thread, lambda: going.wait(5)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    going.set()
    later = threading.Event()
    thread(later.set)
    assert later.wait(5) and thread.close()
