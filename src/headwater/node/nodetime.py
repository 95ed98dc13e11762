"""Node time: wall clock at the node's start, carried on by the clock that never jumps (protocol.md §17.5).

The offset is slewed towards the wall clock by at most 500 ppm, as NTP does, so stamps never run backwards; a wall
clock that jumps by a day moves nothing for as long as the node runs.
"""

from __future__ import annotations

from headwater.kit.clock import Clock

SLEW_PPM_MAX = 500


def first_offset_ns(clock: Clock) -> int:
    """The offset at a node's start."""
    return clock.wall_ns() - clock.boot_ns()


def slewed_ns(offset_ns: int, wall_ns: int, boot_ns: int, elapsed_ns: int) -> int:
    """The offset after ``elapsed_ns`` more, moved towards the wall clock as far as it may."""
    step = elapsed_ns * SLEW_PPM_MAX // 1_000_000
    return offset_ns + max(-step, min(step, wall_ns - boot_ns - offset_ns))
