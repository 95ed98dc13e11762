"""A node that leaves takes nothing with it, and waits for nobody who cannot answer."""

from __future__ import annotations

import msgspec
import pytest

from headwater.cluster.table import Member, NodeRecord, Table, View
from headwater.event.position import Position, Vector, WriterId
from headwater.lane.wire import Progress
from headwater.node.leaving import handed_over, read_to_the_end, successors

ME, OTHER, THIRD = (f"{number:012x}0000" for number in (1, 2, 3))
W = WriterId(0x10000)
ENDS = {W: [Position(1, 7), Position(2, 0)]}


def seen(owners: list[str], **states: str) -> View:
    """``states``: of ``other`` and ``third``; left out: not heard of."""
    nodes = {"other": OTHER, "third": THIRD}
    alive = {nodes[name]: record(nodes[name], state) for name, state in states.items()}
    table = Table(
        epoch=5,
        leader=ME,
        leader_incarnation=1,
        cluster_id=ME,
        members={node: Member(incarnation=1) for node in (ME, OTHER, THIRD)},
        owner=owners,
        standby=[""] * len(owners),
    )
    return View(
        me=ME, cluster_id=ME, viable=True, why="", table=table, alive={ME: record(ME, "draining"), **alive}
    )


def record(node: str, state: str) -> NodeRecord:
    return msgspec.convert(
        {"node": node, "name": node, "incarnation": 1, "member_address": "x", "state": state}, NodeRecord
    )


def at(seq: int, epoch: int = 5) -> Progress:
    return Progress(epoch=epoch, groups=[], at=Vector({W: Position(1, seq)}).encode().hex())


def test_it_waits_until_others_own_everything() -> None:
    assert not handed_over(seen([ME, OTHER], other="active"))
    assert handed_over(seen([THIRD, OTHER], other="active"))


@pytest.mark.parametrize("states", [{}, {"other": "draining", "third": "suspect"}, {"third": "joining"}])
def test_it_waits_for_nobody_who_leaves_too_or_is_not_there(states: dict[str, str]) -> None:
    view = seen([ME, OTHER, THIRD, ME], **states)
    assert successors(view) == []
    assert handed_over(view)
    assert read_to_the_end(view, {}, ENDS)


def test_without_a_view_and_where_it_is_not_viable_nobody_can_take_over() -> None:
    assert handed_over(None) and read_to_the_end(None, {}, ENDS)
    view = msgspec.structs.replace(seen([ME], other="active"), viable=False)
    assert handed_over(view) and read_to_the_end(view, {}, ENDS)


def test_its_lane_stays_until_each_owner_has_passed_the_end_of_its_logs() -> None:
    view = seen([OTHER, THIRD], other="active", third="active")
    assert not read_to_the_end(view, {}, ENDS)
    assert not read_to_the_end(view, {OTHER: at(7)}, ENDS)
    assert not read_to_the_end(view, {OTHER: at(7), THIRD: at(6)}, ENDS)
    assert not read_to_the_end(view, {OTHER: at(7), THIRD: at(7, epoch=4)}, ENDS), "not of its new partitions"
    assert not read_to_the_end(view, {OTHER: at(7), THIRD: Progress(epoch=5, groups=[])}, ENDS)
    assert read_to_the_end(view, {OTHER: at(7), THIRD: at(8)}, ENDS)
    assert read_to_the_end(view, {OTHER: at(7), THIRD: at(8)}, {})
