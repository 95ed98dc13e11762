"""Heads: remembered by their bytes, with the same meaning as when they are parsed; strict about what is HTTP."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.collect.heads import Cache, Heads
from headwater.collect.parse import Head
from headwater.dialects.pixel import without_key
from headwater.kit.errors import Rejected


def plan(head: Head) -> tuple[Head, bytes | None, bool]:
    """A plan that is the head itself, but for a pixel's query."""
    target, _, query = head.target.partition(b"?")
    if target != b"/pixel.gif":
        return head, None, True
    secret, query = without_key(query)
    return head._replace(target=target + secret), query, False


def heads(bytes_max: int = 1 << 20) -> Heads[Head]:
    return Heads(plan, bytes_max=bytes_max)


def meaning(found: Heads[Head], head: bytes, trusted: bool = False) -> Any:
    """All that a head says, or the refusal."""
    try:
        entry, length = found.look(head + b"\r\n\r\n", 0, len(head), trusted)
    except Rejected as rejected:
        return rejected.fields.get("status", 400)
    return entry.plan, entry.kept, entry.forwarded, length, entry.query


NAMES = st.sampled_from(
    ["Content-Length", "content-length", "CONTENT-LENGTH", "Host", "host", "X-Wavelength", "Length", "User-Agent",
     "user-agent", "Referer", "X-Real-IP", "Origin", "Transfer-Encoding", "Connection", "X-Forwarded-For",
     "X-Write-Key", "DNT", "Cookie", "Expect"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["0", "1", "12", "007", "5 ", " 5", "+5", "-1", "", "5,5", "0x5", "99999999999", "x", "chunked", "close", "a: b",
     "Content-Length: 7", "ength: 9", "keep-alive", "gzip, chunked", "1.2.3.4",
     "a\x7f", "\xfc", "x\ty ", "a\0b", "a\rb", "a\nb"]
)  # fmt: skip
SEPARATORS = st.sampled_from([": ", ":", ":  ", " : ", ": \t"])
LINES = st.lists(st.tuples(NAMES, SEPARATORS, VALUES).map("".join), max_size=6)
STARTS = st.sampled_from(
    ["POST /v1/t HTTP/1.1", "GET /ping HTTP/1.1", "POST /ength: 5 HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/2.0",
     "POST /ength:%205 HTTP/1.1", "GET /pixel.gif?event=x&key=a HTTP/1.1", "GET /pixel.gif?event=x&key=b HTTP/1.1",
     "GET /pixel.gif?event=x#y HTTP/1.1", "GET /pixel.gif?a b HTTP/1.1", "GET /pixel.gif?a HTTP/1.0",
     "GET /pixel.gif?\x7f HTTP/1.1", "GET /pixel.gif? HTTP/1.1", "get / HTTP/1.1", "GET /", "", "CONNECT a:1 HTTP/1.1"]
)  # fmt: skip
HEADS = st.tuples(STARTS, LINES).map(
    lambda pair: "\r\n".join([pair[0], "Host: x", *pair[1]]).encode("latin-1")
)


@pytest.mark.slow
@given(st.lists(st.tuples(HEADS, st.booleans()), min_size=1, max_size=12))
def test_remembered_heads_mean_what_parsed_ones_mean(seen: list[tuple[bytes, bool]]) -> None:
    remembering = heads()
    for head, trusted in [*seen, *seen, *seen]:
        assert meaning(remembering, head, trusted) == meaning(heads(), head, trusted), head


@given(HEADS, st.integers(0, 10**9), st.integers(0, 10**9))
def test_only_the_length_differs_between_two_lengths(head: bytes, one: int, other: int) -> None:
    remembering = heads()
    for length in (one, one, one, other):
        with_length = head + b"\r\nContent-Length: %d" % length
        assert meaning(remembering, with_length) == meaning(heads(), with_length)


def test_repeated_head_is_parsed_twice_only() -> None:
    found = heads()
    for length in range(100):
        assert meaning(found, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d" % length)[3] == length
    assert found.parsed == 2


def test_head_that_comes_once_is_not_kept() -> None:
    found = heads()
    for number in range(100):
        meaning(found, b"GET / HTTP/1.1\r\nHost: x\r\nX-Number: %d" % number)
    assert not found.entries.young and not found.shapes.young


def test_heads_of_one_shape_are_parsed_twice_only() -> None:
    found = heads()
    for number in range(100):
        agent, cookie = b"\r\nUser-Agent: agent %d" % number, b"\r\ncookie: c=%d" % number
        told = meaning(found, b"GET / HTTP/1.1\r\nHost: x" + agent + cookie)
        assert told[1] == {"user-agent": b"agent %d" % number}
    assert found.parsed == 2 and len(found.shapes.young) == 1


def test_pixels_of_one_shape_are_parsed_twice_only() -> None:
    found = heads()
    for number in range(100):
        told = meaning(found, b"GET /pixel.gif?event=x&n=%d&key=a HTTP/1.1\r\nHost: x" % number)
        assert told[0].target == b"/pixel.gifa" and told[4] == b"event=x&n=%d" % number
    assert found.parsed == 2 and not found.entries.young


def test_empty_length_is_refused_though_the_rest_is_remembered() -> None:
    found = heads()
    for _ in range(3):
        meaning(found, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5")
    assert meaning(found, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ") == 400


@pytest.mark.parametrize("length", [b"", b"\r\nContent-Length: 5"])
def test_what_a_trusted_proxy_says_is_not_believed_of_others(length: bytes) -> None:
    found = heads()
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https" + length
    for _ in range(4):
        assert meaning(found, head, trusted=True)[2] is not None
        assert meaning(found, head, trusted=True)[0].https
        assert meaning(found, head, trusted=False)[2] is None
        assert not meaning(found, head, trusted=False)[0].https


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\ncontent-length: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding : chunked",
        b"Content-Length: 5\r\n folded: 1",
        b"X: 1\r\n\tfolded",
        b"X: a\nContent-Length: 5",
        b"X: a\rContent-Length: 5",
        b"X: a\0b",
        b"X Y: 1",
        b": 1",
        b"no colon",
        b"Host: other",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"X-Write-Key: a\r\nX-Write-Key: b",
    ],
)
def test_smuggling_shapes_are_refused(lines: bytes) -> None:
    found = heads()
    for _ in range(3):
        assert meaning(found, b"POST / HTTP/1.1\r\nHost: x\r\n" + lines) == 400


def test_lists_that_come_on_several_lines_are_joined() -> None:
    lines = b"\r\nX-Forwarded-For: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\nX-Forwarded-For: 3.3.3.3"
    forwarded = meaning(heads(), b"GET / HTTP/1.1\r\nHost: x" + lines, trusted=True)[2]
    assert forwarded.x_forwarded_for == "1.1.1.1, 2.2.2.2, 3.3.3.3"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\nA: b", 400),
        (b"GET / HTTP/2.0\r\nHost: x", 505),
        (b"GET /", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"GET / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked", 501),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999", 413),
    ],
)
def test_what_cannot_be_answered_has_its_status(head: bytes, status: int) -> None:
    assert meaning(heads(), head) == status


