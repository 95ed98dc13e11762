"""The ops process: hands the pure parts in ops/ what they look at."""

from __future__ import annotations

import datetime
from typing import Any

from headwater.cluster.settings import secret_of
from headwater.collect.keys import secrets_of
from headwater.collect.settings import KeySettings
from headwater.kit.disk import Disk
from headwater.kit.errors import HeadwaterError
from headwater.node import rotation
from headwater.node.context import Context
from headwater.node.dead_letters import NodeDeadLetters
from headwater.node.nodes import Nodes
from headwater.node.ownership import Mirrors, Ownership
from headwater.node.settings import Settings, named_destinations, secret_reader
from headwater.ops.look import Look, Parts
from headwater.ops.serve import OpsServer


class OpsRole:
    """Both listeners, over a look at the node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parts = parts_of(context.settings, context.data, context.disk)
        ownership = Ownership(context)
        look = Look(
            context.node,
            context.data,
            context.disk,
            context.clock,
            context.control,
            lambda: self.parts,
            NodeDeadLetters(context.disk, context.data),
            context.secret,
            others=Mirrors(context, ownership).everywhere,
            owners=None if ownership.alone else ownership.owners,
            nodes=Nodes(context, ownership),
        )
        cluster = context.settings.cluster
        self.server = OpsServer(
            look,
            context.settings.ops,
            clustered=cluster is not None,
            admin_token=secret_of(cluster, "admin_token", secret_reader(context.data)) if cluster else "",
        )

    async def start(self) -> None:
        await self.server.start()

    async def tick(self) -> None:
        self.server.check()

    async def reload(self, settings: Settings) -> None:
        self.parts = parts_of(settings, self.context.data, self.context.disk)

    async def drain(self) -> None:
        pass  # it answers to the last: others look at the drain through it

    async def stop(self) -> None:
        await self.server.stop()

    def reasons(self) -> list[str]:
        return []

    def detail(self) -> dict[str, Any]:
        return {}


def parts_of(settings: Settings, data: str, disk: Disk) -> Parts:
    """What should be there, without secrets but the one that pages carry anyway."""
    return Parts(
        roles=[
            *(f"collect-{n}" for n in range(settings.collect.workers)),
            *(f"process-{n}" for n in range(settings.process.workers)),
            *(f"deliver-{name}" for name in settings.destinations),
            *(["member-0", "lane-0"] if settings.cluster is not None else []),
        ],
        destinations=list(settings.destinations),
        keys=[
            {
                "id": key.id,
                "kind": "browser" if key.browser else "server",
                "origins": key.origins,
                "ack": key.ack,
                "ack_destination": key.ack_destination or None,
                "secret_file": key.secret_file or None,
                **rotation_of(key, data, disk),
            }
            for key in named_destinations(settings)
        ],
        demo_key=browser_secret(settings, data),
    )


def rotation_of(key: KeySettings, data: str, disk: Disk) -> dict[str, Any]:
    """How many secrets of a key are valid, and until when the old one is (RFC 3339; null where nobody ends it)."""
    try:
        secrets = len(secrets_of(key, secret_reader(data)))
    except HeadwaterError:  # the door goes on with those that it had
        return {"secrets": None, "old_secret_until": None}
    until_ns = rotation.until(disk, data, key.id) if secrets > 1 and key.secret_file else None
    until = datetime.datetime.fromtimestamp(until_ns // 10**9, datetime.UTC) if until_ns is not None else None
    return {"secrets": secrets, "old_secret_until": until and f"{until:%Y-%m-%dT%H:%M:%SZ}"}


def browser_secret(settings: Settings, data: str) -> str:
    """The secret of the first browser key; empty where there is none that can be read."""
    for key in settings.keys:
        if key.browser:
            try:
                return next(iter(secrets_of(key, secret_reader(data))), "")
            except (OSError, HeadwaterError):
                return ""
    return ""
