"""The composition root: the one place where everything is wired.

Each role is built, connected, started, drained and stopped by its class here, in this order; role.py drives them.
A role's class knows constructors and nothing else: what happens to events is in the stages.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headwater.config.control import ControlPage
from headwater.config.report import read_reports
from headwater.event.position import ZERO, Position, WriterId
from headwater.kit import ask
from headwater.kit.errors import Misconfigured, Rejected, Unavailable
from headwater.kit.threads import Thread
from headwater.log import retain
from headwater.log.ready import ReadyReader, ReadyWriter
from headwater.log.write import BlockWriter
from headwater.node.configuration import secret_reader
from headwater.node.context import Context, connect
from headwater.node.settings import Settings
from headwater.ops import standing

if TYPE_CHECKING:
    from headwater.collect.keys import KeyTable
    from headwater.dialects.registry import Dialect
    from headwater.process.run import Runner

READY_RETIRE_INTERVAL_S = 2.0
DELIVERED_POLL_S = 0.05

__all__ = ["ROLES", "Context", "Role", "connect"]


class Role(Protocol):
    """What role.py needs of a role."""

    async def start(self) -> None:
        """Begin; returns when it works."""
        ...

    async def tick(self) -> None:
        """Called several times a second; raises what ended the role."""
        ...

    async def reload(self, settings: Settings) -> None:
        """Take over what reloads."""
        ...

    async def drain(self) -> None:
        """Finish what has begun, within the settings' time."""
        ...

    async def stop(self) -> None:
        """Release everything; after ``drain``, or instead of it."""
        ...

    def reasons(self) -> list[str]:
        """Why it is not ready."""
        ...

    def detail(self) -> dict[str, Any]:
        """What its report holds."""
        ...


@dataclass(frozen=True, slots=True)
class NodeTime:
    """What a processor needs of the control page."""

    control: ControlPage

    def start(self) -> int:
        return self.control.start

    def offset_ns(self) -> int:
        return self.control.offset_ns


# -- collect


async def collect(context: Context) -> Role:
    """The door: one worker, its log, the listener."""
    return CollectRole(context)


class CollectRole:
    """requests → raw."""

    def __init__(self, context: Context) -> None:
        from headwater.collect.worker import CollectWorker

        self.context = context
        self.told: dict[str, Any] = {}
        self.committing = Thread("commit")
        self.preparing = Thread("prepare-raw")
        self.blocks = BlockWriter(
            context.disk,
            context.clock,
            context.path("raw", f"{context.writer():016x}"),
            context.writer(),
            context.log_id,
            start=context.control.start,
            offset_ns=context.control.offset_ns,
            segment_bytes=context.settings.log.segment_bytes,
            submit=self.preparing,
            allowed=lambda: context.control.raw_room_bytes >= context.settings.log.segment_bytes,
        )
        self.keys = self.keys_of(context.settings, None)
        self.worker = CollectWorker(
            context.settings.collect,
            self.keys,
            blocks=self.blocks,
            submit=self.committing,
            control=context.control,
            clock=context.clock,
            publish=self.tell,
        )

    def keys_of(self, settings: Settings, before: KeyTable | None) -> KeyTable:
        """The keys of the settings; quotas of ``before`` go on."""
        from headwater.collect.keys import KeyTable

        return KeyTable.build(
            settings.keys,
            rng=self.context.rng,
            read=secret_reader(self.context.data),
            workers=settings.collect.workers,
            address_policy=settings.collect.client_address,
            before=before,
        )

    async def start(self) -> None:
        while self.blocks.segments.preparing:  # nobody is turned away because the door was quicker than the log
            await self.context.clock.sleep(0.01)
        await self.worker.start()

    def tell(self, told: dict[str, Any]) -> None:
        self.told = told

    async def tick(self) -> None:
        if self.blocks.ended:  # the disk failed: recovery decides where this log ends, a new one begins
            raise Unavailable(f"the raw log has ended: {self.blocks.ended}", code="log_ended")

    async def reload(self, settings: Settings) -> None:
        self.keys = self.keys_of(settings, self.keys)
        self.worker.reload(self.keys)

    async def drain(self) -> None:
        await self.worker.drain(self.context.settings.shutdown_timeout)

    async def stop(self) -> None:
        self.committing.close()
        self.preparing.close()

    def reasons(self) -> list[str]:
        segments = self.blocks.segments
        return [segments.trouble] if segments.trouble and not segments.ready else []

    def detail(self) -> dict[str, Any]:
        return self.told


