"""How far the clocks of the nodes are apart.

A heartbeat says what its sender's wall clock showed (since protocol 2). That minus what ours shows when it comes is how
far the other clock is ahead, less the time on the way: of the last few, the greatest is the nearest. All are told
against the one in the middle, the hindmost of the two where there is no middle: so one wrong clock is called wrong by
every node, also by its own.

Nothing is decided by it. A clock that is further off than the dedupe window makes copies of its events unknown to the
others, and people compare times of different nodes; so somebody should be told long before (`cluster.clock_warning_s`).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

SAMPLES = 5
"""Heartbeats that count; a clock that was set is seen after so many."""
STEADY = 3
"""Heartbeats for which a clock must be found wrong, or right, before it is told: when a clock is set, its own node
finds the others moved, one after the other."""


class Change(NamedTuple):
    """A clock has gone wrong, or is right again."""

    node: str
    ahead_s: float
    """Of most nodes; below 0: behind them."""
    wrong: bool


class Clocks:
    """What is known of the others' clocks. Pure; bounded by the nodes that ``ahead`` was last asked for."""

    def __init__(self, warning_s: float, heartbeat_s: float) -> None:
        self.warning_s = warning_s
        self.steady_ns = int(STEADY * heartbeat_s * 1e9)
        self.samples: dict[str, deque[int]] = {}
        self.wrong: set[str] = set()
        self.turning: dict[str, int] = {}
        """Since when a clock is found to be other than it was told."""

    def heard(self, node: str, theirs_ms: int, ours_ms: int) -> None:
        """A heartbeat came."""
        self.samples.setdefault(node, deque(maxlen=SAMPLES)).append(theirs_ms - ours_ms)

    def ahead(self, me: str, others: Collection[str]) -> dict[str, float]:
        """Of each node that is heard and says its clock, this one included: how many seconds it is ahead of most.
        Whoever is not among the ``others`` is forgotten."""
        self.samples = {node: known for node, known in self.samples.items() if node in others}
        found = {me: 0, **{node: max(known) for node, known in self.samples.items()}}
        middle = statistics.median_low(found.values())
        return {node: (at - middle) / 1000 for node, at in found.items()}

    def changes(self, ahead: dict[str, float], now_ns: int) -> list[Change]:
        """Whose clock has become wrong, or right again, since this was asked last. Right is below half of what is
        wrong, so that a clock at the edge is not told of again and again."""
        self.wrong &= ahead.keys()
        other = {
            node for node, seconds in ahead.items() if self.is_wrong(node, seconds) != (node in self.wrong)
        }
        self.turning = {node: self.turning.get(node, now_ns) for node in other}
        turned = [node for node, since_ns in self.turning.items() if now_ns - since_ns >= self.steady_ns]
        self.wrong ^= set(turned)
        return [Change(node, round(ahead[node], 1), node in self.wrong) for node in turned]

    def is_wrong(self, node: str, ahead_s: float) -> bool:
        """Whether a clock is found wrong now."""
        return abs(ahead_s) > (self.warning_s / 2 if node in self.wrong else self.warning_s)


def words(name: str, ahead_s: float, warning_s: float) -> str:
    """For people."""
    side = "ahead of" if ahead_s > 0 else "behind"
    return (
        f"the clock of {name} is {abs(ahead_s):.1f} s {side} that of most nodes (cluster.clock_warning_s is "
        f"{warning_s:g}): set it; beyond process.dedupe_window_s copies that come through that node are not known"
    )
