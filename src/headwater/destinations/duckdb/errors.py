"""DuckDB's errors, translated at one edge by what the caller does next."""

from __future__ import annotations

import re

import duckdb

from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable

DATA = (
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.DataError,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
    duckdb.InvalidInputException,
)
CODES: tuple[tuple[str, type[HeadwaterError], str, str], ...] = (
    (
        r"Could not set lock|Conflicting lock",
        Misconfigured,
        "file_locked",
        "another program has the file open; close it there, and use `headwater sql` to read while a node runs",
    ),
    (
        r"not a valid DuckDB database|newer version|older version|storage version|version number",
        Misconfigured,
        "file_version",
        "the file is of no DuckDB, or of a version that this one cannot read",
    ),
    (
        r"[Nn]o space left|disk full|max_temp_directory_size",
        Unavailable,
        "disk_full",
        "free space where the file is",
    ),
    (
        r"Corrupt database file|[Cc]hecksum",
        Misconfigured,
        "file_damaged",
        "put an older copy in its place: it fills itself up again from the raw log",
    ),
    (r"No such file or directory|does not exist", Misconfigured, "file_missing", "is the folder there?"),
    (
        r"Permission denied|Read-only file system",
        Misconfigured,
        "file_permission",
        "the node's user must own it",
    ),
)


def translated(error: duckdb.Error, path: str) -> HeadwaterError:
    """The error that the deliverer understands; raise it ``from`` the driver's."""
    text = str(error).strip().split("\n")[0]
    if isinstance(error, DATA) and not isinstance(error, duckdb.OperationalError):
        return Rejected(text, code="row_refused")
    if isinstance(error, duckdb.IOException | duckdb.Error):
        for pattern, kind, code, help_ in CODES:
            if re.search(pattern, str(error)):
                return kind(f"{path}: {text}", code=code, help=help_)
    return Unavailable(
        f"{path}: {text}", code="duckdb_" + type(error).__name__.removesuffix("Exception").lower()
    )
