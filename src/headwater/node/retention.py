"""What the raw log may give back, and how much room is left in it (protocol.md §2, §17.9).

``safe`` is what no one will ask below again: everything that is committed by every processor and held by every
destination, as their reports say. A report that is missing makes nothing safe; it never makes too much safe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from headwater.config.report import Report
from headwater.event.position import EMPTY, Vector, WriterId
from headwater.kit.disk import Disk
from headwater.log import retain
from headwater.log.files import Segment
from headwater.ops import standing


class Kept(NamedTuple):
    """What a pass over the raw log found and did."""

    raw_bytes: int
    retired_segments: int
    retired_bytes: int
    shortened: bool


def safe_vector(reports: Mapping[str, Report], partitions: int, destinations: Iterable[str]) -> Vector:
    """The vector below which nobody will ask again; EMPTY while any partition or destination has not said."""
    delivered = standing.delivered(reports)
    stands = [standing.processed(reports).vectors]
    stands += [delivered[name].vectors if name in delivered else {} for name in destinations]
    if any(len(vectors) < partitions for vectors in stands):
        return EMPTY
    safe = standing.least(stands[0])
    for vectors in stands[1:]:
        safe = safe.meet(standing.least(vectors))
    return safe


def keep(
    disk: Disk,
    raw: str,
    safe: Vector,
    *,
    now_ns: int,
    retain_s: float,
    raw_bytes_max: int,
    segment_bytes: int,
    spares_max: int,
    room_bytes: int = 0,
) -> Kept:
    """Give back what is safe and old, and what is safe where less than ``room_bytes`` of the quota are left.

    ``room_bytes`` is what the collectors need for their next segments: without it they stop just below the quota, where
    nothing would ever be over it. ``now_ns`` is node time.
    """
    folders = [(WriterId(int(name, 16)), f"{raw}/{name}") for name in disk.listdir(raw)]
    size = sum(retain.folder_bytes(disk, folder) for _, folder in folders)
    excess = size + room_bytes - raw_bytes_max
    oldest_ns = now_ns - int(retain_s * 1e9)
    shortened = False

    def wanted(segment: Segment) -> bool:
        nonlocal excess, shortened
        if retain.node_time_ns(disk, segment) < oldest_ns:
            return False
        if excess <= 0:
            return True
        excess -= segment_bytes
        shortened = True
        return False

    count = freed = 0
    for writer, folder in folders:
        spares = 0 if excess > 0 else spares_max  # over the quota, a spare would keep the room
        retired = retain.retire(
            disk, folder, safe[writer], wanted=wanted, segment_bytes=segment_bytes, spares_max=spares
        )
        count, freed = count + retired.segments, freed + retired.bytes
    return Kept(sum(retain.folder_bytes(disk, folder) for _, folder in folders), count, freed, shortened)


def room_each(raw_bytes: int, raw_bytes_max: int, free_bytes: int, reserve_bytes: int, workers: int) -> int:
    """What each collect worker may still add: its share of what quota and disk leave."""
    return max(0, min(raw_bytes_max - raw_bytes, free_bytes - reserve_bytes)) // max(1, workers)
