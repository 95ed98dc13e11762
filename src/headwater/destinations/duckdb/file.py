"""The DuckDB file: opened by one process, shut off from the world, watched.

External access is off, extensions are never loaded or fetched, Python variables are no tables, and the configuration
is locked, for the writing connection and for every reader's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import duckdb

from headwater.destinations.duckdb.errors import translated
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.kit.errors import Misconfigured, Unavailable

CLOSED = ("TimeZone = 'UTC'", "enable_external_access = false", "lock_configuration = true")


class DuckDbFile:
    """One file with its writing connection. ``folder`` is for spilled data."""

    def __init__(self, settings: DuckDbSettings, path: str, folder: str) -> None:
        self.settings = settings
        self.path = path
        self.folder = folder
        self.base: duckdb.DuckDBPyConnection | None = None
        self.inode = 0

    @property
    def is_open(self) -> bool:
        return self.base is not None

    def open_file(self, *, create: bool, first: str) -> None:
        """Connect, run the statement ``first``, shut the database off."""
        if not create and not os.path.exists(self.path):
            raise self.gone()
        try:
            self.base = duckdb.connect(self.path, config=self.config())
            self.base.execute(first)
            self.lock()
        except duckdb.Error as error:
            self.close_file()
            raise translated(error, self.path) from error
        self.inode = os.stat(self.path).st_ino

    def config(self) -> dict[str, str | bool | int | float | list[str]]:
        """What the database is opened with."""
        settings = self.settings
        return {
            "threads": str(settings.threads),
            "memory_limit": f"{settings.memory_mib_max}MiB",
            "temp_directory": os.path.join(self.folder, "spill"),
            "max_temp_directory_size": f"{settings.temp_mib_max}MiB",
            "checkpoint_threshold": f"{settings.checkpoint_mib}MiB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "python_enable_replacements": "false",
        }

    def lock(self) -> None:
        """Shut the database off. After connecting: the folder for spilled data could not be named otherwise.

        Where a reader still holds the database of a connection that was closed, it is locked already.
        """
        if self.write.execute("SELECT current_setting('lock_configuration')").fetchall()[0][0]:
            return
        for setting in CLOSED:
            self.write.execute(f"SET GLOBAL {setting}")

    def close_file(self) -> None:
        """Let go; DuckDB folds its write-ahead log into the file where it can."""
        base, self.base = self.base, None
        if base is not None:
            with contextlib.suppress(duckdb.Error):
                base.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection for one reader. Unavailable while the file is not open."""
        if self.base is None:
            raise Unavailable(
                "the warehouse is not open: `headwater status` says why", code="destination_closed"
            )
        return self.base.cursor()

    @property
    def write(self) -> duckdb.DuckDBPyConnection:
        """The writing connection."""
        if self.base is None:
            raise Unavailable("the warehouse is not open", code="destination_closed")
        return self.base

    @contextlib.contextmanager
    def translating(self) -> Iterator[None]:
        """DuckDB's errors become ours; a transaction that is open is rolled back."""
        try:
            yield
        except duckdb.Error as error:
            self.roll_back()
            raise translated(error, self.path) from error

    def roll_back(self) -> None:
        """End a transaction if there is one."""
        if self.base is not None:
            with contextlib.suppress(duckdb.Error):
                self.base.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, where nothing that runs just now prevents it."""
        with contextlib.suppress(duckdb.Error):
            self.write.execute("CHECKPOINT")

    def gone(self) -> Misconfigured:
        """The file is not where it was."""
        return Misconfigured(
            f"{self.path} is not there, though it was delivered to before",
            code="destination_missing",
            help="put it back where it was",
        )

    def check_file(self) -> None:
        """The open file must still be the one at its path: rows in an unlinked file are lost at the next start."""
        try:
            same = os.stat(self.path).st_ino == self.inode
        except FileNotFoundError:
            same = False
        if not same:
            self.close_file()
            raise self.gone()
