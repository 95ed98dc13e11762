"""A simulated network of named hosts (kit.wire): latency, cuts in one or both directions, resets, dead hosts.

Like TCP: bytes of one direction arrive in order, a cut delays them and loses none, a reset loses what is under way
and is seen by both sides once it arrives, a host that died is only noticed by silence (``crash`` with ``silent``) or
by a reset. A writer waits while [64 KiB] are under way. Latency is drawn per piece; pieces split and join as the seed
likes, so nobody can rely on message borders.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Protocol

from headwater.kit.errors import Misconfigured, Unavailable
from headwater.kit.wire import ACCEPTED_MAX, Listener, Stream, split_address

WINDOW_BYTES = 64 * 1024


class End(Protocol):
    """One end of a connection, as the network knows it."""

    here: str
    there: str

    def pump(self) -> None: ...
    def break_off(self) -> None: ...
    def vanish(self) -> None: ...


class Network:
    """All hosts and what lies between them. ``latency_s`` is the range from which delays are drawn."""

    def __init__(self, seed: int, latency_s: tuple[float, float] = (0.0002, 0.005)) -> None:
        self.random = random.Random(f"wire {seed}")
        self.latency_s = latency_s
        self.cuts: set[tuple[str, str]] = set()
        self.frozen: set[str] = set()
        """Hosts that stand still (transport.py)."""
        self.doors: dict[str, SimListener] = {}
        self.streams: list[End] = []
        self.ports = 40_000

    def host(self, name: str) -> SimWire:
        """The network as one host sees it."""
        return SimWire(self, name)

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Nothing gets from ``one`` to ``other`` any more (nor back, unless ``one_way``: half open)."""
        self.cuts.add((one, other))
        if not one_way:
            self.cuts.add((other, one))

    def heal(self) -> None:
        """All cuts are gone; what was held back arrives."""
        self.cuts.clear()
        self.pump()

    def thaw(self, name: str) -> None:
        """A host goes on."""
        self.frozen.discard(name)
        self.pump()

    def pump(self) -> None:
        """Whatever may go on its way, does."""
        for stream in list(self.streams):
            stream.pump()

    def reset(self, one: str, other: str) -> None:
        """Every connection between two hosts breaks."""
        for stream in self.of(one):
            if stream.there == other:
                stream.break_off()

    def crash(self, name: str, *, silent: bool = False) -> None:
        """A host dies: its doors and connections are gone; ``silent``: the others are not told."""
        for address in [a for a, door in self.doors.items() if door.host == name]:
            del self.doors[address]
        for stream in self.of(name):
            if silent:
                stream.vanish()
            else:
                stream.break_off()

    def of(self, name: str) -> Iterator[End]:
        return iter([stream for stream in self.streams if stream.here == name])

    def delay_s(self) -> float:
        return self.random.uniform(*self.latency_s)


class SimStream:
    """One end of a connection (kit.wire.Stream)."""

    def __init__(self, network: Network, here: str, there: str) -> None:
        self.network = network
        self.here = here
        self.there = there
        self.peer = there
        self.other: SimStream | None = None
        self.outgoing = bytearray()
        self.arrived = bytearray()
        self.ended = False
        self.end_arrived = False
        self.broken = False
        self.pumping = False
        self.changed = asyncio.Event()
        network.streams.append(self)

    async def read(self, bytes_max: int) -> bytes:
        while not self.arrived and not self.end_arrived and not self.broken:
            await self.wait()
        if self.broken:
            raise Unavailable(f"the connection with {self.peer} broke", code="connection_lost")
        count = self.network.random.randint(1, max(1, min(bytes_max, len(self.arrived))))
        data = bytes(self.arrived[:count])
        del self.arrived[:count]
        if self.other is not None:
            self.other.pump()
        return data

    async def write(self, data: bytes) -> None:
        if self.ended or self.broken:
            raise Unavailable(f"the connection with {self.peer} broke", code="connection_lost")
        self.outgoing += data
        self.pump()
        while self.under_way() > WINDOW_BYTES and not self.broken:
            await self.wait()

    async def close(self) -> None:
        self.ended = True
        self.pump()

    def under_way(self) -> int:
        return len(self.outgoing) + (len(self.other.arrived) if self.other is not None else 0)

    async def wait(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    def pump(self) -> None:
        """Send the next piece on its way, if the way is open."""
        self.changed.set()
        if self.pumping or self.broken or (self.here, self.there) in self.network.cuts:
            return
        other = self.other
        if other is None or not (self.outgoing or (self.ended and not other.end_arrived)):
            return
        if len(other.arrived) > WINDOW_BYTES:
            return
        self.pumping = True
        asyncio.get_running_loop().call_later(self.network.delay_s(), self.deliver)

    def deliver(self) -> None:
        self.pumping = False
        other = self.other
        if other is None or self.broken or (self.here, self.there) in self.network.cuts:
            return  # held back: ``heal`` pumps again
        count = self.network.random.randint(1, len(self.outgoing)) if self.outgoing else 0
        other.arrived += self.outgoing[:count]
        del self.outgoing[:count]
        if self.ended and not self.outgoing:
            other.end_arrived = True
        other.changed.set()
        self.pump()

    def break_off(self) -> None:
        """A reset: this end now, the other end when it hears of it."""
        other = self.other
        self.vanish()
        if other is not None and not other.broken:
            asyncio.get_running_loop().call_later(self.network.delay_s(), other.vanish)

    def vanish(self) -> None:
        """This end is gone; the other one is not told."""
        self.broken = True
        self.changed.set()
        if self in self.network.streams:
            self.network.streams.remove(self)


class SimListener:
    """An open door (kit.wire.Listener)."""

    def __init__(self, network: Network, host: str, address: str) -> None:
        self.network = network
        self.host = host
        self.address = address
        self.waiting: asyncio.Queue[SimStream] = asyncio.Queue(ACCEPTED_MAX)

    async def accept(self) -> Stream:
        return await self.waiting.get()

    async def close(self) -> None:
        self.network.doors.pop(self.address, None)


class SimWire:
    """The network as one host sees it (kit.wire.Wire). Hosts are named in addresses: ``b:8420``."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name

    async def connect(self, address: str, *, timeout_s: float) -> Stream:
        host, _ = split_address(address)
        way = ((self.name, host), (host, self.name))
        wait = self.network.delay_s() + self.network.delay_s()
        if wait > timeout_s or self.network.cuts.intersection(way):
            await asyncio.sleep(timeout_s)
            raise Unavailable(f"{address} does not answer", code="connect_failed")
        await asyncio.sleep(wait)
        door = self.network.doors.get(address)
        if door is None or door.waiting.full() or self.network.cuts.intersection(way):
            raise Unavailable(f"{address} does not answer", code="connect_failed")
        near, far = SimStream(self.network, self.name, host), SimStream(self.network, host, self.name)
        near.other, far.other = far, near
        door.waiting.put_nowait(far)
        return near

    async def listen(self, address: str) -> Listener:
        _, port = split_address(address)
        if not port:
            self.network.ports += 1
            port = self.network.ports
        full = f"{self.name}:{port}"
        if full in self.network.doors:
            raise Misconfigured(f"cannot listen on {full}: in use", code="listen_failed")
        door = self.network.doors[full] = SimListener(self.network, self.name, full)
        return door
