"""Settings of a DuckDB destination."""

from __future__ import annotations

from typing import Literal

import msgspec

from headwater.destinations.settings import DestinationSettings

WAL = ".wal"
"""Behind the name of a file: its write-ahead log."""


class SqlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of readers' SQL. None of these reloads."""

    time_max_s: float = 30.0
    """Longest time of one query, seconds; then it is interrupted."""
    rows_max: int = 10_000
    """Rows of one answer; what is beyond is left out and the answer says so. A request may ask for fewer or more, up
    to ``rows_limit``."""
    rows_limit: int = 1_000_000
    """The most rows that a request may ask for."""
    result_bytes_max: int = 64 * 1024 * 1024
    """Size of one answer in memory, bytes; what is beyond is left out and the answer says so."""
    concurrent_max: int = 4
    """Queries at one time; more wait up to ``queue_wait_s``."""
    queue_wait_s: float = 5.0
    """Longest wait for a free place, seconds; then the answer is Busy."""
    query_chars_max: int = 100_000
    """Length of a query."""


class DuckDbSettings(DestinationSettings, frozen=True, tag="duckdb", kw_only=True):
    """A DuckDB file. None of these reloads without re-opening the file."""

    path: str = "warehouse.duckdb"
    """The file; a relative path is below the data folder. One process may have it open."""
    node: str = ""
    """In a cluster: the node that holds the file, by its name or id; the others deliver to it there. Empty: the node
    that made the cluster's first table."""
    schema: Literal["evolve", "freeze"] = "evolve"
    """New columns: added to the table, or (freeze) kept in ``_unmapped``."""
    threads: int = 1
    """Threads of DuckDB for loads and queries together. A second one costs a load 15 % more CPU per row; raise it where
    queries matter more."""
    memory_mib_max: int = 1024
    """Memory of DuckDB, MiB; beyond it, queries spill to ``temp_mib_max`` on disk or fail."""
    temp_mib_max: int = 4096
    """Spilled data, MiB, below the data folder."""
    checkpoint_mib: int = 256
    """Size of the write-ahead log, MiB, at which it is folded into the file. At DuckDB's 16, small loads cost 2 to 3
    times more; a larger one makes the first start after a crash slower (about 1 s for each 200 MiB)."""
    sql: SqlSettings = SqlSettings()
