"""Blocks: the unit that is written, synced and believed (protocol.md §2).

::

    magic HWB1, version u8, flags u8, header_bytes u16 | payload_bytes u32, records u32 | log_id u64 | first_seq u64
    | events u32, start u32 | node_time_ns u64 | boot_ns u64 | hash u64            (64 bytes, little endian)
    payload | zeros to the next multiple of 4,096

The hash is xxh3_64 of the header with hash 0 and the payload, seeded with the secret of the data folder: bodies are
what strangers sent, and where a header cannot be read, the next block is looked for on every page, inside bodies too.
Nobody who does not know the secret can make bytes that pass for a block (docs/decisions/0001). A block belongs to a
log only when magic, hash, log id and the expected first sequence number agree (INV-LOG-3): stale blocks of a recycled
file never do. Blocks begin on 4 KiB, so a page that holds acknowledged bytes is never written again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType

from xxhash import xxh3_64

MAGIC = b"HWB1"
VERSION = 2
HEADER = struct.Struct("<4sBBHIIQQIIQQQ")
HEADER_BYTES = HEADER.size
PAGE_BYTES = 4096
BLOCK_BYTES_MAX = 4 * 1024 * 1024

Secret = NewType("Secret", int)
"""u64 made with the data folder and known to its owner only; the seed of every hash."""

END_OF_COMMIT = 1  # flag in the ready log: the last block of a commit (protocol.md §17.1)
BEGIN_OF_COMMIT = 2  # the first one; what stood before it without an end is nothing


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header, already believed."""

    flags: int
    payload_bytes: int
    records: int
    log_id: int
    first_seq: int
    events: int
    start: int
    """Which start of the node wrote it; boot times are compared within one start only."""
    node_time_ns: int
    boot_ns: int

    @property
    def closed(self) -> tuple[int, int]:
        """When the block was closed, in the order of all blocks of a node."""
        return self.start, self.boot_ns

    @property
    def next_seq(self) -> int:
        """The first sequence number after this block."""
        return self.first_seq + self.events

    @property
    def disk_bytes(self) -> int:
        """What the block takes on disk, padding counted."""
        return padded(HEADER_BYTES + self.payload_bytes)


def padded(length: int) -> int:
    """``length`` rounded up to whole pages."""
    return -(-length // PAGE_BYTES) * PAGE_BYTES


def encode(
    parts: Sequence[bytes | memoryview],
    *,
    secret: Secret,
    log_id: int,
    first_seq: int,
    events: int,
    records: int,
    node_time_ns: int,
    boot_ns: int,
    start: int = 0,
    flags: int = 0,
) -> bytes:
    """A whole block, padded, from the parts of its payload; ValueError where it would exceed BLOCK_BYTES_MAX."""
    payload_bytes = sum(map(len, parts))
    if HEADER_BYTES + payload_bytes > BLOCK_BYTES_MAX:  # no reader would take it for a block
        raise ValueError(f"a block of {payload_bytes} bytes is too large")
    fields = (
        MAGIC,
        VERSION,
        flags,
        HEADER_BYTES,
        payload_bytes,
        records,
        log_id,
        first_seq,
        events,
        start,
        node_time_ns,
        boot_ns,
    )
    digest = xxh3_64(HEADER.pack(*fields, 0), seed=secret)
    for part in parts:
        digest.update(part)
    length = HEADER_BYTES + payload_bytes
    padding = bytes(padded(length) - length)
    return b"".join((HEADER.pack(*fields, digest.intdigest()), *parts, padding))


def read_header(data: bytes | memoryview, log_id: int) -> Header | None:
    """The header at the start of ``data`` if it claims to be a block of this log; its hash is not yet checked."""
    if len(data) < HEADER_BYTES:
        return None
    (
        magic,
        version,
        flags,
        header_bytes,
        payload_bytes,
        records,
        log,
        first_seq,
        events,
        start,
        node_time_ns,
        boot_ns,
        _,
    ) = HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION or header_bytes != HEADER_BYTES or log != log_id:
        return None
    if payload_bytes > BLOCK_BYTES_MAX - HEADER_BYTES:
        return None
    return Header(flags, payload_bytes, records, log, first_seq, events, start, node_time_ns, boot_ns)


def hash_agrees(data: bytes | memoryview, secret: Secret) -> bool:
    """Whether a block's hash is right; False where ``data`` does not hold it whole (the file was being cut off)."""
    if len(data) < HEADER_BYTES:
        return False
    fields = HEADER.unpack_from(data)
    payload_bytes = fields[4]
    if len(data) < HEADER_BYTES + payload_bytes:
        return False
    digest = xxh3_64(HEADER.pack(*fields[:-1], 0), seed=secret)
    digest.update(data[HEADER_BYTES : HEADER_BYTES + payload_bytes])
    return bool(digest.intdigest() == fields[-1])
