"""The lane process: events between nodes. Home to the owners of this node's events, and mirror of the other nodes'
logs for its own processors and deliverers (docs/decisions/0007-cluster.md).

What a connection is for is said by its first frame. On the unix socket ``run/lane.sock``: ``open``, ``status``,
``trim`` and ``close`` of streams (lane/mirror), ``call``, ``everywhere`` and ``ask_all`` (node/everywhere). Each
second it says to every home what is still needed of its log, and reports what it heard itself under ``needs``, so
that the supervisor gives back nothing that anybody may ask for (node/needs).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.cluster.settings import ClusterSettings, secret_of
from headwater.cluster.table import View
from headwater.cluster.view import ViewReader, view_path
from headwater.config.report import read_reports
from headwater.event.position import Position, Vector, WriterId
from headwater.kit import ask
from headwater.kit.errors import Broken, Misconfigured, Rejected, Unavailable
from headwater.kit.tasks import Group
from headwater.lane import calls, progress
from headwater.lane.calls import Caller
from headwater.lane.copies import Copies
from headwater.lane.copies_held import Held
from headwater.lane.copies_read import Directory
from headwater.lane.home import Home, RawLog
from headwater.lane.lag import Lag, Lags, RawEnds
from headwater.lane.mirror import Mirrors, Place
from headwater.lane.wire import Moment, Progress
from headwater.log.cut import home_of
from headwater.node import arrived, leaving, needs, rawkeeper
from headwater.node.advisories import Advisor
from headwater.node.context import Context
from headwater.node.everywhere import Everywhere, Here
from headwater.node.happenings import LaneTrouble
from headwater.node.settings import Settings, named_destinations, secret_reader
from headwater.node.standby import backed
from headwater.node.standby.both import Both
from headwater.ops import everywhere, standing
from headwater.peer import connection as peers
from headwater.peer.connection import Connection, Frame, Kind, Listener
from headwater.peer.identity import Identity, Tls

if TYPE_CHECKING:
    from headwater.lane.kafka.lane import KafkaLane

LOOK_S = 0.25
SAY_S = 1.0

First = Callable[[Connection, Frame], Awaitable[None]]
"""Serves a connection, from its first frame on."""


class LaneRole:
    """Both sides of the lane, for one node."""

    def __init__(self, context: Context) -> None:
        if context.settings.cluster is None:
            raise Misconfigured(
                "the lane has nobody to speak with: there is no `cluster` block", code="no_cluster"
            )
        if not wants_copies(context.settings):  # else clients wait for this process
            os.nice(context.settings.process.nice)
        self.context = context
        self.cluster: ClusterSettings = context.settings.cluster
        self.me = f"{home_of(int(context.node.folder_id, 16)):016x}"
        self.identity = identity(context, self.cluster, self.me)
        self.views = ViewReader(context.disk, view_path(context.data))
        self.view: View | None = None
        self.looked_ns = self.said_ns = 0
        self.heard = progress.Heard(context.clock.boot_ns)
        self.said: Progress | None = None
        self.delivered: dict[str, standing.Vectors] = {}
        """Where destinations stand that keys of other nodes wait for."""
        self.processed: standing.Vectors = {}
        """Of own partitions, as the processors said last."""
        self.both = Both(context, self.trouble, ViewReader(context.disk, view_path(context.data)), self.dial)
        self.backing = backed.Teller(context.disk, context.path("run"), context.settings.process.workers)
        self.raw = RawLog(context.disk, context.path("raw"), context.secret, context.node.partitions)
        self.held = Held(
            context.disk,
            context.path("copies"),
            context.secret,
            context.clock,
            self.trouble,
            bytes_max=self.cluster.copies_bytes_max,
            reserve_bytes=context.settings.reserve_bytes,
        )
        self.directory = Directory(
            self.me, self.held, context.node.partitions, self.away, self.dial, context.clock
        )
        self.copies: Copies | None = None
        self.home = Home(self.raw, self.now, context.clock, self.trouble, self.directory.stream)
        self.firsts: dict[int, First] = {
            Kind.OPEN: self.home.serve,
            Kind.PROGRESS: self.heard.serve,
            Kind.STATE: self.both.serve,
            Kind.CALL: self.serve_calls,
            Kind.COPY: self.held.serve,
        }
        self.lags = Lags()
        self.ends = RawEnds(context.disk, context.path("raw"))
        self.advisor = Advisor(context, self.cluster, self.me, self.name_of)
        self.here = Here(context, self.lag_rows, self.directory.told)
        self.caller = Caller(self.dial)
        self.everywhere = Everywhere(self.caller, lambda: self.view, self.me)
        self.group = Group("lane", self.trouble)
        self.kafka = self.kafka_lane()
        self.mirrors = Mirrors(
            Place(context.disk, context.path("mirror"), context.secret, context.clock),
            self.me,
            self.dial,
            self.group.start,
            self.cluster.mirror_bytes_max,
            self.directory.source if self.kafka is None else self.kafka.source,
        )
        self.entered = asyncio.Event()
        self.running: asyncio.Task[None] | None = None
        self.listener: Listener | None = None
        self.asked: ask.Server | None = None
        self.saying: dict[str, asyncio.Task[None]] = {}
        self.readers: dict[str, int] = {}
        """Stream → the process that asked for it; 0 where it did not say."""

    async def start(self) -> None:
        self.running = asyncio.get_running_loop().create_task(self.run())
        await self.entered.wait()
        self.copies = Copies(
            self.raw,
            self.context.path("run"),
            self.now,
            self.context.clock,
            self.dial,
            self.group.start,
            self.trouble,
            count=self.cluster.copies - 1,
        )
        self.look()
        self.listener = await peers.listen(self.cluster.lane, self.identity, self.serve)
        self.asked = await ask.serve(self.context.path("run", "lane.sock"), self.answer)
        self.group.start("standby", self.both.run())
        for name, work in self.kafka.works().items() if self.kafka is not None else ():
            self.group.start(name, work())
        if self.advisor.webhook is not None:
            self.group.start("advisories", self.advisor.webhook.run())
        self.group.start("copies elsewhere", self.ask_for_copies())

    async def run(self) -> None:
        """The tasks of this role, until cancelled."""
        async with self.group:
            self.entered.set()
            await self.group.run()

    def now(self) -> Moment:
        """Of this node: its start, boot time and node time."""
        boot_ns = self.context.clock.boot_ns()
        return Moment(self.context.control.start, boot_ns, boot_ns + self.context.control.offset_ns)

    def trouble(self, owner: str, name: str, error: BaseException) -> None:
        """Say what ended a task or a connection."""
        self.context.happenings.emit(LaneTrouble(task=f"{owner}: {name}", reason=str(error)))

    def kafka_lane(self) -> KafkaLane | None:
        """The lane through Kafka, where the settings want it; else nothing of it is kept."""
        if self.cluster.kafka is None:
            shutil.rmtree(self.context.path("kafka"), ignore_errors=True)
            return None
        from headwater.node import kafka  # the driver is there where it is used

        return kafka.lane(
            self.context,
            self.cluster,
            self.raw,
            me=self.me,
            secret=self.identity.secret,
            now=self.now,
            away=self.away,
            direct=self.directory.source,
            report=self.trouble,
        )

    # -- other nodes

    def away(self, node: str) -> bool:
        """Whether a node is not heard of; not while nothing is known."""
        return self.view is not None and node not in self.view.alive

    async def ask_for_copies(self) -> None:
        """Ask the others, each second, of which homes that are away they have copies."""
        while True:
            answers = await self.everywhere.ask(everywhere.COPIES)
            self.directory.learn(answers["parts"])
            await self.context.clock.sleep(SAY_S)

    async def dial(self, node: str) -> Connection:
        """A connection with the lane of a node."""
        record = self.view.alive.get(node) if self.view is not None else None
        if record is None or not record.lane_address:
            raise Unavailable(f"node {node} is not heard of", code="node_silent")
        return await peers.dial(record.lane_address, self.identity, node=node)

    async def serve(self, connection: Connection) -> None:
        """A node has dialled; what it wants says its first frame."""
        frame = await connection.receive()
        while frame is not None and frame.kind not in self.firsts:
            connection.ignore(frame)
            frame = await connection.receive()
        if frame is None:
            return
        try:
            await self.firsts[frame.kind](connection, frame)
        except Rejected as error:
            connection.refuse(error)

    async def serve_calls(self, connection: Connection, opened: Frame) -> None:
        """Questions of another node, on a connection of their own."""
        await calls.serve(connection, opened, self.here.answer)

    # -- own processes

    async def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """A process of this node asks. Rejected: not understood, or no such stream."""
        operation, name = request.get("op"), str(request.get("stream", ""))
        if operation == "call":
            node, socket = str(request.get("node")), str(request.get("socket"))
            return await self.caller.call(node, socket, request.get("request", {}), request.get("body", b""))
        if operation == "everywhere":
            return await self.everywhere.ask(str(request.get("part"))), b""
        if operation == "ask_all":
            asked = request.get("request", {})
            return await self.everywhere.ask_all(str(request.get("socket")), asked, calls.wait_of(asked))
        if operation == "reachable":
            needed = stretches(request)
            if self.kafka is not None:
                needed = self.kafka.lacking(needed)
            return {"reachable": self.directory.reachable(needed)}, b""
        if operation == "open":
            return {"path": await self.open(name, request)}, b""
        if operation == "status":
            return self.mirrors.status(name), b""
        if operation == "trim":
            await self.mirrors.trim(name, vector(request, "below"))
            return {}, b""
        if operation == "close":
            await self.close(name)
            return {}, b""
        raise Rejected(
            f"not an operation of the lane: {operation!r}",
            code="lane_request",
            help="expected open, status, trim, close, reachable, call, everywhere or ask_all",
        )

    async def open(self, name: str, request: Mapping[str, Any]) -> str:
        """Begin a stream; it ends with the process that asked, where that says its ``pid``."""
        partitions = [int(one) for one in request.get("partitions", [])]
        if not set(partitions) <= set(range(self.context.node.partitions)):
            raise Rejected(f"no such partitions: {partitions}", code="lane_request")
        origin = vector(request, "origin")
        until = None if request.get("until") is None else vector(request, "until")
        path = await self.mirrors.open(name, partitions, origin, until)
        self.readers[name] = int(request.get("pid", 0))
        return path

    async def close(self, name: str) -> None:
        """End a stream."""
        self.readers.pop(name, None)
        await self.mirrors.close(name)

    # -- every tick

    async def tick(self) -> None:
        if self.running is not None and self.running.done():
            self.running.result()
        self.backing.tell(backed.taken_by_all(self.view, self.both.server.taken, self.backing.workers))
        now_ns = self.context.clock.boot_ns()
        if now_ns - self.looked_ns >= LOOK_S * 1e9:
            self.looked_ns = now_ns
            self.look()
            self.look_behind(now_ns)
        if now_ns - self.said_ns >= SAY_S * 1e9:
            self.said_ns = now_ns
            self.said = self.needed()
            self.lags.note(now_ns, await asyncio.to_thread(self.ends.look))
            if self.view is not None:
                known = self.view.table.members.keys() | self.view.alive.keys()
                self.held.retire(self.safe(), known)
                if self.kafka is not None:
                    self.kafka.spool.retire(self.safe(), known)
            if self.kafka is not None:
                await self.kafka.tick()
            for name in [name for name, pid in self.readers.items() if pid and not is_running(pid)]:
                await self.close(name)

    def look(self) -> None:
        """Who is there now: every node that is a member, or is heard, is a home of every stream, and is told."""
        try:
            self.view = self.views.read()
        except Broken as error:
            return self.trouble("lane", "view", error)
        if self.view is None:
            return
        nodes = {*self.view.table.members, *self.view.alive} - {self.me}
        spooled = self.kafka.spool.homes.keys() if self.kafka is not None else set()
        self.mirrors.know(nodes | self.directory.homes() | spooled)
        if self.copies is not None:
            self.copies.look(self.view, self.safe(), wanted=wants_copies(self.context.settings))
        for node in sorted(nodes - self.saying.keys()):
            work = progress.say_forever(node, self.dial, self.context.clock, partial(self.said_to, node))
            self.saying[node] = self.group.start(f"progress to {node}", work)
        for node in self.saying.keys() - nodes:
            self.saying.pop(node).cancel()

    def safe(self) -> Vector:
        """Below what nobody will ask for again, of any home; EMPTY while that is not known."""
        by_node = dict(self.heard.by_node)
        if self.said is not None:
            by_node[self.me] = self.said
        return needs.safe(self.view, by_node)[0]

    def needed(self) -> Progress | None:
        """What this node says of its partitions; None before there is a table."""
        context, view = self.context, self.view
        if view is None or not view.table.owner:
            return None
        reports = read_reports(context.disk, context.path("run/reports"), context.control.start)
        settings = context.settings
        owned = view.table.owned_by(self.me)
        expendable = rawkeeper.expendable(settings, reports)
        kept = [name for name in settings.destinations if name not in expendable]
        standby = self.both.needed()
        said = needs.said(
            view.table.epoch,
            needs.own(reports, owned, settings.destinations, standby),
            needs.own(reports, owned, kept, standby),
        )
        self.processed = {p: at for p, at in standing.processed(reports).vectors.items() if p in set(owned)}
        at = standing.least(self.processed).encode().hex() if len(self.processed) == len(owned) > 0 else ""
        wanted = {name for one in self.heard.by_node.values() for name in one.waits}
        stood = standing.delivered(reports) if wanted else {}
        self.delivered = {name: one.vectors for name, one in stood.items() if name in wanted}
        waits = arrived.waited_for(named_destinations(settings))
        return msgspec.structs.replace(said, at=at, share=self.mirrors.full(), waits=waits)

    def said_to(self, node: str) -> Progress | None:
        """The same for one home, with where the destinations stand in its logs that its keys wait for."""
        heard = self.heard.by_node.get(node)
        if self.said is None or heard is None or not heard.waits:
            return self.said
        stood = {name: self.delivered[name] for name in heard.waits if name in self.delivered}
        told = {name: arrived.of_home(vectors, int(node, 16)) for name, vectors in stood.items()}
        return msgspec.structs.replace(self.said, delivered=told)

    def look_behind(self, now_ns: int) -> None:
        """Which owners are slow, and which are prompt again."""
        owners = {node for node in self.view.table.owner if node} if self.view is not None else set()
        for node in self.lags.keep(owners):
            self.advisor.tell(node, "resumed", Lag(0, 0.0, 0.0, slow=False))
        own = {self.me: self.said} if self.said is not None else {}
        for node, said in {**self.heard.by_node, **own}.items():
            if node in owners and said.at:
                heard_ns = self.heard.heard_ns.get(node, now_ns)
                self.lags.hear(node, Vector.decode(bytes.fromhex(said.at)), said.share, heard_ns)
        for node, action, lag in self.lags.look(now_ns):
            self.advisor.tell(node, action, lag)

    def lag_rows(self) -> list[dict[str, Any]]:
        """How far each owner is behind this node's log."""
        now_ns = self.context.clock.boot_ns()
        rows = []
        for node in sorted(self.lags.owners):
            lag = self.lags.of(node, now_ns)
            rows.append(
                {
                    "home": self.me,
                    "home_name": self.cluster.node_name,
                    "owner": node,
                    "owner_name": self.name_of(node),
                    "partitions": len(self.view.table.owned_by(node)) if self.view is not None else 0,
                    "events": lag.events,
                    "age_s": round(lag.age_s, 1),
                    "mirror_share": round(lag.share, 3),
                    "slow": lag.slow,
                }
            )
        return rows

    def name_of(self, node: str) -> str:
        """As people know a node."""
        record = self.view.alive.get(node) if self.view is not None else None
        return record.name if record is not None else node

    def standby_rows(self) -> dict[str, dict[str, Any]]:
        """By node that is a standby of own partitions: how many, for how many it has told where its state stands, and
        how much older that is than what is processed here."""
        view = self.view
        if view is None:
            return {}
        held = self.both.needed()
        rows: dict[str, dict[str, Any]] = {}
        for partition in view.table.owned_by(self.me):
            if not (node := view.table.standby[partition]):
                continue
            row = rows.setdefault(
                node, {"name": self.name_of(node), "partitions": 0, "told": 0, "behind_s": 0.0}
            )
            row["partitions"] += 1
            if (at := held.get(partition)) is not None:
                row["told"] += 1
                here = self.processed.get(partition, at)
                age_s = 0.0 if here <= at else max(0.0, (here.clock - at.clock) / 1e9)
                row["behind_s"] = max(row["behind_s"], round(age_s, 1))
        return rows

    async def reload(self, settings: Settings) -> None:
        pass  # destinations and keys are read with each look; nothing else of it reloads

    async def drain(self) -> None:
        """Until the owners have processed this node's log to its end, or the supervisor cuts it."""
        while not leaving.read_to_the_end(
            self.view, self.heard.by_node, await asyncio.to_thread(self.ends.look)
        ):
            await self.context.clock.sleep(LOOK_S)
            await self.tick()

    async def stop(self) -> None:
        if self.asked is not None:
            await self.asked.close()
        if self.listener is not None:
            await self.listener.close()
        await self.caller.close()
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait((self.running,))
        await self.both.close()
        self.backing.tell([backed.EVERYTHING] * self.backing.workers)
        self.backing.close()
        if self.copies is not None:
            self.copies.close()

    def reasons(self) -> list[str]:
        return []

    def detail(self) -> dict[str, Any]:
        by_node: Mapping[str, Progress] = self.heard.by_node
        if self.said is not None:
            by_node = {**by_node, self.me: self.said}
        return {
            "address": self.listener.address if self.listener is not None else "",
            "sent_bytes": self.home.sent_bytes,
            "streams": self.mirrors.told(),
            "needs": needs.told(by_node),
            "standby": self.both.told(),
            "standbys": self.standby_rows(),
            "lag": self.lag_rows(),
            "kafka": self.kafka.told() if self.kafka is not None else None,
            "copies": {
                "bytes": self.held.bytes,
                **(self.copies.told() if self.copies is not None else {}),
            },
        }


