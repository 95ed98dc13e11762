"""Requests to a process of another node: kit/ask's, carried over a peer connection.

The lane of the asking node dials the lane of the other, which hands the request to the unix socket of the process that
it names and brings back what that answers. One call at a time on a connection; idle ones are kept. Requests and replies
larger than a frame travel in pieces. A connection that breaks is Unavailable to the caller, who does not know then
whether the request was carried out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from headwater.kit import ask
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable
from headwater.peer.connection import Connection, Frame, Kind

PIECE_BYTES = 1024 * 1024
BODY_BYTES_MAX = 256 * 1024 * 1024
IDLE_MAX = 4
"""Connections to one node that are kept while nobody calls."""
NODE = "node"
"""The lane process itself: what is asked about the node as a whole."""
LOOK = "look"
"""The ops process: what it can say of its node (ops/peers.py)."""
SOCKET = re.compile(rf"deliver-[a-z0-9][a-z0-9_-]{{0,47}}|{NODE}|{LOOK}")
"""What may be asked from another node."""

Reply = tuple[dict[str, Any], bytes]
Dial = Callable[[str], Awaitable[Connection]]
"""Node id → a connection with its lane. Unavailable: it is not there."""
Ask = Callable[[str, Mapping[str, Any], bytes], Awaitable[Reply]]
"""Asks a process of this node by the name of its socket."""


WAIT_S, WAIT_S_MAX = 60.0, 25 * 3600.0


def wait_of(request: Mapping[str, Any]) -> float:
    """How long a call may take, as its request says under ``wait_s``."""
    said = request.get("wait_s")
    return min(float(said), WAIT_S_MAX) if isinstance(said, int | float) and said > 0 else WAIT_S


class Caller:
    """Calls to other nodes."""

    def __init__(self, dial: Dial) -> None:
        self.dial = dial
        self.idle: dict[str, list[Connection]] = {}

    async def call(self, node: str, socket: str, request: Mapping[str, Any], body: bytes) -> Reply:
        """Ask the process behind ``socket`` at a node. Unavailable: no answer; its errors are raised here."""
        kept = self.idle.setdefault(node, [])
        while kept and kept[-1].closed:  # that node began again
            kept.pop()
        connection = kept.pop() if kept else await self.dial(node)
        try:
            await send(connection, Kind.CALL, {"socket": socket, "request": dict(request)}, body)
            header, answer = await receive(connection, Kind.REPLY)
        except BaseException:
            connection.abort()
            raise
        if len(kept) < IDLE_MAX and not connection.closed:
            kept.append(connection)
        else:
            await connection.close()
        if "error" in header:
            raise ask.revive(header["error"])
        return header["reply"], answer

    async def close(self) -> None:
        """Let go of every connection."""
        for kept in self.idle.values():
            for connection in kept:
                await connection.close()
        self.idle = {}


async def serve(connection: Connection, first: Frame, ask_here: Ask) -> None:
    """Answer the calls of one connection, whose first frame is here already, until it ends."""
    frame: Frame | None = first
    while True:
        try:
            header, body = await receive(connection, Kind.CALL, frame)
        except Unavailable:
            return
        frame = None
        try:
            reply, answer = await ask_here(socket_of(header), header["request"], body)
        except HeadwaterError as error:
            await send(connection, Kind.REPLY, {"error": ask.describe(error)}, b"")
        else:
            await send(connection, Kind.REPLY, {"reply": reply}, answer)


def socket_of(header: Mapping[str, Any]) -> str:
    """The process that a call is for. Rejected: none that other nodes may ask."""
    name = str(header.get("socket"))
    if not SOCKET.fullmatch(name) or not isinstance(header.get("request"), dict):
        raise Rejected(
            f"socket {name[:60]!r}: expected a deliverer, `{LOOK}` or `{NODE}`, with a request",
            code="call_socket",
        )
    return name


async def send(connection: Connection, kind: int, header: Mapping[str, Any], body: bytes) -> None:
    """One message in as many frames as it takes."""
    view = memoryview(body)
    pieces = [view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES)] or [view]
    for number, piece in enumerate(pieces):
        more = number < len(pieces) - 1
        await connection.send(kind, {**(header if number == 0 else {}), "more": more}, piece)


async def receive(
    connection: Connection, kind: int, first: Frame | None = None
) -> tuple[dict[str, Any], bytes]:
    """One message. Unavailable: the connection ended before it did. Rejected: larger than a message may be."""
    header: dict[str, Any] | None = None
    parts: list[bytes] = []
    size = 0
    while True:
        frame, first = first or await connection.receive(), None
        if frame is None:
            raise Unavailable("the other node ended the connection", code="peer_gone")
        if frame.kind != kind:
            connection.ignore(frame)
            continue
        header = dict(frame.header) if header is None else header
        size += len(frame.body)
        if size > BODY_BYTES_MAX:
            connection.abort()
            raise Rejected(f"a call of more than {BODY_BYTES_MAX} bytes", code="too_large")
        parts.append(bytes(frame.body))
        if not frame.header.get("more"):
            return header, b"".join(parts)
