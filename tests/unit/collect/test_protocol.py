"""Connections: the same answers however the bytes come, in order, within bounds and deadlines."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.kit.errors import Unavailable
from tests.unit.collect.harness import BROWSER, MEMORY, SECOND, SERVER, Answer, Bench, get, post

ORIGIN = "Origin: https://shop.example.com"


def chunked(body: bytes, *lines: str) -> bytes:
    wire = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
    return post("/v1/track", b"", "Transfer-Encoding: chunked", *lines, length=False) + wire + b"0\r\n\r\n"


GOOD = b'{"event":"x","anonymousId":"a1"}'
REQUESTS = st.sampled_from(
    [
        post(),
        post("/v1/track", GOOD, ORIGIN),
        post("/v1/track", GOOD, "X-Wavelength: 12"),
        post("/v1/track", b"{nonsense}"),
        post("/v1/batch", b'{"batch":[{"type":"page"},{"type":"track"},{"type":"page"}]}'),
        post("/events", b'{"event":"x"}\r\n{"event":"POST / HTTP/1.1\\r\\n\\r\\n"}\n'),
        post("/v1/track", GOOD, key=MEMORY),
        post("/v1/track", GOOD, ORIGIN, key=SERVER),
        post("/v1/track", GOOD, key="wrong-secret"),
        post("/v1/track", b'{"event":"x","writeKey":"%s"}' % BROWSER.encode(), key=""),
        chunked(GOOD),
        chunked(GOOD, ORIGIN),
        get(f"/pixel.gif?event=x&key={BROWSER}"),
        get(f"/pixel.gif?event=y&key={BROWSER}", "User-Agent: a"),
        get(f"/pixel.gif?event=y&key={MEMORY}", "User-Agent: b", "Sec-GPC: 1"),
        post("/v1/track", GOOD, "User-Agent: a", "Referer: https://a.b/", "Cookie: a=b"),
        post("/v1/track", GOOD, "User-Agent: b", "Referer: ", "Cookie: c=d"),
        post("/v1/track", GOOD, "User-Agent: \xfc", "Referer: " + "r" * 300, "Cookie: a=b"),
        post("/v1/track", GOOD, "User-Agent: a", "X-Forwarded-For: 1.2.3.4"),
        post("/v1/track", GOOD, "User-Agent: b", "X-Forwarded-For: 4.3.2.1, 203.0.113.9"),
        get("/ping"),
        get("/nope", "Content-Length: 5") + b"12345",
        post("/v1/track", b"", key=BROWSER),
        b"\r\n" + post(),
    ]
)
ENDS = st.sampled_from(
    [b"", post("/v1/track", GOOD, "Connection: close"), b"GET /ping HTTP/1.0\r\n\r\n", b"nonsense\r\n\r\n"]
)
CUTS = st.lists(st.integers(0, 5000), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


def played(pieces: list[bytes], commit_each: bool, **settings: Any) -> tuple[list[Answer], list[Any], bool]:
    """The answers to these bytes, what was appended, and whether the connection was ended."""
    bench = Bench(**settings)
    client = bench.client()
    for piece in pieces:
        client.send(piece)
        if commit_each:
            bench.log.commit()
    for _ in range(100):
        bench.log.commit()
    records = [record._replace(received_ns=0) for record in bench.log.records]
    assert bench.door.held_bytes == client.connection.held_bytes
    return client.answers(), records, client.transport.closed or client.transport.half_closed


@pytest.mark.slow
@given(st.lists(REQUESTS, max_size=6), ENDS, CUTS, st.booleans(), st.integers(1, 4))
def test_answers_do_not_depend_on_how_the_bytes_come(
    requests: list[bytes], end: bytes, places: list[int], commit_each: bool, pipeline_max: int
) -> None:
    one_by_one = played([*requests, end] if end else requests, commit_each=True, head_cache_bytes_max=0)
    together = played(cut(b"".join(requests) + end, places), commit_each, pipeline_max=pipeline_max)
    assert together == one_by_one
    assert len(one_by_one[0]) == len(requests) + bool(end)


@pytest.mark.slow
@given(st.lists(REQUESTS, min_size=1, max_size=4), st.integers(0, 3))
def test_remembered_heads_give_the_same_answers(requests: list[bytes], repeats: int) -> None:
    sent, trusted = requests * (repeats + 1), ["203.0.113.0/24"]
    remembered = played(sent, True, trusted_proxies=trusted)
    assert remembered == played(sent, True, trusted_proxies=trusted, head_cache_bytes_max=0)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_bytes_may_come_one_by_one(step: int) -> None:
    data = post("/v1/track", GOOD) + chunked(GOOD) + get("/ping")
    answers, records, ended = played([data[at : at + step] for at in range(0, len(data), step)], False)
    assert ([answer.status for answer in answers], len(records), ended) == ([200, 200, 200], 2, False)


def test_answer_that_need_not_wait_waits_for_those_before_it() -> None:
    bench = Bench()
    client = bench.client()
    client.send(post() + get("/ping") + post(key=MEMORY) + post() + get("/nope"))
    assert client.answers() == []
    first, bench.log.waiting = bench.log.waiting[:1], bench.log.waiting[1:]
    bench.door.release(first, None)
    assert [answer.status for answer in client.answers()] == [200, 200, 200]
    bench.log.commit()
    assert [answer.status for answer in client.answers()] == [200, 200, 200, 200, 404]


def test_each_pipelined_promise_is_broken_when_the_disk_fails() -> None:
    bench = Bench()
    client = bench.client()
    client.send(post() + get("/ping") + post())
    bench.log.commit(Unavailable("the disk failed", code="log_failed"))
    assert [answer.status for answer in client.answers()] == [503, 200, 503]


def test_client_that_is_gone_takes_no_commit_with_it() -> None:
    bench = Bench()
    gone, closing, there = bench.client(), bench.client(), bench.client()
    for client in (gone, closing, there):
        client.send(post() + post())
    gone.lose()
    closing.transport.closed = True  # the transport raises on write
    bench.log.commit()
    assert [answer.status for answer in there.answers()] == [200, 200]
    assert bench.door.stats.lost_answers == 4


def test_half_closed_client_still_gets_what_it_is_owed() -> None:
    bench = Bench(pipeline_max=1)
    client = bench.client()
    client.send(post() * 4)
    assert client.connection.eof_received() is True
    while len(client.answers()) < 4:
        assert not client.transport.closed
        bench.log.commit()
    assert [answer.status for answer in client.answers()] == [200] * 4 and client.transport.closed


def test_client_that_closes_while_nothing_is_owed_is_let_go() -> None:
    bench = Bench()
    client = bench.client()
    client.send(post()[:-5])
    assert not client.connection.eof_received()
    assert bench.door.held_bytes == 0


# -- keeping and closing


@pytest.mark.parametrize(
    ("version", "connection", "kept", "said"),
    [
        ("1.1", "", True, None),
        ("1.1", "keep-alive", True, None),
        ("1.1", "close", False, "close"),
        ("1.1", "TE, Close", False, "close"),
        ("1.0", "", False, "close"),
        ("1.0", "Keep-Alive", True, "keep-alive"),
    ],
)
def test_connection_is_kept_as_the_client_wants(
    version: str, connection: str, kept: bool, said: str | None
) -> None:
    bench = Bench()
    client = bench.client()
    lines = [f"Connection: {connection}"] if connection else []
    client.send(post("/v1/track", GOOD, *lines).replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
    bench.log.commit()
    (answer,) = client.answers()
    assert (answer.status, answer.headers.get("connection"), client.transport.closed) == (200, said, not kept)


def test_draining_ends_each_connection_with_its_answer() -> None:
    bench = Bench()
    client = bench.client()
    bench.door.leaving = True
    client.send(post() + post())
    assert not client.transport.closed
    bench.log.commit()
    (answer,) = client.answers()
    assert answer.headers["connection"] == "close" and client.transport.closed


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\nHost: x\n\n",
        b"POST / HTTP/1.1\r\nHost: x\n",
        b"nonsense\r\n\r\n",
        post("/v1/track", b"", "Transfer-Encoding: chunked", length=False) + b"zz\r\n",
        b"POST /v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_not_http_is_400_and_the_end(data: bytes) -> None:
    bench = Bench()
    client = bench.client()
    client.send(data, post())
    bench.log.commit()
    (answer,) = client.answers()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert client.transport.half_closed and not bench.log.records


def test_refused_connection_lingers_then_ends() -> None:
    bench = Bench()
    client = bench.client()
    client.send(b"nonsense\r\n\r\n")
    bench.now += 3 * SECOND
    client.connection.check(bench.now)
    assert client.transport.aborted


# -- bounds


def test_body_over_the_cap_is_413_before_it_is_read() -> None:
    bench = Bench(body_bytes_max=2000)
    for body in (b"x" * 2001, b"x" * 100_000):
        client = bench.client()
        client.send(post("/v1/track", body)[:1500])
        assert client.answers()[0].status == 413 and client.transport.half_closed
        client = bench.client()
        client.send(post("/v1/track", body))
        assert client.answers()[0].status == 413


def test_chunked_body_over_the_cap_is_413() -> None:
    bench = Bench(body_bytes_max=2000)
    client = bench.client()
    client.send(post("/v1/track", b"", "Transfer-Encoding: chunked", length=False), b"7d1\r\n")
    assert client.answers()[0].status == 413


@pytest.mark.parametrize("whole", [True, False])
def test_head_over_the_cap_is_431(whole: bool) -> None:
    bench = Bench(header_bytes_max=2000)
    client = bench.client()
    client.send(get("/ping", "Cookie: " + "x" * 2000)[: None if whole else -4])
    assert client.answers()[0].status == 431


def test_reading_stops_while_many_answers_are_owed() -> None:
    bench = Bench(pipeline_max=4)
    client = bench.client()
    client.send(post() * 20)
    assert not client.reads() and len(bench.log.records) == 5
    while len(client.answers()) < 20:
        bench.log.commit()
    assert client.reads() and len(bench.log.records) == 20


def test_reading_stops_while_the_client_does_not_read() -> None:
    bench = Bench()
    client = bench.client()
    client.connection.pause_writing()
    assert not client.reads()
    client.send(post(key=MEMORY))
    client.connection.resume_writing()
    assert client.reads() and len(client.answers()) == 1


def test_connection_over_the_cap_is_503() -> None:
    bench = Bench(connections_max=2)
    bench.client(), bench.client()
    third = bench.client()
    assert third.answers()[0].status == 503 and third.transport.half_closed
    third.lose()
    assert len(bench.connections) == 2


def test_many_incomplete_requests_cannot_fill_the_memory() -> None:
    bench = Bench(partial_bytes_max=1024 * 1024)
    clients = [bench.client() for _ in range(30)]
    for client in clients:
        client.send(post("/v1/track", b"x" * 100_000)[:-1])
    refused = [client for client in clients if client.answers()]
    assert {client.answers()[0].status for client in refused} == {503}
    assert 15 <= len(refused) <= 25 and bench.door.held_bytes <= 1024 * 1024
    for client in clients:
        client.lose()
    assert bench.door.held_bytes == 0


# -- deadlines


@pytest.mark.parametrize(
    ("data", "deadline_s", "status"),
    [
        (get("/ping")[:-2], 10, 408),
        (post()[:-1], 30, 408),
        (post("/v1/track", b"", "Transfer-Encoding: chunked", length=False) + b"5\r\n", 30, 408),
    ],
)
def test_slow_request_is_ended_though_bytes_keep_coming(data: bytes, deadline_s: int, status: int) -> None:
    bench = Bench()
    client = bench.client()
    client.send(data[:20], data[20:])
    for _ in range(deadline_s):
        bench.now += SECOND
        client.connection.check(bench.now)
        assert not client.answers()
    bench.now += SECOND
    client.connection.check(bench.now)
    assert client.answers()[0].status == status and client.transport.half_closed


def test_idle_connection_is_closed_but_not_one_that_waits_for_the_disk() -> None:
    bench = Bench()
    idle, waiting = bench.client(), bench.client()
    waiting.send(post())
    bench.now += 76 * SECOND
    idle.connection.check(bench.now)
    waiting.connection.check(bench.now)
    assert idle.transport.closed and not waiting.transport.closed


def test_client_that_does_not_read_is_cut_off() -> None:
    bench = Bench()
    client = bench.client()
    client.connection.pause_writing()
    bench.now += 31 * SECOND
    client.connection.check(bench.now)
    assert client.transport.aborted


# -- 100-continue


def test_continue_is_said_before_the_body() -> None:
    bench = Bench()
    client = bench.client()
    request = post("/v1/track", GOOD, "Expect: 100-continue")
    client.send(request[: -len(GOOD)])
    assert [answer.status for answer in client.answers()] == [100]
    client.send(GOOD)
    bench.log.commit()
    assert [answer.status for answer in client.answers()] == [100, 200]


def test_refusal_takes_the_place_of_continue() -> None:
    bench = Bench()
    for request, status in (
        (post("/v1/track", GOOD, "Expect: 100-continue", key="wrong-secret"), 401),
        (post("/nope", GOOD, "Expect: 100-continue"), 404),
        (post("/v1/track", b"x" * 2_000_000, "Expect: 100-continue"), 413),
    ):
        client = bench.client()
        client.send(request[: request.index(b"\r\n\r\n") + 4])
        assert [answer.status for answer in client.answers()] == [status] and client.transport.half_closed


def test_other_expectation_is_417() -> None:
    assert Bench().ask(post("/v1/track", GOOD, "Expect: magic")).status == 417


# -- PROXY protocol

LINE = b"PROXY TCP4 198.51.100.1 10.0.0.1 1 2\r\n"
HEADER = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f" + bytes([198, 51, 100, 1]) + bytes(8) + b"\4\0\0"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


def behind(version: str) -> Bench:
    """A door that believes 10.0.0.0/8."""
    return Bench(proxy_protocol=version, trusted_proxies=["10.0.0.0/8"])


def ask_from(bench: Bench, peer: str, data: bytes) -> Answer:
    """One request behind whatever stands before it."""
    client = bench.client(peer)
    client.send(data)
    bench.log.commit()
    (answer,) = client.answers()
    return answer


@pytest.mark.parametrize(("version", "told"), [("v1", LINE), ("v2", HEADER)])
def test_proxy_header_tells_the_client_however_it_is_cut(version: str, told: bytes) -> None:
    data = told + post()
    for at in range(len(told) + 20):
        bench = behind(version)
        client = bench.client("10.0.0.7")
        client.send(data[:at], data[at:]) if at else client.send(data)
        assert bench.log.records[0].address[-4:] == bytes([198, 51, 100, 1])
        assert bench.door.held_bytes == 0


def test_proxy_header_counts_once_and_for_all_requests_of_its_connection() -> None:
    bench = behind("v2")
    client = bench.client("10.0.0.7")
    client.send(*(bytes([byte]) for byte in HEADER))
    assert bench.door.held_bytes == 0
    client.send(post(), post("/v1/track", GOOD, "X-Forwarded-For: 1.2.3.4"))
    assert {record.address[-4:] for record in bench.log.records} == {bytes([198, 51, 100, 1])}
    client.send(HEADER)
    bench.log.commit()
    assert [answer.status for answer in client.answers()] == [200, 200, 400]


def test_proxy_that_speaks_for_itself_is_the_client_and_believed() -> None:
    bench = behind("v2")
    ask_from(bench, "10.0.0.7", LOCAL + post())
    ask_from(bench, "10.0.0.7", LOCAL + post("/v1/track", GOOD, "X-Forwarded-For: 1.2.3.4"))
    assert [tuple(one.address[-4:]) for one in bench.log.records] == [(10, 0, 0, 7), (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("version", "peer", "data", "reason"),
    [
        ("v1", "10.0.0.7", post(), "expected a PROXY v1 line"),
        ("v1", "203.0.113.7", LINE + post(), "expected a trusted proxy"),
        ("v1", "10.0.0.7", HEADER + post(), "expected a PROXY v1 line"),
        ("v2", "10.0.0.7", post(), "expected a PROXY v2 header"),
        ("v2", "203.0.113.7", HEADER + post(), "expected a trusted proxy"),
        ("v2", "10.0.0.7", LINE + post(), "expected a PROXY v2 header"),
        ("v2", "10.0.0.7", HEADER[:14] + b"\0\x0b" + HEADER[16:] + post(), "at least 28 bytes"),
    ],
)
def test_connection_without_the_header_or_from_elsewhere_is_refused_and_counted(
    version: str, peer: str, data: bytes, reason: str
) -> None:
    bench = behind(version)
    answer = ask_from(bench, peer, data)
    assert (answer.status, answer.json["error"]) == (400, "proxy_protocol")
    assert reason in answer.json["reason"]
    assert bench.log.records == []
    assert bench.door.stats.refused == {"proxy_protocol": 1}


@pytest.mark.parametrize("told", [LINE, HEADER])
def test_proxy_header_where_none_is_expected_is_400(told: bytes) -> None:
    bench = behind("off")
    assert ask_from(bench, "10.0.0.7", told + post()).status == 400
    assert bench.log.records == []


def test_proxy_header_that_does_not_come_to_its_end_is_408_and_holds_nothing() -> None:
    bench = behind("v2")
    client = bench.client("10.0.0.7")
    client.send(HEADER[:20])
    assert bench.door.held_bytes == 20
    bench.now += 11 * SECOND
    client.connection.check(bench.now)
    assert [answer.status for answer in client.answers()] == [408]
    assert bench.door.held_bytes == 0
