"""What one node answers, message by message; whole clusters are in tests/simulation/test_membership.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headwater.cluster.actions import (
    Action,
    AskLease,
    DropLease,
    Happened,
    Keep,
    Kept,
    PutTable,
    Send,
    Show,
    Stop,
)
from headwater.cluster.membership import Membership, Rules
from headwater.cluster.messages import (
    Bye,
    Drain,
    Evict,
    Forget,
    Heartbeat,
    NewTable,
    Probe,
    ProbeAck,
    WantTable,
)
from headwater.cluster.table import NO_TABLE, Member, NodeRecord, Table

A, B, C = (f"{number:012x}0000" for number in (0xA, 0xB, 0xC))
SECOND = 1_000_000_000
H = 2 * SECOND


def record(node: str, incarnation: int = 100, address: str = "", **more: Any) -> NodeRecord:
    return NodeRecord(
        node=node, name=node[-5], incarnation=incarnation, member_address=address or f"{node}:1", **more
    )


def table(*members: str, epoch: int = 5, leader: str = A, incarnation: int = 100) -> Table:
    return Table(
        epoch=epoch,
        leader=leader,
        leader_incarnation=incarnation,
        cluster_id=A,
        members={node: Member(incarnation=incarnation) for node in members},
        owner=[members[0]] * 4,
        standby=[""] * 4,
    )


def beat(node: str, having: Table = NO_TABLE, **more: Any) -> Heartbeat:
    said = {name: more.pop(name) for name in ("leads", "misses") if name in more}
    return Heartbeat(record=record(node, **more), table=having.order, **said)


def node(me: str = A, kept: Table | None = None, **rules: Any) -> Membership:
    """One that has ticked once at 0, and is a member where ``kept`` names it."""
    membership = Membership(record(me), Rules(partitions=4, **rules), 0)
    membership.tick(0)
    if kept is not None:
        membership.received(B, NewTable(table=kept), 0)
    return membership


def sent(actions: list[Action], kind: type) -> list[Any]:
    return [one.message for one in actions if isinstance(one, Send) and isinstance(one.message, kind)]


def ticked(membership: Membership, since_ns: int, until_ns: int) -> list[Action]:
    actions: list[Action] = []
    for at in range(since_ns, until_ns + 1, H // 8):
        actions += membership.tick(at)
    return actions


def test_the_first_thing_is_to_keep_the_incarnation() -> None:
    first = Membership(record(A), Rules(), 0).tick(0)
    assert isinstance(first[0], Keep)
    assert first[0].kept.incarnation == 100


def test_an_incarnation_is_above_every_former_one_whatever_the_wall_clock_says() -> None:
    for kept in (
        Kept(incarnation=500, table=NO_TABLE, records={}),
        Kept(incarnation=3, table=table(A, incarnation=500), records={}),
    ):
        assert Membership(record(A), Rules(), 0, kept).me.incarnation == 501


def test_inv_clu_1_only_greater_tables_are_adopted_and_kept_before_anything_else() -> None:
    membership = node(kept=table(A, B))
    assert membership.received(C, NewTable(table=table(C, epoch=4)), 1) == []
    assert membership.received(C, NewTable(table=table(A, B)), 1) == []
    first = membership.received(C, NewTable(table=table(A, B, C, epoch=6)), 1)[0]
    assert isinstance(first, Keep)
    assert first.kept.table.epoch == 6


def test_inv_clu_1_whoever_has_less_gets_the_table_and_whoever_has_more_is_asked() -> None:
    membership = node(kept=table(A, B))
    assert sent(membership.received(B, WantTable(than=NO_TABLE.order), 1), NewTable)[0].table == table(A, B)
    assert membership.received(B, WantTable(than=table(A, B).order), 1) == []
    assert sent(membership.received(B, beat(B, table(A, B, epoch=2)), 1), Heartbeat)
    membership.received(B, beat(B, table(A, B, epoch=9)), 1)
    membership.received(C, beat(C, table(A, B, epoch=8)), 1)
    assert Send((B,), WantTable(than=table(A, B).order)) in membership.tick(2)


def test_nobody_speaks_for_another() -> None:
    membership = node(kept=table(A, B))
    assert membership.received(C, beat(B), 1) == []
    assert membership.received(C, Bye(about=B, incarnation=100, kind="left", reason=""), 1) == []
    assert B not in membership.leader.left


def test_a_copied_data_folder_is_refused_while_the_first_one_lives() -> None:
    """M4, J6."""
    membership = node(kept=table(A, B))
    membership.received(B, beat(B, incarnation=100), SECOND)
    (bye,) = sent(membership.received(B, beat(B, incarnation=900, address="copy:1"), 2 * SECOND), Bye)
    assert bye.kind == "cloned" and "is its data folder a copy?" in bye.reason
    assert membership.hearing.heard[B].beat.record.incarnation == 100
    membership.received(B, beat(B, incarnation=900, address="copy:1"), 6 * SECOND)
    assert membership.hearing.heard[B].beat.record.incarnation == 900


def test_of_one_address_the_newer_incarnation_wins_and_the_older_is_told() -> None:
    """M4."""
    membership = node(kept=table(A, B))
    membership.received(B, beat(B, incarnation=100), 1)
    membership.received(B, beat(B, incarnation=101), 2)
    (bye,) = sent(membership.received(B, beat(B, incarnation=100), 3), Bye)
    assert (bye.kind, bye.incarnation) == ("superseded", 101)


def test_a_refused_copy_says_why_and_does_not_end() -> None:
    membership = node()
    bye = Bye(about=A, incarnation=100, kind="cloned", reason="lives at x already")
    actions = membership.received(B, bye, 1)
    assert [one.view.why for one in actions if isinstance(one, Show)] == ["lives at x already"]
    assert [one.activity.event for one in actions if isinstance(one, Happened)] == ["refused"]
    assert not membership.stopped


def test_a_member_does_not_believe_that_it_is_a_copy() -> None:
    membership = node(kept=table(A, B))
    assert membership.received(B, Bye(about=A, incarnation=900, kind="cloned", reason="x"), 1) == []
    (bye,) = sent(membership.received(A, beat(A, incarnation=900, address="copy:1"), 1), Bye)
    assert (bye.about, bye.kind) == (A, "cloned")


def test_a_member_that_was_replaced_stops_and_one_that_was_not_a_member_takes_a_later_incarnation() -> None:
    bye = Bye(about=A, incarnation=700, kind="superseded", reason="started again")
    member, newcomer = node(kept=table(A, B)), node()
    assert Stop("started again") in member.received(B, bye, 1)
    assert member.tick(SECOND) == []
    assert isinstance(newcomer.received(B, bye, 1)[0], Keep)
    assert newcomer.me.incarnation == 701


def test_an_evicted_node_goes_on_as_another_incarnation() -> None:
    """INV-OWN-2: it does not act until it is admitted."""
    membership = node(kept=table(A, B))
    membership.received(B, beat(B, table(A, B)), 1)
    membership.tick(2)
    assert membership.view(2).viable
    actions = membership.received(B, NewTable(table=table(B, epoch=6, leader=B), why={A: "link cut"}), 3)
    assert membership.me.incarnation == 101 and membership.me.state == "joining"
    assert [one.kept.incarnation for one in actions if isinstance(one, Keep)] == [101]
    assert [one.view.viable for one in actions if isinstance(one, Show)][-1] is False
    assert "link cut" in {one.activity.reason for one in actions if isinstance(one, Happened)}


def test_a_node_that_stood_still_believes_nothing_that_it_knew() -> None:
    """INV-OWN-2; M2, H2."""
    membership = node(kept=table(A, B))
    membership.received(B, beat(B, table(A, B)), 1)
    membership.lease(100 * SECOND)
    membership.tick(2)
    actions = membership.tick(7 * SECOND)
    assert membership.lease_until_ns == 0
    assert [one.view.viable for one in actions if isinstance(one, Show)] == [False]


def test_time_asleep_is_nobodys_silence() -> None:
    """M2."""
    membership = node(kept=table(A, B))
    ticked(membership, 0, H)
    membership.received(B, beat(B, table(A, B)), H)
    later = H + 5 * SECOND
    (ack,) = sent(membership.received(C, Probe(about=B), later), ProbeAck)
    assert ack.silent_ms is not None and ack.silent_ms < 1000


def test_a_probe_is_answered_honestly() -> None:
    membership = node(kept=table(A, B))
    membership.received(B, beat(B, table(A, B)), 0)
    ticked(membership, 0, 3 * SECOND)
    for about, silent_ms in ((B, 3000), (C, None), (A, 0)):
        assert (
            sent(membership.received(C, Probe(about=about), 3 * SECOND), ProbeAck)[0].silent_ms == silent_ms
        )


def test_answers_that_nobody_asked_for_are_not_kept() -> None:
    membership = node(kept=table(A, B, C))
    membership.received(B, ProbeAck(about=C, silent_ms=99_999), 1)
    assert membership.leader.probing.answers == {}


def test_a_lease_alone_lets_nobody_decide() -> None:
    """M3."""
    membership = node(kept=table(A, B, C))
    membership.store_said(None, {}, 0)
    membership.lease(1000 * SECOND)
    actions = ticked(membership, 0, 8 * SECOND)
    assert not any(isinstance(one, PutTable) for one in actions)
    assert any(isinstance(one, DropLease) for one in actions)


def test_a_leader_puts_its_table_into_a_store_that_forgot_it() -> None:
    membership = node()
    membership.store_said(None, {}, 0)
    membership.lease(1000 * SECOND)
    assert [one.table.epoch for one in ticked(membership, 0, 2 * SECOND) if isinstance(one, PutTable)] == [1]
    (again,) = [one for one in membership.store_said(None, {}, 2 * SECOND) if isinstance(one, PutTable)]
    assert again.table is membership.table


def test_before_the_store_answered_nobody_founds_a_cluster() -> None:
    membership = node()
    membership.lease(1000 * SECOND)
    ticked(membership, 0, 10 * SECOND)
    assert membership.table is NO_TABLE
    membership.store_said(table(B, C, leader=B), {}, 10 * SECOND)
    assert membership.table.epoch == 5


def test_an_epoch_is_above_all_that_was_ever_heard_of() -> None:
    membership = node()
    membership.store_said(None, {}, 0)
    membership.received(B, beat(B, table(B, epoch=41, leader=B)), 1)
    membership.lease(1000 * SECOND)
    ticked(membership, 0, 20 * SECOND)
    assert membership.table.epoch > 41


def test_an_epoch_that_nobody_can_have_reached_is_not_believed() -> None:
    membership = node(kept=table(A, B))
    last = table(B, leader=B, epoch=(1 << 64) - 1)
    assert membership.received(B, NewTable(table=last), 1) == []
    assert membership.received(B, beat(B, last), 1) == []
    assert membership.greatest_epoch == 5


def test_a_node_of_an_older_version_is_refused_with_the_reason() -> None:
    """KR2."""
    membership = node(kept=msgspec.structs.replace(table(A), enabled_version=2))
    membership.store_said(None, {}, 0)
    membership.lease(1000 * SECOND)
    membership.received(B, beat(B, membership.table, protocol=1), 1)
    byes = sent(ticked(membership, 0, 2 * SECOND), Bye)
    assert {bye.reason for bye in byes} == {"speaks version 1, the cluster 2: upgrade it"}
    assert B not in membership.table.members


def test_the_version_rises_only_when_all_members_have_it() -> None:
    """KR2."""
    membership = node()
    membership.me = msgspec.structs.replace(membership.me, protocol=2)
    membership.store_said(None, {}, 0)
    membership.lease(1000 * SECOND)
    membership.received(B, beat(B, protocol=1), 1)
    ticked(membership, 0, 2 * SECOND)
    assert set(membership.table.members) == {A, B} and membership.table.enabled_version == 1
    membership.received(B, beat(B, membership.table, incarnation=200, protocol=2), 2 * SECOND)
    ticked(membership, 2 * SECOND, 4 * SECOND)
    assert membership.table.enabled_version == 2


def test_a_drain_that_is_asked_for_is_told_at_once() -> None:
    membership = node(kept=table(A, B))
    actions = membership.received(B, Drain(), 1)
    assert [said.record.state for said in sent(actions, Heartbeat)] == ["draining"]


def test_an_eviction_asked_of_a_follower_goes_to_the_leader() -> None:
    membership = node(kept=table(A, B, C))
    membership.received(B, beat(B, table(A, B, C), leads=True), 1)
    assert membership.evict(C, "disk", 2) == [Send((B,), Evict(about=C, reason="disk"))]


def leading(protocol: int) -> Membership:
    """A, which leads a cluster of two at this version."""
    membership = node(kept=msgspec.structs.replace(table(A, B), enabled_version=protocol), configured=2)
    membership.me = msgspec.structs.replace(membership.me, protocol=protocol)
    membership.received(B, beat(B, membership.table, protocol=protocol), 1)
    ticked(membership, 2, SECOND)
    assert membership.leads(SECOND)
    return membership


def test_who_is_forgotten_stands_in_the_next_table_until_it_joins_again() -> None:
    membership = leading(2)
    (made,) = sent(membership.forget(C, SECOND), NewTable)
    assert (made.table.forgotten, made.table.members.keys()) == ([C], {A, B})
    assert membership.forget(B, SECOND) == [], "a member is not forgotten"
    membership.received(C, beat(C, state="joining", incarnation=200, protocol=2), SECOND + 1)
    ticked(membership, SECOND + 2, 3 * SECOND)
    assert C in membership.table.members and membership.table.forgotten == []


def test_nobody_is_forgotten_while_a_member_does_not_know_what_that_means() -> None:
    membership = leading(1)
    assert membership.forget(C, SECOND) == []
    assert b"forgotten" not in msgspec.msgpack.encode(membership.table)


def test_forgetting_asked_of_a_follower_goes_to_the_leader() -> None:
    known = msgspec.structs.replace(table(A, B), enabled_version=2)
    membership = node(kept=known)
    membership.received(B, beat(B, known, leads=True), 1)
    assert membership.forget(C, 2) == [Send((B,), Forget(about=C))]


def test_after_goodbye_nothing_more_is_said() -> None:
    membership = node(kept=table(A, B))
    actions = membership.leave(1)
    assert sent(actions, Bye)[0].kind == "left"
    assert membership.tick(2 * SECOND) == [] == membership.received(B, beat(B), 2 * SECOND)


def test_a_late_heartbeat_does_not_bring_back_who_left() -> None:
    membership = node(kept=table(A, B))
    membership.received(B, beat(B), 1)
    membership.received(B, Bye(about=B, incarnation=100, kind="left", reason=""), 2)
    assert membership.received(B, beat(B), 3) == []
    assert B not in membership.view(3).alive
    membership.received(B, beat(B, incarnation=101), 4)
    assert B in membership.view(4).alive


@pytest.mark.parametrize("minority_leads", [False, True])
def test_an_operator_may_say_that_a_minority_leads(minority_leads: bool) -> None:
    membership = node(kept=table(A, B, C), minimum_nodes=1, minority_leads=minority_leads)
    membership.store_said(None, {}, 0)
    actions = ticked(membership, 0, 12 * SECOND)
    asked = [one for one in actions if isinstance(one, AskLease)]
    assert bool(asked) is minority_leads


def test_a_copied_folder_does_not_lead_by_the_table_that_came_with_it() -> None:
    """Its own id leads that table, and is the least of a static list: only who lives under the id already says no."""
    own = Table(
        epoch=3, leader=A, leader_incarnation=1, cluster_id=A,
        members={n: Member(incarnation=1) for n in (A, B)}, owner=[A], standby=[B],
    )  # fmt: skip
    kept = Kept(incarnation=1, table=own, records={})
    rules = Rules(configured=3)
    copied = Membership(record(A, 9, "c:1"), rules, 0, kept)
    other = record(B, 1, "b:1", state="active")
    bye = Bye(about=A, incarnation=1, kind="cloned", reason="lives already")
    step = rules.heartbeat_ns // 8
    for now_ns in range(0, 10 * rules.heartbeat_ns, step):
        copied.received(B, Heartbeat(record=other, table=own.order), now_ns)
        if now_ns % rules.heartbeat_ns == step:
            copied.received(B, bye, now_ns)
        copied.tick(now_ns)
        assert copied.table.order == own.order
    for now_ns in range(10 * rules.heartbeat_ns, 15 * rules.heartbeat_ns, step):
        copied.received(B, Heartbeat(record=other, table=own.order), now_ns)
        copied.tick(now_ns)
    assert copied.admitted(), "nobody says no any more: the first one is gone"
