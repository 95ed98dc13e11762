"""One partition at one member (K3, K4): batches and what may be committed, against a plain model."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headwater.kit.errors import Broken
from headwater.lane.kafka.part import Part, event_bytes
from headwater.lane.kafka.settings import ConsumeSettings
from headwater.lane.kafka.sink import Event

SETTINGS = ConsumeSettings(
    group="g", topics=("t",), member="m", batch_bytes=1_000, batch_bytes_max=2_000, batch_events_max=7
)


def event(offset: int, size: int = 10) -> Event:
    return Event(offset, None, b"x" * size, (), -1)


class Commits(RuleBasedStateMachine):
    """A log of 200 events with gaps, a sink that answers as it likes, and what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Part("t", 0, 0, SETTINGS)
        self.log = [n for n in range(200) if n % 5]
        self.handed: set[int] = set()
        self.finished: set[int] = set()
        self.batch: list[Event] = []

    @rule(count=st.integers(1, 30), size=st.integers(0, 400))
    def come(self, count: int, size: int) -> None:
        new = [n for n in self.log if n >= self.part.next][:count]
        self.part.add([event(n, size) for n in new], self.part.epoch, 0)

    @rule(back=st.integers(1, 20))
    def come_again_or_late(self, back: int) -> None:
        before = list(self.part.waiting)
        self.part.add(
            [event(n) for n in self.log if self.part.next - back <= n < self.part.next], self.part.epoch, 0
        )
        self.part.add([event(n) for n in self.log if n >= self.part.next], self.part.epoch - 1, 0)
        assert list(self.part.waiting) == before

    @precondition(lambda self: not self.batch)
    @rule()
    def take(self) -> None:
        self.batch = self.part.take()
        offsets = [one.offset for one in self.batch]
        assert len(offsets) <= 7
        assert len(offsets) <= 1 or sum(map(event_bytes, self.batch)) <= self.part.next_bytes
        if offsets:
            missing = {n for n in self.log if offsets[0] <= n <= offsets[-1]} - set(offsets)
            assert missing <= self.part.dead | self.finished  # only dead letters are left out

    @precondition(lambda self: self.batch)
    @rule(keep=st.integers(0, 6), data=st.data())
    def advance(self, keep: int, data: st.DataObject) -> None:
        self.part.offer(self.batch)
        self.handed |= {one.offset for one in self.batch}
        known = [n for n in sorted(self.handed) if self.part.done <= n < self.part.given]
        upto = known[max(0, len(known) - 1 - keep)] if known else self.part.given - 1
        self.part.advance(upto)
        self.finished |= {n for n in self.handed if n <= upto}
        self.batch = []

    @precondition(lambda self: self.batch)
    @rule()
    def hold(self) -> None:
        self.part.offer(self.batch)
        self.handed |= {one.offset for one in self.batch}
        self.part.hold()
        self.batch = []

    @precondition(lambda self: self.batch)
    @rule()
    def fail_and_bury_all(self) -> None:
        self.part.refused(self.part.offer(self.batch))
        for one in self.batch:
            self.part.bury(one.offset)
            self.finished.add(one.offset)
        self.batch = []

    @precondition(lambda self: not self.batch)
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        offset = data.draw(st.one_of(st.none(), st.integers(0, self.part.done)))
        wanted = self.part.revert(offset)
        self.handed = {n for n in self.handed if n < self.part.done}
        self.finished = {n for n in self.finished if n < self.part.done or n in self.part.dead}
        assert wanted == self.part.next

    @invariant()
    def what_is_done_was_finished(self) -> None:
        assert {n for n in self.log if n < self.part.done} <= self.finished
        assert self.part.done <= max(self.part.given, self.part.done) <= max(self.part.next, self.part.given)


TestCommits = Commits.TestCase


@pytest.mark.parametrize("upto", [-2, 5, 99])
def test_k4_advance_names_an_offset_that_was_given(upto: int) -> None:
    part = Part("t", 0, 0, SETTINGS)
    part.add([event(n) for n in range(5)], 0, 0)
    part.offer(part.take())
    with pytest.raises(Broken, match=f"advanced t/0 to {upto}; it has had 0 up to 4"):
        part.advance(upto)


def test_k4_revert_leaves_nothing_out_that_is_not_done() -> None:
    part = Part("t", 0, 3, SETTINGS)
    part.add([event(n) for n in (3, 4)], 0, 0)
    part.offer(part.take())
    part.hold()
    with pytest.raises(Broken, match="went back to 4 in t/0, but 3 is not done"):
        part.revert(4)
    assert part.revert(2) == 2


def test_k3_the_age_of_a_batch_is_that_of_its_oldest_event() -> None:
    part = Part("t", 0, 0, SETTINGS)
    part.add([event(n) for n in range(8)], 0, 0)
    part.add([event(8)], 0, 600_000_000)
    assert part.closed(0)  # by count
    part.take()
    assert not part.closed(999_999_999)
    assert part.closed(1_000_000_000)
    part.take()
    part.add([event(9)], 0, 3_000_000_000)
    assert not part.closed(3_999_999_999)


def test_k3_the_next_size_has_a_bound() -> None:
    part = Part("t", 0, 0, SETTINGS)
    for wish, size in ((1 << 40, 2_000), (-5, 1), (None, 1), (1_500, 1_500)):
        part.resize(wish)
        assert part.next_bytes == size


def test_k7_a_jump_leaves_what_waits_and_one_back_reads_again() -> None:
    part = Part("t", 0, 0, SETTINGS)
    part.jump(40)
    assert (part.done, part.given, part.next) == (40, 40, 40)
    part.add([event(40)], 0, 0)
    part.jump(60)
    assert (part.done, part.next, len(part.waiting)) == (40, 60, 1)
    part.jump(10)
    assert (part.done, part.given, part.next, len(part.waiting)) == (10, 10, 10, 0)
    part.add([event(10)], part.epoch, 0)
    assert len(part.waiting) == 1
