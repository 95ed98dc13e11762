"""Answers that wait for more than this disk: for copies on other nodes (copied.py), for a destination (arrived.py).

The log releases a request when its block is on this disk; then its promise waits for what its key asks beyond that. On
one connection answers go in the order of requests: whoever came behind such a request, at whatever level, is answered
after it. Other connections never wait for it, and while nobody asks for more, nothing is kept here.
"""

from __future__ import annotations

from typing import Protocol

from headwater.kit.errors import HeadwaterError

ANYWHERE = -1
"""In place of a partition: the events of the request may be in any of them."""


class Waiter(Protocol):
    """Whose promise is to be kept."""

    def released(self, error: HeadwaterError | None) -> None: ...


class Further:
    """What is waited for behind this disk."""

    def __init__(self) -> None:
        self.waits = 0
        """Promises that wait for it, or will once they are durable here."""

    def short(self) -> HeadwaterError | None:
        """Why nothing more may wait now; None where it may."""
        raise NotImplementedError

    def durable(self, promise: Promise) -> None:
        """This one is on this disk: settle it when the rest of what its key asks is true, or its time is over."""
        raise NotImplementedError


class Promise:
    """One request that waits: the log's waiter, in place of its connection."""

    __slots__ = ("due_ns", "error", "further", "kept", "owed", "partition", "seq", "waiter")

    def __init__(self, owed: Owed, waiter: Waiter, further: Further | None) -> None:
        """``further``: None for a request that only stands behind one that waits."""
        self.owed = owed
        self.waiter = waiter
        self.further = further
        self.seq = 0
        """The log's next number after its events; set when they are appended."""
        self.partition = ANYWHERE
        self.due_ns = 0
        self.error: HeadwaterError | None = None
        self.kept = False
        """Nothing is waited for any more, but perhaps those before it on its connection."""

    def released(self, error: HeadwaterError | None) -> None:
        """Its block is durable here, or the log failed."""
        if error is None and self.further is not None:
            self.further.durable(self)
        else:
            self.settle(error)

    def settle(self, error: HeadwaterError | None = None) -> None:
        """It is true, or ``error`` says why not."""
        self.error = error
        self.kept = True
        if self.further is not None:
            self.further.waits -= 1
        self.owed.pay(self.waiter)


class Owed:
    """The connections that wait, each with its promises in the order of its requests."""

    def __init__(self) -> None:
        self.by_waiter: dict[Waiter, list[Promise]] = {}
        """Lists, since most have one entry: an empty deque takes 760 bytes."""

    def promise(self, waiter: Waiter, further: Further | None) -> Promise:
        """Stand in for a connection."""
        made = Promise(self, waiter, further)
        if further is not None:
            further.waits += 1
        self.by_waiter.setdefault(waiter, []).append(made)
        return made

    def pay(self, waiter: Waiter) -> None:
        """Answer what nobody waits for any more, up to the first promise that is not kept."""
        promises = self.by_waiter[waiter]
        while promises and promises[0].kept:
            waiter.released(promises.pop(0).error)
        if not promises:
            self.by_waiter.pop(waiter, None)
