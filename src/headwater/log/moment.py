"""From times to positions: where a writer stood at a moment, at the border of a block.

A block belongs before a moment when it was closed (node time) at or before it. An event that was received just before
the moment may lie in a block that was closed just after it; blocks are closed within milliseconds of their first event.
Node time never decreases in a log. It may between two starts (a clock was set back): the first block that was closed
after the moment is the border then too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from headwater.event.position import Position, WriterId
from headwater.kit.disk import Disk
from headwater.log import files, retain
from headwater.log.block import Secret
from headwater.log.files import Segment
from headwater.log.read import LogReader

EVERYTHING = (1 << 63, 1 << 63)
READ_BYTES = 8 * 1024 * 1024


class Oldest(NamedTuple):
    """The oldest block of a writer that is still there."""

    position: Position
    closed_ns: int
    first: bool
    """Whether it is known to be the first that there ever was."""


def oldest(disk: Disk, folder: str, secret: Secret) -> Oldest | None:
    """Where what is kept of a writer begins; None where nothing is."""
    held = files.segments(disk, folder)
    if not held:
        return None
    begin = held[0]
    before = [log for log in files.logs(disk, folder) if log < begin.log]
    emptied = any(end.seq for log in before if (end := files.read_end(disk, folder, log)) is not None)
    closed_ns = retain.node_time_ns(disk, begin, secret)
    return Oldest(Position(begin.log, begin.first), closed_ns, not begin.first and not emptied)


def at(
    disk: Disk, folder: str, writer: WriterId, moment_ns: int, limit: Position, *, secret: Secret
) -> Position:
    """The position behind the last block closed at or before the moment, at most ``limit``. Where the log no longer
    reaches back so far, where it begins."""
    held = [s for s in files.segments(disk, folder) if Position(s.log, s.first) < limit]
    if not held:
        return limit
    segment = last_before(disk, held, moment_ns, secret)
    reader = LogReader(disk, folder, writer, Position(segment.log, segment.first), limit, secret=secret)
    found = reader.at
    try:
        while True:
            reader.fill(READ_BYTES)
            blocks = reader.take(EVERYTHING)
            if not blocks:
                return found
            for block in blocks:
                if block.payload is not None and block.header.node_time_ns > moment_ns:
                    return found
                found = block.after
    finally:
        reader.close()


def all_at(
    disk: Disk, raw: str, moment_ns: int, ends: Mapping[WriterId, Position], *, secret: Secret
) -> dict[WriterId, Position]:
    """``at`` for each of these writers whose log is in the folder ``raw``."""
    folders = {writer: f"{raw}/{writer:016x}" for writer in ends}
    return {
        writer: at(disk, folder, writer, moment_ns, ends[writer], secret=secret)
        for writer, folder in folders.items()
        if disk.exists(folder)
    }


def last_before(disk: Disk, held: list[Segment], moment_ns: int, secret: Secret) -> Segment:
    """The segment in which the moment lies: the one before the first that begins after it."""
    for before, segment in zip([held[0], *held], held, strict=False):
        if retain.node_time_ns(disk, segment, secret) > moment_ns:
            return before
    return held[-1]


def closed_ns(disk: Disk, folder: str, writer: WriterId, position: Position, *, secret: Secret) -> int | None:
    """Node time of the first block at or above a position; None where there is none yet."""
    reader = LogReader(disk, folder, writer, position, secret=secret)
    try:
        reader.fill(1)
        for block in reader.take(EVERYTHING):
            if block.payload is not None:
                return block.header.node_time_ns
        return None
    finally:
        reader.close()
