"""A small deliver process: one ready log into one DuckDB file or PostgreSQL schema, until all of it is there.

python deliver_child.py DATA [before|after|stop N [URL SCHEMA]]: kill itself with SIGKILL before or after the N-th
COMMIT, or stop itself with SIGSTOP before it, when the position was compared and the rows are written.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.duckdb.write import DuckDbDestination
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.event.position import Position, WriterId
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader

SECRET = Secret(0x5EC2E7)


class Dying:
    """Dies around its N-th COMMIT; mixed into an adapter."""

    side, left = "", 0

    def commit(self, *arguments: Any) -> None:
        self.left -= 1
        if self.left == 0 and self.side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.left == 0 and self.side == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        super().commit(*arguments)  # type: ignore[misc]
        if self.left == 0 and self.side == "after":
            os.kill(os.getpid(), signal.SIGKILL)


class DyingDuckDb(Dying, DuckDbDestination):
    """DuckDB's."""


def made(data: str, url: str, schema: str, clock: SystemClock) -> Any:
    """The destination: a file in DATA, or a schema."""
    if not url:
        return DyingDuckDb(DuckDbSettings(), f"{data}/w.duckdb", data, clock)
    from headwater.destinations.postgres.settings import PostgresSettings
    from headwater.destinations.postgres.write import PostgresDestination

    settings = PostgresSettings(url=url, schema=schema, idle_transaction_timeout_s=1.0, lock_timeout_s=0.3)
    return type("DyingPostgres", (Dying, PostgresDestination), {})(settings, data, clock)


def main(data: str, side: str = "", number: str = "0", url: str = "", schema: str = "") -> None:
    clock, disk = SystemClock(), SystemDisk()

    def open_chain(at: Position) -> ReadyReader:
        return ReadyReader(disk, f"{data}/ready/0", WriterId(0), at, secret=SECRET)

    destination = made(data, url, schema, clock)
    destination.side, destination.left = side, int(number)
    one = Deliverer(
        "warehouse",
        destination,
        {"0": open_chain},
        Memory(disk, f"{data}/state.json", "c/warehouse/main"),
        DeadLetters(f"{data}/dead.sqlite", "warehouse"),
        DuckDbSettings(
            load_rows=1500,
            load_interval_min_ms=0,
            load_interval_max_ms=0,
            retry_interval_s=0.1,
            on_restored="refill",
        ),
        clock,
        partitions=4,
        owner=str(os.getpid()),
        node_ns=clock.boot_ns,
    )
    print("up", flush=True)
    while one.round() == 0 or one.trouble is not None:
        pass
    one.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
