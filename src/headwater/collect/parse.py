"""The strict reading of a request's head: llhttp, and what it does not decide.

llhttp refuses bare line ends, folded lines, odd characters, two Content-Lengths, and Content-Length beside
Transfer-Encoding. Here: HTTP/1.1 or 1.0, one Host, headers that decide stand once, lists that came on several lines are
joined. Only whole heads are fed, so one parser serves all connections.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from headwater.collect.address import forwarded_proto
from headwater.kit.errors import Rejected

NAMES_MAX = 1024

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
OTHERS = ("connection", "if-none-match", "access-control-request-method", "accept-encoding")
TAG = b"/headwater"
"""Where the targets begin for which Accept-Encoding decides; elsewhere it must not tell heads apart."""
NEVER = re.compile(rb"q=0(\.0*)?")
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


class Read(NamedTuple):
    """All that is read of a head."""

    head: Head
    kept: dict[str, bytes]
    """The headers of KEPT that were sent, lower-case names."""
    told: dict[str, bytes]
    """The headers of HOPS that a trusted proxy sent."""
    length: bytes
    """Content-Length as sent; empty when there is none."""


def takes_gzip(accepted: bytes) -> bool:
    """Whether an Accept-Encoding names gzip, and not only to forbid it."""
    for part in accepted.lower().split(b","):
        name, _, weight = part.partition(b";")
        if name.strip() == b"gzip":
            return NEVER.fullmatch(weight.strip()) is None
    return False


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

    def goes_on(self, facts: dict[str, bytes]) -> bool:
        """Whether the parser waits for the next head now."""
        return "transfer-encoding" not in facts and b"close" not in facts.get("connection", b"").lower()

    def method(self) -> str:
        return str(self.llhttp.get_method().decode("ascii"))


class Pairs:
    """Collects headers one by one, for heads in which a name stands twice."""

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value))


class HeadReader:
    """Reads heads one after the other; whatever one of them was does not touch the next."""

    def __init__(self) -> None:
        self.parser = Parser()
        self.names: dict[bytes, tuple[str, bool] | None] = {}

    def read(self, head: bytes, trusted: bool) -> Read:
        """A head with its blank line. Rejected when it is no request that can be answered; the connection ends then.

        ``trusted`` says whether the peer is a proxy that is believed.
        """
        try:
            return self.read_strictly(head, trusted)
        except Exception:
            self.parser.renew()
            raise

    def read_strictly(self, head: bytes, trusted: bool) -> Read:
        """As ``read``; may leave the parser in the middle of something when it raises."""
        parser = self.parser
        while head.startswith(b"\r\n"):
            head = head[2:]
        if not head[:1].isalpha():
            raise Rejected("not HTTP/1.1: expected a method", code="bad_request")
        method = parser.feed(head)
        facts, kept = self.headers(head)
        old = self.is_old(head)
        length = facts.pop("content-length", b"").rstrip()
        if old or length not in (b"", b"0") or not parser.goes_on(facts):
            parser.renew()  # it waits for a body or has seen the end
        if not old and "host" not in facts:
            raise Rejected("expected a Host header", code="bad_request", field="host")
        if method == "CONNECT":
            raise Rejected("expected another method than CONNECT", code="bad_request")
        transfer = facts.get("transfer-encoding")
        if transfer is not None and (old or transfer.strip().lower() != b"chunked"):
            raise Rejected("expected Transfer-Encoding chunked or none", code="transfer_encoding", status=501)
        told = (
            {} if facts.keys().isdisjoint(HOPS) else {name: facts.pop(name) for name in HOPS if name in facts}
        )
        if not trusted:
            told = {}
        accepted = facts.pop("accept-encoding", None)
        if accepted is not None and parser.targets[0].startswith(TAG) and takes_gzip(accepted):
            facts["accept-encoding"] = b"gzip"
        private = kept.get("dnt") == b"1" or kept.get("sec-gpc") == b"1"
        https = bool(told) and is_https(told)
        return Read(Head(method, parser.targets[0], old, facts, private, https), kept, told, length)

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


def is_https(told: dict[str, bytes]) -> bool:
    """Whether proxies say that the client spoke TLS."""
    scheme = told.get("x-forwarded-proto", b"").partition(b",")[0].strip().lower()
    return (
        scheme.decode("latin-1") or forwarded_proto(told.get("forwarded", b"").decode("latin-1"))
    ) == "https"
