"""The door against bytes that nobody should send: no worker dies, no wrong status, no memory that grows, and what
was sent beside it goes through.

Statuses are looked at from outside; the workers' pids before and after are the oracle for "no crash".
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import run as fuzz
from tests.fuzz.draw import REFUSALS
from tests.journeys.running import Running, unique, wait_for
from tests.journeys.wire import Wire, request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SEED = int(os.environ.get("HEADWATER_SEED", "20261121"))
FUZZ_CONNECTIONS = 200
WORKER_KIB_MAX = 120 * 1024
DEADLINES = "header_deadline_s: 1.0, body_deadline_s: 1.5, idle_deadline_s: 20.0"


@pytest.fixture(scope="module")
def door(make_shared_node: Callable[..., Running]) -> Iterator[Running]:
    node = make_shared_node(door=f"{DEADLINES}, header_bytes_max: 8192, body_bytes_max: 524288", workers=2)
    node.start()
    yield node


@pytest.fixture(autouse=True)
def workers_live_on(door: Running) -> Iterator[None]:
    """After each test: the same processes, behind the door too, workers within their memory, and the door is open."""
    before, workers = sorted(door.pids()), door.pids(" collect ")
    assert len(workers) == 2
    yield
    assert sorted(door.pids()) == before, door.log()
    for pid in workers:
        assert resident_kib(pid) < WORKER_KIB_MAX
    with Wire(door.collect) as wire:
        wire.send(request(b'{"event": "Still open"}'))
        answer = wire.answer()
        assert answer is not None
        assert answer.status == 200, answer


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"{pid} has no memory")


def refused(door: Running, data: bytes, *statuses: int) -> None:
    """One request that must be refused so, after which the connection does not take more of the same bytes."""
    with Wire(door.collect) as wire:
        wire.send(data)
        wire.half_close()
        answers = wire.answers()
    assert answers, f"no answer to {data[:80]!r}"
    assert answers[0].status in statuses, answers
    assert len(answers) == 1, f"more than one answer, so the bytes were taken for two requests: {answers}"
    told = answers[0].json
    assert told["ok"] is False
    assert told["reason"], told


# ---- requests that proxies and servers may read differently (smuggling)

INNER = b'POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n{"event": "Smuggled evil"}'
CHUNKED = b"0\r\n\r\n"
ENCODING = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request(CHUNKED + INNER, ENCODING), id="length-and-chunked"),
        pytest.param(request(CHUNKED, ENCODING, "Transfer-Encoding: identity", length=-1), id="two-encodings"),
        pytest.param(request(CHUNKED, "Transfer-Encoding: xchunked", length=-1), id="unknown-encoding"),
        pytest.param(request(CHUNKED, "Transfer-Encoding: chunked, identity", length=-1), id="chunked-not-last"),
        pytest.param(request(CHUNKED, "Transfer-Encoding : chunked", length=-1), id="space-before-colon"),
        pytest.param(request(b"{}", "Content-Length: 3"), id="two-lengths"),
        pytest.param(request(b"{}", "Content-Length: 2, 3", length=-1), id="list-of-lengths"),
        pytest.param(request(b"{}", "Content-Length: +2", length=-1), id="length-with-sign"),
        pytest.param(request(b"{}", "Content-Length: -2", length=-1), id="negative-length"),
        pytest.param(request(b"{}", "Content-Length: 0x2", length=-1), id="hexadecimal-length"),
        pytest.param(request(b"{}", "Content-Length: 99999999999999999999999", length=-1), id="endless-length"),
        pytest.param(request(b"{}", "X-Folded: one\r\n two"), id="obs-fold"),
        pytest.param(request(b"{}", "X-Nul: a\0b"), id="nul-in-header"),
        pytest.param(request(b"{}", "X-Return: a\rContent-Length: 7"), id="bare-cr"),
        pytest.param(request(b"{}", "Bad Name: x"), id="space-in-name"),
        pytest.param(request(b"{}", ": nameless"), id="no-name"),
        pytest.param(request(b"{}").replace(b"\r\n", b"\n"), id="bare-lf"),
        pytest.param(request(b"{}", path="/eve nts"), id="space-in-path"),
        pytest.param(request(b"{}").replace(b"HTTP/1.1", b"HTTP/9.9"), id="version-9"),
        pytest.param(request(b"{}", "Host: other"), id="two-hosts"),
        pytest.param(request(b"{}").replace(b"Host: collector.test\r\n", b""), id="no-host"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), id="tls-hello"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http-2-preface"),
        pytest.param(b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="long-path"),
        pytest.param(request(b"{}", *(f"X-{n}: y" for n in range(2000))), id="many-headers"),
        pytest.param(request(b"3\r\n{}\r\n0\r\n\r\n", ENCODING, length=-1), id="chunk-without-its-end"),
        pytest.param(request(b"zz\r\n{}\r\n0\r\n\r\n", ENCODING, length=-1), id="chunk-size-no-number"),
        pytest.param(request(b"ffffffffffffffff1\r\n{}", ENCODING, length=-1), id="endless-chunk"),
    ],
)  # fmt: skip
def test_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed(
    door: Running, data: bytes
) -> None:
    refused(door, data, *REFUSALS)


def test_chunked_body_is_read_whole(door: Running) -> None:
    chunks = b'8;ext=1\r\n{"event"\r\n3\r\n: "\r\na\r\nChunked on\r\n2\r\n"}\r\n0\r\nX-Trailer: y\r\n\r\n'
    with Wire(door.collect) as wire:
        wire.send(
            request(chunks, "Transfer-Encoding: chunked", length=-1) + request(b'{"event": "Chunked two"}')
        )
        first, second = wire.answer(), wire.answer()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 200)
    door.wait_rows(2, where="event in ('Chunked on', 'Chunked two')")


def test_pipelined_requests_are_answered_in_order(door: Running) -> None:
    asked = [request(json.dumps({"event": "Pipelined", "properties": {"n": n}}).encode()) for n in range(20)]
    asked[7] = request(b"", path="/nothing", method="GET")
    with Wire(door.collect) as wire:
        wire.send(b"".join(asked))
        statuses = [answer.status for _ in asked if (answer := wire.answer()) is not None]
    assert statuses == [200] * 7 + [404] + [200] * 12


def test_expect_continue_is_answered_before_the_body(door: Running) -> None:
    whole = request(b'{"event": "Awaited"}', "Expect: 100-continue")
    head, body = whole[: whole.index(b"\r\n\r\n") + 4], whole[whole.index(b"\r\n\r\n") + 4 :]
    with Wire(door.collect) as wire:
        wire.send(head)
        first = wire.answer()
        wire.send(body)
        second = wire.answer()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (100, 200)
    refused(door, request(b"{}", "Expect: the-unexpected"), 417)


# ---- time and size


def test_slow_head_is_closed_at_its_deadline(door: Running) -> None:
    started = time.monotonic()
    with Wire(door.collect, timeout_s=10) as wire:
        wire.send(b"POST /events HTTP/1.1\r\nHost: x\r\n")
        while time.monotonic() - started < 8 and wire.send(b"X-Slow: loris\r\n"):
            if wire.closed_within(0.2):
                break
        assert wire.ended
    assert 0.8 < time.monotonic() - started < 6


def test_slow_body_is_closed_at_its_deadline(door: Running) -> None:
    started = time.monotonic()
    with Wire(door.collect, timeout_s=10) as wire:
        wire.send(request(b'{"event"', length=400))
        while time.monotonic() - started < 8 and wire.send(b" "):
            answer = wire.answer(timeout_s=0.2)
            if answer is not None or wire.ended:
                break
    assert answer is not None
    assert answer.status == 408
    assert 1.2 < time.monotonic() - started < 6


def test_slow_connections_do_not_hold_up_others(door: Running) -> None:
    slow = [socket.create_connection(("127.0.0.1", door.collect)) for _ in range(200)]
    try:
        for number, one in enumerate(slow):
            one.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\n"[: 5 + number % 20])
        started = time.monotonic()
        for _ in range(10):
            assert door.post("/events", {"event": "Beside the slow"})[0] == 200
        assert time.monotonic() - started < 3
    finally:
        for one in slow:
            one.close()


def test_clients_that_leave_take_nothing_with_them(door: Running) -> None:
    """Reset in the head, in the body, and before the answer: no commit is stuck, no descriptor is left (speed.md §1.7).
    Half-closed clients get their answers, and others are served meanwhile."""
    before = fuzz.resources(door)
    owed: set[str] = set()
    for number in range(60):
        for kind in ("head", "body", "answer"):
            data = request(json.dumps({"event": "Left", "messageId": f"{kind}-{number}"}).encode())
            gone = socket.create_connection(("127.0.0.1", door.collect))
            gone.sendall({"head": data[:30], "body": data[:-5], "answer": data}[kind])
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
        with Wire(door.collect) as half:
            half.send(
                b"".join(
                    request(b'{"event": "Left", "messageId": "half-%d-%d"}' % (number, n)) for n in range(3)
                )
            )
            half.half_close()
            assert [answer.status for answer in half.answers()] == [200] * 3
            assert half.ended
            owed |= {f"half-{number}-{n}" for n in range(3)}
    assert all(stream["holds"] for stream in door.wait_settled())
    there = unique(
        row["message_id"] for row in door.sql("select message_id from events where event = 'Left'")
    )
    assert owed <= there
    assert not any(name.startswith(("head", "body")) for name in there)

    def given_back() -> bool:
        return all(now[0] <= before[pid][0] + 2 for pid, now in fuzz.resources(door).items())

    wait_for(given_back, 10, lambda: f"{before} {fuzz.resources(door)}")


def test_body_above_the_limit_is_refused_before_it_is_sent(door: Running) -> None:
    with Wire(door.collect) as wire:
        wire.send(request(b"{", length=10_000_000))
        answer = wire.answer()
    assert answer is not None
    assert answer.status == 413
    assert "524288" in answer.json["reason"]


def gzip_bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [b'{"event": "', *([b"x" * 1_000_000] * megabytes)]
    return b"".join(map(packer.compress, pieces)) + packer.flush()


def zstd_bomb() -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(bytes(400_000_000))


def test_bombs_are_refused_without_being_unpacked(door: Running) -> None:
    before = max(resident_kib(pid) for pid in door.pids(" collect "))
    for encoding, bomb in (
        ("gzip", gzip_bomb(300)),
        ("zstd", zstd_bomb()),
        ("deflate", zlib.compress(bytes(100_000_000))),
    ):
        started = time.monotonic()
        refused(door, request(bomb, f"Content-Encoding: {encoding}"), 413)
        assert time.monotonic() - started < 3, encoding
    assert max(resident_kib(pid) for pid in door.pids(" collect ")) < before + 30_000
    refused(door, request(gzip_bomb(1)[:-9], "Content-Encoding: gzip"), 400)
    refused(door, request(b"no gzip", "Content-Encoding: gzip"), 400)


# ---- bodies

DEEP = 60_000


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"event": "E", "properties": ' + b"[" * DEEP + b"]" * DEEP + b"}", id="deep-arrays"),
        pytest.param(
            b'{"event": "E", "properties": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", id="deep-objects"
        ),
        pytest.param(b"[" * DEEP, id="never-closed"),
        pytest.param(b'{"event": "E", "properties": {"a": "\xff\xfe"}}', id="invalid-utf-8"),
        pytest.param(b'{"event": "E\x00"}', id="raw-nul"),
        pytest.param(b'\xef\xbb\xbf{"event": "E"', id="byte-order-mark"),
        pytest.param('{"event": "E"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"event": "E", "properties": {"a": NaN}}', id="nan"),
        pytest.param(b'{"event": "E", "properties": {"a": 01}}', id="leading-zero"),
        pytest.param(b'{"event": "E",}', id="trailing-comma"),
        pytest.param(b"{'event': 'E'}", id="single-quotes"),
        pytest.param(b'{"event": "E"} {"event"', id="one-and-a-half"),
        pytest.param(b'{"event": {"a": 1}}', id="event-is-an-object"),
        pytest.param(b'{"event": "E", "messageId": [1]}', id="message-id-is-a-list"),
        pytest.param(b'{"event": "E", "anonymousId": "' + b"x" * 5000 + b'"}', id="long-id"),
        pytest.param(b"null", id="null"),
        pytest.param(b"17", id="number"),
        pytest.param(b'"text"', id="text"),
        pytest.param(bytes(1000), id="zeros"),
    ],
)
def test_body_that_is_no_event_is_400_with_the_reason(door: Running, body: bytes) -> None:
    refused(door, request(body), 400)


ODD: dict[str, tuple[str, dict[str, Any]]] = {
    "lone-surrogates": ('{"bad": "a\\ud800b", "good": 1}', {"good": 1}),
    "escaped-nul": ('{"bad": "a\\u0000b", "good": 1}', {"good": 1}),
    "duplicate-keys": ('{"twice": 1, "twice": 2, "good": 1}', {"twice": 2, "good": 1}),
    "huge-numbers": ('{"big": 123456789012345678901234567890, "more": 1e308, "good": 1}', {"more": 1e308, "good": 1}),
    "beyond-doubles": ('{"beyond": 1e999, "tiny": 1e-999, "good": 1}', {"good": 1}),
    "odd-names": ('{"": 1, "_hw_seq": 2, "select": 3, "a b": 4, "\\u0000": 5, "good": 1}', {"select": 3, "good": 1}),
    "standard-names": ('{"message_id": "x", "received_at": "y", "key_id": "z", "good": 1}', {"good": 1}),
}  # fmt: skip
DEAD = {"beyond-doubles"}
"""Read as JSON at the door, but no reader of processing knows such a number: a dead letter says so."""


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_stored_or_dead_but_never_lost(door: Running, name: str) -> None:
    properties, there = ODD[name]
    body = f'{{"event": "Odd", "messageId": "odd-{name}", "properties": {properties}}}'.encode()
    status, reply = door.post("/events", body)
    if status == 400:
        assert reply["reason"]
        return
    assert status == 200
    found: list[dict[str, Any]] = []
    place, _, following = reply["receipt"].rpartition("-")
    origin = f"{place}-{int(following) - 1}"

    def landed() -> bool:
        found[:] = door.sql(f"select * from events where message_id = 'odd-{name}'")
        return bool(found) or door.command("dead", "show", origin).returncode == 0

    wait_for(landed, 20, door.log, interval_s=0.2)
    if not found:
        assert name in DEAD, f"{name} went to the dead letters"
        return
    (row,) = found
    rest = unmapped(row)  # where another test has used up the columns
    assert {column: row.get(column, rest.get(f"properties.{column}")) for column in there} == there
    assert (row["message_id"], row["key_id"]) == (f"odd-{name}", "web")


def unmapped(row: dict[str, Any]) -> dict[str, Any]:
    """What found no column."""
    told = row["_unmapped"]
    return dict(json.loads(told) if isinstance(told, str) else told or {})


def test_ten_thousand_properties_stay_within_the_columns(door: Running) -> None:
    many = {f"wide_{n}": n for n in range(10_000)}
    assert door.post("/events", {"event": "Wide", "messageId": "wide", "properties": many})[0] == 200
    door.wait_rows(1, where="message_id = 'wide'")
    (row,) = door.sql("select * from events where message_id = 'wide'")
    kept = {name: value for name, value in row.items() if name.startswith("wide_")}
    assert len(kept) < 1000
    assert len(kept) + len(unmapped(row)) >= 10_000
    assert (
        door.post("/events", {"event": "Narrow", "messageId": "narrow", "properties": {"late": 1}})[0] == 200
    )
    door.wait_rows(1, where="message_id = 'narrow'")


# ---- chance


def test_drawn_requests_get_only_the_answers_that_they_may(door: Running) -> None:
    """The bounded share of `make fuzz` (tests/fuzz): any body, bombs, smuggling, random bytes, pipelined."""
    tally = fuzz.Tally(SEED)
    fuzz.run(door, tally, range(FUZZ_CONNECTIONS))
    assert tally.checked > FUZZ_CONNECTIONS
    assert {200, 400, 401, 404, 413, 431} <= tally.statuses.keys()
    tally.owed.add("never-sent")  # it sees what is not there
    with pytest.raises(fuzz.Wrong, match=r"1 of .* are no rows"):
        fuzz.landed(door, tally, {"accepted": 0})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=20,
)
NAMED = st.sampled_from(
    ["event", "type", "messageId", "anonymousId", "userId", "properties", "traits", "context", "timestamp", "batch"]
)  # fmt: skip
BODIES = st.dictionaries(NAMED, JSON_VALUES | st.sampled_from(["track", "page", "Name"]), max_size=8)


def test_any_json_is_an_event_or_a_refusal_and_is_accounted_for(door: Running) -> None:
    told = {s["stream"]: s for s in door.wait_settled()}.get("web", {"accepted": 0})
    accepted = refusals = 0

    @settings(
        max_examples=150,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        BODIES | st.lists(BODIES, max_size=4),
        st.sampled_from(["/events", "/v1/track", "/v1/batch", "/v1/identify"]),
    )
    def send(body: Any, path: str) -> None:
        nonlocal accepted, refusals
        # json.dumps writes NaN and lone surrogates, as careless clients do
        status, reply = door.post(path, json.dumps(body).encode())
        assert status in (200, 400), (body, path, reply)
        assert reply["ok"] is (status == 200)
        if status == 200:
            accepted += reply["accepted"]
            refusals += len(reply.get("refused", []))

    send()
    assert accepted > 20
    after = {s["stream"]: s for s in door.wait_settled()}["web"]
    assert after["holds"] is True, after
    assert after["accepted"] - told["accepted"] >= accepted + refusals
    assert after["delivered"] + after["duplicate"] + after["dead"] == after["accepted"]
    wait_for(lambda: door.status_of(door.ops, "/ready") == 200, 10, door.log)
