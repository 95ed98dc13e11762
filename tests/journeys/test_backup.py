"""A backup of a data folder, taken at any moment, restored elsewhere: nothing acknowledged before it is lost, nothing is
there twice, and the ledger holds."""

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

from tests.journeys.running import Running, unique, wait_for
from tests.journeys.test_kill import Load

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
    load = Load(node, 1)
    try:
        wait_for(lambda: len(load.acknowledged) > 300, 30, node.log)
        yield load
    finally:
        load.stop()


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
    assert told["holds_bytes"] < 8 * 1024 * 1024, "segments are not stored with what nobody has written"
    other = restored(make_node, backup, workers=2, more=SMALL)
    other.start()
    exact(other, before, load.sent)
    status, _ = other.post("/v1/track", {"event": "New", "messageId": "new", "userId": "u"})
    assert status == 200
    other.wait_rows(1, where="message_id = 'new'")
