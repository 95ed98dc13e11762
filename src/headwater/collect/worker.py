"""One collect worker: a listener, its connections, one log, on one event loop in one process.

::

    worker = CollectWorker(settings, keys, blocks=…, submit=…, control=page, clock=clock, publish=report)
    await worker.start()        # listening; port in worker.port
    worker.reload(keys)         # at any time
    await worker.drain(10.0)    # stop listening, answer what has begun, last block durable, log closed

Several workers share the port by SO_REUSEPORT. The control page is looked at every 50 ms: while it says *draining*,
/ping answers 503 and each answer ends its connection, but everything is still taken; only ``drain`` stops that.
While it says *held* (too few nodes of a cluster see each other), events are answered 503 with the reason.
Everything is timed by ``loop.call_later``: there is no task here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from headwater.collect.copied import Copied
from headwater.collect.door import Door, Waiter
from headwater.collect.keys import KeyTable
from headwater.collect.owed import Promise
from headwater.collect.protocol import Connection
from headwater.collect.settings import CollectSettings, host_and_port
from headwater.collect.tag import tag_files
from headwater.config.control import Held
from headwater.event.slots import PARTITIONS_DEFAULT
from headwater.kit import memory
from headwater.kit.clock import Clock
from headwater.kit.errors import Misconfigured
from headwater.kit.threads import Submit
from headwater.log.group import GroupCommit
from headwater.log.write import BlockWriter

POLL_S = 0.05
SWEEP_POLLS = 10
"""Deadlines are looked at every half second; they are so much coarser than they say."""
REPORT_POLLS = 4
"""Reports: every 0.2 s when something changed."""
REPORT_POLLS_MAX = 40
KEEP_FREED_BYTES = 64 * 1024 * 1024
"""Allocations between collections: requests make no cycles, so collecting seldom costs nothing (speed.md §1.2)."""

ROOM_WAIT_NS = 3_000_000_000

Publish = Callable[[dict[str, Any]], None]


class Control(Protocol):
    """What the worker reads of the control page (config/control.py)."""

    @property
    def offset_ns(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    @property
    def held(self) -> Held: ...


class CollectWorker:
    """Wires door, log and listener. Not thread-safe: everything happens in its loop."""

    def __init__(
        self,
        settings: CollectSettings,
        keys: KeyTable,
        *,
        blocks: BlockWriter,
        submit: Submit,
        control: Control,
        clock: Clock,
        publish: Publish,
        salt: bytes | None = None,
        copied: Copied | None = None,
        partitions: int = PARTITIONS_DEFAULT,
    ) -> None:
        """``submit`` is the commit thread; ``publish`` takes the counters, at most five times a second; ``salt`` is of
        address hashes; ``copied`` is there on a node of a cluster."""
        self.settings = settings
        self.blocks = blocks
        self.submit = submit
        self.control = control
        self.clock = clock
        self.publish = publish
        self.door = Door(settings, keys, boot_ns=clock.boot_ns, files=tag_files(), partitions=partitions)
        self.door.hash_with(salt)
        self.copied = self.door.copied = copied
        self.connections: set[Connection] = set()
        self.servers: list[asyncio.Server] = []
        self.polls = 0
        self.published: dict[str, Any] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.group: GroupCommit[Waiter | Promise]
        self.port = 0

    async def start(self, sockets: Sequence[socket.socket] | None = None) -> None:
        """Listen: on ``sockets``, or on those of the settings. Misconfigured when the address cannot be had."""
        self.loop = loop = asyncio.get_running_loop()
        door = self.door
        self.group = GroupCommit(
            self.blocks,
            loop,
            door.release,
            pending_bytes_max=self.settings.pending_bytes_max,
            submit=self.timed,
        )
        door.open(self.group)
        self.poll()
        await self.room()
        for one in sockets or bound_sockets(self.settings):
            server = await loop.create_server(self.connect, sock=one, backlog=self.settings.backlog)
            self.servers.append(server)
            self.port = self.port or int(one.getsockname()[1])
        memory.settle(KEEP_FREED_BYTES)

    async def room(self) -> None:
        """Wait for the first segment of the log, so that the first client finds room; not for long."""
        end_ns = self.clock.boot_ns() + ROOM_WAIT_NS
        while self.group.full() is not None and self.clock.boot_ns() < end_ns:
            await self.clock.sleep(0.01)

    def connect(self) -> Connection:
        """A client has come."""
        return Connection(self.door, self.connections)

    def reload(self, keys: KeyTable, salt: bytes | None = None) -> None:
        """Go on with these keys, and this salt of address hashes, from the next request."""
        self.door.hash_with(salt)
        self.door.use(keys)

    async def drain(self, deadline_s: float) -> bool:
        """Stop: no new connections, what has begun is answered, the log is closed. False when time ran out.

        Requests that come after the deadline are answered 503; whatever was promised is still answered or its
        connection is reset, so nobody is told of an event that is not durable.
        """
        door = self.door
        door.leaving = True
        for server in self.servers:
            server.close()
        end_ns = self.clock.boot_ns() + int(deadline_s * 1e9)
        while True:
            for connection in [one for one in self.connections if one.idle()]:
                connection.abort()
            if not self.connections or self.clock.boot_ns() >= end_ns:
                break
            await self.clock.sleep(0.01)
        in_time = not self.connections
        door.stopped = True
        await self.group.close()
        door.arrivals.give_up()
        for connection in list(self.connections):
            connection.abort()
        if self.timer is not None:
            self.timer.cancel()
        self.report()
        return in_time

    # Every 50 ms

    def poll(self) -> None:
        """Look at the control page, at deadlines, and tell what was done."""
        self.timer = self.loop.call_later(POLL_S, self.poll)
        control, door = self.control, self.door
        door.offset_ns = control.offset_ns
        door.leaving = door.leaving or control.draining
        door.hold(control.held)
        if self.copied is not None:
            self.copied.look()
        door.arrivals.look()
        self.polls += 1
        if self.polls % SWEEP_POLLS == 0:
            now = self.clock.boot_ns()
            for connection in list(self.connections):
                connection.check(now)
        if self.polls % REPORT_POLLS == 0:
            self.report()

    def report(self) -> None:
        """Publish the counters when they have changed, else every two seconds."""
        said = {
            **self.door.stats.report(),
            "connections_open": len(self.connections),
            "heads_parsed": self.door.heads.parsed,
            "pending_bytes": self.group.pending_bytes,
            "next_seq": self.group.next_seq,
            "log": self.group.receipt_prefix,
            "log_ended": self.blocks.ended,
            "draining": self.door.leaving,
        }
        if said != self.published or self.polls % REPORT_POLLS_MAX == 0:
            self.published = said
            self.publish(said)

    def timed(self, work: Callable[[], None]) -> None:
        """Hand a block to the commit thread and measure how long that took."""
        stats, boot_ns, copied = self.door.stats, self.clock.boot_ns, self.copied

        def measured() -> None:
            begun = boot_ns()
            work()
            if copied is not None:
                copied.committed()
            stats.commit_ns += boot_ns() - begun
            stats.commits += 1

        self.submit(measured)


def bound_sockets(settings: CollectSettings) -> list[socket.socket]:
    """The listening sockets of the settings: SO_REUSEPORT, one for each address that the host name has."""
    host, port = host_and_port(settings.listen)
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = socket.socket(family, kind, protocol)
            made.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and host == "::":
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            one.setblocking(False)
            one.bind(address)
    except OSError as error:
        for one in made:
            one.close()
        raise Misconfigured(
            f"cannot listen on {settings.listen}: {error.strerror or error}",
            code="listen",
            field="collect.listen",
        ) from error
    return made


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where it is installed, else asyncio's (1.13 times the CPU per request, speed.md §1.1)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
