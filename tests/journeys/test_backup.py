"""A backup of a data folder, taken at any moment, restored elsewhere: nothing acknowledged before it is lost, nothing
is there twice, and the ledger holds."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.load import Load
from tests.journeys.running import Running, unique, wait_for

pytestmark = pytest.mark.one_node("a backup is of one node's folder")
MakeNode = Callable[..., Running]
SMALL = "log: {segment_bytes: 8388608, ready_segment_bytes: 8388608, spare_segments_max: 1}\n"


def cli(*words: str, timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
    """A command that needs no node."""
    return subprocess.run(
        [sys.executable, "-m", "headwater", *words],
        capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def back_up(node: Running, target: Path) -> dict[str, Any]:
    """A backup, and what it says of itself."""
    done = node.command("backup", "--json", str(target))
    assert done.returncode == 0, done.stderr + node.log()
    return dict(json.loads(done.stdout))


def restored(make_node: MakeNode, backup: Path, **options: Any) -> Running:
    """A node on a folder that was made from the backup; not yet started."""
    node = make_node(**options)
    done = cli("restore", str(backup), "--data", str(node.data))
    assert done.returncode == 0, done.stderr
    assert "headwater run" in done.stdout
    return node


@contextmanager
def loaded(node: Running) -> Iterator[Load]:
    """Load, while the block runs."""
    load = Load(node)
    load.begin(1)
    try:
        wait_for(lambda: len(load.acknowledged) > 300, 30, node.log)
        yield load
    finally:
        load.rest()


def exact(node: Running, wanted: set[str], sent: dict[str, float]) -> None:
    """All that is wanted is there, nothing twice, nothing that was never sent, and the ledger holds."""
    streams = node.wait_settled(90)
    rows = node.sql("select message_id, value from events")
    there = {row["message_id"]: row["value"] for row in rows}
    unique(row["message_id"] for row in rows)
    assert not wanted - there.keys(), f"{len(wanted - there.keys())} of {len(wanted)} are lost"
    assert all(sent[name] == value for name, value in there.items())
    assert all(stream["holds"] for stream in streams), streams
    assert node.command("reconcile").returncode == 0
    assert "log_damaged" not in node.log_text()


def test_a_backup_under_load_holds_every_event_that_was_acknowledged_before_it(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node(workers=2, more=SMALL)
    node.start()
    backup = tmp_path / "backup.tar.zst"
    with loaded(node) as load:
        time.sleep(random.Random(os.getpid()).uniform(0, 1.5))
        before = set(load.acknowledged)
        told = back_up(node, backup)
        wait_for(lambda: len(load.acknowledged) > len(before) + 300, 30, node.log)
    node.stop()
    assert (backup.stat().st_mode & 0o777, told["inside"]) == (0o600, ["warehouse"])
    other = restored(make_node, backup, workers=2, more=SMALL)
    other.start()
    exact(other, before, load.sent)
    status, _ = other.post("/v1/track", {"event": "New", "messageId": "new", "userId": "u"})
    assert status == 200
    other.wait_rows(1, where="message_id = 'new'")


def test_a_warehouse_that_is_newer_than_the_restored_folder_loses_and_doubles_nothing(
    make_node: MakeNode, tmp_path: Path
) -> None:
    """The folder burned, the warehouse did not: what came into it after the backup stays, what comes now follows."""
    node = make_node()
    node.start()
    backup = tmp_path / "backup.tar"
    with loaded(node) as load:
        told = back_up(node, backup)
        wait_for(lambda: len(load.acknowledged) > told["facts"]["events"] + 500, 30, node.log)
    node.wait_settled()
    node.stop()
    other = restored(make_node, backup)
    shutil.copy(node.data / "warehouse.duckdb", other.data / "warehouse.duckdb")
    other.start()
    more = send(other, "after")
    settle_rows(other, load.acknowledged | more)


@pytest.mark.parametrize("clock_behind", [False, True])
def test_a_warehouse_that_knows_logs_which_the_restored_folder_never_began_loses_and_doubles_nothing(
    make_node: MakeNode, tmp_path: Path, clock_behind: bool
) -> None:
    """The node was started again after the backup; also where the clock stands further back than those logs began."""
    node = make_node()
    node.start()
    backup = tmp_path / "backup.tar.zst"
    with loaded(node) as load:
        back_up(node, backup)
        node.stop()
        if clock_behind:
            begin_logs_in_the_future(node)
        node.start()
        there = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > there + 300, 30, node.log)
    node.wait_settled()
    node.stop()
    other = restored(make_node, backup)
    shutil.copy(node.data / "warehouse.duckdb", other.data / "warehouse.duckdb")
    other.start()
    more = send(other, "after")
    settle_rows(other, load.acknowledged | more)
    assert "destination_ahead" not in other.log_text()


def begin_logs_in_the_future(node: Running) -> None:
    """Log ids follow the clock: the next ones are those of a clock that stands a week further."""
    path = node.data / "headwater.json"
    told = json.loads(path.read_text())
    told["log_id"] = f"{int(told['log_id'], 16) + (7 * 86_400_000 << 22):016x}"
    path.write_text(json.dumps(told))


def send(node: Running, name: str, count: int = 200) -> set[str]:
    """Events with ids of their own; all are acknowledged."""
    ids = [f"{name}-{n}" for n in range(count)]
    batch = [{"type": "track", "event": "E", "messageId": one, "userId": "u"} for one in ids]
    assert node.post("/v1/batch", {"batch": batch})[0] == 200
    return set(ids)


def settle_rows(node: Running, wanted: set[str]) -> None:
    """Until all of these are in the warehouse, each once."""
    there: list[str] = []

    def all_there() -> bool:
        there[:] = [row["message_id"] for row in node.sql("select message_id from events")]
        return wanted <= set(there)

    wait_for(
        all_there,
        30,
        lambda: (
            f"{len(wanted - set(there))} of {len(wanted)} missing, such as {sorted(wanted - set(there))[:3]}\n"
            + node.command("status").stdout
            + node.log()
        ),
        interval_s=0.5,
    )
    unique(there)


def test_a_node_that_is_killed_while_it_is_backed_up_leaves_no_half_backup(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node()
    node.start()
    send(node, "first")
    backup = tmp_path / "backup.tar.zst"
    for pid in node.pids(" deliver "):
        os.kill(pid, signal.SIGSTOP)  # so that its copy is under way for as long as we like
    running = begin_backup(node, backup)
    wait_for(lambda: backup.with_suffix(".zst.part").exists(), 20)
    wait_for(lambda: list((node.data / "run/backup").glob("*/data/raw/*/*.seg")) != [], 20)
    node.kill_all()
    told = running.communicate(timeout=60)
    assert (running.returncode, list(tmp_path.glob("backup*"))) in ((3, []), (0, [backup])), told
    if running.returncode == 3:  # else the stopped folder was backed up at the second try
        assert list((node.data / "run/backup").iterdir()) == []
        back_up(node, backup)
    other = restored(make_node, backup)
    other.start()
    settle_rows(other, {f"first-{n}" for n in range(200)})


def test_a_deliverer_that_is_killed_while_it_copies_is_asked_again(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node()
    node.start()
    ids = send(node, "first")
    backup = tmp_path / "backup.tar.zst"
    pids = node.pids(" deliver ")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    running = begin_backup(node, backup)
    wait_for(lambda: list((node.data / "run/backup").glob("*/data/raw/*/*.seg")) != [], 20)
    node.kill(*pids)
    told = running.communicate(timeout=60)
    assert running.returncode == 0, told
    other = restored(make_node, backup)
    other.start()
    settle_rows(other, ids)
    assert other.command("reconcile").returncode == 0


def begin_backup(node: Running, backup: Path) -> subprocess.Popen[str]:
    """A backup, not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "headwater", "backup", str(backup), "--data", str(node.data)],
        env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("machine", [False, True], ids=["processes", "machine"])