# -- process


async def process(context: Context) -> Role:
    """One processor, niced, in a thread of its own."""
    os.nice(context.settings.process.nice)
    return ProcessRole(context)


class ProcessRole:
    """raw → run → ready."""

    def __init__(self, context: Context) -> None:
        from headwater.process.worker import ProcessWorker

        settings = context.settings
        self.context = context
        self.told: dict[str, Any] = {}
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.retired_ns = 0
        self.syncing = Thread("prepare-ready")
        self.folder = context.path("ready", context.instance)
        self.worker = ProcessWorker(
            context.number,
            settings.process,
            context.data,
            context.disk,
            context.clock,
            NodeTime(context.control),
            ReadyWriter(self.blocks()),
            runner_for(context),
            self.tell,
            partitions=context.node.partitions,
            config_epoch=context.node.start,
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
            start=context.control.start,
            offset_ns=context.control.offset_ns,
            segment_bytes=settings.log.ready_segment_bytes,
            submit=self.syncing,
            allowed=lambda: retain.folder_bytes(context.disk, self.folder) < settings.ready_bytes_max,
        )

    async def start(self) -> None:
        await asyncio.to_thread(self.worker.recover)
        self.thread.start()

    def turn(self) -> None:
        """The thread: until stopped and nothing is left to process."""
        try:
            self.worker.run(self.stopping.is_set)
        except BaseException as error:
            self.failure = error

    def tell(self, told: dict[str, Any]) -> None:
        self.told = told

    async def tick(self) -> None:
        if self.failure is not None:
            raise self.failure
        now_ns = self.context.clock.boot_ns()
        if now_ns - self.retired_ns > READY_RETIRE_INTERVAL_S * 1e9:
            self.retired_ns = now_ns
            await asyncio.to_thread(self.retire)

    def retire(self) -> None:
        """Give back the commits that are folded and that every destination has."""
        context = self.context
        reports = read_reports(context.disk, context.path("run", "reports"), context.control.start)
        passed = {name: one.ready_passed for name, one in standing.delivered(reports).items()}
        safe = ready_safe(self.told, passed, context.settings.destinations, context.instance)
        retain.retire(
            context.disk,
            self.folder,
            safe,
            wanted=lambda segment: False,
            segment_bytes=context.settings.log.ready_segment_bytes,
            spares_max=1,
        )

    async def reload(self, settings: Settings) -> None:
        pass  # enrichment: see runner_for

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


def runner_for(context: Context) -> Callable[[Sequence[int]], Runner]:
    """How a processor makes the runner of a group of partitions."""
    from headwater.process.enrich.settings import EnrichSettings
    from headwater.process.gather import Gatherer
    from headwater.process.read import Reader
    from headwater.process.run import Runner
    from headwater.process.schema import LearnedSchema
    from headwater.process.shape import Shaper

    settings = context.settings.process
    schema = LearnedSchema(context.path("schema.ndjson"), columns_max=settings.columns_max)

    def make(owned: Sequence[int]) -> Runner:
        return Runner(
            Gatherer(meaning),
            Reader(schema, depth_max=settings.nested_depth_max),
            Shaper(EnrichSettings(), schema),
            owned=owned,
            partitions=context.node.partitions,
            damage_here=context.number == 0,
        )

    return make


def meaning(name: str) -> Dialect:
    """The dialect of a record; Rejected where this version does not know it."""
    from headwater.dialects.registry import DIALECTS

    if name not in DIALECTS:
        raise Rejected(f"records of the dialect {name!r}, which this version does not know", code="dialect")
    return DIALECTS[name]


