"""Heads: what the request line and headers say, parsed once by llhttp and then remembered by their bytes.

A client repeats its head with every request but for the digits of Content-Length. Those are cut out; what is left is
looked up. So llhttp (strict: no bare line ends, no folding, no Content-Length beside Transfer-Encoding) reads each
distinct head once, and a repeated one costs a search, two slices and one look-up.

Why that is safe: the cut is made behind the first `ength: ` of the head, which is the same place in the head with and
without the digits, so the rest determines it; what is cut is digits alone; and a head is remembered only when llhttp
found its one Content-Length exactly there, with `0` in their place. A head without `ength: ` is remembered whole, and
only when it has no body of known length. Everything else is parsed each time.

Memory: two generations of at most half of the bound; a full one replaces the old one, what is still used moves over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import httptools

from headwater.collect.address import Forwarded, forwarded_proto
from headwater.kit.errors import Rejected

P = TypeVar("P")
MARK = b"ength: "
LENGTH_LINE = b"\r\ncontent-length: "
DIGITS_MAX = 10
NAMES_MAX = 1024
ONCE_MAX = 8192
ENTRY_BYTES = 400
"""What an entry costs besides the bytes of its head (measured: dict slot, bytes object, tuple)."""

ONCE = (
    "host",
    "authorization",
    "x-write-key",
    "origin",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "content-length",
    "expect",
)
"""Headers that decide something and may stand once only."""
KEPT = (
    "user-agent",
    "referer",
    "accept-language",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-ch-ua-platform-version",
    "sec-ch-ua-model",
    "sec-ch-ua-arch",
    "sec-ch-ua-bitness",
    "sec-ch-ua-full-version-list",
    "dnt",
    "sec-gpc",
)
"""Headers that later stages read; they go into the record's head, with origin."""
HOPS = ("x-forwarded-for", "x-forwarded-proto", "forwarded", "x-real-ip")
OTHERS = ("connection", "if-none-match", "access-control-request-method")
WANTED = {name.encode(): (name, name not in KEPT) for name in (*ONCE, *KEPT, *HOPS, *OTHERS)}
Headers = tuple[dict[str, bytes], dict[str, bytes]]


class Head(NamedTuple):
    """A head as it was read."""

    method: str
    target: bytes
    old: bool
    """HTTP/1.0."""
    facts: dict[str, bytes]
    """The headers of ONCE and OTHERS that were sent, lower-case names: they decide."""
    private: bool
    """The browser says Do-Not-Track or Global Privacy Control."""
    https: bool
    """A trusted proxy said that the client spoke TLS."""


class Entry(Generic[P]):
    """What is remembered of a head."""

    __slots__ = ("forwarded", "kept", "plan", "query", "record", "record_of", "trusted")

    def __init__(
        self, plan: P, forwarded: Forwarded | None, query: bytes | None, kept: dict[str, bytes], trusted: bool
    ) -> None:
        self.plan = plan
        self.trusted = trusted
        """Whether it was read as said by a trusted proxy; it does not count for others."""
        self.forwarded = forwarded
        """What trusted proxies said about the client; None when nothing was said or nobody is trusted."""
        self.query = query
        """The query, where that is the body."""
        self.kept = kept
        """The headers of KEPT that were sent: they go into the record's head and decide nothing."""
        self.record_of: object = None
        """What ``record`` was made for."""
        self.record = b""
        """The encoded head of records, once it has been made (plan.py)."""


class Parser:
    """llhttp, fed with one whole head at a time; callbacks are C functions, so no Python runs while it parses."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.targets: list[bytes] = []
        self.on_header = self.headers.__setitem__
        self.on_url = self.targets.append
        self.renew()

    def renew(self) -> None:
        self.llhttp = httptools.HttpRequestParser(self)

    def feed(self, head: bytes) -> str:
        """Parse a head with its blank line; the method. Headers and target are in the attributes then."""
        self.headers.clear()
        self.targets.clear()
        try:
            self.llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            method = self.method()
            self.renew()
            return method
        except httptools.HttpParserError as error:
            raise Rejected(f"not HTTP/1.1: {str(error)[:100] or 'malformed'}", code="bad_request") from error
        return self.method()

    def method(self) -> str:
        return str(self.llhttp.get_method().decode("ascii"))


class Pairs:
    """Collects headers one by one, for heads in which a name stands twice."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value))


