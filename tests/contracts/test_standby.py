"""A standby over a real connection, on real disks: what a processor commits is there, and is what it has itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater.event.position import Vector
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Broken
from headwater.kit.threads import Thread
from headwater.node.standby import entries, keeper, serve
from headwater.node.standby.both import needed
from headwater.node.standby.keeper import StandbyKeeper
from headwater.node.standby.serve import StandbyServer
from headwater.peer import connection
from headwater.peer.connection import Connection, Identity
from headwater.process import state
from headwater.process.state import Fold
from headwater.process.takeover import candidates, standby_folder
from tests.unit.node.standby import world
from tests.unit.node.standby.nodes import OWNER, STANDBY, Views, view
from tests.unit.node.standby.world import FOLLOWED, PARTITIONS, SECRET, Processor, check

EVERYONE = tuple(range(PARTITIONS))
WINDOW_S = 60_000


class RealDisk:
    """What the processor of the stories asks of a simulated disk."""

    def process(self, name: str) -> SystemDisk:
        return SystemDisk()


def identity(node: str) -> Identity:
    return Identity(node=node, incarnation=1, folder=node, cluster="east", name=node, secret=b"s" * 32)


async def test_a_standby_follows_over_the_loopback_and_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H7."""
    here, there = str(tmp_path / "owner"), str(tmp_path / "standby")
    for name in ("state", "ready"):
        SystemDisk().mkdir(f"{there}/{name}")
    monkeypatch.setattr(world, "DATA", here)
    for module, name in (
        (keeper, "LOOK_INTERVAL_S"),
        (keeper, "SAVE_INTERVAL_S"),
        (keeper, "RETRY_S"),
        (serve, "POLL_S"),
    ):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(entries, "PIECE_BYTES", 1000)
    disk, clock, views, errors = SystemDisk(), SystemClock(), Views(), list[BaseException]()
    processor = Processor(RealDisk())  # type: ignore[arg-type]
    server = StandbyServer(
        disk, clock, here, Thread("reading"), lambda *told: errors.append(told[2]), secret=SECRET, workers=1,
        window_s=WINDOW_S,
    )  # fmt: skip
    connections: list[Connection] = []

    async def attend(peer: Connection) -> None:
        connections.append(peer)
        opened = await peer.receive()
        assert opened is not None
        await server.serve(peer, peer.peer.node, opened)

    listener = await connection.listen("127.0.0.1:0", identity(OWNER), attend)
    kept = StandbyKeeper(
        disk, clock, there, Thread("writing"), lambda *told: errors.append(told[2]), views,
        lambda node: connection.dial(listener.address, identity(STANDBY), node=node), window_s=WINDOW_S,
    )  # fmt: skip
    running = asyncio.get_running_loop().create_task(kept.run())
    try:
        for turn in range(4):
            for _ in range(5):
                processor.commit(EVERYONE, 40, 30)
            if turn % 2:
                processor.save()
            await kept_is(processor, there, server)
            if turn == 1:
                connections[-1].abort()
            if turn == 2:  # a standby that has lost everything: all of it goes again
                views.now = None
                await asyncio.sleep(0.1)
                spoil(f"{standby_folder(there, OWNER, 0)}/fold")
                views.now = view()
        assert not errors and len(connections) >= 3
        told = candidates(disk, there, EVERYONE, 0, [standby_folder(there, OWNER, 0)]).candidates[-1].fold
        assert told.vectors == {p: processor.fold.vectors[p] for p in FOLLOWED}
    finally:
        running.cancel()
        await asyncio.wait([running])
        await listener.close()


async def kept_is(processor: Processor, there: str, server: StandbyServer) -> None:
    """Wait until the owner hears that all of it is on the standby's disk, and look."""
    expected: dict[int, Vector] = {p: processor.fold.vectors[p] for p in FOLLOWED}
    folder = standby_folder(there, OWNER, 0)
    async with asyncio.timeout(20):
        while server.synced(STANDBY) != expected or loaded(folder).vectors != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    check(SystemDisk(), folder, loaded(folder))
    now = view()
    assert (
        needed(type(now)(**{**{f: getattr(now, f) for f in now.__struct_fields__}, "me": OWNER}), server)
        == expected
    )


def spoil(path: str) -> None:
    Path(path).write_bytes(b"\xff")


def loaded(folder: str) -> Fold:
    try:
        return state.load(SystemDisk(), folder)
    except Broken:
        return Fold()
