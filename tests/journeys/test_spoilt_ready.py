"""A byte of the ready log changes while a node is down: what destinations lack of it is made again from the raw log."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journeys.running import Running, unique, wait_for

PAGE = 4096


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_spoilt_commits_cost_neither_rows_nor_starts(make_node: Callable[..., Running]) -> None:
    """INV-DEST, INV-PROC-3: commits that nobody had loaded, none of which a processor had saved."""
    node = make_node()
    node.start()
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        batch = [{"type": "track", "event": "E", "messageId": f"m{sent + n}"} for n in range(count)]
        status, told = node.post("/v1/batch", {"batch": batch})
        assert status == 200, told
        sent += count

    send(50)
    node.wait_rows(50)
    node.wait_settled()
    time.sleep(1.5)  # a processor saves its state each second
    shutil.copytree(node.data / "state" / "0", node.folder / "saved")
    (deliverer,) = node.pids(" deliver ")
    os.kill(deliverer, signal.SIGSTOP)
    for _ in range(8):  # a commit each
        before = blocks_of_ready(node)
        send(20)
        wait_for(lambda before=before: len(blocks_of_ready(node)) > len(before), 10)  # type: ignore[misc]
    node.kill_all()
    shutil.rmtree(node.data / "state" / "0")  # as if killed before it saved anything of these
    shutil.copytree(node.folder / "saved", node.data / "state" / "0")
    spoilt = blocks_of_ready(node)[-7::3]
    for path, at in spoilt:
        data = bytearray(path.read_bytes())
        data[at + 200] ^= 4
        path.write_bytes(data)

    node.start()
    send(20)
    streams = node.wait_settled()
    assert all(stream["holds"] for stream in streams), streams
    assert unique(row["message_id"] for row in node.sql("select message_id from events")) == {
        f"m{n}" for n in range(sent)
    }
    assert len(spoilt) == 3


def blocks_of_ready(node: Running) -> list[tuple[Path, int]]:
    """Where blocks begin in the ready log, in order."""
    found = []
    for path in sorted((node.data / "ready" / "0").glob("*-*.seg")):
        data = path.read_bytes()
        found += [(path, at) for at in range(0, len(data), PAGE) if data[at : at + 4] == b"HWB1"]
    return found
