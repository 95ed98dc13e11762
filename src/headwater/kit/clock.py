"""Clocks. ``boot_ns`` never jumps and is the same for every process of a machine; ``wall_ns`` may jump.

*Node time* (protocol.md §1, §17.5) is boot time plus one offset that the supervisor reads at start and
publishes; it is what stamps, windows and retention use, so that a wall clock that jumps moves nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def boot_ns(self) -> int:
        """Nanoseconds since the machine started (CLOCK_BOOTTIME); never goes back while it is up."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970 by the wall clock; may jump either way."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, cancellable."""
        ...

    def block(self, seconds: float) -> None:
        """Wait in a thread or process of its own, never on an event loop."""
        ...


class SystemClock:
    """The machine's clocks."""

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def wall_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def block(self, seconds: float) -> None:
        time.sleep(seconds)
