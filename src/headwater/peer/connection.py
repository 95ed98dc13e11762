"""Authenticated connections between nodes: ``dial``, ``listen``, and what both give, a ``Connection``.

::

    listener = await connection.listen("tcp://[_site_:ipv4]:7511", identity, serve)     # listener.address
    peer = await connection.dial("10.0.0.2:7511", identity, node="59fa…0000")           # peer.peer.node, .incarnation
    await peer.send(Kind.DATA, {"log": 7}, block)
    frame = await peer.receive()                                                        # None: closed

Who speaks has shown that it belongs to the cluster before ``serve`` or the dialler sees the connection
(handshake.py). Nothing is sent by itself: signs of life, credit and acknowledgements are frames of the users.
Bounds in both directions are link.py's. Everybody unknown together can make a listener keep ``UNKNOWN_MAX`` × two
frames of 4 KiB, with TLS ``UNKNOWN_TLS_MAX`` × 0.3 MiB, so never 4 MiB; when so many are there, the oldest gives
way after ``GIVE_WAY_S``, so that nobody can keep nodes out by connecting and saying nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected, Unavailable
from headwater.peer import address as addresses
from headwater.peer import frames, handshake
from headwater.peer.frames import Frame, Kind
from headwater.peer.identity import Hello, Identity, Refused, Tls
from headwater.peer.link import Data, Link, address_text

__all__ = ["Connection", "Frame", "Hello", "Identity", "Kind", "Listener", "Refused", "Tls", "dial", "listen"]

DIAL_S = 5.0
UNKNOWN_MAX = 64
UNKNOWN_TLS_MAX = 8
GIVE_WAY_S = 0.25
CONNECTIONS_MAX = 4096
BACKLOG = 128
ACCEPT_RETRY_S = 0.2
"""After the machine had no file or memory for one more connection."""


class Connection:
    """A connection with a node of the cluster: one reader, any number of senders."""

    def __init__(self, link: Link, identity: Identity, peer: Hello, protocol: int) -> None:
        self.link = link
        self.identity = identity
        self.peer = peer
        self.protocol = protocol
        """The newest that both sides speak."""

    @property
    def address(self) -> str:
        """The other side's."""
        return self.link.address

    @property
    def closed(self) -> str:
        """Why it ended; empty while it is open."""
        return self.link.closed

    async def send(self, kind: int, header: Mapping[str, Any], *body: Data) -> None:
        """Hand over a frame, in the order of asking; waits while the socket's buffer is full. Returning says
        nothing about arrival. The parts of the body must not change afterwards.

        Unavailable: closed. Rejected: larger than a frame. On cancellation nothing of it was sent.
        """
        await self.link.send(kind, frames.encode_header(header), *body)

    async def receive(self) -> Frame | None:
        """The next frame, of whatever kind; None: closed, here or there. Hand kinds that you do not know to
        ``ignore``.

        The body is a view of what was read: copy what is kept for long.
        """
        raw = await self.link.receive()
        if raw is None:
            return None
        try:
            return Frame(raw.kind, frames.decode_header(raw.header), raw.body)
        except Rejected as error:
            self.refuse(error)
            return None

    def ignore(self, frame: Frame) -> None:
        """Count a frame of a kind that nobody here knows; a newer node may say more than this one understands."""
        name = frames.KNOWN.get(frame.kind, "other")
        self.identity.counters.add("headwater_peer_unknown_frames_total", kind=name.lower())

    def refuse(self, error: Rejected) -> None:
        """The peer broke the rules: count it, tell it why, end. What it has sent before is not received any more."""
        self.identity.count(error.code, "open")
        self.link.queue.clear()
        self.link.violate(error)

    async def close(self) -> None:
        """End; what was sent still leaves, for at most two seconds."""
        await self.link.close()

    def abort(self) -> None:
        """End at once; what was not sent is dropped."""
        self.link.abort("closed here")


Serve = Callable[[Connection], Awaitable[None]]


async def dial(address: str, identity: Identity, *, node: str | None = None) -> Connection:
    """Connect with a node, with ``node`` itself when it is given, else with whoever is at ``address``.

    Unavailable: nobody is there, or does not answer in time; try again later. Refused: it does not want us, or is not
    the one it should be; ``code`` says why. Misconfigured: the address or this node's certificates are wrong.
    """
    host, port = addresses.dialled(address)
    context = identity.tls.context(listening=False) if identity.tls else None
    link = await connect(address, host, port, context, identity)
    try:
        peer, protocol = await handshake.introduce(link, identity, node or "")
    except BaseException:
        link.end("refused")
        await link.close()
        raise
    link.trust()
    return Connection(link, identity, peer, protocol)


