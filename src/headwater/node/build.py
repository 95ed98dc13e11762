"""The composition root: what runs in each process of a node.

A role is *built* from its context, *connected* (context.py: settings, control page, clock, disk), then *started*,
*drained* and *stopped* by role.py. Each role's module in roles/ wires the stage that it runs, and nothing else: what
happens to events is in the stages. A role's module is imported in its own process only.

============  ==========================  ====================================================
role          module                      from → to
============  ==========================  ====================================================
``collect``   roles/collect.py            requests → raw
``process``   roles/process.py            raw → ready
``deliver``   roles/deliver.py            ready → one destination; SQL
``ops``       roles/ops.py                reports → health, metrics, status, API, demo page
``upkeep``    roles/upkeep.py             raw → raw, compressed
``member``    roles/member.py             other nodes → the table, ``run/view``
``lane``      roles/lane.py               raw → other nodes; their raw → mirrors
============  ==========================  ====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from headwater.node.context import Context, connect
from headwater.node.settings import Settings

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


def collect(context: Context) -> Role:
    """The door: one worker, its log, the listener."""
    from headwater.node.roles.collect import CollectRole

    return CollectRole(context)


def process(context: Context) -> Role:
    """One processor."""
    from headwater.node.roles.process import ProcessRole

    return ProcessRole(context)


def deliver(context: Context) -> Role:
    """One destination: its file or connection, its thread, its socket."""
    from headwater.node.roles.deliver import DeliverRole

    return DeliverRole(context)


def ops(context: Context) -> Role:
    """Health, metrics, API, demo: on TCP with its guards, and on a unix socket for commands."""
    from headwater.node.roles.ops import OpsRole

    return OpsRole(context)


def upkeep(context: Context) -> Role:
    """Compression of raw segments, at the lowest priority."""
    from headwater.node.roles.upkeep import UpkeepRole

    return UpkeepRole(context)


def member(context: Context) -> Role:
    """This node's part in the cluster: heartbeats, the table, the store."""
    from headwater.node.roles.member import MemberRole

    return MemberRole(context)


def lane(context: Context) -> Role:
    """Events between nodes; only in a cluster."""
    from headwater.node.roles.lane import LaneRole

    return LaneRole(context)


ROLES: Mapping[str, Callable[[Context], Role]] = {
    "collect": collect,
    "process": process,
    "deliver": deliver,
    "ops": ops,
    "upkeep": upkeep,
    "member": member,
    "lane": lane,
}
