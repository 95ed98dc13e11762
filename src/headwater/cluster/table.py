"""The table: who is a member, and who owns which partition; and what one node makes of it (its *view*).

A table is decided by a leader, whole, and never changed. Tables are totally ordered by (epoch, incarnation of the
leader, leader), and two with one place in that order are equal (INV-CLU-1): so nodes that hand each other what they
have end with the same one, whoever spoke to whom. Whatever is decoded here was written by somebody else and is checked
field by field: Rejected names the field. On disk and wire: msgpack maps with the names of the fields. Unknown fields
are refused: who passes a table on must not lose any of it, so a leader uses new ones only when ``enabled_version`` has
them, which all members then do.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from headwater.kit.errors import Rejected

T = TypeVar("T")

PARTITIONS_MAX = 4096
MEMBERS_MAX = 4096
FORGOTTEN_MAX = 4096
FORGETTING = 2
"""The version that knows of forgotten nodes."""
WEIGHT_MAX = 100
U64_MAX = (1 << 64) - 1

Order = tuple[int, int, str]
"""Epoch, incarnation of the leader, leader: tables are ordered by it."""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A node as the table knows it. One that drains is still a member, and owns nothing."""

    incarnation: int
    zone: str = ""
    weight: int = 1
    """Its share of the partitions against those of others; 0 owns nothing."""
    state: Literal["active", "draining"] = "active"

    def __post_init__(self) -> None:
        within("incarnation", self.incarnation, 0, U64_MAX)
        within("weight", self.weight, 0, WEIGHT_MAX)
        short("zone", self.zone)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What one leader decided. ``owner[p]`` and ``standby[p]`` are node ids, or "" where there is nobody."""

    epoch: int
    leader: str
    leader_incarnation: int
    cluster_id: str
    members: dict[str, Member]
    owner: list[str]
    standby: list[str]
    enabled_version: int = 1
    """Formats and features up to this version may be used: all members have them."""
    topics: dict[str, Any] = {}
    """Public topics and who owns their slots."""
    forgotten: list[str] = []
    """Nodes that are gone for good, as an operator said: nobody waits for what only they have (since version 2)."""

    @property
    def order(self) -> Order:
        return (self.epoch, self.leader_incarnation, self.leader)

    def owned_by(self, node: str) -> list[int]:
        """The partitions of a node, rising."""
        return [partition for partition, owner in enumerate(self.owner) if owner == node]

    def standby_of(self, node: str) -> list[int]:
        """The partitions whose standby a node is, rising."""
        return [partition for partition, standby in enumerate(self.standby) if standby == node]

    def __post_init__(self) -> None:
        within("epoch", self.epoch, 0, U64_MAX)
        within("leader_incarnation", self.leader_incarnation, 0, U64_MAX)
        within("enabled_version", self.enabled_version, 0, 1 << 32)
        if not self.epoch:
            return check_none(self)
        node_id("leader", self.leader)
        node_id("cluster_id", self.cluster_id)
        within("count of members", len(self.members), 1, MEMBERS_MAX)
        within("count of forgotten", len(self.forgotten), 0, FORGOTTEN_MAX)
        for node in self.forgotten:
            node_id("forgotten", node)
        for node in self.members:
            node_id("members", node)
        check_owners(self)


class NodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a node introduces itself to others, in heartbeats and in the store."""

    node: str
    name: str
    incarnation: int
    member_address: str
    lane_address: str = ""
    ops_address: str = ""
    collect_address: str = ""
    zone: str = ""
    weight: int = 1
    state: Literal["joining", "active", "draining", "suspect"] = "joining"
    protocol: int = 1
    started_ms: int = 0

    def __post_init__(self) -> None:
        node_id("node", self.node)
        within("incarnation", self.incarnation, 0, U64_MAX)
        within("weight", self.weight, 0, WEIGHT_MAX)
        within("protocol", self.protocol, 0, 1 << 32)
        within("started_ms", self.started_ms, 0, U64_MAX)
        for name in ("name", "zone", "member_address", "lane_address", "ops_address", "collect_address"):
            short(name, getattr(self, name))


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cluster as one node sees it, for its processes. Not ``viable``: they begin nothing new (INV-OWN-2)."""

    me: str
    cluster_id: str
    viable: bool
    why: str
    """Why it is not viable; "" where it is."""
    table: Table
    alive: dict[str, NodeRecord]
    """Whom this node hears, itself included."""


def encode(value: Table | NodeRecord | View) -> bytes:
    """The bytes for disk and wire; the same value gives the same bytes."""
    return msgspec.msgpack.encode(value, order="deterministic")


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """A Table, NodeRecord or View of bytes that somebody else wrote. Rejected: which field is wrong, and how."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        what = kind.__name__.lower()
        raise Rejected(
            f"not a {what}: {error}",
            code=f"bad_{what}",
            help="written by another version of Headwater, or spoilt on its way",
        ) from error


def greater(one: Table, other: Table) -> bool:
    """Whether ``one`` replaces ``other`` (INV-CLU-1)."""
    return one.order > other.order


def within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}, got {value}")


def short(name: str, text: str) -> None:
    if len(text) > 255:
        raise ValueError(f"{name}: expected at most 255 characters, got {len(text)}")


def node_id(name: str, text: str) -> None:
    """16 lower-case hex digits of which the last four are zero."""
    if len(text) != 16 or not text.endswith("0000") or text.strip("0123456789abcdef"):
        raise ValueError(f"{name}: expected 16 hex digits that end in 0000, got {text[:40]!r}")


def check_none(table: Table) -> None:
    for name in ("leader", "cluster_id", "members", "owner", "standby", "forgotten"):
        if getattr(table, name):
            raise ValueError(f"{name}: expected none in epoch 0")


def check_owners(table: Table) -> None:
    """Owners and standbys are members, and never the same for one partition."""
    partitions = len(table.owner)
    if not 1 <= partitions <= PARTITIONS_MAX or partitions & (partitions - 1):
        raise ValueError(
            f"owner: expected a power of two of partitions up to {PARTITIONS_MAX}, got {partitions}"
        )
    if len(table.standby) != partitions:
        raise ValueError(f"standby: expected {partitions} partitions as owner has, got {len(table.standby)}")
    for name, nodes in (("owner", table.owner), ("standby", table.standby)):
        for stranger in set(nodes) - table.members.keys() - {""}:
            raise ValueError(f"{name}: {stranger[:40]!r} of partition {nodes.index(stranger)} is no member")
    for partition, (owner, standby) in enumerate(zip(table.owner, table.standby, strict=True)):
        if owner == standby != "":
            raise ValueError(f"standby: partition {partition} has {owner} as owner and standby")


NO_TABLE = Table(
    epoch=0,
    leader="",
    leader_incarnation=0,
    cluster_id="",
    members={},
    owner=[],
    standby=[],
    enabled_version=0,
)
"""Below every other: nobody decided anything yet."""
