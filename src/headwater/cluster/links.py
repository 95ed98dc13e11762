"""The member process's connections: one with every node that it knows of, dialled again for as long as it is away.

``know`` says who should be connected; a *seed* is an address of whoever answers there. Either side may have dialled: a
node is dialled only while there is no connection with it. What is sent goes into a short queue for each connection and
leaves in order; where the other side does not read, the oldest goes (heartbeats are worth nothing when they are old,
and a table that was lost is asked for again). A connection on which nothing was heard for ``silent_s`` is dropped and
dialled anew, since TCP would hold it for minutes after a cut cable.

A message that cannot be read is counted and passed over: a newer node may say more than this one understands.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from headwater.cluster import messages
from headwater.cluster.messages import Message
from headwater.kit.clock import Clock
from headwater.kit.counters import Counters
from headwater.kit.errors import HeadwaterError, Rejected
from headwater.kit.tasks import Group
from headwater.peer import connection
from headwater.peer.connection import Connection, Kind
from headwater.peer.identity import Identity, Refused

QUEUED_MAX = 64
"""Messages for one connection."""
BACK_OFF_MAX = 8
"""Times the first wait, between two attempts."""
FAREWELL_S = 0.5
"""How long the last words may take."""
SELF = "self"

Heard = Callable[[str, Message], None]
Met = Callable[[str], None]


class Line:
    """One connection and what waits for it."""

    def __init__(self, peer: Connection, heard_ns: int) -> None:
        self.peer = peer
        self.heard_ns = heard_ns
        self.queue: deque[bytes] = deque(maxlen=QUEUED_MAX)
        self.filled = asyncio.Event()
        self.drained = asyncio.Event()

    def put(self, data: bytes) -> None:
        """Send it when its turn comes."""
        self.queue.append(data)
        self.drained.clear()
        self.filled.set()

    async def pump(self) -> None:
        """Send what is queued until the connection ends."""
        while True:
            await self.filled.wait()
            self.filled.clear()
            while self.queue:
                try:
                    await self.peer.send(Kind.MEMBER, {}, self.queue.popleft())
                except HeadwaterError:
                    return
            self.drained.set()


class Links:
    """All connections of one member process."""

    def __init__(
        self,
        identity: Identity,
        clock: Clock,
        counters: Counters,
        group: Group,
        heard: Heard,
        met: Met,
        *,
        retry_s: float,
        dial_s: float,
        silent_s: float,
    ) -> None:
        """``heard`` gets what a node says, and who it is; ``met`` who it is as soon as there is a connection; ``group``
        owns the tasks."""
        self.identity = identity
        self.clock = clock
        self.counters = counters
        self.group = group
        self.heard = heard
        self.met = met
        self.retry_s = retry_s
        self.dial_s = dial_s
        self.silent_s = silent_s
        self.wanted: dict[str, str] = {}
        """Node id → address."""
        self.lines: dict[str, list[Line]] = {}
        self.trouble: dict[str, str] = {}
        """Address → why there is no connection with whoever is there."""
        self.listener: connection.Listener | None = None
        self.dialling: set[asyncio.Task[None]] = set()

    async def listen(self, binding: str) -> str:
        """Take connections; the address. Misconfigured as connection.listen."""
        self.listener = await connection.listen(binding, self.identity, self.attend)
        return self.listener.address

    def rename(self, incarnation: int) -> None:
        """This node has joined anew."""
        self.identity = dataclasses.replace(self.identity, incarnation=incarnation)
        if self.listener is not None:
            self.listener.identity = self.identity

    def seek(self, addresses: list[str]) -> None:
        """Stay connected with whoever is at these addresses."""
        for address in addresses:
            self.start(f"seek {address}", self.keep_seed(address))

    def know(self, nodes: Mapping[str, str]) -> None:
        """Stay connected with these nodes (id → address), and with no others that were known."""
        for node, address in nodes.items():
            if node != self.identity.node and self.wanted.get(node) != address:
                self.wanted[node] = address
                self.start(f"dial {node}", self.keep(node, address))
        for node in self.wanted.keys() - nodes.keys():
            self.trouble.pop(self.wanted.pop(node), None)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Dial somebody until this or ``close`` ends it."""
        task = self.group.start(name, work)
        self.dialling.add(task)
        task.add_done_callback(self.dialling.discard)

    def send(self, node: str, message: Message) -> bool:
        """Say something to a node; False: there is no connection."""
        lines = self.lines.get(node)
        if not lines:
            return False
        lines[-1].put(messages.encode(message))
        return True

    def protocol(self, node: str) -> int:
        """What is spoken with a node; 0: there is no connection."""
        lines = self.lines.get(node)
        return lines[-1].peer.protocol if lines else 0

    def check(self, now_ns: int) -> None:
        """Drop connections on which nobody was heard for long."""
        for lines in self.lines.values():
            for line in lines:
                if now_ns - line.heard_ns > self.silent_s * 1e9:
                    line.peer.abort()

    async def keep(self, node: str, address: str) -> None:
        """Dial a node whenever there is no connection with it, until another address of it is known."""
        waits = Waits(self.retry_s)
        while self.wanted.get(node) == address:
            if node not in self.lines and await self.dial(address, node):
                waits.begin()
            await self.clock.sleep(waits.next_s(reached=node in self.lines))

    async def keep_seed(self, address: str) -> None:
        """The same for whoever is at an address."""
        waits, node = Waits(self.retry_s), ""
        while True:
            if node not in self.lines:
                node = await self.dial(address, None)
                if node:
                    waits.begin()
            await self.clock.sleep(waits.next_s(reached=bool(node)))

    async def dial(self, address: str, node: str | None) -> str:
        """Who was at an address, after the connection with it has ended; empty: nobody that can be spoken with."""
        try:
            async with asyncio.timeout(self.dial_s):
                peer = await connection.dial(address, self.identity, node=node)
        except TimeoutError:
            self.trouble[address] = f"{address} does not answer within {self.dial_s:g} s"
            return ""
        except Refused as error:
            if error.code != SELF:  # a list of seeds may name everybody
                self.trouble[address] = str(error)
            return ""
        except HeadwaterError as error:
            self.trouble[address] = error.message
            return ""
        self.trouble.pop(address, None)
        try:
            await self.attend(peer)
        finally:
            await peer.close()
        return peer.peer.node

    async def attend(self, peer: Connection) -> None:
        """Speak with a node until the connection ends."""
        line, node = Line(peer, self.clock.boot_ns()), peer.peer.node
        self.lines.setdefault(node, []).append(line)
        pump = self.group.start(f"send {node}", line.pump())
        try:
            self.met(node)
            while (frame := await peer.receive()) is not None:
                line.heard_ns = self.clock.boot_ns()
                if frame.kind == Kind.MEMBER:
                    self.take(node, frame.body)
                else:
                    peer.ignore(frame)
        finally:
            pump.cancel()
            self.lines[node].remove(line)
            if not self.lines[node]:
                del self.lines[node]

    def take(self, node: str, data: memoryview) -> None:
        """Hand a message on; what cannot be read is counted."""
        try:
            message = messages.decode(data)
        except Rejected:
            self.counters.add("headwater_cluster_bad_messages_total", node=node)
            return
        self.heard(node, message)

    async def close(self) -> None:
        """What was said last still leaves; then no connection is left."""
        self.wanted.clear()
        lines = [line for lines in self.lines.values() for line in lines]
        try:
            async with asyncio.timeout(FAREWELL_S):
                for line in lines:
                    if line.queue:
                        await line.drained.wait()
        except TimeoutError:
            pass
        for task in self.dialling:
            task.cancel()
        if self.dialling:
            await asyncio.wait(self.dialling)
        if self.listener is not None:
            await self.listener.close()


class Waits:
    """How long to wait between two attempts: doubling while nobody answers."""

    def __init__(self, first_s: float) -> None:
        self.first_s = first_s
        self.begin()

    def begin(self) -> None:
        """Somebody answered."""
        self.factor = 1

    def next_s(self, *, reached: bool) -> float:
        """The next wait."""
        wait_s = self.first_s * self.factor
        self.factor = 1 if reached else min(2 * self.factor, BACK_OFF_MAX)
        return wait_s
