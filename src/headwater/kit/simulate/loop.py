"""An asyncio event loop on virtual time: no selector, no threads, no waiting; one seed gives one history.

What it keeps of asyncio's promises: callbacks of ``call_soon`` run in the order in which they were given, timers in
the order of their deadlines. What asyncio leaves open is drawn from the seed: the order of timers that are due at
the same moment, and when the work given to ``run_in_executor`` (a "thread") is done. Such work runs whole, in one
step, up to ``thread_delay_s_max`` [5 ms] later; the simulated wire uses timers, so its deliveries are drawn too.

When nothing is ready, time jumps to the next timer. When there is none, nothing can ever happen again: ``Deadlock``
says who waits. A history of more than ``steps_max`` steps is a ``Livelock``.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from asyncio import base_events, events
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from headwater.kit.simulate.clock import Time

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits and no timer is set."""


class Livelock(Exception):
    """The history has no end within its bound."""


class DrawnTimer(asyncio.TimerHandle):
    """A timer; among those of one moment the seed decides."""

    __slots__ = ("draw",)
    _when: float
    draw: float

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, DrawnTimer):
            return NotImplemented
        return (self._when, self.draw) < (other._when, other.draw)


class Jumper:
    """Stands where the loop expects a selector: instead of waiting it lets time pass."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self.loop.count_step()
        if timeout is None:
            raise Deadlock(self.loop.describe())
        if timeout > 0:
            self.loop.virtual.advance_ns(max(1, math.ceil(timeout * 1e9)))
        return []


class SimLoop(base_events.BaseEventLoop):
    """See the module. Sockets, signals and child processes do not exist here (NotImplementedError)."""

    def __init__(
        self,
        seed: int,
        time: Time | None = None,
        *,
        thread_delay_s_max: float = 0.005,
        steps_max: int = 2_000_000,
    ) -> None:
        super().__init__()
        self.virtual = time or Time()
        self.random = random.Random(f"loop {seed}")
        self.thread_delay_s_max = thread_delay_s_max
        self.steps_max = steps_max
        self.steps = 0
        self.unhandled: list[dict[str, Any]] = []
        self._selector = Jumper(self)  # what BaseEventLoop._run_once asks for events
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _, context: self.unhandled.append(context))

    def time(self) -> float:
        return self.virtual.now_ns / 1e9

    def call_at(  # type: ignore[override]  # the stub's variadic generics say the same
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._check_closed()  # type: ignore[attr-defined]
        timer = DrawnTimer(when, callback, args, self, context)
        timer.draw = self.random.random()
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """``func`` runs whole, in one step, a drawn time later; a cancelled call that has not begun never runs."""
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                result = func(*args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)

        self.call_later(self.random.random() * self.thread_delay_s_max, work)
        return done

    def count_step(self) -> None:
        self.steps += 1
        if self.steps > self.steps_max:
            raise Livelock(f"no end after {self.steps_max} steps; {self.describe()}")

    def describe(self) -> str:
        """Who waits, and where."""
        lines = [f"at {self.time():.6f} s nothing is ready and no timer is set; these wait:"]
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack(limit=1)
            where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "?"
            lines.append(f"  {task.get_name()} at {where}")
        return "\n".join(lines)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who could be woken."""


def run(main: Coroutine[Any, Any, T], seed: int = 0, time: Time | None = None, **bounds: Any) -> T:
    """Run a coroutine on a fresh loop, to its end. An error that no task waited for is raised at the end."""
    loop = SimLoop(seed, time, **bounds)
    before = events._get_running_loop()
    if before is not None:
        raise RuntimeError("a simulated loop cannot run inside another loop")
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(main)
        for context in loop.unhandled:
            raise context.get("exception") or RuntimeError(context["message"])
        return result
    finally:
        finish(loop)
        asyncio.set_event_loop(None)


def finish(loop: SimLoop) -> None:
    """Cancel what is left and close; a task that refuses to end is given up."""
    tasks = asyncio.all_tasks(loop)
    for task in sorted(tasks, key=lambda task: task.get_name()):
        task.cancel()
    loop.steps = 0
    try:
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except (Deadlock, Livelock):
        pass
    finally:
        loop.close()
