"""Heads: what the request line and headers say, remembered by their bytes.

llhttp reads a head strictly (parse.py). Reading costs as much as everything else that is done with a request, and
clients repeat themselves, so there are two memories before it:

1. **The whole head.** A client repeats its head with every request but for the digits of Content-Length. Those are cut
   out; what is left is looked up: a search, two slices, one look-up.
2. **Its shape.** Browsers of one kind send the same lines in the same order, and differ in the values of a few headers
   that decide nothing (VARYING). Those are cut out by one regular expression; what is left is looked up.

Why that is safe. The digits are cut behind the first `ength: ` of the head, the same place with and without them, so
the rest determines it; what is cut is digits alone; and a head is remembered only when llhttp found its one
Content-Length exactly there. Of VARYING values, only those are cut that consist of characters which llhttp takes in
any header value, up to the end of their line; what such a value is does not change how the other lines are read, and a
shape is remembered only when llhttp found the same values under the same names. Everything else is parsed each time.

Memory: each in two generations of at most a quarter of the bound; a full one replaces the old one, what is still used
moves over. What is seen once only is not remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from headwater.collect.address import Forwarded
from headwater.collect.parse import HOPS, KEPT, Head, HeadReader, Read
from headwater.dialects.pixel import without_key
from headwater.kit.errors import Rejected

P = TypeVar("P")
K = TypeVar("K")
V = TypeVar("V")

MARK = b"ength: "
LENGTH_LINE = b"\r\ncontent-length: "
DIGITS_MAX = 10
ONCE_MAX = 8192
ENTRY_BYTES = 600
"""What an entry costs besides the bytes of its head (measured: dict slots, objects, values)."""

VARYING = (
    "User-Agent", "Referer", "Cookie", "X-Forwarded-For", "X-Real-IP", "X-Request-ID", "X-Correlation-ID",
    "X-Request-Start", "X-Amzn-Trace-Id", "X-Cloud-Trace-Context", "Traceparent", "CF-Ray", "CF-Connecting-IP",
)  # fmt: skip
"""Headers of which each visitor or each request has its own value, and which decide nothing. As they stand here, in
lower case, or with capitals at the start of each word."""
PIXEL = b"GET /pixel.gif?"
PIXEL_LINE = re.compile(rb"GET /pixel\.gif\?([!-\"$-~]*)(?= HTTP/1\.1\r)")


def any_of(names: Iterable[str]) -> str:
    """A pattern for names in all their spellings, branching at the first letter: five times as quick as a flat one."""
    rests: dict[str, list[str]] = {}
    for spelled in sorted({spelled for name in names for spelled in (name, name.lower(), name.title())}):
        rests.setdefault(spelled[0], []).append(spelled[1:])
    return "|".join(f"{first}(?:{'|'.join(some)})" for first, some in rests.items())


CUT = re.compile(rb"(\r\n(?:" + any_of(VARYING).encode() + rb"):)([\t\x20-\x7e\x80-\xff]*)(?=\r|\Z)")


class Shape(Generic[P]):
    """What heads say that differ only in values of VARYING."""

    __slots__ = ("holes", "hops", "kept", "lasting", "plan", "record", "record_of", "told", "trusted")

    def __init__(self, plan: P, read: Read, holes: dict[str, int], trusted: bool) -> None:
        self.plan = plan
        self.trusted = trusted
        """Whether it was read as said by a trusted proxy; it does not count for others."""
        self.kept = read.kept
        """Headers that go into a record's head and decide nothing, as this one head had them."""
        self.told = read.told
        self.holes = tuple((name, at) for name, at in holes.items() if name in KEPT)
        """Which of ``kept`` differ from head to head, and where in an entry's values they stand."""
        self.hops = tuple((name, at) for name, at in holes.items() if name in read.told)
        self.lasting = False
        """It is remembered: other heads will have it too."""
        self.record_of: object = None
        """What ``record`` was made for: an admission (admission.py)."""
        self.record: Any = None

    def forwarded(self, values: Sequence[bytes]) -> Forwarded:
        """What trusted proxies said about the client."""
        told = {**self.told, **{name: values[at] for name, at in self.hops}}
        texts = {name: value.decode("latin-1") for name, value in told.items()}
        return Forwarded(
            texts.get("x-forwarded-for", ""), texts.get("forwarded", ""), texts.get("x-real-ip", "")
        )


