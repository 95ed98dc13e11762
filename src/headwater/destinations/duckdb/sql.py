"""SQL for readers, in the process that holds the file (protocol.md §17.20).

One statement, parsed by DuckDB itself, of a kind that reads; a cursor of its own inside ``BEGIN TRANSACTION READ
ONLY``; no files, no network, no extensions, no settings (write.py). Time, rows, bytes and concurrency are bounded:
what is too long is interrupted, what is too big is cut and says so. Loads go on meanwhile: readers see the state at
their beginning.

JSON: times are ISO 8601 in UTC, integers beyond 2^53 and every UBIGINT are strings (so are the origin columns, always),
decimals are numbers where a double holds them exactly and strings otherwise, bytes are base64, NaN and infinities are
strings. Two columns of one name get ``_1``, ``_2``, ….
"""

from __future__ import annotations

import base64
import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from headwater.destinations.duckdb.settings import SqlSettings
from headwater.kit.errors import Busy, Rejected, Unavailable

READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
BATCH_ROWS = 2048
EXACT = 1 << 53
NO_COLUMN_YET = "a property becomes a column with the first event that has it; is that one still on its way?"


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows as Arrow. ``truncated``: "" or which limit cut it."""

    rows: pa.Table
    truncated: str


class Sql:
    """Answers queries, from any thread."""

    def __init__(self, cursor: Callable[[], duckdb.DuckDBPyConnection], settings: SqlSettings) -> None:
        self.cursor = cursor
        self.settings = settings
        self.places = threading.BoundedSemaphore(settings.concurrent_max)
        self.running: set[duckdb.DuckDBPyConnection] = set()

    def query(self, text: str, *, rows_max: int | None = None, time_max_s: float | None = None) -> Answer:
        """Rejected: not one reading statement, wrong, or too long. Busy: no place. Unavailable: not open."""
        settings = self.settings
        rows_max = min(settings.rows_max if rows_max is None else max(0, rows_max), settings.rows_limit)
        with self.stream(text, time_max_s) as rows:
            return self.cut(rows, rows_max)

    @contextlib.contextmanager
    def stream(self, text: str, time_max_s: float | None = None) -> Iterator[pa.RecordBatchReader]:
        """The rows of a query as DuckDB makes them; errors as ``query``, also while they are read."""
        statement = self.parsed(text)
        settings = self.settings
        time_max_s = min(settings.time_max_s, time_max_s or settings.time_max_s)
        if not self.places.acquire(timeout=settings.queue_wait_s):
            raise Busy(f"{settings.concurrent_max} queries are running", code="sql_busy")
        try:
            with self.running_rows(statement, time_max_s) as rows:
                yield rows
        finally:
            self.places.release()

    def parsed(self, text: str) -> duckdb.Statement:
        """The one statement; Rejected with the reason otherwise."""
        if len(text) > self.settings.query_chars_max:
            raise Rejected(
                f"the query is longer than {self.settings.query_chars_max} characters", code="sql_length"
            )
        try:
            statements = duckdb.extract_statements(text)
        except duckdb.Error as error:
            raise Rejected(str(error), code="sql_syntax") from error
        if len(statements) != 1:
            raise Rejected(f"expected one statement, got {len(statements)}", code="sql_statements")
        if statements[0].type not in READING:
            raise Rejected(
                f"only reading is possible here, not {statements[0].type.name}",
                code="sql_kind",
                help="SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN",
            )
        return statements[0]

    @contextlib.contextmanager
    def running_rows(self, statement: duckdb.Statement, time_max_s: float) -> Iterator[pa.RecordBatchReader]:
        """A query under way, within its time."""
        with reading(self.cursor()) as cursor, interrupting(cursor, time_max_s) as late:
            self.running.add(cursor)
            try:
                with cursor.sql(statement).to_arrow_reader(BATCH_ROWS) as rows:
                    yield rows
            except duckdb.InterruptException as error:
                if not late.is_set():
                    raise Unavailable("the warehouse is being closed", code="destination_closed") from error
                raise Rejected(f"stopped after {time_max_s:g} s", code="sql_time") from error
            except duckdb.OutOfMemoryException as error:
                raise Rejected(str(error), code="sql_memory", help="ask for less at a time") from error
            except (duckdb.FatalException, duckdb.ConnectionException) as error:
                raise Unavailable(str(error), code="sql_engine") from error
            except (duckdb.Error, pa.ArrowException, OSError) as error:
                if late.is_set():
                    raise Rejected(f"stopped after {time_max_s:g} s", code="sql_time") from error
                help = NO_COLUMN_YET if "Referenced column" in str(error) else ""
                raise Rejected(str(error), code="sql_error", help=help) from error
            finally:
                self.running.discard(cursor)

    def stop(self) -> None:
        """End what runs; it answers Unavailable. From any thread."""
        for cursor in list(self.running):
            with contextlib.suppress(duckdb.Error):
                cursor.interrupt()

    def cut(self, stream: pa.RecordBatchReader, rows_max: int) -> Answer:
        """Read until a limit; what is beyond is never computed where DuckDB can stop early."""
        batches: list[pa.RecordBatch] = []
        rows = size = 0
        truncated = ""
        for batch in stream:
            if rows + batch.num_rows > rows_max:
                batches.append(batch.slice(0, rows_max - rows))
                truncated = "rows"
                break
            batches.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if size > self.settings.result_bytes_max:
                truncated = "bytes"
                break
        return Answer(pa.Table.from_batches(batches, stream.schema), truncated)


@contextlib.contextmanager
def reading(cursor: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only transaction around a query; the cursor is gone afterwards."""
    try:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        yield cursor
    finally:
        with contextlib.suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        cursor.close()


