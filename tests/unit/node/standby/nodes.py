"""Two nodes in one process: an owner, its standby, the table between them, and connections that are queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headwater.cluster.table import Member, NodeRecord, Table, View
from headwater.kit import tasks
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Unavailable
from headwater.kit.threads import Submit, inline
from headwater.node.standby.keeper import StandbyKeeper
from headwater.node.standby.serve import StandbyServer
from headwater.peer.frames import Frame
from headwater.peer.identity import PROTOCOL
from tests.unit.node.standby.world import DATA, PARTITIONS, SECRET

OWNER, STANDBY, THIRD = "aaaaaaaaaaaa0000", "bbbbbbbbbbbb0000", "cccccccccccc0000"
RESPONSE_S = 3.0
"""Two looks and a save."""


def view(owner: str = OWNER, standby: str = STANDBY, *, alive: tuple[str, ...] = (OWNER, STANDBY)) -> View:
    """The standby's; partition 2 is somebody else's."""
    owners, standbys = [owner] * PARTITIONS, [standby] * PARTITIONS
    owners[2], standbys[2] = THIRD, ""
    records = {
        node: NodeRecord(node=node, name=node, incarnation=1, member_address="m:1", lane_address=f"{node}:2")
        for node in alive
    }
    members = {node: Member(incarnation=1) for node in (OWNER, STANDBY, THIRD)}
    table = Table(
        epoch=1, leader=OWNER, leader_incarnation=1, cluster_id=OWNER, members=members, owner=owners,
        standby=standbys,
    )  # fmt: skip
    return View(me=STANDBY, cluster_id=OWNER, viable=True, why="", table=table, alive=records)


class Views:
    """What the member process says."""

    def __init__(self) -> None:
        self.now: View | None = view()

    def read(self) -> View | None:
        return self.now


class End:
    """One end of a connection."""

    def __init__(self, protocol: int = PROTOCOL[1]) -> None:
        self.protocol = protocol
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.other: End = self
        self.sent: list[tuple[dict[str, Any], bytes]] = []
        self.closed = False

    async def send(self, kind: int, header: Mapping[str, Any], *body: bytes | memoryview) -> None:
        if self.closed:
            raise Unavailable("closed")
        self.sent.append((dict(header), b"".join(body)))
        await self.other.queue.put(msgspec.msgpack.encode((kind, header, b"".join(body))))

    async def receive(self) -> Frame | None:
        data = await self.queue.get()
        if data is None:
            return None
        kind, header, body = msgspec.msgpack.decode(data)
        return Frame(kind, header, memoryview(body))

    async def close(self) -> None:
        for end in (self, self.other):
            end.closed = True
            await end.queue.put(None)


class Nodes:
    """Use as ``async with``: the standby follows the owner until the end."""

    def __init__(self, clock: Clock, owner: Disk, standby: Disk, submit: Submit = inline) -> None:
        self.views = Views()
        self.errors: list[str] = []
        self.server = StandbyServer(
            owner, clock, DATA, submit, self.failed, secret=SECRET, workers=1, window_s=60_000
        )
        self.keeper = StandbyKeeper(
            standby, clock, "", submit, self.failed, self.views, self.dial, window_s=60_000
        )
        self.connections: list[End] = []
        self.protocol = PROTOCOL[1]
        """Of connections from now on."""
        self.refuse: Callable[[], None] = lambda: None
        self.group = tasks.Group("nodes", self.failed)

    def failed(self, owner: str, name: str, error: BaseException) -> None:
        self.errors.append(f"{owner}: {name}: {error}")

    async def dial(self, node: str) -> End:
        self.refuse()
        assert node == OWNER
        here, there = End(self.protocol), End(self.protocol)
        here.other, there.other = there, here
        self.connections.append(there)
        self.group.start("serve", self.serve(there))
        return here

    async def serve(self, end: End) -> None:
        """As the lane role does with a connection that begins with STATE."""
        opened = await end.receive()
        if opened is not None:
            await self.server.serve(end, STANDBY, opened)
        await end.close()

    async def __aenter__(self) -> Nodes:
        await self.group.__aenter__()
        self.group.start("keeper", self.keeper.run())
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.group.__aexit__(*error)
