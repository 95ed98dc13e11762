"""Findings of reference/protocol-why.md (L, P, D) that no other test opens: each is shown closed, and open where the part
that closes it is left out. docs/faults.md says which finding is shown where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.event.commit import Commit
from headwater.event.position import Position
from headwater.log import files
from tests.unit.process.test_worker import Killed, Node, crash, drain, event


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def spoil_commit(node: Node, number: int) -> None:
    """A byte of the numbered commit in the ready log changes."""
    (segment,) = files.segments(node.disk, f"{node.data}/ready/0")
    data = bytearray(Path(segment.path).read_bytes())
    places = [at for at in range(0, len(data), 4096) if data[at : at + 4] == b"HWB1"]
    data[places[number] + 100] ^= 1
    Path(segment.path).write_bytes(data)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_spoilt_commit(node: Node, which: int) -> None:
    worker = node.processor()
    worker._save = lambda: None
    for n in range(3):
        node.accept(event(n), event(n + 100), event(0))
        drain(worker)
    crash(worker)
    spoil_commit(node, which)
    again = node.processor()
    drain(again)
    print(which, node.ids(), node.reports[0]["counters"])
