"""Threads and processes of a simulation: one runs at a time, in an order that the seed draws.

Code that blocks (a processor's loop, a request to another process) runs in a thread of the machine, but never beside
anybody: the loop hands control to it and waits until it blocks or ends. Blocking is a timer or a future of the loop, so
virtual time passes meanwhile, and everybody else goes on. What replaces ``threading`` and ``clock.block`` is here.

A ``Life`` is a process: whatever was begun in its context (``life.begin``) belongs to it. It can die at any moment, and
none of its callbacks runs any more, no ``finally`` either (those of its threads do, so that they end; a dead process's
disk takes nothing). A ``Machine`` can stand still: what its processes would do waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from headwater.kit.simulate.clock import SimClock
from headwater.kit.simulate.loop import DrawnTimer, SimLoop
from headwater.kit.simulate.view import Dead

T = TypeVar("T")
LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("life")
CURRENT = threading.local()
"""``fiber``: what runs on this thread of the machine."""


class Machine:
    """What its processes do waits while it stands still."""

    def __init__(self, loop: ProcessLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.paused = False
        self.waiting: deque[asyncio.Handle] = deque()

    def resume(self) -> None:
        """Go on, with what was due first."""
        self.paused = False
        while self.waiting:
            handle = self.waiting.popleft()
            if not handle.cancelled():
                self.loop._ready.append(handle)  # type: ignore[attr-defined]


class Life:
    """One process, from its start to its death."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.loop = machine.loop
        self.name = name
        self.dead = False
        self.fibers: set[Fiber] = set()
        self.asked: set[asyncio.Future[Any]] = set()
        """Requests that it has taken; who asked learns of its death."""
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)
        self.loop.lives.append(self)
        self.number = len(self.loop.lives)
        """As others know it, who ask whether it is still there."""

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of this process."""
        return self.loop.create_task(work, name=self.name, context=self.context.copy())

    def kill(self) -> None:
        """It is gone; called from outside of it."""
        if self.dead:
            return
        self.dead = True
        for fiber in list(self.fibers):
            fiber.kill()
        for future in self.asked:
            if not future.done():
                future.set_exception(ConnectionResetError(f"{self.name} is gone"))


def held(handle: asyncio.Handle) -> bool:
    """Whether a callback may not run now; it is kept for later, or forgotten with its process."""
    life = handle._context.get(LIFE)  # type: ignore[attr-defined]
    if life is None:
        return False
    if life.dead:
        return True
    if life.machine.paused:
        life.machine.waiting.append(handle)
        return True
    return False


class HeldHandle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if not held(self):
            super()._run()


class HeldTimer(DrawnTimer):
    __slots__ = ()

    def _run(self) -> None:
        if not held(self):
            super()._run()


class ProcessLoop(SimLoop):
    """A loop whose callbacks belong to processes, and whose executor may block."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.idle: list[Carrier] = []
        self.pending: set[asyncio.Task[Any]] = set()
        self.lives: list[Life] = []

    def create_task(self, coro: Any, **words: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, **words)
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)
        return task

    def _call_soon(
        self, callback: Callable[..., object], args: Any, context: contextvars.Context | None
    ) -> asyncio.Handle:
        handle = HeldHandle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = HeldTimer(when, callback, args, self, context)
        timer.draw = self.random.random()
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """``func`` runs in a thread, a drawn time later."""
        done: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if done.cancelled():
                return
            try:
                result = func(*args)
            except Dead:
                raise
            except BaseException as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(result)

        Fiber(self, work).start(self.random.random() * self.thread_delay_s_max)
        return done

    def close(self) -> None:
        """Whatever still lives is dead; nobody is told."""
        for life in self.lives:
            life.kill()
        for task in self.pending:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):  # what it wants to do in the end it cannot do any more
                task.get_coro().close()
        self.pending.clear()
        for carrier in self.idle:
            carrier.end()
        super().close()


class Carrier:
    """A thread of the machine that runs one fiber after the other."""

    def __init__(self) -> None:
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()
        self.fiber: Fiber | None = None
        threading.Thread(target=self.run, name="simulated", daemon=True).start()

    def run(self) -> None:
        while True:
            self.go.acquire()
            if self.fiber is None:
                return
            self.fiber.live()
            self.back.release()

    def end(self) -> None:
        self.fiber = None
        self.go.release()


