"""A bounded queue between tasks of one event loop: limits in events *and* bytes, and never a silent drop.

Full means what the caller says: ``offer`` raises Busy, ``put`` waits its turn (first come, first served), ``shed``
drops the new item and counts it under a reason. The number of callers that wait in ``put`` is bounded by the
callers themselves: each waits in its own task.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Generic, NamedTuple, TypeVar

from headwater.kit.errors import Busy, Lost, Rejected

T = TypeVar("T")


class Entry(NamedTuple, Generic[T]):
    """An item with what it counts for."""

    item: T
    events: int
    size_bytes: int


class BoundedQueue(Generic[T]):
    """First in, first out. ``events`` and ``size_bytes`` are what is in it now; ``shed_events`` counts per reason."""

    def __init__(self, name: str, *, events_max: int, bytes_max: int, retry_after_s: float = 1.0) -> None:
        self.name = name
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.retry_after_s = retry_after_s
        self.entries: deque[Entry[T]] = deque()
        self.events = 0
        self.size_bytes = 0
        self.shed_events: Counter[str] = Counter()
        self.closed = False
        self.putters: deque[tuple[asyncio.Future[None], Entry[T]]] = deque()
        self.getters: deque[asyncio.Future[None]] = deque()

    def fits(self, events: int, size_bytes: int) -> bool:
        """Whether an item of this size would be taken now."""
        return self.events + events <= self.events_max and self.size_bytes + size_bytes <= self.bytes_max

    def offer(self, item: T, events: int = 1, size_bytes: int = 0) -> None:
        """Put or raise: Busy when full or others wait, Rejected when it can never fit, Lost when closed."""
        self.check(events, size_bytes)
        if self.putters or not self.fits(events, size_bytes):
            raise Busy(f"{self.name} is full", code="queue_full", retry_after_s=self.retry_after_s)
        self.append(item, events, size_bytes)

    async def put(self, item: T, events: int = 1, size_bytes: int = 0) -> None:
        """Put when there is room, in the order of asking; Rejected when it can never fit, Lost when closed.

        On cancellation the item was not put, unless room came in the same step of the loop.
        """
        self.check(events, size_bytes)
        if not self.putters and self.fits(events, size_bytes):
            self.append(item, events, size_bytes)
            return
        waiting = (asyncio.get_running_loop().create_future(), Entry(item, events, size_bytes))
        self.putters.append(waiting)
        try:
            await waiting[0]
        except asyncio.CancelledError:
            if waiting in self.putters:
                self.putters.remove(waiting)
                self.admit()
            raise

    def shed(self, item: T, reason: str, events: int = 1, size_bytes: int = 0) -> bool:
        """Put, or drop the item and count it under ``reason``; True when it was put."""
        if self.closed or self.putters or not self.fits(events, size_bytes):
            self.shed_events[reason] += events
            return False
        self.append(item, events, size_bytes)
        return True

    async def get(self) -> T:
        """The oldest item, when there is one. Lost when the queue is closed and empty. Loses nothing when cancelled."""
        while not self.entries:
            if self.closed:
                raise Lost(f"{self.name} is closed", code="queue_closed")
            turn = asyncio.get_running_loop().create_future()
            self.getters.append(turn)
            try:
                await turn
            except BaseException:
                if turn in self.getters:
                    self.getters.remove(turn)
                elif self.entries:
                    wake(self.getters)
                raise
        return self.take()

    def take(self) -> T:
        """The oldest item, without waiting; IndexError when there is none."""
        entry = self.entries.popleft()
        self.events -= entry.events
        self.size_bytes -= entry.size_bytes
        self.admit()
        if self.entries:
            wake(self.getters)
        return entry.item

    def close(self) -> None:
        """Take no more; what is in it can still be got. Those who wait to put get Lost."""
        self.closed = True
        while self.putters:
            turn, _ = self.putters.popleft()
            if not turn.done():
                turn.set_exception(Lost(f"{self.name} is closed", code="queue_closed"))
        while self.getters:
            wake(self.getters)

    def check(self, events: int, size_bytes: int) -> None:
        """Whether an item may enter at all."""
        if self.closed:
            raise Lost(f"{self.name} is closed", code="queue_closed")
        if events > self.events_max or size_bytes > self.bytes_max:
            raise Rejected(
                f"{events} events of {size_bytes} bytes never fit into {self.name}",
                code="queue_item_size",
                events_max=self.events_max,
                bytes_max=self.bytes_max,
            )

    def append(self, item: T, events: int, size_bytes: int) -> None:
        self.entries.append(Entry(item, events, size_bytes))
        self.events += events
        self.size_bytes += size_bytes
        wake(self.getters)

    def admit(self) -> None:
        """Take over the items of those who wait, as far as they fit, in order."""
        while self.putters:
            turn, entry = self.putters[0]
            if not self.fits(entry.events, entry.size_bytes):
                return
            self.putters.popleft()
            if not turn.cancelled():
                self.append(*entry)
                turn.set_result(None)


def wake(waiting: deque[asyncio.Future[None]]) -> None:
    """Let the first one that still waits go on."""
    while waiting:
        turn = waiting.popleft()
        if not turn.done():
            turn.set_result(None)
            return
