"""Partitions move as little as possible, evenly, deterministically (H5, H8), and never to one node twice."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.cluster.assign import Shares, assign, fresh, paced
from headwater.cluster.table import Member

IDS = [f"{number:012x}0000" for number in range(1, 1100)]
SIZES = st.sampled_from([1, 2, 64, 256])


def member(weight: int = 1, zone: str = "", state: str = "active") -> Member:
    return Member(incarnation=1, weight=weight, zone=zone, state=state)  # type: ignore[arg-type]


@st.composite
def clusters(draw: st.DrawFn, least: int = 1) -> dict[str, Member]:
    count = draw(st.integers(least, 12))
    ids = draw(st.permutations(IDS[:16]))[:count]
    weights = draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    zones = draw(st.lists(st.sampled_from(["", "a", "b"]), min_size=count, max_size=count))
    return {node: member(weight, zone) for node, weight, zone in zip(ids, weights, zones, strict=True)}


def check(shares: Shares, members: dict[str, Member]) -> None:
    """Everybody is less than one partition away from the quota; a standby is another node, of another zone first."""
    active = {node: one for node, one in members.items() if one.state == "active" and one.weight}
    total = sum(one.weight for one in active.values())
    counts = Counter(shares.owner)
    assert set(counts) <= set(active)
    for node, one in active.items():
        assert abs(counts[node] - Fraction(len(shares.owner) * one.weight, total)) < 1
    for owner, standby in zip(shares.owner, shares.standby, strict=True):
        assert standby != owner
        assert (standby == "") == (len(active) == 1)
        if any(one.zone != active[owner].zone for one in active.values()):
            assert active[standby].zone != active[owner].zone


def moved(one: Shares, other: Shares) -> set[int]:
    return {p for p, (a, b) in enumerate(zip(one.owner, other.owner, strict=True)) if a != b}


@given(clusters(), SIZES)
def test_everybody_gets_the_quota(members: dict[str, Member], partitions: int) -> None:
    """H5."""
    check(assign(fresh(partitions), members), members)


@given(clusters(), SIZES)
def test_sharing_out_twice_changes_nothing_and_is_the_same_everywhere(
    members: dict[str, Member], partitions: int
) -> None:
    shares = assign(fresh(partitions), members)
    assert assign(shares, dict(reversed(members.items()))) == shares
    assert assign(fresh(partitions), dict(reversed(members.items()))) == shares


@given(clusters(least=2), SIZES, st.data())
def test_a_leave_moves_only_what_the_leaver_had(
    members: dict[str, Member], partitions: int, data: st.DataObject
) -> None:
    """With equal weights; else what the new quotas want besides."""
    equal = {node: member(1, one.zone) for node, one in members.items()}
    before = assign(fresh(partitions), equal)
    gone = data.draw(st.sampled_from(sorted(equal)))
    rest = {node: one for node, one in equal.items() if node != gone}
    after = assign(before, rest)
    check(after, rest)
    assert moved(before, after) == {p for p, owner in enumerate(before.owner) if owner == gone}


@given(clusters(least=2), SIZES, st.data())
def test_a_join_moves_the_quota_of_the_joiner_to_it_and_nothing_else(
    members: dict[str, Member], partitions: int, data: st.DataObject
) -> None:
    """H5."""
    joiner = data.draw(st.sampled_from(sorted(members)))
    equal = {node: member(1, one.zone) for node, one in members.items()}
    before = assign(fresh(partitions), {node: one for node, one in equal.items() if node != joiner})
    after = assign(before, equal)
    check(after, equal)
    changed = moved(before, after)
    assert {after.owner[p] for p in changed} <= {joiner}
    assert abs(len(changed) - Fraction(partitions, len(equal))) < 1


@given(clusters(least=2), SIZES, st.data())
def test_joins_and_leaves_in_any_order_with_any_weights_keep_the_quotas(
    members: dict[str, Member], partitions: int, data: st.DataObject
) -> None:
    """H5."""
    shares, present = fresh(partitions), dict(members)
    for _ in range(data.draw(st.integers(1, 6))):
        node = data.draw(st.sampled_from(sorted(members)))
        if node in present and len(present) > 1:
            del present[node]
        else:
            present[node] = member(data.draw(st.integers(1, 9)), members[node].zone)
        shares = assign(shares, present)
        check(shares, present)
        assert assign(shares, present) == shares


@given(clusters(least=2), SIZES, st.data())
def test_what_drains_or_weighs_nothing_owns_nothing(
    members: dict[str, Member], partitions: int, data: st.DataObject
) -> None:
    """H8."""
    before = assign(fresh(partitions), members)
    node = data.draw(st.sampled_from(sorted(members)))
    for idle in (member(3, state="draining"), member(0)):
        after = assign(before, members | {node: idle})
        check(after, members | {node: idle})
        assert node not in after.owner + after.standby


def test_when_everybody_drains_nobody_owns_anything() -> None:
    assert assign(fresh(4), {IDS[0]: member(state="draining")}) == fresh(4)
    assert assign(assign(fresh(4), {IDS[0]: member()}), {}) == fresh(4)


def test_the_standby_takes_over_before_anybody_else() -> None:
    members = {node: member() for node in IDS[:4]}
    before = assign(fresh(64), members)
    after = assign(before, {node: one for node, one in members.items() if node != IDS[0]})
    taken = [before.standby[p] == after.owner[p] for p in moved(before, after)]
    assert sum(taken) >= len(taken) - 2


def test_the_standbys_of_one_owner_are_many() -> None:
    shares = assign(fresh(64), {node: member() for node in IDS[:5]})
    for node in IDS[:5]:
        assert len({s for o, s in zip(shares.owner, shares.standby, strict=True) if o == node}) == 4


def test_standbys_are_even_where_zones_allow() -> None:
    counts = Counter(assign(fresh(64), {node: member() for node in IDS[:5]}).standby)
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("zones", [1, 3])
def test_a_thousand_nodes_are_shared_out(zones: int) -> None:
    members = {node: member(1 + i % 3, zone=str(i % zones)) for i, node in enumerate(IDS[:1000])}
    before = assign(fresh(4096), members)
    check(before, members)
    rest = {node: one for node, one in members.items() if node not in IDS[10:20]}
    after = assign(before, rest)
    check(after, rest)
    assert (
        len(moved(before, after)) <= before.owner.count("") + sum(o in IDS[10:20] for o in before.owner) + 20
    )


A, B, C = IDS[:3]


def test_a_partition_moves_when_the_next_owner_has_its_state() -> None:
    members = {A: member(), B: member()}
    former = Shares([A] * 8, [""] * 8)
    ideal = assign(former, members)
    waiting = paced(former, ideal, members, {}, 8)
    assert waiting.owner == [A] * 8 and waiting.standby.count(B) >= ideal.owner.count(B) == 4
    one = paced(waiting, assign(waiting, members), members, {B: frozenset(range(8))}, 1)
    assert one.owner.count(B) == 1
    some = paced(waiting, assign(waiting, members), members, {B: frozenset(range(8))}, 8)
    assert some.owner.count(B) == 4


def test_what_has_lost_its_owner_goes_where_its_state_is_whoever_has_less() -> None:
    former = Shares([C] * 4 + [B] * 4, [B] * 4 + [A] * 4)
    members = {A: member(), B: member()}
    ideal = assign(former, members)
    assert A in ideal.owner[:4]  # by the quota alone
    now = paced(former, ideal, members, {}, 8)
    assert now.owner[:4] == [B] * 4
    assert all(owner != standby for owner, standby in zip(now.owner, now.standby, strict=True))
