"""One writer's logs in a mirror: ordinary segments, watermarks and ends, as ``LogReader`` reads them (log/files).

Blocks keep log, numbers and times; their hashes are made anew with this data folder's secret. A block is there before
the watermark says so, and nothing is synced: what a crash takes is fetched again. Only what begins where the log ends
here is taken (INV-LANE-1). Where its home can no longer give a stretch, none of it is here either: the next block
begins a new segment, and readers find the same gap as at home.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from headwater.config.report import replace
from headwater.event.position import Position
from headwater.kit.disk import Cell, Disk
from headwater.kit.errors import Rejected
from headwater.lane.wire import BlockHead, Gap
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.files import End, Segment

SEGMENT_BYTES = 8 * 1024 * 1024
LAST_SEGMENT_BYTES_MIN = 1024 * 1024
"""The segment that is being written goes too, once everybody has read it, when it is so large."""


@dataclass(slots=True)
class Growing:
    """The segment that is being written."""

    segment: Segment
    file: int
    bytes: int = 0


class MirrorLog:
    """The folder of one writer. Not for two threads at once."""

    def __init__(self, disk: Disk, folder: str, secret: Secret, origin: Position) -> None:
        self.disk = disk
        self.folder = folder
        self.secret = secret
        self.at = origin
        """Where it ends: the next block begins here, or a later log does."""
        self.ended = False
        """Whether the log at ``at`` has its end."""
        self.missing = 0
        """Events that its home has given back."""
        self.bytes = 0
        """Of all segments."""
        self.segments: list[tuple[Segment, int]] = []
        """With their sizes, oldest first; without the one that grows."""
        self.growing: Growing | None = None
        self.watermark: Cell | None = None
        disk.mkdir(folder)

    def take(self, head: BlockHead, payload: bytes | memoryview) -> None:
        """The next block, or a stretch without one. Rejected: it begins elsewhere (INV-LANE-1)."""
        self.check(head)
        if head.log != self.at.log:
            self.begin(head.log)
        if head.gap is Gap.NONE:
            self.append(head, payload)
        else:
            self.seal()
            self.missing += head.events if head.gap is Gap.GIVEN_BACK else 0
        self.at = Position(head.log, head.first_seq + head.events)
        self.cell().set(self.at.seq)

    def check(self, head: BlockHead) -> None:
        """INV-LANE-1."""
        here = self.at
        if head.log > here.log:
            fits = head.first_seq == 0 and (self.ended or not here.log)
        else:
            fits = head.log == here.log != 0 and head.first_seq == here.seq and not self.ended
        if not fits:
            raise Rejected(
                f"a block of log {head.log:016x} at {head.first_seq}, expected {here.log:016x} at {here.seq}"
                f"{', which has ended' if self.ended else ''}",
                code="lane_gap",
                help="the stream is asked for again",
            )

    def end(self, log: int, seq: int) -> None:
        """A log has its end. Rejected: not where it ends here (INV-LANE-1)."""
        if (log, seq) != self.at:
            raise Rejected(
                f"log {log:016x} is said to end at {seq}, here {self.at.log:016x} is at {self.at.seq}",
                code="lane_gap",
            )
        replace(self.disk, files.end_path(self.folder, log), msgspec.json.encode(End(log=log, seq=seq)))
        self.ended = True

    def trim(self, below: Position) -> None:
        """Give back the segments that lie below; those who read them have them open, or need them no more."""
        if self.growing is not None and below >= self.at and self.growing.bytes >= LAST_SEGMENT_BYTES_MIN:
            self.seal()
        starts = [Position(s.log, s.first) for s, _ in self.segments]
        last = Position(*self.growing.segment[:2]) if self.growing is not None else self.at
        gone = [self.is_below(one, two, below) for one, two in pairwise([*starts, last])]
        for _ in range(gone.index(False) if False in gone else len(gone)):
            segment, size = self.segments.pop(0)
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(segment.path)
            self.bytes -= size
        for log in files.logs(self.disk, self.folder):
            if log < min(below.log, self.at.log):
                self.forget(log)

    def is_below(self, start: Position, behind: Position, below: Position) -> bool:
        """Whether all of a segment is, the next one beginning ``behind`` it; nobody looks back into an earlier log."""
        return below.log > start.log if behind.log != start.log else below >= behind

    def forget(self, log: int) -> None:
        """The small files of a log whose segments are gone."""
        if any(segment.log == log for segment, _ in self.segments):
            return
        for path in (files.watermark_path(self.folder, log), files.end_path(self.folder, log)):
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(path)

    def close(self) -> None:
        """Release the files."""
        self.seal()
        if self.watermark is not None:
            self.watermark.close()
            self.watermark = None

    def begin(self, log: int) -> None:
        """A later log."""
        self.close()
        self.ended = False
        self.at = Position(log, 0)

    def encoded(self, head: BlockHead, payload: bytes | memoryview) -> bytes:
        """The block as it stands in this folder."""
        return block.encode(
            (payload,),
            secret=self.secret,
            log_id=head.log,
            first_seq=head.first_seq,
            events=head.events,
            records=head.records,
            node_time_ns=head.node_time_ns,
            boot_ns=head.boot_ns,
            start=head.start,
        )

    def append(self, head: BlockHead, payload: bytes | memoryview) -> None:
        data = self.encoded(head, payload)
        if self.growing is not None and self.growing.bytes + len(data) > SEGMENT_BYTES:
            self.seal()
        if self.growing is None:
            path = files.segment_path(self.folder, head.log, head.first_seq)
            file = self.disk.open(path, write=True, create=True)
            self.growing = Growing(Segment(head.log, head.first_seq, path), file)
        written = self.disk.pwrite(self.growing.file, data, self.growing.bytes)
        if written != len(data):
            raise OSError(28, f"short write: {written} of {len(data)} bytes", self.growing.segment.path)
        self.growing.bytes += len(data)
        self.bytes += len(data)

    def seal(self) -> None:
        """The next block begins a new segment."""
        if self.growing is not None:
            self.disk.close(self.growing.file)
            self.segments.append((self.growing.segment, self.growing.bytes))
            self.growing = None

    def cell(self) -> Cell:
        """The watermark of the log at ``at``."""
        if self.watermark is None:
            path = files.watermark_path(self.folder, self.at.log)
            self.watermark = self.disk.cell(path, write=True)
        return self.watermark
