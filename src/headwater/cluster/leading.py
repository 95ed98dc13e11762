"""What a leader decides: who goes, who comes in, and the table that says so. Functions of what it knows, no state.

A leader is whoever holds the lease; that alone lets it do nothing. It needs the lease renewed within its time to live
by its own clock, *and* to see more than half of the last table's members: so a lease that a store gave twice, or that
one side of a cut network still holds, changes nothing for the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import msgspec

from headwater.cluster.assign import Shares, assign, fresh, paced
from headwater.cluster.messages import Heartbeat
from headwater.cluster.table import FORGOTTEN_MAX, Member, NodeRecord, Table

MOVES_SHARE = 8
"""So many-th part of the partitions may move in one table (H6)."""
Pair = tuple[str, str]
"""The first misses the second."""


def enough(seen: int, of: int, *, half: bool) -> bool:
    """More than half; with ``half``, exactly half is enough (the lease decides)."""
    return 2 * seen > of or (half and 2 * seen == of)


def static_lease(me: str, heard: Iterable[str], configured: int) -> bool:
    """The lease where there is no store, only a list of ``configured`` nodes, this one included: the least node id of
    those that I hear, if we are more than half of that list."""
    we = {me, *heard}
    return me == min(we) and enough(len(we), configured, half=False)


def pairs_apart(table: Table, said: Mapping[str, Heartbeat], me: str, missed: Set[str]) -> set[Pair]:
    """Which member misses which, by what members that have this table said last, and by what I miss."""
    pairs = {(me, other) for other in missed if me in table.members}
    for node, beat in said.items():
        if node in table.members and beat.table == table.order:
            pairs |= {(node, other) for other in beat.misses if other in table.members and other != node}
    return pairs


def loser(pair: Pair, pairs: Set[Pair], table: Table) -> str:
    """Of two members with a link that is cut in one direction or both: the one that fewer members hear; of equals the
    one that came later."""

    def heard_by(node: str) -> int:
        return len(table.members) - sum(other == node for _, other in pairs)

    return min(pair, key=lambda node: (heard_by(node), -table.members[node].incarnation, node))


def next_members(
    table: Table, gone: Set[str], joining: Mapping[str, NodeRecord], said: Mapping[str, NodeRecord]
) -> dict[str, Member]:
    """Who is a member from now on, and as what: what a member says of itself counts, once it has its place."""
    members = {node: member for node, member in table.members.items() if node not in gone}
    for node, record in joining.items():
        members[node] = Member(incarnation=record.incarnation, zone=record.zone, weight=record.weight)
    for node, member in members.items():
        record_said = said.get(node)
        if record_said is not None and record_said.incarnation == member.incarnation:
            members[node] = as_said(member, record_said)
    return members


def as_said(member: Member, record: NodeRecord) -> Member:
    """A joining node is not told apart from an active one: it is told that it is a member by the table."""
    return Member(
        incarnation=member.incarnation,
        zone=record.zone,
        weight=record.weight,
        state="draining" if record.state == "draining" else "active",
    )


def next_shares(
    table: Table, members: Mapping[str, Member], ready: Mapping[str, Set[int]], partitions: int
) -> tuple[Shares, bool]:
    """Who owns what from now on, and whether that is what it shall be in the end."""
    former = Shares(table.owner, table.standby) if table.owner else fresh(partitions)
    ideal = assign(former, members)
    shares = paced(former, ideal, members, ready, max(1, partitions // MOVES_SHARE))
    return shares, shares.owner == ideal.owner


def next_forgotten(table: Table, wanted: Set[str], members: Mapping[str, Member]) -> list[str]:
    """Who is gone for good from now on; whoever comes back is not. No more than a table may hold: the last are left
    out."""
    return sorted({*table.forgotten, *wanted} - members.keys())[:FORGOTTEN_MAX]


def next_table(
    table: Table,
    members: Mapping[str, Member],
    shares: Shares,
    me: NodeRecord,
    *,
    epoch: int,
    version: int,
    forgotten: list[str],
) -> Table:
    """The table that replaces ``table``. ``epoch`` is the greatest that anybody is known to have."""
    return msgspec.structs.replace(
        table,
        epoch=epoch + 1,
        leader=me.node,
        leader_incarnation=me.incarnation,
        cluster_id=table.cluster_id or me.node,
        members=dict(sorted(members.items())),
        owner=shares.owner,
        standby=shares.standby,
        enabled_version=max(table.enabled_version, version),
        forgotten=forgotten,
    )


def common_version(members: Mapping[str, Member], said: Mapping[str, NodeRecord]) -> int:
    """The greatest version that all members are known to speak; 0 where one was not heard."""
    versions = [said[node].protocol if node in said else 0 for node in members]
    return min(versions, default=0)
