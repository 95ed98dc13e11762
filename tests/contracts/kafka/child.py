"""A member of a group in a process of its own, that can be killed.

``python -m tests.contracts.kafka.child '{...}'``: takes events into a SQLite "warehouse" and appends to a file what it
saw, before anything else. With ``exact`` the warehouse holds the position too, in the same transaction.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headwater.kit.signals import end_with_parent
from headwater.lane.kafka.sink import Advance, Answer, Event
from tests.contracts.kafka.group import Notes, member
from tests.parts import ROOT


class Child:
    """The test's side."""

    def __init__(self, servers: str, topic: str, **options: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.options = {"servers": servers, "topic": topic, "folder": self.folder.name, **options}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self.path / "partitions").unlink(missing_ok=True)
        parent = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contracts.kafka.child", json.dumps(self.options)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
            preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - only a prctl
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def partitions(self) -> int:
        """How many it owns, as it last said."""
        try:
            return int((self.path / "partitions").read_text() or 0)
        except FileNotFoundError:
            return 0

    def seen(self) -> list[tuple[int, int]]:
        """Partition and offset of everything that was given to its sink, in order, over all its lives."""
        try:
            lines = (self.path / "seen").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [
            (int(p), n) for p, first, last in map(str.split, lines) for n in range(int(first), int(last) + 1)
        ]

    def rows(self) -> list[str]:
        """What is in the warehouse."""
        with sqlite3.connect(self.path / "warehouse.db", timeout=30) as database:
            try:
                return [value for (value,) in database.execute("select value from rows")]
            except sqlite3.OperationalError:
                return []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.folder.cleanup()


class Warehouse(Notes):
    """The child's side: rows, and with ``exact`` the position beside them."""

    def __init__(self, folder: Path, exact: bool) -> None:
        super().__init__()
        self.folder = folder
        self.exact = exact
        self.file = (folder / "seen").open("a")
        self.database = sqlite3.connect(folder / "warehouse.db", timeout=30, isolation_level=None)
        self.database.execute("pragma journal_mode = wal")
        self.database.execute("create table if not exists rows (value text)")
        self.database.execute("create table if not exists positions (partition int primary key, next int)")
        self.owned: set[int] = set()

    async def on_assign(self, topic: str, partition: int, first: int) -> int | None:
        self.tell({*self.owned, partition})
        if not self.exact:
            return None
        row = self.database.execute("select next from positions where partition = ?", (partition,)).fetchone()
        return int(row[0]) if row else None

    async def on_revoke(self, topic: str, partition: int, deadline_s: float) -> Answer | None:
        self.tell(self.owned - {partition})
        return None

    def tell(self, owned: set[int]) -> None:
        self.owned = owned
        draft = self.folder / "partitions.tmp"
        draft.write_text(str(len(owned)))
        draft.rename(self.folder / "partitions")

    async def on_batch(
        self, topic: str, partition: int, first: int, last: int, events: Sequence[Event]
    ) -> Answer:
        self.file.write(f"{partition} {first} {last}\n")
        self.file.flush()
        self.database.execute("begin immediate")
        self.database.executemany(
            "insert into rows values (?)", [(event.value.decode(),) for event in events]
        )
        self.database.execute("insert or replace into positions values (?, ?)", (partition, last + 1))
        self.database.execute("commit")
        return Advance()


async def main(options: dict[str, Any]) -> None:
    sink = Warehouse(Path(options.pop("folder")), options.pop("exact", False))
    servers, topic = options.pop("servers"), options.pop("topic")
    async with member(servers, sink, topic, **options) as running:
        await running.ending.wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
