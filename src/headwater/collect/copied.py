"""Waiting for other nodes: requests with a key at `ack: replicated` are answered when their block has its copies.

The log releases them when the block is on this disk, as it does all others; then they wait here, in that order, for the
number that the lane process tells in shared memory: up to where this worker's log is on enough other nodes
(lane/copies). A bell rings when it has grown; the worker looks every 50 ms besides. After ``timeout_s`` an answer says
503 `not_replicated`, and that the events are on disk here: sent again, they are duplicates by their message ids.

While too few nodes are there to hold copies, requests of these keys are answered 503 `not_enough_copies` at once, and
nothing of them is kept. Requests at other levels never wait here, but for those that came on the same connection behind
one that does: answers go in the order of requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from headwater.kit.errors import Busy, HeadwaterError

RETRY_S = 2.0


class Cell(Protocol):
    """A number that another process writes."""

    def get(self) -> int: ...


class Waiter(Protocol):
    """Whose promise is to be kept."""

    def released(self, error: HeadwaterError | None) -> None: ...


class Promise:
    """One request that waits: the log's waiter, in place of its connection."""

    __slots__ = ("copied", "due_ns", "error", "replicated", "seq", "waiter")

    def __init__(self, copied: Copied, waiter: Waiter, replicated: bool) -> None:
        self.copied = copied
        self.waiter = waiter
        self.replicated = replicated
        self.seq = 0
        """The log's next number after its events; set when they are appended."""
        self.due_ns = 0
        self.error: HeadwaterError | None = None

    def released(self, error: HeadwaterError | None) -> None:
        """Its block is durable here, or the log failed."""
        self.error = error
        self.copied.durable(self)


class Copied:
    """What of a worker's log has its copies, and who waits for it."""

    def __init__(
        self,
        seq: Cell,
        others: Cell,
        ring: Callable[[], None],
        boot_ns: Callable[[], int],
        *,
        copies: int,
        timeout_s: float,
    ) -> None:
        """``seq``: the first number without enough copies; ``others``: nodes that could hold them; ``ring`` wakes the
        lane process."""
        self.seq = seq
        self.others = others
        self.ring = ring
        self.boot_ns = boot_ns
        self.copies = copies
        self.timeout_s = timeout_s
        self.owed: dict[Waiter, int] = {}
        """Connections that wait for copies, and how many answers they are owed."""
        self.waiting: deque[Promise] = deque()
        """Durable here."""
        self.late = Busy(
            f"the events are on this node's disk, but not yet on {copies - 1} other "
            f"{'node' if copies == 2 else 'nodes'}, after {timeout_s:g} s; sent again, they are duplicates",
            retry_after_s=RETRY_S,
            code="not_replicated",
            ack="disk",
        )

    def short(self) -> HeadwaterError | None:
        """Why no copies can be made now; None where they can."""
        there = self.others.get()
        if there >= self.copies - 1:
            return None
        return Busy(
            f"not enough nodes for copies: this one and {there} other{'s' if there != 1 else ''} are there, "
            f"{self.copies} are needed",
            retry_after_s=RETRY_S,
            code="not_enough_copies",
        )

    def promise(self, waiter: Waiter, *, replicated: bool) -> Promise:
        """Stand in for a connection."""
        self.owed[waiter] = self.owed.get(waiter, 0) + 1
        return Promise(self, waiter, replicated)

    def durable(self, promise: Promise) -> None:
        """From here on only copies are waited for, and only so long."""
        promise.due_ns = self.boot_ns() + int(self.timeout_s * 1e9)
        self.waiting.append(promise)
        self.look()

    def committed(self) -> None:
        """A block is durable: if anybody waits for copies, the lane is woken. From the commit thread."""
        if self.owed:
            self.ring()

    def look(self) -> None:
        """Answer those whose block has its copies, and those who have waited for too long."""
        waiting = self.waiting
        if not waiting:
            return
        seq, now_ns = self.seq.get(), self.boot_ns()
        while waiting:
            first = waiting[0]
            error = first.error
            if error is None and first.replicated and first.seq > seq:
                if now_ns < first.due_ns:
                    return
                error = self.late
            waiting.popleft()
            left = self.owed[first.waiter] - 1
            if left:
                self.owed[first.waiter] = left
            else:
                del self.owed[first.waiter]
            first.waiter.released(error)
