"""The rules of leading, as functions."""

from __future__ import annotations

import pytest

from headwater.cluster import leading
from headwater.cluster.history import History
from headwater.cluster.table import Member, Table

A, B, C, D = (f"{number:012x}0000" for number in (0xA, 0xB, 0xC, 0xD))
SECOND = 1_000_000_000


def table(*members: str, epoch: int = 1, **incarnations: int) -> Table:
    return Table(
        epoch=epoch,
        leader=members[0],
        leader_incarnation=1,
        cluster_id=A,
        members={node: Member(incarnation=number) for number, node in enumerate(members)},
        owner=[""],
        standby=[""],
    )


@pytest.mark.parametrize(
    ("seen", "of", "half", "answer"),
    [
        (2, 3, False, True),
        (1, 3, True, False),
        (2, 4, False, False),
        (2, 4, True, True),
        (0, 0, False, False),
    ],
)
def test_more_than_half_or_half_with_the_lease(seen: int, of: int, half: bool, answer: bool) -> None:
    assert leading.enough(seen, of, half=half) is answer


@pytest.mark.parametrize(
    ("me", "heard", "configured", "answer"),
    [
        (A, [B, C], 3, True),
        (B, [A, C], 3, False),
        (B, [C], 3, True),
        (A, [B], 4, False),
        (A, [], 1, True),
        (A, [], 2, False),
    ],
)
def test_without_a_store_the_least_of_a_majority_leads(
    me: str, heard: list[str], configured: int, answer: bool
) -> None:
    assert leading.static_lease(me, heard, configured) is answer


def test_of_a_cut_link_the_end_that_fewer_hear_loses_and_of_equals_the_younger() -> None:
    members = table(A, B, C, D)
    assert leading.loser((B, C), {(B, C)}, members) == C
    assert leading.loser((C, B), {(C, B)}, members) == B
    assert leading.loser((B, C), {(B, C), (C, B)}, members) == C
    assert leading.loser((B, C), {(B, C), (C, B), (A, B)}, members) == B


def test_who_is_evicted_often_waits_longer_up_to_a_minute() -> None:
    """F6."""
    history, now, waits = History(5), 0, []
    for _ in range(8):
        now += 5 * SECOND
        history.changed(table(A, B), table(A, epoch=2), {}, now)
        waits.append((history.may_return_ns(B, now) - now) // SECOND)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert history.may_return_ns(B, now + 600 * SECOND) == 0
    assert len(history.entries) == 5


def test_who_left_does_not_wait() -> None:
    history = History(10)
    (entry,) = history.changed(table(A, B), table(A, epoch=2), {B: "left"}, 1)
    assert (entry.event, entry.node, history.may_return_ns(B, 2)) == ("left", B, 0)
