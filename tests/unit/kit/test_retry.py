import pytest

from headwater.kit import retry
from headwater.kit.errors import Broken, Busy, HeadwaterError, Lost, Misconfigured, Rejected, Unavailable
from headwater.kit.retry import Backoff
from headwater.kit.rng import SeededRng
from headwater.kit.simulate import loop
from headwater.kit.simulate.clock import SimClock, Time


class Work:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def run(work: Work, backoff: Backoff | None = None) -> tuple[str, float]:
    time = Time()
    result = retry.call_blocking(work, backoff or Backoff(), SimClock(time), SeededRng(1))
    return result, time.now_ns / 1e9


@pytest.mark.parametrize("kind", [Rejected, Misconfigured, Broken, Lost, HeadwaterError, ValueError])
def test_what_stays_wrong_is_never_tried_again(kind: type[Exception]) -> None:
    work = Work(kind("no"))
    with pytest.raises(kind):
        run(work)
    assert work.calls == 1


def test_unavailable_is_tried_until_it_works() -> None:
    assert run(Work(*[Unavailable("away")] * 4))[0] == "done"


def test_busy_waits_at_least_as_long_as_it_says() -> None:
    assert 7 <= run(Work(Busy("full", retry_after_s=7)))[1] <= 7.1


def test_waits_are_drawn_below_a_ceiling_that_doubles_up_to_its_bound() -> None:
    backoff = Backoff(first_s=1, ceiling_s_max=8, attempts_max=100, total_s_max=1e9)
    assert [backoff.ceiling_s(n) for n in (1, 2, 3, 4, 5, 1000)] == [1, 2, 4, 8, 8, 8]
    rng = SeededRng(2)
    waits = [backoff.wait_s(Unavailable("x"), 4, 0, rng) or 0.0 for _ in range(500)]
    assert 0 <= min(waits) < 1
    assert 7 < max(waits) <= 8


def test_attempts_and_total_time_are_bounded() -> None:
    work = Work(*[Unavailable("away")] * 50)
    with pytest.raises(Unavailable):
        run(work, Backoff(attempts_max=3))
    assert work.calls == 3
    work = Work(*[Busy("full", retry_after_s=10)] * 50)
    with pytest.raises(Busy):
        run(work, Backoff(attempts_max=50, total_s_max=35))
    assert work.calls == 4


def test_the_same_on_a_loop_and_each_failure_is_told() -> None:
    work = Work(Unavailable("away"), Busy("full", retry_after_s=2))
    told: list[tuple[str, int]] = []

    async def main() -> str:
        async def call() -> str:
            return work()

        return await retry.call(
            call,
            Backoff(),
            SimClock(time),
            SeededRng(1),
            lambda e, n, wait: told.append((type(e).__name__, n)),
        )

    time = Time()
    assert loop.run(main(), time=time) == "done"
    assert told == [("Unavailable", 1), ("Busy", 2)]
    assert time.now_ns >= 2e9
