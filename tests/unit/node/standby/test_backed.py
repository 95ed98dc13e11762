"""A commit is delivered when the standby has it, or has kept it waiting for long enough."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from headwater.event.position import Position
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.node.standby import backed
from tests.unit.node.standby.nodes import OWNER, STANDBY, THIRD, view


class Log:
    """Three commits; each read gives what is left."""

    waits = False

    def __init__(self) -> None:
        self.left: list[Any] = [(name, Position(7, n)) for n, name in enumerate("abc", 1)]
        self.closed = False

    def read(self, bytes_max: int) -> list[Any]:
        found, self.left = self.left, []
        return found

    def close(self) -> None:
        self.closed = True


class Story:
    def __init__(self) -> None:
        self.time = Time()
        disk = SimDisk(1).process("node")
        disk.mkdir("/run")
        self.teller = backed.Teller(disk, "/run", 1)
        self.log = Log()
        clock = SimClock(self.time)
        self.reader = backed.BackedReader(self.log, backed.cells_of(disk, "/run", 0), clock)

    def given(self) -> str:
        return "".join(str(commit) for commit, _ in self.reader.read(1))


def test_commits_are_given_in_their_order_up_to_what_the_standby_has() -> None:
    story = Story()
    assert story.given() == ""
    story.teller.tell([Position(7, 2)])
    assert story.given() == "ab"
    story.teller.tell([Position(7, 3)])
    assert story.given() == "c"
    story.reader.close()
    assert story.log.closed


def test_what_a_standby_has_of_an_earlier_log_says_nothing_of_this_one() -> None:
    story = Story()
    story.teller.tell([Position(6, 99)])
    assert story.given() == ""
    story.teller.tell([Position(8, 0)])
    assert story.given() == "abc", "but a later one does"


def test_a_standby_that_hangs_delays_delivery_and_does_not_stop_it() -> None:
    story = Story()
    assert story.given() == ""
    story.time.advance(backed.WAIT_S - 0.1)
    assert story.given() == ""
    story.time.advance(0.2)
    assert story.given() == "abc"


def test_it_says_that_it_keeps_something_back() -> None:
    story = Story()
    waits = [story.reader.waits]
    story.given()
    waits.append(story.reader.waits)
    story.teller.tell([Position(7, 3)])
    story.given()
    assert [*waits, story.reader.waits] == [False, True, False]


def test_nobody_is_waited_for_where_no_standby_is_connected() -> None:
    story = Story()
    story.teller.tell(backed.taken_by_all(None, {}, 1))
    assert story.given() == "abc"


def test_the_hindmost_of_the_connected_standbys_counts() -> None:
    seen = msgspec.structs.replace(view(), me=OWNER)
    at = Position(7, 5)
    assert backed.taken_by_all(seen, {}, 1) == [backed.EVERYTHING]
    assert backed.taken_by_all(seen, {STANDBY: {0: at}}, 1) == [at]
    assert backed.taken_by_all(seen, {THIRD: {0: at}}, 1) == [backed.EVERYTHING], "it is nobody's standby"
    assert backed.taken_by_all(seen, {STANDBY: {1: at}}, 2) == [backed.EVERYTHING, at]


@pytest.mark.parametrize("header", [{"mark": 0}, {"mark": "x", "at": [1, 2]}, {"mark": 0, "at": [1]}])
def test_a_mark_that_is_none_is_refused(header: dict[str, object]) -> None:
    from headwater.kit.errors import Broken
    from headwater.node.standby.serve import marked_of

    with pytest.raises(Broken, match="not a mark"):
        marked_of(header, "mark")
