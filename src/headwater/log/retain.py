"""Giving back what everybody has passed (protocol.md §2 Retention, §17.9).

A segment may go when all of it lies below ``safe`` and it is older than the settings ask; where raw is over its quota,
safe ones go at once, oldest first. Nothing above ``safe`` is ever touched, whatever the age or the quota say.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import zip_longest
from typing import NamedTuple

from headwater.event.position import Position
from headwater.kit.disk import Disk
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.files import Segment
from headwater.log.segment import open_segment


class Retired(NamedTuple):
    """What a pass gave back."""

    segments: int
    bytes: int


def ends(disk: Disk, folder: str) -> list[tuple[Segment, Position]]:
    """Each segment with the position after its last event; segments that still grow are left out."""
    found = files.segments(disk, folder)
    closed: list[tuple[Segment, Position]] = []
    for segment, following in zip_longest(found, found[1:]):
        if following is not None and following.log == segment.log:
            closed.append((segment, Position(segment.log, following.first)))
        elif end := files.read_end(disk, folder, segment.log):
            closed.append((segment, Position(segment.log, end.seq)))
    return closed


def folder_bytes(disk: Disk, folder: str) -> int:
    """What the segments of a folder take in either form; spares, prepared ones and those being compressed counted."""
    counted = (files.PLAIN, files.COMPRESSED, files.FINISHED, files.DRAFT)
    return sum(disk.about(f"{folder}/{name}").size for name in disk.listdir(folder) if name.endswith(counted))


def held_bytes(disk: Disk, folder: str, safe: Position) -> int:
    """What the folder would take if everything below ``safe`` were given back."""
    below = {segment.path for segment, after in ends(disk, folder) if after <= safe}
    return sum(
        disk.about(segment.path).size for segment in files.segments(disk, folder) if segment.path not in below
    )


def retire(
    disk: Disk,
    folder: str,
    safe: Position,
    *,
    wanted: Callable[[Segment, int], bool],
    segment_bytes: int,
    spares_max: int,
) -> Retired:
    """Recycle or remove the segments below ``safe``, oldest first, up to the first that is ``wanted`` longer (asked
    with what it takes on disk): nothing goes that is newer than what stays. Compressed ones are removed.

    A segment is known to be full by the name of the one behind it. That name is made durable first: its writer may
    have died before it did so, and after a crash of the machine nothing would be left of a log without an end.
    What a backup still reads, under a name of its own, is removed and not recycled: nobody may write over it.
    """
    count = size = 0
    spares = len(files.spares(disk, folder))
    passed = [segment for segment, after in ends(disk, folder) if after <= safe]
    if passed:
        disk.sync_dir(folder)
    for segment in passed:
        length, names = disk.about(segment.path)
        if wanted(segment, length):
            break
        if not segment.compressed and length == segment_bytes and names == 1 and spares < spares_max:
            disk.rename(segment.path, f"{folder}/spare-{segment.first:016d}.seg")
            spares += 1
        else:
            disk.unlink(segment.path)
        count, size = count + 1, size + length
    return Retired(count, size)


def node_time_ns(disk: Disk, segment: Segment, secret: Secret) -> int:
    """Node time (ns) of the first block of a segment, as its age; 0 when it has none."""
    file = open_segment(disk, segment, secret)
    try:
        header = block.read_header(file.pread(block.PAGE_BYTES, 0), segment.log)
    finally:
        file.close()
    return header.node_time_ns if header else 0


def oldest_ns(disk: Disk, raw: str, secret: Secret) -> int:
    """Node time (ns) of the oldest block of all writers below ``raw``; 0 where there is none."""
    found = []
    for name in disk.listdir(raw):
        for segment in files.segments(disk, f"{raw}/{name}")[:1]:
            with suppress(FileNotFoundError):  # it is being given back
                found.append(node_time_ns(disk, segment, secret))
    return min(found, default=0)
