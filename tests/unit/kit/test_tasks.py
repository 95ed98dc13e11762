import asyncio

import pytest

from headwater.kit import tasks
from headwater.kit.errors import Broken, Lost
from headwater.kit.simulate import loop


class Reports(list):
    def __call__(self, owner: str, name: str, error: BaseException) -> None:
        self.append((owner, name, type(error)))


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def fail_after(seconds: float, error: Exception) -> None:
    await asyncio.sleep(seconds)
    raise error


def test_a_failing_task_is_reported_once_and_ends_its_owner() -> None:
    reports = Reports()

    async def main() -> None:
        async with tasks.Group("owner", reports) as group:
            group.start("bad", fail_after(1, Broken("no")))
            group.start("good", for_ever())
            await group.run()

    with pytest.raises(Broken) as caught:
        loop.run(main())
    assert reports == [("owner", "bad", Broken)]
    assert caught.value.__notes__ == ["in the task 'bad' of owner"]


def test_a_cancellation_comes_out_as_one_also_when_tasks_fail_in_it() -> None:
    reports = Reports()

    async def stubborn() -> None:
        try:
            await for_ever()
        finally:
            raise Broken("while ending")

    async def owner() -> None:
        async with tasks.Group("owner", reports) as group:
            group.start("stubborn", stubborn())
            await group.run()

    async def main() -> None:
        task = asyncio.create_task(owner())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    loop.run(main())
    assert reports == [("owner", "stubborn", Broken)]


def test_drain_lets_tasks_end_and_names_those_that_were_too_late() -> None:
    ended: list[str] = []

    async def work(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        ended.append(name)

    async def main() -> list[str]:
        async with tasks.Group("owner", Reports()) as group:
            group.start("quick", work("quick", 1))
            group.start("slow", work("slow", 100))
            late = await group.drain(5)
            with pytest.raises(Lost):
                group.start("too late", work("never", 0))
            return late

    assert loop.run(main()) == ["slow"]
    assert ended == ["quick"]


def test_no_task_outlives_the_block() -> None:
    async def main() -> int:
        async with tasks.Group("owner", Reports()) as group:
            task = group.start("task", for_ever())
            await asyncio.sleep(0)
        assert task.cancelled()
        return len(asyncio.all_tasks())

    assert loop.run(main()) == 1


def test_an_error_of_the_owner_goes_before_those_of_its_tasks() -> None:
    async def main() -> None:
        async with tasks.Group("owner", Reports()) as group:
            group.start("task", for_ever())
            await asyncio.sleep(1)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        loop.run(main())


def test_a_task_that_does_not_end_is_left_behind_and_reported() -> None:
    reports = Reports()
    stop = asyncio.Event()

    async def deaf() -> None:
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        async with tasks.Group("owner", reports, cancel_s=3) as group:
            group.start("deaf", deaf())
            await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == pytest.approx(4)
        stop.set()
        await asyncio.sleep(1)

    loop.run(main())
    assert reports == [("owner", "deaf", Broken)]
