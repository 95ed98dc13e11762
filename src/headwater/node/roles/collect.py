"""The collect process: requests → raw."""

from __future__ import annotations

from typing import Any

from headwater.collect.keys import KeyTable
from headwater.collect.worker import CollectWorker
from headwater.kit.errors import Unavailable
from headwater.kit.threads import Thread
from headwater.log.write import BlockWriter
from headwater.node.configuration import secret_reader
from headwater.node.context import Context
from headwater.node.settings import Settings


class CollectRole:
    """requests → raw."""

    def __init__(self, context: Context) -> None:
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
        return KeyTable.build(
            settings.keys,
            rng=self.context.rng,
            read=secret_reader(self.context.data),
            workers=settings.collect.workers,
            address_policy=settings.collect.client_address,
            before=before,
        )

    async def start(self) -> None:
        while (
            self.blocks.segments.preparing
        ):  # nobody is turned away because the door was quicker than the log
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
