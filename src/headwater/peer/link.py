"""A socket as frames, both ways, with bounds: what a connection stands on, before and after it is authenticated.

Reading: the socket's bytes go into one buffer (``frames.Assembler``), frames are views of it. When
``QUEUED_BYTES_MAX`` wait for the reader, the socket is not read until half of that is gone; so a slow reader holds
at most that, one read and one frame. Writing: a frame is handed to the transport whole or not at all, and only
while less than ``UNSENT_BYTES_MAX`` wait there; senders that must wait go on in the order in which they came. So
however many senders there are, at most that and one frame wait for a slow peer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from headwater.kit.errors import Rejected, Unavailable
from headwater.peer import frames

QUEUED_BYTES_MAX = 2 * 1024 * 1024
UNSENT_BYTES_MAX = 1024 * 1024
FRAME_OVERHEAD_BYTES = 512
"""What a frame that waits costs beside its bytes, so that empty ones are bounded too."""

UNKNOWN_FRAME_BYTES_MAX = 4096
"""Of a peer that has not shown who it is."""

JOINED_BYTES_MAX = 16 * 1024
"""Smaller frames are copied into one piece: one call costs more than the copy."""

CLOSE_WAIT_S = 2.0
"""How long the end may wait for a peer to take what was sent."""

Data = bytes | bytearray | memoryview


class Link(asyncio.BufferedProtocol):
    """One reader, any number of senders. Made by the loop; ``closed`` says why it ended, empty while it is open."""

    def __init__(self) -> None:
        self.assembler = frames.Assembler(UNKNOWN_FRAME_BYTES_MAX, UNKNOWN_FRAME_BYTES_MAX)
        self.transport: asyncio.Transport | None = None
        self.address = ""
        self.closed = ""
        self.violation: Rejected | None = None
        """What the peer did that ended the link."""
        self.error: Exception | None = None
        """What broke it."""
        self.queue: deque[frames.Raw] = deque()
        self.queued_bytes = 0
        self.queued_bytes_max = 1  # one frame after the other, until the peer has shown who it is
        self.reading = True
        self.reader: asyncio.Future[None] | None = None
        self.writable = True
        self.turns: deque[asyncio.Future[None]] = deque()
        self.gone = asyncio.get_running_loop().create_future()
        self.sent_bytes = 0
        self.received_bytes = 0

    # -- called by the loop --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self.transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX, low=UNSENT_BYTES_MAX // 4)
        name = transport.get_extra_info("peername")
        self.address = address_text(name) if name else "unknown"

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.assembler.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.received_bytes += nbytes
        self.assembler.filled(nbytes)
        self.refill()

    def eof_received(self) -> bool:
        middle = " in the middle of a frame" if self.assembler.partial_bytes else ""
        self.end(f"the other side closed the connection{middle}")
        return False

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.next_turn()

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self.end(f"the connection broke: {error}" if error else "the connection was closed")
        if not self.gone.done():
            self.gone.set_result(None)

    # -- called by its owner -------------------------------------------------------------------------------------------

    async def receive(self) -> frames.Raw | None:
        """The next frame; None when the link is closed and all that came whole before was received."""
        while True:
            if self.queued_bytes <= self.queued_bytes_max // 2:
                self.refill()
            if self.queue:
                frame = self.queue.popleft()
                self.queued_bytes -= cost(frame)
                return frame
            if self.closed:
                return None
            self.reader = asyncio.get_running_loop().create_future()
            try:
                await self.reader
            finally:
                self.reader = None

    def refill(self) -> None:
        """Queue the frames that were read, up to the bound; read on only while there is room for more."""
        while self.violation is None and self.queued_bytes < self.queued_bytes_max:
            try:
                frame = self.assembler.next()
            except Rejected as error:
                self.violate(error)
                return
            if frame is None:
                break
            self.queue.append(frame)
            self.queued_bytes += cost(frame)
        if self.queue:
            wake(self.reader)
        self.read_on(self.queued_bytes < self.queued_bytes_max)

    def read_on(self, wanted: bool) -> None:
        """Let the loop read the socket, or not."""
        if wanted == self.reading or self.closed or self.transport is None:
            return
        self.reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def trust(self) -> None:
        """The peer has shown who it is: from here frames may be large, and many may wait."""
        self.assembler.raise_limits()
        self.queued_bytes_max = QUEUED_BYTES_MAX

    def violate(self, error: Rejected) -> None:
        """The peer does what no peer may: say so, and end."""
        if self.violation is None:
            self.violation = error
            self.refuse(error)

    def refuse(self, error: Rejected) -> None:
        """Tell the peer why, if it listens, and end."""
        if not self.closed and self.transport is not None and self.writable:
            told = {"code": error.code, "message": error.message, "help": error.help}
            self.transport.write(frames.encode(frames.Kind.REFUSED, told))
        self.end(f"refused: {error.message}")

    async def send(self, kind: int, header: bytes, *body: Data) -> None:
        """Hand a frame to the transport, waiting for room before. Unavailable when the link is closed, Rejected
        when the frame is too large. On cancellation nothing of it was sent."""
        size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in body)
        head = frames.head(kind, header, size)
        if not self.writable or self.turns:
            await self.turn()
        if self.closed or self.transport is None:
            raise Unavailable(f"no connection with {self.address}: {self.closed}", code="connection_lost")
        if size <= JOINED_BYTES_MAX:
            self.transport.write(b"".join((head, *body)))
        else:
            self.transport.writelines((head, *body))
        self.sent_bytes += len(head) + size
        self.next_turn()

    async def turn(self) -> None:
        """Wait until the transport has room, behind those who waited before."""
        turn = asyncio.get_running_loop().create_future()
        self.turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self.turns:
                self.turns.remove(turn)
            else:
                self.next_turn()
            raise

    def next_turn(self) -> None:
        """Let the first of those who wait go on, if there is room; it lets the next go on."""
        while self.turns and (self.writable or self.closed):
            turn = self.turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def end(self, reason: str) -> None:
        """No more frames either way; those that came whole can still be received, what was sent is still sent."""
        if not self.closed:
            self.closed = reason
            wake(self.reader)
            for turn in self.turns:
                wake(turn)
            self.turns.clear()
            if self.transport is not None:
                self.transport.close()

    async def close(self, reason: str = "closed here") -> None:
        """End, and wait until what was sent has left, at most ``CLOSE_WAIT_S``."""
        self.end(reason)
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await asyncio.shield(self.gone)
        except TimeoutError:
            self.abort(reason)
        except asyncio.CancelledError:
            self.abort(reason)
            raise

    def abort(self, reason: str) -> None:
        """End at once; what was not sent is dropped."""
        self.end(reason)
        if self.transport is not None:
            self.transport.abort()


def cost(frame: frames.Raw) -> int:
    """What a frame that waits counts for."""
    return len(frame.header) + len(frame.body) + FRAME_OVERHEAD_BYTES


def wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


def address_text(name: object) -> str:
    """``host:port``, ``[v6]:port``."""
    if not isinstance(name, tuple):
        return str(name)
    return f"[{name[0]}]:{name[1]}" if ":" in str(name[0]) else f"{name[0]}:{name[1]}"
