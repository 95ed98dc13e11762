"""How many events were accepted, per stream, from the raw log itself (protocol.md §13).

Each block says how many events its log holds so far per stream, so a log's count is one number in its last durable
block; of an ended log it stands in ``<log>.end``. Nothing is counted twice and nothing is remembered: what is kept
between two calls only saves reading.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater.event import record
from headwater.event.position import Position, WriterId
from headwater.kit.disk import Disk
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.files import End, Segment
from headwater.log.recover import block_at
from headwater.log.segment import open_segment


@dataclass(slots=True)
class Tail:
    """Where reading of an open log stopped."""

    segment: Segment
    offset: int = 0
    seq: int = 0
    streams: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the raw log holds at one look."""

    streams: dict[str, int]
    ends: dict[WriterId, Position]
    """Of each writer: after its last durable event."""


class AcceptedCounter:
    """Counts a node's raw log; kept, it reads only what is new."""

    def __init__(self, disk: Disk, raw: str, secret: Secret) -> None:
        self.disk = disk
        self.secret = secret
        self.raw = raw
        self.ends: dict[tuple[str, int], End] = {}
        self.tails: dict[tuple[str, int], Tail] = {}

    def count(self) -> Accepted:
        """All that is durable now."""
        streams: dict[str, int] = {}
        ends: dict[WriterId, Position] = {}
        for name in self.disk.listdir(self.raw):
            for log in files.logs(self.disk, f"{self.raw}/{name}"):
                seq, counts = self.log(f"{self.raw}/{name}", log)
                for stream, count in counts.items():
                    streams[stream] = streams.get(stream, 0) + count
                if seq:
                    ends[WriterId(int(name, 16))] = Position(log, seq)
        return Accepted(streams, ends)

    def log(self, folder: str, log: int) -> tuple[int, dict[str, int]]:
        """Next sequence number of a log, and its events per stream."""
        key = (folder, log)
        end = self.ends.get(key) or files.read_end(self.disk, folder, log)
        if end is not None:
            self.ends[key] = end
            self.tails.pop(key, None)
            return end.seq, end.streams
        tail = self.tail(folder, log)
        if tail is None:
            return 0, {}
        self.tails[key] = tail
        return tail.seq, tail.streams

    def tail(self, folder: str, log: int) -> Tail | None:
        """The end of an open log, read on from where it was read to last."""
        watermark = files.read_watermark(self.disk, folder, log)
        segments = [s for s in files.segments(self.disk, folder) if s.log == log and s.first < watermark]
        if not segments:
            return None
        tail = self.tails.get((folder, log))
        if tail is None or tail.segment != segments[-1]:
            known = tail.streams if tail is not None else {}
            tail = Tail(segments[-1], 0, segments[-1].first, known)
        self.read_on(tail, watermark)
        return tail

    def read_on(self, tail: Tail, watermark: int) -> None:
        """Walk the headers to the watermark; only the last block is read whole."""
        file = open_segment(self.disk, tail.segment, self.secret)
        try:
            last: int | None = None
            offset, seq = tail.offset, tail.seq
            while seq < watermark:
                data = file.pread(block.HEADER_BYTES, offset)
                header = block.read_header(data, tail.segment.log)
                if header is None or header.first_seq != seq:
                    break  # damaged: the recovery of this log will say what it held
                last, offset, seq = offset, offset + header.disk_bytes, header.next_seq
            if last is None:
                return
            found = block_at(file, last, tail.segment.log, self.secret)
            if found is not None:
                tail.offset, tail.seq, tail.streams = offset, seq, so_far(found[1])
        finally:
            file.close()


def so_far(payload: memoryview) -> dict[str, int]:
    """Events per stream in the log, up to and with this block."""
    return {stream: counts.so_far for stream, counts in record.decode_streams(payload).items()}
