"""One thread with a queue: work that blocks (syncing, zeroing) beside an event loop or a batch loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol, TypeVar

T = TypeVar("T")


class Submit(Protocol):
    """Runs work elsewhere, one piece after the other, in order; a simulation runs it as it likes."""

    def __call__(self, work: Callable[[], None], /) -> None: ...


class Thread:
    """A daemon thread that runs what is submitted, in order. Work must catch its own errors."""

    def __init__(self, name: str) -> None:
        self.queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def __call__(self, work: Callable[[], None], /) -> None:
        self.queue.put(work)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Let it finish what was submitted; False when it did not within the time."""
        self.queue.put(None)
        self.thread.join(timeout_s)
        return not self.thread.is_alive()

    def _run(self) -> None:
        while (work := self.queue.get()) is not None:
            work()


async def answer(submit: Submit, work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, when it has been run elsewhere, after all that was submitted before.

    On cancellation it is run nevertheless: who must not have two pieces of work at once submits both to one thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # T may be None
        else:
            future.set_exception(error)

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = work(), None
        except BaseException as error:
            outcome = None, error
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    submit(run)
    return await future


def inline(work: Callable[[], None], /) -> None:
    """Submit that runs the work at once, in the caller; for tests and tools."""
    work()
