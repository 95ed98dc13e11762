"""What the tests of connections stand on: identities, an echo, a runner for both loops, a transport that is none."""

import asyncio
import contextlib
import dataclasses

import uvloop

from headwater.kit.counters import Counters
from headwater.peer import connection, frames
from headwater.peer.connection import Identity
from headwater.peer.link import Link

SECRET = b"correct horse battery staple"
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def identity(letter="a", **changed):
    told = {
        "node": letter * 16,
        "incarnation": 1,
        "folder": letter * 16,
        "cluster": "east",
        "name": f"node-{letter}",
        "secret": SECRET,
    }
    return Identity(**(told | changed))


def changed(whom, **fields):
    """The same with other fields, and counters of its own."""
    return dataclasses.replace(whom, counters=Counters(), **fields)


def counted(whom, name="headwater_peer_refused_total"):
    """Label (reason or kind) → how often."""
    return {
        labels.get("reason") or labels.get("kind"): value for n, labels, value in whom.counters if n == name
    }


async def echo(peer):
    while (frame := await peer.receive()) is not None:
        await peer.send(frame.kind, frame.header, frame.body)


@contextlib.asynccontextmanager
async def listening(whom, serve=echo):
    listener = await connection.listen("127.0.0.1:0", whom, serve)
    try:
        yield listener
    finally:
        await listener.close()


@contextlib.asynccontextmanager
async def dialled(address, whom, **more):
    peer = await connection.dial(address, whom, **more)
    try:
        yield peer
    finally:
        await peer.close()


class FakeTransport(asyncio.Transport):
    """Keeps what is written; ``full`` makes it ask for a pause as a socket that takes nothing would."""

    def __init__(self, link):
        super().__init__()
        self.link = link
        self.written = bytearray()
        self.reading = True
        self.closing = False

    def set_write_buffer_limits(self, high=None, low=None):
        self.high = high

    def get_extra_info(self, name, default=None):
        return ("10.0.0.9", 7511) if name == "peername" else default

    def write(self, data):
        assert not self.closing
        self.written += data
        if len(self.written) > self.high:
            self.link.pause_writing()

    def writelines(self, parts):
        self.write(b"".join(parts))

    def drained(self):
        """The peer took everything."""
        taken, self.written = bytes(self.written), bytearray()
        self.link.resume_writing()
        return taken

    def pause_reading(self):
        assert self.reading
        self.reading = False

    def resume_reading(self):
        assert not self.reading
        self.reading = True

    def close(self):
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.link.connection_lost, None)

    abort = close


def fake_link(*, trusted=True):
    link = Link()
    transport = FakeTransport(link)
    link.connection_made(transport)
    if trusted:
        link.trust()
    return link, transport


def feed(link, data):
    """What a loop does with bytes from a socket, as long as the link reads; what it did not take is returned."""
    data = memoryview(data)
    while data and link.transport.reading and not link.closed:
        space = link.get_buffer(-1)
        count = min(len(space), len(data))
        assert count > 0
        space[:count] = data[:count]
        link.buffer_updated(count)
        data = data[count:]
    return bytes(data)


def assemble(assembler, data, piece=1 << 30):
    """The frames of bytes that come in pieces of at most ``piece``."""
    found = []
    data = memoryview(data)
    while data:
        space = assembler.buffer()
        count = min(len(space), len(data), piece)
        assert count > 0
        space[:count] = data[:count]
        assembler.filled(count)
        data = data[count:]
        while (frame := assembler.next()) is not None:
            found.append((frame.kind, frames.decode_header(frame.header), bytes(frame.body)))
    return found
