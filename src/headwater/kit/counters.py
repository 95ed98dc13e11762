"""Numbers of one process that /metrics shows: counters that grow and gauges that are set.

Labels come from code, never from events: a family that grows over ``SERIES_MAX`` label sets puts the rest under
``other``, so that no input can blow up a scrape.
"""

from __future__ import annotations

from collections.abc import Iterator

SERIES_MAX = 200
Labels = tuple[tuple[str, str], ...]


class Counters:
    """Values by name and labels. Not thread-safe for one series; each is written by one thread."""

    def __init__(self) -> None:
        self.families: dict[str, dict[Labels, float]] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Let a counter grow; ``name`` ends in ``_total``."""
        series = self.families.setdefault(name, {})
        key = self.key(series, labels)
        series[key] = series.get(key, 0) + value

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        series = self.families.setdefault(name, {})
        series[self.key(series, labels)] = value

    def key(self, series: dict[Labels, float], labels: dict[str, str]) -> Labels:
        key = tuple(sorted(labels.items()))
        if key in series or len(series) < SERIES_MAX:
            return key
        return tuple((name, "other") for name, _ in key)

    def __iter__(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Every series: name, labels, value."""
        for name, series in list(self.families.items()):
            for labels, value in list(series.items()):
                yield name, dict(labels), value
