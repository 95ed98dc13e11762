"""Progress of long work, on a terminal only: one line that is written over."""

from __future__ import annotations

import sys

from headwater.kit.clock import Clock

INTERVAL_S = 0.2
WIDTH = 60


class Progress:
    """Call it as often as you like; ``clear`` before anything else is said."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.shown_ns = 0
        self.on = sys.stderr.isatty()

    def __call__(self, what: str, done: int, whole: int) -> None:
        now_ns = self.clock.boot_ns()
        if not self.on or now_ns - self.shown_ns < INTERVAL_S * 1e9:
            return
        self.shown_ns = now_ns
        of = f" of {size(whole)}" if whole else ""
        sys.stderr.write(f"\r{what}: {size(done)}{of}".ljust(WIDTH))
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self.on and self.shown_ns:
            sys.stderr.write("\r" + " " * WIDTH + "\r")


def size(count: int) -> str:
    """Bytes for people: ``812 B``, ``4.2 MB``."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"
