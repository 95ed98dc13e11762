"""Broken parts of the road, one mistake each; the machine must find every one of them (test_road.py).

The names in the tests are those of reference/protocol_model.py. Of its list, ``no_fence`` is the road
itself (former deliverers of the machine never stop), ``arrival_identity`` comes with identity.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from headwater.config.report import Report
from headwater.destinations.deliver import Deliverer
from headwater.destinations.port import Outcome, OutcomeUnknown, PositionRow, Step
from headwater.event.commit import Commit
from headwater.event.position import EMPTY, Position, Vector
from headwater.kit.errors import Unavailable
from headwater.node import retention
from headwater.process.dedupe import EMPTY_PARTITION, Ids, decode_ids
from headwater.process.private import PrivateRun
from headwater.process.state import Fold
from headwater.process.worker import ProcessWorker, ipc
from tests.simulation.road_world import FaultyTables


class Blind(FaultyTables):
    """Commits without comparing; the position only grows."""

    def matches(self, step: Step) -> bool:
        return all((step.pipeline, p) in self.store.positions for p in step.partitions)

    def moved(self, step: Step, partition: int) -> PositionRow:
        row = super().moved(step, partition)
        old = Vector.decode(self.store.positions[step.pipeline, partition].vector)
        return PositionRow(
            Vector.decode(row.vector).join(old).encode(), row.streams, row.config_epoch, row.owner
        )


class EpochOnly(Blind):
    """Fences by the owner's epoch in the destination, and does not compare the position."""

    def matches(self, step: Step) -> bool:
        held = (self.store.positions.get((step.pipeline, p)) for p in step.partitions)
        return all(row is not None and row.owner <= step.owner for row in held)


class HalfSteps(FaultyTables):
    """Rows first, the position in a step of its own."""

    def step(self, step: Step) -> Outcome:
        fault, self.fault = self.fault, ""
        if fault and self.matches(step):
            for name, sets in step.tables.items():
                for rows in sets:
                    self.store.rows.setdefault(name, []).extend(rows.to_pylist())
            raise OutcomeUnknown("the connection broke between the two")
        return super().step(step)


class CountsFirst(FaultyTables):
    """Counters in a step of their own, before the rows."""

    def step(self, step: Step) -> Outcome:
        if self.fault and self.matches(step):
            for p in step.partitions:
                moved = self.moved(step, p)
                counted = PositionRow(step.origin, moved.streams, moved.config_epoch, moved.owner)
                self.store.positions[step.pipeline, p] = counted
            self.fault = ""
            raise Unavailable("the destination failed between the two")
        return super().step(step)


class NeverFits(FaultyTables):
    """Takes rows for columns that its tables do not have."""

    def fit(self, tables: Mapping[str, Any]) -> None:
        pass


class Unseeded(PrivateRun):
    """A private run that begins with no ids."""

    def _ids_below(self) -> Iterator[Ids | None]:
        yield from ()


class SharedSeen(PrivateRun):
    """A private run that takes the ids that the chain knows *now*."""

    def _ids_below(self) -> Iterator[Ids | None]:
        for worker in PROCESSORS.values():
            seen = worker.seen
            live = seen.partition != EMPTY_PARTITION
            yield seen.high[live], seen.low[live], seen.minute[live], seen.partition[live]


PROCESSORS: dict[int, ProcessWorker] = {}
"""The running ones, as SharedSeen finds them."""


class Known(ProcessWorker):
    """A processor that others can look into."""

    def recover(self) -> None:
        super().recover()
        PROCESSORS[self.number] = self


class RedoneAsNew(PrivateRun):
    """Processes again from the beginning, and leaves out the rows below the destination's position."""

    def __init__(self, *parts: Any, origin: Vector, **more: Any) -> None:
        super().__init__(*parts, origin=EMPTY, **more)
        self.begins = origin

    def advance(self) -> Commit | None:
        rows: list[pa.Table] = []
        changes: dict[str, dict[int, list[int]]] = {}
        while not self.ended:
            commit = super().advance()
            if commit is not None and "rows:events" in commit.sections:
                found = pa.ipc.open_stream(commit.sections["rows:events"]).read_all()
                rows.append(found.filter(self.above(found)))
        whole = pa.concat_tables(rows, promote_options="default") if rows else None
        sections = {}
        if whole is not None and whole.num_rows:
            sections["rows:events"] = ipc(whole)
            for p in whole["_hw_partition"].to_pylist():
                counts = changes.setdefault("web", {}).setdefault(p, [0] * 7)
                counts[0] += 1
                counts[1] += 1
        return Commit(self.partitions, self.begins, self.until, self.config_epoch, 0, changes, sections)

    def above(self, rows: pa.Table) -> pa.Array:
        """Which rows are not below where the destination stands."""
        return pa.array(
            [
                Position(log, seq) >= self.begins[writer]
                for writer, log, seq in zip(
                    rows["_hw_writer"].to_pylist(),
                    rows["_hw_log"].to_pylist(),
                    rows["_hw_seq"].to_pylist(),
                    strict=True,
                )
            ],
            pa.bool_(),
        )


class AnyEpoch(ProcessWorker):
    """A processor that does not look at the epoch of the commits before it."""

    def _check_epoch(self, last: int) -> None:
        pass


class StateAhead(ProcessWorker):
    """The ids of a commit are on disk before the commit is, and do not say whose they are."""

    def _append(self, entry: Commit) -> Position:
        if ids := entry.sections.get("ids"):
            self.store.take_over(decode_ids(bytes(ids))[0])
            self.store._append_pending()
        return super()._append(entry)


class ForgetsIds(ProcessWorker):
    """Ids are not part of what a restart brings back."""

    def _remember(self, number: int, fold: Fold, mine: Sequence[int], minute: int) -> None:
        pass


class SharedTrouble(Deliverer):
    """Waits while any destination of the node is in trouble."""

    everybody: ClassVar[dict[int, weakref.WeakSet[Deliverer]]] = {}
    """Those that share a clock: the deliverers of a node."""

    def round(self) -> float:
        others = self.everybody.setdefault(id(self.clock), weakref.WeakSet())
        others.add(self)
        if any(one.trouble is not None and one.name != self.name for one in others):
            return 0.01
        return super().round()


def safe_for_the_furthest(
    reports: Mapping[str, Report], partitions: int, destinations: Iterable[str]
) -> Vector:
    """Raw goes when one destination has passed it."""
    each = [retention.safe_vector(reports, partitions, [name]) for name in destinations]
    safe = EMPTY
    for vector in each:
        safe = safe.join(vector)
    return safe


def falling_epoch(start: int) -> int:
    """Each start of the node has an older configuration."""
    return 1000 - start
