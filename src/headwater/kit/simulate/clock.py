"""Simulated time: one number that all parts of a simulation share, and the clocks that a machine makes of it."""

from __future__ import annotations

import asyncio

DAY_S = 86_400
EPOCH_NS = 1_800_000_000 * 1_000_000_000
"""Wall time at the beginning of each simulation."""


class Time:
    """Virtual nanoseconds since the simulation began; only moves forward, and only when told to."""

    def __init__(self) -> None:
        self.now_ns = 0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.advance_ns(round(seconds * 1e9))

    def advance_ns(self, duration_ns: int) -> None:
        """Let time pass; negative durations are an error of the simulation."""
        if duration_ns < 0:
            raise ValueError(f"time does not go back: {duration_ns}")
        self.now_ns += duration_ns


class SimClock:
    """The clocks of one machine (kit.clock.Clock). ``reboot`` begins boot time again, as a real machine does."""

    def __init__(self, time: Time, *, up_s: float = 1000.0) -> None:
        self.time = time
        self.booted_ns = time.now_ns - round(up_s * 1e9)
        self.wall_offset_ns = EPOCH_NS

    def boot_ns(self) -> int:
        return self.time.now_ns - self.booted_ns

    def wall_ns(self) -> int:
        return self.time.now_ns + self.wall_offset_ns

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def block(self, seconds: float) -> None:
        """Time passes for everybody: a simulation has one thread."""
        self.time.advance(seconds)

    def jump_wall(self, seconds: float) -> None:
        """An operator or NTP sets the wall clock; boot time does not notice."""
        self.wall_offset_ns += round(seconds * 1e9)

    def reboot(self, down_s: float = 30.0) -> None:
        """The machine was off for ``down_s``; boot time starts again near zero, wall time goes on."""
        self.time.advance(down_s)
        self.booted_ns = self.time.now_ns - 1
