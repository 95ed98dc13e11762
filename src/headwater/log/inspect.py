"""What stands in a folder of logs, block by block, each verified; for `headwater log inspect`. Reads only."""

from __future__ import annotations

import msgspec

from headwater.kit.disk import Disk
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.compressed import CompressedFile
from headwater.log.files import Segment
from headwater.log.recover import block_at, later_blocks
from headwater.log.segment import open_segment


class SegmentState(msgspec.Struct, frozen=True, kw_only=True):
    """One segment as it lies on disk."""

    path: str
    log: str
    first_seq: int
    next_seq: int
    blocks: int
    records: int
    bytes: int
    """What its file takes."""
    used_bytes: int
    """Of its blocks, as they were written."""
    compressed: bool
    first_node_time_ns: int | None
    last_node_time_ns: int | None
    problems: list[str]
    """What is wrong, in words; empty when every block up to the end or the watermark is whole."""


def durable_seq(disk: Disk, folder: str, log: int) -> int | None:
    """Up to where a log claims to be durable: its end, else its watermark; None when it says neither."""
    if end := files.read_end(disk, folder, log):
        return end.seq
    return files.read_watermark(disk, folder, log) or None


def inspect(disk: Disk, folder: str, secret: Secret) -> list[SegmentState]:
    """Every segment of a writer's folder, in order, verified."""
    segments = files.segments(disk, folder)
    states = []
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        last = following.first if following is not None and following.log == segment.log else None
        claimed = last if last is not None else durable_seq(disk, folder, segment.log)
        states.append(_segment(disk, segment, claimed, secret))
    return states


def _segment(disk: Disk, segment: Segment, claimed: int | None, secret: Secret) -> SegmentState:
    file = open_segment(disk, segment, secret)
    try:
        headers: list[block.Header] = []
        compressed = isinstance(file, CompressedFile)
        problems = list(file.problems) if isinstance(file, CompressedFile) else []
        offset, seq = 0, segment.first
        while claimed is None or seq < claimed:
            found = block_at(file, offset, segment.log, secret)
            if found is None or found[0].first_seq != seq:
                later = next(later_blocks(file, offset, segment.log, seq + 1, secret), None)
                if later is None:
                    if claimed is not None:
                        problems.append(
                            f"offset {offset}: events {seq} to {claimed - 1} are missing or damaged"
                        )
                    break
                problems.append(f"offset {offset}: events {seq} to {later[1].first_seq - 1} are damaged")
                offset, header = later[0], later[1]
            else:
                header = found[0]
            headers.append(header)
            offset += header.disk_bytes
            seq = header.next_seq
        return SegmentState(
            path=segment.path,
            log=f"{segment.log:016x}",
            first_seq=segment.first,
            next_seq=seq,
            blocks=len(headers),
            records=sum(h.records for h in headers),
            bytes=file.disk_bytes,
            used_bytes=offset,
            compressed=compressed,
            first_node_time_ns=headers[0].node_time_ns if headers else None,
            last_node_time_ns=headers[-1].node_time_ns if headers else None,
            problems=problems,
        )
    finally:
        file.close()
