"""Whose clock is wrong, as heartbeats tell."""

from __future__ import annotations

import pytest

from headwater.cluster import messages
from headwater.cluster.clocks import Change, Clocks, words
from headwater.cluster.messages import Heartbeat
from headwater.cluster.table import NO_TABLE, NodeRecord

A, B, C, D = (f"{letter * 12}0000" for letter in "abcd")


def clocks(**ahead_ms: int) -> Clocks:
    """Of A, which has heard these."""
    made = Clocks(5.0, 2.0)
    for node, ms in ahead_ms.items():
        made.heard({"b": B, "c": C, "d": D}[node], 1_000_000 + ms, 1_000_000)
    return made


@pytest.mark.parametrize(
    ("ahead_ms", "found"),
    [
        ({"b": 0, "c": 0}, {A: 0.0, B: 0.0, C: 0.0}),
        ({"b": 7000, "c": 100}, {A: -0.1, B: 6.9, C: 0.0}),
        ({"b": 7000, "c": 7000}, {A: -7.0, B: 0.0, C: 0.0}),
        ({"b": 7000}, {A: 0.0, B: 7.0}),
        ({"b": -7000}, {A: 7.0, B: 0.0}),
        ({"b": 0, "c": 7000, "d": 7000}, {A: 0.0, B: 0.0, C: 7.0, D: 7.0}),
        ({}, {A: 0.0}),
    ],
)
def test_clocks_are_told_against_the_one_in_the_middle(
    ahead_ms: dict[str, int], found: dict[str, float]
) -> None:
    assert clocks(**ahead_ms).ahead(A, {B, C, D}) == found


def test_of_the_last_heartbeats_the_one_that_was_on_its_way_for_the_least_time_counts() -> None:
    made = Clocks(5.0, 2.0)
    for late_ms in (900, 20, 300):
        made.heard(B, 10_000, 10_000 + late_ms)
        made.heard(C, 10_000, 10_000)
    assert made.ahead(A, {B, C})[B] == -0.02
    for _ in range(5):  # then somebody sets it
        made.heard(B, 10_000, 4_000)
    assert made.ahead(A, {B, C})[B] == 6.0


def test_a_change_is_told_once_and_again_when_it_is_over() -> None:
    made, now_ns = clocks(b=0, c=0), 0

    def told(seconds: float, for_s: int = 10) -> list[Change]:
        nonlocal now_ns
        found = []
        for _ in range(for_s):
            now_ns += 10**9
            found += made.changes({A: 0.0, B: seconds, C: 0.0}, now_ns)
        return found

    assert told(5.0) == []
    assert told(-5.26) == [Change(B, -5.3, True)]
    assert told(6.0) == told(4.0) == told(2.6) == []
    assert told(2.5) == [Change(B, 2.5, False)]
    assert told(4.9) == []
    assert [told(40.0, 5), told(0.0, 1), told(40.0, 5)] == [[], [], []], "not for three heartbeats"


def test_who_is_no_longer_heard_is_forgotten() -> None:
    made = clocks(b=7000, c=0)
    made.changes(made.ahead(A, {B, C}), 0)
    assert [one.node for one in made.changes(made.ahead(A, {B, C}), 6 * 10**9)] == [B]
    assert made.ahead(A, {C}) == {A: 0.0, C: 0.0}
    assert made.changes(made.ahead(A, {C}), 7 * 10**9) == []
    assert not made.wrong
    assert B not in made.ahead(A, {B, C})


def test_a_heartbeat_without_a_clock_is_one_of_protocol_1() -> None:
    """What an older node gets holds no field that it would refuse."""
    record = NodeRecord(node=A, name="a", incarnation=1, member_address="h:1")
    beat = Heartbeat(record=record, table=NO_TABLE.order)
    assert b"wall_ms" not in messages.encode(beat)
    timed = Heartbeat(record=record, table=NO_TABLE.order, wall_ms=7)
    assert messages.decode(messages.encode(timed)) == timed


def test_words_say_which_side_and_what_to_do() -> None:
    assert "the clock of b is 7.0 s behind" in words("b", -7.0, 5.0)
    assert "ahead of that of most nodes" in words("b", 7.0, 5.0)
