"""Segments are prepared ahead, so that an append never waits for one to be made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from headwater.event.position import WriterId
from headwater.kit.errors import Busy
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.log import files
from headwater.log.block import Secret
from headwater.log.write import PIECE_BYTES, BlockWriter, Segments

FOLDER = "/raw/0"
BLOCKS_IN_SEGMENT = 4


class Slow:
    """A thread that makes segments when the test lets it."""

    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()

    def __call__(self, work: Callable[[], None], /) -> None:
        self.work.append(work)

    def run(self) -> None:
        while self.work:
            self.work.popleft()()


def opened(
    disk: SimDisk, thread: Slow, allowed: Callable[[], bool] = lambda: True, ahead: int = 2
) -> BlockWriter:
    return BlockWriter(
        disk.process("worker"), SimClock(Time()), FOLDER, WriterId(0), 9,
        secret=Secret(1), start=1, offset_ns=0, segment_bytes=BLOCKS_IN_SEGMENT * 4096,
        submit=thread, allowed=allowed, ahead=ahead,
    )  # fmt: skip


def fill(log: BlockWriter, segments: int) -> None:
    for _ in range(segments * BLOCKS_IN_SEGMENT):
        log.write(b"payload", records=1, events=1)


def prepared(disk: SimDisk) -> list[str]:
    return [n for n in disk.process("look").listdir(FOLDER) if n in files.NEXT]


def test_two_segments_are_filled_while_a_slow_disk_makes_none() -> None:
    disk, thread = SimDisk(), Slow()
    log = opened(disk, thread)
    thread.run()
    assert prepared(disk) == sorted(files.NEXT)
    fill(log, 2)
    assert not log.has_room(4096)
    with pytest.raises(Busy):
        fill(log, 1)
    thread.run()
    fill(log, 1)
    assert [s.first for s in files.segments(disk.process("look"), FOLDER)] == [0, 4, 8]


def test_segments_that_were_prepared_before_are_found_again() -> None:
    disk, thread = SimDisk(), Slow()
    opened(disk, thread)
    thread.run()
    fill(opened(disk, Slow()), 2)


def test_the_second_segment_is_left_out_where_the_quota_has_no_room() -> None:
    disk, thread = SimDisk(), Slow()
    room = [1]

    def allowed() -> bool:
        room[0] -= 1
        return room[0] >= 0

    log = opened(disk, thread, allowed)
    thread.run()
    assert prepared(disk) == [files.NEXT[0]]
    assert log.has_room(4096)
    asked = room[0]
    for _ in range(10):
        log.has_room(4096)
    assert room[0] == asked, "each request asks for room again"
    room[0] = 2
    fill(log, 1)
    thread.run()
    assert prepared(disk) == sorted(files.NEXT)


def test_a_segment_that_cannot_be_made_leaves_the_one_that_is_there() -> None:
    disk, thread = SimDisk(), Slow()
    disk.capacity_bytes = (BLOCKS_IN_SEGMENT + 2) * 4096
    log = opened(disk, thread)
    thread.run()
    assert prepared(disk) == [files.NEXT[0]]
    assert "no space" in log.segments.trouble.lower()
    fill(log, 1)
    disk.capacity_bytes = 1 << 30
    assert not log.has_room(4096)
    thread.run()
    assert log.has_room(4096)


class Pauses:
    """Counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, seconds: float) -> None:
        self.count += 1


def test_zeros_are_written_piece_by_piece_unless_a_segment_is_wanted_at_once() -> None:
    """A sync of the log waits for one piece; a log without a segment cannot wait."""
    disk, thread, pauses = SimDisk().process("worker"), Slow(), Pauses()
    pieces = 4
    segments = Segments(disk, FOLDER, pieces * PIECE_BYTES, thread, lambda: True, 2, pauses)
    segments.prepare()
    assert segments.urgent, "none of the two is there"
    thread.work.popleft()()
    assert (len(segments.prepared), pauses.count, segments.urgent) == (1, 0, False)
    thread.run()
    assert (len(segments.prepared), pauses.count) == (2, pieces - 1)
    for _ in range(2):
        disk.close(segments.take(9, len(segments.prepared)))
        segments.prepared.pop(0)
    with pytest.raises(Busy):
        segments.take(9, 7)


def test_a_log_with_one_segment_ahead_makes_it_slowly_until_it_is_missed() -> None:
    disk, thread, pauses = SimDisk().process("worker"), Slow(), Pauses()
    segments = Segments(disk, FOLDER, 2 * PIECE_BYTES, thread, lambda: True, 1, pauses)
    segments.prepare()
    wanted = [segments.urgent]
    with pytest.raises(Busy):
        segments.take(9, 0)
    assert [*wanted, segments.urgent] == [False, True]
    thread.run()
    assert pauses.count == 0
    disk.close(segments.take(9, 0))
    segments.taken()
    thread.run()
    assert pauses.count == 1
