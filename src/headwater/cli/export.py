"""Rows of a query into a file: Parquet, Arrow, CSV or NDJSON, by the ending of its name.

Rows come from the process that holds the warehouse as they are made, and go into a file beside the one that is wanted;
that takes its name only once every row is in it and on disk. So whatever happens, the file is whole or not there.
Memory: one piece (16 MiB at most), and for Parquet one row group (``GROUP_ROWS`` rows or ``GROUP_BYTES``).
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headwater.cli.client import TIMEOUT_S, Node
from headwater.kit import ask
from headwater.kit.errors import Rejected

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 122_880
GROUP_BYTES = 64 * 1024 * 1024
FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
"""By the ending of the file's name."""


class Writer(Protocol):
    """Writes one file."""

    def write(self, rows: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


def export(
    node: Node,
    query: str,
    path: str,
    format: str | None,
    limit: int | None,
    destination: str | None,
    force: bool,
) -> dict[str, Any]:
    """Export; file, format, rows, bytes, truncated, ms. Rejected where the file is there (and no ``force``)."""
    kind = format or format_of(path)
    check_target(path, force)
    name = known_destination(node, destination)
    told: dict[str, Any] = {}
    request = {"op": "export", "query": query, "rows_max": limit}
    draft = Path(path).absolute().parent / f".{Path(path).name}.{os.getpid()}.part"
    try:
        with draft.open("xb") as file:
            copy(ask.ask_pieces(f"{node.data}/run/deliver-{name}.sock", request, TIMEOUT_S, told), kind, file)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        check_target(path, force)
        draft.rename(path)
    except Rejected as error:
        if error.code == "sql_time":
            error.help = f"the limit is destinations.{name}.sql.time_max_s"
        raise
    finally:
        draft.unlink(missing_ok=True)
    return {"file": path, "format": kind, "bytes": size, **told}


def format_of(path: str) -> str:
    """What the ending says."""
    found = FORMATS.get(Path(path).suffix.lower())
    if found is None:
        endings = ", ".join(FORMATS)
        raise Rejected(
            f"{path}: expected a name that ends with {endings}", code="format", help="or give --format"
        )
    return found


def check_target(path: str, force: bool) -> None:
    """Rejected where the file would take another's place, or has none."""
    if os.path.isdir(path) or (os.path.lexists(path) and not force):
        help = "give another name" if os.path.isdir(path) else "--force replaces it"
        raise Rejected(f"{path} is there already", code="file_exists", help=help)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Rejected(f"{path}: expected a folder that is there and may be written", code="file_folder")


def known_destination(node: Node, wanted: str | None) -> str:
    """A destination of the node; the first one where none is named."""
    names = [str(name) for name in node.get("/api/status")["destinations"]]
    if not names:
        raise Rejected("there are no destinations", code="destination_name")
    if wanted is not None and wanted not in names:
        raise Rejected(
            f"no destination {wanted!r}: expected one of {', '.join(names)}", code="destination_name"
        )
    return wanted or names[0]


class Stream(io.RawIOBase):
    """The pieces as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self.left:
            piece = next(self.pieces, None)
            if piece is None:
                return 0
            self.left = memoryview(piece)
        count = min(len(target), len(self.left))
        target[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


def copy(pieces: Iterator[bytes], kind: str, file: io.BufferedWriter) -> None:
    """From an Arrow IPC stream into a file of this kind; an error of the pieces is raised as it is."""
    import pyarrow as pa

    source = pa.PythonFile(io.BufferedReader(Stream(pieces)), mode="r")
    with pa.ipc.open_stream(source) as rows, contextlib.closing(WRITERS[kind](file, rows.schema)) as writer:
        for batch in rows:
            writer.write(batch)
    for _ in pieces:  # what was told stands behind the last piece
        raise Rejected("more came than the end of the rows", code="export_format")


class ParquetFile:
    """Row groups of up to 122,880 rows, compressed with zstd."""

    def __init__(self, file: io.BufferedWriter, schema: pa.Schema) -> None:
        from pyarrow import parquet

        self.schema = schema
        self.writer = parquet.ParquetWriter(file, schema, compression="zstd")
        self.held: list[pa.RecordBatch] = []
        self.rows = self.bytes = 0

    def write(self, rows: pa.RecordBatch) -> None:
        self.held.append(rows)
        self.rows += rows.num_rows
        self.bytes += rows.nbytes
        if self.rows >= GROUP_ROWS or self.bytes >= GROUP_BYTES:
            self.write_group()

    def write_group(self) -> None:
        import pyarrow as pa

        if self.held:
            self.writer.write_table(pa.Table.from_batches(self.held, self.schema), row_group_size=GROUP_ROWS)
        self.held, self.rows, self.bytes = [], 0, 0

    def close(self) -> None:
        self.write_group()
        self.writer.close()


class ArrowFile:
    """An Arrow IPC file, as pyarrow, pandas, polars and DuckDB map it."""

    def __init__(self, file: io.BufferedWriter, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.writer = pa.ipc.new_file(file, schema)

    def write(self, rows: pa.RecordBatch) -> None:
        self.writer.write_batch(rows)

    def close(self) -> None:
        self.writer.close()


class CsvFile:
    """As ``headwater sql --csv`` prints it."""

    def __init__(self, file: io.BufferedWriter, schema: pa.Schema) -> None:
        self.text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        self.writer = csv.writer(self.text)
        self.names = schema.names
        self.writer.writerow(self.names)

    def write(self, rows: pa.RecordBatch) -> None:
        from headwater.cli.sql import csv_cell

        self.writer.writerows([csv_cell(record[name]) for name in self.names] for record in records(rows))

    def close(self) -> None:
        self.text.detach()


class NdjsonFile:
    """A JSON object on each line, as ``headwater sql --json`` prints it."""

    def __init__(self, file: io.BufferedWriter, schema: pa.Schema) -> None:
        import msgspec

        self.file = file
        self.encode_lines = msgspec.json.Encoder().encode_lines

    def write(self, rows: pa.RecordBatch) -> None:
        self.file.write(self.encode_lines(records(rows)))

    def close(self) -> None:
        pass


WRITERS: dict[str, Any] = {"parquet": ParquetFile, "arrow": ArrowFile, "csv": CsvFile, "ndjson": NdjsonFile}


def records(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as JSON would have them."""
    import pyarrow as pa

    from headwater.destinations.duckdb.sql import records

    return records(pa.Table.from_batches([rows]))
