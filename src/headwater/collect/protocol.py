"""One connection: from bytes to whole requests. No task, future or timer belongs to it.

A request that came whole and alone in one piece (nearly all do) is taken at once: a search for the blank line, one
look-up of the head (heads.py), a slice for the body. Everything else goes through the *phases*.

Reading stops while ``pipeline_max`` answers are owed or the client does not read them. Deadlines are looked at by one
sweep over all connections (``check``).
"""

from __future__ import annotations

import asyncio
from typing import cast

from headwater.collect import replies
from headwater.collect.address import IP, Address, Addresses, by_policy, parse
from headwater.collect.answers import Answers
from headwater.collect.chunked import Chunks
from headwater.collect.door import Door
from headwater.collect.heads import Entry
from headwater.collect.plan import Plan
from headwater.collect.proxy_protocol import READERS
from headwater.kit.errors import Busy, Rejected

END = b"\r\n\r\n"
READY, HEAD, BODY, CHUNKS, PROXY, HELD, DEAF = range(7)
"""Phases: what the next bytes are. READY: the start of a request. HELD: kept until answers have gone. DEAF: ignored."""
LINGER_NS = 2_000_000_000
"""How long a refused connection is read from and ignored, so that the client sees why (RFC 9112 §9.6)."""
PARTS_MAX = 256
"""Pieces of a body that are kept apart."""
FULL = Busy("too many connections", code="connections")
TOO_MUCH = Busy("too many incomplete requests are held", code="partial_requests")


