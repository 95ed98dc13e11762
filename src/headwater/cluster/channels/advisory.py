"""Advisories: what a channel tells of consumers that fall behind and events that cannot be delivered (R1, R2).

An advisory is a value handed to a function; that function must not wait. A consumer is slow when its oldest event has
waited for 2 s, or its share of the channel is fuller than 85 %; it is normal again when it has been below 25 %, and
prompt, for 2 s. One advisory when it becomes slow, one when it is normal again, at most one each 30 s between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

SLOW_AGE_S = 2.0
SLOW_SHARE = 0.85
NORMAL_SHARE = 0.25
NORMAL_S = 2.0
REMIND_S = 30.0

Reason = Literal[
    "slow_consumer", "no_owner", "missing_key", "too_large", "not_owner", "failed", "lost",
    "spool_full", "spool_failed",
]  # fmt: skip
"""``failed``: the consumer's handler raised. ``spool_full``, ``spool_failed``: the advice listener takes no more."""
Action = Literal["waiting", "spooling", "rejected", "resent", "dropped", "resumed"]


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, to how many events, and what was done. ``event`` is the one concerned, where it is one."""

    id: str = ""
    """Of this advisory: the producer and a number that rises."""
    topic: str
    reason: Reason
    action: Action
    time_ns: int
    node: str
    """Who says it."""
    peer: str = ""
    """The consumer it is about."""
    events: int = 0
    size_bytes: int = 0
    oldest_age_s: float = 0.0
    slots: tuple[int, int] | None = None
    """The least and the greatest slot of the events, where they have any."""
    error: str = ""
    """What failed, in the words of who failed."""
    event: bytes = b""


Advise = Callable[[Advisory], None]


class Slowness:
    """Decides when one consumer is slow. Times are seconds of one clock that never goes back."""

    def __init__(self) -> None:
        self.slow = False
        self.slow_since_s = 0.0
        self.told_s = 0.0
        self.normal_since_s: float | None = None

    def look(self, now_s: float, oldest_age_s: float, share: float) -> Action | None:
        """What to advise now, if anything. ``share``: how full the channel's bound is because of it, 0 to 1."""
        bad = oldest_age_s > SLOW_AGE_S or share > SLOW_SHARE
        if not self.slow:
            if not bad:
                return None
            self.slow, self.slow_since_s, self.told_s, self.normal_since_s = True, now_s, now_s, None
            return "waiting"
        if bad or share > NORMAL_SHARE:
            self.normal_since_s = None
        elif self.normal_since_s is None:
            self.normal_since_s = now_s
        elif now_s - self.normal_since_s >= NORMAL_S:
            self.slow = False
            return "resumed"
        if bad and now_s - self.told_s >= REMIND_S:
            self.told_s = now_s
            return "waiting"
        return None
