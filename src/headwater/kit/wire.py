"""The network, as an argument: byte streams over TCP here, a simulated wire in kit/simulate.

Addresses are ``host:port`` (``[v6]:port``). Errors of the machine become Unavailable. A stream that the other side
ended cleanly reads as ``b""``; one that broke raises Unavailable in read and write.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from headwater.kit.errors import Misconfigured, Unavailable


class Stream(Protocol):
    """One connection; one task reads, one task writes."""

    @property
    def peer(self) -> str:
        """The other side's address, for messages."""
        ...

    async def read(self, bytes_max: int) -> bytes:
        """One byte or more, at most ``bytes_max``; ``b""`` when the other side has ended."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand over; waits while too much is under way. Returning says nothing about arrival."""
        ...

    async def close(self) -> None:
        """End both directions; what was written is still sent."""
        ...


class Listener(Protocol):
    """An open door."""

    @property
    def address(self) -> str:
        """Where it really listens, the port filled in."""
        ...

    async def accept(self) -> Stream:
        """The next connection; the caller owns it."""
        ...

    async def close(self) -> None:
        """Take no more connections; those accepted go on."""
        ...


class Wire(Protocol):
    """The few network calls that nodes make."""

    async def connect(self, address: str, *, timeout_s: float) -> Stream: ...
    async def listen(self, address: str) -> Listener: ...


ACCEPTED_MAX = 128
"""Connections that wait for ``accept``; further ones are closed at once."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port; Misconfigured where it is neither ``host:port`` nor ``[v6]:port``."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise Misconfigured(f"not an address: {address!r}", code="address_format", help="expected host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


class SystemStream:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.peer = str(writer.get_extra_info("peername"))

    async def read(self, bytes_max: int) -> bytes:
        try:
            return await self.reader.read(bytes_max)
        except OSError as error:
            raise Unavailable(f"the connection with {self.peer} broke", code="connection_lost") from error

    async def write(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise Unavailable(f"the connection with {self.peer} broke", code="connection_lost") from error

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class SystemListener:
    """A listening TCP socket; ``serve`` is given to asyncio, ``accept`` to the owner."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[SystemStream] = asyncio.Queue(ACCEPTED_MAX)
        self.server: asyncio.Server | None = None
        self.address = ""

    def arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.accepted.put_nowait(SystemStream(reader, writer))
        except asyncio.QueueFull:
            writer.close()

    async def accept(self) -> Stream:
        return await self.accepted.get()

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        while not self.accepted.empty():
            await self.accepted.get_nowait().close()


class SystemWire:
    """The machine's network."""

    async def connect(self, address: str, *, timeout_s: float) -> Stream:
        host, port = split_address(address)
        try:
            async with asyncio.timeout(timeout_s):
                return SystemStream(*await asyncio.open_connection(host, port))
        except OSError as error:  # TimeoutError is one
            raise Unavailable(f"{address} does not answer", code="connect_failed") from error

    async def listen(self, address: str) -> Listener:
        host, port = split_address(address)
        listener = SystemListener()
        try:
            listener.server = await asyncio.start_server(listener.arrived, host or None, port)
        except OSError as error:
            raise Misconfigured(f"cannot listen on {address}: {error}", code="listen_failed") from error
        name = listener.server.sockets[0].getsockname()
        listener.address = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        return listener