def test_a_folder_is_backed_up_right_after_a_crash_with_all_that_was_acknowledged(
    make_node: MakeNode, tmp_path: Path, machine: bool
) -> None:
    """The machine's crash takes the watermarks, which are never synced, back to any value that they had."""
    node = make_node(workers=2)
    node.start()
    with loaded(node) as load:
        node.kill_all()
    assert not list((node.data / "raw").rglob("*.end"))
    for path in (node.data / "raw").rglob("*.wm") if machine else ():
        path.write_bytes(bytes(8))
    backup = tmp_path / "backup.tar.zst"
    told = back_up(node, backup)
    assert told["facts"]["events"] >= len(load.acknowledged)
    other = restored(make_node, backup, workers=2)
    other.start()
    exact(other, load.acknowledged, load.sent)


def test_a_stopped_folder_is_backed_up_and_starts_meanwhile(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    node.start()
    ids = send(node, "first")
    node.stop()
    backup = tmp_path / "backup.tar"
    back_up(node, backup)
    node.start()
    settle_rows(node, ids)
    other = restored(make_node, backup)
    other.start()
    settle_rows(other, ids)
    assert other.command("reconcile").returncode == 0


def test_a_backup_that_is_killed_leaves_nothing_to_do_for_anybody(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node()
    node.start()
    send(node, "first")
    backup = tmp_path / "backup.tar.zst"
    for pid in node.pids(" deliver "):
        os.kill(pid, signal.SIGSTOP)
    running = begin_backup(node, backup)
    wait_for(lambda: list((node.data / "run/backup").glob("*/data/raw/*/*.seg")) != [], 20)
    running.kill()
    running.communicate()
    for pid in node.pids(" deliver "):
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: list((node.data / "run/backup").iterdir()) == [], 20, node.log)
    assert not backup.exists()
    back_up(node, backup)
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.tar.zst"]
