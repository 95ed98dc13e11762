"""Two nodes on this machine's network, on both kinds of loop."""

import asyncio
import socket
import tracemalloc

import pytest

from headwater.kit.errors import Misconfigured, Rejected, Unavailable
from headwater.peer import connection, frames, link
from headwater.peer.connection import Kind
from headwater.peer.identity import PROTOCOL
from tests.unit.peer.nodes import LOOPS, counted, dialled, echo, identity, listening


@pytest.fixture(params=sorted(LOOPS))
def run(request):
    """Runs a coroutine on one kind of loop."""

    def run_on(work):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(work)

    return run_on


def test_both_sides_know_each_other_and_frames_come_back(run):
    async def main():
        met = []

        async def serve(peer):
            met.append(peer.peer)
            await echo(peer)

        here = identity("b", incarnation=7, purpose="lane")
        async with listening(identity("a"), serve) as listener, dialled(listener.address, here) as peer:
            for n, size in enumerate((0, 1, 4096, 70_000, 1_000_000, 4_000_000)):
                body = bytes([n]) * size
                await peer.send(Kind.DATA, {"n": n}, body[: size // 2], memoryview(body)[size // 2 :])
                assert await peer.receive() == (Kind.DATA, {"n": n}, body)
            assert (peer.peer.node, peer.peer.name, peer.protocol) == ("a" * 16, "node-a", PROTOCOL[1])
            assert peer.address == listener.address
        [other] = met
        assert (other.node, other.incarnation, other.purpose) == ("b" * 16, 7, "lane")

    run(main())


def test_many_senders_on_one_connection_mix_no_frames(run):
    async def main():
        async with listening(identity("a")) as listener, dialled(listener.address, identity("b")) as peer:

            async def send(n):
                for _ in range(30):
                    await peer.send(n, {"n": n}, bytes([n]) * 50_000)

            async def receive():
                for _ in range(20 * 30):
                    frame = await peer.receive()
                    assert frame is not None
                    assert frame.header["n"] == frame.kind
                    assert frame.body == bytes([frame.kind]) * 50_000

            await asyncio.gather(receive(), *map(send, range(100, 120)))

    run(main())


def test_a_peer_that_does_not_read_holds_its_sender_with_bounded_memory(run):
    """C7."""

    async def main():
        release = asyncio.Event()

        async def serve(peer):
            await release.wait()
            await echo_count(peer)

        received = []

        async def echo_count(peer):
            while (frame := await peer.receive()) is not None:
                received.append(len(frame.body))

        async with (
            listening(identity("a"), serve) as listener,
            dialled(listener.address, identity("b")) as peer,
        ):
            body = bytes(256 * 1024)

            async def send():
                for _ in range(256):
                    await peer.send(Kind.DATA, {}, body)

            tracemalloc.start()
            try:
                sending = asyncio.get_running_loop().create_task(send())
                stalled = None
                while stalled != peer.link.sent_bytes:  # until nothing moves any more
                    stalled = peer.link.sent_bytes
                    await asyncio.wait([sending], timeout=0.1)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert not sending.done()
            assert peak < 8 * 1024 * 1024  # both sides are in this process; 64 MiB want to be sent
            release.set()
            await sending
            await peer.close()
            while sum(received) < 256 * len(body):
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0.01)

    run(main())


def test_the_end_of_either_side_is_none_at_the_other(run):
    async def main():
        ended = asyncio.get_running_loop().create_future()

        async def serve(peer):
            ended.set_result(await peer.receive())

        async with listening(identity("a"), serve) as listener:
            peer = await connection.dial(listener.address, identity("b"))
            await peer.close()
            assert await ended is None
            with pytest.raises(Unavailable, match="closed here"):
                await peer.send(Kind.PING, {})

    run(main())


def test_a_peer_that_closes_one_direction_has_ended(run):
    async def main():
        async with listening(identity("a")) as listener, dialled(listener.address, identity("b")) as peer:
            peer.link.transport.write_eof()
            assert await peer.receive() is None
            with pytest.raises(Unavailable, match="the other side closed"):
                await peer.send(Kind.PING, {})

    run(main())


def test_what_was_sent_before_close_still_arrives(run):
    async def main():
        async def serve(peer):
            for n in range(100):
                await peer.send(Kind.DATA, {"n": n}, bytes(20_000))

        async with (
            listening(identity("a"), serve) as listener,
            dialled(listener.address, identity("b")) as peer,
        ):
            numbers = []
            while (frame := await peer.receive()) is not None:
                numbers.append(frame.header["n"])
            assert numbers == list(range(100))

    run(main())


def test_closing_a_listener_ends_its_connections_and_frees_its_port(run):
    async def main():
        async with listening(identity("a")) as listener:
            peer = await connection.dial(listener.address, identity("b"))
            await listener.close()
            assert await peer.receive() is None
            await peer.close()
            with pytest.raises(Unavailable, match="does not answer"):
                await connection.dial(listener.address, identity("b"))
            async with listening(identity("a")):
                pass

    run(main())


def test_a_header_that_cannot_be_read_ends_the_connection_with_the_reason(run):
    async def main():
        there = identity("a")
        async with listening(there) as listener, dialled(listener.address, identity("b")) as peer:
            await peer.link.send(Kind.DATA, b"\x93\x01")
            assert await peer.receive() is None
            assert "not a msgpack map" in peer.closed
        assert counted(there) == {"bad_header": 1}

    run(main())


def test_an_authenticated_peer_that_sends_no_frames_is_refused(run):
    async def main():
        there = identity("a")
        async with listening(there) as listener, dialled(listener.address, identity("b")) as peer:
            peer.link.transport.write(frames.HEAD.pack(frames.FRAME_BYTES_MAX, 1, 4, 1))
            assert await peer.receive() is None
            assert peer.closed.startswith(f"{listener.address} refused: a frame of 4194308 bytes")
        assert counted(there) == {"bad_frame": 1}

    run(main())


def test_an_unknown_kind_is_received_and_counted_as_ignored(run):
    """C9, S3."""

    async def main():
        there = identity("a")

        async def serve(peer):
            while (frame := await peer.receive()) is not None:
                if frame.kind not in frames.KNOWN:
                    peer.ignore(frame)
                else:
                    await peer.send(frame.kind, {})

        async with listening(there, serve) as listener, dialled(listener.address, identity("b")) as peer:
            await peer.send(200, {"of": "a newer node"})
            await peer.send(Kind.PING, {})
            assert (await peer.receive()).kind == Kind.PING
        assert counted(there, "headwater_peer_unknown_frames_total") == {"other": 1}

    run(main())


def test_a_serve_that_fails_ends_its_connection_only(run):
    async def main():
        told = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: told.append(context["exception"])
        )

        async def serve(peer):
            if (await peer.receive()).kind == Kind.BYE:
                raise ValueError("a bug")
            raise Rejected("not a bug")

        async with listening(identity("a"), serve) as listener:
            for kind in (Kind.BYE, Kind.DATA):
                async with dialled(listener.address, identity("b")) as peer:
                    await peer.send(kind, {})
                    assert await peer.receive() is None
        assert [str(error) for error in told] == ["a bug"]

    run(main())


