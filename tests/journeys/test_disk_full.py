"""No room: 503 with Retry-After, nothing accepted, nothing lost; room again: on again, by itself.

Two ways to run out: the quota of the data folder, while processing stands still (SIGSTOP), and the disk itself (a small
tmpfs with a ballast file; needs root).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.running import WEB_KEY, Running, unique, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

MIB = 1024 * 1024
SMALL = "log: {segment_bytes: 8388608, ready_segment_bytes: 8388608, spare_segments_max: 1}"
PADDING = "x" * 200_000


class Sender:
    """Sends numbered events of 200 KB and remembers which were acknowledged."""

    def __init__(self, node: Running) -> None:
        self.node = node
        self.numbers = itertools.count()
        self.acknowledged: set[str] = set()

    def send(self) -> int:
        """One batch of four; its status."""
        ids = [f"full-{next(self.numbers)}" for _ in range(4)]
        batch = [
            {"type": "track", "event": "Full", "messageId": name, "properties": {"p": PADDING}}
            for name in ids
        ]
        headers = {"X-Write-Key": WEB_KEY, "Content-Type": "application/json"}
        answer = self.node.ask("POST", "/v1/batch", {"batch": batch}, headers, timeout_s=30)
        if answer.status == 200:
            assert answer.json["accepted"] == 4
            self.acknowledged.update(ids)
        else:
            assert answer.status == 503, answer
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json["ok"] is False
            assert answer.json["reason"]
        return answer.status

    def fill(self, bytes_max: int) -> None:
        """Send until there is no room: 503 again and again (once may be a segment that is being prepared)."""
        for _ in range(bytes_max // (4 * len(PADDING))):
            full = 0
            while self.send() == 503:
                full += 1
                if full == 8:
                    return
                time.sleep(0.1)
        raise AssertionError(f"never full, {len(self.acknowledged)} acknowledged: {self.node.log()}")

    def check(self) -> None:
        """Everything acknowledged is in the warehouse once, and nothing that was not."""
        streams = self.node.wait_settled(90)
        assert all(s["holds"] for s in streams), streams
        rows = self.node.sql("select message_id, length(p) as size from events where event = 'Full'")
        assert unique(r["message_id"] for r in rows) == self.acknowledged
        assert {r["size"] for r in rows} == {len(PADDING)}


def test_full_quota_is_503_until_processing_has_made_room(make_node: Callable[..., Running]) -> None:
    node = make_node(more=f"data_bytes_max: {256 * MIB}\n{SMALL}")
    node.start()
    sender = Sender(node)
    assert sender.send() == 200
    processors = node.pids(" process ")
    assert processors
    for pid in processors:
        os.kill(pid, signal.SIGSTOP)
    try:
        sender.fill(300 * MIB)
        used = sum(file.stat().st_size for file in (node.data / "raw").rglob("*") if file.is_file())
        assert used <= 0.7 * 256 * MIB + 9 * MIB, used  # its share, and the segment that was begun
        assert sender.send() == 503
        assert node.ask("GET", "/ping").status == 200  # it lives; it only has no room
        wait_for(lambda: node.status_of(node.ops, "/ready") == 503, 10, node.log)
        assert "quota" in node.ask("GET", "/ready", port=node.ops).body.decode()
        metrics = node.ask("GET", "/metrics", port=node.ops).body.decode()
        assert 'status="503"' in metrics
    finally:
        for pid in processors:
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: sender.send() == 200, 60, node.log, interval_s=0.3)
    sender.check()


@pytest.mark.one_node("fills the ready log of one node; three share what it is filled with")
def test_full_ready_log_makes_processing_wait_while_the_door_is_open(
    make_node: Callable[..., Running],
) -> None:
    """The only destination stands still: its commits fill the ready log, what comes later stays in the raw log."""
    node = make_node(more=f"data_bytes_max: {256 * MIB}\n{SMALL}")
    node.start()
    sender = Sender(node)
    (deliverer,) = node.pids(" deliver ")
    os.kill(deliverer, signal.SIGSTOP)
    try:
        for _ in range(65):  # 52 MB, where 38 have room
            assert sender.send() == 200
        wait_for(lambda: "ready" in said(node, "process-0"), 20, lambda: said(node, "process-0"))
        used = sum(file.stat().st_size for file in (node.data / "ready").rglob("*.seg"))
        assert used <= 0.15 * 256 * MIB + 9 * MIB, used
        assert sender.send() == 200
    finally:
        os.kill(deliverer, signal.SIGCONT)
    sender.check()


def said(node: Running, role: str) -> str:
    """What a process says is wrong."""
    answer = node.ask("GET", "/api/status", port=node.ops, timeout_s=30)
    return json.dumps(answer.json["roles"].get(role, {}).get("reasons", []))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600m", "headwater-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_full_disk_is_503_until_there_is_space(make_node: Callable[..., Running], small_disk: Path) -> None:
    node = make_node(data=small_disk / "data", more=f"data_bytes_max: {512 * MIB}\n{SMALL}")
    node.start()
    sender = Sender(node)
    assert sender.send() == 200
    ballast = small_disk / "ballast"
    try:
        with ballast.open("wb") as file:
            try:
                while True:
                    file.write(bytes(MIB))
            except OSError:  # ENOSPC: now there is nothing left, for nobody
                pass
        sender.fill(100 * MIB)
        assert sender.send() == 503
        pids = node.pids(" collect ")
        assert pids
        ballast.unlink()
        wait_for(lambda: sender.send() == 200, 60, node.log, interval_s=0.3)
        wait_for(lambda: node.status_of(node.ops, "/ready") == 200, 30, node.log)
        assert json.loads(node.command("status", "--json").stdout)
        sender.check()
        assert node.stop() == 0, node.log()
    finally:
        node.close()
        ballast.unlink(missing_ok=True)