def test_parser_goes_on_after_a_refusal_and_after_an_upgrade() -> None:
    found = heads()
    good = b"GET /a HTTP/1.1\r\nHost: x"
    for bad in (
        b"nonsense",
        good + b"\r\nUpgrade: h2c\r\nConnection: Upgrade",
        good + b"\r\nTransfer-Encoding: chunked",
    ):
        meaning(found, bad)
        told = meaning(found, good)[0]
        assert told.target == b"/a" and told.facts == {"host": b"x"}


def test_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache: Cache[bytes, int] = Cache(1000)
    used = b"used"
    cache.put(used, 1, 100)
    for number in range(1000):
        cache.put(b"%d" % number, number, 100)
        assert cache.get(used) is not None
        assert len(cache.young) <= 10 and len(cache.old) <= 10
    cache.put(b"large", 1, 1001)
    assert cache.get(b"large") is None


def test_what_is_met_once_is_not_kept() -> None:
    cache: Cache[bytes, int] = Cache(1000)
    for _ in range(2):
        assert cache.get(b"a") is None
        cache.meet(b"a", 1, 100)
    assert cache.get(b"a") == 1


@pytest.mark.parametrize(
    ("usual", "odd"),
    [
        (
            b"\r\nUser-Agent: %s",
            [b"a\x7f", b"a\0b", b"\x01", b"a\nb", b"a\rb", b"a\r\n b", b"\xff", b"", b"a\tb", b" a "],
        ),
        (b"\r\nCookie: %s", [b"a\x7f", b"a\0b", b"a\r\nCookie: b", b"a\r\nUser-Agent: b"]),
        (b"\r\nX-Forwarded-For: %s", [b"1.1.1.1, 2.2.2.2", b"a\0", b"1.1.1.1\r\nX-Forwarded-For: 2.2.2.2"]),
    ],
)
def test_odd_values_in_a_known_shape_mean_what_they_mean_alone(usual: bytes, odd: list[bytes]) -> None:
    found = heads()
    start = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5"
    for number in range(4):
        meaning(found, start + usual % b"%d" % number, True)
    for value in odd:
        assert meaning(found, start + usual % value, True) == meaning(heads(), start + usual % value, True)


@pytest.mark.parametrize(
    "line",
    [b"event=x#y HTTP/1.1", b"event=x y HTTP/1.1", b"event=x  HTTP/1.1", b"event=x HTTP/1.0", b"event=x HTTP/1.2",
     b"event=x HTTP/1.1 HTTP/1.1", b"event=\xfc HTTP/1.1", b"event=\x7f HTTP/1.1", b"event=x\tHTTP/1.1", b"event=x",
     b" HTTP/1.1", b"?&?=\"<>^`{|}\\ HTTP/1.1"],
)  # fmt: skip
def test_odd_queries_in_a_known_shape_mean_what_they_mean_alone(line: bytes) -> None:
    found = heads()
    for number in range(4):
        meaning(found, b"GET /pixel.gif?event=%d HTTP/1.1\r\nHost: x" % number)
    head = b"GET /pixel.gif?" + line + b"\r\nHost: x"
    assert meaning(found, head) == meaning(heads(), head)
