"""Folders below ``standby/`` go when they have done their work, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.cluster.table import View
from headwater.event.position import Vector
from headwater.kit.disk import SystemDisk
from headwater.node.standby.retire import UNUSED_KEPT_NS, retire
from headwater.process import state
from headwater.process.state import Fold
from headwater.process.takeover import standby_folder, standby_names
from tests.unit.node.standby.nodes import OWNER, STANDBY, THIRD, view
from tests.unit.node.standby.world import vector

DISK = SystemDisk()
MINE = view(owner=STANDBY, standby=THIRD)
"""The table after the owner was lost: its partitions are this node's."""


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "state").mkdir()
    (tmp_path / "ready").mkdir()
    save(standby_folder(str(tmp_path), OWNER, 0), {0: vector(5, 5), 1: vector(5, 5)})
    return str(tmp_path)


def save(folder: str, vectors: dict[int, Vector]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    state.save(DISK, folder, Fold(vectors=vectors))


def left(data: str, now: View, *hours: float) -> list[str]:
    """What is there after a look at each of these times."""
    since: dict[str, int] = {}
    for hour in hours or (0.0,):
        retire(DISK, data, now, since, int(hour * 3600e9))
    return standby_names(DISK, data)


def test_what_is_followed_stays_whatever_the_processors_have(data: str) -> None:
    save(f"{data}/state/0", {0: vector(9, 9), 1: vector(9, 9)})
    assert left(data, view(), 0, 100) == [f"{OWNER}-0"]


def test_what_is_followed_and_cannot_be_read_stays(data: str) -> None:
    Path(standby_folder(data, OWNER, 0), "fold").write_bytes(b"\xff")
    assert left(data, view(), 0, 100) == [f"{OWNER}-0"]


def test_what_the_processors_have_on_disk_goes_at_once(data: str) -> None:
    save(f"{data}/state/0", {0: vector(5, 5)})
    save(f"{data}/state/1", {1: vector(6, 5)})
    assert left(data, MINE) == []
    assert list(Path(data, "standby").iterdir()) == []


@pytest.mark.parametrize(
    "own", [{}, {0: vector(5, 5)}, {0: vector(9, 9), 1: vector(4, 5)}, {0: vector(9, 9), 1: vector(9, 4)}]
)
def test_what_a_processor_has_not_or_not_all_of_it_stays_for_a_day(data: str, own: dict[int, Vector]) -> None:
    save(f"{data}/state/0", own)
    day = UNUSED_KEPT_NS / 3600e9
    assert left(data, MINE, 1, 1 + day) == [f"{OWNER}-0"]
    assert left(data, MINE, 1, 1.1 + day) == []


def test_the_day_begins_anew_when_it_was_followed_meanwhile(data: str) -> None:
    since: dict[str, int] = {}
    for hour, now in ((0, MINE), (20, view()), (25, MINE), (48, MINE)):
        retire(DISK, data, now, since, hour * 3_600_000_000_000)
    assert standby_names(DISK, data) == [f"{OWNER}-0"]


def test_own_state_that_cannot_be_read_supersedes_nothing(data: str) -> None:
    save(f"{data}/state/0", {})
    Path(data, "state/0/fold").write_bytes(b"\xff")
    assert left(data, MINE) == [f"{OWNER}-0"]


def test_a_removal_that_was_cut_short_is_finished(data: str) -> None:
    Path(data, f"standby/{OWNER}-3.gone/ids").mkdir(parents=True)
    left(data, view())
    assert [path.name for path in Path(data, "standby").iterdir()] == [f"{OWNER}-0"]
