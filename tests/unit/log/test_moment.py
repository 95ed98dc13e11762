"""From times to positions: blocks closed at or before a moment lie below it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.disk import SystemDisk
from headwater.kit.threads import inline
from headwater.log import files, moment
from headwater.log.block import Secret
from headwater.log.write import BlockWriter

SECRET, WRITER = Secret(7), WriterId(0xAA0000)
SEGMENT = 8 * 1024 * 1024
SECOND = 1_000_000_000
END = Position(9, 20)


class Turned:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_ns = 0

    def boot_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def block(self, seconds: float) -> None:
        """Nobody waits: zeros are written piece by piece, and time is set by hand."""


class Logs:
    """One writer: blocks of two events, one at each second; two logs, of ten seconds each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk, self.clock = str(folder), SystemDisk(), Turned()
        for log, first in ((5, 0), (9, 10)):
            writer = BlockWriter(
                self.disk, self.clock, self.folder, WRITER, log, start=1, offset_ns=0,
                segment_bytes=SEGMENT, submit=inline, secret=SECRET,
            )  # fmt: skip
            for second in range(first, first + 10):
                self.clock.now_ns = second * SECOND
                writer.write(b"x" * (2_000_000 if log == 5 else 100), records=2, events=2)
            writer.close()
            files.write_end(self.disk, self.folder, files.End(log=log, seq=20))

    def at(self, seconds: float, limit: Position = END) -> Position:
        return moment.at(self.disk, self.folder, WRITER, int(seconds * SECOND), limit, secret=SECRET)


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_every_block_closed_by_then_lies_below(logs: Logs) -> None:
    assert len(files.segments(logs.disk, logs.folder)) > 3
    for second in range(20):
        log, first = (5, 0) if second < 10 else (9, 10)
        assert logs.at(second + 0.5) == logs.at(second) == Position(log, 2 * (second - first) + 2)


def test_before_the_first_and_after_the_last(logs: Logs) -> None:
    assert logs.at(-1) == Position(5, 0)
    assert logs.at(99) == Position(9, 20)


def test_it_never_lies_beyond_the_limit(logs: Logs) -> None:
    assert logs.at(99, Position(9, 6)) == Position(9, 6)
    assert logs.at(99, Position(5, 4)) == Position(5, 4)
    assert logs.at(99, ZERO) == ZERO
    assert moment.at(logs.disk, f"{logs.folder}/none", WRITER, 1, ZERO, secret=SECRET) == ZERO


def test_what_is_the_oldest_says_whether_it_was_the_first(logs: Logs) -> None:
    assert moment.oldest(logs.disk, logs.folder, SECRET) == (Position(5, 0), 0, True)
    first = files.segments(logs.disk, logs.folder)[0]
    logs.disk.unlink(first.path)
    oldest = moment.oldest(logs.disk, logs.folder, SECRET)
    assert oldest is not None and oldest.position.log == 5 and oldest.closed_ns >= SECOND and not oldest.first
    for segment in files.segments(logs.disk, logs.folder):
        if segment.log == 5:
            logs.disk.unlink(segment.path)
    assert moment.oldest(logs.disk, logs.folder, SECRET) == (Position(9, 0), 10 * SECOND, False)
    assert moment.oldest(logs.disk, f"{logs.folder}/none", SECRET) is None


def test_the_next_block_says_when_it_was_closed(logs: Logs) -> None:
    def closed(position: Position) -> int | None:
        return moment.closed_ns(logs.disk, logs.folder, WRITER, position, secret=SECRET)

    assert closed(Position(5, 4)) == 2 * SECOND
    assert closed(Position(5, 20)) == 10 * SECOND
    assert closed(Position(9, 20)) is None
