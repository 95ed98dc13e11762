"""Rows and positions into a PostgreSQL schema: class T of protocol.md §5.

A step is one transaction: the position rows of its partitions are locked in rising order (INV-DST-2) and compared
(INV-DST-1), the rows come by COPY, the positions move in one UPDATE, COMMIT. Whoever comes second waits for the
locks, finds another vector, and writes nothing. Steps of different partitions lock different rows, so that nodes
load side by side; they share the table's lock for writing, which only a new column (``fit``) has to wait for.

COPY takes values in the exact type of their column, so a step looks, under that lock, whether the table is still as it
was when its columns were read; a type changed by hand in between would spoil values in silence.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import psycopg
import pyarrow as pa

from headwater.destinations.load import HELD_SCHEMA, add, copied
from headwater.destinations.port import (
    Added,
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
from headwater.destinations.postgres import encode, identity, redo
from headwater.destinations.postgres import table as tables
from headwater.destinations.postgres.errors import translated
from headwater.destinations.postgres.session import Cursor, Session, milliseconds, sql
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.event.piece import Range
from headwater.identity.table import ROWS_BY_USER_SCHEMA
from headwater.kit.clock import Clock
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable

POSITIONS = "headwater_positions"
POSITIONS_DDL = """CREATE TABLE IF NOT EXISTS {positions}(
  pipeline text, partition integer, vector bytea NOT NULL, "rows" bigint NOT NULL, dead bigint NOT NULL,
  erased bigint NOT NULL, "out" bigint NOT NULL, counters jsonb NOT NULL, config_epoch bigint NOT NULL,
  owner text, updated_at timestamp with time zone, PRIMARY KEY (pipeline, partition)) WITH (fillfactor = 25)"""
"""Each step writes its rows anew: with room in the page they are replaced in place, without the index (HOT)."""
INDEX = "USING brin (received_at, _hw_writer, _hw_log, _hw_seq) WITH (autosummarize = on)"
INDEXED = ("received_at", "_hw_writer", "_hw_log", "_hw_seq")
NEW_ROWS = (
    "unnest(%(partitions)s::integer[], %(vectors)s::bytea[], %(rows)s::bigint[], %(dead)s::bigint[], "
    "%(erased)s::bigint[], %(out)s::bigint[], %(epochs)s::bigint[], %(owners)s::text[]) "
    'AS n(partition, vector, "rows", dead, erased, "out", config_epoch, owner)'
)
COUNTERS = "%(counters)s::jsonb -> n.partition::text"
"""Of all rows in one parameter: as an array, the driver would look at each quote."""
MOVE = f"""UPDATE {{positions}} AS p SET vector = n.vector, "rows" = n."rows", dead = n.dead, erased = n.erased,
  "out" = n."out", counters = {COUNTERS}, config_epoch = n.config_epoch, owner = n.owner, updated_at = %(now)s
  FROM {NEW_ROWS} WHERE p.pipeline = %(pipeline)s AND p.partition = n.partition"""
PLACE = f"""INSERT INTO {{positions}} AS p
  SELECT %(pipeline)s, n.partition, vector, "rows", dead, erased, "out", {COUNTERS}, config_epoch, owner, %(now)s
  FROM {NEW_ROWS} ORDER BY n.partition ON CONFLICT (pipeline, partition) DO """
REPLACE = """UPDATE SET vector = excluded.vector, "rows" = excluded."rows", dead = excluded.dead,
  erased = excluded.erased, "out" = excluded."out", counters = excluded.counters,
  config_epoch = excluded.config_epoch, owner = excluded.owner, updated_at = excluded.updated_at"""
COLUMNS = """SELECT c.relname, a.attname,
  CASE WHEN a.attgenerated <> '' OR a.attidentity = 'a' OR n.nspname <> 'pg_catalog' THEN '' ELSE t.typname END
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind IN ('r', 'p') AND c.relname <> %(positions)s
  AND a.attnum > 0 AND NOT a.attisdropped"""
USED_NUMBERS = """SELECT coalesce(max(attnum), 0) FROM pg_attribute WHERE attrelid = to_regclass(%(table)s)"""
"""Columns that a table has had; dropped ones count too."""
LOCK_KEY = "SELECT pg_advisory_xact_lock(hashtextextended('headwater:fit:' || %(schema)s, 0))"
FITTINGS_MAX = 256
RACES = frozenset({"23505", "40001", "40P01", "42701", "42P06", "42P07", "42710", "XX000"})
"""What two sessions that change a schema at one time may meet."""
RACE_TRIES = 3
YIELDED = frozenset({"55P03", "40P01"})
"""Somebody held what a pass of recognition needs: it comes again."""

counters_decoder = msgspec.json.Decoder(dict[str, dict[str, int]])


class PostgresDestination(Session):
    """See port.Replayable. ``data`` is the folder that relative paths of settings are below."""

    capabilities = Capabilities("T", "exactly once", updates=True, replays=True)

    def __init__(self, settings: PostgresSettings, data: str, clock: Clock) -> None:
        super().__init__(settings, data)
        self.clock = clock
        self.columns: dict[str, dict[str, str]] = {}
        """Table → column → type as the catalogue calls it; empty for one that cannot be written."""
        self.unindexed: list[str] = []
        """Tables too large to be given the index that settling needs, while others wait."""
        self.fittings: dict[tuple[str, bytes], tables.Fitting] = {}
        self.drifts: dict[tuple[str, str], Drift] = {}

    # -- open and close

    def open(self, *, create: bool) -> None:
        if not self.is_open:
            self.connect()
        try:
            begun = self.exists(POSITIONS)
            if not begun and not create:
                raise self.gone()
            if not begun or not self.exists(identity.UNSETTLED):
                self.changing(self.make)
            self.read_columns()
            self.make_indexes()
        except HeadwaterError:
            self.disconnect()
            raise

    def make(self, cursor: Cursor) -> None:
        """Make the schema and the table of positions. Where the schema is there, no right to make one is needed."""
        found = cursor.execute(
            "SELECT to_regnamespace(%s)", (tables.quoted(self.settings.schema),)
        ).fetchone()
        if found == (None,):
            cursor.execute(sql(f"CREATE SCHEMA {tables.quoted(self.settings.schema)}"))
        cursor.execute(self.worded(POSITIONS_DDL))
        for ddl in identity.DDL:
            cursor.execute(identity.worded(ddl, self.identity_names))

    def close(self) -> None:
        self.fittings.clear()
        self.disconnect()

    def gone(self) -> Misconfigured:
        """The tables are not where they were."""
        return Misconfigured(
            f"{self.label}: {POSITIONS} is not there, though it was delivered to before",
            code="destination_missing",
            help="put it back where it was",
        )

    def named(self, table: str) -> str:
        """A table of the schema, quoted."""
        return f"{tables.quoted(self.settings.schema)}.{tables.quoted(table)}"

    def worded(self, text: str) -> Any:
        """A statement about the table of positions."""
        return sql(text.replace("{positions}", self.named(POSITIONS)))

    def exists(self, table: str) -> bool:
        """Whether there is such a table at this moment."""
        return self.rows("SELECT to_regclass(%(table)s)", {"table": self.named(table)}) != [(None,)]

    # -- positions

    def positions(self, pipeline: str) -> dict[int, PositionRow]:
        found = self.rows(
            f"SELECT partition, vector, counters::text, config_epoch, owner FROM {self.named(POSITIONS)} "
            "WHERE pipeline = %(pipeline)s",
            {"pipeline": pipeline},
        )
        return {p: PositionRow(v, counts_of(text), epoch, owner) for p, v, text, epoch, owner in found}

    def place(self, pipeline: str, rows: Mapping[int, PositionRow], *, missing_only: bool = False) -> None:
        statement = self.worded(PLACE + ("NOTHING" if missing_only else REPLACE))
        with self.transaction() as cursor:
            cursor.execute(statement, self.row_values(pipeline, rows))
            cursor.execute("COMMIT")

    def row_values(self, pipeline: str, rows: Mapping[int, PositionRow]) -> dict[str, object]:
        """The parameters of MOVE and PLACE."""
        now = datetime.datetime.fromtimestamp(self.clock.wall_ns() / 1e9, datetime.UTC)
        return {"pipeline": pipeline, "now": now, **position_arrays(rows)}

    def empty(self) -> bool:
        return not any(
            self.rows(f"SELECT 1 FROM {self.named(name)} LIMIT 1")
            for name, columns in self.columns.items()
            if "_hw_partition" in columns
        )

    # -- tables

    def read_columns(self) -> None:
        """Read every table as it is."""
        self.remember(self.rows(COLUMNS, self.whole_schema()))

    def whole_schema(self) -> dict[str, object]:
        """The parameters of COLUMNS."""
        return {"schema": tables.quoted(self.settings.schema), "positions": POSITIONS}

    def remember(self, found: Sequence[tuple[str, str, str]]) -> None:
        """Take over what COLUMNS found; fittings to other columns are forgotten."""
        columns: dict[str, dict[str, str]] = {}
        for name, column, kind in found:
            columns.setdefault(name, {})[column] = kind
        if columns != self.columns:
            self.columns, self.fittings = columns, {}

    def fit(self, tables_: Mapping[str, Sequence[pa.Schema]]) -> None:
        for name, schemas in sorted(tables_.items()):
            for schema in schemas:
                self.fitting(name, schema, grow=True)

    def fitting(self, name: str, schema: pa.Schema, *, grow: bool = False) -> tables.Fitting:
        """How rows of a schema go into a table as it is known; with ``grow``, it is made to fit first, once."""
        key = (name, schema.serialize().to_pybytes())
        if found := self.fittings.get(key):
            return found
        if grow and self.wanted(name, schema):
            self.changing(lambda cursor: self.grow(cursor, name, schema))
        found = tables.fit(schema, self.columns.get(name, {}))
        if not found.unmapped_kind:
            raise Misconfigured(
                f"{self.label}: {name}.{tables.UNMAPPED} holds neither JSON nor text",
                code="unmapped_type",
                help=f"ALTER TABLE {self.named(name)} ALTER {tables.UNMAPPED} TYPE jsonb",
            )
        if grow:  # what a step found changed under it, the next ``fit`` looks at again
            if len(self.fittings) >= FITTINGS_MAX:
                self.fittings.clear()
            self.fittings[key] = found
        return found

    def wanted(self, name: str, schema: pa.Schema) -> dict[str, str]:
        """Columns to add to a table, or to make it with."""
        known = self.columns.get(name)
        added = tables.missing(schema, known or {})
        if known is not None and self.settings.columns == "freeze":
            return {column: kind for column, kind in added.items() if column == tables.UNMAPPED}
        return added

    def grow(self, cursor: Cursor, name: str, schema: pa.Schema) -> None:
        """Make or widen a table, under the lock for it. Another node may have done so meanwhile."""
        self.remember(cursor.execute(COLUMNS, self.whole_schema()).fetchall())
        added = self.wanted(name, schema)
        used = cursor.execute(USED_NUMBERS, {"table": self.named(name)}).fetchone() or (0,)
        room = tables.COLUMNS_MAX - used[0]
        declared = {
            column: f"{tables.quoted(column)} {tables.DECLARED[kind]}"
            for column, kind in list(added.items())[: max(0, room)]
        }
        if name not in self.columns:
            cursor.execute(sql(f"CREATE TABLE {self.named(name)} ({', '.join(declared.values())})"))
            if declared.keys() >= set(INDEXED):
                cursor.execute(sql(f"CREATE INDEX ON {self.named(name)} {INDEX}"))
            if identity.settles(added):
                cursor.execute(sql(identity.index_ddl(name, self.named(name))))
        elif declared:
            adding = ", ".join(f"ADD COLUMN IF NOT EXISTS {one}" for one in declared.values())
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (self.table_wait,))
            cursor.execute(sql(f"ALTER TABLE {self.named(name)} {adding}"))
        self.remember(cursor.execute(COLUMNS, self.whole_schema()).fetchall())

    @property
    def table_wait(self) -> str:
        """How long a new column waits for the table, where a long query holds it. Loads and queries of all others queue
        behind it meanwhile: long enough for loads that are under way to end, and half of what a load waits."""
        return milliseconds(self.settings.lock_timeout_s / 2)

    def changing(self, change: Any) -> None:
        """A change of the schema, under a lock of its own, which nodes take one after the other; again where somebody
        without the lock came between."""
        for tried in range(RACE_TRIES):
            try:
                with self.transaction() as cursor:
                    cursor.execute(LOCK_KEY, self.whole_schema())
                    change(cursor)
                    cursor.execute("COMMIT")
                return
            except HeadwaterError as error:
                cause = error.__cause__
                raced = isinstance(cause, psycopg.Error) and cause.sqlstate in RACES
                self.columns, self.fittings = {}, {}
                if not raced or tried == RACE_TRIES - 1:
                    raise
                self.read_columns()

    # -- the step

    def step(self, step: Step) -> Outcome:
        misfits = {name: encode.Misfits() for name in step.tables}
        with self.transaction() as cursor:
            moved = self.moved_rows(cursor, step)
            if moved is None:
                return Outcome.MOVED
            if step.facts:
                identity.keep(cursor, self.identity_names, step.facts)
            self.hold_tables(cursor, {*step.tables, *([step.redo.table] if step.redo else [])})
            if step.redo is not None and not self.take_away(cursor, step.redo):
                return Outcome.MOVED
            for name, sets in sorted(step.tables.items()):
                for rows in sets:
                    self.insert(cursor, name, rows, misfits[name])
            cursor.execute(self.worded(MOVE), self.row_values(step.pipeline, moved))
            if cursor.rowcount != len(step.partitions):
                return Outcome.MOVED
            self.commit_step(cursor)
        for name, found in misfits.items():
            self.note(name, found)
        return Outcome.DONE

    def commit_step(self, cursor: Cursor) -> None:
        """COMMIT; Rejected where a constraint says no (nothing is written), OutcomeUnknown for anything else."""
        try:
            self.commit(cursor)
        except psycopg.Error as error:
            known = translated(error, self.label)
            if isinstance(known, Rejected):
                raise known from error
            raise OutcomeUnknown(
                f"{self.label}: the outcome of COMMIT is unknown: {known.message}", help=known.help
            ) from error

    def commit(self, cursor: Cursor) -> None:
        """The one call whose failure leaves the outcome open; tests break it here."""
        cursor.execute("COMMIT")
        if cursor.statusmessage != "COMMIT":
            raise psycopg.OperationalError(f"COMMIT was answered {cursor.statusmessage}")

    def moved_rows(self, cursor: Cursor, step: Step) -> dict[int, PositionRow] | None:
        """The position rows after the step, locked; None where a partition is not at its origin (INV-DST-1)."""
        found = cursor.execute(
            sql(
                f"SELECT partition, vector, counters::text FROM {self.named(POSITIONS)} "
                "WHERE pipeline = %s AND partition = ANY(%s) ORDER BY partition FOR UPDATE"
            ),
            (step.pipeline, list(step.partitions)),
        ).fetchall()
        held = {p: counts_of(text) for p, vector, text in found if vector == step.origin}
        if held.keys() != set(step.partitions):
            return None
        for p in step.partitions:
            add(held, {p: step.added[p]})
        return {p: PositionRow(step.target, held[p], step.config_epoch, step.owner) for p in step.partitions}

    def hold_tables(self, cursor: Cursor, names: set[str]) -> None:
        """Nobody changes these tables' columns before the step ends; they are read again where somebody did."""
        if there := sorted(name for name in names if name in self.columns):
            listed = ", ".join(map(self.named, there))
            cursor.execute(sql(f"LOCK TABLE {listed} IN ROW EXCLUSIVE MODE"))
            self.remember(cursor.execute(COLUMNS, self.whole_schema()).fetchall())

    def insert(self, cursor: Cursor, name: str, rows: pa.Table, misfits: encode.Misfits) -> None:
        """COPY one row set as it fits."""
        fitting = self.fitting(name, rows.schema)
        columns = ", ".join(map(tables.quoted, encode.names(fitting)))
        with cursor.copy(sql(f"COPY {self.named(name)} ({columns}) FROM STDIN (FORMAT binary)")) as copy:
            copy.write(encode.HEADER)
            for piece in readable(encode.encoded(fitting, rows, misfits)):
                copy.write(memoryview(piece))
            copy.write(encode.TRAILER)

    def take_away(self, cursor: Cursor, one: Redo) -> bool:
        """The rows that a replay makes again, and the counters of the pipeline that they belong to; False where they
        are not as expected."""
        gone: list[tuple[int, str, int]] = []
        if one.table in self.columns and one.ranges:
            statement = sql(redo.remove(self.named(one.table)))
            gone = cursor.execute(statement, redo.of_ranges(one.ranges)).fetchall()
        if sum(count for _, _, count in gone) != one.expected:
            return False
        change = copied(one.added)
        for partition, stream, count in gone:
            add(change, {partition: {stream: Counts(rows=-count)}})
        self.count(cursor, one.pipeline, change)
        return True

    def count(self, cursor: Cursor, pipeline: str, change: Added) -> None:
        """Change counters of a pipeline, where it stands."""
        partitions = sorted(p for p, streams in change.items() if streams)
        found = cursor.execute(
            sql(
                "SELECT partition, vector, counters::text, config_epoch, owner "
                f"FROM {self.named(POSITIONS)} WHERE pipeline = %s AND partition = ANY(%s) "
                "ORDER BY partition FOR UPDATE"
            ),
            (pipeline, partitions),
        ).fetchall()
        rows = {}
        for p, vector, text, epoch, owner in found:
            streams = {p: counts_of(text)}
            add(streams, {p: change[p]})
            rows[p] = PositionRow(vector, streams[p], epoch, owner)
        cursor.execute(self.worded(MOVE), self.row_values(pipeline, rows))

    def try_rows(self, table: str, rows: pa.Table) -> None:
        self.fitting(table, rows.schema, grow=True)
        with self.transaction() as cursor:
            self.hold_tables(cursor, {table})
            self.insert(cursor, table, rows, encode.Misfits())
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    # -- recognition

    @property
    def identity_names(self) -> identity.Named:
        """Tables of recognition."""
        return {"identity": self.named(identity.IDENTITY), "unsettled": self.named(identity.UNSETTLED)}

    def unsettled(self, partitions: Sequence[int] | None, limit: int) -> list[str]:
        with self.transaction() as cursor:
            return identity.unsettled(cursor, self.identity_names, partitions, limit)

    def facts(self, ids: Sequence[str]) -> pa.Table:
        with self.transaction() as cursor:
            return identity.facts(cursor, self.identity_names, ids)

    def settle(
        self, partitions: Sequence[int] | None, whose: Whose, *, ids_max: int, rows_max: int
    ) -> Settled:
        self.unindexed = [name for name in self.unindexed if not self.indexed(name)]
        for name in self.unindexed:
            raise Misconfigured(
                f"{self.label}: {name} is large, and has no index over its visitors",
                code="visitor_index",
                help=f"{identity.index_ddl(name, self.named(name), concurrently=True)}; (docs/guides/postgres.md)",
            )
        tables_ = [self.named(name) for name, columns in self.columns.items() if identity.settles(columns)]
        try:
            with self.transaction() as cursor:
                done = identity.settle(
                    cursor,
                    self.identity_names,
                    tables_,
                    partitions,
                    whose,
                    ids_max=ids_max,
                    rows_max=rows_max,
                )
                cursor.execute("COMMIT")
                return done
        except HeadwaterError as error:
            if isinstance(error.__cause__, psycopg.Error) and error.__cause__.sqlstate in YIELDED:
                return Settled(0, 0, more=False)
            raise

    def ids_of_user(self, user_id: str, limit: int) -> list[str]:
        with self.transaction() as cursor:
            return identity.ids_of_user(cursor, self.identity_names, user_id, limit)

    def newest_facts(self, since_us: int, limit: int) -> pa.Table:
        with self.transaction() as cursor:
            return identity.newest_facts(cursor, self.identity_names, since_us, limit)

    def rows_by_user(self, table: str, ids: Sequence[str]) -> pa.Table:
        if not identity.settles(self.columns.get(table, {})):
            return ROWS_BY_USER_SCHEMA.empty_table()
        with self.transaction() as cursor:
            return identity.rows_by_user(cursor, self.named(table), ids)

    def make_indexes(self) -> None:
        """Indexes over the visitor, where they are missing, the table is small, and nobody holds it; ``unindexed``: the
        other tables, which wait for an operator's."""
        tables_ = [name for name, columns in self.columns.items() if identity.settles(columns)]
        self.unindexed = [name for name in tables_ if not self.indexed(name)]
        for name in list(self.unindexed):
            if self.size(name) <= identity.TABLE_BYTES_MAX:
                with contextlib.suppress(Unavailable):
                    self.changing(partial(self.make_index, name))
                    self.unindexed.remove(name)

    def make_index(self, name: str, cursor: Cursor) -> None:
        """One index, while nobody loads; another node may have made it meanwhile."""
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (self.table_wait,))
        if not self.indexed(name):
            cursor.execute(sql(identity.index_ddl(name, self.named(name))))

    def indexed(self, name: str) -> bool:
        """Whether a table's rows can be found by their visitor."""
        index = {"index": self.named(identity.visitor_index(name))}
        return (
            self.rows(
                "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(%(index)s) AND indisvalid", index
            )
            != []
        )

    def size(self, name: str) -> int:
        """Bytes of a table, with its partitions."""
        found = self.rows(
            "SELECT sum(pg_relation_size(relid))::bigint FROM "
            "(SELECT relid FROM pg_partition_tree(%(table)s) UNION SELECT %(table)s::regclass) AS t",
            {"table": self.named(name)},
        )
        return int(found[0][0])

    # -- what a replay asks

    def origins(self, table: str, ranges: Sequence[Range]) -> pa.Table:
        if not ranges or not self.has(table):
            return HELD_SCHEMA.empty_table()
        return redo.held(self.rows(redo.origins(self.named(table)), redo.of_ranges(ranges)))

    def present(self, table: str, wanted: pa.Table, since_us: int | None, until_us: int | None) -> set[int]:
        if not self.has(table):
            return set()
        statement = redo.present(self.named(table), since_us, until_us)
        found = self.rows(statement, redo.of_wanted(wanted, since_us, until_us))
        return {number for (number,) in found}

    def forget(self, pipeline: str, table: str | None) -> None:
        def drop(cursor: Cursor) -> None:
            cursor.execute(self.worded("DELETE FROM {positions} WHERE pipeline = %s"), (pipeline,))
            if table is not None:
                cursor.execute(sql(f"DROP TABLE IF EXISTS {self.named(table)}"))

        self.changing(drop)
        self.read_columns()

    def has(self, table: str) -> bool:
        return self.exists(table)

    # -- drift

    def note(self, table: str, misfits: encode.Misfits) -> None:
        """Add what was committed to what is known."""
        for column, (count, example) in misfits.found.items():
            before = self.drifts.get((table, column), Drift(table, column, 0, example))
            self.drifts[table, column] = replace(before, count=before.count + count)

    def drift(self) -> Sequence[Drift]:
        return tuple(self.drifts.values())


