"""When trouble of a destination is worth a person's attention.

What does not answer now mostly comes back by itself: a server that is started again, a connection that was cut, the
node of a cluster that holds the file of DuckDB. That is a warning, said once, and becomes an error after
``PATIENCE_S``. What will not come right by itself is an error at once. Status shows the destination as paused in both.
"""

from __future__ import annotations

from headwater.kit.errors import HeadwaterError, Unavailable

PATIENCE_S = 60.0
"""Longer than a node or a server takes to be stopped and started in order."""
WAITS, PAUSED = "destination_waits", "destination_paused"


class Alarm:
    """What was said of the trouble of one destination; pure."""

    def __init__(self) -> None:
        self.since_ns: int | None = None
        """When the trouble began; None: there is none."""
        self.said = ("", "")

    def look(self, error: HeadwaterError, now_ns: int) -> str:
        """The happening to tell now; "" where it was told already."""
        if self.since_ns is None:
            self.since_ns = now_ns
        patient = isinstance(error, Unavailable) and now_ns - self.since_ns < PATIENCE_S * 1e9
        # connections fail in several ways while one thing is away; of what a person must mend, each is news
        saying = (WAITS, "") if patient else (PAUSED, error.code)
        if saying == self.said:
            return ""
        self.said = saying
        return saying[0]

    def over(self) -> None:
        """It is well again, or somebody decided."""
        self.since_ns, self.said = None, ("", "")
