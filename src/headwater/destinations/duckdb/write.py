"""Rows and positions into a DuckDB file: class T of protocol.md §5.

One process holds the file; one connection writes, and each reader has a cursor of its own (sql.py). DuckDB has no
SELECT FOR UPDATE, so a step compares twice: it reads the vectors first (MOVED costs nothing then), and moves them
with one ``UPDATE … WHERE vector = from`` whose count must be the number of its partitions (protocol.md §17.19).

Loads come in as registered Arrow, which only the connection that registered them can see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import duckdb
import msgspec
import pyarrow as pa

from headwater.destinations.duckdb import identity, redo
from headwater.destinations.duckdb import table as tables
from headwater.destinations.duckdb.errors import translated
from headwater.destinations.duckdb.file import DuckDbFile
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.sql import Sql
from headwater.destinations.load import HELD_SCHEMA, add, copied
from headwater.destinations.port import (
    Capabilities,
    Counts,
    Drift,
    Outcome,
    OutcomeUnknown,
    PositionRow,
    Redo,
    Settled,
    Step,
    Whose,
)
from headwater.event.piece import Range
from headwater.identity.table import ROWS_BY_USER_SCHEMA
from headwater.kit.clock import Clock
from headwater.kit.errors import Rejected

POSITIONS = "headwater_positions"
POSITIONS_DDL = f"""CREATE TABLE IF NOT EXISTS {POSITIONS}(
  pipeline VARCHAR, partition USMALLINT, vector BLOB NOT NULL, "rows" UBIGINT NOT NULL, dead UBIGINT NOT NULL,
  erased UBIGINT NOT NULL, "out" UBIGINT NOT NULL, counters JSON NOT NULL, config_epoch BIGINT NOT NULL,
  owner VARCHAR, updated_at TIMESTAMP WITH TIME ZONE, PRIMARY KEY (pipeline, partition))"""
NEW_ROWS = pa.schema(
    [
        ("partition", pa.uint16()),
        ("vector", pa.binary()),
        ("rows", pa.uint64()),
        ("dead", pa.uint64()),
        ("erased", pa.uint64()),
        ("out", pa.uint64()),
        ("counters", pa.string()),
        ("config_epoch", pa.int64()),
        ("owner", pa.string()),
    ]
)
POSITIONS_OF = f"SELECT partition, vector, counters, config_epoch, owner FROM {POSITIONS} WHERE pipeline = ?"
MOVE = f"""UPDATE {POSITIONS} AS p SET vector = n.vector, "rows" = n."rows", dead = n.dead, erased = n.erased,
  "out" = n."out", counters = n.counters, config_epoch = n.config_epoch, owner = n.owner,
  updated_at = make_timestamptz(?) FROM hw_positions AS n
  WHERE p.pipeline = ? AND p.partition = n.partition AND p.vector = ?"""
PLACE = f"""INSERT OR REPLACE INTO {POSITIONS}
  SELECT ?, partition, vector, "rows", dead, erased, "out", counters, config_epoch, owner, make_timestamptz(?)
  FROM hw_positions"""
PLACE_MISSING = PLACE.replace("OR REPLACE", "OR IGNORE")
COUNT = f"""UPDATE {POSITIONS} AS p SET "rows" = n."rows", dead = n.dead, erased = n.erased, "out" = n."out",
  counters = n.counters, updated_at = make_timestamptz(?) FROM hw_positions AS n
  WHERE p.pipeline = ? AND p.partition = n.partition AND p.vector = n.vector"""
FITTINGS_MAX = 256
LOAD, MOVED_ROWS = "hw_load", "hw_positions"

counters_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])


class DuckDbDestination(DuckDbFile):
    """See port.Destination. ``folder`` is for spilled data; the file is made only by ``open(create=True)``."""

    capabilities = Capabilities("T", "exactly once", sql=True, updates=True, replays=True)

    def __init__(self, settings: DuckDbSettings, path: str, folder: str, clock: Clock) -> None:
        super().__init__(settings, path, folder)
        self.clock = clock
        self.columns: dict[str, dict[str, str]] = {}
        """Table → lower-case column → type, as read after the last change."""
        self.fittings: dict[tuple[str, bytes], tables.Fitting] = {}
        self.drifts: dict[tuple[str, str], Drift] = {}
        self.sql = Sql(self.cursor, settings.sql)

    def open(self, *, create: bool) -> None:
        if self.is_open:
            self.check_file()
            return
        self.open_file(create=create, first=POSITIONS_DDL)
        with self.translating():
            for ddl in identity.DDL:
                self.write.execute(ddl)
        self.read_columns()

    def close(self) -> None:
        self.fittings.clear()
        self.sql.stop()
        self.close_file()

    # -- positions

    def positions(self, pipeline: str) -> dict[int, PositionRow]:
        with self.translating():
            found = self.write.execute(POSITIONS_OF, [pipeline]).fetchall()
        return {p: PositionRow(bytes(v), counts_of(text), epoch, owner) for p, v, text, epoch, owner in found}

    def place(self, pipeline: str, rows: Mapping[int, PositionRow], *, missing_only: bool = False) -> None:
        with self.translating(), self.registered(MOVED_ROWS, position_table(rows)):
            self.write.execute(
                PLACE_MISSING if missing_only else PLACE, [pipeline, self.clock.wall_ns() // 1000]
            )

    def empty(self) -> bool:
        with self.translating():
            return not any(
                self.write.execute(f"SELECT 1 FROM {tables.quoted(name)} LIMIT 1").fetchall()
                for name, columns in self.columns.items()
                if "_hw_partition" in columns
            )

    # -- tables

    def read_columns(self) -> None:
        """Read every table as it is."""
        with self.translating():
            found = self.write.execute(
                "SELECT table_name, column_name, data_type FROM duckdb_columns() "
                "WHERE schema_name = 'main' AND NOT internal AND table_name <> ?",
                [POSITIONS],
            ).fetchall()
        self.columns, self.fittings = {}, {}
        for name, column, kind in found:
            self.columns.setdefault(name, {})[column.lower()] = kind

    def fit(self, tables_: Mapping[str, Sequence[pa.Schema]]) -> None:
        for name, schemas in tables_.items():
            for schema in schemas:
                self.fitting(name, schema)

    def fitting(self, name: str, schema: pa.Schema) -> tables.Fitting:
        """How rows of a schema go into a table; the table is made to fit where it does not yet."""
        key = (name, schema.serialize().to_pybytes())
        if key not in self.fittings:
            if len(self.fittings) >= FITTINGS_MAX:
                self.fittings.clear()
            self.grow(name, schema)
            self.fittings[key] = tables.fit(schema, self.columns[name])
        return self.fittings[key]

    def grow(self, name: str, schema: pa.Schema) -> None:
        """Make or widen a table; nothing when it has all columns, or may not grow."""
        known = self.columns.get(name)
        added = tables.missing(schema, known or {})
        if known is not None and self.settings.schema == "freeze":
            added = {column: kind for column, kind in added.items() if column == tables.UNMAPPED}
        if not added:
            return
        columns = [f"{tables.quoted(column)} {kind}" for column, kind in added.items()]
        with self.translating():
            if known is None:
                self.write.execute(f"CREATE TABLE IF NOT EXISTS {tables.quoted(name)} ({', '.join(columns)})")
            else:
                self.write.execute("BEGIN TRANSACTION")
                for column in columns:
                    self.write.execute(f"ALTER TABLE {tables.quoted(name)} ADD COLUMN IF NOT EXISTS {column}")
                self.write.execute("COMMIT")
        self.read_columns()

    # -- the step

    def step(self, step: Step) -> Outcome:
        self.check_file()
        with self.translating():
            self.write.execute("BEGIN TRANSACTION")
            moved = self.moved_rows(step)
            if moved is None:
                self.roll_back()
                return Outcome.MOVED
            if step.redo is not None and not self.take_away(step.redo):
                self.roll_back()
                return Outcome.MOVED
            if step.facts:
                identity.keep(self.write, step.facts)
            drifts = [self.insert(name, rows) for name, sets in step.tables.items() for rows in sets]
            with self.registered(MOVED_ROWS, position_table(moved)):
                now = self.clock.wall_ns() // 1000
                count = self.write.execute(MOVE, [now, step.pipeline, step.origin]).fetchall()[0][0]
            if count != len(step.partitions):
                self.roll_back()
                return Outcome.MOVED
        self.commit_step()
        for drift in drifts:
            self.note(drift)
        return Outcome.DONE

    def commit_step(self) -> None:
        """COMMIT; Rejected where a constraint says no (nothing is written), OutcomeUnknown for anything else."""
        try:
            self.commit()
        except duckdb.Error as error:
            self.roll_back()
            known = translated(error, self.path)
            if isinstance(known, Rejected):
                raise known from error
            raise OutcomeUnknown(
                f"{self.path}: the outcome of COMMIT is unknown: {known.message}", help=known.help
            ) from error

    def commit(self) -> None:
        """The one call whose failure leaves the outcome open; tests break it here."""
        self.write.execute("COMMIT")

    def moved_rows(self, step: Step) -> dict[int, PositionRow] | None:
        """The position rows after the step; None where a partition does not stand at its origin (INV-DST-1)."""
        found = self.write.execute(
            f"SELECT partition, counters FROM {POSITIONS} WHERE pipeline = ? AND vector = ? ORDER BY partition",
            [step.pipeline, step.origin],
        ).fetchall()
        held = {p: text for p, text in found if p in step.added}
        if not held.keys() >= set(step.partitions):
            return None
        moved = {}
        for p in step.partitions:
            streams = counts_of(held[p])
            for stream, counts in step.added[p].items():
                streams[stream] = streams.get(stream, Counts()).plus(counts)
            moved[p] = PositionRow(step.target, streams, step.config_epoch, step.owner)
        return moved

    def take_away(self, one: Redo) -> bool:
        """The rows that a replay makes again, and the counters of the pipeline that they belong to; False where they
        are not as expected."""
        gone = redo.remove(self.write, one) if self.has(one.table) else []
        if sum(count for _, _, count in gone) != one.expected:
            return False
        change = copied(one.added)
        for partition, stream, count in gone:
            add(change, {partition: {stream: Counts(rows=-count)}})
        held = self.positions(one.pipeline)
        changed = {p: redo.counted(held[p], streams) for p, streams in change.items() if streams}
        with self.registered(MOVED_ROWS, position_table(changed)):
            self.write.execute(COUNT, [self.clock.wall_ns() // 1000, one.pipeline])
        return True

    # -- recognition

    def unsettled(self, partitions: Sequence[int] | None, limit: int) -> list[str]:
        with self.translating():
            return identity.unsettled(self.write, limit)

    def facts(self, ids: Sequence[str]) -> pa.Table:
        with self.translating():
            return identity.facts(self.write, ids)

    def settle(
        self, partitions: Sequence[int] | None, whose: Whose, *, ids_max: int, rows_max: int
    ) -> Settled:
        names = [name for name, columns in self.columns.items() if columns.keys() >= identity.NEEDED]
        with self.translating():
            ids = identity.unsettled(self.write, ids_max)
            if not ids:
                return Settled(0, 0, more=False)
            spans = whose(identity.facts(self.write, ids))
            self.write.execute("BEGIN TRANSACTION")
            changed, done = identity.settle(self.write, names, ids, spans, rows_max)
            self.commit()
        return Settled(len(done), changed, more=len(done) < len(ids) or len(ids) == ids_max)

    def ids_of_user(self, user_id: str, limit: int) -> list[str]:
        with self.translating():
            return identity.ids_of_user(self.write, user_id, limit)

    def newest_facts(self, since_us: int, limit: int) -> pa.Table:
        with self.translating():
            return identity.newest_facts(self.write, since_us, limit)

    def rows_by_user(self, table: str, ids: Sequence[str]) -> pa.Table:
        if not self.columns.get(table, {}).keys() >= identity.NEEDED:
            return ROWS_BY_USER_SCHEMA.empty_table()
        with self.translating():
            return identity.rows_by_user(self.write, table, ids)

    # -- what a replay asks

    def origins(self, table: str, ranges: Sequence[Range]) -> pa.Table:
        with self.translating():
            return redo.origins(self.write, table, ranges) if self.has(table) else HELD_SCHEMA.empty_table()

    def present(self, table: str, wanted: pa.Table, since_us: int | None, until_us: int | None) -> set[int]:
        if not self.has(table):
            return set()
        with self.translating(), self.registered(redo.WANTED, wanted):
            return redo.present(self.write, table, since_us, until_us)

    def forget(self, pipeline: str, table: str | None) -> None:
        with self.translating():
            self.write.execute("BEGIN TRANSACTION")
            self.write.execute(f"DELETE FROM {POSITIONS} WHERE pipeline = ?", [pipeline])
            if table is not None:
                self.write.execute(f"DROP TABLE IF EXISTS {tables.quoted(table)}")
            self.write.execute("COMMIT")
        self.read_columns()

    def has(self, table: str) -> bool:
        return table in self.columns

    def insert(self, name: str, rows: pa.Table) -> list[Drift]:
        """Insert one row set as it fits; what did not fit, per column."""
        fitting = self.fitting(name, rows.schema)
        with self.registered(LOAD, rows.rename_columns([f"c{i}" for i in range(rows.num_columns)])):
            self.write.execute(fitting.insert(name, LOAD))
            if not fitting.misfits:
                return []
            counts = self.write.execute(fitting.count_misfits(LOAD)).fetchall()[0]
        pairs = zip(fitting.misfits, counts[::2], counts[1::2], strict=True)
        return [Drift(name, misfit.column, count, example) for misfit, count, example in pairs if count]

    def try_rows(self, table: str, rows: pa.Table) -> None:
        self.fitting(table, rows.schema)
        with self.translating():
            self.write.execute("BEGIN TRANSACTION")
            self.insert(table, rows)
            self.roll_back()

    @contextlib.contextmanager
    def registered(self, name: str, rows: pa.Table) -> Iterator[None]:
        """Arrow as a view that this connection alone sees."""
        self.write.register(name, rows)
        try:
            yield
        finally:
            with contextlib.suppress(duckdb.Error):
                self.write.unregister(name)

    # -- drift

    def note(self, drifts: Sequence[Drift]) -> None:
        """Add what was committed to what is known."""
        for drift in drifts:
            key = (drift.table, drift.column)
            before = self.drifts.get(key)
            count = drift.count + (before.count if before else 0)
            self.drifts[key] = Drift(
                drift.table, drift.column, count, before.example if before else drift.example
            )

    def drift(self) -> Sequence[Drift]:
        return tuple(self.drifts.values())


def counts_of(text: str) -> dict[str, Counts]:
    """From the column ``counters``."""
    return {stream: Counts(**counts) for stream, counts in counters_decoder.decode(text).items()}


def position_table(rows: Mapping[int, PositionRow]) -> pa.Table:
    """Position rows as Arrow, in rising order of partition."""
    columns: list[list[object]] = [[] for _ in NEW_ROWS.names]
    for partition, row in sorted(rows.items()):
        total = row.total
        text = msgspec.json.encode({name: c._asdict() for name, c in sorted(row.streams.items())}).decode()
        counted = (total.rows, total.dead, total.erased, total.out, text)
        values = (partition, row.vector, *counted, row.config_epoch, row.owner)
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return pa.table(dict(zip(NEW_ROWS.names, columns, strict=True)), schema=NEW_ROWS)
