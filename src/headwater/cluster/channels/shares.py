"""What the consumers of a topic write into the coordination store, and what their leader makes of it. Pure.

Two values, both JSON: a *record* per consumer, and the *table*, which is what producers need: who owns which share of
the slots, and where each consumer listens. Slots fall into ``SHARES`` shares (slot mod shares). Whatever is decoded
here was written by somebody else and is checked field by field; Rejected names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from headwater.cluster import assign
from headwater.cluster.channels.topic import Directory
from headwater.cluster.stores.port import NAME
from headwater.cluster.table import MEMBERS_MAX, PARTITIONS_MAX, U64_MAX, WEIGHT_MAX, Member, short, within
from headwater.kit.errors import Rejected
from headwater.peer import address

SHARES = 256
"""Shares of a new topic: fine enough for 64 consumers, and a table of a few KiB."""

NOBODY = -1
T = TypeVar("T")


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a consumer introduces itself."""

    node: str
    incarnation: int
    address: str
    weight: int = 1
    """Its share of the slots against those of others."""
    zone: str = ""
    state: Literal["active", "draining"] = "active"
    epoch: int = 0
    """The newest table that it has seen; a leader goes above all of them, whatever the store has forgotten."""
    protocol: int = 1

    def __post_init__(self) -> None:
        name_of("node", self.node)
        within("incarnation", self.incarnation, 0, U64_MAX)
        within("weight", self.weight, 1, WEIGHT_MAX)
        within("epoch", self.epoch, 0, U64_MAX)
        short("zone", self.zone)
        place_of("address", self.address)


class TopicTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who owns what. ``owner[share]`` is a place in the sorted names of ``nodes``, or NOBODY."""

    epoch: int
    leader: str
    nodes: dict[str, str]
    """Consumer → address."""
    owner: list[int]

    def __post_init__(self) -> None:
        within("epoch", self.epoch, 1, U64_MAX)
        within("count of owners", len(self.owner), 1, PARTITIONS_MAX)
        within("count of nodes", len(self.nodes), 0, MEMBERS_MAX)
        for node, place in self.nodes.items():
            name_of("nodes", node)
            place_of(f"address of {node}", place)
        for owner in set(self.owner):
            within("owner", owner, NOBODY, len(self.nodes) - 1)

    def owners(self) -> list[str]:
        """Node per share; empty: nobody."""
        names = [*sorted(self.nodes), ""]
        return [names[owner] for owner in self.owner]

    def directory(self) -> Directory:
        """As channels use it."""
        return Directory(self.epoch, tuple(self.owners()), dict(self.nodes))


def encode(value: Record | TopicTable) -> bytes:
    """The bytes for the store; the same value gives the same bytes."""
    return msgspec.json.encode(value, order="deterministic")


def decode(data: bytes, kind: type[T]) -> T:
    """A Record or TopicTable of bytes that somebody else wrote. Rejected: which field is wrong, and how."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"not a {kind.__name__}: {error}", code="bad_channel_entry") from error


def next_table(
    newest: TopicTable | None, records: Mapping[str, Record], leader: str, first_epoch: int
) -> TopicTable | None:
    """What a leader writes now; None: nothing is to be changed.

    Consumers keep what they own up to their quota (H5). ``first_epoch`` [the time in ms] is for a store that knows
    no table: it is above all that a store which forgot everything had once.
    """
    active = {node: record for node, record in records.items() if record.state == "active"}
    members = {
        node: Member(incarnation=record.incarnation, zone=record.zone, weight=record.weight)
        for node, record in active.items()
    }
    former = newest.owners() if newest is not None else [""] * SHARES
    owner = assign.assign(assign.Shares(former, [""] * len(former)), members).owner
    nodes = {node: record.address for node, record in active.items()}
    known = max([newest.epoch if newest is not None else 0, *(record.epoch for record in records.values())])
    if newest is not None and newest.epoch == known and (newest.nodes, former) == (nodes, owner):
        return None
    places = {node: place for place, node in enumerate(sorted(nodes))}
    return TopicTable(
        epoch=max(known + 1, first_epoch if newest is None else 0),
        leader=leader,
        nodes=nodes,
        owner=[places.get(node, NOBODY) for node in owner],
    )


def name_of(field: str, text: str) -> None:
    """A name that every store's keys hold."""
    if not NAME.fullmatch(text):
        raise ValueError(f"{field}: expected 1 to 64 letters, digits, `_`, `.`, `-`, got {text[:80]!r}")


def place_of(field: str, text: str) -> None:
    """An address that others can dial."""
    short(field, text)
    try:
        address.dialled(text)
    except Exception as error:
        raise ValueError(f"{field}: {error}") from error
