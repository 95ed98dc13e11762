"""The process process: raw → run → ready, niced, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import msgspec

from headwater.config.control import ControlPage
from headwater.config.report import read_reports
from headwater.dialects.registry import DIALECTS, Dialect
from headwater.event.position import ZERO, Position, WriterId
from headwater.identity.junk import Junk
from headwater.identity.recognise import Recogniser
from headwater.identity.settings import IdentitySettings
from headwater.identity.store import FactStore, Unknown
from headwater.kit import memory
from headwater.kit.errors import Rejected
from headwater.kit.threads import Thread
from headwater.log import retain
from headwater.log.ready import ReadyWriter
from headwater.log.write import BlockWriter
from headwater.node import hold, rawkeeper
from headwater.node.context import Context
from headwater.node.ownership import Mirrors, Ownership
from headwater.node.settings import Settings
from headwater.ops import standing
from headwater.process.enrich.settings import EnrichSettings
from headwater.process.gather import Gatherer
from headwater.process.read import Reader
from headwater.process.run import Runner
from headwater.process.schema import LearnedSchema
from headwater.process.settings import ProcessSettings
from headwater.process.shape import Shaper
from headwater.process.state import FACTS
from headwater.process.worker import ProcessWorker

COMMITS_IN_READY_MIN = 6
ATTACHED_SHARE = 0.6
"""Of the quota of the ready log: what a destination may hold while others are further."""
READY_RETIRE_INTERVAL_S = 2.0
KEEP_FREED_BYTES = 192 * 1024 * 1024
"""About what a cut needs beyond the state; bounded with it."""


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What a processor needs of the control page."""

    control: ControlPage

    def start(self) -> int:
        return self.control.start

    def offset_ns(self) -> int:
        return self.control.offset_ns


