"""INV-LANE-2: what the owners of all partitions need decides what a home may give back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.cluster import view
from headwater.cluster.table import Member, Table, View
from headwater.config.control import ControlPage
from headwater.config.report import Report
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit.counters import Counters
from headwater.kit.happenings import Happenings
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.lane.wire import Progress
from headwater.log.block import Secret
from headwater.node import needs
from headwater.node.rawkeeper import RawKeeper

ME, OTHER, THIRD = (f"{number:012x}0000" for number in (1, 2, 3))
W, X = WriterId(0x10000), WriterId(0x10001)


def at(seq: int, more: int = 9) -> Vector:
    return Vector({W: Position(1, seq), X: Position(1, more)})


def seen(*owners: str, epoch: int = 5, me: str = ME) -> View:
    table = Table(
        epoch=epoch,
        leader=ME,
        leader_incarnation=1,
        cluster_id=ME,
        members={node: Member(incarnation=1) for node in (ME, OTHER, THIRD)},
        owner=list(owners),
        standby=[""] * len(owners),
    )
    return View(me=me, cluster_id=ME, viable=True, why="", table=table, alive={})


def said(vectors: dict[int, Vector], epoch: int = 5, kept: dict[int, Vector] | None = None) -> Progress:
    return needs.said(epoch, vectors, vectors if kept is None else kept)


def test_inv_lane_2_safe_is_below_what_the_owner_of_every_partition_needs() -> None:
    view = seen(ME, OTHER, OTHER, THIRD)
    spoken = {
        ME: said({0: at(7)}),
        OTHER: said({1: at(5, 8), 2: at(9, 3)}),
        THIRD: said({3: at(6)}),
    }
    assert needs.safe(view, spoken)[0] == at(5, 3)


@pytest.mark.parametrize("silent", [ME, OTHER, THIRD])
def test_inv_lane_2_a_partition_that_nobody_spoke_for_makes_nothing_safe(silent: str) -> None:
    spoken = {ME: said({0: at(7)}), OTHER: said({1: at(5)}), THIRD: said({2: at(6), 3: at(6)})}
    view = seen(ME, OTHER, THIRD, THIRD)
    assert needs.safe(view, spoken)[0] == at(5)
    assert needs.safe(view, {n: s for n, s in spoken.items() if n != silent}) == (EMPTY, EMPTY)
    assert needs.safe(view, {**spoken, silent: said({2: at(6)})}) == (EMPTY, EMPTY)
    assert needs.safe(seen(ME, OTHER, THIRD, ""), spoken) == (EMPTY, EMPTY), "it has no owner"
    assert needs.safe(None, spoken) == (EMPTY, EMPTY), "there is no table"


def test_inv_lane_2_what_an_owner_said_by_an_older_table_makes_nothing_safe() -> None:
    """It may not have known then that the partition is its own, or from where on it needs it."""
    spoken = {ME: said({0: at(7)}), OTHER: said({1: at(8)}, epoch=4)}
    assert needs.safe(seen(ME, OTHER), spoken) == (EMPTY, EMPTY)
    assert needs.safe(seen(ME, OTHER), {**spoken, OTHER: said({1: at(8)}, epoch=6)})[0] == at(7)


def test_inv_lane_2_a_former_owner_does_not_speak_for_what_it_lost() -> None:
    spoken = {ME: said({0: at(7)}), OTHER: said({1: at(8)}), THIRD: said({})}
    assert needs.safe(seen(ME, THIRD), spoken) == (EMPTY, EMPTY)
    assert needs.safe(seen(ME, THIRD), {**spoken, THIRD: said({1: at(3)})})[0] == at(3)


@given(
    st.lists(st.sampled_from([ME, OTHER, THIRD, ""]), min_size=1, max_size=8),
    st.dictionaries(
        st.sampled_from([ME, OTHER, THIRD]),
        st.tuples(
            st.integers(4, 6),
            st.dictionaries(st.integers(0, 7), st.tuples(st.integers(0, 9), st.integers(0, 9))),
        ),
    ),
)
def test_inv_lane_2_nothing_is_safe_above_what_any_owner_needs(owners: list[str], told: Any) -> None:
    owners = owners + [owners[0]] * ({1: 0, 3: 1, 5: 3, 6: 2, 7: 1}.get(len(owners), 0))
    spoken = {n: said({p: at(*v) for p, v in vectors.items()}, epoch) for n, (epoch, vectors) in told.items()}
    safe, given_up = needs.safe(seen(*owners), spoken)
    assert safe == given_up
    for partition, owner in enumerate(owners):
        epoch, vectors = told.get(owner, (0, {}))
        need = at(*vectors[partition]) if epoch >= 5 and partition in vectors else EMPTY
        assert safe <= need


def process(**groups: list[int]) -> Report:
    vectors = [{"partitions": p, "vector": at(int(s[1:])).encode().hex()} for s, p in groups.items()]
    return Report(role="process-0", pid=1, start=1, detail={"vectors": vectors})


def deliver(name: str, stands: dict[int, list[int]], **more: Any) -> Report:
    told = {"vectors": {at(seq).encode().hex(): parts for seq, parts in stands.items()}, **more}
    return Report(role=f"deliver-{name}", pid=1, start=1, detail={"destinations": {name: told}})


def test_an_owner_needs_what_is_not_processed_not_delivered_or_not_with_the_standby() -> None:
    reports = {
        "p": process(s9=[0, 1, 2], s5=[3]),
        "a": deliver("a", {8: [0, 1, 2, 3]}),
        "b": deliver("b", {7: [0, 3]}),
    }
    assert needs.own(reports, [0, 1, 3], ["a"], {}) == {0: at(8), 1: at(8), 3: at(5)}
    assert needs.own(reports, [0, 1, 3], ["a"], {0: at(2), 2: at(1)}) == {0: at(2), 1: at(8), 3: at(5)}
    assert needs.own(reports, [0, 1, 3], ["a", "b"], {}) == {0: at(7), 3: at(5)}, "b has not said of 1"
    assert needs.own(reports, [0, 1, 3], ["a", "c"], {}) == {}, "c has said nothing"
    assert needs.own({}, [0], [], {}) == {}


def test_what_only_those_need_that_may_be_written_off_is_told_beside_it() -> None:
    one = said({0: at(3), 1: at(9), 2: at(3)}, kept={0: at(8), 1: at(9), 2: at(8), 3: at(1)})
    assert [group.partitions for group in one.groups] == [[0, 2], [1]]
    assert needs.safe(seen(ME, ME), {ME: one}) == (at(3), at(8))


def test_the_report_of_the_lane_carries_it_as_it_is() -> None:
    spoken = {ME: said({0: at(7)}), OTHER: said({1: at(5)}, kept={1: at(6)})}
    lane = Report(role="lane-0", pid=1, start=1, detail={"needs": needs.told(spoken)})
    assert needs.reported({"lane-0": lane}) == spoken and needs.reported({}) == {}


def test_inv_lane_2_the_keeper_of_a_clusters_node_asks_the_owners_and_not_its_own_processes() -> None:
    disk = SimDisk().process("supervisor")
    disk.mkdir("/data/run")
    clock = SimClock(Time())
    happenings = Happenings("node", clock, Counters(), None)  # type: ignore[arg-type]
    keeper = RawKeeper(disk, clock, ControlPage.in_memory(), happenings, "/data", 2, Secret(1))
    reports = {"p": process(s9=[0, 1]), "a": deliver("a", {8: [0, 1]})}
    destinations = {"a": SimpleNamespace(on_raw_full="refuse")}
    alone: Any = SimpleNamespace(cluster=None, destinations=destinations)
    many: Any = SimpleNamespace(cluster=object(), destinations=destinations)
    assert keeper.safe(alone, reports) == (at(8), at(8))
    assert keeper.safe(many, reports) == (EMPTY, EMPTY), "no view"
    view.write(disk, view.view_path("/data"), seen(ME, OTHER))
    lane = {"needs": needs.told({ME: said({0: at(8)})})}
    reports["lane-0"] = Report(role="lane-0", pid=1, start=1, detail=lane)
    assert keeper.safe(many, reports) == (EMPTY, EMPTY), "the other owner has not spoken"
    lane["needs"] = needs.told({ME: said({0: at(8)}), OTHER: said({1: at(4)})})
    assert keeper.safe(many, reports) == (at(4), at(4))
