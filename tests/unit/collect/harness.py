"""A door without sockets: a clock that stands, a log in memory, transports that remember."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import h11
import msgspec

from headwater.collect.door import Door, Waiter
from headwater.collect.keys import KeyTable
from headwater.collect.owed import Promise
from headwater.collect.protocol import Connection
from headwater.collect.settings import CollectSettings, KeySettings
from headwater.collect.tag import tag_files
from headwater.event.record import Head, decode_head
from headwater.event.slots import NO_SLOT
from headwater.kit.errors import HeadwaterError
from headwater.kit.rng import SeededRng

BROWSER, SERVER, MEMORY = "browser-secret", "server-secret", "memory-secret"
KEYS = (
    KeySettings(id="web", secret=BROWSER, origins=["*"]),
    KeySettings(id="srv", secret=SERVER),
    KeySettings(id="mem", secret=MEMORY, ack="memory"),
    KeySettings(
        id="shop", secret="shop-secret", origins=["https://shop.example.com", "https://*.example.org"]
    ),
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SECOND = 1_000_000_000


class Record(NamedTuple):
    """What was appended."""

    received_ns: int
    address: bytes
    body: bytes
    head: Head
    stream: str
    events: int
    refused: tuple[int, ...]
    slot: int
    flags: int


class MemoryLog:
    """GroupCommit without a disk: ``commit`` releases who waits."""

    receipt_prefix = "0000000000000001-0000000000000002-"

    def __init__(self, door: Door) -> None:
        self.door = door
        self.records: list[Record] = []
        self.waiting: list[Waiter | Promise] = []
        self.seq = 0
        self.pending_bytes, self.pending_bytes_half = 0, 1 << 20
        self.busy: HeadwaterError | None = None

    def full(self) -> HeadwaterError | None:
        return self.busy

    def append(
        self,
        received_ns: int,
        address: bytes,
        body: bytes,
        head: bytes,
        *,
        stream: str,
        events: int = 1,
        refused: Sequence[int] = (),
        slot: int = NO_SLOT,
        flags: int = 0,
        waiter: Waiter | Promise | None = None,
    ) -> int:
        assert type(body) is bytes and len(address) == 16
        assert int.from_bytes(head[:4], "little") == len(head) - 4
        self.records.append(
            Record(
                received_ns, address, body, decode_head(head[4:]), stream, events, tuple(refused), slot, flags
            )
        )
        if waiter is not None:
            self.waiting.append(waiter)
        self.seq += events
        return self.seq

    def commit(self, error: HeadwaterError | None = None) -> None:
        waiting, self.waiting = self.waiting, []
        self.door.release(waiting, error)


class Transport:
    """What a connection wrote, and what it asked of the socket."""

    def __init__(self, peer: str = "203.0.113.7") -> None:
        self.peer = peer
        self.sent = b""
        self.closed = self.aborted = self.half_closed = False
        self.reading = True

    def get_extra_info(self, name: str) -> Any:
        return (self.peer, 4711) if name == "peername" else None

    def write(self, data: bytes) -> None:
        if self.closed:
            raise RuntimeError("the handler is closed")
        assert not self.half_closed, "an answer after the last one"
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def write_eof(self) -> None:
        self.half_closed = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Answer(NamedTuple):
    """An answer, as an HTTP client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Bench:
    """A door with keys, a log, and as many clients as a test wants."""

    def __init__(self, keys: Iterable[KeySettings] = KEYS, **settings: Any) -> None:
        self.now = 1000 * SECOND
        self.settings = CollectSettings(**settings)
        self.door = Door(self.settings, self.table(keys), boot_ns=lambda: self.now, files=tag_files())
        self.log = MemoryLog(self.door)
        self.door.open(self.log)
        self.connections: set[Connection] = set()

    def table(self, keys: Iterable[KeySettings]) -> KeyTable:
        return KeyTable.build(
            keys, rng=SeededRng(1), read=lambda path: "", address_policy=self.settings.client_address
        )

    def client(self, peer: str = "203.0.113.7") -> Client:
        return Client(self, peer)

    def ask(self, data: bytes, peer: str = "203.0.113.7") -> Answer:
        """One request on a connection of its own, committed."""
        client = self.client(peer)
        client.send(data)
        self.log.commit()
        (answer,) = client.answers(data.split(b" ")[0].decode())
        return answer


class Client:
    """One connection and what came back on it."""

    def __init__(self, bench: Bench, peer: str) -> None:
        self.bench = bench
        self.transport = Transport(peer)
        self.connection = Connection(bench.door, bench.connections)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.transport.closed:
                self.connection.data_received(piece)

    def reads(self) -> bool:
        """Whether the door reads from this client at present."""
        return self.transport.reading

    def lose(self) -> None:
        """The client is gone."""
        self.transport.closed = True
        self.connection.connection_lost(None)

    def answers(self, *methods: str) -> list[Answer]:
        """All answers so far; ``methods`` of the requests, POST where not given."""
        return read_answers(self.transport.sent, methods)


def read_answers(sent: bytes, methods: Sequence[str] = ()) -> list[Answer]:
    """Answers as h11 reads them: strict about lengths, so a wrong Content-Length is an error here."""
    answers: list[Answer] = []
    while sent:
        if sent == CONTINUE:
            return [*answers, Answer(100, {}, b"")]
        method = methods[len(answers)] if len(answers) < len(methods) else "POST"
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(sent)
        status, headers, body = 0, {}, b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, f"an answer is cut short: {sent!r}"
            if isinstance(event, h11.InformationalResponse):
                answers.append(Answer(event.status_code, {}, b""))
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        answers.append(Answer(status, headers, body))
        sent = client.trailing_data[0]
    return answers


def post(
    path: str = "/v1/track",
    body: bytes = b'{"event":"Opened","anonymousId":"a1"}',
    *lines: str,
    key: str = BROWSER,
    length: bool = True,
) -> bytes:
    """A POST with its key in X-Write-Key."""
    head = [f"POST {path} HTTP/1.1", "Host: collect.example.com", *lines]
    if key:
        head.append(f"X-Write-Key: {key}")
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    """A GET, or another method without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: collect.example.com", *lines, "", ""]).encode(
        "latin-1"
    )
