"""The deliver process: ready → one destination; answers SQL where the destination can."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from headwater.config.report import read_reports
from headwater.destinations import registry, stand
from headwater.destinations.deliver import Deliverer
from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.pause import Pause
from headwater.destinations.plan import Paused
from headwater.destinations.port import (
    ChainReader,
    Destination,
    OpenChain,
    OpenPrivate,
    PrivateRun,
    ProcessedAt,
    Settling,
)
from headwater.destinations.refused import DeadLetters
from headwater.destinations.remember import Memory
from headwater.destinations.remote import RemoteDestination
from headwater.destinations.replay import Replays
from headwater.destinations.replays import Book
from headwater.destinations.settle import Settler
from headwater.destinations.worker import DeliverWorker
from headwater.event.position import Position, Vector, WriterId
from headwater.kit import ask, memory
from headwater.kit.errors import Misconfigured, Unavailable
from headwater.kit.threads import Thread
from headwater.log.cut import home_of
from headwater.log.ready import ReadyReader
from headwater.node import happenings, logids
from headwater.node.context import Context
from headwater.node.nodes import Nodes
from headwater.node.ownership import Mirrors, Ownership
from headwater.node.replaying import NodeRaw
from headwater.node.settings import Settings
from headwater.node.standby import backed
from headwater.ops import standing
from headwater.process.columns import standard_schema

DELIVERED_POLL_S = 0.05
RELEASE_WAIT_S = 5.0
"""How long the former owners of what comes here may take to let go; then it is tried all the same (INV-DST-1)."""
KEEP_FREED_BYTES = 192 * 1024 * 1024
"""Less than a load takes for a moment; bounded with it."""


class DeliverRole:
    """ready → destination; answers SQL where the destination can."""

    def __init__(self, context: Context) -> None:
        name = context.instance
        settings = context.settings.destinations.get(name)
        if settings is None:
            raise Misconfigured(f"destinations.{name} is not in the configuration", code="destination_name")
        folder = context.path("state", context.name)
        context.disk.mkdir(folder)
        self.context = context
        self.settings = settings
        self.folder = folder
        self.ownership = Ownership(context)
        self.told: dict[str, Any] = {}
        self.worker: DeliverWorker | None = None
        self.running: asyncio.Task[None] | None = None
        self.owned: list[int] = []
        self.epoch = 0
        """Of the table by which it delivers."""
        self.mirrors = Mirrors(context, self.ownership)

    def deliverer(self) -> Deliverer:
        """The loop of the destination. Unavailable: in a cluster that has no table yet, it has no name."""
        context, settings, folder = self.context, self.settings, self.folder
        name = context.instance
        open_private = private_opener(context, self.mirrors)
        deliverer = Deliverer(
            name,
            self.destination(self.mirrors),
            {str(n): ready_opener(context, n) for n in ready_folders(context)},
            Memory(context.disk, f"{folder}/state.json", self.ownership.pipeline(name)),
            DeadLetters(f"{folder}/dead.sqlite", name),
            settings,
            context.clock,
            partitions=context.node.partitions,
            owner=context.node.folder_id,
            node_ns=context.node_ns,
            unknown=logids.unknown_to(context.data, context.disk),
            open_private=open_private,
            owned=self.owned,
            processed=lambda: processed_at(context),
            stood_when=self.mirrors.stood_when,
            tell=lambda happening, fields: context.happenings.emit(
                happenings.of_destination(happening, fields)
            ),
            layouts={"events": standard_schema()},
            pause=Pause(context.disk, f"{folder}/paused.json"),
            submit=Thread("catch-up"),
        )
        book = Book(context.disk, f"{folder}/replays.json")
        raw = NodeRaw(context, open_private)
        if deliverer.destination.capabilities.updates:
            settling = cast("Settling", deliverer.destination)
            deliverer.settler = Settler(
                settling,
                context.settings.identity,
                context.clock,
                lambda: self.settled_here(deliverer),
                lambda trouble: deliverer.tell(
                    "recognition_waits",
                    {
                        "destination": name,
                        "code": trouble.code,
                        "reason": f"{trouble.message}: {trouble.help}",
                    },
                ),
            )
        deliverer.replays = Replays(deliverer, book, raw, settings.replay_events_per_s)
        return deliverer

    def settled_here(self, deliverer: Deliverer) -> list[int] | None:
        """The partitions whose rows are corrected from here; None: all, also of those that others deliver, where the
        destination is held here."""
        held = isinstance(self.settings, DuckDbSettings) or not deliverer.shared
        return None if held else sorted(deliverer.owned)

    def destination(self, mirrors: Mirrors) -> Destination:
        """What is delivered to: here, or on the one node that holds its file."""
        context, settings = self.context, self.settings
        if isinstance(settings, DuckDbSettings) and not self.holds(settings, mirrors):
            # Who holds it is asked at each call: a node that is named may not have been heard of yet.
            return RemoteDestination(
                lambda request, body: mirrors.call(
                    mirrors.holder(settings.node), f"deliver-{context.instance}", request, body
                ),
                settings.node or Nodes(context, self.ownership).name(mirrors.holder("")),
            )
        return registry.make(self.settings, registry.Place(context.data, self.folder, context.clock))

    def holds(self, settings: DuckDbSettings, mirrors: Mirrors) -> bool:
        """Whether the file is here. Unavailable: that is not known yet."""
        cluster, me = self.context.settings.cluster, self.context.node.folder_id
        if cluster is None or settings.node in (cluster.node_name, me):
            return True
        return not settings.node and mirrors.holder("") == me

    async def start(self) -> None:
        memory.settle(KEEP_FREED_BYTES)
        self.begin()

    def begin(self) -> None:
        """Deliver, as soon as the destination has a name."""
        self.owned = self.ownership.owned() if self.ownership.alone else []
        try:
            deliverer = self.deliverer()
        except Unavailable:
            return
        socket = self.context.path("run", f"{self.context.name}.sock")
        self.worker = DeliverWorker(self.context.instance, [deliverer], self.tell, self.context.clock, socket)
        self.running = asyncio.get_running_loop().create_task(self.worker.run(ask.serve))

    async def follow(self, epoch: int, owned: list[int]) -> None:
        """Give up at once what is no longer owned, and say so; take what is new when its former owners have."""
        kept = sorted(set(owned) & set(self.owned))
        await self.own(kept)
        self.epoch = epoch
        if kept == owned:
            return
        until_ns = self.context.clock.boot_ns() + int(RELEASE_WAIT_S * 1e9)
        while self.context.clock.boot_ns() < until_ns:
            self.context.publish("running", [], self.detail())
            if await asyncio.to_thread(self.mirrors.released, epoch):
                break
            await self.context.clock.sleep(DELIVERED_POLL_S)
        if self.ownership.epoch() == epoch:
            await self.own(owned)

    async def own(self, owned: list[int]) -> None:
        """Deliver these partitions from now on."""
        if owned != self.owned and self.worker is not None:
            for deliverer in self.worker.deliverers.values():
                await asyncio.to_thread(deliverer.own, owned)
        self.owned = owned

    def tell(self, told: dict[str, Any]) -> None:
        self.told = told

    async def tick(self) -> None:
        if self.running is not None and self.running.done():
            self.running.result()
        if self.worker is None:
            self.begin()
        elif self.ownership.epoch() != self.epoch or self.ownership.owned() != self.owned:
            await self.follow(self.ownership.epoch(), self.ownership.owned())

    async def reload(self, settings: Settings) -> None:
        pass  # a changed destination is a new process

    async def drain(self) -> None:
        """Until everything committed is in the destination, it is paused, or the supervisor cuts it."""
        reports = read_reports(
            self.context.disk, self.context.path("run", "reports"), self.context.control.start
        )
        committed = standing.processed(reports).vectors
        while not self.delivered(committed):
            await self.tick()
            await self.context.clock.sleep(DELIVERED_POLL_S)

    def delivered(self, committed: standing.Vectors) -> bool:
        """Whether nothing is left that could be delivered now."""
        if self.worker is None:
            return True
        one = standing.delivered_by(self.worker.status())[self.context.instance]
        return one.state == "paused" or standing.covers(one.vectors, committed)

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait((self.running,))

    def reasons(self) -> list[str]:
        return []  # a destination's trouble never makes the node unready (INV-DST-3); status tells it

    def detail(self) -> dict[str, Any]:
        return {**self.told, "epoch": self.epoch} if self.told else {"epoch": self.epoch}


def processed_at(context: Context) -> ProcessedAt:
    """Where processing stands, as its reports say."""
    reports = read_reports(context.disk, context.path("run", "reports"), context.control.start)
    told = standing.passed(reports)
    vectors = {int(p): Vector.decode(bytes.fromhex(text)) for p, text in told["vectors"].items()}
    return ProcessedAt(vectors, {int(p): dict(streams) for p, streams in told["passed"].items()})


def ready_folders(context: Context) -> list[int]:
    """Every processor that is, or was: what a former one committed is delivered too."""
    known = [int(name) for name in context.disk.listdir(context.path("ready")) if name.isdigit()]
    return sorted({*known, *range(context.settings.process.workers)})


def ready_opener(context: Context, processor: int) -> OpenChain:
    """Opens a processor's commits behind a position; in a cluster, those that its standbys have too."""
    folder, workers = context.path("ready", str(processor)), context.settings.process.workers

    def opened(at: Position) -> ChainReader:
        reader = ReadyReader(context.disk, folder, WriterId(processor), at, secret=context.secret)
        if context.settings.cluster is None or processor >= workers:
            return reader
        cells = backed.cells_of(context.disk, context.path("run"), processor)
        return backed.BackedReader(reader, cells, context.clock)

    return opened


