"""What all nodes of a cluster say, put together so that one ledger can be made of it (docs/decisions/0007-cluster.md).

Each partition is spoken for by its owner in the newest table, and by nobody else: a report of partitions that have
moved meanwhile is left out, so that nothing counts twice; what it would have said is then "pending" for a moment. Each
node speaks for its own raw log. Nodes that do not answer are named: what only they know is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headwater.config.report import Report
from headwater.event.position import Position, WriterId
from headwater.log.cut import home_of
from headwater.ops.accepted import Accepted
from headwater.ops.standing import Processed

REPORTS, ACCEPTED, COPIES = "reports", "accepted", "copies"


@dataclass(frozen=True, slots=True)
class Answers:
    """What the other nodes answered."""

    parts: Mapping[str, Any] = field(default_factory=dict)
    """Node id → its part."""
    silent: Sequence[str] = ()
    """Names of members that did not answer."""


Everywhere = Callable[[str], Answers]
"""Asks all other nodes for a part: ``reports`` or ``accepted``."""
Owners = Callable[[], Mapping[str, frozenset[int]]]
"""Node id → the partitions that it owns in the newest table."""


def reports_as_told(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """A node's reports of where events stand, as they travel."""
    wanted = ("process-", "deliver-")
    return [msgspec.to_builtins(one) for role, one in reports.items() if role.startswith(wanted)]


def accepted_as_told(accepted: Accepted) -> dict[str, Any]:
    """What a node's raw log holds, as it travels."""
    return {"streams": accepted.streams, "ends": {f"{w:016x}": list(at) for w, at in accepted.ends.items()}}


def joined_reports(
    me: str, own: Mapping[str, Report], others: Mapping[str, Any], owners: Mapping[str, frozenset[int]]
) -> dict[str, Report]:
    """The reports of all nodes, each role under ``<node>/<role>``."""
    told = {me: dict(own)}
    for node, reports in others.items():
        found = [msgspec.convert(one, Report) for one in reports]
        told[node] = {report.role: report for report in found}
    return {
        f"{node}/{role}": report
        for node, reports in told.items()
        for role, report in reports.items()
        if partitions_of(report) <= owners.get(node, frozenset())
    }


def partitions_of(report: Report) -> frozenset[int]:
    """The partitions that a processor or a deliverer speaks of."""
    groups = [group["partitions"] for group in report.detail.get("vectors", [])]
    for told in report.detail.get("destinations", {}).values():
        groups += told.get("vectors", {}).values()
    return frozenset(int(p) for group in groups for p in group)


def homes_away(processed: Processed, accepted: Accepted) -> set[str]:
    """The nodes of which events were processed, and nobody can say now how many they accepted."""
    known = {home_of(writer) for writer in accepted.ends}
    homes = {home_of(writer) for vector in set(processed.vectors.values()) for writer in vector}
    return {f"node {home:016x}" for home in homes - known}


def joined_accepted(own: Accepted, others: Mapping[str, Any]) -> Accepted:
    """What all raw logs hold."""
    streams, ends = dict(own.streams), dict(own.ends)
    for told in others.values():
        for stream, count in told["streams"].items():
            streams[stream] = streams.get(stream, 0) + count
        ends |= {WriterId(int(writer, 16)): Position(*at) for writer, at in told["ends"].items()}
    return Accepted(streams, ends)
