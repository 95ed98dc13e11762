"""Raw segments are compressed beside the work; who reads them later notices nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journeys.running import Running, wait_for
from tests.journeys.test_off_the_chain import SECOND, SMALL, Stream, holds

COMPRESSED = SMALL.replace("spare_segments_max: 1", "spare_segments_max: 1, compress_after_s: 0.001")


def compressed(node: Running) -> list[str]:
    return sorted(file.name for file in (node.data / "raw").rglob("*.segz"))


def hurried(node: Running) -> Running:
    """The same node; upkeep no longer waits for an idle machine, which a machine that runs tests may never be."""
    for pid in node.pids("upkeep"):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, int(task.name), 0)
    return node


@pytest.mark.slow
def test_a_new_destination_gets_everything_from_compressed_segments(
    make_node: Callable[..., Running],
) -> None:
    """INV-LOG-1, INV-DST-3: compressed under load, killed in the midst, started again, read from the beginning."""
    node = make_node(more=COMPRESSED)
    node.start()
    stream = Stream(node)
    stream.send(9_000)
    wait_for(lambda: bool(compressed(hurried(node))), 90, node.log)
    node.kill_all()
    node.start()
    stream.send(9_000)
    holds(node, "warehouse", stream.ids(), 90)
    wait_for(lambda: len(compressed(hurried(node))) >= 2, 90, node.log)
    wait_for(
        lambda: json.loads(node.command("status", "--json").stdout)["raw"]["compressed"]["segments"] >= 2, 40
    )
    assert "compressed from" in node.command("status").stdout
    assert "headwater_raw_compressed_plain_bytes" in node.ask("GET", "/metrics", port=node.ops).body.decode()
    told = json.loads(node.command("log", "inspect", "--json").stdout)
    smaller = [one for one in told if one["compressed"]]
    assert len(smaller) >= 2
    assert all(one["bytes"] < one["used_bytes"] and not one["problems"] for one in smaller)
    assert json.loads((node.data / "headwater.json").read_text())["format"] == 3
    node.stop()
    node.configure(more=SECOND + COMPRESSED)
    node.start()
    holds(node, "second", stream.ids(), 90)
    stream.send(300)
    holds(node, "second", stream.ids())
    holds(node, "warehouse", stream.ids())
