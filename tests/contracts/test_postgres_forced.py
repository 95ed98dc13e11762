"""Two deliverers forced onto one PostgreSQL schema, paused, stopped and killed inside a step: nothing doubled.

Other than a DuckDB file, the schema has no single holder: whoever is stopped between compare and COMMIT holds rows
that others wait for, until the server ends its idle transaction (protocol.md §5).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from headwater.destinations.deliver import Deliverer
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.kit.clock import SystemClock
from headwater.kit.rng import SystemRng
from tests.chains import ListChain, chain, commit
from tests.contracts.deliver_stops import PARTITIONS, PLACES, Before, Stops, deliverer
from tests.contracts.test_deliver_forced import TOGETHER_S, rounds, wait_stopped
from tests.contracts.test_deliver_kill import CHILD, COMMITS, ROWS, record
from tests.rigs.postgres import Server

pytest.importorskip("psycopg")
from headwater.destinations.postgres.write import PostgresDestination

IDLE_S, LOCK_S = 1.0, 0.3


class Stopping(Stops, PostgresDestination):
    """An adapter that stops where it is told."""

    def __init__(self, server: Server, schema: str) -> None:
        settings = PostgresSettings(
            url=server.url(), schema=schema, idle_transaction_timeout_s=IDLE_S, lock_timeout_s=LOCK_S
        )
        super().__init__(settings, "/", SystemClock())
        self.stops = {}


class ComparesBefore(Before, Stopping):
    """Broken: the comparison is not part of the transaction."""


def held(server: Server, schema: str) -> list[str]:
    return [name for (name,) in server.ask(f"select message_id from {schema}.events order by _hw_seq")]


def until_all(one: Deliverer, count: int) -> None:
    """Rounds until it stands at the end of ``count`` events."""
    end = time.monotonic() + 20
    while sum(row.total.rows for row in (one.rows or {}).values()) < count:
        assert time.monotonic() < end, one.trouble
        rounds(one, 1)


def overtaken(server: Server, folder: Path, kind: Any, place: str) -> tuple[list[str], Deliverer]:
    """A deliverer is paused in its second step, another one delivers everything, the first goes on."""
    schema = server.schema()
    ready = ListChain(chain([10, 10, 10], PARTITIONS))
    first, second = kind(server, schema), kind(server, schema)
    paused, others = deliverer(folder, "a", first, ready.open), deliverer(folder, "b", second, ready.open)
    rounds(paused, 1)
    reached, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        reached.set()
        go_on.wait(30)

    first.stops[place] = stop
    thread = threading.Thread(target=rounds, args=(paused,))
    thread.start()
    assert reached.wait(20)
    until_all(others, 30)  # progress, while the first still stands there
    go_on.set()
    thread.join(20)
    rounds(others)
    rounds(paused)
    for one in (paused, others):
        assert one.trouble is None, one.trouble
        one.close()
    return held(server, schema), paused


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_inv_dst_1_an_owner_paused_in_a_step_is_ended_by_the_server_and_writes_nothing(
    tmp_path: Path, postgres: Server, place: str
) -> None:
    """INV-DST-1 (protocol.md §15.3, P3): a pause between compare and COMMIT longer than its idle timeout."""
    there, paused = overtaken(postgres, tmp_path, Stopping, place)
    assert there == [f"m{n}" for n in range(30)]
    assert paused.counters["errors"] > 0


@pytest.mark.broken_variant
def test_inv_dst_1_comparing_before_the_transaction_is_found_on_postgres(
    tmp_path: Path, postgres: Server
) -> None:
    """INV-DST-1, P3: the same pause doubles rows where the comparison is not part of the transaction."""
    there, _ = overtaken(postgres, tmp_path, ComparesBefore, "compared")
    assert len(there) > len(set(there)) == 30


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * TOGETHER_S)
def test_inv_dst_1_two_forced_owners_at_one_schema_double_nothing(tmp_path: Path, postgres: Server) -> None:
    """INV-DST-1, INV-CLU-2, INV-OWN-1 (protocol.md §15.4): two owners with equal chains, for HEADWATER_TOGETHER_S
    seconds, while connections of both are killed."""
    schema, ready = postgres.schema(), ListChain()
    owners = [
        deliverer(tmp_path, name, Stopping(postgres, schema), ready.open, load_rows=40) for name in "ab"
    ]
    stopping, failed = threading.Event(), list[BaseException]()

    def deliver(one: Deliverer) -> None:
        try:
            while not stopping.is_set():
                time.sleep(min(one.round(), 0.002))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=deliver, args=(one,)) for one in owners]
    for thread in threads:
        thread.start()
    sent, end, kill_at = 0, time.monotonic() + TOGETHER_S, time.monotonic() + 0.5
    while time.monotonic() < end:
        ready.entries.append(commit(sent, 5, PARTITIONS))
        sent += 5
        time.sleep(0.001)
        if time.monotonic() > kill_at:
            kill_at += 0.3
            postgres.ask(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'headwater' order by random() limit 1"
            )
    stopping.set()
    for thread in threads:
        thread.join(20)
    assert not failed, failed
    for one in owners:
        rounds(one, 200)
        until_all(one, sent)
        assert one.trouble is None
    counters = [one.counters for one in owners]
    for one in owners:
        one.close()
    assert held(postgres, schema) == [f"m{n}" for n in range(sent)]
    assert sum(c["loads"] for c in counters) > 1
    assert sum(c["moved"] for c in counters) > 0
    assert sum(c["errors"] for c in counters) > 0
    print(f"{sent} events, {counters}")


def child(folder: Path, server: Server, schema: str, how: str = "", number: int = 0) -> Any:
    """A deliver process; all of them share one folder of state."""
    command = [sys.executable, CHILD, str(folder), how, str(number), server.url(), schema]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def assert_exact(server: Server, schema: str) -> None:
    total = COMMITS * ROWS
    seen = server.ask(f"select count(*), count(distinct message_id), max(_hw_seq)::int from {schema}.events")
    assert seen == [(total, total, total - 1)]
    positions = f"{schema}.headwater_positions"
    assert server.ask(f'select sum("rows")::int, sum("out")::int, sum(dead)::int from {positions}') == [
        (total, total, 0)
    ]
    by_partition = server.ask(
        f"select count(*) from (select _hw_partition p, count(*) n from {schema}.events group by 1) e "
        f'join {positions} on p = partition and n = "rows"'
    )
    assert by_partition == [(len(PARTITIONS),)]


@pytest.mark.slow
def test_inv_dst_1_killed_anywhere_each_event_is_in_postgres_once(tmp_path: Path, postgres: Server) -> None:
    """INV-DST-1: before COMMIT, after it, and at random moments between."""
    schema = postgres.schema()
    record(tmp_path)
    for how in (("before", 1), ("after", 1), ("before", 2), ("after", 2)):
        with child(tmp_path, postgres, schema, *how) as process:
            assert process.wait(30) == -9
    rng = SystemRng()
    for _ in range(3):
        with child(tmp_path, postgres, schema) as process:
            assert process.stdout.readline() == b"up\n"
            try:
                process.wait(rng.below(120) / 1000)
            except subprocess.TimeoutExpired:
                process.kill()
    with child(tmp_path, postgres, schema) as process:
        assert process.wait(30) == 0
    assert_exact(postgres, schema)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_inv_dst_1_a_process_stopped_before_commit_holds_nobody_up_for_long(
    tmp_path: Path, postgres: Server
) -> None:
    """INV-DST-1: SIGSTOP between compare and COMMIT; another process delivers all of it, then the first goes on."""
    schema = postgres.schema()
    record(tmp_path)
    stopped = child(tmp_path, postgres, schema, "stop", 2)
    both = [stopped]
    try:
        wait_stopped(stopped.pid)
        both.append(other := child(tmp_path, postgres, schema))
        assert other.wait(30) == 0
        assert_exact(postgres, schema)
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.wait(30) == 0
    finally:
        for one in both:
            one.kill()
            one.communicate()
    assert_exact(postgres, schema)
