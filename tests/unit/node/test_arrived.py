"""Where destinations stand in a home's logs: from its own reports, and from what the owners say to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from headwater.config.report import Report
from headwater.event.position import Position, Vector, WriterId
from headwater.kit.disk import Disk
from headwater.kit.simulate.disk import SimDisk
from headwater.lane.wire import Need, Progress
from headwater.node import arrived, needs
from headwater.node.roles.lane import LaneRole

HOME, OTHER, THIRD = 0x10000, 0x20000, 0x30000
ME, YOU = WriterId(HOME), WriterId(OTHER)
LOG, START = 70, 5


def at(seq: int, log: int = LOG) -> Vector:
    return Vector({ME: Position(log, seq), WriterId(HOME | 1): Position(9, 9), YOU: Position(8, 8)}, clock=3)


def told(vectors: dict[int, Vector]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for partition, vector in vectors.items():
        groups.setdefault(vector.encode().hex(), []).append(partition)
    return groups


def disk_with(*reports: Report) -> Disk:
    disk = SimDisk().process("collect")
    disk.mkdir("reports")
    for report in reports:
        file = disk.open(f"reports/{report.role}.json", write=True, create=True)
        disk.pwrite(file, msgspec.json.encode(report), 0)
        disk.close(file)
    return disk


def deliverer(vectors: dict[int, Vector], state: str = "delivering", start: int = START) -> Report:
    detail = {"destinations": {"warehouse": {"state": state, "vectors": told(vectors)}}}
    return Report(role="deliver-warehouse", pid=1, start=start, detail=detail)


def lane(by_node: dict[str, Progress], start: int = START) -> Report:
    return Report(role="lane-0", pid=1, start=start, detail={"needs": needs.told(by_node)})


def read(disk: Disk) -> Any:
    return arrived.read(disk, "reports", START, ["warehouse", "unheard"], ME, LOG)


def test_on_one_node_its_deliverer_says_it() -> None:
    disk = disk_with(deliverer({0: at(4), 1: at(7)}, state="paused"))
    assert read(disk) == {"warehouse": ({0: 4, 1: 7}, True), "unheard": ({}, False)}


def test_a_position_in_another_log_of_the_writer_covers_nothing_of_this_one() -> None:
    assert read(disk_with(deliverer({0: at(4, LOG - 1)})))["warehouse"] == ({0: 0}, False)


def test_reports_of_another_start_say_nothing() -> None:
    spoken = {"n": Progress(epoch=1, groups=[], delivered={"warehouse": told({1: at(3)})})}
    disk = disk_with(deliverer({0: at(4)}, start=START - 1), lane(spoken, start=START - 1))
    assert read(disk)["warehouse"] == ({}, False)


def test_owners_say_it_of_their_partitions_and_the_furthest_word_counts() -> None:
    spoken = {
        "a": Progress(epoch=1, groups=[], delivered={"warehouse": told({1: at(3), 2: at(9)})}),
        "b": Progress(
            epoch=2, groups=[], delivered={"warehouse": told({2: at(5)}), "shop": told({3: at(1)})}
        ),
    }
    assert read(disk_with(deliverer({0: at(4), 1: at(2)}), lane(spoken)))["warehouse"] == (
        {0: 4, 1: 3, 2: 9},
        False,
    )


def test_what_travels_to_a_home_tells_of_its_own_logs_only() -> None:
    shared = at(4)
    travels = arrived.of_home({0: shared, 1: shared, 2: at(5)}, HOME)
    vectors = {Vector.decode(bytes.fromhex(text)): partitions for text, partitions in travels.items()}
    assert sorted(vectors.values()) == [[0, 1], [2]]
    assert {writer for vector in vectors for writer in vector} == {ME, HOME | 1}
    assert arrived.below(travels, ME, LOG) == {0: 4, 1: 4, 2: 5}


def test_an_owner_answers_only_the_homes_that_wait_and_only_for_what_they_wait_for() -> None:
    groups = [Need(partitions=[0], vector="", kept="")]
    heard = {
        f"{HOME:016x}": Progress(epoch=1, groups=[], waits=["warehouse", "unknown"]),
        f"{OTHER:016x}": Progress(epoch=1, groups=[]),
    }
    role: Any = SimpleNamespace(
        heard=SimpleNamespace(by_node=heard),
        said=Progress(epoch=4, groups=groups),
        delivered={"warehouse": {0: at(4)}, "shop": {0: at(5)}},
    )
    to_home = LaneRole.said_to(role, f"{HOME:016x}")
    assert to_home is not None and (to_home.epoch, to_home.groups) == (4, groups)
    assert to_home.delivered.keys() == {"warehouse"}
    assert arrived.below(to_home.delivered["warehouse"], ME, LOG) == {0: 4}
    for node in (OTHER, THIRD):
        assert LaneRole.said_to(role, f"{node:016x}") is role.said


def test_an_older_version_says_nothing_of_it_and_is_understood() -> None:
    older = {"epoch": 3, "groups": [], "at": "", "share": 0.0}
    said = msgspec.convert(older, Progress)
    assert (said.waits, said.delivered) == ([], {})
