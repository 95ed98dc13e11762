"""One home whose clock is wrong does not take the dedupe window from the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from headwater.event.position import Position, Vector, WriterId
from headwater.process.idruns import About, Chunk
from headwater.process.pace import HomeTimes

DAY, MINUTE = 24 * 60, 60 * 10**9
HERE, THERE = 0x10000, 0x20000
NOW = 30_000_000
"""Minutes since 1970."""


def block(home: int, minute: int) -> Any:
    return SimpleNamespace(writer=WriterId(home + 1), header=SimpleNamespace(node_time_ns=minute * MINUTE))


def test_the_window_is_counted_from_the_newest_event_of_the_hindmost_home() -> None:
    homes = HomeTimes(60)
    assert homes.take([block(HERE, NOW - 3), block(HERE, NOW), block(THERE, NOW + DAY)], 0) == NOW
    assert homes.take([block(THERE, NOW + DAY + 1)], 0) == NOW, "of events of that home alone, too"
    assert homes.take([block(HERE, NOW + 5)], 0) == NOW + 5


def test_a_home_that_was_not_heard_for_a_window_holds_up_nothing() -> None:
    homes = HomeTimes(60)
    assert homes.take([block(HERE, NOW - DAY)], 0) == NOW - DAY
    assert homes.take([block(THERE, NOW)], 60 * MINUTE) == NOW - DAY
    assert homes.take([block(THERE, NOW + 1)], 61 * MINUTE) == NOW + 1


def test_nothing_is_known_before_anything_was_heard() -> None:
    assert HomeTimes(60).take([], 0) == 0


def test_a_run_of_ids_is_as_new_as_its_owner_says_where_a_home_is_ahead() -> None:
    about = About((0,), Vector(), Vector({WriterId(1): Position(1, 1)}, NOW * MINUTE))
    assert Chunk("", 0, 1, NOW, NOW + DAY, 0, about).minute == NOW
    assert Chunk("", 0, 1, NOW - 9, NOW - 2, 0, about).minute == NOW - 2
    assert Chunk("", 0, 1, NOW - 9, NOW - 2, 0, None).minute == NOW - 2
