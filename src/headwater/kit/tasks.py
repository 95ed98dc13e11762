"""Tasks that live in a group with an owner; the only place where tasks are made.

::

    async with tasks.Group("peer link", report) as group:
        group.start("heartbeat", heartbeat())
        group.start("read", read())
        await group.run()            # until cancelled, or until a task fails
        ...
        await group.drain(5.0)       # what still runs may end by itself, then it is cancelled

Guarantees: no task outlives the block; a task that fails is reported once and ends the owner, since its error is
raised in the owner wherever that waits; a cancellation from outside always comes out as a cancellation, also when
tasks failed meanwhile (asyncio.TaskGroup of 3.11 swallows it then). A task that ends by returning is forgotten.
A task that does not end within ``cancel_s`` [5 s] of its cancellation is reported as stuck and left behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from headwater.kit.errors import Broken, Lost

Report = Callable[[str, str, BaseException], None]
"""Owner, name of the task, error; called once for each task that fails."""


class Group:
    """The tasks of one owner. Use as a context manager inside the task that owns them."""

    def __init__(self, owner: str, report: Report, *, cancel_s: float = 5.0) -> None:
        self.owner = owner
        self.report = report
        self.cancel_s = cancel_s
        self.tasks: dict[asyncio.Task[None], str] = {}
        self.failure: BaseException | None = None
        self.parent: asyncio.Task[Any] | None = None
        self.interrupted = False
        self.closing = False

    async def __aenter__(self) -> Self:
        self.parent = asyncio.current_task()
        return self

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task of this group. Lost when the group is closing: nothing is started then."""
        if self.closing or self.parent is None:
            work.close()
            raise Lost(f"{self.owner} takes no more tasks: {name}", code="group_closed")
        task = asyncio.get_running_loop().create_task(work, name=f"{self.owner}: {name}")
        self.tasks[task] = name
        task.add_done_callback(self.ended)
        return task

    def ended(self, task: asyncio.Task[None]) -> None:
        """A task is done: forget it; if it failed, report it and interrupt the owner."""
        name = self.tasks.pop(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        self.report(self.owner, name, error)
        if self.failure is not None:
            return
        error.add_note(f"in the task {name!r} of {self.owner}")
        self.failure = error
        if not self.closing and self.parent is not None and not self.parent.done():
            self.interrupted = True
            self.parent.cancel()

    async def run(self) -> None:
        """Wait until the owner is cancelled or a task fails; never returns otherwise."""
        await asyncio.get_running_loop().create_future()

    async def drain(self, deadline_s: float) -> list[str]:
        """Take no more tasks, let those that run end by themselves, cancel the rest; their names are returned.

        On cancellation the rest is cancelled at once.
        """
        self.closing = True
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=deadline_s)
        late = sorted(self.tasks.values())
        await self.cancel()
        return late

    async def cancel(self) -> None:
        """Cancel all tasks, wait for their end, at most ``cancel_s``; being cancelled does not cut this short."""
        self.closing = True
        loop = asyncio.get_running_loop()
        until = loop.time() + self.cancel_s
        interruption: asyncio.CancelledError | None = None
        for task in self.tasks:
            task.cancel()
        while self.tasks and (left := until - loop.time()) > 0:
            try:
                await asyncio.wait(list(self.tasks), timeout=left)
            except asyncio.CancelledError as error:
                interruption = error
        for task, name in list(self.tasks.items()):
            task.remove_done_callback(self.ended)
            del self.tasks[task]
            self.report(self.owner, name, Broken("a task does not end when cancelled", code="task_stuck"))
        if interruption is not None:
            raise interruption

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outside = isinstance(error, asyncio.CancelledError)
        if self.interrupted and self.parent is not None and self.parent.uncancel() == 0:
            outside = False  # the cancellation was our own, to wake the owner up
        await self.cancel()
        if outside:
            return  # the cancellation goes on
        if self.failure is not None and (error is None or isinstance(error, asyncio.CancelledError)):
            raise self.failure
