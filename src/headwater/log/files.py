"""The names of a writer's files, and the small file that says where a log ends.

``<log>-<first seq>.seg`` segments, ``….segz`` the same compressed, ``….segz.new`` about to take their place
(log/compress) · ``<log>.wm`` durable next seq, a mapped u64 · ``<log>.end`` JSON, written once
(INV-LOG-4) · ``next.seg``, ``next-2.seg`` prepared ahead · ``spare-<n>.seg`` passed segments waiting to be recycled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from headwater.kit.disk import Disk, read_whole, write_whole
from headwater.kit.errors import Broken

SEGMENT = re.compile(r"^([0-9a-f]{16})-([0-9a-f]{16})\.segz?$")
PLAIN, COMPRESSED, FINISHED = ".seg", ".segz", ".segz.new"
DRAFT = "compress.tmp"
"""A compressed segment that is being made; there is one at a time."""
SPARE = re.compile(r"^spare-(\d+)\.seg$")
NEXT = ("next.seg", "next-2.seg")
"""Names of prepared segments; as many as can be prepared ahead."""


class Segment(NamedTuple):
    """A segment file of a log; ``first`` is the first sequence number in it."""

    log: int
    first: int
    path: str
    """Of the form that it had when the folder was listed (log/segment opens the one that it has)."""

    @property
    def compressed(self) -> bool:
        """Whether its plain form was gone."""
        return self.path.endswith(COMPRESSED)


class Damage(msgspec.Struct, frozen=True):
    """A stretch of a log that cannot be read: [first, next), and what it held per stream where that is known."""

    first: int
    next: int
    streams: dict[str, int] = {}


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Where a log ends, decided once."""

    log: int
    seq: int
    streams: dict[str, int] = {}
    """Events per stream over the whole log, damaged ones counted as far as they are known; under "" those that were
    lost with nothing readable behind them to say whose they were."""
    damaged: list[Damage] = []
    format: int = 1


def segment_path(folder: str, log: int, first: int) -> str:
    """The path of a segment."""
    return f"{folder}/{log:016x}-{first:016x}.seg"


def watermark_path(folder: str, log: int) -> str:
    """The path of a log's watermark."""
    return f"{folder}/{log:016x}.wm"


def end_path(folder: str, log: int) -> str:
    """The path of a log's end."""
    return f"{folder}/{log:016x}.end"


def forms(segment: Segment) -> tuple[str, str]:
    """The paths of a segment's plain and of its compressed form."""
    stem = segment.path.rpartition(".")[0]
    return stem + PLAIN, stem + COMPRESSED


def segments(disk: Disk, folder: str) -> list[Segment]:
    """All segments of a writer in order, each once, by its plain form while it is there; none when the folder is
    missing."""
    if not disk.exists(folder):
        return []
    found = [m for m in map(SEGMENT.match, disk.listdir(folder)) if m]
    listed = sorted(Segment(int(m[1], 16), int(m[2], 16), f"{folder}/{m[0]}") for m in found)
    return [
        one
        for one, before in zip(listed, [None, *listed], strict=False)
        if one[:2] != (before and before[:2])
    ]


def spares(disk: Disk, folder: str) -> list[str]:
    """Paths of the segments that wait to be recycled."""
    return [f"{folder}/{name}" for name in disk.listdir(folder) if SPARE.match(name)]


def logs(disk: Disk, folder: str) -> list[int]:
    """Ids of the logs that left any file here, in order."""
    if not disk.exists(folder):
        return []
    names = disk.listdir(folder)
    return sorted(
        {int(n[:16], 16) for n in names if SEGMENT.match(n) or re.match(r"^[0-9a-f]{16}\.(wm|end)$", n)}
    )


def read_end(disk: Disk, folder: str, log: int) -> End | None:
    """The end of a log, or None while it is open or not yet recovered."""
    path = end_path(folder, log)
    if not disk.exists(path):
        return None
    try:
        return msgspec.json.decode(read_whole(disk, path), type=End)
    except msgspec.MsgspecError as error:
        raise Broken(
            f"{path} cannot be read: {error}",
            code="end_unreadable",
            help="the file system has damaged it; remove it, and the next start finds the end of this log again",
        ) from error


def read_watermark(disk: Disk, folder: str, log: int) -> int:
    """The durable watermark of a log; 0 where there is none, or it is still being made."""
    try:
        cell = disk.cell(watermark_path(folder, log))
    except FileNotFoundError:
        return 0
    try:
        return cell.get()
    finally:
        cell.close()


def write_end(disk: Disk, folder: str, end: End) -> End:
    """Decide where a log ends; the first decision stands (INV-LOG-4). Durable on return."""
    if known := read_end(disk, folder, end.log):
        return known
    write_whole(disk, end_path(folder, end.log), msgspec.json.encode(end))
    return end


def accepted(ends: Mapping[int, End]) -> dict[str, int]:
    """Events per stream over ended logs."""
    total: dict[str, int] = {}
    for end in ends.values():
        for stream, count in end.streams.items():
            total[stream] = total.get(stream, 0) + count
    return total
