"""When a new owner may begin to deliver, and what a processor may wait for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.event.position import Position, Vector, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Unavailable
from headwater.log import files
from headwater.node.ownership import Mirrors
from headwater.ops.everywhere import Answers

CONTEXT: Any = SimpleNamespace(node=SimpleNamespace(folder_id="0000000000010000"))


def told(role: str, epoch: int, state: str = "running") -> dict[str, Any]:
    return {"role": role, "state": state, "detail": {"epoch": epoch}}


@pytest.mark.parametrize(
    ("reports", "released"),
    [
        ([told("deliver-w", 7), told("deliver-x", 8)], True),
        ([told("deliver-w", 7), told("deliver-x", 6)], False),
        ([told("deliver-w", 6, "draining")], False),
        ([told("deliver-w", 6, "stopped")], True),
        ([{"role": "deliver-w", "state": "running", "detail": {}}], False),
        ([told("process-0", 0)], True),
    ],
)
def test_partitions_are_released_when_no_other_deliverer_goes_by_an_older_table(
    reports: list[dict[str, Any]], released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = Mirrors(CONTEXT, SimpleNamespace(alone=False))  # type: ignore[arg-type]
    monkeypatch.setattr(mirrors, "everywhere", lambda part: Answers({"b": reports}, ["c"]))
    assert mirrors.released(7) is released


A, B, C = (WriterId(number << 16) for number in (1, 2, 3))


def asking(monkeypatch: pytest.MonkeyPatch, answered: dict[str, Any]) -> Mirrors:
    """Node A, in a cluster with B and C of which these answer."""
    members = {f"{node:016x}": frozenset[int]() for node in (A, B, C)}
    mirrors = Mirrors(CONTEXT, SimpleNamespace(alone=False, owners=lambda: members))  # type: ignore[arg-type]
    monkeypatch.setattr(mirrors, "stood_here", lambda at_ns, limit: {A: Position(1, 1)})
    monkeypatch.setattr(mirrors, "stood_elsewhere", lambda at_ns, limit: Answers(answered, []))
    return mirrors


def test_where_all_logs_stood_is_asked_of_every_home(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Vector({A: Position(1, 9), B: Position(2, 9)}, 50)
    answered = {f"{B:016x}": {f"{B:016x}": [2, 4]}, f"{C:016x}": {}}
    found = asking(monkeypatch, answered).stood_when(40, limit)
    assert (dict(found.items()), found.clock) == ({A: Position(1, 1), B: Position(2, 4)}, 40)


def test_a_home_that_does_not_say_where_its_log_stood_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Vector({A: Position(1, 9), B: Position(2, 9)}, 50)
    with pytest.raises(Unavailable, match=f"{B:016x} does not say"):
        asking(monkeypatch, {}).stood_when(40, limit)
    gone = Vector({A: Position(1, 9), WriterId(9 << 16): Position(2, 9)}, 50)
    found = asking(monkeypatch, {}).stood_when(40, gone)
    assert found[WriterId(9 << 16)] == Position(2, 9), "nothing is read of who is no member"


def test_a_node_by_itself_asks_no_destination_where_to_begin() -> None:
    """A folder put back from a backup has destinations that stand beyond its own logs; nobody would ever get there."""
    mirrors = Mirrors(CONTEXT, SimpleNamespace(alone=True))  # type: ignore[arg-type]
    assert mirrors.stood(range(64)) == {}


@pytest.mark.parametrize(
    ("end", "reachable"),
    [((5, 7), True), ((5, 8), False), ((6, 900), True), ((7, 1), False), ((4, 3), True)],
)
def test_own_logs_are_reachable_as_far_as_they_go_or_may_yet_go(
    end: tuple[int, int], reachable: bool, tmp_path: Path
) -> None:
    """Log 5 ended at 7, log 6 is being written, log 4 is long gone."""
    writer = WriterId(0x10000)
    folder = tmp_path / "raw" / f"{writer:016x}"
    folder.mkdir(parents=True)
    disk = SystemDisk()
    files.write_end(disk, str(folder), files.End(log=5, seq=7))
    (folder / f"{6:016x}.wm").write_bytes(bytes(8))
    node = SimpleNamespace(folder_id="0000000000010000")
    context: Any = SimpleNamespace(node=node, disk=disk, path=lambda *parts: str(tmp_path.joinpath(*parts)))
    mirrors = Mirrors(context, SimpleNamespace(alone=False, view=None))  # type: ignore[arg-type]
    assert mirrors.reachable({writer: (Position(0, 0), Position(*end))}) is reachable