class Fiber:
    """A thread of the simulation. ``resume`` is called by the loop, ``park`` in the thread."""

    def __init__(self, loop: ProcessLoop, work: Callable[[], object]) -> None:
        self.loop = loop
        self.work = work
        self.context = contextvars.copy_context()
        self.outside = self.context.copy()
        """What the loop calls for it runs in here: the other one is entered."""
        self.life: Life | None = self.context.get(LIFE)
        self.carrier: Carrier | None = None
        self.dead = self.done = False
        self.parked = False
        self.error: BaseException | None = None
        self.waiters: list[Fiber] = []

    def start(self, delay_s: float = 0.0) -> None:
        """Begin, somewhat later."""
        if self.life is not None:
            if self.life.dead:
                return
            self.life.fibers.add(self)
        self.loop.call_later(delay_s, self.resume, context=self.outside)

    def live(self) -> None:
        """On its carrier."""
        CURRENT.fiber = self
        try:
            self.context.run(self.work)
        except Dead:
            pass
        except BaseException as error:
            self.error = error
        self.done = True
        CURRENT.fiber = None

    def resume(self) -> None:
        """Let it run until it blocks or ends."""
        if self.done or (self.carrier is not None and not self.parked):
            return
        if self.carrier is None:
            if self.dead:
                return
            self.carrier = self.loop.idle.pop() if self.loop.idle else Carrier()
            self.carrier.fiber = self
        self.parked = False
        self.carrier.go.release()
        self.carrier.back.acquire()
        if self.ended():
            self.loop.idle.append(self.carrier)
            if self.life is not None:
                self.life.fibers.discard(self)
            for waiter in self.waiters:
                waiter.wake()
            if self.error is not None and not self.dead:
                self.loop.call_exception_handler({"message": "a thread failed", "exception": self.error})

    def ended(self) -> bool:
        """Whether it is over, by now."""
        return self.done

    def wake(self) -> None:
        """Resume it soon."""
        self.loop.call_soon(self.resume, context=self.outside)

    def park(self) -> None:
        """Block until somebody resumes it."""
        if self.dead:
            raise Dead("thread")
        assert self.carrier is not None
        self.parked = True
        self.carrier.back.release()
        self.carrier.go.acquire()
        if self.dead:
            raise Dead("thread")

    def sleep(self, seconds: float) -> None:
        """Block for so long."""
        woken = False

        def wake() -> None:
            nonlocal woken
            woken = True
            self.resume()

        self.loop.call_later(max(seconds, 0.0), wake, context=self.outside)
        while not woken:
            self.park()

    def wait(self, future: asyncio.Future[T], timeout_s: float) -> T:
        """The result of a future. TimeoutError: not in time."""
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            self.resume()

        timer = self.loop.call_later(timeout_s, give_up, context=self.outside)
        future.add_done_callback(lambda _: self.resume(), context=self.outside)
        while not future.done() and not late:
            self.park()
        timer.cancel()
        if not future.done():
            raise TimeoutError
        return future.result()

    def kill(self) -> None:
        """Unwind it now."""
        self.dead = True
        if self.carrier is not None and not self.done:
            self.resume()


def current() -> Fiber:
    """The fiber that runs. RuntimeError: the loop itself would block."""
    fiber: Fiber | None = getattr(CURRENT, "fiber", None)
    if fiber is None:
        raise RuntimeError("the simulated loop itself would block here")
    return fiber


class ThreadClock(SimClock):
    """Blocking is for the thread that does it."""

    def block(self, seconds: float) -> None:
        fiber: Fiber | None = getattr(CURRENT, "fiber", None)
        if fiber is None:
            super().block(seconds)
        else:
            fiber.sleep(seconds)


class Lock:
    """threading.Lock and RLock."""

    def __init__(self) -> None:
        self.owner: Fiber | None = None
        self.depth = 0
        self.waiting: deque[Fiber] = deque()

    def acquire(self, blocking: bool = True) -> bool:
        me: Fiber | None = getattr(CURRENT, "fiber", None)
        while self.depth and self.owner is not me:
            if not blocking:
                return False
            fiber = current()
            self.waiting.append(fiber)
            fiber.park()
        self.owner, self.depth = me, self.depth + 1
        return True

    def release(self) -> None:
        self.depth -= 1
        if not self.depth and self.waiting:
            self.waiting.popleft().wake()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    """threading.Event."""

    def __init__(self) -> None:
        self.happened = False
        self.waiting: list[Fiber] = []

    def is_set(self) -> bool:
        return self.happened

    def set(self) -> None:
        self.happened = True
        for fiber in self.waiting:
            fiber.wake()
        self.waiting = []

    def clear(self) -> None:
        self.happened = False

    def wait(self, timeout: float | None = None) -> bool:
        fiber = current()
        if timeout is None:
            while not self.happened:
                self.waiting.append(fiber)
                fiber.park()
        elif not self.happened:
            self.waiting.append(fiber)
            timer = fiber.loop.call_later(timeout, fiber.resume, context=fiber.outside)
            fiber.park()
            timer.cancel()
            if fiber in self.waiting:
                self.waiting.remove(fiber)
        return self.happened


class Thread:
    """threading.Thread."""

    def __init__(self, target: Callable[..., object], args: tuple[Any, ...] = (), **_: object) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        self.fiber = Fiber(loop, lambda: target(*args))
        self.started = False

    def start(self) -> None:
        self.started = True
        self.fiber.start()

    def is_alive(self) -> bool:
        return self.started and not self.fiber.done

    def join(self, timeout: float | None = None) -> None:
        while self.is_alive():
            self.fiber.waiters.append(current())
            current().park()


class Worker:
    """kit.threads.Thread: what is submitted runs in order."""

    def __init__(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        self.loop = loop
        self.context = contextvars.copy_context()
        self.queue: deque[Callable[[], None]] = deque()
        self.running = False

    def __call__(self, work: Callable[[], None], /) -> None:
        self.queue.append(work)
        if not self.running:
            self.running = True
            fiber = self.context.copy().run(Fiber, self.loop, self.run)
            fiber.start(self.loop.random.random() * self.loop.thread_delay_s_max)

    def run(self) -> None:
        while self.queue:
            self.queue.popleft()()
        self.running = False

    def close(self, timeout_s: float = 10.0) -> bool:
        return True


class Queue:
    """queue.SimpleQueue."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.waiting: list[Fiber] = []

    def put(self, item: object) -> None:
        self.items.append(item)
        for fiber in self.waiting:
            fiber.wake()
        self.waiting = []

    def get(self) -> Any:
        while not self.items:
            self.waiting.append(current())
            current().park()
        return self.items.popleft()