class Connection(Answers, asyncio.Protocol):
    """A client's connection; the door's Waiter."""

    __slots__ = (
        "addresses",
        "at_ns",
        "begun_ns",
        "chunks",
        "connections",
        "entry",
        "finished",
        "held_bytes",
        "linger",
        "missing",
        "parts",
        "paused",
        "peer",
        "rest",
        "trusted",
        "unread",
    )

    def __init__(self, door: Door, connections: set[Connection]) -> None:
        super().__init__(door)
        self.connections = connections
        self.rest = b""
        """Bytes of HEAD, PROXY, HELD."""
        self.entry: Entry[Plan] | None = None
        self.parts: list[bytes] = []
        self.missing = 0
        """What BODY has, and the bytes that it still wants."""
        self.chunks: Chunks | None = None
        self.held_bytes = 0
        """What this connection has in ``door.held_bytes``."""
        self.paused = False
        self.unread = False
        """The client does not read its answers."""
        self.finished = False
        """The client sends no more."""
        self.linger = False
        """Refused: the client may still be sending what nobody reads."""
        self.at_ns = self.begun_ns = 0
        """When bytes came last; when the incomplete request or the end began."""

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        door = self.door
        self.at_ns = self.begun_ns = door.boot_ns()
        door.stats.connections_opened += 1
        self.connections.add(self)
        peer = transport.get_extra_info("peername")
        self.identify(parse(str(peer[0])) if isinstance(peer, tuple) else None)
        if len(self.connections) > door.settings.connections_max:
            door.stats.connections_refused += 1
            self.end(replies.unavailable(FULL))
        elif door.settings.proxy_protocol != "off":
            self.phase = PROXY

    def identify(self, peer: IP | None) -> None:
        """This is who is at the other end."""
        self.peer = peer
        self.trusted = self.door.proxies.trust(peer)
        self.addresses: Addresses = by_policy(peer)

    def data_received(self, data: bytes) -> None:
        door = self.door
        self.at_ns = door.boot_ns()
        if self.phase:
            return self.go_on(data)
        end = data.find(END)
        if 0 < end <= door.header_bytes_max:
            try:
                entry, length = door.heads.look(data, 0, end, self.trusted)
            except Rejected as rejected:
                return self.reject(rejected)
            if len(data) - end - 4 == length <= door.body_bytes_max and entry.plan.plain and not door.leaving:
                return door.handle(self, entry, data[end + 4 :])
        self.run(data)

    def eof_received(self) -> bool:
        """The client has said all that it will; it may still read what it is owed."""
        self.finished = True
        if self.phase == HELD:
            return True
        self.release_held()
        self.phase = DEAF
        return self.promised is not None

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.connections.discard(self)
        self.release_held()
        self.phase = DEAF
        self.rest = b""

    def pause_writing(self) -> None:
        self.unread = True
        self.begun_ns = self.door.boot_ns()
        self.pause()

    def resume_writing(self) -> None:
        self.unread = False
        self.settle()

    # Requests

    def go_on(self, data: bytes) -> None:
        """More bytes of what has begun."""
        phase = self.phase
        if phase == BODY:
            self.more_body(data)
        elif phase == CHUNKS:
            self.more_chunks(data)
        elif phase == HEAD:
            self.run(self.rest + data)
        elif phase == PROXY:
            self.read_proxy_header(self.rest + data)
        elif phase == HELD:
            self.rest += data

    def run(self, data: bytes) -> None:
        """Take all whole requests from the start of ``data``, keep the rest."""
        at = 0
        self.phase = READY
        while at < len(data):
            if self.unread or self.behind():
                return self.hold(data[at:])
            end = data.find(END, at)
            if end == at:
                at += 2  # empty lines before a request are skipped (RFC 9112 §2.2)
                continue
            if end < 0 or end - at > self.door.header_bytes_max:
                return self.head_is_missing(data[at:])
            try:
                entry, length = self.door.heads.look(data, at, end, self.trusted)
            except Rejected as rejected:
                return self.reject(rejected)
            at = end + 4
            if length > self.door.body_bytes_max:
                return self.too_large(entry.plan)
            if entry.plan.chunked or len(data) - at < length:
                return self.begin_body(entry, length, data[at:])
            self.take(entry, data[at : at + length])
            at += length
            self.rest = b""
            if self.phase:
                return
        self.rest = b""
        self.account(0)

    def take(self, entry: Entry[Plan], body: bytes) -> None:
        """One whole request, which may be the last."""
        last = entry.plan.last or self.door.leaving
        if last:
            self.phase = DEAF
            self.dress = replies.closing
        elif entry.plan.keeping:
            self.dress = replies.keeping
        self.door.handle(self, entry, body)
        self.dress = None
        if last:
            self.close_when_answered()

    def hold(self, data: bytes) -> None:
        """Keep bytes until answers have gone."""
        self.rest = data
        self.phase = HELD
        self.pause()
        self.account(len(data))

    def head_is_missing(self, data: bytes) -> None:
        """No head is complete: wait for more, unless it is too long or can be none."""
        if len(data) > self.door.header_bytes_max:
            reason = f"expected at most {self.door.header_bytes_max} bytes of request line and headers"
            return self.refuse(431, "header_too_large", reason)
        if (start := data.lstrip(b"\r\n")[:1]) and not start.isalpha():
            return self.refuse(400, "bad_request", "not HTTP/1.1: expected a method")  # TLS, mostly
        if data.count(b"\n") != data.count(b"\r\n"):
            return self.refuse(400, "bad_request", "not HTTP/1.1: expected CRLF at the end of each line")
        if not self.rest:
            self.begun_ns = self.at_ns
        self.rest = data
        self.phase = HEAD
        self.account(len(data))

    def begin_body(self, entry: Entry[Plan], length: int, data: bytes) -> None:
        """A head whose body is not all here."""
        plan = entry.plan
        self.rest = b""
        self.begun_ns = self.at_ns
        self.entry = entry
        self.missing = length
        if plan.expect and not data:
            if plan.answer is not None:
                plan.tally[0] += 1
                return self.end(plan.answer)
            self.answer(replies.CONTINUE)
        if plan.chunked:
            self.chunks = Chunks(self.door.body_bytes_max)
            self.phase = CHUNKS
        else:
            self.phase = BODY
        self.go_on(data)

    def more_body(self, data: bytes) -> None:
        missing = self.missing
        if len(data) < missing:
            self.missing = missing - len(data)
            self.parts.append(data)
            if len(self.parts) >= PARTS_MAX:  # many small pieces would cost more than their bytes
                self.parts = [b"".join(self.parts)]
            return self.account(self.held_bytes + len(data))
        self.parts.append(data[:missing] if len(data) > missing else data)
        body = b"".join(self.parts)
        self.parts = []
        self.finish(body, data[missing:])

    def more_chunks(self, data: bytes) -> None:
        assert self.chunks is not None
        try:
            rest = self.chunks.feed(data)
        except Rejected as rejected:
            return self.reject(rejected)
        if rest is None:
            return self.account(self.held_bytes + len(data))
        self.finish(self.chunks.body, rest)

    def finish(self, body: bytes, rest: bytes) -> None:
        """A body is complete."""
        entry, self.entry, self.chunks, self.phase = self.entry, None, None, READY
        assert entry is not None
        self.account(0)
        self.take(entry, body)
        if rest and not self.phase:
            self.run(rest)

    def read_proxy_header(self, data: bytes) -> None:
        """What a trusted proxy says before anything else (proxy_protocol.py)."""
        try:
            if not self.trusted:
                raise ValueError("expected a trusted proxy at the other end (collect.trusted_proxies)")
            found = READERS[self.door.settings.proxy_protocol](data)
        except ValueError as error:
            return self.refuse(400, "proxy_protocol", str(error))
        self.rest = data
        if found is None:
            return self.account(len(data))
        length, client = found
        self.rest = b""
        self.phase = READY
        self.account(0)
        if client is not None:
            self.identify(client)
        if len(data) > length:
            self.run(data[length:])

    # Answers

    def address(self, policy: str, entry: Entry[Plan]) -> Address:
        """The client's address under a policy."""
        addresses = self.addresses
        if entry.forwarded is not None and self.peer is not None:
            addresses = self.door.proxies.addresses(self.peer, entry.forwarded)
        found = addresses.get(policy)
        return found if found is not None else self.door.hashes.of(addresses["full"])

    def settle(self) -> None:
        """Answers have gone: go on reading, or end."""
        self.unpause()
        if self.finished and self.phase != HELD:
            self.phase = DEAF
        if self.phase == DEAF:
            self.close_when_answered()

    # Ends

    def reject(self, rejected: Rejected) -> None:
        status = rejected.fields.get("status", 400)
        self.refuse(status if isinstance(status, int) else 400, rejected.code, rejected.message)

    def refuse(self, status: int, code: str, reason: str, lines: str = "") -> None:
        """This connection cannot go on: say why and end it."""
        self.door.stats.count("connection", status)
        self.door.stats.refuse(code)
        self.end(replies.error(status, code, reason, lines))

    def too_large(self, plan: Plan) -> None:
        reason = f"expected a body of at most {self.door.body_bytes_max} bytes"
        self.refuse(413, "body_too_large", reason, plan.lines)

    def end(self, reply: bytes) -> None:
        """The last answer, while the client may still be sending."""
        self.release_held()
        self.phase = DEAF
        self.linger = True
        self.dress = None
        self.rest = b""
        self.begun_ns = self.at_ns
        self.answer(replies.closing(reply))
        self.close_when_answered()

    def close_when_answered(self) -> None:
        if self.promised is not None or self.transport is None:
            return
        try:
            if self.linger and not self.finished:
                self.transport.write_eof()
            else:
                self.transport.close()
        except (RuntimeError, OSError):
            self.transport.abort()

    def idle(self) -> bool:
        """Whether nothing has begun and nothing is owed."""
        return self.phase in (READY, PROXY) and self.promised is None and not self.unread

    def abort(self) -> None:
        """End at once; what is owed is not sent."""
        if self.transport is not None:
            self.transport.abort()

    def check(self, now_ns: int) -> None:
        """Part of the sweep: what has taken too long ends."""
        door, phase = self.door, self.phase
        if self.transport is None:
            return
        if phase == DEAF or self.unread:
            over = LINGER_NS if self.linger and self.promised is None else door.body_deadline_ns
            if self.promised is None and now_ns - max(self.at_ns, self.begun_ns) > over:
                self.abort()
        elif phase in (HEAD, PROXY):
            if now_ns - self.begun_ns > door.header_deadline_ns:
                self.refuse(408, "header_deadline", "expected the whole head earlier")
        elif phase in (BODY, CHUNKS):
            if now_ns - self.begun_ns > door.body_deadline_ns:
                self.refuse(408, "body_deadline", "expected the whole body earlier")
        elif self.promised is None and now_ns - self.at_ns > door.idle_deadline_ns:
            self.transport.close()

    # Bounds

    def pause(self) -> None:
        if not self.paused and self.transport is not None and not self.transport.is_closing():
            self.paused = True
            self.transport.pause_reading()

    def unpause(self) -> None:
        """Read again once the client reads and few answers are owed."""
        if not self.paused or self.unread or self.behind() or self.transport is None:
            return
        self.paused = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self.phase == HELD:
            data, self.rest = self.rest, b""
            self.run(data)

    def account(self, held_bytes: int) -> None:
        """This connection holds so many bytes of requests that are not complete."""
        self.door.held_bytes += held_bytes - self.held_bytes
        self.held_bytes = held_bytes
        if held_bytes and self.door.held_bytes > self.door.settings.partial_bytes_max and self.phase != HELD:
            self.door.stats.count("connection", 503)
            self.end(replies.unavailable(TOO_MUCH))

    def release_held(self) -> None:
        """Forget what was incomplete."""
        self.door.held_bytes -= self.held_bytes
        self.held_bytes = 0
        self.parts = []
        self.entry = self.chunks = None
        if self.phase != HELD:
            self.rest = b""
