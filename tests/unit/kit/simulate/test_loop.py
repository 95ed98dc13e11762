import asyncio
import subprocess
import sys

import pytest

from headwater.kit.simulate import loop, run
from headwater.kit.simulate.clock import DAY_S, SimClock, Time
from headwater.kit.simulate.loop import Deadlock, Livelock
from headwater.kit.simulate.run import Simulation, SimulationFailed


async def race(order: list[int]) -> None:
    async def one(number: int) -> None:
        await asyncio.sleep(1)
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(one(number))


def order_of(seed: int) -> list[int]:
    order: list[int] = []
    loop.run(race(order), seed)
    return order


def test_a_day_takes_no_time_and_is_a_day() -> None:
    time = Time()

    async def main() -> float:
        await asyncio.sleep(DAY_S)
        return asyncio.get_running_loop().time()

    assert loop.run(main(), time=time) == pytest.approx(DAY_S)
    assert time.now_ns == pytest.approx(DAY_S * 1e9)


def test_timers_of_one_moment_come_in_an_order_that_the_seed_draws() -> None:
    assert order_of(1) == order_of(1)
    assert len({tuple(order_of(seed)) for seed in range(8)}) > 3


def test_callbacks_keep_the_order_that_asyncio_promises() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        for number in range(50):
            asyncio.get_running_loop().call_soon(order.append, number)
        await asyncio.sleep(0)
        return order

    assert loop.run(main(), 3) == list(range(50))


def test_work_of_threads_is_done_in_any_order() -> None:
    async def main() -> tuple[int, ...]:
        order: list[int] = []
        await asyncio.gather(*(asyncio.to_thread(order.append, n) for n in range(5)))
        return tuple(order)

    assert len({loop.run(main(), seed) for seed in range(10)}) > 3


def test_waiting_for_nothing_is_a_deadlock_that_names_who_waits() -> None:
    async def for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.create_task(for_ever(), name="the one who waits")

    with pytest.raises(Deadlock, match="the one who waits"):
        loop.run(main())


def test_a_history_without_end_is_a_livelock() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        loop.run(main(), steps_max=1000)


def test_an_error_that_nobody_waits_for_is_not_lost() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        loop.run(main())


def test_the_wall_jumps_and_boot_time_does_not() -> None:
    clock = SimClock(time := Time())
    boot, wall = clock.boot_ns(), clock.wall_ns()
    clock.jump_wall(-DAY_S)
    clock.block(1)
    assert clock.boot_ns() == boot + 1_000_000_000
    assert clock.wall_ns() == wall + 1_000_000_000 - DAY_S * 1_000_000_000
    clock.reboot(down_s=10)
    assert clock.boot_ns() < boot
    assert time.now_ns == 11_000_000_000


async def fails_for_three(sim: Simulation) -> None:
    await asyncio.sleep(0.1)
    sim.note("here")
    assert sim.seed != 3, "three"


def test_a_failure_says_the_one_command_that_replays_it() -> None:
    with pytest.raises(SimulationFailed) as caught:
        run.simulate(fails_for_three, range(10))
    command = f"python -m headwater.kit.simulate {__name__}:fails_for_three --seed 3"
    assert command in str(caught.value)


def simulated(*words: str) -> tuple[int, list[str]]:
    """The command's exit code and what it printed."""
    command = [sys.executable, "-m", "headwater.kit.simulate", f"{__name__}:fails_for_three", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.slow
def test_the_command_runs_many_seeds_and_prints_the_line_that_replays_the_one_that_failed() -> None:
    code, lines = simulated("--count", "3")
    assert (code, lines) == (0, ["3 seeds from 0: fine"])
    code, lines = simulated("--count", "100")
    assert code == 1
    line = lines[-1].removeprefix("replay: ")
    assert line.endswith(f"-m headwater.kit.simulate {__name__}:fails_for_three --seed 3")
    again = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert (again.returncode, "AssertionError: three" in again.stderr, "# here" in again.stdout) == (
        1,
        True,
        True,
    )