def is_running(pid: int) -> bool:
    """Whether a process of this node is there."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def wants_copies(settings: Settings) -> bool:
    """Whether any key is acknowledged on several nodes."""
    return any(key.ack == "replicated" for key in settings.keys)


def stretches(request: Mapping[str, Any]) -> dict[WriterId, tuple[Position, Position]]:
    """What is asked to be reachable. Rejected: not understood."""
    try:
        return {
            WriterId(int(writer, 16)): (Position(*one[:2]), Position(*one[2:]))
            for writer, one in request["needed"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected("needed: expected {writer: [log, seq, log, seq]}", code="lane_request") from error


def vector(request: Mapping[str, Any], name: str) -> Vector:
    """A vector of a request, which comes in hex. Rejected: it is none."""
    try:
        return Vector.decode(bytes.fromhex(request[name]))
    except (KeyError, TypeError, ValueError, Broken) as error:
        raise Rejected(f"{name}: expected a vector in hex", code="lane_request") from error


def identity(context: Context, cluster: ClusterSettings, me: str) -> Identity:
    """What this process shows to other nodes."""
    tls = cluster.tls
    return Identity(
        node=me,
        incarnation=context.node_ns() // 10**6,
        folder=context.node.folder_id,
        cluster=cluster.name,
        name=cluster.node_name,
        purpose="lane",
        secret=secret_of(cluster, "secret", secret_reader(context.data)).encode(),
        tls=Tls(tls.certificate, tls.key, tls.authority) if tls is not None else None,
        rng=context.rng,
        clock=context.clock,
        counters=context.counters,
    )