class ProcessRole:
    """raw → run → ready."""

    def __init__(self, context: Context) -> None:
        settings = context.settings
        os.nice(settings.process.nice)
        self.context = context
        self.told: dict[str, Any] = {}
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.retired_ns = 0
        self.detached: list[str] = []
        """Destinations for which the ready log is not kept."""
        self.schema = LearnedSchema(context.path("schema.ndjson"), columns_max=settings.process.columns_max)
        self.shaper = shaper_of(context, settings, self.schema)
        """Of all groups, which take turns in one thread: what enrichment holds outlives them."""
        self.ownership = Ownership(context)
        self.syncing = Thread("prepare-ready")
        self.folder = context.path("ready", context.instance)
        self.ready: ReadyWriter | None = None  # making its first segment asks ``allowed``
        self.ready = ready = ReadyWriter(self.blocks())
        self.worker = ProcessWorker(
            context.number,
            fitting(settings),
            context.data,
            context.disk,
            context.clock,
            NodeTime(context.control),
            ready,
            self.runner,
            self.tell,
            secret=context.secret,
            partitions=context.node.partitions,
            config_epoch=context.node.start,
            ids_bytes_max=settings.ids_bytes_max,
            owned=self.owned(),
            sources=Mirrors(context, self.ownership),
            facts=FactStore(
                context.path("state", context.instance, FACTS),
                context.settings.identity.store_bytes_max,
                context.settings.identity.shared_users_max,
                cached_ids=context.settings.identity.cached_ids,
                filter_bytes=context.settings.identity.filter_bytes,
            ),
        )
        self.thread = threading.Thread(target=self.turn, name="process", daemon=True)

    def blocks(self) -> BlockWriter:
        """The ready log of this start."""
        context, settings = self.context, self.context.settings
        return BlockWriter(
            context.disk,
            context.clock,
            self.folder,
            WriterId(context.number),
            context.log_id,
            secret=context.secret,
            start=context.control.start,
            offset_ns=context.control.offset_ns,
            segment_bytes=settings.log.ready_segment_bytes,
            submit=self.syncing,
            allowed=self.allowed,
        )

    def allowed(self) -> bool:
        """Whether the ready log may grow: below its quota, and always as far as it needs to come free again: by the
        segment behind the one that is written, and to the end of a commit."""
        halfway = self.ready is not None and self.ready.halfway
        return halfway or retain.folder_bytes(self.context.disk, self.folder) < self.quota()

    def quota(self) -> int:
        """What the ready log may take, bytes."""
        settings = self.context.settings
        return max(settings.ready_bytes_max, 2 * settings.log.ready_segment_bytes)

    async def start(self) -> None:
        await asyncio.to_thread(self.worker.recover)
        memory.settle(KEEP_FREED_BYTES)
        self.thread.start()

    def turn(self) -> None:
        """The thread: until stopped and nothing is left to process."""
        try:
            self.worker.run(self.stopping.is_set)
        except BaseException as error:
            self.failure = error

    def tell(self, told: dict[str, Any]) -> None:
        self.told = told

    def owned(self) -> list[int]:
        """The partitions of this processor."""
        return self.ownership.of_processor(self.context.number, self.context.settings.process.workers)

    async def tick(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.worker.own(self.owned())
        now_ns = self.context.clock.boot_ns()
        if now_ns - self.retired_ns > READY_RETIRE_INTERVAL_S * 1e9:
            self.retired_ns = now_ns
            await asyncio.to_thread(self.retire)

    def retire(self) -> None:
        """Give back the commits that are folded and that every destination has."""
        context = self.context
        reports = read_reports(context.disk, context.path("run", "reports"), context.control.start)
        passed = {
            name: one.ready_passed.get(context.instance, ZERO)
            for name, one in standing.delivered(reports).items()
        }
        attached = attached_to(
            {name: passed.get(name, ZERO) for name in context.settings.destinations},
            lambda safe: retain.held_bytes(context.disk, self.folder, safe),
            int(self.quota() * ATTACHED_SHARE),
            rawkeeper.expendable(context.settings, reports),
        )
        safe = min([Position(*self.told.get("folded", ZERO)), *attached.values()])
        self.detached = sorted(set(context.settings.destinations) - set(attached))
        with hold.retiring(context.data) as may:
            retain.retire(
                context.disk,
                self.folder,
                safe if may else ZERO,
                wanted=lambda *_: False,
                segment_bytes=context.settings.log.ready_segment_bytes,
                spares_max=1,
            )

    async def reload(self, settings: Settings) -> None:
        """Enrichment, from the next cut on."""
        self.shaper = shaper_of(self.context, settings, self.schema)
        for group in self.worker.groups:
            group.runner.shaper = self.shaper

    def runner(self, owned: Sequence[int]) -> Runner:
        """The runner of a group of partitions."""
        return runner_of(
            self.context,
            self.schema,
            self.shaper,
            owned,
            damage_here=self.context.number == 0,
            recogniser=self.recogniser(),
        )

    def recogniser(self) -> Recogniser | None:
        """Recognition by the facts that this processor has."""
        facts, identity = self.worker.store.facts, self.context.settings.identity
        if facts is None:
            return None
        return Recogniser(identity.policy, Junk(identity.junk_ids), facts, self.worker.knows)

    async def drain(self) -> None:
        self.stopping.set()
        while self.thread.is_alive():
            await self.context.clock.sleep(0.01)
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        self.stopping.set()
        self.syncing.close()

    def reasons(self) -> list[str]:
        return [self.told["trouble"]] if self.told.get("trouble") else []

    def detail(self) -> dict[str, Any]:
        return self.told


def runner_of(
    context: Context,
    schema: LearnedSchema,
    shaper: Shaper,
    owned: Sequence[int],
    *,
    damage_here: bool,
    recogniser: Recogniser | None = None,
) -> Runner:
    """Processing of these partitions as the settings say."""
    return Runner(
        Gatherer(meaning),
        Reader(schema, depth_max=context.settings.process.nested_depth_max),
        shaper,
        owned=owned,
        partitions=context.node.partitions,
        damage_here=damage_here,
        recogniser=recogniser or unknowing(context.settings.identity),
    )


def unknowing(identity: IdentitySettings) -> Recogniser:
    """Recognition of runs without state: what they make is settled where it lands."""
    return Recogniser(identity.policy, Junk(identity.junk_ids), Unknown(), lambda partition: False)


def shaper_of(context: Context, settings: Settings, schema: LearnedSchema) -> Shaper:
    """Rows with the enrichment of these settings."""
    made = Shaper(enrichment(context, settings), schema, server_keys=server_keys(settings))
    made.geo.refresh(context.clock.boot_ns() / 1e9)
    return made


def enrichment(context: Context, settings: Settings) -> EnrichSettings:
    """The settings of enrichment, paths of databases below the data folder."""
    enrich = settings.process.enrich
    databases = tuple(os.path.join(context.data, path) for path in enrich.geo.databases)
    return msgspec.structs.replace(enrich, geo=msgspec.structs.replace(enrich.geo, databases=databases))


def meaning(name: str) -> Dialect:
    """The dialect of a record; Rejected where this version does not know it."""
    if name not in DIALECTS:
        raise Rejected(f"records of the dialect {name!r}, which this version does not know", code="dialect")
    return DIALECTS[name]


def attached_to(
    passed: Mapping[str, Position],
    held_bytes: Callable[[Position], int],
    bytes_max: int,
    expendable: Set[str] = frozenset(),
) -> dict[str, Position]:
    """The destinations for which the ready log is kept: without the slowest, as long as they would hold more than
    ``bytes_max`` of it. Those are served by private runs when they come back. The furthest one always counts, and
    processing waits for it, unless it is written off: then processing must go on, or raw could not be given up."""
    attached = dict(sorted(passed.items(), key=lambda item: item[1], reverse=True))
    while attached and held_bytes(min(attached.values())) > bytes_max:
        if len(attached) == 1 and not attached.keys() <= expendable:
            break
        attached.popitem()
    return attached


def server_keys(settings: Settings) -> frozenset[str]:
    """Ids of the keys that servers use, not browsers."""
    return frozenset(key.id for key in settings.keys if not key.browser)


def fitting(settings: Settings) -> ProcessSettings:
    """The settings of processing with cuts so small that several commits fit into the quota of the ready log: one
    that fills it could neither be finished nor given back."""
    cut_bytes = min(settings.process.cut_bytes_max, settings.ready_bytes_max // COMMITS_IN_READY_MIN)
    return msgspec.structs.replace(settings.process, cut_bytes_max=cut_bytes)
