"""What a membership wants done, as data, in the order in which it is to be done. The member process does it.

``Keep`` comes before whatever rests on it: it is durable before the next action is begun.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from headwater.cluster.history import Activity
from headwater.cluster.messages import Message
from headwater.cluster.table import NodeRecord, Table, View


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a node knows after a restart (``state/table``); with it, it finds the others while the store is away."""

    incarnation: int
    table: Table
    records: dict[str, NodeRecord]


@dataclass(frozen=True, slots=True)
class Send:
    """To all of these that can be reached; the others miss it, and nobody waits for them. To this node's own id: to the
    other process that says it is this node."""

    to: tuple[str, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class Keep:
    """Write it to disk."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class Show:
    """Write ``run/view``."""

    view: View


@dataclass(frozen=True, slots=True)
class Publish:
    """Put this node's record into the store, and keep it there."""

    record: NodeRecord


@dataclass(frozen=True, slots=True)
class AskLease:
    """Get or renew the lease, and tell ``lease``. ``instead_of``: this holder is dead, as more than half of the members
    find; take the lease from it where the store can. Else it runs out by itself."""

    instead_of: str = ""


@dataclass(frozen=True, slots=True)
class DropLease:
    """Give the lease back."""


@dataclass(frozen=True, slots=True)
class PutTable:
    """Put it into the store."""

    table: Table


@dataclass(frozen=True, slots=True)
class Stop:
    """Another process is this node now: end this one."""

    reason: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Something for the log and for status."""

    activity: Activity


Action = Send | Keep | Show | Publish | AskLease | DropLease | PutTable | Stop | Happened
