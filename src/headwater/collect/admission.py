"""Admissions: a key under a plan, and the encoded heads of its records.

Records of one head share one encoded head. Heads of one shape (heads.py) differ in the values of a few headers, so the
encoded head of a shape is made once, with holes, and filled for each head: an encoded text of up to 255 ASCII
characters is a prefix and the bytes themselves. What is longer or not ASCII is encoded whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from headwater.collect.heads import Entry, Shape
from headwater.collect.keys import Key
from headwater.collect.replies import Template
from headwater.event import record
from headwater.event.record import MEMORY

BEYOND = ("replicated", "delivered")
"""Levels at which more is waited for than this disk (owed.py)."""
TEXT_MAX = 2048
"""Characters of a header value that go into a record's head."""
RECORDS_MAX = 256
"""Encoded heads that an admission remembers by their values, about 1 KB each."""
LENGTH_BYTES = 4
SHORT_MAX = 255
PREFIXES = [
    msgspec.msgpack.encode("x" * length)[:-length] if length else b"\xa0" for length in range(SHORT_MAX + 1)
]


class Plan(Protocol):
    """What an admission needs of a plan (plan.py)."""

    @property
    def dialect(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def private(self) -> bool: ...
    @property
    def https(self) -> bool: ...


class Admission:
    """A key under a plan: how its records are stamped and its requests answered."""

    __slots__ = (
        "ack",
        "beyond",
        "drop",
        "flags",
        "key",
        "lines",
        "plan",
        "policy",
        "quota",
        "records",
        "stream",
        "template",
        "waits",
    )

    def __init__(self, plan: Plan, key: Key, lines: str) -> None:
        self.plan = plan
        self.key = key
        self.stream = key.id
        self.lines = lines
        self.quota = key.quota
        self.ack = key.ack
        self.waits = key.ack != "memory"
        self.beyond = key.ack in BEYOND
        self.flags = 0 if self.waits else MEMORY
        self.policy = "none" if plan.private and key.privacy == "anonymise" else key.address_policy
        self.drop = plan.private and key.privacy == "drop"
        self.template: Template | None = None
        self.records: dict[tuple[tuple[str, bytes], ...], bytes] = {}

    def record(self, entry: Entry[Any]) -> bytes:
        """The encoded head of records that come with this head."""
        if entry.record_of is not self:
            entry.record = self.by_shape(entry) if entry.shape.lasting else self.by_value(entry.kept)
            entry.record_of = self
        return entry.record

    def by_shape(self, entry: Entry[Any]) -> bytes:
        """For one of many heads of a shape."""
        shape = entry.shape
        description: Description = shape.record if shape.record_of is self else self.describe(shape)
        return description.fill(entry.values) or self.encode(entry.kept)

    def by_value(self, kept: Mapping[str, bytes]) -> bytes:
        """For a head that is like no other."""
        ident = tuple(kept.items())
        found = self.records.get(ident)
        if found is None:
            found = self.encode(kept)
            if len(self.records) >= RECORDS_MAX:
                self.records.clear()
            self.records[ident] = found
        return found

    def describe(self, shape: Shape[Any]) -> Description:
        """The encoded head of a shape, with its holes."""
        marks = {name: f"\1{at}\1".encode() for name, at in shape.holes}
        encoded = self.encode({**shape.kept, **marks})
        order = sorted(shape.holes, key=lambda hole: encoded.index(marks[hole[0]]))
        pieces: list[bytes] = []
        rest = encoded[LENGTH_BYTES:]
        for name, _ in order:
            mark = marks[name]
            piece, _, rest = rest.partition(PREFIXES[len(mark)] + mark)
            pieces.append(piece)
        shape.record = description = Description(pieces, [at for _, at in order], rest)
        shape.record_of = self
        return description

    def encode(self, kept: Mapping[str, bytes], refusal: str = "") -> bytes:
        """A record's head: what later stages read, nothing secret."""
        plan = self.plan
        headers = {name: text(value)[:TEXT_MAX] for name, value in kept.items()}
        if plan.origin:
            headers["origin"] = plan.origin[:TEXT_MAX]
        return record.encode_head(
            record.Head(
                self.stream,
                plan.dialect,
                plan.method,
                plan.path,
                plan.query,
                plan.content_type[:TEXT_MAX],
                headers,
                plan.https,
                refusal,
            )
        )


class Description:
    """An encoded head with holes: ``pieces[i]`` stands before the value at ``holes[i]``, ``rest`` behind the last."""

    __slots__ = ("filled", "holes", "pieces", "rest")

    def __init__(self, pieces: Sequence[bytes], holes: Sequence[int], rest: bytes) -> None:
        self.pieces = pieces
        self.holes = holes
        self.rest = rest
        self.filled = prefixed(rest) if not holes else b""

    def fill(self, values: Sequence[bytes]) -> bytes | None:
        """The encoded head with these values; None when one of them is too long or not ASCII."""
        if self.filled:
            return self.filled
        parts: list[bytes] = []
        for piece, at in zip(self.pieces, self.holes, strict=True):
            value = values[at].strip()
            if len(value) > SHORT_MAX or not value.isascii():
                return None
            parts += (piece, PREFIXES[len(value)], value)
        parts.append(self.rest)
        return prefixed(b"".join(parts))


def prefixed(encoded: bytes) -> bytes:
    """As an encoded head stands in a payload (event/record.py)."""
    return len(encoded).to_bytes(LENGTH_BYTES, "little") + encoded


def text(value: bytes) -> str:
    """A header's value as text without spaces around it: UTF-8 where it is, else byte by byte."""
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()
