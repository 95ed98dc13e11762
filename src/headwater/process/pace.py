"""Which receive time the dedupe window is counted from, where each home has a clock of its own (protocol.md §13).

The window is one of receive time, as the home of an event says it. A home whose clock is wrong by a day must not push
the others' ids out of the window: so what no window reaches any more is counted from the hindmost home that was heard
from lately. One that is behind keeps ids for longer; the memory that they take is bounded apart (dedupe.Seen).
"""

from __future__ import annotations

from collections.abc import Iterable

from headwater.log.cut import home_of
from headwater.log.read import Block
from headwater.process.dedupe import MINUTE_NS


class HomeTimes:
    """The newest receive time of each home, and when it was heard here."""

    def __init__(self, window_minutes: int) -> None:
        self.window_ns = window_minutes * MINUTE_NS
        self.newest: dict[int, tuple[int, int]] = {}
        """Home → minute of receipt, boot time (ns)."""

    def take(self, blocks: Iterable[Block], boot_ns: int) -> int:
        """Take in what was just processed; the minute that the window is counted from, 0 where nothing is known."""
        found: dict[int, int] = {}
        for one in blocks:
            home = home_of(one.writer)
            found[home] = max(found.get(home, 0), one.header.node_time_ns)
        self.newest |= {home: (ns // MINUTE_NS, boot_ns) for home, ns in found.items()}
        self.newest = {h: one for h, one in self.newest.items() if boot_ns - one[1] <= self.window_ns}
        return min((minute for minute, _ in self.newest.values()), default=0)
