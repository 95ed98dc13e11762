"""The ready log: commits of one processor, in blocks of a log that only it writes (protocol.md §4, §17.1).

Each block is synced by itself and counts one in the sequence; the last of a commit carries END_OF_COMMIT. What has no
end is nothing: a reader drops it when the log ends there. A commit is visible only when its last block is durable
(INV-PROC-1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from headwater.event import commit
from headwater.event.commit import Commit
from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.disk import Disk
from headwater.kit.errors import Busy
from headwater.log.block import BEGIN_OF_COMMIT, BLOCK_BYTES_MAX, END_OF_COMMIT, HEADER_BYTES, Secret
from headwater.log.read import LogReader
from headwater.log.write import BlockWriter

PART_BYTES = BLOCK_BYTES_MAX - HEADER_BYTES
EVERYTHING = (1 << 63, 1 << 63)


class ReadyWriter:
    """Appends commits."""

    def __init__(self, blocks: BlockWriter) -> None:
        self.blocks = blocks
        self.begun: Commit | None = None
        """The commit of which some blocks may be written, and the last is not."""
        self.waiting = False
        self.left: deque[tuple[list[memoryview], int]] = deque()

    @property
    def halfway(self) -> bool:
        """Whether blocks of a commit wait for room for its end: nothing can be given back until it has one."""
        return self.waiting

    def append(self, entry: Commit) -> Position:
        """Durable, whole, on return; the position after it. Errors as BlockWriter.write: then it is not there.

        After Busy it goes on where it stopped when it is called with the same commit; begun anew each time, a
        commit that is larger than the room would fill all of it with beginnings.
        """
        if self.begun is not entry:
            payloads = list(cut_to_size(commit.encode(entry), PART_BYTES))
            flags = [0] * len(payloads)
            flags[0] |= BEGIN_OF_COMMIT
            flags[-1] |= END_OF_COMMIT
            self.begun, self.left = entry, deque(zip(payloads, flags, strict=True))
        position = ZERO
        while self.left:
            parts, flag = self.left[0]
            try:
                position = self.blocks.write(*parts, records=1, events=1, flags=flag)
            except Busy:
                self.waiting = not flag & BEGIN_OF_COMMIT
                raise
            self.waiting = False
            self.left.popleft()
        self.begun = None
        return position


def cut_to_size(parts: Sequence[bytes | memoryview], size: int) -> Iterator[list[memoryview]]:
    """The same bytes as payloads of at most ``size`` bytes, without a copy."""
    payload: list[memoryview] = []
    room = size
    for part in parts:
        rest = memoryview(part)
        while len(rest) > room:
            yield [*payload, rest[:room]]
            payload, rest, room = [], rest[room:], size
        payload.append(rest)
        room -= len(rest)
    yield payload


class ReadyReader:
    """Reads commits in order; a partial one is waited for, or dropped where its log ended."""

    waits = False
    """It keeps nothing back."""

    def __init__(
        self, disk: Disk, folder: str, writer: WriterId, at: Position = ZERO, *, secret: Secret
    ) -> None:
        self.log = LogReader(disk, folder, writer, at, secret=secret)
        self.parts: list[memoryview] = []
        self.part_log = 0
        self.damaged = False
        """Whether a block could not be read: the commits behind it may not go on where those before it ended."""

    def read(self, bytes_max: int) -> list[tuple[Commit, Position]]:
        """The next durable commits, about ``bytes_max`` bytes of them, each with the position after it."""
        found: list[tuple[Commit, Position]] = []
        size = 0
        while size < bytes_max:
            self.log.fill(BLOCK_BYTES_MAX)
            blocks = self.log.take(EVERYTHING)
            if not blocks:
                break
            for block in blocks:
                flags = block.header.flags
                if block.payload is None or flags & BEGIN_OF_COMMIT or block.header.log_id != self.part_log:
                    self.parts = []
                    self.part_log = block.header.log_id
                self.damaged |= block.payload is None
                if block.payload is None or not (self.parts or flags & BEGIN_OF_COMMIT):
                    continue  # damaged, or the rest of a commit whose beginning was
                self.parts.append(block.payload)
                size += len(block.payload)
                if flags & END_OF_COMMIT:
                    data = self.parts[0] if len(self.parts) == 1 else memoryview(b"".join(self.parts))
                    found.append((commit.decode(data), block.after))
                    self.parts = []
        return found

    def close(self) -> None:
        """Release the files."""
        self.log.close()
