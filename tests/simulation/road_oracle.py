"""What the road owes from the door to a destination; knows the events, and nothing of how they are carried.

``Obligations`` hears of every durable event, every commit, and every stretch that an operator left out. It looks at a
destination's rows and position rows after each step, and raises ``Violation`` with the id of the invariant.

The premise of exactly once (protocol.md §0) is part of it: of an id whose copies came further apart than the dedupe
window, at least one row is owed and at most one for each copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from headwater.destinations.port import PositionRow
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector, WriterId
from tests.simulation.log_oracle import violated

MINUTE_NS = 60_000_000_000
Skips = Mapping[int, Sequence[tuple[Vector, Vector]]]
"""Partition → the stretches that an operator left out of a destination, rising."""


class Copy(NamedTuple):
    """One durable event."""

    writer: WriterId
    position: Position
    minute: int


class Row(NamedTuple):
    """A row, as far as it matters here."""

    id: str
    writer: int
    log: int
    seq: int
    partition: int


@dataclass
class Obligations:
    """The oracle of one history."""

    window_minutes: int
    copies: dict[str, list[Copy]] = field(default_factory=dict)
    partition: dict[str, int] = field(default_factory=dict)
    ends: dict[WriterId, Position] = field(default_factory=dict)
    chain: dict[int, Vector] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)

    def durable(self, name: str, partition: int, copy: Copy) -> None:
        """An event was acknowledged."""
        self.copies.setdefault(name, []).append(copy)
        if self.partition.setdefault(name, partition) != partition:
            raise ValueError("copies of an id have one partition")
        self.ends[copy.writer] = Position(copy.position.log, copy.position.seq + 1)

    def committed(self, entry: Commit) -> None:
        """A commit is durable."""
        for p in entry.partitions:
            if entry.origin != self.chain.get(p, EMPTY):
                violated("INV-PROC-2", f"partition {p}: {entry.origin} follows {self.chain.get(p)}")
            if entry.config_epoch < self.epochs.get(p, 0):
                violated("INV-PROC-4", f"partition {p}: epoch {entry.config_epoch} after {self.epochs[p]}")
            self.chain[p], self.epochs[p] = entry.target, entry.config_epoch

    def near(self, name: str) -> bool:
        """Whether the premise holds for an id: all its copies came within the window, less a minute for the time
        between receipt and the closing of a block."""
        minutes = [copy.minute for copy in self.copies[name]]
        return max(minutes) - min(minutes) < self.window_minutes

    def examine(
        self,
        place: str,
        rows: Sequence[Row],
        positions: Mapping[int, PositionRow],
        skips: Skips,
        *,
        doubtful: bool,
        refused: Iterable[str] = (),
        gone: Set[Copy] = frozenset(),
        reckoned: bool = True,
    ) -> None:
        """INV-DEST and INV-LED-1 of one destination. ``doubtful``: a run said that it did not know all ids below it, so
        a late copy may be there twice. ``gone``: what the raw log did not hold when a run began that needed it.
        ``reckoned``: what was left out so has been counted."""
        vectors = {p: Vector.decode(row.vector) for p, row in positions.items()}
        for row in rows:
            at = vectors.get(row.partition, EMPTY)[WriterId(row.writer)]
            if not (row.log, row.seq) < at:
                violated("INV-DEST", f"{place}: {row} is from above {at}")
        counts = Counter(row.id for row in rows)
        told: Counter[int] = Counter()
        exact = dict.fromkeys(positions, not doubtful and reckoned)
        for name, copies in self.copies.items():
            p = self.partition[name]
            below = [c for c in copies if c.position < vectors.get(p, EMPTY)[c.writer]]
            least, most = bounds(below, skips.get(p, ()), counts[name])
            if self.near(name):
                most = least
                told[p] += bool(below)
            elif below:
                exact[p] = False
            if not gone.isdisjoint(below):
                least, most = 0, max(1, most)
            if name in refused:
                least = most = 0
            if counts[name] < least:
                violated("INV-DEST", f"{place}: {name} is lost, of {below}")
            if counts[name] > (len(below) if doubtful else most):
                violated("INV-DEST", f"{place}: {name} is there {counts[name]} times, of {below}")
        self.ledger(place, rows, positions, told, exact)

    def ledger(
        self,
        place: str,
        rows: Sequence[Row],
        positions: Mapping[int, PositionRow],
        told: Mapping[int, int],
        exact: Mapping[int, bool],
    ) -> None:
        """INV-LED-1: what the position rows count is what is there, and what was given out below them."""
        held = Counter(row.partition for row in rows)
        for p, position in positions.items():
            total = position.total
            if total.rows != held[p]:
                violated("INV-LED-1", f"{place}: partition {p} counts {total.rows} rows and has {held[p]}")
            if total.out != total.rows + total.dead + total.erased + total.skipped:
                violated("INV-LED-1", f"{place}: partition {p} does not add up: {total}")
            if exact[p] and total.out != told[p]:
                violated("INV-LED-1", f"{place}: partition {p} was given {total.out} of {told[p]}")

    def complete(self, rule: str, place: str, positions: Mapping[int, PositionRow], partitions: int) -> None:
        """At rest, every partition has passed every durable event; ``rule`` says so."""
        for p in range(partitions):
            at = Vector.decode(positions[p].vector) if p in positions else EMPTY
            for writer, end in self.ends.items():
                if at[writer] < end:
                    violated(rule, f"{place}: partition {p} stays at {at[writer]} of {end}")


def bounds(below: Sequence[Copy], skips: Sequence[tuple[Vector, Vector]], found: int) -> tuple[int, int]:
    """How many rows are owed at least and allowed at most for these copies: the first stretch that holds one decides
    whether there is a row, those behind it hold copies of it."""
    for begin, end in skips:
        if any(c.position < begin[c.writer] for c in below):
            return 1, len(below)
        if any(c.position < end[c.writer] for c in below):
            return 0, len(below)
    return int(bool(below)), len(below)