async def connect(
    address: str, host: str, port: int, context: ssl.SSLContext | None, identity: Identity
) -> Link:
    """A link that nobody has spoken on."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DIAL_S):
            _, link = await loop.create_connection(Link, host, port, ssl=context)
    except ssl.SSLError as error:
        identity.count("tls", "dial")
        raise Refused(
            f"{address}: {error.reason or error}",
            code="tls",
            help="both nodes need cluster.tls, and certificates of the same authority",
        ) from error
    except OSError as error:  # TimeoutError is one
        raise Unavailable(
            f"{address} does not answer: {str(error) or 'no answer in time'}", code="connect_failed"
        ) from error
    return link


async def listen(binding: str, identity: Identity, serve: Serve) -> Listener:
    """Take connections at ``binding`` (address.py says how it is written) and run ``serve`` for each that has shown
    that it belongs here. When ``serve`` returns, its connection is closed.

    Misconfigured: the binding fits nothing here, the port is taken, or the certificates cannot be used.
    """
    host, port = addresses.resolve(binding, addresses.machine_interfaces())
    context = identity.tls.context(listening=True) if identity.tls else None
    del (
        context
    )  # read again for each connection, so that renewed certificates are used; here only for the error
    try:
        family, _, _, _, place = (
            await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        )[0]
        listening = socket.create_server(place[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {binding}: {error}",
            code="listen_failed",
            help="is the port free, and the address one of this machine?",
        ) from error
    listening.setblocking(False)
    return Listener(listening, identity, serve)


class Listener:
    """An open door, with the connections that came through it."""

    def __init__(self, listening: socket.socket, identity: Identity, serve: Serve) -> None:
        self.listening = listening
        self.identity = identity
        self.serve = serve
        self.address = address_text(listening.getsockname())
        self.unknown_max = UNKNOWN_TLS_MAX if identity.tls else UNKNOWN_MAX
        self.unknown: dict[asyncio.Task[None], None] = {}
        """Those who have not shown yet who they are, oldest first."""
        self.room = asyncio.Event()
        """Set when one of them is no longer unknown."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.accepting = self.loop.create_task(self.accept())

    async def accept(self) -> None:
        """Take connections until cancelled."""
        while True:
            if len(self.unknown) >= self.unknown_max:
                await self.make_room()
            try:
                taken, _ = await self.loop.sock_accept(self.listening)
            except OSError:
                await self.identity.clock.sleep(ACCEPT_RETRY_S)
                continue
            if len(self.tasks) >= CONNECTIONS_MAX:
                self.identity.count("too_many", "listen")
                taken.close()
                continue
            task = self.loop.create_task(self.attend(taken))
            self.unknown[task] = None
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            task.add_done_callback(self.recognised)

    async def make_room(self) -> None:
        """Wait a little until somebody unknown is known or gone, else send the oldest away."""
        self.room.clear()
        try:
            async with asyncio.timeout(GIVE_WAY_S):
                await self.room.wait()
        except TimeoutError:
            oldest = next(iter(self.unknown))
            self.identity.count("too_many", "listen")
            oldest.cancel()
            self.recognised(oldest)

    def recognised(self, task: asyncio.Task[None]) -> None:
        """It is no longer unknown: shown who it is, or gone."""
        self.unknown.pop(task, None)
        self.room.set()

    async def attend(self, taken: socket.socket) -> None:
        """One connection, from the first byte to the last."""
        link = None
        try:
            link = await self.linked(taken)
            peer, protocol = await handshake.recognise(link, self.identity)
            task = asyncio.current_task()
            assert task is not None
            self.recognised(task)
            link.trust()
            await self.serve(Connection(link, self.identity, peer, protocol))
        except HeadwaterError:
            pass  # a refusal is counted; a connection that was lost under serve is nothing that it must handle
        except Exception as error:
            self.loop.call_exception_handler({"message": "serving a node failed", "exception": error})
        finally:
            if link is not None:
                await link.close()

    async def linked(self, taken: socket.socket) -> Link:
        """The accepted socket as a link, TLS being done. Refused: not within the time, or no certificate of ours."""
        context = None
        try:
            context = self.identity.tls.context(listening=True) if self.identity.tls else None
            async with asyncio.timeout(handshake.HANDSHAKE_S):
                _, link = await self.loop.connect_accepted_socket(Link, taken, ssl=context)
        except BaseException as error:
            taken.close()
            if isinstance(error, OSError | EOFError):
                reason = "tls" if context and not isinstance(error, TimeoutError) else "too_slow"
                self.identity.count(reason, "listen")
                raise Refused(f"no connection: {error}", code=reason) from error
            raise
        return link

    async def close(self) -> None:
        """Take no more connections and end those that there are; their ``serve`` is cancelled."""
        self.accepting.cancel()
        running = [self.accepting, *self.tasks]
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.listening.close()
