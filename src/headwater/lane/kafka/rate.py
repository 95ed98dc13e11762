"""A rate cap over all partitions of a member (K8): a bucket of tokens that may go into debt by one batch.

The group's rate is shared out by partitions: a member that owns two of six has a third of it. The bucket holds
``BURST_S`` of the rate and a batch is never larger than that, so over ten seconds the error stays below 10 %.
"""

from __future__ import annotations

import asyncio

from headwater.kit.clock import Clock

BURST_S = 0.25


class Rate:
    """Shared by the partitions of one member."""

    def __init__(self, events_per_s: float, clock: Clock) -> None:
        """``events_per_s`` of the whole group; 0 is no limit."""
        self.events_per_s = events_per_s
        self.clock = clock
        self.share = 1.0
        self.tokens = 0.0
        self.at_ns = clock.boot_ns()
        self.turn = asyncio.Lock()

    @property
    def own(self) -> float:
        """This member's part of the rate, events per second."""
        return self.events_per_s * self.share

    @property
    def batch_events_max(self) -> int:
        return max(1, int(self.own * BURST_S)) if self.events_per_s else 1 << 30

    def owns(self, partitions: int, of_all: int) -> None:
        """This member has so many of all partitions."""
        self.refill()
        self.share = partitions / of_all if of_all else 0.0

    async def take(self, events: int) -> None:
        """Wait until so many events may go; first come, first served."""
        if not self.events_per_s:
            return
        async with self.turn:
            self.refill()
            while self.tokens < 0:
                await self.clock.sleep(min(1.0, -self.tokens / self.own) if self.own else 0.1)
                self.refill()
            self.tokens -= events

    def refill(self) -> None:
        now = self.clock.boot_ns()
        self.tokens = min(self.own * BURST_S, self.tokens + (now - self.at_ns) / 1e9 * self.own)
        self.at_ns = now
