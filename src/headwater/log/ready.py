"""The ready log: commits of one processor, in blocks of a log that only it writes (protocol.md §4, §17.1).

Each block is synced by itself and counts one in the sequence; the last of a commit carries END_OF_COMMIT. What has no
end is nothing: a reader drops it when the log ends there. A commit is visible only when its last block is durable
(INV-PROC-1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headwater.event import commit
from headwater.event.commit import Commit
from headwater.event.position import ZERO, Position, WriterId
from headwater.kit.disk import Disk
from headwater.log.block import BEGIN_OF_COMMIT, BLOCK_BYTES_MAX, END_OF_COMMIT, HEADER_BYTES
from headwater.log.read import LogReader
from headwater.log.write import BlockWriter

PART_BYTES = BLOCK_BYTES_MAX - HEADER_BYTES
EVERYTHING = (1 << 63, 1 << 63)


class ReadyWriter:
    """Appends commits."""

    def __init__(self, blocks: BlockWriter) -> None:
        self.blocks = blocks

    def append(self, entry: Commit) -> Position:
        """Durable, whole, on return; the position after it. Errors as BlockWriter.write: then it is not there.

        After Busy it may be tried again: the blocks that were written have no end, and are nothing.
        """
        position = ZERO
        payloads = list(cut_to_size(commit.encode(entry), PART_BYTES))
        for number, parts in enumerate(payloads, 1):
            flags = (BEGIN_OF_COMMIT if number == 1 else 0) | (
                END_OF_COMMIT if number == len(payloads) else 0
            )
            position = self.blocks.write(*parts, records=1, events=1, flags=flags)
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

    def __init__(self, disk: Disk, folder: str, writer: WriterId, at: Position = ZERO) -> None:
        self.log = LogReader(disk, folder, writer, at)
        self.parts: list[memoryview] = []
        self.part_log = 0

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
