"""What members say to each other, and how it is checked. msgpack maps with a tag; bodies of peer frames.

A joining node needs no message of its own: a heartbeat of a node that the table does not name is its request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from headwater.cluster.table import (
    MEMBERS_MAX,
    PARTITIONS_MAX,
    U64_MAX,
    NodeRecord,
    Order,
    Table,
    node_id,
    short,
    within,
)
from headwater.kit.errors import Rejected


class Heartbeat(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag="heartbeat"
):
    """I live; each H to everybody. ``misses`` rather than whom I hear: with 1,000 members that is short, too.

    Unknown fields are refused, so a field that a later protocol brings stays at its default, which is not sent, for
    whoever speaks an older one."""

    record: NodeRecord
    table: Order
    """Which table I have."""
    misses: list[str] = []
    """Members of that table whom I have not heard for 3H."""
    leads: bool = False
    """I hold the lease, and may act on it."""
    ready: bytes = b""
    """Bit p: I am the standby of partition p, and have its state."""
    wall_ms: int = 0
    """What my wall clock shows, since protocol 2; 0: not said (cluster/clocks.py)."""

    def __post_init__(self) -> None:
        check_order(self.table)
        within("bytes of ready", len(self.ready), 0, PARTITIONS_MAX // 8)
        within("count of misses", len(self.misses), 0, MEMBERS_MAX)
        within("wall_ms", self.wall_ms, 0, U64_MAX)
        for node in self.misses:
            node_id("misses", node)


class WantTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="want-table"):
    """Give me yours if it is greater than this one."""

    than: Order

    def __post_init__(self) -> None:
        check_order(self.than)


class NewTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="table"):
    """A table, from its leader or from whoever has it."""

    table: Table
    why: dict[str, str] = {}
    """Node id → why it is no longer in it, where the sender knows."""

    def __post_init__(self) -> None:
        within("count of reasons", len(self.why), 0, MEMBERS_MAX)
        for node, reason in self.why.items():
            node_id("why", node)
            short("why", reason)


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="probe"):
    """Do you hear X?"""

    about: str

    def __post_init__(self) -> None:
        node_id("about", self.about)


class ProbeAck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="probe-ack"):
    """How long I have not heard X, by my own clock; None: never."""

    about: str
    silent_ms: int | None

    def __post_init__(self) -> None:
        node_id("about", self.about)
        within("silent_ms", self.silent_ms or 0, 0, U64_MAX)


class Bye(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="bye"):
    """Somebody goes: the sender itself, or the one who is told, who is not who it says or may not come in."""

    about: str
    incarnation: int
    """left: of the one who goes. Else: the greatest known of ``about``."""
    kind: Literal["left", "superseded", "cloned", "refused"]
    reason: str

    def __post_init__(self) -> None:
        node_id("about", self.about)
        within("incarnation", self.incarnation, 0, U64_MAX)
        short("reason", self.reason)


class Drain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="drain"):
    """An operator wants this node to hand over what it owns (or, with ``stop`` false, to be a full member again)."""

    draining: bool = True


class Evict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="evict"):
    """An operator wants X out; to the leader."""

    about: str
    reason: str

    def __post_init__(self) -> None:
        node_id("about", self.about)
        short("reason", self.reason)


class Forget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="forget"):
    """An operator says that X is gone for good; to the leader, of version 2 or later."""

    about: str

    def __post_init__(self) -> None:
        node_id("about", self.about)


def bits(partitions: Iterable[int]) -> bytes:
    """A set of partitions as it travels."""
    whole = sum(1 << partition for partition in partitions)
    return whole.to_bytes((whole.bit_length() + 7) // 8, "little")


def partitions_in(data: bytes) -> frozenset[int]:
    """From ``bits``."""
    whole = int.from_bytes(data, "little")
    return frozenset(p for p in range(8 * len(data)) if whole >> p & 1)


Message = Heartbeat | WantTable | NewTable | Probe | ProbeAck | Bye | Drain | Evict | Forget

DECODER = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The bytes of a message; it names its own kind."""
    return msgspec.msgpack.encode(message, order="deterministic")


def decode(data: bytes | memoryview) -> Message:
    """Rejected: which field is wrong, and how."""
    try:
        message: Message = DECODER.decode(data)
        return message
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"not a message of a member: {error}", code="bad_member_message") from error


def check_order(order: Order) -> None:
    within("epoch", order[0], 0, U64_MAX)
    within("leader_incarnation", order[1], 0, U64_MAX)
    if order[0]:
        node_id("leader", order[2])
