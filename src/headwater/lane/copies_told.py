"""Where the lane process tells collect workers how far their logs are copied, and how the two wake each other.

``run/copies/<log>`` is a mapped u64: everything of the log below this number is on enough other nodes. ``others`` is the
number of other nodes that could hold copies. ``home.bell`` wakes the lane process, ``collect-<n>.bell`` a worker
(kit/bell). All of it is worthless after a start of the node, like all of ``run/``.
"""

from __future__ import annotations

FOLDER = "copies"
"""Below ``run/``."""


def folder(run: str) -> str:
    """Where all of it lies."""
    return f"{run}/{FOLDER}"


def cell(run: str, log: int) -> str:
    """How far a log is copied."""
    return f"{run}/{FOLDER}/{log:016x}"


def others(run: str) -> str:
    """How many nodes could hold copies."""
    return f"{run}/{FOLDER}/others"


def home_bell(run: str) -> str:
    """Rings when something waits for copies."""
    return f"{run}/{FOLDER}/home.bell"


def collect_bell(run: str, worker: int) -> str:
    """Rings when more of a worker's log is copied."""
    return f"{run}/{FOLDER}/collect-{worker}.bell"
