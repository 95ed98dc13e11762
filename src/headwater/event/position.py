"""Positions and vectors (protocol.md §1): where a reader stands in the logs of all writers.

A *position* is (log id, next sequence number of an event); a *vector* maps each writer to a position and has
one entry for the clock. Missing is zero. The encoding is canonical, so equal vectors are equal bytes
(protocol.md §17.19) and a destination can compare them as one value::

    version u8 = 1 | entries, sorted: kind u8 (0 writer, 1 Kafka, 2 clock), id u64, high u64, low u64   (big endian)

Kind 1 is the offset in a partition of a Kafka topic (protocol.md §8): id of topic and partition, id of the topic's
making, next offset. A topic that was deleted and made again has another id, and offsets of the two say nothing
about each other: they are not ``<=`` either way, and cannot be joined. A vector entry is 25 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NewType

import xxhash

from headwater.kit.errors import Broken, Misconfigured, Rejected

WriterId = NewType("WriterId", int)
"""u64: the random id of the data folder with its low 16 bits replaced by the worker's number."""

ENTRY = struct.Struct(">BQQQ")
VERSION = b"\x01"
WRITER, KAFKA, CLOCK = 0, 1, 2

KafkaId = NewType("KafkaId", int)
"""u64: the hash of a topic's name with its low 16 bits replaced by the partition's number."""


class Position(NamedTuple):
    """Everything of one writer below (log, seq) is covered. Compared in that order."""

    log: int
    seq: int


ZERO = Position(0, 0)


def writer_id(folder_id: int, worker: int) -> WriterId:
    """The writer of one worker of one data folder."""
    return WriterId((folder_id & ~0xFFFF) | worker)


class KafkaPosition(NamedTuple):
    """Everything of a topic's partition below ``offset`` is covered, as of the topic made under ``topic_id`` (u64)."""

    topic_id: int
    offset: int

    def upto(self, other: KafkaPosition) -> bool:
        """Whether the other one covers this one. At offset 0 nothing is covered, whatever the topic."""
        return not self.offset or (self.topic_id == other.topic_id and self.offset <= other.offset)


KAFKA_ZERO = KafkaPosition(0, 0)


def kafka_id(topic: str, partition: int) -> KafkaId:
    """The entry of a topic's partition in a vector."""
    if not 0 <= partition <= 0xFFFF:
        raise ValueError(f"partition: expected 0 to 65535, got {partition}")
    return KafkaId(xxhash.xxh3_64_intdigest(topic.encode()) & ~0xFFFF | partition)


class Vector(Mapping[WriterId, Position]):
    """An immutable vector. ``vector[writer]`` is ZERO where nothing is known; iteration gives known writers."""

    __slots__ = ("clock", "entries", "kafka")

    def __init__(
        self,
        entries: Mapping[WriterId, Position] | None = None,
        clock: int = 0,
        kafka: Mapping[KafkaId, KafkaPosition] | None = None,
    ) -> None:
        self.entries = {w: Position(*p) for w, p in sorted((entries or {}).items()) if tuple(p) != (0, 0)}
        self.clock = clock
        self.kafka = {ident: KafkaPosition(*at) for ident, at in sorted((kafka or {}).items()) if at[1]}

    def __getitem__(self, writer: WriterId) -> Position:
        return self.entries.get(writer, ZERO)

    def __iter__(self) -> Iterator[WriterId]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, writer: object) -> bool:
        return writer in self.entries

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Vector)
            and self.entries == other.entries
            and self.clock == other.clock
            and self.kafka == other.kafka
        )

    def __hash__(self) -> int:
        return hash(self.encode())

    def __repr__(self) -> str:
        entries = ", ".join(f"{w:016x}:{p.log:x}.{p.seq}" for w, p in self.entries.items())
        kafka = "".join(f", kafka {i:016x}:{at.topic_id:x}.{at.offset}" for i, at in self.kafka.items())
        return f"Vector({entries}{kafka}, clock={self.clock})"

    def __le__(self, other: Vector) -> bool:
        """Entry by entry; not a total order."""
        return (
            self.clock <= other.clock
            and all(p <= other[w] for w, p in self.entries.items())
            and all(at.upto(other.kafka.get(i, KAFKA_ZERO)) for i, at in self.kafka.items())
        )

    def join(self, other: Vector) -> Vector:
        """The least vector that is at or above both. Misconfigured: a Kafka topic was made again between them."""
        writers = {*self.entries, *other.entries}
        kafka = {i: max(pair, key=offset_of) for i, pair in self.kafka_pairs(other)}
        return Vector({w: max(self[w], other[w]) for w in writers}, max(self.clock, other.clock), kafka)

    def meet(self, other: Vector) -> Vector:
        """The greatest vector that is at or below both. Misconfigured as in ``join``."""
        writers = {*self.entries, *other.entries}
        kafka = {i: min(pair, key=offset_of) for i, pair in self.kafka_pairs(other)}
        return Vector({w: min(self[w], other[w]) for w in writers}, min(self.clock, other.clock), kafka)

    def kafka_pairs(self, other: Vector) -> Iterator[tuple[KafkaId, tuple[KafkaPosition, KafkaPosition]]]:
        """Both offsets of each partition that one of the two knows."""
        for ident in {*self.kafka, *other.kafka}:
            mine, theirs = self.kafka.get(ident, KAFKA_ZERO), other.kafka.get(ident, KAFKA_ZERO)
            if mine.offset and theirs.offset and mine.topic_id != theirs.topic_id:
                raise Misconfigured(
                    f"a Kafka topic was deleted and made again: {mine.topic_id:x} and {theirs.topic_id:x}"
                    f" are both known as {ident:016x}",
                    code="kafka_topic_replaced",
                    help="offsets of the two say nothing about each other; give the new topic another name",
                )
            yield ident, (mine, theirs)

    def encode(self) -> bytes:
        """Canonical bytes: sorted, zeros left out."""
        parts = [VERSION]
        parts += [ENTRY.pack(WRITER, w, p.log, p.seq) for w, p in self.entries.items()]
        parts += [ENTRY.pack(KAFKA, i, at.topic_id, at.offset) for i, at in self.kafka.items()]
        if self.clock:
            parts.append(ENTRY.pack(CLOCK, 0, self.clock, 0))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Vector:
        """From ``encode``; Broken where the bytes are not a vector of this version."""
        if data[:1] != VERSION or (len(data) - 1) % ENTRY.size:
            raise Broken(f"not a vector of version 1: {data[:32].hex()}", code="vector_format")
        entries: dict[WriterId, Position] = {}
        kafka: dict[KafkaId, KafkaPosition] = {}
        clock = 0
        for kind, ident, high, low in ENTRY.iter_unpack(data[1:]):
            if kind == WRITER:
                entries[WriterId(ident)] = Position(high, low)
            elif kind == KAFKA:
                kafka[KafkaId(ident)] = KafkaPosition(high, low)
            elif kind == CLOCK:
                clock = high
            else:
                raise Broken(f"vector entry of unknown kind {kind}", code="vector_format")
        return cls(entries, clock, kafka)


def offset_of(position: KafkaPosition) -> int:
    return position.offset


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
