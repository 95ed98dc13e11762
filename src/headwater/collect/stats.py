"""What a worker counts: plain numbers, read by reports at most five times a second. Labels are few and ours."""

from __future__ import annotations

from typing import Any


class Stats:
    """Counters since the start of the process."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], list[int]] = {}
        self.refused: dict[str, int] = {}
        self.accepted_events = 0
        self.refused_events = 0
        self.dropped_events = 0
        self.body_bytes = 0
        self.connections_opened = 0
        self.connections_refused = 0
        self.lost_answers = 0
        self.commits = 0
        self.commit_ns = 0

    def tally(self, route: str, status: int) -> list[int]:
        """The cell that counts requests of one route and status."""
        return self.requests.setdefault((route, status), [0])

    def count(self, route: str, status: int) -> None:
        """One request was answered."""
        self.tally(route, status)[0] += 1

    def refuse(self, code: str, events: int = 1) -> None:
        """Events or requests were refused; ``code`` is one of ours."""
        self.refused[code] = self.refused.get(code, 0) + events

    def report(self) -> dict[str, Any]:
        """All of it, as JSON would have it."""
        requests: dict[str, dict[str, int]] = {}
        for (route, status), (number,) in sorted(self.requests.items()):
            if number:
                requests.setdefault(route, {})[str(status)] = number
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {**numbers, "requests": requests, "refused": dict(self.refused)}