class Heads(Generic[P]):
    """The heads of one worker. ``plan`` is asked for each head that was not remembered."""

    def __init__(self, plan: Callable[[Head], tuple[P, bytes | None, bool]], *, bytes_max: int) -> None:
        self.plan = plan
        self.parser = Parser()
        self.names: dict[bytes, tuple[str, bool] | None] = {}
        self.cache: Cache[P] = Cache(bytes_max // 2)
        self.parsed = 0

    def clear(self) -> None:
        """Forget everything: plans were made under an older configuration."""
        self.cache.clear()

    def look(self, data: bytes, at: int, end: int, trusted: bool) -> tuple[Entry[P], int]:
        """The entry of the head in data[at:end] (its blank line follows) and the length of its body in bytes.

        Rejected (400, 501, 505 by its field ``status``) when it is no request that can be answered; the connection
        cannot go on then.
        """
        mark = data.find(MARK, at, end) + len(MARK)
        if mark < len(MARK):
            key = data[at:end]
            found = self.cache.get(key)
            if found is not None and found.trusted is trusted:
                return found, 0
            return self.read_whole(key, trusted, lasting=True)
        stop = data.find(b"\r", mark, end + 1)
        digits = data[mark:stop]
        if digits.isdigit() and len(digits) <= DIGITS_MAX:
            key = data[at:mark] + data[stop:end]
            found = self.cache.get(key)
            if found is not None and found.trusted is trusted:
                return found, int(digits)
            if key[mark - at - len(LENGTH_LINE) : mark - at].lower() == LENGTH_LINE:
                return self.read_cut(key, mark - at, trusted), int(digits)
        return self.read_whole(data[at:end], trusted, lasting=False)

    def read_cut(self, key: bytes, cut: int, trusted: bool) -> Entry[P]:
        """Parse a head without the digits of its Content-Length, and remember it."""
        entry, length, lasting = self.parse(key[:cut] + b"0" + key[cut:] + b"\r\n\r\n", trusted)
        if length != b"0":
            raise Rejected("not HTTP/1.1: Content-Length is not what it seemed to be", code="bad_request")
        if lasting:
            self.cache.meet(key, entry)
        return entry

    def read_whole(self, head: bytes, trusted: bool, *, lasting: bool) -> tuple[Entry[P], int]:
        """Parse a head as it is; remember it where no body follows and it is ``lasting``."""
        entry, length, may = self.parse(head + b"\r\n\r\n", trusted)
        if not length:
            if lasting and may:
                self.cache.meet(head, entry)
            return entry, 0
        self.parser.renew()  # it waits for a body that it will not get
        if not length.isdigit() or len(length) > DIGITS_MAX:
            raise Rejected("Content-Length is too large", code="body_too_large", status=413)
        return entry, int(length)

    def parse(self, head: bytes, trusted: bool) -> tuple[Entry[P], bytes, bool]:
        """The entry of a head, its Content-Length as sent, and whether it may be remembered."""
        self.parsed += 1
        try:
            return self.parse_strictly(head, trusted)
        except Exception:
            self.parser.renew()  # whatever it was in the middle of must not touch the next head
            raise

    def parse_strictly(self, head: bytes, trusted: bool) -> tuple[Entry[P], bytes, bool]:
        """As ``parse``; may leave the parser in the middle of something when it raises."""
        parser = self.parser
        while head.startswith(b"\r\n"):
            head = head[2:]
        if not head[:1].isalpha():
            raise Rejected("not HTTP/1.1: expected a method", code="bad_request")
        method = parser.feed(head)
        facts, kept = self.headers(head)
        old = self.is_old(head)
        if old or "transfer-encoding" in facts or b"close" in facts.get("connection", b"").lower():
            parser.renew()
        if not old and "host" not in facts:
            raise Rejected("expected a Host header", code="bad_request", field="host")
        if method == "CONNECT":
            raise Rejected("expected another method than CONNECT", code="bad_request")
        transfer = facts.get("transfer-encoding")
        if transfer is not None and (old or transfer.strip().lower() != b"chunked"):
            raise Rejected("expected Transfer-Encoding chunked or none", code="transfer_encoding", status=501)
        length = facts.pop("content-length", b"").rstrip()
        forwarded, https = hops(facts, trusted)
        private = kept.get("dnt") == b"1" or kept.get("sec-gpc") == b"1"
        plan, query, lasting = self.plan(Head(method, parser.targets[0], old, facts, private, https))
        return Entry(plan, forwarded, query, kept, trusted), length, lasting

    def is_old(self, head: bytes) -> bool:
        """Whether the request says HTTP/1.0."""
        end = head.index(b"\r\n")
        version = head[end - 9 : end]
        if version not in (b" HTTP/1.1", b" HTTP/1.0"):
            raise Rejected("expected HTTP/1.1 or HTTP/1.0", code="http_version", status=505)
        return version == b" HTTP/1.0"

    def headers(self, head: bytes) -> Headers:
        """The headers that decide, and those that are kept, by lower-case names."""
        headers = self.parser.headers
        if len(headers) != head.count(b"\r\n") - 2:
            return self.repeated(head)
        facts: dict[str, bytes] = {}
        kept: dict[str, bytes] = {}
        names = self.names
        for raw, value in headers.items():
            try:
                known = names[raw]
            except KeyError:
                known = self.name(raw)
            if known is not None:
                name, decides = known
                into = facts if decides else kept
                if name in into:
                    return self.repeated(head)
                into[name] = value
        return facts, kept

    def name(self, raw: bytes) -> tuple[str, bool] | None:
        """The name under which a header matters, and whether it decides; None when it does not matter."""
        known = WANTED.get(raw.lower())
        if len(self.names) < NAMES_MAX:
            self.names[raw] = known
        return known

    def repeated(self, head: bytes) -> Headers:
        """As ``headers`` where a name stands twice: lists are joined, what may stand once is refused."""
        collector = Pairs()
        try:
            httptools.HttpRequestParser(collector).feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        facts: dict[str, bytes] = {}
        kept: dict[str, bytes] = {}
        for raw, value in collector.pairs:
            known = WANTED.get(raw.lower())
            if known is None:
                continue
            name, decides = known
            into = facts if decides else kept
            if name not in into:
                into[name] = value
            elif name in ONCE:
                raise Rejected(f"expected one {name} header, got several", code="bad_request", field=name)
            else:
                into[name] += b", " + value
        return facts, kept


def hops(facts: dict[str, bytes], trusted: bool) -> tuple[Forwarded | None, bool]:
    """Take what proxies said out of the facts: the addresses, and whether the client spoke TLS."""
    if facts.keys().isdisjoint(HOPS):
        return None, False
    told = [facts.pop(name, b"").decode("latin-1") for name in HOPS]
    if not trusted or not any(told):
        return None, False
    x_for, x_proto, forwarded, real = told
    scheme = x_proto.partition(",")[0].strip().lower() or forwarded_proto(forwarded)
    return Forwarded(x_for, forwarded, real), scheme == "https"


class Cache(Generic[P]):
    """Entries by head, in two generations. A head enters when it is seen for the second time, so that heads which come
    once (behind a proxy that numbers requests) leave no memory behind."""

    __slots__ = ("bytes", "bytes_max", "get_young", "old", "once", "young")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.clear()

    def clear(self) -> None:
        self.young: dict[bytes, Entry[P]] = {}
        self.old: dict[bytes, Entry[P]] = {}
        self.once: set[int] = set()
        """Hashes of heads that were seen once."""
        self.bytes = 0
        self.get_young = self.young.get

    def get(self, key: bytes) -> Entry[P] | None:
        """The entry of a head; one of the old generation moves to the young one."""
        entry = self.get_young(key)
        if entry is None and self.old:
            entry = self.old.get(key)
            if entry is not None:
                self.put(key, entry)
        return entry

    def meet(self, key: bytes, entry: Entry[P]) -> None:
        """A head was parsed: remember it if that has happened before."""
        mark = hash(key)
        if mark in self.once:
            self.put(key, entry)
        else:
            if len(self.once) >= ONCE_MAX:
                self.once.clear()
            self.once.add(mark)

    def put(self, key: bytes, entry: Entry[P]) -> None:
        size = len(key) + ENTRY_BYTES
        if self.bytes + size > self.bytes_max:
            if size > self.bytes_max:
                return
            self.old, self.young, self.bytes = self.young, {}, 0
            self.get_young = self.young.get
        self.young[key] = entry
        self.bytes += size
