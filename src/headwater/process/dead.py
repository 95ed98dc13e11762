"""Dead letters as they can be listed: a fold of the commits' dead letters, and those of refused rows.

Keyed by origin, so that folding again changes nothing. The original bytes and the reason are kept; the oldest letters
go first when there are more than the setting allows.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

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
