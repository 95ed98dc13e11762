"""Two nodes' lane processes over real connections: a mirror equals its home's log, whatever ends in between."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.cluster import view
from headwater.cluster.settings import ClusterSettings
from headwater.cluster.table import Member, NodeRecord, Table, View
from headwater.config.control import ControlPage
from headwater.config.report import Report, replace
from headwater.config.running import NodeInfo
from headwater.event.position import EMPTY, Vector, WriterId, writer_id
from headwater.event.record import COUNTS
from headwater.kit import ask
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Unavailable
from headwater.kit.rng import SeededRng, SystemRng
from headwater.kit.threads import inline
from headwater.lane import folder, mirror
from headwater.log import recover, retain
from headwater.log.block import Secret
from headwater.log.write import BlockWriter
from headwater.node import needs
from headwater.node.context import Context
from headwater.node.roles.lane import LaneRole
from headwater.node.settings import Settings
from headwater.peer.connection import Connection
from tests.unit.lane.raw import gathered, is_mine, payload_of
from tests.unit.lane.world import follow

HOME, OWNER = 0xFEDC_BA98_7654_0000, 0x0123_4567_89AB_0000
PARTITIONS = 8
SEGMENT = 32 * 4096


class Node:
    """A data folder, its lane process, and what its collectors wrote."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self.name = f"{number:016x}"
        self.data = str(path)
        self.disk, self.clock = SystemDisk(), SystemClock()
        for part in ("raw", "run/reports", "run/heartbeats"):
            self.disk.mkdir(f"{path}/{part}")
        self.secret = Secret(number >> 16)
        self.started = 0
        self.log_ids = itertools.count(1)
        self.writers: dict[int, BlockWriter] = {}
        self.so_far: dict[int, dict[str, int]] = {}
        self.expected: list[tuple[int, int, int, int]] = []
        """Writer, log, number and slot of each event that was acknowledged."""
        self.served: list[Connection] = []

    async def start(self) -> None:
        """Its lane process, of a new start of the node."""
        self.started += 1
        self.control = ControlPage.in_memory(start=self.started)
        info = NodeInfo(
            pid=1, start=self.started, version="0", folder_id=self.name, partitions=PARTITIONS, started_wall_ns=0,
            collector="", ops="", configuration="",
        )  # fmt: skip
        cluster = ClusterSettings(name="test", secret="s" * 16, lane="tcp://127.0.0.1:0")
        context = Context(
            "lane", "0", self.data, 0, disk=self.disk, clock=self.clock, rng=SystemRng(), secret=self.secret,
            control=self.control, node=info, settings=Settings(cluster=cluster),
        )  # fmt: skip
        self.role = LaneRole(context)
        serve = self.role.serve

        async def served(connection: Connection) -> None:
            self.served.append(connection)
            await serve(connection)

        self.role.serve = served  # type: ignore[method-assign]
        await self.role.start()

    async def stop(self) -> None:
        await self.role.drain()
        await self.role.stop()
        for worker in list(self.writers):
            self.end_log(worker)

    async def ask(self, op: str, **more: Any) -> dict[str, Any]:
        return (await ask.ask_async(f"{self.data}/run/lane.sock", {"op": op, "stream": "main", **more}, 5.0))[
            0
        ]

    def record(self) -> NodeRecord:
        address = self.role.listener.address if self.role.listener is not None else ""
        return NodeRecord(
            node=self.name, name=self.name, incarnation=self.started, member_address="", lane_address=address
        )

    def folder(self, worker: int) -> str:
        return f"{self.data}/raw/{writer_id(self.number, worker):016x}"

    def write(self, worker: int, slots: list[int], body_bytes: int = 0) -> None:
        """A block, acknowledged."""
        writer = writer_id(self.number, worker)
        if worker not in self.writers:
            self.so_far[worker] = {}
            self.writers[worker] = BlockWriter(
                self.disk, self.clock, self.folder(worker), writer, next(self.log_ids), secret=self.secret,
                start=self.started, offset_ns=0, segment_bytes=SEGMENT, submit=inline,
            )  # fmt: skip
        one = self.writers[worker]
        records = [("single", slot, 0) for slot in slots]
        payload = payload_of(records, self.so_far[worker], one.next_seq, body_bytes)
        self.expected += [(int(writer), one.log_id, one.next_seq + n, slot) for n, slot in enumerate(slots)]
        one.write(payload, records=len(slots), events=COUNTS.unpack_from(payload)[1])

    def end_log(self, worker: int) -> None:
        """The process of a worker dies."""
        self.writers.pop(worker).close()
        recover.recover_all(self.disk, self.folder(worker), self.secret)

    def ends(self) -> Vector:
        _, at = follow(self.disk, f"{self.data}/raw", self.secret, self.role.now(), EMPTY, bytes_max=1 << 30)
        return Vector(at.entries)

    def retire(self, below: Vector) -> None:
        for name in self.disk.listdir(f"{self.data}/raw"):
            retain.retire(
                self.disk, f"{self.data}/raw/{name}", below[WriterId(int(name, 16))], wanted=lambda *_: False,
                segment_bytes=SEGMENT, spares_max=2,
            )  # fmt: skip


