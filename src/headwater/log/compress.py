"""Compressing segments that nobody writes any more, beside those who read them (protocol.md §2 Retention).

Two processes share the work, so that none of it can race with retention. The *upkeep* process makes files that
nobody reads: it checks every block of the plain segment, writes the compressed one as ``compress.tmp``, syncs it, reads
it back past the cache, compares all bytes, and only then gives it the name ``….segz.new``. The *supervisor*, which
retires segments, puts it in its place (``switch``): rename to ``….segz``, sync of the folder, and only then the plain
file goes. So at any moment, after any crash, at least one whole form is there under its name. The plain file is
unlinked and never recycled: whoever has it open reads on.

What is damaged, or would not become smaller, stays as it is. ``compress`` is a generator: each step works on about one
frame, so its caller decides how much of the machine it takes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator
from enum import Enum

import zstandard

from headwater.event.position import Position
from headwater.kit.disk import Disk
from headwater.log import compressed, files, retain
from headwater.log.block import Secret
from headwater.log.compressed import CompressedFile, Frame, Index
from headwater.log.files import Segment
from headwater.log.recover import block_at
from headwater.log.segment import PlainFile, SegmentFile

PLAIN_BYTES_MIN = 16 * 1024
"""Files take whole pages: of smaller ones nothing is won."""
WORTH = 0.9
"""A compressed segment takes at most this share of the plain one, or the plain one stays."""


class Outcome(Enum):
    """What became of a segment."""

    COMPRESSED = "compressed"
    """It waits to be put in its place."""
    DAMAGED = "damaged"
    """Blocks are missing or cannot be believed: it stays as it is, to be looked at."""
    NOT_SMALLER = "not smaller"
    DIFFERENT = "different"
    """What was read back is not what was written, or the plain file has changed."""


class Window:
    """Reads a plain file ahead, one frame at a time: a block is often a page, and nothing here goes into the cache."""

    def __init__(self, file: SegmentFile) -> None:
        self.file = file
        self.begin = 0
        self.data = b""
        self.disk_bytes = file.disk_bytes

    def pread(self, length: int, offset: int) -> bytes:
        if not self.begin <= offset <= offset + length <= self.begin + len(self.data):
            self.begin = offset
            self.data = self.file.pread(max(length, compressed.FRAME_BYTES), offset)
        return self.data[offset - self.begin :][:length]

    def size(self) -> int:
        return self.file.size()

    def close(self) -> None:
        self.file.close()


def candidates(disk: Disk, folder: str, below: Position) -> list[tuple[Segment, Position]]:
    """Plain segments of ended or later continued stretches, whole below ``below``, oldest first, each with the position
    after its last event. Those whose compressed form waits to be put in its place are left out."""
    waiting = {name for name in disk.listdir(folder) if name.endswith(files.FINISHED)}
    return [
        (segment, after)
        for segment, after in retain.ends(disk, folder)
        if after <= below
        and after.seq > segment.first
        and not segment.compressed
        and f"{segment.path}z.new".rpartition("/")[2] not in waiting
    ]


def compress(
    disk: Disk, folder: str, segment: Segment, after: Position, secret: Secret, level: int
) -> Generator[None, None, Outcome]:
    """Make the compressed form of a plain segment whose last event is before ``after``; yields after each frame.

    Nothing is changed for anybody until ``switch``. FileNotFoundError: the segment was retired. OSError: no room, or
    the disk failed; whatever happens, and also when the generator is closed early, no draft is left.
    """
    draft = f"{folder}/{files.DRAFT}"
    plain = PlainFile(disk, disk.open(segment.path, direct=True))
    try:
        used_bytes = yield from checked(Window(plain), segment, after.seq, secret)
        if used_bytes is None:
            return unless_retired(disk, segment, Outcome.DAMAGED)
        if used_bytes < PLAIN_BYTES_MIN:
            return Outcome.NOT_SMALLER
        size = yield from write(disk, draft, plain, used_bytes, segment, secret, level)
        if size > used_bytes * WORTH:
            return Outcome.NOT_SMALLER
        if not (yield from equal(disk, draft, plain, used_bytes, segment, secret)):
            return unless_retired(disk, segment, Outcome.DIFFERENT)
        disk.rename(draft, files.forms(segment)[1] + ".new")
        return Outcome.COMPRESSED
    finally:
        plain.close()
        remove_draft(disk, folder)


def unless_retired(disk: Disk, segment: Segment, outcome: Outcome) -> Outcome:
    """What is wrong with a segment. FileNotFoundError: it was retired meanwhile, and its file is written again under
    another name; so nothing is wrong with it."""
    if not disk.exists(segment.path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), segment.path)
    return outcome


def checked(
    file: SegmentFile, segment: Segment, next_seq: int, secret: Secret
) -> Generator[None, None, int | None]:
    """Where the last block ends, when every event up to ``next_seq`` is in a block that can be believed; else None."""
    offset, seq, rest = 0, segment.first, 0
    while seq < next_seq:
        found = block_at(file, offset, segment.log, secret)
        if found is None or found[0].first_seq != seq or found[0].next_seq > next_seq:
            return None
        offset, seq = offset + found[0].disk_bytes, found[0].next_seq
        if offset // compressed.FRAME_BYTES > rest:
            rest = offset // compressed.FRAME_BYTES
            yield
    return offset


def write(
    disk: Disk,
    draft: str,
    plain: SegmentFile,
    used_bytes: int,
    segment: Segment,
    secret: Secret,
    level: int,
) -> Generator[None, None, int]:
    """Write the compressed form; its size. Durable on return, but for its name."""
    compressor = zstandard.ZstdCompressor(level=level)
    count = compressed.frames_of(used_bytes, compressed.FRAME_BYTES)
    begin = offset = compressed.index_bytes(count)
    frames: list[Frame] = []
    file = disk.open(draft, write=True, create=True)
    try:
        disk.truncate(file, 0)
        for at in range(0, used_bytes, compressed.FRAME_BYTES):
            frame = compressor.compress(plain.pread(min(compressed.FRAME_BYTES, used_bytes - at), at))
            write_all(disk, file, draft, frame, offset)
            frames.append(Frame(compressed.hash_of(frame, secret), len(frame)))
            offset += len(frame)
            yield
        index = Index(compressed.FRAME_BYTES, segment.log, segment.first, used_bytes, begin, frames)
        head, entries = compressed.encode(index, secret)
        write_all(disk, file, draft, head + entries, 0)
        write_all(disk, file, draft, entries + head, offset)
        disk.sync(file)
    finally:
        disk.close(file)
    return offset + compressed.index_bytes(count)


def write_all(disk: Disk, file: int, path: str, data: bytes, offset: int) -> None:
    """OSError where not all of it was written."""
    written = disk.pwrite(file, data, offset)
    if written != len(data):
        raise OSError(errno.ENOSPC, f"short write: {written} of {len(data)} bytes", path)


def equal(
    disk: Disk, draft: str, plain: SegmentFile, used_bytes: int, segment: Segment, secret: Secret
) -> Generator[None, None, bool]:
    """Whether the draft, read past the cache, gives the bytes of the plain segment."""
    written = CompressedFile(disk, disk.open(draft, direct=True), segment.log, segment.first, secret)
    try:
        if written.problems or written.size() != used_bytes:
            return False
        for at in range(0, used_bytes, compressed.FRAME_BYTES):
            length = min(compressed.FRAME_BYTES, used_bytes - at)
            if written.pread(length, at) != plain.pread(length, at):
                return False
            yield
        return True
    finally:
        written.close()


def remove_draft(disk: Disk, folder: str) -> None:
    """Remove what was begun, by a process that is gone or by this one."""
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(f"{folder}/{files.DRAFT}")


def finished(disk: Disk, folder: str) -> bool:
    """Whether a compressed segment waits for its place."""
    return any(name.endswith(files.FINISHED) for name in disk.listdir(folder))


def switch(disk: Disk, folder: str) -> int:
    """Put what is finished in its place; how many. For whoever retires segments of this folder, in the same thread.

    Goes on where an earlier call was cut short. What was finished of a segment that is retired by now is removed.
    """
    count = 0
    for name in disk.listdir(folder):
        if name.endswith(files.FINISHED):
            target = f"{folder}/{name}".removesuffix(".new")
            if disk.exists(target.removesuffix("z")):
                disk.rename(f"{folder}/{name}", target)
                count += 1
            else:
                disk.unlink(f"{folder}/{name}")
    doubled = doubles(disk, folder)
    if doubled:
        disk.sync_dir(folder)  # the compressed names, and the name of the segment behind (log/retain.retire)
    for plain in doubled:
        disk.unlink(plain)
    return count


def doubles(disk: Disk, folder: str) -> list[str]:
    """Plain forms of segments whose compressed form has its name."""
    names = set(disk.listdir(folder))
    return [
        f"{folder}/{name}"
        for name in sorted(names)
        if files.SEGMENT.match(name) and name.endswith(files.PLAIN) and name + "z" in names
    ]