class Entry(Generic[P]):
    """What is remembered of one head."""

    __slots__ = ("forwarded", "plan", "query", "record", "record_of", "shape", "trusted", "values")

    def __init__(self, shape: Shape[P], values: Sequence[bytes], query: bytes | None) -> None:
        self.shape = shape
        self.plan = shape.plan
        self.trusted = shape.trusted
        self.values = values
        """What was cut out of the shape."""
        self.forwarded = shape.forwarded(values) if shape.told else None
        """What trusted proxies said about the client; None when nothing was said or nobody is trusted."""
        self.query = query
        """The query, where that is the body."""
        self.record_of: object = None
        self.record = b""
        """The encoded head of records under ``record_of``, once it has been made."""

    @property
    def kept(self) -> dict[str, bytes]:
        """The headers that go into a record's head."""
        return {**self.shape.kept, **{name: self.values[at].strip() for name, at in self.shape.holes}}


class Heads(Generic[P]):
    """The heads of one worker. ``plan`` is asked for each head that was not remembered; it gives the plan, the query
    where that is the body, and whether the plan depends on nothing but the head (else it is asked again)."""

    def __init__(self, plan: Callable[[Head], tuple[P, bytes | None, bool]], *, bytes_max: int) -> None:
        self.plan = plan
        self.reader = HeadReader()
        self.entries: Cache[bytes, Entry[P]] = Cache(bytes_max // 4)
        self.shapes: Cache[tuple[object, ...], Shape[P]] = Cache(bytes_max // 4)
        self.parsed = 0

    def clear(self) -> None:
        """Forget everything: plans were made under an older configuration."""
        self.entries.clear()
        self.shapes.clear()

    def look(self, data: bytes, at: int, end: int, trusted: bool) -> tuple[Entry[P], int]:
        """The entry of the head in data[at:end] (its blank line follows) and the length of its body in bytes.

        Rejected (400, else its field ``status``) when it is no request that can be answered; the connection cannot
        go on then.
        """
        mark = data.find(MARK, at, end) + len(MARK)
        if mark < len(MARK):
            key = data[at:end]
            found = self.entries.get(key)
            if found is not None and found.trusted is trusted:
                return found, 0
            return self.look_closer(key, None, trusted)
        stop = data.find(b"\r", mark, end + 1)
        digits = data[mark:stop]
        if digits.isdigit() and len(digits) <= DIGITS_MAX:
            key = data[at:mark] + data[stop:end]
            found = self.entries.get(key)
            if found is not None and found.trusted is trusted:
                return found, int(digits)
            if key[mark - at - len(LENGTH_LINE) : mark - at].lower() == LENGTH_LINE:
                return self.look_closer(key, mark - at, trusted)[0], int(digits)
        return self.read_alone(data[at:end], trusted)

    def look_closer(self, key: bytes, cut: int | None, trusted: bool) -> tuple[Entry[P], int]:
        """By the shape, or else by parsing. ``cut`` is where the digits of Content-Length were, if there were any."""
        query: bytes | None = None
        secret, text = b"", key
        if key.startswith(PIXEL) and (line := PIXEL_LINE.match(key)) is not None:
            secret, query = without_key(line[1])
            text = PIXEL + key[line.end() :]
        parts = CUT.split(text)
        values = parts[2::3]
        del parts[2::3]
        ident = (trusted, secret, *parts)
        shape = self.shapes.get(ident)
        if shape is None:
            return self.read(key, cut, ident, values, query, trusted)
        entry = Entry(shape, values, query)
        if query is None:
            self.entries.meet(key, entry, len(key) + ENTRY_BYTES)
        return entry, 0

    def read(
        self,
        key: bytes,
        cut: int | None,
        ident: tuple[object, ...],
        values: Sequence[bytes],
        pixel: bytes | None,
        trusted: bool,
    ) -> tuple[Entry[P], int]:
        """Parse a head that can be remembered: with `0` as its length, or without a body."""
        whole = key if cut is None else key[:cut] + b"0" + key[cut:]
        read, plan, query, lasting = self.parse(whole, trusted)
        if cut is None and read.length:
            return Entry(Shape(plan, read, {}, trusted), (), query), length_of(read)
        if cut is not None and read.length != b"0":
            raise Rejected("not HTTP/1.1: Content-Length is not what it seemed to be", code="bad_request")
        holes = holes_of(ident, values, read)
        if holes is None:
            return Entry(Shape(plan, read, {}, trusted), (), query), 0
        shape = Shape(plan, read, holes, trusted)
        entry = Entry(shape, values, query)
        if lasting or (query is not None and query == pixel):
            shape.lasting = self.shapes.meet(ident, shape, len(key) + ENTRY_BYTES)
        return entry, 0

    def read_alone(self, head: bytes, trusted: bool) -> tuple[Entry[P], int]:
        """Parse a head whose Content-Length stands in an unusual place or form."""
        read, plan, query, _ = self.parse(head, trusted)
        return Entry(Shape(plan, read, {}, trusted), (), query), length_of(read)

    def parse(self, head: bytes, trusted: bool) -> tuple[Read, P, bytes | None, bool]:
        self.parsed += 1
        read = self.reader.read(head + b"\r\n\r\n", trusted)
        return read, *self.plan(read.head)


def length_of(read: Read) -> int:
    """The length of the body that a head announces."""
    length = read.length or b"0"
    if not length.isdigit() or len(length) > DIGITS_MAX:
        raise Rejected("Content-Length is too large", code="body_too_large", status=413)
    return int(length)


def holes_of(ident: Sequence[object], values: Sequence[bytes], read: Read) -> dict[str, int] | None:
    """Where in ``values`` the headers stand that matter; None when llhttp did not find them so (a name came twice)."""
    holes: dict[str, int] = {}
    for at, value in enumerate(values):
        prefix = ident[3 + 2 * at]
        assert isinstance(prefix, bytes)
        name = prefix.strip(b"\r\n:").lower().decode("latin-1")
        if name not in KEPT and name not in HOPS:
            continue
        found = read.kept.get(name) if name in KEPT else read.told.get(name, value)
        if name in holes or found is None or found.strip() != value.strip():
            return None
        holes[name] = at
    return holes


class Cache(Generic[K, V]):
    """Values by key, in two generations. A key enters when it is met for the second time, so that what comes once
    (behind a proxy that numbers requests) leaves no memory behind."""

    __slots__ = ("bytes", "bytes_max", "get_young", "old", "once", "young")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.clear()

    def clear(self) -> None:
        self.young: dict[K, tuple[V, int]] = {}
        self.old: dict[K, tuple[V, int]] = {}
        self.once: set[int] = set()
        """Hashes of keys that were met once."""
        self.bytes = 0
        self.get_young = self.young.get

    def get(self, key: K) -> V | None:
        """The value of a key; one of the old generation moves to the young one."""
        found = self.get_young(key)
        if found is None:
            found = self.old.get(key) if self.old else None
            if found is None:
                return None
            self.put(key, *found)
        return found[0]

    def meet(self, key: K, value: V, size: int) -> bool:
        """A key was not there: remember it if that has happened before. ``size`` in bytes; whether it was known."""
        mark = hash(key)
        if mark in self.once:
            self.put(key, value, size)
            return True
        if len(self.once) >= ONCE_MAX:
            self.once.clear()
        self.once.add(mark)
        return False

    def put(self, key: K, value: V, size: int) -> None:
        if self.bytes + size > self.bytes_max:
            if size > self.bytes_max:
                return
            self.old, self.young, self.bytes = self.young, {}, 0
            self.get_young = self.young.get
        self.young[key] = (value, size)
        self.bytes += size
