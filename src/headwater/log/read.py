"""Reading one writer's logs in order, below the durable watermark only (INV-LOG-2, INV-LOG-5).

A reader moves from one log to the next when it has reached the end that was decided for it. Where a block below the
watermark or the end cannot be believed, the next good one is looked for; the stretch between becomes a ``Block``
without payload that says what was lost, and counts as damaged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.disk import Cell, Disk
from headwater.log import block, files
from headwater.log.block import Secret
from headwater.log.files import End
from headwater.log.recover import block_at, later_blocks
from headwater.log.segment import SegmentFile, open_segment

CHUNK_BYTES = block.BLOCK_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a writer, or a damaged stretch."""

    writer: WriterId
    header: block.Header
    payload: memoryview | None
    """None: [header.first_seq, header.next_seq) is damaged."""

    @property
    def after(self) -> Position:
        """Where a reader stands that has taken this block."""
        return Position(self.header.log_id, self.header.next_seq)


class LogReader:
    """Reads ahead into ``ahead``; ``at`` is the position after the last block that was taken."""

    def __init__(
        self,
        disk: Disk,
        folder: str,
        writer: WriterId,
        at: Position = ZERO,
        until: Position | None = None,
        *,
        secret: Secret,
    ) -> None:
        self.disk = disk
        self.secret = secret
        self.folder = folder
        self.writer = writer
        self.at = at
        self.until = until
        """Where to stop although there is more; None reads on for ever."""
        self.ahead: deque[Block] = deque()
        self.ahead_bytes = 0
        self.more = False
        """True when ``fill`` stopped because it had read enough, not because there was nothing more."""
        self._read = at
        self._end: End | None = None
        self._cell: Cell | None = None
        self._file: SegmentFile | None = None
        self._first = -1
        """The first number of the segment that is open."""
        self._offset = 0
        self._closed = (0, 0)

    def fill(self, bytes_max: int) -> None:
        """Read blocks ahead until there are ``bytes_max`` bytes of them, or no more durable ones."""
        self.more = False
        while self.ahead_bytes < bytes_max:
            limit = self._limit()
            if self._read.seq < limit:
                for found in self._blocks(limit, bytes_max):
                    self.ahead.append(found)
                    self.ahead_bytes += found.header.disk_bytes
                    self._read = found.after
            elif not self._next_log():
                return
        self.more = self._read.seq < self._limit() or self._end is not None

    def take(self, closed: tuple[int, int]) -> list[Block]:
        """The blocks read ahead that were closed at or before ``closed`` (start, boot ns), in order."""
        taken = []
        while self.ahead and self.ahead[0].header.closed <= closed:
            found = self.ahead.popleft()
            self.ahead_bytes -= found.header.disk_bytes
            self.at = found.after
            taken.append(found)
        return taken

    def close(self) -> None:
        """Release the files."""
        self._release()

    def _limit(self) -> int:
        """The first number of the current log that may not be read."""
        durable = self._durable()
        if self.until is not None and self._read.log >= self.until.log:
            return min(durable, self.until.seq) if self._read.log == self.until.log else 0
        return durable

    def _durable(self) -> int:
        if self._end is None and self._read.log:
            self._end = files.read_end(self.disk, self.folder, self._read.log)
        if self._end is not None:
            return self._end.seq
        if self._cell is None:
            if not self._read.log:
                return 0
            try:
                self._cell = self.disk.cell(files.watermark_path(self.folder, self._read.log))
            except FileNotFoundError:  # no block yet; the writer may be just making it
                return 0
        return self._cell.get()

    def _next_log(self) -> bool:
        """Step to the successor, when this log has ended and there is one (INV-LOG-5).

        A log without any file has ended too: the folder is an older copy, made before that log began.
        """
        there = files.logs(self.disk, self.folder)
        if self._end is None and self._read.log in there:
            return False
        later = [log for log in there if log > self._read.log]
        if not later or (self.until is not None and later[0] > self.until.log):
            return False
        self._release()
        self._read = Position(later[0], 0)
        return True

    def _release(self) -> None:
        if self._cell is not None:
            self._cell.close()
        self._close_file()
        self._end, self._cell = None, None

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._first = None, -1

    def _open(self) -> bool:
        """Stand at the block that begins at ``_read``; False when no segment holds it."""
        own = [s for s in files.segments(self.disk, self.folder) if s.log == self._read.log]
        fitting = [s for s in own if s.first <= self._read.seq]
        if not fitting:
            return False
        segment = fitting[-1]
        if segment.first == self._first and self._file is not None:
            return True
        self._close_file()
        self._file = open_segment(self.disk, segment, self.secret)
        self._first, self._offset = segment.first, 0
        expected = segment.first
        offset = 0
        while True:  # by headers alone; where one of them lies, the next reading finds no block, and searches
            header = block.read_header(self._file.pread(block.PAGE_BYTES, offset), segment.log)
            if header is None or header.first_seq != expected:
                return True
            self._offset, expected = offset, header.next_seq
            if header.first_seq >= self._read.seq:
                return True
            offset += header.disk_bytes
            if expected == self._read.seq:
                self._offset = offset

    def _blocks(self, limit: int, bytes_max: int) -> Iterator[Block]:
        """Blocks from ``_read`` on, from one reading of the file; at least one."""
        if self._file is None and not self._open():
            own = [s for s in files.segments(self.disk, self.folder) if s.log == self._read.log]
            yield self._damage(min([*(s.first for s in own if s.first > self._read.seq), limit]))
            return
        assert self._file is not None
        length = min(CHUNK_BYTES, max(bytes_max, block.PAGE_BYTES))
        data = memoryview(self._file.pread(length, self._offset))
        header = block.read_header(data, self._read.log)
        if header is not None and header.disk_bytes > len(data):
            data = memoryview(self._file.pread(header.disk_bytes, self._offset))
        at = 0
        while self._read.seq < limit:
            header = block.read_header(data[at:], self._read.log)
            if header is None or header.first_seq != self._read.seq or header.next_seq > limit:
                break
            whole = data[at : at + header.disk_bytes]
            if len(whole) < block.HEADER_BYTES + header.payload_bytes:
                break
            if not block.hash_agrees(whole, self.secret):
                break
            at += header.disk_bytes
            self._offset += header.disk_bytes
            self._closed = header.closed
            payload = whole[block.HEADER_BYTES : block.HEADER_BYTES + header.payload_bytes]
            yield Block(self.writer, header, payload)
        if at == 0 and self._read.seq < limit:
            yield from self._around(limit)

    def _around(self, limit: int) -> Iterator[Block]:
        """The expected block is not here: it begins the next segment, or it is damaged; or the segment was given back
        while we had it open, and its file holds later blocks of the same log by now."""
        own = [s for s in files.segments(self.disk, self.folder) if s.log == self._read.log]
        if not any(s.first == self._first for s in own):
            self._close_file()
            return
        if any(s.first == self._read.seq != self._first for s in own):
            self._close_file()
            return
        assert self._file is not None
        again = block_at(self._file, self._offset, self._read.log, self.secret)
        if again is not None and again[0].first_seq == self._read.seq and again[0].next_seq <= limit:
            return  # whole after all: it was being written while we read
        log, seq = (
            self._read
        )  # from the beginning: a wrong length in a header may have led beyond the next block
        for offset, header, _ in later_blocks(self._file, 0, log, seq, self.secret):
            self._offset = offset
            if header.first_seq > self._read.seq:
                yield self._damage(min(header.first_seq, limit))
            return
        after = [s.first for s in own if s.first > self._read.seq]
        self._close_file()
        yield self._damage(min([*after, limit]))

    def _damage(self, until: int) -> Block:
        """A stretch that cannot be read; it counts as closed with the block before it, so it holds up no cut."""
        events = until - self._read.seq
        start, boot_ns = self._closed
        return Block(
            self.writer,
            block.Header(0, 0, 0, self._read.log, self._read.seq, events, start, 0, boot_ns),
            None,
        )
