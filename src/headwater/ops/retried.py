"""Which dead letters were retried: ``state/retried/retried.sqlite``, written by the ops process alone.

A letter is noted *before* its bytes are appended again, and its receipt is added when they are durable. So a letter
with a time and no receipt is one of which nobody knows whether it was appended: the node ended in between. It is not
retried again unless somebody who has looked says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from headwater.kit.disk import Disk

TABLE = """
create table if not exists retried (
  writer text not null, log text not null, seq integer not null, row integer not null,
  at text not null, receipt text not null,
  primary key (writer, log, seq, row)
) without rowid
"""
KEPT_MAX = 1_000_000
"""Letters that are remembered; the oldest retries go first."""

Letter = tuple[str, str, int, int]
"""Writer, log, number, row."""


class Retry(NamedTuple):
    """When a letter was retried last, and the receipt of its new event; "" where that is not known."""

    at: str
    receipt: str


class Retried:
    """The file. Reading never makes it."""

    def __init__(self, disk: Disk, data: str) -> None:
        self.disk = disk
        self.folder = f"{data}/state/retried"
        self.path = f"{self.folder}/retried.sqlite"

    def of(self, letters: Sequence[Letter]) -> dict[Letter, Retry]:
        """The retries of these letters."""
        if not letters or not self.disk.exists(self.path):
            return {}
        found: dict[Letter, Retry] = {}
        connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
        try:
            query = "select at, receipt from retried where writer = ? and log = ? and seq = ? and row = ?"
            for letter in letters:
                if row := connection.execute(query, letter).fetchone():
                    found[letter] = Retry(*row)
        finally:
            connection.close()
        return found

    def begin(self, letters: Sequence[Letter], at: str) -> None:
        """These are about to be appended; durable on return."""
        self.write(
            "insert or replace into retried values (?, ?, ?, ?, ?, '')", [(*one, at) for one in letters]
        )

    def done(self, receipts: Mapping[Letter, str]) -> None:
        """These were appended; durable on return."""
        query = "update retried set receipt = ? where writer = ? and log = ? and seq = ? and row = ?"
        self.write(query, [(receipt, *letter) for letter, receipt in receipts.items()])

    def undo(self, letters: Sequence[Letter], before: Mapping[Letter, Retry]) -> None:
        """These were certainly not appended: what was known ``before`` holds again."""
        known = [(*letter, *before[letter]) for letter in letters if letter in before]
        self.write("insert or replace into retried values (?, ?, ?, ?, ?, ?)", known)
        new = [letter for letter in letters if letter not in before]
        self.write("delete from retried where writer = ? and log = ? and seq = ? and row = ?", new)

    def write(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        """One transaction."""
        if not rows:
            return
        self.disk.mkdir(self.folder)
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.execute(TABLE)
            connection.execute("begin immediate")
            connection.executemany(query, rows)
            connection.execute(
                "delete from retried where (writer, log, seq, row) in (select writer, log, seq, row from retried "
                "order by at limit max(0, (select count(*) from retried) - ?))",
                (KEPT_MAX,),
            )
            connection.execute("commit")
        finally:
            connection.close()
