"""What others see of a destination: the report, the socket's ``status``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headwater.destinations.port import Counts, Drift
from headwater.event.position import Position, Vector


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a destination stands, for others to read: replaced whole after a round, never changed."""

    rows: int = 0
    vectors: Mapping[int, Vector] = field(default_factory=dict)
    streams: Mapping[str, Counts] = field(default_factory=dict)
    passed: Mapping[str, Position] = field(default_factory=dict)
    waiting_rows: int = 0
    age_s: float = 0.0
    """How long rows have been waiting; 0 when none are."""
    loaded_ns: int = 0
    """Node time of the last load of this process; 0 when there was none."""
    drift: Sequence[Drift] = ()
