"""Waiting for other nodes: requests with a key at `ack: replicated` are answered when their block has its copies.

The log releases them when the block is on this disk, as it does all others; then they wait here, in that order, for the
number that the lane process tells in shared memory: up to where this worker's log is on enough other nodes
(lane/copies). A bell rings when it has grown; the worker looks every 50 ms besides. After ``timeout_s`` an answer says
503 `not_replicated`, and that the events are on disk here: sent again, they are duplicates by their message ids.

While too few nodes are there to hold copies, requests of these keys are answered 503 `not_enough_copies` at once, and
nothing of them is kept. Requests at other levels never wait here, but for those that came on the same connection behind
one that does (owed.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from headwater.collect.owed import Further, Promise
from headwater.kit.errors import Busy, HeadwaterError

RETRY_S = 2.0


class Cell(Protocol):
    """A number that another process writes."""

    def get(self) -> int: ...


class Copied(Further):
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
        super().__init__()
        self.seq = seq
        self.others = others
        self.ring = ring
        self.boot_ns = boot_ns
        self.copies = copies
        self.timeout_s = timeout_s
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

    def durable(self, promise: Promise) -> None:
        """From here on only copies are waited for, and only so long."""
        promise.due_ns = self.boot_ns() + int(self.timeout_s * 1e9)
        self.waiting.append(promise)
        self.look()

    def committed(self) -> None:
        """A block is durable: if anybody waits for copies, the lane is woken. From the commit thread."""
        if self.waits:
            self.ring()

    def look(self) -> None:
        """Answer those whose block has its copies, and those who have waited for too long."""
        waiting = self.waiting
        if not waiting:
            return
        seq, now_ns = self.seq.get(), self.boot_ns()
        while waiting:
            first = waiting[0]
            if first.seq > seq and now_ns < first.due_ns:
                return
            waiting.popleft().settle(None if first.seq <= seq else self.late)
