"""All rows of a query as an Arrow IPC stream, piece by piece (protocol.md §17.20): nothing is cut or collected.

The limits are those of sql.py but for rows and bytes: one reading statement, its time (over which the asking side must
have read everything, too), the memory of DuckDB, a place among the queries. DuckDB makes a batch when it is asked for;
what the asking side has not read yet is one piece, of at most ``PIECE_BYTES_MAX`` or one row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator
from concurrent.futures import Executor
from typing import Any

import pyarrow as pa

from headwater.destinations.duckdb.sql import Sql, distinct
from headwater.kit.clock import Clock

PIECE_BYTES_MAX = 16 * 1024 * 1024


class Written:
    """A file that is taken away while it is written."""

    closed = False

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        self.length += len(data)
        return len(data)

    def tell(self) -> int:
        return self.length

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        """What was written since the last time."""
        parts, self.parts = self.parts, []
        return b"".join(parts)


def pieces(
    sql: Sql, query: str, rows_max: int | None, clock: Clock, told: dict[str, Any]
) -> Generator[bytes, None, None]:
    """An Arrow IPC stream of at most ``rows_max`` rows; ``told`` has rows, truncated and ms after the last piece. Names
    that stand twice get ``_1``, ``_2``, …. Errors as Sql.query."""
    began_ns = clock.boot_ns()
    file = Written()
    count = 0
    truncated = ""
    with sql.stream(query) as rows:
        schema = renamed(rows.schema)
        with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), schema) as stream:
            for batch in slices(rows):
                if rows_max is not None and count + batch.num_rows > rows_max:
                    batch = batch.slice(0, rows_max - count)
                    truncated = "rows"
                count += batch.num_rows
                stream.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                yield file.take()
                if truncated:
                    break
        yield file.take()
    told |= {"rows": count, "truncated": truncated, "ms": (clock.boot_ns() - began_ns) / 1e6}


def renamed(schema: pa.Schema) -> pa.Schema:
    """The schema with each name once."""
    names = distinct(schema.names)
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def slices(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches, cut where they are large."""
    for batch in rows:
        step = max(1, batch.num_rows * PIECE_BYTES_MAX // max(1, batch.nbytes))
        for at in range(0, batch.num_rows, step):
            yield batch.slice(at, step)


async def in_threads(made: Generator[bytes, None, None], pool: Executor) -> AsyncGenerator[bytes, None]:
    """The pieces, each made in a thread of ``pool``. Closing this closes them: the query ends, its place is free."""
    loop = asyncio.get_running_loop()
    making: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            making = loop.run_in_executor(pool, next, made, None)
            piece = await asyncio.shield(making)
            if piece is None:
                return
            yield piece
    finally:
        if making is not None and not making.done():
            await asyncio.wait((making,))
        await loop.run_in_executor(pool, made.close)