@contextlib.contextmanager
def interrupting(cursor: duckdb.DuckDBPyConnection, after_s: float) -> Iterator[threading.Event]:
    """Interrupts what the cursor runs when the time is over; the event says that it did."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        cursor.interrupt()

    timer = threading.Timer(after_s, stop)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()


# -- as JSON

Encode = Callable[[Any], Any]


def columns_of(rows: pa.Table) -> list[dict[str, str]]:
    """Names, made distinct, and Arrow types."""
    names = distinct(rows.column_names)
    return [{"name": name, "type": str(field.type)} for name, field in zip(names, rows.schema, strict=True)]


def distinct(names: list[str]) -> list[str]:
    """Names with ``_1``, ``_2``, … where one was there before."""
    used: set[str] = set()
    found = []
    for name in names:
        number, candidate = 0, name
        while candidate in used:
            number += 1
            candidate = f"{name}_{number}"
        used.add(candidate)
        found.append(candidate)
    return found


def as_json(rows: pa.Table) -> bytes:
    """A JSON array of objects."""
    return msgspec.json.encode(records(rows))


def records(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as objects of what JSON holds."""
    names = distinct(rows.column_names)
    columns = []
    for column in rows.columns:
        encode = encoder(column.type)
        columns.append(
            [None if v is None else encode(v) for v in column.cast(without_zone(column.type)).to_pylist()]
        )
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def without_zone(kind: pa.DataType) -> pa.DataType:
    """The same type with naive times, so that no time-zone database is needed; they are in UTC."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(without_zone(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(without_zone(kind.key_type), without_zone(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(without_zone(kind.value_type)))
    return kind


def encoder(kind: pa.DataType) -> Encode:
    """From a Python value of an Arrow type to what JSON holds."""
    if pa.types.is_uint64(kind):
        return str
    if pa.types.is_timestamp(kind):
        suffix = "Z" if kind.tz else ""
        return lambda value: value.isoformat() + suffix
    if pa.types.is_struct(kind):
        fields = {field.name: optional(encoder(field.type)) for field in kind}
        return lambda value: {name: fields[name](member) for name, member in value.items()}
    if pa.types.is_map(kind):
        key, item = encoder(kind.key_type), optional(encoder(kind.item_type))
        return lambda value: {str(key(k)): item(v) for k, v in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = optional(encoder(kind.value_type))
        return lambda value: [inner(v) for v in value]
    return simple


def optional(encode: Encode) -> Encode:
    """The encoder for values that may be missing."""
    return lambda value: None if value is None else encode(value)


def simple(value: Any) -> Any:
    """Values that stand alone."""
    match value:
        case bool() | str():
            return value
        case int():
            return value if -EXACT <= value <= EXACT else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return decimal(value)
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return str(value)


def decimal(value: Decimal) -> int | float | str:
    """A number where a double holds it exactly."""
    if value == value.to_integral_value():
        return int(value) if abs(value) <= EXACT else str(value.quantize(Decimal(1)))
    return float(value) if Decimal(repr(float(value))) == value else str(value)
