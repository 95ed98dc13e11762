"""The bytes of a compressed segment, and reading them by the offsets of the plain one.

::

    head | index | frames | index | head                                        (little endian)
    head:  magic HWZ1, version u8, 3 zeros, frame_bytes u32 | log_id u64 | first_seq u64 | plain_bytes u64
           | frames_at u32, frames u32 | hash u64                                (48 bytes)
    index: of each frame, hash u64, length u32                                  (12 bytes each)

A frame is one zstd frame and holds the next ``frame_bytes`` of the plain segment, the last one what is left; the bytes
behind the last block are left out. Frames follow each other, so their lengths say where they are. Hashes are xxh3_64,
seeded with the secret of the data folder: of a frame as it lies there, and of the head with hash 0 and the index.

Head and index stand twice, since all frames hang on them: one damaged byte, wherever it is, costs one frame at most,
which reads as zeros and so as missing blocks. A frame whose hash does not agree is never decompressed. Nothing here
needs to be believed: blocks carry their own hashes (log/block).
"""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import NamedTuple

import zstandard
from xxhash import xxh3_64_intdigest

from headwater.kit.disk import ALIGNMENT, Disk
from headwater.log.block import Secret

MAGIC = b"HWZ1"
VERSION = 1
HEAD = struct.Struct("<4sB3xIQQQIIQ")
HASH_BYTES = 8
ENTRY = struct.Struct("<QI")
FRAME_BYTES = 1024 * 1024
FRAME_BYTES_MAX = 4 * 1024 * 1024
"""A head that claims more is not believed."""


class Frame(NamedTuple):
    """An entry of the index."""

    hash: int
    length: int


class Index(NamedTuple):
    """What head and index say."""

    frame_bytes: int
    log: int
    first: int
    plain_bytes: int
    frames_at: int
    frames: list[Frame]


def index_bytes(frames: int) -> int:
    """What a head and an index of so many frames take."""
    return HEAD.size + frames * ENTRY.size


def frames_of(plain_bytes: int, frame_bytes: int) -> int:
    """How many frames hold so many bytes."""
    return -(-plain_bytes // frame_bytes)


def encode(index: Index, secret: Secret) -> tuple[bytes, bytes]:
    """Head and index."""
    fields = (MAGIC, VERSION, index.frame_bytes, index.log, index.first, index.plain_bytes, index.frames_at)
    entries = b"".join(ENTRY.pack(*frame) for frame in index.frames)
    blank = HEAD.pack(*fields, len(index.frames), 0)
    return HEAD.pack(*fields, len(index.frames), xxh3_64_intdigest(blank + entries, secret)), entries


def frame_count(head: bytes) -> int | None:
    """How many frames a head claims; None where it is no head of this version."""
    if len(head) != HEAD.size:
        return None
    magic, version, *_, frames, _ = HEAD.unpack(head)
    return int(frames) if magic == MAGIC and version == VERSION else None


def decode(head: bytes, entries: bytes, secret: Secret) -> Index | None:
    """What head and index say; None where they cannot be believed."""
    _, _, frame_bytes, log, first, plain_bytes, frames_at, frames, told = HEAD.unpack(head)
    if told != xxh3_64_intdigest(head[:-HASH_BYTES] + bytes(HASH_BYTES) + entries, secret):
        return None
    if not 0 < frame_bytes <= FRAME_BYTES_MAX or frames != frames_of(plain_bytes, frame_bytes):
        return None
    return Index(
        frame_bytes, log, first, plain_bytes, frames_at, [Frame(*one) for one in ENTRY.iter_unpack(entries)]
    )


def hash_of(frame: bytes, secret: Secret) -> int:
    """The hash of a frame as it lies on disk."""
    return xxh3_64_intdigest(frame, secret)


class CompressedFile:
    """An open compressed segment (log/segment.SegmentFile). Keeps one frame; owns its descriptor."""

    def __init__(self, disk: Disk, file: int, log: int, first: int, secret: Secret) -> None:
        self.disk = disk
        self.file = file
        self.secret = secret
        self.disk_bytes = disk.size(file)
        self.problems: list[str] = []
        """What is wrong with the file itself, in words."""
        self.index = self._read_index(log, first)
        ends = accumulate((frame.length for frame in self.index.frames), initial=self.index.frames_at)
        self.offsets = list(ends)
        self.decompressor = zstandard.ZstdDecompressor()
        self.kept: tuple[int, bytes] = (-1, b"")

    def size(self) -> int:
        """The bytes of the plain segment up to the end of its last block."""
        return self.index.plain_bytes

    def pread(self, length: int, offset: int) -> bytes:
        """As of the plain segment; zeros where a frame cannot be believed."""
        until = min(offset + length, self.index.plain_bytes)
        parts = []
        while offset < until:
            number, start = divmod(offset, self.index.frame_bytes)
            part = self._frame(number)[start : start + until - offset]
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Release the file."""
        self.disk.close(self.file)
        self.kept = (-1, b"")

    def _frame(self, number: int) -> bytes:
        if self.kept[0] != number:
            self.kept = (number, self._decompressed(number))
        return self.kept[1]

    def _decompressed(self, number: int) -> bytes:
        index, frame = self.index, self.index.frames[number]
        length = min(index.frame_bytes, index.plain_bytes - number * index.frame_bytes)
        data = self._read(frame.length, self.offsets[number])
        if hash_of(data, self.secret) != frame.hash:
            return bytes(length)
        try:
            content = self.decompressor.decompress(data, max_output_size=length)
        except zstandard.ZstdError:
            return bytes(length)
        return content if len(content) == length else bytes(length)

    def _read_index(self, log: int, first: int) -> Index:
        """From either end of the file; one without frames where neither can be believed."""
        front = self._index_at_front()
        back = self._index_at_back()
        for name, one in (("first", front), ("second", back)):
            if one is None or (one.log, one.first) != (log, first):
                self.problems.append(f"the {name} index of the compressed file is damaged")
        for one in (front, back):
            if one is not None and (one.log, one.first) == (log, first):
                return one
        return Index(FRAME_BYTES, log, first, 0, 0, [])

    def _index_at_front(self) -> Index | None:
        head = self._read(HEAD.size, 0)
        length = self._index_length(head)
        return None if length is None else decode(head, self._read(length, HEAD.size), self.secret)

    def _index_at_back(self) -> Index | None:
        head_at = max(0, self.disk_bytes - HEAD.size)
        head = self._read(HEAD.size, head_at)
        length = self._index_length(head)
        return None if length is None else decode(head, self._read(length, head_at - length), self.secret)

    def _index_length(self, head: bytes) -> int | None:
        """None: the head is none, or claims more than the file holds."""
        frames = frame_count(head)
        if frames is None or index_bytes(frames) > self.disk_bytes:
            return None
        return frames * ENTRY.size

    def _read(self, length: int, offset: int) -> bytes:
        """From any offset, also of a file that is read past the cache, which wants whole pages."""
        begin = offset // ALIGNMENT * ALIGNMENT
        end = -(-(offset + length) // ALIGNMENT) * ALIGNMENT
        return self.disk.pread(self.file, end - begin, begin)[offset - begin :][:length]
