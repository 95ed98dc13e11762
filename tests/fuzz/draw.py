"""What goes over one connection, drawn from a seed and the connection's number alone.

A connection carries some requests that are framed well, whatever is in them, and then perhaps one that is not; after
that one nothing more is understood, and the connection must end. Each request says what it may be answered, and the
id of an event that must be in the warehouse once when the answer was 200.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import zstandard

from tests.journeys.running import WEB_KEY
from tests.journeys.wire import request

FINE = frozenset({200})
EITHER = frozenset({200, 400})
BAD = frozenset({400})
TOO_LARGE = frozenset({413})
REFUSALS = frozenset({400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 429, 431, 501, 505})
"""What bad bytes may be answered. 5xx is never one of them, but for what HTTP itself reserves."""
ANYTHING = REFUSALS | {100, 200, 204, 304}
PIPELINE_MAX = 24


class Sample(NamedTuple):
    """One request."""

    kind: str
    data: bytes
    allowed: frozenset[int]
    message: str = ""
    """The id of its one event, which must become a row."""


class Connection(NamedTuple):
    """Everything that is sent over one connection."""

    framed: list[Sample]
    """Each gets an answer, in order."""
    last: Sample | None
    """Ends the connection."""
    pieces: tuple[int, ...]
    """Sizes of the packets in which the bytes go, over and over; none: at once."""
    leaves: bool
    """The client does not wait for its answers."""


# ---- bodies

NAMES = (
    '"a"',
    '"b"',
    '"price"',
    '"event"',
    '"\\u0000"',
    '""',
    '"_hw_seq"',
    '"\\ud83d"',
    '"where"',
    '"ä"',
    '"a.b"',
    '"A"',
)
SCALARS = (
    "null", "true", "0", "-0", "-0.0", "1e308", "-1e308", "1e-999", "9007199254740993", "18446744073709551616",
    "123456789012345678901234567890", "0.1", '"x"', '""', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\\\"',
    '"2026-11-21T10:00:00Z"', '"99999-99-99"', '"\u2028\U0001f600"', '"' + "long " * 200 + '"',
)  # fmt: skip
FIELDS = (
    "event", "type", "messageId", "userId", "properties", "traits", "context", "timestamp", "batch", "anonymousId",
)  # fmt: skip
NO_JSON = (
    b"", b"{", b"}", b"nul", b"NaN", b"01", b"+1", b".5", b"1.", b"1e", b"'a'", b'"', b'"\\x"', b'"\\u12"', b"[1,]",
    b'{"a":}', b'{"a" 1}', b"{a: 1}", b"/**/", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b"\x00",
    b"\x1f", b'"\n"', b"Infinity", b"[" * 3000, b'{"a":' * 3000, b"]" * 50,
)  # fmt: skip


def value(rng: random.Random, depth: int) -> str:
    """JSON that a reader of JSON may not like, but must understand."""
    kind = rng.randrange(10)
    if depth <= 0 or kind < 6:
        return rng.choice(SCALARS)
    if kind < 8:
        return "[" + ",".join(value(rng, depth - 1) for _ in range(rng.randrange(5))) + "]"
    return (
        "{" + ",".join(f"{rng.choice(NAMES)}:{value(rng, depth - 1)}" for _ in range(rng.randrange(5))) + "}"
    )


def plain_event(rng: random.Random, message: str) -> bytes:
    """An event with nothing strange in it but names that come twice."""
    return (
        f'{{"event": "Fuzzed", "messageId": "{message}", "anonymousId": "a{rng.randrange(50)}", '
        f'"properties": {{"n": {rng.randrange(1000)}, "n": {rng.randrange(1000)}, "t": "{"x" * rng.randrange(40)}"}}}}'
    ).encode()


def fine(rng: random.Random, message: str) -> Sample:
    return Sample("fine", request(plain_event(rng, message)), FINE, message)


def packed(rng: random.Random, message: str) -> Sample:
    """The same, compressed."""
    body, pack = plain_event(rng, message), rng.choice(("gzip", "deflate", "zstd"))
    packers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": lambda data: gzip.compress(data, 1),
        "deflate": zlib.compress,
        "zstd": zstandard.ZstdCompressor(level=1).compress,
    }
    return Sample("packed", request(packers[pack](body), f"Content-Encoding: {pack}"), FINE, message)


def in_chunks(rng: random.Random, message: str) -> Sample:
    """The same, chunked."""
    body, out = plain_event(rng, message), bytearray()
    while body:
        size = rng.randrange(1, 60)
        out += b"%x%s\r\n%s\r\n" % (len(body[:size]), rng.choice((b"", b";a=b", b";x")), body[:size])
        body = body[size:]
    out += rng.choice((b"0\r\n\r\n", b"0\r\nX-Trailer: y\r\n\r\n", b"000\r\n\r\n"))
    return Sample("chunked", request(bytes(out), "Transfer-Encoding: chunked", length=-1), FINE, message)


def pixel(rng: random.Random, message: str) -> Sample:
    """An event in a query."""
    path = (
        f"/pixel.gif?key={WEB_KEY}&event=Fuzzed&messageId={message}&properties.a=%C3%BC%00{rng.randrange(9)}"
    )
    return Sample("pixel", request(b"", path=path, method="GET"), frozenset({200, 400}))


def odd_event(rng: random.Random, message: str) -> Sample:
    """Well-formed JSON of any shape."""
    path = rng.choice(("/events", "/v1/track", "/v1/identify", "/v1/batch", "/v1/page"))
    fields = [f"{rng.choice(NAMES)}: {value(rng, 3)}" for _ in range(rng.randrange(4))]
    fields += [f'"{name}": {value(rng, 2)}' for name in rng.sample(FIELDS, rng.randrange(5))]
    body = "{" + ", ".join(fields) + "}"
    return Sample("odd", request(body.encode("utf-8", "surrogatepass"), path=path), EITHER)


def odd_properties(rng: random.Random, message: str) -> Sample:
    """An event that is right, with properties of any shape; it may end as a dead letter, but is never lost."""
    inner = value(rng, rng.choice((2, 4, 12)))
    body = f'{{"event": "Fuzzed", "properties": {{"odd": {inner}}}}}'
    return Sample("odd properties", request(body.encode("utf-8", "surrogatepass")), EITHER)


def no_json(rng: random.Random, message: str) -> Sample:
    """Something that is no JSON, alone or inside of it."""
    wrong = rng.choice(NO_JSON)
    body = rng.choice(
        (wrong, b'{"event": "E", "properties": {"a": %s}}' % wrong, b'[{"event": "E"}, %s]' % wrong)
    )
    return Sample("no JSON", request(body, path=rng.choice(("/events", "/v1/batch"))), EITHER)


def batch(rng: random.Random, message: str) -> Sample:
    """Good and bad events in one request."""
    items = [
        plain_event(rng, f"{message}.{n}") if rng.random() < 0.6 else value(rng, 2).encode()
        for n in range(rng.randrange(12))
    ]
    return Sample("batch", request(b'{"batch": [%s]}' % b",".join(items), path="/v1/batch"), EITHER)


def lines(rng: random.Random, message: str) -> Sample:
    """NDJSON, some lines of which are nothing."""
    items = [
        rng.choice((plain_event(rng, f"{message}.{n}"), b"", b"{}", b"nope", b"\r"))
        for n in range(rng.randrange(6))
    ]
    return Sample("lines", request(b"\n".join(items), "Content-Type: application/x-ndjson"), EITHER)


def deep(rng: random.Random, message: str) -> Sample:
    """Deep nesting."""
    depth, (left, right) = rng.choice((30, 100, 1000, 60_000)), rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = left * depth + b"1" + right * depth
    return Sample("deep", request(b'{"event": "E", "properties": {"d": %s}}' % inner), EITHER)


@cache
def wide_body() -> bytes:
    return b'{"event": "Wide", "properties": {%s}}' % b",".join(b'"w%d": %d' % (n, n) for n in range(10_000))


def wide(rng: random.Random, message: str) -> Sample:
    """10,000 properties."""
    return Sample("wide", request(wide_body()), EITHER)


@cache
def bombs() -> tuple[tuple[str, bytes], ...]:
    """Small bytes that unpack to 50 MB and more."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    inner = b"".join(packer.compress(bytes(1_000_000)) for _ in range(50)) + packer.flush()
    return (
        ("gzip", inner),
        ("gzip, gzip", gzip.compress(inner)),
        ("deflate", zlib.compress(bytes(50_000_000))),
        ("zstd", zstandard.ZstdCompressor().compress(bytes(200_000_000))),
    )