def readable(pieces: Iterator[pa.Buffer]) -> Iterator[pa.Buffer]:
    """The pieces; Rejected where a value is not what its type says, such as text that is not UTF-8."""
    try:
        yield from pieces
    except (pa.ArrowInvalid, UnicodeError) as error:
        raise Rejected(f"a value cannot be read: {error}", code="row_refused") from error


def counts_of(text: str) -> dict[str, Counts]:
    """From the column ``counters``."""
    return {stream: Counts(**counts) for stream, counts in counters_decoder.decode(text).items()}


def position_arrays(rows: Mapping[int, PositionRow]) -> dict[str, object]:
    """Position rows as the parameters of NEW_ROWS, in rising order of partition."""
    ordered = sorted(rows.items())
    totals = [row.total for _, row in ordered]
    return {
        "partitions": [partition for partition, _ in ordered],
        "vectors": [row.vector for _, row in ordered],
        "rows": [total.rows for total in totals],
        "dead": [total.dead for total in totals],
        "erased": [total.erased for total in totals],
        "out": [total.out for total in totals],
        "counters": counters_text(ordered),
        "epochs": [row.config_epoch for _, row in ordered],
        "owners": [row.owner for _, row in ordered],
    }


def counters_text(rows: Sequence[tuple[int, PositionRow]]) -> str:
    """The column ``counters`` of all rows: partition → stream → counters."""
    told = {str(p): {name: c._asdict() for name, c in sorted(row.streams.items())} for p, row in rows}
    return msgspec.json.encode(told).decode()
