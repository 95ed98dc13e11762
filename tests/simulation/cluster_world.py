"""Nodes of a cluster in one thread: the real lane, processors and deliverers of each, as the processes that they are.

What is real: ``LaneRole``, ``ProcessRole`` and ``DeliverRole`` whole, with everything below them (home, mirrors,
progress, standby, takeover, ownership, peer connections from the handshake on), the raw log and its retention, and
``Membership`` with its tables. They run on simulated disks that lose what was not synced, a simulated network, and
simulated threads.

What is replaced: sockets (the peers' links stand on kit/simulate/transport, requests between processes of a node on
``Asking``), the store (member_world), the supervisor's few calls (``Node``), the door (``Node.accept`` writes
blocks), what SQLite keeps of dead letters (there are none), what LMDB keeps of facts (nobody logs in), the warehouse
(one in memory, which all nodes reach), the dialect (``PLAIN`` of road_world), and the bell of copies (no key wants
any). Times of polling are stretched, since idle turns cost most.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import posixpath
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

from headwater.cluster import view as views
from headwater.cluster.membership import Membership, Rules
from headwater.cluster.settings import ClusterSettings
from headwater.cluster.table import View
from headwater.config.control import ControlPage
from headwater.config.report import read_report, read_reports
from headwater.config.running import NodeInfo
from headwater.destinations import catchup, deliver, registry, worker
from headwater.destinations.memory import MemoryDestination, MemorySettings, Store
from headwater.destinations.port import Outcome, OutcomeUnknown, Step
from headwater.event.position import EMPTY, Position, Vector, WriterId, writer_id
from headwater.event.record import SINGLE, STAMP, encode_payload
from headwater.event.slots import slot_of
from headwater.kit import ask, memory
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.kit.rng import SeededRng
from headwater.kit.simulate import threads, transport
from headwater.kit.simulate.disk import SimDisk
from headwater.kit.simulate.run import Simulation
from headwater.kit.simulate.threads import CURRENT, LIFE, Life, Machine, ProcessLoop, ThreadClock
from headwater.kit.simulate.view import ProcessDisk
from headwater.kit.threads import inline
from headwater.lane import copies, home, mirror
from headwater.lane.copies_held import Held
from headwater.log import recover
from headwater.log.block import Secret
from headwater.log.recover import no_streams, raw_streams
from headwater.log.settings import LogSettings
from headwater.log.write import BlockWriter
from headwater.node import context as node_context
from headwater.node import everywhere, hold, logids, nodes, ownership, rawkeeper, retention
from headwater.node.context import Context
from headwater.node.folder import Folder, Identity, open_folder
from headwater.node.roles import deliver as deliver_role
from headwater.node.roles import lane as lane_role
from headwater.node.roles import process as process_role
from headwater.node.settings import Settings
from headwater.node.standby import both, retire, serve
from headwater.peer import connection
from headwater.peer.connection import Listener
from headwater.peer.identity import Identity as PeerIdentity
from headwater.peer.link import Link
from headwater.process import shape, state
from headwater.process.settings import ProcessSettings
from tests.simulation import member_world
from tests.simulation.log_oracle import violated
from tests.simulation.member_world import SECOND
from tests.simulation.road_oracle import MINUTE_NS, Copy, Obligations
from tests.simulation.road_world import HEAD, PARTITIONS, PLAIN, anonymous, event, row_of, shaper

PIPELINE_NAME = "shared"
WINDOW_S = 600.0
TICK_S = 0.25
SLICE_S = 0.05
RESTART_S = 0.4
SEGMENT_BYTES = 12 * 1024
SECRET = 0x5EC2E7


@dataclass(frozen=True)
class Parts:
    """What a cluster is made of; a broken variant replaces one."""

    lane: type[lane_role.LaneRole] = lane_role.LaneRole
    process: type[process_role.ProcessRole] = process_role.ProcessRole
    deliver: type[deliver_role.DeliverRole] = deliver_role.DeliverRole
    destination: type[MemoryDestination] | None = None
    membership: Callable[..., Membership] = Membership
    patches: tuple[tuple[object, str, object], ...] = ()


REAL = Parts()


class NoLetters:
    """Dead letters, where there are none."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def add(self, *_: object) -> None:
        raise AssertionError("an event died")

    def close(self) -> None:
        pass