class World:
    """A home and an owner that know each other."""

    def __init__(self, path: Path) -> None:
        self.home, self.owner = Node(path / "home", HOME), Node(path / "owner", OWNER)

    async def start(self) -> None:
        for node in (self.home, self.owner):
            await node.start()
        self.meet()

    def meet(self, epoch: int = 1) -> None:
        """What the member processes would say."""
        nodes = (self.home, self.owner)
        table = Table(
            epoch=epoch, leader=self.home.name, leader_incarnation=1, cluster_id=self.home.name,
            members={node.name: Member(incarnation=1) for node in nodes},
            owner=[nodes[p % 2].name for p in range(PARTITIONS)], standby=[""] * PARTITIONS,
        )  # fmt: skip
        alive = {node.name: node.record() for node in nodes}
        for node in nodes:
            seen = View(
                me=node.name, cluster_id=self.home.name, viable=True, why="", table=table, alive=alive
            )
            view.write(node.disk, view.view_path(node.data), seen)
            node.role.look()

    async def until(self, true: Callable[[], bool], seconds: float = 20.0) -> None:
        """Ticks of both, until something holds."""
        end_ns = self.home.clock.boot_ns() + seconds * 1e9
        while not true():
            assert self.home.clock.boot_ns() < end_ns, "it never came to be"
            for node in (self.home, self.owner):
                await node.role.tick()
            await self.home.clock.sleep(0.01)

    async def complete(self) -> dict[str, Any]:
        """The status of the stream once everything is there."""
        status: dict[str, Any] = {"complete": False}
        while not status["complete"]:
            await self.home.clock.sleep(0.01)
            status = await self.owner.ask("status")
        return status

    def mirrored(self, path: str, origin: Vector = EMPTY) -> list[tuple[Any, ...]]:
        """The events that the owner reads."""
        owner = self.owner
        blocks, _ = follow(
            owner.disk, f"{owner.data}/raw", owner.secret, owner.role.now(), origin, path, bytes_max=1 << 20
        )
        return sorted((e[0], e[1], e[2], e[7]) for e in gathered(blocks))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.start()
    yield made
    await made.owner.stop()
    await made.home.stop()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_inv_lane_1_a_mirror_equals_the_log_of_its_home(world: World, seed: int) -> None:
    """R5: after breaks an owner reads on from where it stands.

    Connections are cut, workers and the home start again, segments are recycled as far as the mirror has them."""
    rng, home, owner = SeededRng(seed), world.home, world.owner
    wanted = [1, 3, 6]
    path = (await owner.ask("open", partitions=wanted, origin=EMPTY.encode().hex(), until=None))["path"]
    for _ in range(60):
        for _ in range(1 + rng.below(5)):
            home.write(rng.below(2), [rng.below(64) for _ in range(1 + rng.below(20))], rng.below(2000))
        chance = rng.below(10)
        if chance < 4 and home.served:
            home.served.pop(rng.below(len(home.served))).abort()
        elif chance == 4 and home.writers:
            home.end_log(rng.below(2) if len(home.writers) == 2 else next(iter(home.writers)))
        elif chance == 5:
            await home.stop()
            await home.start()
            world.meet()
        elif chance == 6:
            home.retire(Vector.decode(bytes.fromhex((await owner.ask("status"))["at"])))
        await home.clock.sleep(0.005 * rng.below(5))
    end = home.ends()
    at = EMPTY
    while dict(at) != dict(end):
        at = Vector.decode(bytes.fromhex((await owner.ask("status"))["at"]))
        await home.clock.sleep(0.01)
    await world.until(lambda: len(world.mirrored(path)) == sum(is_own(e, wanted) for e in home.expected))
    assert world.mirrored(path) == sorted(e for e in home.expected if is_own(e, wanted))
    assert (await owner.ask("status"))["missing"] == {}


def is_own(event: tuple[Any, ...], wanted: list[int]) -> bool:
    return is_mine((*event[:3], b"", 0, None, b"", event[3], None, False), wanted, PARTITIONS)


async def test_a_stream_with_an_end_is_complete_there_and_has_nothing_beyond(world: World) -> None:
    for _ in range(5):
        world.home.write(0, [1, 2, 3])
    origin = world.home.ends()
    for _ in range(5):
        world.home.write(0, [1, 2, 3])
    until = world.home.ends()
    world.home.write(0, [1, 2, 3])
    request = {"partitions": [1, 2], "origin": origin.encode().hex(), "until": until.encode().hex()}
    path = (await world.owner.ask("open", **request))["path"]
    status = await world.complete()
    assert dict(Vector.decode(bytes.fromhex(status["at"]))) == dict(until) and status["silent"] == []
    assert [e[2] for e in world.mirrored(path, origin)] == [n for n in range(15, 30) if n % 3 < 2]
    await world.owner.ask("close")
    assert not world.owner.disk.exists(path)


