"""Dead letters as they can be listed: a fold of the commits' dead letters, and those of refused rows.

Keyed by origin, so that folding again changes nothing. The original bytes and the reason are kept; the oldest letters
go first when there are more than the setting allows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.kit.errors import Unavailable

if TYPE_CHECKING:
    import pyarrow as pa

TABLE = """
create table if not exists dead (
  writer text not null, log text not null, seq integer not null, row integer not null,
  stream text not null, reason text not null, field text not null, message_id text not null,
  received text not null, body blob not null,
  primary key (writer, log, seq, row)
) without rowid
"""
COLUMNS = ("writer", "log", "seq", "row", "stream", "reason", "field", "message_id", "received")
NAMES = ", ".join(COLUMNS)
BUSY_S = 5.0
Origin = tuple[int, int, int]
"""Writer, log, seq."""
Span = tuple[int, tuple[int, int], tuple[int, int]]
"""Writer, and the stretch between two (log, seq)."""


class DeadLetters:
    """One file of dead letters; one process writes, any process reads."""

    def __init__(self, path: str, *, letters_max: int = 1_000_000) -> None:
        self.letters_max = letters_max
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.execute("pragma journal_mode=wal")
        self.connection.execute("pragma synchronous=full")
        self.connection.execute(TABLE)

    def add(self, table: pa.Table) -> None:
        """Keep these letters; durable on return; those that are there stay as they are."""
        received = [v.isoformat() for v in table["received"].to_pylist()]
        rows = [
            (
                f"{r['writer']:016x}",
                f"{r['log']:016x}",
                r["seq"],
                r["row"],
                r["stream"],
                r["reason"],
                r["field"] or "",
                r["message_id"],
                at,
                r["body"],
            )
            for r, at in zip(table.to_pylist(), received, strict=True)
        ]
        self.connection.execute("begin immediate")
        self.connection.executemany("insert or ignore into dead values (?,?,?,?,?,?,?,?,?,?)", rows)
        self.trim()
        self.connection.execute("commit")

    def take_over(self, path: str) -> None:
        """Keep the letters of another file too, which nobody writes; durable on return, and may be repeated."""
        self.connection.execute("attach ? as former", (path,))
        try:
            self.connection.execute("begin immediate")
            self.connection.execute("insert or ignore into main.dead select * from former.dead")
            self.trim()
            self.connection.execute("commit")
        finally:
            if self.connection.in_transaction:
                self.connection.execute("rollback")
            self.connection.execute("detach former")

    def trim(self) -> None:
        """The oldest go."""
        self.connection.execute(
            "delete from dead where (writer, log, seq, row) in"
            " (select writer, log, seq, row from dead order by received limit max(0, (select count(*) from dead) - ?))",
            (self.letters_max,),
        )

    def close(self) -> None:
        self.connection.close()


def between(path: str, spans: Sequence[Span], *, table: str = "dead") -> list[Origin]:
    """Origins of the letters of a file in these stretches: writer, from (log, seq), up to. ``table``: another one with
    the same key."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    query = (
        f"select writer, log, seq from {table} "  # noqa: S608 - a name of ours
        "where writer = ? and (log, seq) >= (?, ?) and (log, seq) < (?, ?)"
    )
    found: list[Origin] = []
    try:
        for writer, (log, seq), (log_end, end) in spans:
            values = (f"{writer:016x}", f"{log:016x}", seq, f"{log_end:016x}", end)
            rows = connection.execute(query, values)
            found += [(int(writer, 16), int(log, 16), seq) for writer, log, seq in rows]
    finally:
        connection.close()
    return found


def remove(path: str, origins: Sequence[Origin]) -> None:
    """Take letters out of a file whose events are rows now (a replay). Its processor writes it too: both wait for each
    other. Unavailable: not now."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
    values = [(f"{writer:016x}", f"{log:016x}", seq) for writer, log, seq in origins]
    try:
        connection.execute("begin immediate")
        connection.executemany("delete from dead where writer = ? and log = ? and seq = ?", values)
        connection.execute("commit")
    except sqlite3.Error as error:
        raise Unavailable(f"{path} cannot be written: {error}", code="dead_letters") from error
    finally:
        connection.close()


def read(path: str, *, limit: int = 100, stream: str | None = None) -> list[dict[str, Any]]:
    """The newest letters of a file, without their bodies, newest first."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        where, values = ("where stream = ?", [stream]) if stream else ("", [])
        query = f"select {NAMES}, length(body) from dead {where} order by received desc limit ?"  # noqa: S608
        cursor = connection.execute(query, [*values, limit])
        return [{**dict(zip(COLUMNS, r, strict=False)), "bytes": r[-1]} for r in cursor]
    finally:
        connection.close()
