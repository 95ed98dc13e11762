"""Positions and vectors (protocol.md §1): where a reader stands in the logs of all writers.

A *position* is (log id, next sequence number of an event); a *vector* maps each writer to a position and has
one entry for the clock. Missing is zero. The encoding is canonical, so equal vectors are equal bytes
(protocol.md §17.19) and a destination can compare them as one value::

    version u8 = 1 | entries, sorted: kind u8 (0 writer, 2 clock), id u64, high u64, low u64   (big endian)

Kind 1 is kept for Kafka topic-partitions. A vector entry is 25 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NewType

from headwater.kit.errors import Broken, Rejected

WriterId = NewType("WriterId", int)
"""u64: the random id of the data folder with its low 16 bits replaced by the worker's number."""

ENTRY = struct.Struct(">BQQQ")
VERSION = b"\x01"
WRITER, CLOCK = 0, 2


class Position(NamedTuple):
    """Everything of one writer below (log, seq) is covered. Compared in that order."""

    log: int
    seq: int


ZERO = Position(0, 0)


def writer_id(folder_id: int, worker: int) -> WriterId:
    """The writer of one worker of one data folder."""
    return WriterId((folder_id & ~0xFFFF) | worker)


class Vector(Mapping[WriterId, Position]):
    """An immutable vector. ``vector[writer]`` is ZERO where nothing is known; iteration gives known writers."""

    __slots__ = ("clock", "entries")

    def __init__(self, entries: Mapping[WriterId, Position] | None = None, clock: int = 0) -> None:
        self.entries = {w: Position(*p) for w, p in sorted((entries or {}).items()) if tuple(p) != (0, 0)}
        self.clock = clock

    def __getitem__(self, writer: WriterId) -> Position:
        return self.entries.get(writer, ZERO)

    def __iter__(self) -> Iterator[WriterId]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, writer: object) -> bool:
        return writer in self.entries

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self.entries == other.entries and self.clock == other.clock

    def __hash__(self) -> int:
        return hash(self.encode())

    def __repr__(self) -> str:
        entries = ", ".join(f"{w:016x}:{p.log:x}.{p.seq}" for w, p in self.entries.items())
        return f"Vector({entries}, clock={self.clock})"

    def __le__(self, other: Vector) -> bool:
        """Entry by entry; not a total order."""
        return self.clock <= other.clock and all(p <= other[w] for w, p in self.entries.items())

    def join(self, other: Vector) -> Vector:
        """The least vector that is at or above both."""
        writers = {*self.entries, *other.entries}
        return Vector({w: max(self[w], other[w]) for w in writers}, max(self.clock, other.clock))

    def meet(self, other: Vector) -> Vector:
        """The greatest vector that is at or below both."""
        writers = {*self.entries, *other.entries}
        return Vector({w: min(self[w], other[w]) for w in writers}, min(self.clock, other.clock))

    def encode(self) -> bytes:
        """Canonical bytes: sorted, zeros left out."""
        parts = [VERSION]
        parts += [ENTRY.pack(WRITER, w, p.log, p.seq) for w, p in self.entries.items()]
        if self.clock:
            parts.append(ENTRY.pack(CLOCK, 0, self.clock, 0))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Vector:
        """From ``encode``; Broken where the bytes are not a vector of this version."""
        if data[:1] != VERSION or (len(data) - 1) % ENTRY.size:
            raise Broken(f"not a vector of version 1: {data[:32].hex()}", code="vector_format")
        entries: dict[WriterId, Position] = {}
        clock = 0
        for kind, ident, high, low in ENTRY.iter_unpack(data[1:]):
            if kind == WRITER:
                entries[WriterId(ident)] = Position(high, low)
            elif kind == CLOCK:
                clock = high
            else:
                raise Broken(f"vector entry of unknown kind {kind}", code="vector_format")
        return cls(entries, clock)


EMPTY = Vector()


class Receipt(NamedTuple):
    """What an acknowledged request gets back: everything of ``writer`` below (log, seq) covers it."""

    writer: WriterId
    log: int
    seq: int

    def __str__(self) -> str:
        return f"{self.writer:016x}-{self.log:016x}-{self.seq}"

    def covered_by(self, vector: Vector) -> bool:
        """True when a reader at ``vector`` has passed all events of the request."""
        return vector[self.writer] >= (self.log, self.seq)

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """From text; Rejected where it is no receipt."""
        parts = text.strip().split("-")
        try:
            writer, log, seq = parts
            if len(writer) != 16 or len(log) != 16:
                raise ValueError
            return cls(WriterId(int(writer, 16)), int(log, 16), int(seq))
        except ValueError:
            raise Rejected(
                f"not a receipt: {text[:80]!r}",
                code="receipt_format",
                help="expected <writer: 16 hex digits>-<log: 16 hex digits>-<seq>, as the collector's reply gives it",
            ) from None