class NoBell:
    """A named pipe that nobody rings: no key wants copies."""

    def __init__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


class Quiet:
    """Happenings, counted."""

    def __init__(self, met: Counter[str]) -> None:
        self.met = met

    def emit(self, happening: Any) -> None:
        self.met[happening.name()] += 1


# -- what stands between processes


class Asking:
    """kit.ask, without sockets. One for a world; its paths hold the node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.doors: dict[str, tuple[ask.Handler, Life]] = {}
        self.describe, self.revive = ask.describe, ask.revive

    async def serve(self, path: str, handler: ask.Handler) -> Any:
        self.doors[path] = handler, LIFE.get()
        return SimpleNamespace(close=self.closing(path))

    def closing(self, path: str) -> Callable[[], Awaitable[None]]:
        async def close() -> None:
            self.doors.pop(path, None)

        return close

    def ask(
        self, path: str, request: Mapping[str, Any], timeout_s: float, *, body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        fiber = threads.current()
        fiber.sleep(0.0002)
        handler, life = self.doors.get(path, (None, None))
        if handler is None or life is None or life.dead:
            raise ask.unanswered(path)
        asked = ask.decode_json(ask.encode_json(request))
        if body:
            asked["body"] = body
        answer: asyncio.Future[tuple[dict[str, Any], Any]] = self.world.loop.create_future()

        async def work() -> None:
            try:
                told, data = await handler(asked)
            except HeadwaterError as error:
                told, data = {"error": ask.describe(error)}, b""
            if not answer.done():
                answer.set_result((told, data))

        life.asked.add(answer)
        answer.add_done_callback(life.asked.discard)
        life.begin(work())
        try:
            told, data = fiber.wait(answer, timeout_s)
        except OSError as error:  # TimeoutError is one
            raise ask.unanswered(path) from error
        return ask.raised(ask.decode_json(ask.encode_json(told))), data


class Door(Listener):
    """A peer listener behind which there is no socket."""

    def __init__(self, world: World, identity: PeerIdentity, serve: connection.Serve) -> None:
        self.loop = asyncio.get_running_loop()
        self.listening = SimpleNamespace(close=self.shut)  # type: ignore[assignment]
        self.identity, self.serve = identity, serve
        self.world = world
        self.address = world.by_id[identity.node].lane_address
        self.unknown_max = connection.UNKNOWN_MAX
        self.unknown = {}
        self.room = asyncio.Event()
        self.tasks = set()
        self.context = contextvars.copy_context()
        self.accepting = self.loop.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        world.doors[identity.node] = self

    def shut(self) -> None:
        self.world.doors.pop(self.identity.node, None)

    def arrived(self, link: Link) -> None:
        """As ``accept`` does."""
        task = self.loop.create_task(self.attend(link), context=self.context.copy())  # type: ignore[arg-type]
        self.unknown[task] = None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(self.recognised)

    async def linked(self, taken: Any) -> Link:
        link: Link = taken
        return link


class Tables(MemoryDestination):
    """The warehouse, as one node reaches it."""

    def __init__(self, world: World, node: Node) -> None:
        super().__init__(world.store)
        self.world = world
        self.node = node

    def reach(self) -> None:
        """A round trip; steps do it before they compare, and once more when they have committed."""
        if self.world.stops_inside == self.node.id:
            self.world.stops_inside = ""
            self.node.pause()
            seconds = self.world.random.choice((9, 20))
            self.world.loop.call_later(seconds, self.node.resume, context=self.world.context)
        if getattr(CURRENT, "fiber", None) is not None:
            threads.current().sleep(self.world.random.uniform(0.001, 0.02))
        if (self.node.id, "warehouse") in self.world.network.cuts:
            raise Unavailable("the warehouse does not answer")

    def step(self, step: Step) -> Outcome:
        world = self.world
        fate = world.random.random()
        if fate < world.unknown_share / 2:
            raise OutcomeUnknown("the connection broke before COMMIT took effect")
        outcome = super().step(step)
        if outcome is Outcome.DONE:
            world.stepped(self.node, step)
        threads.current().sleep(world.random.uniform(0.001, 0.02))
        if fate < world.unknown_share or (self.node.id, "warehouse") in world.network.cuts:
            raise OutcomeUnknown("the connection broke after COMMIT took effect")
        return outcome


# -- a node


class Member(member_world.Node):
    """Its membership; the rest of the node sees what it shows."""

    owner: Node

    def tick(self) -> None:
        if self.alive:
            self.membership.ready = self.owner.ready()
            self.ready_once |= self.membership.ready
            self.do(self.membership.tick(self.now_ns()))

    def start(self) -> None:
        super().start()
        record = msgspec.structs.replace(self.membership.me, lane_address=self.owner.lane_address)
        self.membership = self.world.make(record, self.world.rules, self.now_ns(), self.kept)

    def do(self, actions: list[Any]) -> None:
        before = self.view
        super().do(actions)
        if self.view is not None and self.view is not before and self.alive:
            self.owner.show(self.view)


class Node:
    """A machine with a data folder, and what its supervisor does."""

    def __init__(self, world: World, number: int, member: Member) -> None:
        self.world = world
        self.number = number
        self.member = member
        member.owner = self
        self.id = member.id
        self.lane_address = f"10.0.0.{number + 1}:7511"
        self.data = f"/n{number}"
        self.machine = Machine(world.loop, self.id)
        self.disk = SimDisk(world.seed * 16 + number)
        self.clock = ThreadClock(world.time, up_s=1000.0 + number)
        self.lives: dict[str, tuple[Life, ProcessDisk]] = {}
        self.collectors: dict[int, BlockWriter] = {}
        self.alive = False
        self.control = ControlPage.in_memory()
        view = self.disk.process("first")
        for name in ("raw", "ready", "state", "run", "run/reports", "keys"):
            view.mkdir(f"{self.data}/{name}")
            view.sync_dir(f"{self.data}")
        view.sync_dir("/")
        identity = Identity(format=2, folder_id=self.id, partitions=PARTITIONS, secret=f"{SECRET:016x}")
        Folder(self.data, view, identity).save()
        self.folder: Folder = None  # type: ignore[assignment]

    # -- the supervisor

    def start(self) -> None:
        """As a supervisor: what the last start left is recovered, then everything begins."""
        self.alive = True
        view = self.disk.process("supervisor")
        self.view = view
        wipe(self.disk, f"{self.data}/run")
        view.mkdir(f"{self.data}/run/reports")
        self.folder = open_folder(self.data, view)
        self.folder.count_start()
        offset_ns = self.clock.wall_ns() - self.clock.boot_ns()
        self.control = ControlPage.in_memory(offset_ns=offset_ns, start=self.folder.identity.starts)
        for part, streams_of in (("raw", raw_streams), ("ready", no_streams)):
            for name in view.listdir(f"{self.data}/{part}"):
                recover.recover_all(view, f"{self.data}/{part}/{name}", Secret(SECRET), streams_of)
        self.folder.know_log_id(logids.greatest(self.data, view))
        self.member.start()
        for role, instance in (("lane", "0"), ("process", "0"), ("deliver", PIPELINE_NAME)):
            self.start_process(role, instance)

    def start_process(self, role: str, instance: str) -> None:
        """A process of this node, kept running."""
        name, world = f"{role}-{instance}", self.world
        if role == "process":
            recover.recover_all(self.view, f"{self.data}/ready/{instance}", Secret(SECRET), no_streams)
        disk = self.disk.process(name)
        life = Life(self.machine, f"{self.number} {name}")
        self.lives[name] = life, disk
        context = Context(
            role, instance, self.data, self.folder.next_log_id(self.clock, world.rng), disk=disk, clock=self.clock,
            rng=world.rng, secret=Secret(SECRET), control=self.control, node=self.info(), settings=world.settings,
        )  # fmt: skip
        context.happenings = Quiet(world.met)  # type: ignore[assignment]
        made: type[Any] = getattr(world.parts, role)
        task = life.begin(self.live(made, context))
        task.add_done_callback(lambda done: self.ended(role, instance, life, disk, done))

    async def live(self, made: type[Any], context: Context) -> None:
        """node/role.py's ``live``, without signals."""
        role = made(context)
        await role.start()
        while True:
            await role.tick()
            if context.publisher.due():
                context.publish("running", role.reasons(), role.detail())
            await context.clock.sleep(TICK_S)

    def ended(
        self, role: str, instance: str, life: Life, disk: ProcessDisk, done: asyncio.Task[None]
    ) -> None:
        """A process ended by itself: with an error of ours it is started again, any other is a bug."""
        if life.dead:
            return
        error = done.exception()
        if disk.dead:
            return  # ``bury`` sees it
        self.world.met[f"ended {role}"] += 1
        if not isinstance(error, HeadwaterError | OSError):
            self.world.failed(error or RuntimeError(f"{life.name} just ended"))
        self.world.sim.note(f"{life.name} ended: {error!r}")
        if os.environ.get("SIM_DEBUG"):
            import traceback

            traceback.print_exception(error)
        self.kill_process(f"{role}-{instance}")

    def kill_process(self, name: str) -> None:
        """SIGKILL; it is started again."""
        life, disk = self.lives[name]
        life.kill()
        disk.kill(quiet=True)
        if name == "lane-0":
            self.disconnect(silent=False)

        def again() -> None:
            if self.alive and self.lives.get(name, (None,))[0] is life:
                self.start_process(*name.split("-", 1))

        self.world.loop.call_later(RESTART_S, again, context=self.world.context)

    def bury(self) -> None:
        """Processes whose disk says that they died inside of a call."""
        for name, (life, disk) in list(self.lives.items()):
            if disk.dead and not life.dead:
                self.kill_process(name)

    def disconnect(self, *, silent: bool) -> None:
        self.world.doors.pop(self.id, None)
        for stream in self.world.network.of(self.id):
            stream.vanish() if silent else self.reset(stream)

    def reset(self, stream: Any) -> None:
        stream.vanish()
        if stream.other is not None:
            self.world.loop.call_later(0.002, stream.other.reset, context=self.world.context)

    def kill(self, *, power: bool) -> None:
        """Every process at once; ``power``: and what was not synced is lost."""
        if not self.alive:
            return
        self.resume()
        self.alive = False
        self.member.kill()
        for life, disk in self.lives.values():
            life.kill()
            disk.kill(quiet=True)
        self.lives = {}
        self.collectors = {}
        self.disconnect(silent=power)
        self.view.kill(quiet=True)
        if power:
            self.disk.crash()
            self.clock.booted_ns = self.world.time.now_ns - 1_000_000

    def pause(self) -> None:
        """The machine stands still."""
        self.machine.paused = self.member.paused = True
        self.world.network.frozen.add(self.id)

    def resume(self) -> None:
        if self.machine.paused:
            self.machine.resume()
            self.member.resume()
            self.world.network.thaw(self.id)

    def info(self) -> NodeInfo:
        return NodeInfo(
            pid=1, start=self.control.start, version="1", folder_id=self.id, partitions=PARTITIONS, started_wall_ns=0,
            collector="", ops="", configuration="",
        )  # fmt: skip

    def show(self, view: View) -> None:
        """What the member process writes."""
        if self.alive:
            views.write(self.view, views.view_path(self.data), view)

    def ready(self) -> frozenset[int]:
        """What node/roles/member.py reads of the lane's report."""
        report = read_report(self.view, f"{self.data}/run/reports/lane-0.json") if self.alive else None
        if report is None or report.start != self.control.start:
            return frozenset()
        return frozenset(report.detail.get("standby", {}).get("ready", ()))

    def retire(self) -> None:
        """The supervisor's pass over the raw log, with no wish to keep anything that is safe."""
        reports = read_reports(self.view, f"{self.data}/run/reports", self.control.start)
        happenings: Any = Quiet(self.world.met)
        keeper = rawkeeper.RawKeeper(
            self.view, self.clock, self.control, happenings, self.data, PARTITIONS, Secret(SECRET)
        )
        safe, given_up = keeper.safe(self.world.settings, reports)
        self.world.retires(self, safe)
        kept = retention.keep(
            self.view, f"{self.data}/raw", safe, Secret(SECRET), given_up,
            now_ns=self.clock.boot_ns() + self.control.offset_ns, retain_s=0, raw_bytes_max=0, headroom_bytes=0,
            segment_bytes=SEGMENT_BYTES, spares_max=1,
        )  # fmt: skip
        self.world.met["segments given back"] += kept.retired_segments

    # -- the door

    def accept(self, worker: int, names: Sequence[str]) -> None:
        """A block of events, durable, hence acknowledged on return."""
        self.world.time.advance(
            0.001
        )  # nothing is received at the moment at which the last one was acknowledged
        known = WriterId(writer_id(int(self.id, 16), worker))
        if worker not in self.collectors:
            self.collectors[worker] = BlockWriter(
                self.view, self.clock, f"{self.data}/raw/{known:016x}", known,
                self.folder.next_log_id(self.clock, self.world.rng), secret=Secret(SECRET), start=self.control.start,
                offset_ns=self.control.offset_ns, segment_bytes=SEGMENT_BYTES, submit=inline,
            )  # fmt: skip
        at = self.clock.boot_ns() + self.control.offset_ns
        bodies = [json.dumps(event(name)).encode() for name in names]
        stamps = [
            STAMP.pack(at, bytes(16), len(body), 0, 1, 0, slot_of(anonymous(name)), SINGLE, 0)
            for name, body in zip(names, bodies, strict=True)
        ]
        writer, count = self.collectors[worker], len(names)
        counts = {"web": (count, writer.next_seq + count)}
        payload = encode_payload(stamps, bodies, [HEAD], [], counts, count)
        after = writer.write(payload, records=count, events=count)
        for seq, name in enumerate(names, after.seq - count):
            copy = Copy(known, Position(after.log, seq), at // MINUTE_NS)
            self.world.oracle.durable(name, slot_of(anonymous(name)) % PARTITIONS, copy)
            self.world.accepted[int(known), after.log, seq] = len(self.world.accepted)


def wipe(disk: SimDisk, folder: str) -> None:
    """shutil.rmtree: at once and for good. Only for what is worthless after a crash."""
    for path in [p for p in disk.names.live if p == folder or p.startswith(f"{folder}/")]:
        disk.names.live.pop(path)
        disk.names.durable.pop(path, None)


# -- all of them


class World:
    """The cluster, its network, its store and its warehouse."""

    def __init__(self, sim: Simulation, count: int, parts: Parts = REAL, *, heartbeat_s: float = 2.0) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ProcessLoop)
        self.sim, self.parts, self.loop = sim, parts, loop
        self.seed, self.random, self.time, self.network = sim.seed, sim.random, sim.time, sim.network
        self.rng, self.clock = SeededRng(sim.seed), sim.clock
        self.context = contextvars.copy_context()
        self.met: Counter[str] = sim.disk.met
        self.asking = Asking(self)
        self.doors: dict[str, Door] = {}
        self.store = Store(exists=True)
        self.unknown_share = 0.02
        self.settings = settings()
        self.oracle = Obligations(int(WINDOW_S // 60))
        self.accepted: dict[tuple[int, int, int], int] = {}
        self.names = 0
        self.stops_inside = ""
        """The node that stands still with its next call of the warehouse."""
        self.copies_cross = False
        """Whether clients send events again at the other side of a cut."""
        self.doubtful = False
        """Whether two nodes were away at a time: copies may be rows twice then (protocol.md §14)."""
        self.failure: BaseException | None = None
        rules = Rules(partitions=PARTITIONS, heartbeat_ns=round(heartbeat_s * SECOND))
        self.members = member_world.World(sim, count, rules=rules, make=parts.membership, node=Member)
        self.nodes = [Node(self, n, member) for n, member in enumerate(self.members.nodes)]  # type: ignore[arg-type]
        self.by_id = {node.id: node for node in self.nodes}

    async def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; ``until`` is asked each half second. False: it did not come true."""
        end = self.time.now_ns + round(seconds * SECOND)
        asked = self.time.now_ns
        while self.time.now_ns < end:
            await self.clock.sleep(SLICE_S)
            for node in self.nodes:
                node.disk.names.settle_below(f"{node.data}/run/")
                node.disk.names.settle_below(f"{node.data}/mirror/")
            self.members.run((self.time.now_ns - self.members.now_ns) / SECOND)
            for node in self.nodes:
                node.bury()
            if self.failure is not None:
                raise self.failure
            if until is not None and self.time.now_ns - asked > SECOND // 2:
                asked = self.time.now_ns
                if until():
                    return True
        return until is None

    def failed(self, error: BaseException) -> None:
        self.failure = self.failure or error

    def end(self) -> None:
        """Nobody lives any more."""
        for life in self.loop.lives:
            life.kill()

    # -- what happens

    def some(self) -> Node:
        return self.random.choice(self.nodes)

    def accept(self, blocks: int = 1) -> None:
        """Clients send events, some of them again, to any node that is there.

        Not across a cut, unless copies may be rows: who is cut off delivers without its standby after a while
        (node/standby/backed.WAIT_S), and is an owner for 3 heartbeats; what it alone has, nobody else can know.
        """
        for _ in range(blocks):
            there = [node for node in self.nodes if node.alive and not node.machine.paused]
            if not there:
                return
            node = self.random.choice(there)
            names = []
            for _ in range(self.random.randint(1, 3)):
                back = self.random.choice((0, 0, 0, 1, 2, 5, 9))
                number = self.names + 1 - back
                name = f"m{number}"
                if back == 0 or number < 1 or not self.may_copy(name, node):
                    number = self.names = self.names + 1
                names.append(f"m{number}")
            node.accept(self.random.randrange(2), names)

    def may_copy(self, name: str, node: Node) -> bool:
        """Whether a client may send an event again here."""
        homes = {int(copy.writer) & ~0xFFFF for copy in self.oracle.copies.get(name, ())}
        cut = any("store" not in way and "warehouse" not in way for way in self.network.cuts)
        return self.doubtful or not cut or self.copies_cross or homes == {int(node.id, 16)}

    # -- the oracle

    def stepped(self, node: Node, step: Step) -> None:
        """The warehouse has committed."""
        self.met["steps"] += 1

    def retires(self, node: Node, safe: Vector) -> None:
        """INV-LANE-2: what a home gives back, every partition of the warehouse has passed."""
        if safe == EMPTY:
            return
        self.met["safe"] += 1
        stands = {p: Vector.decode(row.vector) for (_, p), row in self.store.positions.items()}
        for p in range(PARTITIONS):
            for writer, at in safe.items():
                if int(writer) & ~0xFFFF == int(node.id, 16) and stands.get(p, EMPTY)[writer] < at:
                    violated(
                        "INV-LANE-2",
                        f"{node.number} gives back below {at}, partition {p} is at {stands.get(p)}",
                    )

    def examine(self) -> None:
        """INV-DEST, INV-LED-1, INV-ORD-1."""
        rows = [row_of(row) for row in self.store.rows.get("events", [])]
        positions = {p: row for (_, p), row in self.store.positions.items()}
        told = self.met[
            "destination_ids_incomplete"
        ]  # a private run that could not know all ids, and said so
        self.oracle.examine(PIPELINE_NAME, rows, positions, {}, doubtful=self.doubtful or bool(told))
        origins = Counter((row.writer, row.log, row.seq) for row in rows)
        last: dict[tuple[int, int], int] = {}
        for origin, times in origins.items():
            if times > 1:
                violated("INV-DEST", f"the event {origin} is there {times} times")
        for row in rows:
            key = (row.writer & ~0xFFFF, row.partition)
            number = self.accepted[row.writer, row.log, row.seq]
            if number < last.get(key, -1) and not self.met["wall_jump"]:
                violated("INV-ORD-1", f"{row} comes behind what was accepted after it")
            last[key] = number

    def complete(self) -> bool:
        """Whether every partition has passed everything."""
        positions = {p: Vector.decode(row.vector) for (_, p), row in self.store.positions.items()}
        return len(positions) == PARTITIONS and all(
            end <= at[writer] for at in positions.values() for writer, end in self.oracle.ends.items()
        )

    def standing(self) -> str:
        """For a message."""
        lines = [
            f"{n.number}: {n.member.membership.table.order} {n.member.membership.table.owner}"
            for n in self.nodes
        ]
        for (_, p), row in sorted(self.store.positions.items()):
            at = Vector.decode(row.vector)
            late = {
                f"{w:x}": (at[w].log, at[w].seq, end.seq)
                for w, end in self.oracle.ends.items()
                if at[w] < end
            }
            lines.append(f"partition {p} of {row.owner}: lacks {late}")
        return "; ".join(lines)


def settings() -> Settings:
    """Settings under which a few rows are a load; segments are of a few blocks."""
    made = Settings(
        destinations={
            PIPELINE_NAME: MemorySettings(
                load_rows=6, load_interval_min_ms=100, load_interval_max_ms=300, load_interval_behind_ms=300,
                poll_interval_ms=250, retry_interval_s=0.5,
            )
        },
        cluster=ClusterSettings(name="simulated", secret="a secret of sixteen characters"),
        process=ProcessSettings(),  # of its own: what is forced below must not reach the defaults of others
        log=LogSettings(),
        data_bytes_max=256 * 1024 * 1024,
    )  # fmt: skip
    process = made.process
    for name, value in (
        ("columns_max", 0), ("dedupe_window_s", WINDOW_S), ("dedupe_memory_bytes", 1 << 20), ("poll_interval_s", 0.2),
        ("cut_interval_s", 0.2), ("workers", 1),
    ):  # fmt: skip
        msgspec.structs.force_setattr(process, name, value)
    for name, value in (("segment_bytes", SEGMENT_BYTES), ("ready_segment_bytes", 16 * 1024)):
        msgspec.structs.force_setattr(made.log, name, value)
    return made


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Everything that the roles take from the machine comes from the simulation."""
    sim_threading = SimpleNamespace(
        Thread=threads.Thread, Event=threads.Event, Lock=threads.Lock, RLock=threads.Lock
    )

    async def connect(address: str, host: str, port: int, context: object, identity: PeerIdentity) -> Link:
        there = next(node.id for node in world.nodes if node.lane_address == address)
        near, far = Link(), Link()
        door = world.doors.get(there)
        if door is None and not world.network.cuts & {(identity.node, there), (there, identity.node)}:
            await world.clock.sleep(world.network.delay_s())
            raise Unavailable(f"{address} refuses", code="connect_failed")
        await transport.connect(world.network, identity.node, there, near, far, connection.DIAL_S)
        door = world.doors.get(there)
        if door is None:
            near.abort("nobody there")
        else:
            door.arrived(far)
        return near

    async def listen(binding: str, identity: PeerIdentity, serve: connection.Serve) -> Listener:
        return Door(world, identity, serve)

    def rmtree(path: str, ignore_errors: bool = False) -> None:
        number = int(path.split("/")[1][1:])
        wipe(world.nodes[number].disk, path)

    def removed(disk: Any, data: str, name: str) -> None:
        rmtree(f"{data}/standby/{name}")

    @contextmanager
    def retiring(data: str) -> Iterator[bool]:
        yield True

    def getpid() -> int:
        life = LIFE.get(None)
        return life.number if life is not None else 0

    def kill(pid: int, signal: int) -> None:
        for node in world.nodes:
            for life, _ in node.lives.values():
                if life.number == pid and not life.dead:
                    return
        raise ProcessLookupError

    def made_destination(_: object, place: registry.Place) -> MemoryDestination:
        node = world.nodes[int(place.data[2:])]
        return (world.parts.destination or Tables)(world, node)  # type: ignore[arg-type]

    sim_os = SimpleNamespace(nice=lambda by: 0, kill=kill, getpid=getpid, path=posixpath)
    one_shaper = shaper()
    replaced: list[tuple[object, str, object]] = [
        (state, "DeadLetters", NoLetters),
        (deliver_role, "DeadLetters", NoLetters),
        (process_role, "FactStore", lambda *_, **__: None),
        (copies, "Bell", NoBell),
        (catchup, "SimpleQueue", threads.Queue),
        (lane_role, "Held", partial(Held, thread=threads.Worker)),
        (connection, "connect", connect),
        (connection, "listen", listen),
        *(
            (module, "ask", world.asking)
            for module in (lane_role, ownership, everywhere, nodes, deliver_role)
        ),
        *((module, "Thread", threads.Worker) for module in (both, deliver_role, process_role)),
        *((module, "threading", sim_threading) for module in (process_role, worker, deliver, home, mirror)),
        *((module, "os", sim_os) for module in (lane_role, process_role, ownership, node_context)),
        *((module, "shutil", SimpleNamespace(rmtree=rmtree)) for module in (mirror, lane_role, retire)),
        (retire, "remove", removed),
        (hold, "retiring", retiring),
        (registry, "make", made_destination),
        (process_role, "meaning", lambda name: PLAIN),
        (process_role, "Shaper", lambda *_, **__: one_shaper),
        (shape, "Shaper", lambda *_, **__: one_shaper),
        (memory, "settle", lambda *_: None),
        (home, "POLL_S", 0.25),
        (serve, "POLL_S", 0.3),
        (worker, "LOOK_INTERVAL_S", 0.25),
        *world.parts.patches,
    ]
    with ExitStack() as stack:
        for where, name, value in replaced:
            stack.enter_context(mock.patch.object(where, name, value))
        yield
