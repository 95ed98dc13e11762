"""Where a log ends, decided once, after its process is gone (protocol.md §2 Recovery).

Blocks are read past the cache (direct), from the last segment on; the first that does not fit ends the log unless a
later block of the same log stands behind it: then the stretch between is *damage*, because a writer never has two
unsynced blocks (protocol-why.md L5). A stale block of a recycled file has another log id or an older number and is
never taken for one (INV-LOG-3), nor are bytes inside a body: their sender does not know the secret (log/block).

The watermark says what was acknowledged. It is never synced, so after a crash of the machine it may be older than the
blocks, but never newer: where the blocks end below it, durable ones were lost (bit rot, a disk that lies), and the
stretch up to it is damage too. What lies above it and cannot be read is a torn tail: nobody was told that it is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from headwater.event.record import decode_streams
from headwater.kit.disk import Disk
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.files import Damage, End, Segment
from headwater.log.segment import SegmentFile, open_segment

READ_BYTES = block.BLOCK_BYTES_MAX
LOST_EVENTS_MAX = 1 << 40
"""A watermark that is further ahead than this is itself broken, and says nothing."""

StreamsOf = Callable[[memoryview], Mapping[str, int]]
"""From a block's payload: events per stream in its log, up to and with the block."""


def raw_streams(payload: memoryview) -> Mapping[str, int]:
    """``StreamsOf`` of a raw log."""
    return {stream: counts.so_far for stream, counts in decode_streams(payload).items()}


def no_streams(_payload: memoryview) -> Mapping[str, int]:
    """``StreamsOf`` of a log that counts nothing per stream."""
    return {}


def block_at(
    file: SegmentFile, offset: int, log_id: int, secret: Secret
) -> tuple[block.Header, memoryview] | None:
    """The whole, right block of this log at an offset, with its payload; None where there is none."""
    data = file.pread(block.PAGE_BYTES, offset)
    header = block.read_header(data, log_id)
    if header is None:
        return None
    if header.disk_bytes > len(data):
        data = file.pread(header.disk_bytes, offset)
    if not block.hash_agrees(data, secret):
        return None
    view = memoryview(data)
    return header, view[block.HEADER_BYTES : block.HEADER_BYTES + header.payload_bytes]


def later_blocks(
    file: SegmentFile, offset: int, log_id: int, above: int, secret: Secret
) -> Iterator[tuple[int, block.Header, memoryview]]:
    """Blocks of this log with a first number at or above ``above``, found at any page from ``offset`` on."""
    size = file.size()
    while offset < size:
        chunk = file.pread(READ_BYTES, offset)
        for page in range(0, len(chunk), block.PAGE_BYTES):
            header = block.read_header(memoryview(chunk)[page : page + block.HEADER_BYTES], log_id)
            if header is not None and header.first_seq >= above:
                found = block_at(file, offset + page, log_id, secret)
                if found is not None:
                    yield offset + page, *found
        if not chunk:
            return
        offset += len(chunk)


class Recovery:
    """The reading of one log from its last segment on."""

    def __init__(
        self, disk: Disk, log_id: int, first_seq: int, secret: Secret, streams_of: StreamsOf
    ) -> None:
        self.disk = disk
        self.secret = secret
        self.log_id = log_id
        self.streams_of = streams_of
        self.seq = first_seq
        self.streams: dict[str, int] = {}
        self.counted = 0
        """The next number behind the block that ``streams`` comes from."""
        self.damaged: list[Damage] = []

    def read(self, segment: Segment) -> int:
        """Read a segment; the offset behind its last good block."""
        file = open_segment(self.disk, segment, self.secret, direct=True)
        try:
            offset = 0
            while True:
                found = block_at(file, offset, self.log_id, self.secret)
                if found is not None and found[0].first_seq == self.seq:
                    header, payload = found
                else:
                    later = next(later_blocks(file, offset, self.log_id, self.seq + 1, self.secret), None)
                    if later is None:
                        return offset
                    offset, header, payload = later
                    self.damaged.append(Damage(self.seq, header.first_seq))
                self.streams.update(self.streams_of(payload))
                self.seq = self.counted = header.next_seq
                offset += header.disk_bytes
        finally:
            file.close()

    def lose_up_to(self, watermark: int) -> bool:
        """Whether events below the watermark are gone from the end; they are damage, and nobody's numbers again."""
        lost = watermark - self.seq
        if not 0 < lost <= LOST_EVENTS_MAX:
            return False
        self.damaged.append(Damage(self.seq, watermark))
        self.seq = watermark
        return True


def last_streams(
    disk: Disk, segments: list[Segment], log_id: int, secret: Secret, streams_of: StreamsOf
) -> tuple[dict[str, int], int]:
    """Counts per stream from the last block of whole segments that can be read, and the next number behind it."""
    for segment in reversed(segments):
        file = open_segment(disk, segment, secret, direct=True)
        try:
            found = deque(later_blocks(file, 0, log_id, segment.first, secret), maxlen=1)
        finally:
            file.close()
        for _, header, payload in found:
            if not segment.compressed:
                _keep(disk, segment.path)
            return dict(streams_of(payload)), header.next_seq
    return {}, 0


def recover(disk: Disk, folder: str, log_id: int, secret: Secret, streams_of: StreamsOf = raw_streams) -> End:
    """Decide where a log ends; the earlier decision where there is one. Its process must be gone.

    Idempotent, also when it is itself cut short. On return the end is durable and a torn tail given back.
    """
    if known := files.read_end(disk, folder, log_id):
        return known
    segments = [s for s in files.segments(disk, folder) if s.log == log_id]
    reading = Recovery(disk, log_id, segments[-1].first if segments else 0, secret, streams_of)
    used = reading.read(segments[-1]) if segments else 0
    if segments and reading.seq == segments[-1].first:
        reading.streams, reading.counted = last_streams(disk, segments[:-1], log_id, secret, streams_of)
    lost = reading.lose_up_to(files.read_watermark(disk, folder, log_id))
    if lost:  # decided again, after a crash before the end was durable, it must be the same end
        _keep(disk, files.watermark_path(folder, log_id))
        disk.sync_dir(folder)
    if segments and not segments[-1].compressed:
        _keep(disk, segments[-1].path, None if lost else used)
    if reading.counted < reading.seq:
        reading.streams[""] = reading.seq - reading.counted
    end = End(log=log_id, seq=reading.seq, streams=reading.streams, damaged=reading.damaged)
    return files.write_end(disk, folder, end)


def _keep(disk: Disk, path: str, length: int | None = None) -> None:
    """Make what was read durable, and give back what is longer than ``length``; None: all stays, to be looked at."""
    file = disk.open(path, write=True)
    try:
        if length is not None:
            disk.truncate(file, length)
        disk.sync(file)
    finally:
        disk.close(file)


def recover_all(disk: Disk, folder: str, secret: Secret, streams_of: StreamsOf = raw_streams) -> list[End]:
    """Every log of a writer that has no end yet; the supervisor calls this before a successor starts."""
    return [
        recover(disk, folder, log, secret, streams_of)
        for log in files.logs(disk, folder)
        if files.read_end(disk, folder, log) is None
    ]