def reaching(mirrors: Mirrors, origin: Vector, until: Vector) -> Vector:
    """``until``, without what only nodes have that cannot be asked now: the others go on, those events wait."""
    lost = {w for w, at in until.items() if origin[w] != at and not mirrors.reachable({w: (origin[w], at)})}
    if not lost:
        return until
    return Vector({w: origin[w] if w in lost else at for w, at in until.items()}, until.clock)


def refuse_forgotten(
    name: str, mirrors: Mirrors, partitions: tuple[int, ...], origin: Vector, until: Vector
) -> None:
    """Misconfigured, with the command that counts and leaves out what is lacking, where only a node has it that an
    operator said is gone for good: it would be waited for for ever."""
    forgotten = {int(node, 16) for node in mirrors.ownership.forgotten()}
    lost = {w: (origin[w], at) for w, at in until.items() if origin[w] != at and home_of(w) in forgotten}
    if lost and not mirrors.reachable(lost):
        raise stand.paused(name, Paused("raw_gone", partitions))


def private_opener(context: Context, mirrors: Mirrors) -> OpenPrivate:
    """Opens runs over the raw log with today's settings. What processing needs is imported when the first one begins:
    most deliverers never need it."""

    def open_private(partitions: tuple[int, ...], origin: Vector, until: Vector) -> PrivateRun:
        from headwater.node.roles import process
        from headwater.process import idruns, private
        from headwater.process.dedupe import MINUTE_NS, Seen
        from headwater.process.schema import LearnedSchema
        from headwater.process.shape import Shaper

        settings = context.settings
        refuse_forgotten(context.instance, mirrors, partitions, origin, until)
        until = reaching(mirrors, origin, until)
        stream = f"deliver-{context.instance}"
        window_minutes = int(-(-settings.process.dedupe_window_s // 60))
        id_folders = [
            *(context.path("state", str(number)) for number in ready_folders(context)),
            *mirrors.standby(),
        ]
        mirror = None
        if not mirrors.ownership.alone:
            # what the runs of ids do not tell is read from the logs, so the mirror begins where they end
            edge = origin.clock // MINUTE_NS - window_minutes - 1
            known = idruns.below(id_folders, partitions, origin, edge, context.disk)
            begin = origin if known is None else origin.meet(known.upto)
            mirror = mirrors.open(stream, partitions, begin, until)
            if mirror is None:
                raise Unavailable(
                    "the lane does not answer: other nodes' events cannot be read", code="no_lane"
                )
        schema = LearnedSchema(context.path("schema.ndjson"), columns_max=settings.process.columns_max)
        shaper = Shaper(
            process.enrichment(context, settings), schema, server_keys=process.server_keys(settings)
        )
        seen = Seen(
            partitions=context.node.partitions,
            memory_bytes=settings.process.dedupe_memory_bytes,
            window_s=settings.process.dedupe_window_s,
        )
        return private.PrivateRun(
            context.disk,
            context.path("raw"),
            context.secret,
            context.clock,
            process.runner_of(context, schema, shaper, partitions, damage_here=False),
            seen,
            id_folders=id_folders,
            partitions=partitions,
            origin=origin,
            until=until,
            now=lambda: (context.control.start, context.clock.boot_ns()),
            bytes_max=settings.process.cut_bytes_max,
            config_epoch=context.node.start,
            mirror=mirror,
            complete=lambda: mirrors.ownership.alone or mirrors.complete(stream),
        )

    return open_private
