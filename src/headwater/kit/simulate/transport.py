"""Connections on the simulated network for asyncio protocols: what ``loop.create_connection`` gives, without sockets.

Like ``wire.SimStream``, and as TCP: bytes of one direction arrive in order, in pieces that the seed draws; a cut delays
them and loses none; an end that is gone is noticed when something is sent to it, or by a reset if that gets through. A
process that is paused reads nothing and sends nothing (``Network.frozen``), its kernel takes what comes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from headwater.kit.errors import Unavailable
from headwater.kit.simulate.wire import Network

HIGH_BYTES, LOW_BYTES = 64 * 1024, 16 * 1024
SPLIT_ONE_IN = 8
"""So often a delivery is cut in two."""


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, here: str, there: str, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__({"peername": (there, 0)})
        self.network = network
        self.here = here
        self.there = there
        self.protocol = protocol
        self.loop = asyncio.get_running_loop()
        self.other: SimTransport | None = None
        self.outgoing = bytearray()
        self.pumping = False
        self.ending = False
        """Closed here; what was sent still leaves."""
        self.gone = False
        self.reading = True
        self.full = False
        network.streams.append(self)

    # -- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ending or self.gone:
            return
        self.outgoing += data
        if len(self.outgoing) > HIGH_BYTES and not self.full:
            self.full = True
            self.protocol.pause_writing()
        self.pump()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It has its own."""

    def is_closing(self) -> bool:
        return self.ending or self.gone

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        if self.other is not None:
            self.other.pump()

    def close(self) -> None:
        if not self.ending:
            self.ending = True
            self.pump()

    def abort(self) -> None:
        self.lose(None)

    # -- the network

    @property
    def is_open_end(self) -> bool:
        """Whether this end is neither closed nor gone."""
        return not (self.gone or self.ending)

    @property
    def takes(self) -> bool:
        """Whether it reads what arrives."""
        return self.reading and self.is_open_end

    @property
    def is_open(self) -> bool:
        """Whether anything gets from here to there now."""
        network = self.network
        return (self.here, self.there) not in network.cuts and not network.frozen & {self.here, self.there}

    def pump(self) -> None:
        """Send the next piece on its way, if the way is open."""
        if self.pumping or self.gone or not self.is_open or not (self.outgoing or self.ending):
            return
        self.pumping = True
        self.loop.call_later(self.network.delay_s(), self.deliver)

    def deliver(self) -> None:
        """A piece arrives."""
        self.pumping = False
        other = self.other
        if self.gone or not self.is_open:
            return  # held back: ``heal`` pumps again
        if other is None or other.gone:
            return self.lose(
                ConnectionResetError("the other end is gone") if self.outgoing else None, tell=False
            )
        left = len(self.outgoing)
        if left > 1 and self.network.random.randrange(SPLIT_ONE_IN) == 0:
            left = self.network.random.randint(1, left)
        while left and other.takes:
            buffer = memoryview(other.protocol.get_buffer(left))
            count = min(left, len(buffer))
            buffer[:count] = self.outgoing[:count]
            del self.outgoing[:count]
            left -= count
            other.protocol.buffer_updated(count)
        if other.ending:
            self.outgoing.clear()  # nobody there reads any more
        if self.full and len(self.outgoing) <= LOW_BYTES:
            self.full = False
            self.protocol.resume_writing()
        if self.outgoing:
            if other.reading:
                self.pump()
        elif self.ending:
            if other.is_open_end:
                other.protocol.eof_received()
                other.close()
            self.lose(None, tell=False)

    def lose(self, error: Exception | None, *, tell: bool = True) -> None:
        """This end is gone; the other one hears of it when it can."""
        if self.gone:
            return
        self.vanish()
        self.loop.call_soon(self.protocol.connection_lost, error)
        if tell and self.is_open and self.other is not None:
            self.loop.call_later(self.network.delay_s(), self.other.reset)

    def reset(self) -> None:
        """What the other end sends when it is gone has arrived."""
        if self.is_open:
            self.lose(ConnectionResetError("reset by the other end"), tell=False)

    def break_off(self) -> None:
        """A reset by somebody on the way."""
        other = self.other
        self.lose(ConnectionResetError("reset on the way"), tell=False)
        if other is not None and not other.gone:
            self.loop.call_later(self.network.delay_s(), other.lose, ConnectionResetError("reset on the way"))

    def vanish(self) -> None:
        """The process of this end is dead: nobody here is told."""
        self.gone = True
        if self in self.network.streams:
            self.network.streams.remove(self)


async def connect(
    network: Network,
    here: str,
    there: str,
    near: asyncio.BufferedProtocol,
    far: asyncio.BufferedProtocol,
    timeout_s: float,
) -> tuple[SimTransport, SimTransport]:
    """A connection between two hosts, which somebody who listens takes. Unavailable: the way is cut."""
    way = {(here, there), (there, here)}
    if network.cuts & way or network.frozen & {here, there}:
        await asyncio.sleep(timeout_s)
        raise Unavailable(f"{there} does not answer", code="connect_failed")
    await asyncio.sleep(network.delay_s() + network.delay_s())
    one, other = SimTransport(network, here, there, near), SimTransport(network, there, here, far)
    one.other, other.other = other, one
    near.connection_made(one)
    far.connection_made(other)
    return one, other
