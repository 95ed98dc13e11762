"""A piece of the raw log processed again, each event by itself: what a replay hands to a destination's side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from headwater.event.position import Vector

if TYPE_CHECKING:
    import pyarrow as pa


class Range(NamedTuple):
    """Origins of one log: [first, end)."""

    writer: int
    log: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Events up to ``target``. Nothing is known here of other copies of an event's id.

    Every event in ``ranges`` is a row of ``rows``, a letter of ``dead`` (process/run.py DEAD_SCHEMA), or erased. What
    could not be read is in no range. Ranges do not overlap.
    """

    target: Vector
    ranges: tuple[Range, ...]
    rows: pa.Table | None
    dead: pa.Table | None
    facts: pa.Table | None = None
    """What the rows say of anonymous ids, and whose facts they need (identity/table.py)."""
    unread: int = 0
    """Events before ``target`` that could not be read."""

    @property
    def events(self) -> int:
        """How many."""
        return sum(one.end - one.first for one in self.ranges)
