"""What all nodes of a cluster say, put together so that one ledger can be made of it (docs/decisions/0007-cluster.md).

Each partition is spoken for by its owner in the newest table, and by nobody else: a report of partitions that have
moved meanwhile is left out, so that nothing counts twice; what it would have said is then "pending" for a moment. Each
node speaks for its own raw log. Nodes that do not answer are named: what only they know is missing.

Dead letters lie with the node that was the owner when the event was processed; where a partition has moved since, two
may have one, and it is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from headwater.config.report import Report
from headwater.event.position import Position, WriterId
from headwater.kit.errors import HeadwaterError
from headwater.log.cut import home_of
from headwater.ops.accepted import Accepted
from headwater.ops.standing import Processed

REPORTS, ACCEPTED, LAG, COPIES = "reports", "accepted", "lag", "copies"
LETTER = ("destination", "writer", "log", "seq", "row")
"""What tells one dead letter from another."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the other nodes answered."""

    parts: Mapping[str, Any] = field(default_factory=dict)
    """Node id → its part."""
    silent: Sequence[str] = ()
    """Names of members that did not answer."""
    refused: Mapping[str, HeadwaterError] = field(default_factory=dict)
    """Node id → the error that it answered."""


class OtherNodes(Protocol):
    """The other nodes of the cluster; each question waits for its answer (node/nodes.py)."""

    me: str

    def others(self) -> Mapping[str, str]:
        """Node id → name."""
        ...

    def name(self, node: str) -> str:
        """``node <name>``."""
        ...

    def forgotten(self) -> frozenset[str]:
        """The ids of nodes that are gone for good, as an operator said."""
        ...

    def ask(
        self, node: str, socket: str, request: Mapping[str, Any], wait_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """One question to a process of one node. Unavailable: nobody answers; its errors are raised here."""
        ...

    def ask_all(self, socket: str, request: Mapping[str, Any], wait_s: float) -> Answers:
        """One question to a process of every other node."""
        ...


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
    """The ids of nodes of which events were processed, and nobody can say now how many they accepted."""
    known = {home_of(writer) for writer in accepted.ends}
    homes = {home_of(writer) for vector in set(processed.vectors.values()) for writer in vector}
    return {f"{home:016x}" for home in homes - known}


def joined_accepted(own: Accepted, others: Mapping[str, Any]) -> Accepted:
    """What all raw logs hold."""
    streams, ends = dict(own.streams), dict(own.ends)
    for told in others.values():
        for stream, count in told["streams"].items():
            streams[stream] = streams.get(stream, 0) + count
        ends |= {WriterId(int(writer, 16)): Position(*at) for writer, at in told["ends"].items()}
    return Accepted(streams, ends)


def home_text(writer: int) -> str:
    """The id of the node that a writer belongs to."""
    return f"{home_of(writer):016x}"


def joined_letters(told: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The dead letters of all nodes, by the node's id: each once, with the ``node`` that holds it. Of one that several
    have, the first node by id holds it, whoever is asked; that it was retried counts wherever it is known."""
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for node in sorted(told):
        for letter in told[node]:
            known = found.setdefault(key_of(letter), {**letter, "node": node})
            if "retried_at" in letter and not known.get("retried_as"):
                known |= {name: letter[name] for name in ("retried_at", "retried_as")}
    return list(found.values())


def key_of(letter: Mapping[str, Any]) -> tuple[object, ...]:
    """The same of two letters that are one."""
    return tuple(letter.get(name) for name in LETTER)


def newest(letters: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """As ``dead list`` has them."""
    return sorted(letters, key=lambda one: (one["log"], one["seq"]), reverse=True)[:limit]


def said_together(
    own: Mapping[str, Any] | HeadwaterError, answers: Answers, me: str, names: Mapping[str, str]
) -> dict[str, Any]:
    """What an operator's decision came to at every node: the first answer, with ``nodes``: name → what it said, and who
    is ``silent``. Raises this node's own error, or the first one, where nobody carried it out."""
    said: dict[str, Mapping[str, Any]] = {}
    wrong: dict[str, HeadwaterError] = dict(answers.refused)
    if isinstance(own, HeadwaterError):
        wrong = {me: own, **wrong}
    else:
        said[me] = own
    said |= answers.parts
    if not said:
        raise next(iter(wrong.values()))
    told = {names.get(node, node): dict(one) for node, one in said.items()}
    told |= {
        names.get(node, node): {"error": str(error), "code": error.code} for node, error in wrong.items()
    }
    return {**next(iter(said.values())), "nodes": told, "silent": list(answers.silent)}