async def test_a_home_that_is_gone_is_silent_and_what_it_gave_back_is_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "SILENT_S", 0.2)
    for _ in range(80):
        world.home.write(0, [1] * 8, 1000)
    until = world.home.ends()
    world.home.retire(until)
    request = {"partitions": [1], "origin": EMPTY.encode().hex(), "until": until.encode().hex()}
    await world.owner.ask("open", **request)
    status = await world.complete()
    (lost,) = status["missing"].values()
    assert 0 < lost < 640 and set(status["missing"]) == {f"{writer_id(HOME, 0):016x}"}
    await world.home.role.stop()
    world.home.served.clear()
    while (await world.owner.ask("status"))["silent"] != [world.home.name]:
        await world.home.clock.sleep(0.05)
    await world.home.start()
    world.meet()
    while (await world.owner.ask("status"))["silent"]:
        await world.home.clock.sleep(0.05)


async def test_a_full_mirror_waits_until_it_is_trimmed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: bounded; the home keeps the rest."""
    monkeypatch.setattr(mirror, "SHARE_BYTES_MIN", 0)
    monkeypatch.setattr(mirror, "CREDIT_BYTES", 1 << 16)
    monkeypatch.setattr(mirror, "GRANT_BYTES_MIN", 1 << 14)
    monkeypatch.setattr(folder, "SEGMENT_BYTES", 1 << 17)
    monkeypatch.setattr(folder, "LAST_SEGMENT_BYTES_MIN", 1)
    world.owner.role.mirrors.bytes_max = 1 << 19
    for _ in range(400):  # 8 MB, of which at most half an MB and a cut are there at once
        world.home.write(0, [1] * 20, 1000)
    until = world.home.ends()
    request = {"partitions": [1], "origin": EMPTY.encode().hex(), "until": until.encode().hex()}
    path = (await world.owner.ask("open", **request))["path"]
    await world.home.clock.sleep(1.5)  # time enough for all of it
    assert 1 << 19 < world.owner.role.mirrors.told()["main"]["bytes"] < 4 << 20
    at, read = EMPTY, 0
    while dict(at) != dict(until):
        await world.home.clock.sleep(0.02)
        blocks, at = follow(
            world.owner.disk, f"{world.owner.data}/raw", world.owner.secret, world.owner.role.now(), at, path
        )
        read += sum(block.header.events for block in blocks if block.payload is not None)
        await world.owner.ask("trim", below=at.encode().hex())
    assert read == 8000


async def test_inv_lane_2_owners_say_what_they_need_and_every_home_reports_it(world: World) -> None:
    """R3: what an owner has not got stays on its home's disk."""
    world.home.write(0, [1])
    end = world.home.ends()
    for node, partitions in ((world.home, range(0, PARTITIONS, 2)), (world.owner, range(1, PARTITIONS, 2))):
        group = {"partitions": list(partitions), "vector": end.encode().hex()}
        report = Report(role="process-0", pid=1, start=1, detail={"vectors": [group]})
        replace(node.disk, f"{node.data}/run/reports/process-0.json", msgspec.json.encode(report))

    def safe(node: Node) -> Vector:
        report = Report(role="lane-0", pid=1, start=1, detail=node.role.detail())
        return needs.safe(node.role.view, needs.reported({"lane-0": report}))[0]

    await world.until(lambda: safe(world.home) == end and safe(world.owner) == end)
    world.meet(epoch=2)
    assert safe(world.home) == EMPTY, "nobody has spoken by the new table"
    await world.until(lambda: safe(world.home) == end)
    await world.owner.role.stop()
    assert safe(world.home) == end, "what was said stays true"
    await world.owner.start()


async def test_a_stream_ends_with_the_process_that_asked_for_it(world: World) -> None:
    origin = EMPTY.encode().hex()
    gone = subprocess.run(  # noqa: ASYNC221 - it ends at once
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    path = (await world.owner.ask("open", partitions=[1], origin=origin, pid=int(gone.stdout)))["path"]
    await world.owner.ask("open", stream="mine", partitions=[1], origin=origin, pid=os.getpid())
    await world.until(lambda: not world.owner.disk.exists(path))
    assert list(world.owner.role.mirrors.streams) == ["mine"]


async def test_questions_reach_the_other_node(world: World) -> None:
    world.home.write(0, [1, 2, 3])
    answer = await world.owner.ask("everywhere", part="accepted")
    assert answer["silent"] == [] and answer["parts"][world.home.name]["streams"] == {"web": 3}
    with pytest.raises(Unavailable, match="no answer"):
        await world.owner.ask("call", node=world.home.name, socket="deliver-nobody", request={"op": "x"})


async def test_what_the_lane_cannot_do_it_refuses(world: World) -> None:
    origin = EMPTY.encode().hex()
    for request in (
        {"op": "erase"},
        {"op": "status"},
        {"op": "open", "partitions": [PARTITIONS], "origin": origin},
        {"op": "open", "partitions": [1], "origin": "zz"},
        {"op": "open", "partitions": [1]},
        {"op": "trim", "below": origin},
    ):
        with pytest.raises(Exception, match=r"expected|there is no stream|no such partitions"):
            await asyncio.wait_for(world.owner.ask(**request), 5)
