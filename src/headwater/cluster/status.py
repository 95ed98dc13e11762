"""What a node tells of the cluster: the page behind ``headwater cluster status``, out of its membership. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headwater.cluster.membership import Membership
from headwater.cluster.table import NodeRecord
from headwater.config.control import HELD_JOINING, HELD_NO_MAJORITY, HELD_TOO_FEW, NOT_HELD, Held


def held(core: Membership, now_ns: int) -> Held:
    """Why this node should take no events, as the control page says it."""
    if not core.why_not_viable(now_ns):
        return NOT_HELD
    heard, least = len(core.hearing.fresh(now_ns)) + 1, core.rules.minimum_nodes
    if heard < least:
        return Held(HELD_TOO_FEW, heard, least)
    if not core.admitted():
        return Held(HELD_JOINING)
    members = core.table.members.keys()
    seen = len([node for node in core.hearing.fresh(now_ns) if node in members]) + 1
    return Held(HELD_NO_MAJORITY, seen, len(members) // 2 + 1)


def page(
    core: Membership,
    cluster: str,
    acquainted: Mapping[str, NodeRecord],
    trouble: Mapping[str, str],
    waits_for: Iterable[str],
    now_ns: int,
    wall_ns: int,
    ahead: Mapping[str, float],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Everything. ``acquainted``: records of nodes that were here once; ``trouble``: address → why nobody is reached
    there; ``waits_for``: what else hinders it; ``ahead``: of whose clocks it is known, how many seconds they are ahead;
    ``warnings``: what hinders nothing, and should be known. Times of the page are wall times, told from how long ago
    things were."""
    why = core.why_not_viable(now_ns)
    table, me = core.table, core.me
    records = known(core, now_ns)
    once = {**acquainted, **records}
    return {
        "cluster": cluster,
        "cluster_id": table.cluster_id,
        "node": me.node,
        "name": me.name,
        "incarnation": me.incarnation,
        "state": me.state,
        "viable": not why,
        "why": why,
        "waits_for": [*([why] if why else []), *waits_for, *unreached(core, trouble, now_ns)],
        "warnings": list(warnings),
        "epoch": table.epoch,
        "leader": table.leader,
        "leads": core.leads(now_ns),
        "partitions": len(table.owner),
        "nodes": [
            {**node_row(core, record, now_ns), "clock_ahead_s": rounded(ahead.get(node))}
            for node, record in sorted(records.items(), key=by_name)
        ],
        "activity": [
            {
                "date": date_text(wall_ns - (now_ns - one.at_ns)),
                "event": one.event,
                "id": one.node,
                "name": once[one.node].name if one.node in once else "",
                "address": once[one.node].member_address if one.node in once else "",
                "incarnation": one.incarnation,
                "epoch": one.epoch,
                **({"reason": one.reason} if one.reason else {}),
            }
            for one in core.history.entries
        ],
    }


def rounded(seconds: float | None) -> float | None:
    """To tenths; None where it is not known."""
    return None if seconds is None else round(seconds, 1)


def by_name(entry: tuple[str, NodeRecord]) -> tuple[str, str]:
    """The order of nodes on the page."""
    return entry[1].name, entry[0]


def known(core: Membership, now_ns: int) -> dict[str, NodeRecord]:
    """Members, those that are heard, and this node; of a member whose record is not known there is a bare one."""
    said = {node: beat.record for node, beat in core.hearing.fresh(now_ns).items()}
    found = {
        node: said.get(node) or core.records.get(node) or bare(node, member.incarnation)
        for node, member in core.table.members.items()
    }
    return {**found, **said, core.me.node: core.me}


def bare(node: str, incarnation: int) -> NodeRecord:
    """A member of which only the table tells."""
    return NodeRecord(node=node, name=node, incarnation=incarnation, member_address="")


def node_row(core: Membership, record: NodeRecord, now_ns: int) -> dict[str, Any]:
    """One node."""
    node, table = record.node, core.table
    mine = node == core.me.node
    alive = mine or core.hearing.hears(node, now_ns)
    heard = core.hearing.heard.get(node)
    member = table.members.get(node)
    return {
        "id": node,
        "name": record.name,
        "member": member is not None and member.incarnation == record.incarnation,
        "alive": alive,
        "state": state_of(core, record, now_ns),
        "incarnation": record.incarnation,
        "zone": record.zone,
        "weight": record.weight,
        "partitions": len(table.owned_by(node)),
        "standby": len(table.standby_of(node)),
        "address": record.member_address,
        "lane_address": record.lane_address,
        "ops_address": record.ops_address,
        "collect_address": record.collect_address,
        "protocol": record.protocol,
        "started": date_text(record.started_ms * 1_000_000),
        "heard_s": None if heard is None else round((now_ns - heard.last_ns) / 1e9, 1),
    }


def state_of(core: Membership, record: NodeRecord, now_ns: int) -> str:
    """How this node finds it: what it says of itself while it is heard, else suspect, then gone."""
    node = record.node
    if node == core.me.node:
        return record.state
    if not core.hearing.hears(node, now_ns):
        return "gone"
    if core.hearing.suspects(node, now_ns):
        return "suspect"
    member = core.table.members.get(node)
    return "joining" if member is None or member.incarnation != record.incarnation else member.state


def unreached(core: Membership, trouble: Mapping[str, str], now_ns: int) -> list[str]:
    """Addresses where a node should answer and none does; what is refused is told even where the node is heard."""
    heard = {beat.record.member_address for beat in core.hearing.fresh(now_ns).values()}
    return [
        reason if address in reason else f"{address}: {reason}"
        for address, reason in sorted(trouble.items())
        if address not in heard
    ]


def date_text(wall_ns: int) -> str:
    """A moment, UTC."""
    at = datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
