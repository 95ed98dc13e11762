"""A destination in memory: what the port asks for in the fewest lines, for tests and as the reference.

It keeps everything in one object, so a "transaction" is a list of changes that is applied at once. ``accepts`` lets a
test refuse rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.destinations.port import (
    Capabilities,
    Drift,
    Outcome,
    PositionRow,
    Step,
)
from headwater.destinations.settings import DestinationSettings
from headwater.kit.errors import Misconfigured, Rejected, Unavailable

if TYPE_CHECKING:
    import pyarrow as pa


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

    capabilities = Capabilities("T", "exactly once", updates=True)

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

    def place(self, pipeline: str, rows: Mapping[int, PositionRow]) -> None:
        self.reach()
        self.store.positions.update({(pipeline, p): row for p, row in rows.items()})

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
        for name, rows in taken.items():
            self.store.rows.setdefault(name, []).extend(rows)
        for partition in step.partitions:
            self.store.positions[step.pipeline, partition] = self.moved(step, partition)
        return Outcome.DONE

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
