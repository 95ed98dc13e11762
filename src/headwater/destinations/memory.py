"""A destination in memory: what the port asks for in the fewest lines, for tests and as the reference.

It keeps everything in one object, so a "transaction" is a list of changes that is applied at once. ``accepts`` lets a
test refuse rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.destinations.port import (
    Capabilities,
    Counts,
    Drift,
    Outcome,
    PositionRow,
    Redo,
    Step,
)
from headwater.destinations.settings import DestinationSettings
from headwater.event.piece import Range
from headwater.kit.errors import Misconfigured, Rejected, Unavailable

if TYPE_CHECKING:
    import pyarrow as pa

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MemorySettings(DestinationSettings, frozen=True, tag="memory", kw_only=True):
    """No settings of its own."""


class Store(msgspec.Struct):
    """What would be on disk: it outlives ``close``."""

    exists: bool = False
    up: bool = True
    rows: dict[str, list[dict[str, Any]]] = {}
    columns: dict[str, set[str]] = {}
    positions: dict[tuple[str, int], PositionRow] = {}


class MemoryDestination:
    """See port.Destination."""

    capabilities = Capabilities("T", "exactly once", replays=True)

    def __init__(self, store: Store, accepts: Callable[[dict[str, Any]], bool] = lambda row: True) -> None:
        self.store = store
        self.accepts = accepts

    def open(self, *, create: bool) -> None:
        if not self.store.up:
            raise Unavailable("the store is down")
        if not self.store.exists and not create:
            raise Misconfigured("the store is gone", code="destination_missing")
        self.store.exists = True

    def close(self) -> None:
        pass

    def positions(self, pipeline: str) -> dict[int, PositionRow]:
        self.reach()
        return {p: row for (name, p), row in self.store.positions.items() if name == pipeline}

    def place(self, pipeline: str, rows: Mapping[int, PositionRow], *, missing_only: bool = False) -> None:
        self.reach()
        placed = {(pipeline, p): row for p, row in rows.items()}
        self.store.positions.update(placed | self.store.positions if missing_only else placed)

    def empty(self) -> bool:
        return not any(self.store.rows.values())

    def fit(self, tables: Mapping[str, Sequence[pa.Schema]]) -> None:
        self.reach()
        for name, schemas in tables.items():
            for schema in schemas:
                self.store.columns.setdefault(name, set()).update(schema.names)

    def step(self, step: Step) -> Outcome:
        self.reach()
        if not self.matches(step):
            return Outcome.MOVED
        taken = {
            name: [row for rows in sets for row in rows.to_pylist()] for name, sets in step.tables.items()
        }
        for rows in taken.values():
            self.check(rows)
        if step.redo is not None and not self.take_away(step.redo):
            return Outcome.MOVED
        for name, rows in taken.items():
            self.store.rows.setdefault(name, []).extend(rows)
        for partition in step.partitions:
            self.store.positions[step.pipeline, partition] = self.moved(step, partition)
        return Outcome.DONE

    def take_away(self, redo: Redo) -> bool:
        """The rows that a replay makes again; False, and nothing is done, where they are not as expected."""
        from headwater.destinations.load import add, copied

        held = self.store.rows.get(redo.table, [])
        gone = [row for row in held if inside(row, redo.ranges)]
        if len(gone) != redo.expected:
            return False
        self.store.rows[redo.table] = [row for row in held if not inside(row, redo.ranges)]
        change = copied(redo.added)
        for row in gone:
            add(change, {row["_hw_partition"]: {row.get("key_id") or "": Counts(rows=-1)}})
        for partition, added in change.items():
            before = self.store.positions[redo.pipeline, partition]
            streams = {partition: dict(before.streams)}
            add(streams, {partition: added})
            self.store.positions[redo.pipeline, partition] = replace(before, streams=streams[partition])
        return True

    def origins(self, table: str, ranges: Sequence[Range]) -> pa.Table:
        from headwater.destinations.load import HELD_SCHEMA

        self.reach()
        found = [row for row in self.store.rows.get(table, []) if inside(row, ranges)]
        names = HELD_SCHEMA.names
        held = [
            {**{name: row[name] for name in names[:-1]}, "key_id": row.get("key_id") or ""} for row in found
        ]
        return HELD_SCHEMA.empty_table().from_pylist(held, schema=HELD_SCHEMA)

    def present(self, table: str, wanted: pa.Table, since_us: int | None, until_us: int | None) -> set[int]:
        self.reach()
        ids = {
            (row.get("key_id") or "", row["message_id"])
            for row in self.store.rows.get(table, [])
            if within(row, since_us, until_us)
        }
        return {w["number"] for w in wanted.to_pylist() if (w["key_id"], w["message_id"]) in ids}

    def forget(self, pipeline: str, table: str | None) -> None:
        self.reach()
        for key in [key for key in self.store.positions if key[0] == pipeline]:
            del self.store.positions[key]
        if table is not None:
            self.store.rows.pop(table, None)
            self.store.columns.pop(table, None)

    def has(self, table: str) -> bool:
        return table in self.store.columns

    def matches(self, step: Step) -> bool:
        """Whether all partitions stand at the step's origin."""
        held = (self.store.positions.get((step.pipeline, partition)) for partition in step.partitions)
        return all(row is not None and row.vector == step.origin for row in held)

    def moved(self, step: Step, partition: int) -> PositionRow:
        """The position row after the step."""
        streams = dict(self.store.positions[step.pipeline, partition].streams)
        for stream, counts in step.added[partition].items():
            streams[stream] = streams.get(stream, type(counts)()).plus(counts)
        return PositionRow(step.target, streams, step.config_epoch, step.owner)

    def try_rows(self, table: str, rows: pa.Table) -> None:
        self.reach()
        self.check(rows.to_pylist())

    def drift(self) -> Sequence[Drift]:
        return ()

    def check(self, rows: Sequence[dict[str, Any]]) -> None:
        """Rejected where a row is not accepted."""
        if not all(map(self.accepts, rows)):
            raise Rejected("a row is refused")

    def reach(self) -> None:
        """Unavailable while the store is down."""
        if not self.store.up:
            raise Unavailable("the store is down")


def inside(row: Mapping[str, Any], ranges: Sequence[Range]) -> bool:
    """Whether the origin of a row lies in one of the ranges."""
    return any(
        (row["_hw_writer"], row["_hw_log"]) == (one.writer, one.log) and one.first <= row["_hw_seq"] < one.end
        for one in ranges
    )


def within(row: Mapping[str, Any], since_us: int | None, until_us: int | None) -> bool:
    """Whether a row was received in [since, until]."""
    received = (row["received_at"] - EPOCH) // timedelta(microseconds=1)
    return (since_us is None or received >= since_us) and (until_us is None or received <= until_us)
