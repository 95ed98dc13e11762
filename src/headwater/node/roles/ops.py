"""The ops process: hands the pure parts in ops/ what they look at."""

from __future__ import annotations

from typing import Any

from headwater.collect.keys import secrets_of
from headwater.kit.errors import HeadwaterError
from headwater.node.context import Context
from headwater.node.dead_letters import NodeDeadLetters
from headwater.node.settings import Settings, secret_reader
from headwater.ops.look import Look, Parts
from headwater.ops.serve import OpsServer


class OpsRole:
    """Both listeners, over a look at the node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parts = parts_of(context.settings, context.data)
        look = Look(
            context.node,
            context.data,
            context.disk,
            context.clock,
            context.control,
            lambda: self.parts,
            NodeDeadLetters(context.disk, context.data),
            context.secret,
        )
        self.server = OpsServer(look, context.settings.ops)

    async def start(self) -> None:
        await self.server.start()

    async def tick(self) -> None:
        self.server.check()

    async def reload(self, settings: Settings) -> None:
        self.parts = parts_of(settings, self.context.data)

    async def drain(self) -> None:
        pass  # it answers to the last: others look at the drain through it

    async def stop(self) -> None:
        await self.server.stop()

    def reasons(self) -> list[str]:
        return []

    def detail(self) -> dict[str, Any]:
        return {}


def parts_of(settings: Settings, data: str) -> Parts:
    """What should be there, without secrets but the one that pages carry anyway."""
    return Parts(
        roles=[
            *(f"collect-{n}" for n in range(settings.collect.workers)),
            *(f"process-{n}" for n in range(settings.process.workers)),
            *(f"deliver-{name}" for name in settings.destinations),
        ],
        destinations=list(settings.destinations),
        keys=[
            {
                "id": key.id,
                "kind": "browser" if key.browser else "server",
                "origins": key.origins,
                "ack": key.ack,
                "secret_file": key.secret_file or None,
            }
            for key in settings.keys
        ],
        demo_key=browser_secret(settings, data),
    )


def browser_secret(settings: Settings, data: str) -> str:
    """The secret of the first browser key; empty where there is none that can be read."""
    for key in settings.keys:
        if key.browser:
            try:
                return next(iter(secrets_of(key, secret_reader(data))), "")
            except (OSError, HeadwaterError):
                return ""
    return ""
