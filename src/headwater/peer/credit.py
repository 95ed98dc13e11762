"""Credit: how much a sender may have on its way that the receiver has not done with, in events and bytes (C7).

The receiver grants *totals* since the connection began ("up to the 20,000th event and the 40 millionth byte"), so
that a grant that comes twice, late, or after a newer one does no harm. ``Spending`` is the sender's side,
``Granting`` the receiver's. Both begin with the same window and no frame is needed before the first one is sent;
the receiver grants again when a quarter of its window was given back, not for each frame. A sender that goes over
its credit breaks the rules, and the receiver says so.

What is larger than the whole window can never be sent and is refused at once; a window must hold the largest frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from headwater.kit.errors import Lost, Rejected

EVENTS_WINDOW = 8192
BYTES_WINDOW = 16 * 1024 * 1024


class Amount(NamedTuple):
    """Events and bytes; as totals since the connection began, or of one frame."""

    events: int
    size_bytes: int


class Spending:
    """The sender's side. Those who wait are served in the order in which they came."""

    def __init__(self, events_window: int = EVENTS_WINDOW, bytes_window: int = BYTES_WINDOW) -> None:
        self.window = Amount(events_window, bytes_window)
        self.granted = self.window
        self.spent = Amount(0, 0)
        self.waiting: deque[tuple[asyncio.Future[None], Amount]] = deque()
        self.closed = False

    @property
    def left(self) -> Amount:
        """What may be sent now."""
        return Amount(
            self.granted.events - self.spent.events, self.granted.size_bytes - self.spent.size_bytes
        )

    def fits(self, events: int, size_bytes: int) -> bool:
        """Whether so much may be sent now, were nobody waiting."""
        left = self.left
        return events <= left.events and size_bytes <= left.size_bytes

    def take_now(self, events: int, size_bytes: int) -> bool:
        """Spend it if it fits and nobody waits; False: nothing was spent. Rejected: it never fits."""
        self.check(events, size_bytes)
        if self.waiting or not self.fits(events, size_bytes):
            return False
        self.spend(events, size_bytes)
        return True

    async def take(self, events: int, size_bytes: int) -> None:
        """Spend it, waiting for a grant where it does not fit. Rejected: it never fits. Lost: closed meanwhile.
        Nothing was spent on cancellation."""
        if self.take_now(events, size_bytes):
            return
        entry = (asyncio.get_running_loop().create_future(), Amount(events, size_bytes))
        self.waiting.append(entry)
        try:
            await entry[0]
        except asyncio.CancelledError:
            if entry in self.waiting:
                self.waiting.remove(entry)
            elif not entry[0].cancelled() and entry[0].exception() is None:
                self.spend(-events, -size_bytes)  # it came in the same step: given back
            self.serve()
            raise

    def grant(self, events_total: int, bytes_total: int) -> None:
        """The receiver takes so much since the connection began. Less than before means nothing."""
        self.granted = Amount(
            max(self.granted.events, events_total), max(self.granted.size_bytes, bytes_total)
        )
        self.serve()

    def close(self) -> None:
        """No more will be granted: those who wait get Lost."""
        self.closed = True
        while self.waiting:
            turn, _ = self.waiting.popleft()
            if not turn.done():
                turn.set_exception(Lost("no more credit will come", code="credit_closed"))

    def check(self, events: int, size_bytes: int) -> None:
        if self.closed:
            raise Lost("no more credit will come", code="credit_closed")
        if events > self.window.events or size_bytes > self.window.size_bytes:
            raise Rejected(
                f"{events} events of {size_bytes} bytes at once",
                code="credit_size",
                help=f"the credit is {self.window.events} events, {self.window.size_bytes} bytes: send smaller batches",
            )

    def spend(self, events: int, size_bytes: int) -> None:
        self.spent = Amount(self.spent.events + events, self.spent.size_bytes + size_bytes)

    def serve(self) -> None:
        """Let those who wait have theirs, as far as it goes, in order."""
        while self.waiting:
            turn, amount = self.waiting[0]
            if not turn.done():
                if not self.fits(*amount):
                    return
                self.spend(*amount)
                turn.set_result(None)
            self.waiting.popleft()


class Granting:
    """The receiver's side."""

    def __init__(self, events_window: int = EVENTS_WINDOW, bytes_window: int = BYTES_WINDOW) -> None:
        self.window = Amount(events_window, bytes_window)
        self.received = Amount(0, 0)
        self.done = Amount(0, 0)
        self.granted = self.window

    @property
    def held(self) -> Amount:
        """What was received and is not done with."""
        return Amount(
            self.received.events - self.done.events, self.received.size_bytes - self.done.size_bytes
        )

    def receive(self, events: int, size_bytes: int) -> None:
        """So much came. Rejected: more than was granted; nothing of it counts then."""
        after = Amount(self.received.events + events, self.received.size_bytes + size_bytes)
        if (
            events < 0
            or size_bytes < 0
            or after.events > self.granted.events
            or after.size_bytes > self.granted.size_bytes
        ):
            raise Rejected(
                f"{events} events of {size_bytes} bytes came, {self.granted.events - self.received.events} events"
                f" of {self.granted.size_bytes - self.received.size_bytes} bytes were granted",
                code="over_credit",
            )
        self.received = after

    def finish(self, events: int, size_bytes: int) -> Amount | None:
        """So much of what was received is done with. The new totals to grant, None: not worth a frame yet."""
        done = Amount(self.done.events + events, self.done.size_bytes + size_bytes)
        if done.events > self.received.events or done.size_bytes > self.received.size_bytes:
            raise ValueError(f"{done} done of {self.received} received")
        self.done = done
        return self.due()

    def due(self) -> Amount | None:
        """The totals to grant now, if a quarter of the window or more is to be given back."""
        totals = Amount(self.done.events + self.window.events, self.done.size_bytes + self.window.size_bytes)
        events, size_bytes = totals.events - self.granted.events, totals.size_bytes - self.granted.size_bytes
        if 4 * events < self.window.events and 4 * size_bytes < self.window.size_bytes:
            return None
        self.granted = totals
        return totals