def bomb(rng: random.Random, message: str) -> Sample:
    encoding, body = rng.choice(bombs())
    return Sample("bomb", request(body, f"Content-Encoding: {encoding}"), frozenset({400, 413, 415}))


PATHS = (
    "/", "/nothing", "/events/../events", "/%2e%2e/etc/passwd", "/ping", "/events?key=%ff", "//events",
    f"/v1/projects/{WEB_KEY}/settings", "/v1/" + "x" * 300, "/events?" + "a=b&" * 200,
)  # fmt: skip


def other_route(rng: random.Random, message: str) -> Sample:
    """Methods and paths of all kinds."""
    method = rng.choice(("GET", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"))
    path = rng.choice(PATHS)
    return Sample("route", request(b"", path=path, method=method), ANYTHING)


def wrong_key(rng: random.Random, message: str) -> Sample:
    return Sample(
        "key", request(b"{}", key=rng.choice(("", "x", "\xff", "k" * 500))), frozenset({401, 403, 400})
    )


FRAMED: tuple[tuple[float, Callable[[random.Random, str], Sample]], ...] = (
    (30, fine), (6, packed), (6, in_chunks), (5, pixel), (12, odd_event), (12, odd_properties), (10, no_json),
    (6, batch), (5, lines), (0.3, deep), (0.02, wide), (0.1, bomb), (5, other_route), (3, wrong_key),
)  # fmt: skip


# ---- framing

CHUNKED = "Transfer-Encoding: chunked"
INNER = b'POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n{"event": "Smuggled evil"}'
SMUGGLING: tuple[bytes, ...] = (
    request(b"0\r\n\r\n" + INNER, CHUNKED),
    request(b"0\r\n\r\n" + INNER, CHUNKED, "Transfer-Encoding: identity", length=-1),
    request(b"0\r\n\r\n" + INNER, "Transfer-Encoding: xchunked", length=-1),
    request(b"0\r\n\r\n" + INNER, "Transfer-Encoding : chunked", length=-1),
    request(b"0\r\n\r\n" + INNER, "Transfer-Encoding:\x0bchunked", length=-1),
    request(b"{}" + INNER, "Content-Length: 3"),
    request(b"{}" + INNER, "Content-Length: 2, 3", length=-1),
    request(b"{}" + INNER, "Content-Length: +2", length=-1),
    request(b"{}" + INNER, "Content-Length: 99999999999999999999", length=-1),
    request(b"{}" + INNER, "X-Folded: one\r\n two"),
    request(b"{}" + INNER, "X-Folded: one\r\n\tContent-Length: 0"),
    request(b"{}" + INNER, "X-Nul: a\0b"),
    request(b"{}" + INNER, "X-Return: a\rContent-Length: 7"),
    request(b"{}" + INNER).replace(b"\r\n", b"\n"),
    request(b"3\r\n{}\r\n0\r\n\r\n" + INNER, CHUNKED, length=-1),
    request(b"fffffffffffffffff\r\n{}" + INNER, CHUNKED, length=-1),
    request(b"-1\r\n{}" + INNER, CHUNKED, length=-1),
    request(b"{}", "Host: other") + INNER,
    request(b"{}").replace(b"HTTP/1.1", b"HTTP/9.9") + INNER,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    request(b"{}", *(f"X-{n}: y" for n in range(2000))),
)  # fmt: skip


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A request with a few things wrong."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randrange(1, 30)]
            case 2:
                out[at:at] = rng.randbytes(rng.randrange(1, 10))
            case 3:
                out[at:at] = rng.choice(
                    (b"\r\n", b"\n", b"\0", b":", b" ", b"chunked", b"\r\n\r\n", b"9" * 20)
                )
            case _:
                out[at:at] = out[at : at + rng.randrange(60)]
    return bytes(out) or b"x"


def smuggled(rng: random.Random) -> Sample:
    return Sample("smuggling", rng.choice(SMUGGLING), REFUSALS)


def broken(rng: random.Random) -> Sample:
    return Sample("mutated", mutated(rng, framed(rng, "").data[:3000]), ANYTHING)


def noise(rng: random.Random) -> Sample:
    return Sample("noise", rng.randbytes(rng.randrange(1, 400)), ANYTHING)


def framed(rng: random.Random, message: str) -> Sample:
    """A request of any kind that is framed well."""
    (make,) = rng.choices([make for _, make in FRAMED], [weight for weight, _ in FRAMED])
    return make(rng, message)


def connection(seed: int, number: int) -> Connection:
    """Everything that goes over connection ``number``."""
    rng = random.Random(f"{seed} {number}")
    requests = [framed(rng, f"z{number}-{n}") for n in range(rng.randrange(PIPELINE_MAX))]
    last = rng.choice((smuggled, broken, broken, noise))(rng) if rng.random() < 0.4 or not requests else None
    pieces = tuple(rng.choice((1, 3, 17, 200, 1500)) for _ in range(4)) if rng.random() < 0.05 else ()
    return Connection(requests, last, pieces, leaves=rng.random() < 0.03)
