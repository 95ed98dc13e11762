"""Two deliverers forced onto one DuckDB file, paused in the middle of a step: nothing doubled, and it goes on.

DuckDB lets one process hold the file, so two owners are two adapters through that process (protocol.md §17.22), and a
paused owner is a thread that waits between two statements. A process that is stopped whole (SIGSTOP) keeps the file:
others wait until it goes on or is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from headwater.destinations.deliver import Deliverer
from tests.chains import ListChain, chain, commit
from tests.contracts.deliver_stops import PARTITIONS, PLACES, ComparesBefore, Stopping, deliverer
from tests.contracts.test_deliver_kill import assert_exact, child, record

TOGETHER_S = float(os.environ.get("HEADWATER_TOGETHER_S", "2"))


def rounds(one: Deliverer, count: int = 30) -> None:
    for _ in range(count):
        one.retry_ns = 0
        one.round()


def held(folder: Path) -> list[str]:
    """What the file holds, in order."""
    with duckdb.connect(str(folder / "w.duckdb")) as base:
        return [name for (name,) in base.execute("select message_id from events order by _hw_seq").fetchall()]


def overtaken(folder: Path, kind: Callable[[Path], Stopping], place: str) -> tuple[list[str], Deliverer]:
    """A deliverer is paused in its second step, another one delivers everything, the first goes on."""
    ready = ListChain(chain([10, 10, 10], PARTITIONS))
    first, second = kind(folder), kind(folder)
    paused, others = deliverer(folder, "a", first, ready.open), deliverer(folder, "b", second, ready.open)
    rounds(paused, 1)
    reached, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        reached.set()
        go_on.wait(20)

    first.stops[place] = stop
    thread = threading.Thread(target=rounds, args=(paused,))
    thread.start()
    assert reached.wait(20)
    rounds(others)
    stood = max((row.total.rows for row in (others.rows or {}).values()), default=0)
    assert stood > 3 or place == "written"  # progress: nobody waits for the one that is paused
    go_on.set()
    thread.join(20)
    rounds(others)
    rounds(paused)
    for one in (paused, others):
        assert one.trouble is None, one.trouble
        one.close()
    return held(folder), paused


@pytest.mark.parametrize("place", PLACES)
def test_inv_dst_1_an_owner_that_was_paused_in_a_step_and_overtaken_writes_nothing(
    tmp_path: Path, place: str
) -> None:
    """INV-DST-1 (protocol.md §15.3, protocol-why.md P3): a pause between compare and COMMIT."""
    there, _ = overtaken(tmp_path, Stopping, place)
    assert there == [f"m{n}" for n in range(30)]


@pytest.mark.broken_variant
def test_inv_dst_1_comparing_before_the_transaction_is_found(tmp_path: Path) -> None:
    """INV-DST-1, P3: the same pause doubles rows where the comparison is not part of the transaction."""
    there, _ = overtaken(tmp_path, ComparesBefore, "compared")
    assert len(there) > len(set(there)) == 30


def together(folder: Path, kind: Callable[[Path], Stopping], seconds: float) -> tuple[int, list[Deliverer]]:
    """Two deliverers of one chain, each in a thread, while the chain grows; how many events it held at the end."""
    ready, end = ListChain(), time.monotonic() + seconds
    owners = [deliverer(folder, name, kind(folder), ready.open, load_rows=40) for name in "ab"]
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
    sent = 0
    while time.monotonic() < end:
        ready.entries.append(commit(sent, 5, PARTITIONS))
        sent += 5
        time.sleep(0.001)
    stopping.set()
    for thread in threads:
        thread.join(20)
    assert not failed, failed
    return sent, owners


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * TOGETHER_S)
def test_inv_dst_1_two_forced_owners_double_nothing_and_progress_goes_on(tmp_path: Path) -> None:
    """INV-DST-1 (protocol.md §15.4): two owners with equal chains, for HEADWATER_TOGETHER_S seconds."""
    sent, owners = together(tmp_path, Stopping, TOGETHER_S)
    while_both_tried = max(sum(row.total.rows for row in (one.rows or {}).values()) for one in owners)
    assert while_both_tried > sent / 4, "no progress while both tried"
    for one in owners:
        rounds(one, 200)
        assert one.trouble is None
    loads, moved = [one.counters["loads"] for one in owners], [one.counters["moved"] for one in owners]
    for one in owners:
        one.close()
    assert held(tmp_path) == [f"m{n}" for n in range(sent)]
    assert sum(loads) > 1, loads
    assert sum(moved) + sum(one.counters["errors"] + one.counters["unknown"] for one in owners) > 0
    print(f"{sent} events, loads {loads}, moved {moved}")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("then", ["is killed", "its file is put back"])
def test_inv_dst_1_a_process_stopped_before_commit_holds_the_file_and_doubles_nothing(
    tmp_path: Path, then: str
) -> None:
    """INV-DST-1: SIGSTOP between compare and COMMIT; meanwhile a second process, and a file put back under it."""
    record(tmp_path)
    with child(tmp_path, "after", "1") as before:
        assert before.wait(30) == -9
    held(tmp_path)  # opened and closed: all of it is in the file
    yesterday = (tmp_path / "w.duckdb").read_bytes()
    stopped = child(tmp_path, "stop", "2")
    others = [stopped]
    try:
        wait_stopped(stopped.pid)
        others.append(waiting := child(tmp_path))
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)  # for the file
        if then == "is killed":
            stopped.kill()
            assert waiting.wait(30) == 0
        else:
            waiting.kill()
            (tmp_path / "w.duckdb").unlink()
            (tmp_path / "w.duckdb.wal").unlink(missing_ok=True)
            (tmp_path / "w.duckdb").write_bytes(yesterday)
            os.kill(stopped.pid, signal.SIGCONT)
            assert stopped.wait(30) == 0
    finally:
        for one in others:
            one.kill()
            one.communicate()
    assert_exact(tmp_path)


def wait_stopped(pid: int) -> None:
    """Until a process has stopped itself."""
    for _ in range(4000):
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
            return
        time.sleep(0.005)
    raise AssertionError("it never stopped")
