"""How much of a segment file a log really uses: behind it lie zeros, or what a recycled file held before."""

from __future__ import annotations

from typing import NamedTuple

from headwater.kit.disk import Disk
from headwater.log import block
from headwater.log.files import Segment

LOOK_BYTES = 1024 * 1024


class Extent(NamedTuple):
    """Blocks that follow one another from the beginning of a segment, by their headers alone."""

    bytes: int
    next_seq: int
    node_time_ns: int
    """Of the last of these blocks; 0 without any."""


def walk(disk: Disk, path: str, segment: Segment, until: int | None) -> Extent:
    """The blocks of a segment below the number ``until`` (None: all), as far as they follow one another.

    ``next_seq`` is ``until`` where nothing is missing between; else what lies behind the last of them is for others to
    judge. ``path`` is where the segment's bytes are now.
    """
    file = disk.open(path)
    try:
        offset, seq, node_time_ns = 0, segment.first, 0
        while until is None or seq < until:
            header = block.read_header(disk.pread(file, block.HEADER_BYTES, offset), segment.log)
            if header is None or header.first_seq != seq:
                break
            offset, seq, node_time_ns = offset + header.disk_bytes, header.next_seq, header.node_time_ns
        return Extent(offset, seq, node_time_ns)
    finally:
        disk.close(file)


def without_zeros(disk: Disk, path: str) -> int:
    """The length of a file without the zeros at its end, in whole pages."""
    file = disk.open(path)
    try:
        end = disk.size(file)
        while end > 0:
            begin = max(0, end - LOOK_BYTES)
            data = disk.pread(file, end - begin, begin).rstrip(b"\0")
            if data:
                return min(disk.size(file), block.padded(begin + len(data)))
            end = begin
        return 0
    finally:
        disk.close(file)
