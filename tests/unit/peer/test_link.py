"""Bounds in both directions, on a transport that is none."""

import asyncio

import pytest

from headwater.kit.errors import Rejected, Unavailable
from headwater.peer import frames, link
from headwater.peer.frames import Kind
from tests.unit.peer.nodes import fake_link, feed

KIB64 = bytes(64 * 1024)
HEADER = frames.encode_header({})


async def test_a_slow_reader_stops_the_socket_and_starts_it_again():
    near, transport = fake_link()
    data = frames.encode(Kind.DATA, {}, KIB64) * 100
    rest = feed(near, data)
    assert not transport.reading
    assert link.QUEUED_BYTES_MAX <= near.queued_bytes < link.QUEUED_BYTES_MAX + 2 * len(KIB64)
    received = 0
    while rest or near.queue:
        assert near.queued_bytes < link.QUEUED_BYTES_MAX + 2 * len(KIB64)
        assert (await near.receive()).body == KIB64
        received += 1
        rest = feed(near, rest)
    assert received == 100
    assert transport.reading


async def test_many_empty_frames_are_bounded_too():
    near, transport = fake_link()
    feed(near, frames.encode(Kind.PING, {}) * 100_000)
    assert not transport.reading
    assert len(near.queue) <= link.QUEUED_BYTES_MAX // link.FRAME_OVERHEAD_BYTES + 1


async def test_a_slow_peer_makes_senders_wait_with_bounded_memory_and_in_order():
    near, transport = fake_link()
    senders = [asyncio.get_running_loop().create_task(near.send(n, HEADER, KIB64)) for n in range(60)]
    await asyncio.wait(senders, timeout=0.01)
    assert 0 < sum(sender.done() for sender in senders) < 60
    sent = b""
    while any(not sender.done() for sender in senders):
        assert len(transport.written) <= link.UNSENT_BYTES_MAX + len(KIB64) + 100
        sent += transport.drained()
        await asyncio.wait(senders, timeout=0.01)
    sent += transport.drained()
    far, _ = fake_link()
    rest, kinds = sent, []
    while rest or far.queue:
        rest = feed(far, rest)
        kinds.append((await far.receive()).kind)
    assert kinds == list(range(60))


async def test_a_sender_that_gives_up_sends_nothing_and_holds_up_nobody():
    near, transport = fake_link()
    near.pause_writing()
    start = asyncio.get_running_loop().create_task
    first, second, third = (start(near.send(n, HEADER)) for n in range(3))
    await asyncio.wait([first], timeout=0)
    second.cancel()
    near.resume_writing()
    first.cancel()  # in the step in which it was let go on
    await asyncio.wait([first, second, third])
    assert first.cancelled()
    assert second.cancelled()
    await third
    assert bytes(transport.written) == frames.encode(2, {})


async def test_the_end_wakes_everybody_who_waits():
    near, _ = fake_link()
    near.pause_writing()
    start = asyncio.get_running_loop().create_task
    reader, sender = start(near.receive()), start(near.send(1, HEADER))
    await asyncio.wait([reader, sender], timeout=0)
    near.connection_lost(ConnectionResetError("reset by peer"))
    assert await reader is None
    with pytest.raises(Unavailable, match="reset by peer"):
        await sender
    with pytest.raises(Unavailable):
        await near.send(1, HEADER)


async def test_what_came_whole_before_the_end_is_received():
    near, _ = fake_link()
    feed(near, frames.encode(Kind.DATA, {}, b"whole") + frames.encode(Kind.DATA, {}, b"cut")[:-1])
    near.eof_received()
    assert (await near.receive()).body == b"whole"
    assert await near.receive() is None
    assert "in the middle of a frame" in near.closed


async def test_before_trust_one_small_frame_is_kept_and_the_socket_waits():
    near, transport = fake_link(trusted=False)
    rest = feed(near, frames.encode(Kind.HELLO, {"n": 1}) * 1000)
    assert not transport.reading
    assert len(near.queue) == 1
    assert len(near.assembler.view) <= link.UNKNOWN_FRAME_BYTES_MAX
    for _ in range(50):
        assert (await near.receive()).kind == Kind.HELLO
        rest = feed(near, rest)
        assert len(near.queue) <= 1
        assert len(near.assembler.view) <= link.UNKNOWN_FRAME_BYTES_MAX


async def test_before_trust_a_large_frame_is_refused():
    near, transport = fake_link(trusted=False)
    feed(near, frames.encode(Kind.HELLO, {}, bytes(4096)))
    assert await near.receive() is None
    assert near.violation is not None
    assert b"a frame of 4107 bytes" in bytes(transport.written)
    assert transport.closing


async def test_large_frames_right_behind_the_last_of_the_handshake_are_read():
    near, _ = fake_link(trusted=False)
    data = frames.encode(Kind.WELCOME, {}) + frames.encode(Kind.DATA, {}, bytes(100_000))
    rest = feed(near, data)
    assert (await near.receive()).kind == Kind.WELCOME
    near.trust()
    reading = asyncio.get_running_loop().create_task(near.receive())
    await asyncio.wait([reading], timeout=0)
    feed(near, rest)
    assert len((await reading).body) == 100_000


async def test_a_frame_that_is_too_large_is_the_senders_error_and_not_the_links():
    near, transport = fake_link()
    with pytest.raises(Rejected):
        await near.send(Kind.DATA, HEADER, bytes(frames.FRAME_BYTES_MAX))
    await near.send(Kind.PING, HEADER)
    assert bytes(transport.written) == frames.encode(Kind.PING, {})


async def test_the_length_of_a_wide_view_is_counted_in_bytes():
    near, transport = fake_link()
    await near.send(Kind.DATA, HEADER, memoryview(bytes(16)).cast("Q"))
    assert bytes(transport.written) == frames.encode(Kind.DATA, {}, bytes(16))
