"""One worker on real sockets and a real log: durable answers, drain, clients that misbehave, a fuzzed door."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.collect.keys import KeyTable
from headwater.collect.settings import CollectSettings
from headwater.collect.worker import CollectWorker, bound_sockets, new_loop
from headwater.config.control import HELD_TOO_FEW, NOT_HELD, ControlPage, Held
from headwater.event.position import WriterId
from headwater.event.record import decode_payload
from headwater.kit import memory
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import SeededRng
from headwater.kit.threads import Thread
from headwater.log import block
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from tests.unit.collect.harness import KEYS, MEMORY, Answer, get, post, read_answers

SECRET = Secret(0x5EC2E7)

LOOPS = [asyncio.new_event_loop, new_loop]
SEGMENT_BYTES = 16 * 1024 * 1024
LOG_ID = 99


class Running:
    """A worker in a loop of its own; ``play`` runs a client's part."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, **given: Any) -> None:
        self.loop = loop
        self.folder = folder
        self.threads = [Thread("prepare"), Thread("commit")]
        self.control = ControlPage.in_memory()
        self.reports: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        clock = SystemClock()
        self.worker = CollectWorker(
            CollectSettings(listen="127.0.0.1:0", **given),
            KeyTable.build(KEYS, rng=SeededRng(1), read=lambda path: ""),
            blocks=BlockWriter(
                SystemDisk(),
                clock,
                str(folder),
                WriterId(1),
                LOG_ID,
                start=1,
                offset_ns=0,
                segment_bytes=SEGMENT_BYTES,
                submit=self.threads[0],
                secret=SECRET,
            ),
            submit=self.threads[1],
            control=self.control,
            clock=clock,
            publish=self.reports.append,
        )
        self.drained = False
        loop.run_until_complete(self.worker.start())

    def play(self, part: Callable[[], Awaitable[Any]]) -> Any:
        """Run a client's part; nothing may have gone wrong in the loop meanwhile."""

        async def bounded() -> Any:
            return await asyncio.wait_for(part(), 20)

        result = self.loop.run_until_complete(bounded())
        assert self.errors == []
        return result

    async def ask(self, *pieces: bytes, half_close: bool = False) -> list[Answer]:
        """Send pieces on a connection of its own, read until the worker closes or has nothing to say."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.worker.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if half_close:
                writer.write_eof()
            return read_answers(await reader.read(-1), ("GET",) * 9)
        finally:
            writer.close()

    def records(self) -> list[tuple[bytes, int]]:
        """Bodies and counts of what is durable on disk."""
        found: list[tuple[bytes, int]] = []
        for path in sorted(self.folder.glob(f"{LOG_ID:016x}-*.seg")):
            data, at = path.read_bytes(), 0
            while (header := block.read_header(data[at:], LOG_ID)) is not None:
                start = at + block.HEADER_BYTES
                payload = decode_payload(memoryview(data)[start : start + header.payload_bytes])
                for number, stamp in enumerate(payload.stamps):
                    found.append((bytes(payload.body(number)), int(stamp["events"])))
                at += header.disk_bytes
        return found

    def close(self) -> None:
        if not self.drained:
            self.loop.run_until_complete(self.worker.drain(5))
        assert self.errors == []
        for thread in self.threads:
            thread.close()
        self.control.close()


@contextmanager
def running(
    folder: Path, make: Callable[[], asyncio.AbstractEventLoop] = new_loop, **given: Any
) -> Iterator[Running]:
    loop = make()
    try:
        worker = Running(folder, loop, **given)
        try:
            yield worker
        finally:
            worker.close()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.fixture(autouse=True)
def memory_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "settle", lambda keep_freed_bytes: None)


CLOSE = "Connection: close"


@pytest.mark.parametrize("make", LOOPS)
def test_answered_event_is_on_disk(tmp_path: Path, make: Any) -> None:
    with running(tmp_path, make) as door:
        (answer,) = door.play(lambda: door.ask(post("/v1/track", b'{"event":"x"}', CLOSE)))
        assert (answer.status, answer.json["ack"]) == (200, "disk")
        assert door.records() == [(b'{"event":"x"}', 1)]


@pytest.mark.parametrize("make", LOOPS)
def test_pipelined_requests_in_small_pieces_are_answered_in_order(tmp_path: Path, make: Any) -> None:
    data = (
        post() + get("/ping") + post(key=MEMORY) + post("/nope") + post("/v1/track", b'{"event":"x"}', CLOSE)
    )
    with running(tmp_path, make) as door:
        answers = door.play(lambda: door.ask(*[data[at : at + 37] for at in range(0, len(data), 37)]))
        assert [answer.status for answer in answers] == [200, 200, 200, 404, 200]


@pytest.mark.parametrize("make", LOOPS)
def test_half_closed_client_gets_its_answer(tmp_path: Path, make: Any) -> None:
    with running(tmp_path, make) as door:
        answers = door.play(lambda: door.ask(post() * 3, half_close=True))
        assert [answer.status for answer in answers] == [200] * 3


@pytest.mark.parametrize("make", LOOPS)
def test_reset_clients_do_not_stop_the_log(tmp_path: Path, make: Any) -> None:
    async def resets(door: Running) -> list[Answer]:
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", door.worker.port))
            client.sendall(post() * 5)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await door.worker.clock.sleep(0.001)
            client.close()
        return await door.ask(post("/v1/track", b'{"event":"last"}', CLOSE))

    with running(tmp_path, make) as door:
        (answer,) = door.play(lambda: resets(door))
        assert answer.status == 200 and door.records()[-1][0] == b'{"event":"last"}'


@pytest.mark.parametrize("make", LOOPS)
def test_large_body_comes_in_many_pieces(tmp_path: Path, make: Any) -> None:
    body = b'{"batch":[' + b",".join([b'{"type":"page","n":"%s"}' % (b"x" * 1000)] * 900) + b"]}"
    with running(tmp_path, make) as door:
        (answer,) = door.play(lambda: door.ask(post("/v1/batch", body, CLOSE)))
        assert (answer.status, answer.json["accepted"]) == (200, 900)
        assert door.records() == [(body, 900)]


@pytest.mark.parametrize("make", LOOPS)
def test_refused_client_that_goes_on_sending_reads_why(tmp_path: Path, make: Any) -> None:
    with running(tmp_path, make) as door:
        big = post("/v1/track", b"x" * 3_000_000)
        (answer,) = door.play(
            lambda: door.ask(*[big[at : at + 100_000] for at in range(0, 1_000_000, 100_000)])
        )
        assert answer.status == 413


@pytest.mark.slow
@pytest.mark.parametrize("make", LOOPS)
def test_client_that_reads_late_gets_all_answers(tmp_path: Path, make: Any) -> None:
    count = 3000

    async def late(door: Running) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.worker.port, limit=1024)
        request = get("/headwater.js")  # a long answer, so that buffers fill
        sending = asyncio.get_running_loop().create_task(send(writer, request))
        await door.worker.clock.sleep(0.3)
        received = bytearray()
        while data := await reader.read(1 << 20):
            received += data
        await sending
        writer.close()
        return received.count(b"HTTP/1.1 200 OK")

    async def send(writer: asyncio.StreamWriter, request: bytes) -> None:
        for _ in range(count // 100):
            writer.write(request * 100)
            await writer.drain()
        writer.write_eof()

    with running(tmp_path, make) as door:
        assert door.play(lambda: late(door)) == count


def test_drain_answers_what_has_begun_and_closes_the_log(tmp_path: Path) -> None:
    async def drains(door: Running) -> tuple[list[Answer], bool]:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.worker.port)
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", door.worker.port)
        request = post("/v1/track", b'{"event":"begun"}')
        writer.write(request[:-5])
        while not door.worker.door.held_bytes:
            await door.worker.clock.sleep(0.005)
        draining = asyncio.get_running_loop().create_task(door.worker.drain(5))
        assert await idle_reader.read(-1) == b""
        writer.write(request[-5:])
        answers = read_answers(await reader.read(-1))
        idle_writer.close()
        writer.close()
        return answers, await draining

    with running(tmp_path) as door:
        (answer,), in_time = door.play(lambda: drains(door))
        door.drained = True
        assert (answer.status, answer.headers["connection"], in_time) == (200, "close", True)
        assert door.records() == [(b'{"event":"begun"}', 1)]
        assert door.worker.blocks.ended == "closed"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", door.worker.port))


def test_drain_ends_in_time_though_a_client_hangs(tmp_path: Path) -> None:
    async def drains(door: Running) -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", door.worker.port)
        writer.write(post()[:-5])
        while not door.worker.door.held_bytes:
            await door.worker.clock.sleep(0.005)
        in_time = await door.worker.drain(0.1)
        writer.close()
        return in_time

    with running(tmp_path) as door:
        assert door.play(lambda: drains(door)) is False
        door.drained = True


def test_control_page_turns_ping_before_anything_else(tmp_path: Path) -> None:
    async def pings(door: Running) -> list[int]:
        before = await door.ask(get("/ping", CLOSE))
        door.control.set_draining()
        while not door.worker.door.leaving:
            await door.worker.clock.sleep(0.01)
        after = await door.ask(get("/ping"))
        served = await door.ask(post())
        return [answers[0].status for answers in (before, after, served)]

    with running(tmp_path) as door:
        assert door.play(lambda: pings(door)) == [200, 503, 200]


def test_a_held_door_answers_503_with_the_reason_and_opens_again(tmp_path: Path) -> None:
    """P1: too few nodes see each other; /ping stays 200, and so does the connection."""

    async def turns(door: Running, held: Held) -> None:
        door.control.set_held(held)
        while door.worker.door.held_as != held:
            await door.worker.clock.sleep(0.01)

    async def asks(door: Running) -> bytes:
        await turns(door, Held(HELD_TOO_FEW, 1, 3))
        held = await door.ask(post() + get("/ping", CLOSE))
        await turns(door, NOT_HELD)
        (taken,) = await door.ask(post("/v1/track", b'{"event":"x"}', CLOSE))
        assert [answer.status for answer in (*held, taken)] == [503, 200, 200]
        return held[0].body

    with running(tmp_path) as door:
        body = door.play(lambda: asks(door))
    assert b"not enough nodes: 1 of at least 3 see each other" in body
    assert b'"not_enough_nodes"' in body


@pytest.mark.slow
def test_slow_client_is_ended_by_the_sweep(tmp_path: Path) -> None:
    with running(tmp_path, header_deadline_s=0.2) as door:
        (answer,) = door.play(lambda: door.ask(b"GET /ping HTTP/1.1\r\n"))
        assert answer.status == 408


def test_reports_come_when_something_changed(tmp_path: Path) -> None:
    async def until_told(door: Running) -> None:
        await door.ask(post("/v1/track", b'{"event":"x"}', CLOSE))
        while not door.reports or door.reports[-1]["accepted_events"] != 1:
            await door.worker.clock.sleep(0.02)

    with running(tmp_path) as door:
        door.play(lambda: until_told(door))
        told = door.reports[-1]
        assert told["requests"]["segment"] == {"200": 1} and told["commits"] >= 1 and told["next_seq"] == 1
        numbers = [report["connections_opened"] for report in door.reports]
        assert numbers == sorted(set(numbers)) or len(door.reports) <= 4


def test_workers_share_a_port_but_strangers_do_not() -> None:
    (one,) = bound_sockets(CollectSettings(listen="127.0.0.1:0"))
    port = one.getsockname()[1]
    (other,) = bound_sockets(CollectSettings(listen=f"127.0.0.1:{port}"))
    one.close()
    other.close()
    with socket.create_server(("127.0.0.1", 0)) as stranger, pytest.raises(Misconfigured):
        bound_sockets(CollectSettings(listen=f"127.0.0.1:{stranger.getsockname()[1]}"))


# -- a first fuzzing of the door

STARTS = [
    b"POST ",
    b"GET ",
    b"/v1/track",
    b"/events",
    b"/pixel.gif?event=x&key=browser-secret",
    b" HTTP/1.1\r\n",
]
LINES = [
    b"Host: x", b"Content-Length: 13", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Expect: 100-continue",
    b"X-Write-Key: browser-secret", b"X-Write-Key: memory-secret", b"Connection: close", b"Content-Encoding: gzip",
]  # fmt: skip
OTHERS = [
    b" HTTP/1.0\r\n",
    b"\r\n",
    b"\n",
    b'{"event":"x"}',
    b"5\r\nhello\r\n0\r\n\r\n",
    b"\x00",
    b"\xff\xfe",
    b":",
    b" ",
]
WORDS = st.sampled_from([*STARTS, *[line + b"\r\n" for line in LINES], *OTHERS])
STREAMS = st.lists(
    st.one_of(WORDS, st.binary(max_size=8), st.just(post()), st.just(get("/ping"))), max_size=14
).map(b"".join)  # fmt: skip
STATUSES = {100, 200, 400, 401, 403, 404, 405, 408, 413, 415, 417, 431, 501, 503, 505}


@pytest.mark.slow
@pytest.mark.parametrize("make", LOOPS)
def test_door_survives_any_bytes_and_answers_with_a_status(tmp_path: Path, make: Any) -> None:
    with running(tmp_path, make) as door:

        @settings(suppress_health_check=[HealthCheck.too_slow])
        @given(STREAMS, st.integers(1, 200))
        def fuzz(data: bytes, step: int) -> None:
            pieces = [data[at : at + step] for at in range(0, len(data), step)]
            raw = door.play(lambda: talk(door, pieces))
            for line in raw.split(b"HTTP/1.1 ")[1:]:
                assert int(line[:3]) in STATUSES, raw
            assert raw == b"" or raw.startswith(b"HTTP/1.1 ")

        fuzz()
        (answer,) = door.play(lambda: door.ask(post("/v1/track", b'{"event":"still here"}', CLOSE)))
        assert answer.status == 200 and door.records()[-1][0] == b'{"event":"still here"}'
        assert door.worker.door.held_bytes == 0


async def talk(door: Running, pieces: list[bytes]) -> bytes:
    """Send, half-close, and read all that comes; a reset is an answer too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.worker.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        return await reader.read(-1)
    except OSError:
        return b""
    finally:
        writer.close()
