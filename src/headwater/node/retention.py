"""What the raw log may give back, and how much room is left in it (protocol.md §2, §17.9).

``safe`` is what no one will ask below again: everything that is committed by every processor and held by every
destination, as their reports say. A report that is missing makes nothing safe; it never makes too much safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from headwater.config.report import Report
from headwater.event.position import EMPTY, Vector, WriterId
from headwater.kit.disk import Disk
from headwater.log import compress, files, retain
from headwater.log.block import Secret
from headwater.log.files import Segment
from headwater.ops import standing


class Kept(NamedTuple):
    """What a pass over the raw log found and did."""

    raw_bytes: int
    retired_segments: int
    retired_bytes: int
    shortened: bool
    given_up_segments: int = 0
    """Of what some destination lacks."""


def safe_vector(reports: Mapping[str, Report], partitions: int, destinations: Iterable[str]) -> Vector:
    """The vector below which nobody will ask again; EMPTY while any partition or destination has not said."""
    delivered = standing.delivered(reports)
    stands = [standing.processed(reports).vectors]
    stands += [delivered[name].needs if name in delivered else {} for name in destinations]
    if any(len(vectors) < partitions for vectors in stands):
        return EMPTY
    safe = standing.least(stands[0])
    for vectors in stands[1:]:
        safe = safe.meet(standing.least(vectors))
    return safe


def committed(reports: Mapping[str, Report], partitions: int, *, alone: bool) -> Vector:
    """What this node's processors have behind them; of all partitions where it is alone. Nothing is safe by it."""
    return (
        safe_vector(reports, partitions, ()) if alone else standing.least(standing.processed(reports).vectors)
    )


def keep(
    disk: Disk,
    raw: str,
    safe: Vector,
    secret: Secret,
    given_up: Vector = EMPTY,
    *,
    now_ns: int,
    retain_s: float,
    raw_bytes_max: int,
    headroom_bytes: int,
    segment_bytes: int,
    spares_max: int,
) -> Kept:
    """Give back what is safe and old, and what is safe where less than ``headroom_bytes`` of the quota are left: a
    full log whose events are all delivered must not keep new ones out. Where that is not enough, what lies below
    ``given_up`` goes too: some destination lacks it. ``now_ns`` is node time.

    Compressed segments are put in their places first (log/compress), so that nothing else changes names beside it.
    """
    folders = [(WriterId(int(name, 16)), f"{raw}/{name}") for name in disk.listdir(raw)]
    for _, folder in folders:
        compress.switch(disk, folder)
    size = sum(retain.folder_bytes(disk, folder) for _, folder in folders)
    excess = size + headroom_bytes - raw_bytes_max
    oldest_ns = now_ns - int(retain_s * 1e9)
    shortened = False

    following = {
        one.path: behind for _, folder in folders for one, behind in pairwise(files.segments(disk, folder))
    }

    def wanted(segment: Segment, disk_bytes: int) -> bool:
        nonlocal excess, shortened
        behind = following.get(
            segment.path
        )  # as old as its last block, which is not younger than the first behind it
        if behind is not None and retain.node_time_ns(disk, behind, secret) < oldest_ns:
            return False
        if excess <= 0:
            return True
        excess -= disk_bytes
        shortened = True
        return False

    def too_much(_segment: Segment, disk_bytes: int) -> bool:
        nonlocal excess
        if excess <= 0:
            return True
        excess -= disk_bytes
        return False

    count = freed = given = 0
    for writer, folder in folders:
        spares = 0 if excess > 0 else spares_max  # over the quota, a spare would keep the room
        retired = retain.retire(
            disk, folder, safe[writer], wanted=wanted, segment_bytes=segment_bytes, spares_max=spares
        )
        count, freed = count + retired.segments, freed + retired.bytes
    for writer, folder in folders if excess > 0 else ():
        retired = retain.retire(
            disk, folder, given_up[writer], wanted=too_much, segment_bytes=segment_bytes, spares_max=0
        )
        given, freed = given + retired.segments, freed + retired.bytes
    size = sum(retain.folder_bytes(disk, folder) for _, folder in folders)
    return Kept(size, count + given, freed, shortened, given)


def compressed(disk: Disk, raw: str) -> bool:
    """Whether ``keep`` would put a compressed segment in its place."""
    return any(compress.finished(disk, f"{raw}/{name}") for name in disk.listdir(raw))


def headroom_bytes(segment_bytes: int, workers: int) -> int:
    """What is kept free of the quota: the segment that each worker makes next, and the one after it."""
    return 2 * segment_bytes * workers


def room_each(raw_bytes: int, raw_bytes_max: int, free_bytes: int, reserve_bytes: int, workers: int) -> int:
    """What each collect worker may still add: its share of what quota and disk leave."""
    return max(0, min(raw_bytes_max - raw_bytes, free_bytes - reserve_bytes)) // max(1, workers)
