"""Trying again: exponential back-off with full jitter, bounded, decided by the class of the error.

``Busy`` waits at least its ``retry_after_s``; ``Unavailable`` waits a random time below a ceiling that doubles.
Everything else (``Rejected``, ``Misconfigured``, ``Broken``, ``Lost`` and errors that nobody translated) is raised
at once: trying again would not help, or would hide it. Full jitter (a uniform draw from zero to the ceiling) spreads
the load of many callers best: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from headwater.kit.clock import Clock
from headwater.kit.errors import Busy, Unavailable
from headwater.kit.rng import Rng

T = TypeVar("T")
RESOLUTION = 1 << 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how long. The work is tried at most ``attempts_max`` times, within ``total_s_max``."""

    first_s: float = 0.1
    """Ceiling of the first wait."""
    ceiling_s_max: float = 30.0
    """The ceiling stops doubling here."""
    attempts_max: int = 10
    total_s_max: float = 300.0
    """No wait begins that would end later than this after the first try."""

    def ceiling_s(self, failures: int) -> float:
        """The longest wait after ``failures`` (1, 2, …) failures in a row."""
        return min(self.ceiling_s_max, self.first_s * 2.0 ** min(failures - 1, 62))

    def wait_s(self, error: BaseException, failures: int, spent_s: float, rng: Rng) -> float | None:
        """How long to wait before the next try; None: do not try again."""
        if not isinstance(error, Busy | Unavailable) or failures >= self.attempts_max:
            return None
        wait = self.ceiling_s(failures) * rng.below(RESOLUTION + 1) / RESOLUTION
        if isinstance(error, Busy):
            wait += max(0.0, error.retry_after_s)
        return wait if spent_s + wait <= self.total_s_max else None


Failed = Callable[[BaseException, int, float], None]
"""The error, how many failures in a row, and the seconds until the next try."""


def ignore(error: BaseException, failures: int, wait_s: float) -> None:
    """Says nothing about failures that are tried again."""


async def call(
    work: Callable[[], Awaitable[T]], backoff: Backoff, clock: Clock, rng: Rng, failed: Failed = ignore
) -> T:
    """Await ``work()`` until it succeeds; the last error is raised when the bounds are met. Cancellable."""
    begin = clock.boot_ns()
    failures = 0
    while True:
        try:
            return await work()
        except (Busy, Unavailable) as error:
            failures += 1
            wait = backoff.wait_s(error, failures, (clock.boot_ns() - begin) / 1e9, rng)
            if wait is None:
                raise
            failed(error, failures, wait)
        await clock.sleep(wait)


def call_blocking(
    work: Callable[[], T], backoff: Backoff, clock: Clock, rng: Rng, failed: Failed = ignore
) -> T:
    """The same in a thread or process of its own, never on an event loop."""
    begin = clock.boot_ns()
    failures = 0
    while True:
        try:
            return work()
        except (Busy, Unavailable) as error:
            failures += 1
            wait = backoff.wait_s(error, failures, (clock.boot_ns() - begin) / 1e9, rng)
            if wait is None:
                raise
            failed(error, failures, wait)
        clock.block(wait)