def ready_safe(
    told: Mapping[str, Any],
    passed: Mapping[str, Mapping[str, Position]],
    destinations: Iterable[str],
    ready: str,
) -> Position:
    """The position below which nobody needs this ready log any more; ZERO while a destination has not said."""
    safe = Position(*told.get("folded", ZERO))
    for name in destinations:
        safe = min(safe, passed.get(name, {}).get(ready, ZERO))
    return safe


# -- deliver


async def deliver(context: Context) -> Role:
    """One destination: its file or connection, its thread, its socket."""
    return DeliverRole(context)


class DeliverRole:
    """ready → destination; answers SQL where the destination can."""

    def __init__(self, context: Context) -> None:
        from headwater.destinations import registry
        from headwater.destinations.deliver import Deliverer
        from headwater.destinations.refused import DeadLetters
        from headwater.destinations.remember import Memory
        from headwater.destinations.worker import DeliverWorker

        name = context.instance
        settings = context.settings.destinations.get(name)
        if settings is None:
            raise Misconfigured(f"destinations.{name} is not in the configuration", code="destination_name")
        folder = context.path("state", context.name)
        context.disk.mkdir(folder)
        self.context = context
        self.told: dict[str, Any] = {}
        self.running: asyncio.Task[None] | None = None
        self.deliverer = Deliverer(
            name,
            registry.make(settings, registry.Place(context.data, folder, context.clock)),
            {str(n): ready_opener(context, n) for n in ready_folders(context)},
            Memory(context.disk, f"{folder}/state.json", f"{context.node.folder_id}/{name}/main"),
            DeadLetters(f"{folder}/dead.sqlite", name),
            settings,
            context.clock,
            partitions=context.node.partitions,
            owner=context.node.folder_id,
            node_ns=context.node_ns,
        )
        socket = context.path("run", f"{context.name}.sock")
        self.worker = DeliverWorker(name, [self.deliverer], self.tell, context.clock, socket)

    async def start(self) -> None:
        self.running = asyncio.get_running_loop().create_task(self.worker.run(ask.serve))

    def tell(self, told: dict[str, Any]) -> None:
        self.told = told

    async def tick(self) -> None:
        if self.running is not None and self.running.done():
            self.running.result()

    async def reload(self, settings: Settings) -> None:
        pass  # a changed destination is a new process

    async def drain(self) -> None:
        """Until everything committed is in the destination, it is paused, or the supervisor cuts it."""
        reports = read_reports(self.context.disk, self.context.path("run", "reports"), self.context.control.start)
        committed = standing.processed(reports).vectors
        while not self.delivered(committed):
            await self.tick()
            await self.context.clock.sleep(DELIVERED_POLL_S)

    def delivered(self, committed: standing.Vectors) -> bool:
        """Whether nothing is left that could be delivered now."""
        one = standing.delivered_by(self.worker.status())[self.context.instance]
        return one.state == "paused" or standing.covers(one.vectors, committed)

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait((self.running,))

    def reasons(self) -> list[str]:
        return []  # a destination's trouble never makes the node unready (INV-DST-3); status tells it

    def detail(self) -> dict[str, Any]:
        return self.told


def ready_folders(context: Context) -> list[int]:
    """Every processor that is, or was: what a former one committed is delivered too."""
    known = [int(name) for name in context.disk.listdir(context.path("ready")) if name.isdigit()]
    return sorted({*known, *range(context.settings.process.workers)})


def ready_opener(context: Context, processor: int) -> Callable[[Position], ReadyReader]:
    """Opens a processor's commits behind a position."""
    folder = context.path("ready", str(processor))
    return lambda at: ReadyReader(context.disk, folder, WriterId(processor), at)


# -- ops


async def ops(context: Context) -> Role:
    """Health, metrics, API, demo: on TCP with its guards, and on a unix socket for commands."""
    from headwater.node.ops_role import OpsRole

    return OpsRole(context)


ROLES: Mapping[str, Callable[[Context], Awaitable[Role]]] = {
    "collect": collect,
    "process": process,
    "deliver": deliver,
    "ops": ops,
}