def test_nobody_there_is_unavailable_and_a_taken_port_is_misconfigured(run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            taken_address = f"127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(Misconfigured, match="cannot listen on"):
                await connection.listen(taken_address, identity("a"), echo)
        with pytest.raises(Unavailable, match="does not answer"):
            await connection.dial(taken_address, identity("a"))
        with pytest.raises(Misconfigured, match="not a binding"):
            await connection.dial("tcp//x", identity("a"))

    run(main())


def test_a_connection_over_ipv6_and_through_a_word(run):
    async def main():
        listener = await connection.listen("tcp://[_local_:ipv4]:0", identity("a"), echo)
        async with dialled(f"tcp://{listener.address}", identity("b")) as peer:
            assert peer.address == listener.address
        await listener.close()
        if socket.has_ipv6:
            listener = await connection.listen("tcp://[::1]:0", identity("a"), echo)
            assert listener.address.startswith("[::1]:")
            async with dialled(listener.address, identity("b")):
                pass
            await listener.close()

    run(main())


def test_closing_does_not_wait_long_for_a_peer_that_takes_nothing(run, monkeypatch):
    monkeypatch.setattr(link, "CLOSE_WAIT_S", 0.05)

    async def main():
        release = asyncio.Event()
        async with listening(identity("a"), lambda peer: release.wait()) as listener:
            peer = await connection.dial(listener.address, identity("b"))
            sending = asyncio.get_running_loop().create_task(flood(peer))
            await asyncio.wait([sending], timeout=0.3)
            async with asyncio.timeout(1.5):
                await peer.close()
            with pytest.raises(Unavailable):
                await sending

    async def flood(peer):
        while True:
            await peer.send(Kind.DATA, {}, bytes(1_000_000))

    run(main())
