"""Findings of reference/protocol-why.md that no other test opens: shown closed, and open where what closes them is left
out. docs/faults.md says which finding is shown where."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headwater.event.commit import Commit
from headwater.event.position import Position
from headwater.kit.errors import Broken
from headwater.log import files
from headwater.log.ready import ReadyReader
from tests.unit.process.test_worker import Killed, Node, crash, drain, event, killed_at


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


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_inv_proc_3_a_spoilt_commit_is_made_again_from_the_raw_log(
    node: Node, which: tuple[int, ...]
) -> None:
    """INV-PROC-3, INV-STATE: the commits behind it are not believed; those made anew have all of their events, once.

    A destination that has one of the lost commits already is off the chain, and gets the rest from a private run."""
    worker = node.processor()
    worker._save = lambda: None  # type: ignore[method-assign]
    for n in range(3):
        node.accept(event(n), event(n + 100), event(0))
        drain(worker)
    crash(worker)
    for number in which:
        spoil_commit(node, number)
    for _ in range(2):  # it holds at the start after that, too
        again = node.processor()
        drain(again)
        counts = node.reports[0]["counters"]["web"]
        assert (counts["in"], counts["out"], counts["duplicate"]) == (9, 6, 3)
        crash(again)
    made: dict[str, Any] = {}
    for row in node.rows():
        assert made.setdefault(row["message_id"], row) == row, (
            "a commit that was made again says something else"
        )
    assert sorted(made) == ["m0", "m1", "m100", "m101", "m102", "m2"]


def test_a_processor_that_refuses_to_go_on_behind_a_spoilt_commit_is_found(node: Node) -> None:
    """The same without the rule: it never starts again."""
    worker = node.processor()
    worker._save = lambda: None  # type: ignore[method-assign]
    for n in range(3):
        node.accept(event(n))
        drain(worker)
    crash(worker)
    spoil_commit(node, 1)
    with (
        mock.patch.object(ReadyReader, "damaged", property(lambda _: False, lambda *_: None), create=True),
        pytest.raises(Broken),
    ):
        node.processor()


def test_p1_state_that_is_saved_before_its_commit_is_found(node: Node) -> None:
    """P1, INV-PROC-1: ids that were saved before the commit was durable make its events duplicates of themselves."""
    node.accept(event(1))
    worker = node.processor()
    append, save = worker._append, worker._save

    def saves_first(entry: Commit) -> Position:
        worker.store.add(entry)  # broken: visible before it is durable
        save()
        raise Killed

    worker._append = saves_first  # type: ignore[method-assign]
    with pytest.raises(Killed):
        worker.step()
    crash(worker)
    drain(node.processor())
    assert node.ids() == [], "the hole is not open: this test shows nothing"
    assert append


def test_p1_a_crash_before_the_commit_leaves_nothing_behind(node: Node) -> None:
    """The same crash with the parts as they are: the event is a row."""
    node.accept(event(1))
    worker = node.processor()
    killed_at(worker.ready, "append")
    with pytest.raises(Killed):
        worker.step()
    crash(worker)
    drain(node.processor())
    assert node.ids() == ["m1"]
