"""A look at the running node: what the routes answer from. Reads files and shared memory; waits for nobody."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from headwater.config.control import ControlPage
from headwater.config.report import Report, Sample, read_reports
from headwater.config.running import NodeInfo
from headwater.event.position import Receipt
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import HeadwaterError
from headwater.log.block import Secret
from headwater.ops import bodies, everywhere, metrics, ready, reconcile, standing
from headwater.ops import where as journey
from headwater.ops.accepted import Accepted, AcceptedCounter
from headwater.ops.everywhere import ACCEPTED, REPORTS, Answers, Everywhere, OtherNodes, Owners
from headwater.ops.ready import ALIVE_S, Readiness
from headwater.ops.reconcile import Ledger
from headwater.ops.retried import Retried
from headwater.ops.standing import Delivered

LOOK = "look"
"""The socket of ops processes that other nodes may ask (peers.py)."""
ASK_S = 5.0
"""How long another node may take for what it reads from its files."""


class DeadLetters(Protocol):
    """What could not be processed or delivered, as it can be listed."""

    retried: Retried

    def list(self, limit: int, stream: str | None, reason: str | None) -> Sequence[dict[str, Any]]:
        """The newest, without their bodies."""
        ...

    def show(self, wanted: str) -> dict[str, Any] | None:
        """One with its body, by origin (``writer-log-seq``) or message id."""
        ...

    def find(
        self, message_ids: Sequence[str], places: Iterable[tuple[str, str, int]], origins: Sequence[str] = ()
    ) -> Sequence[dict[str, Any]]:
        """All letters with one of these message ids or at one of these places, with their bytes as ``body``."""
        ...

    def page(
        self, wanted: Mapping[str, Any], at: Sequence[Any] | None
    ) -> tuple[Sequence[dict[str, Any]], Sequence[Any] | None]:
        """Some of them with their bytes, and from where to go on; None at the end."""
        ...


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say should be there."""

    roles: Sequence[str]
    destinations: Sequence[str]
    keys: Sequence[dict[str, Any]]
    """Without secrets."""
    demo_key: str = ""
    """The secret of the first browser key; pages carry it anyway."""


class Look:
    """Everything that can be said about the node now. Safe to call from several threads."""

    def __init__(
        self,
        node: NodeInfo,
        data: str,
        disk: Disk,
        clock: Clock,
        control: ControlPage,
        parts: Callable[[], Parts],
        dead: DeadLetters,
        secret: Secret,
        others: Everywhere = lambda part: Answers(),
        owners: Owners | None = None,
        nodes: OtherNodes | None = None,
    ) -> None:
        self.others = others
        self.owners = owners
        """None: this node is alone."""
        self.nodes = nodes if owners is not None else None
        self.node = node
        self.data = data
        self.disk = disk
        self.clock = clock
        self.control = control
        self.parts = parts
        self.dead = dead
        self.secret = secret
        self.counter = AcceptedCounter(disk, f"{data}/raw", secret)
        self.counting = threading.Lock()

    def reports(self) -> Mapping[str, Report]:
        """What the processes say; not the last words of destinations that were taken out of the configuration."""
        told = read_reports(self.disk, f"{self.data}/run/reports", self.control.start)
        here = {f"deliver-{name}" for name in self.parts().destinations}
        return {role: one for role, one in told.items() if not role.startswith("deliver-") or role in here}

    def alive(self) -> bool:
        """Whether the supervisor ticks."""
        return self.clock.boot_ns() - self.control.alive_boot_ns < ALIVE_S * 1e9

    def health(self) -> dict[str, Any]:
        """Of the processes."""
        return ready.health(self.alive(), self.reports(), self.clock.boot_ns())

    def readiness(self) -> Readiness:
        """Whether events are taken."""
        reports = self.reports()
        return ready.readiness(
            draining=self.control.draining,
            now_ns=self.clock.boot_ns(),
            alive_ns=self.control.alive_boot_ns,
            reports=reports,
            expected=self.parts().roles,
            destinations=standing.delivered(reports),
            held=self.control.held.text,
        )

    def ledgers(self, silent: set[str] | None = None) -> list[Ledger]:
        """The conservation ledger, with every destination of the configuration: for one whose process has not said yet
        where it stands, everything is pending. The order of reading is part of it: destinations, processors, logs.
        Adds to ``silent`` the names of nodes that do not answer."""
        silent = set() if silent is None else silent
        destinations = standing.delivered(self.all_reports(silent))
        processed = standing.processed(self.all_reports(silent))
        accepted = self.accepted(silent)
        forgotten: frozenset[str] = frozenset()
        if self.nodes is not None:
            away = frozenset(everywhere.homes_away(processed, accepted))
            forgotten = away & self.nodes.forgotten()
            silent |= {f"node {home}" for home in away - forgotten}
        wanted = {name: destinations.get(name, Delivered(name)) for name in self.parts().destinations}
        return reconcile.without_some(
            reconcile.reconcile(
                accepted, processed, wanted, self.node.partitions if self.owners else 0, sorted(forgotten)
            ),
            sorted(silent),
        )

    def all_reports(self, silent: set[str]) -> Mapping[str, Report]:
        """The reports of every node; adds the names of those that do not answer."""
        if self.owners is None:
            return self.reports()
        answers = self.others(REPORTS)
        silent |= set(answers.silent)
        return everywhere.joined_reports(self.node.folder_id, self.reports(), answers.parts, self.owners())

    def accepted(self, silent: set[str]) -> Accepted:
        """What every node's raw log holds; adds the names of those that do not answer."""
        if self.owners is not None:
            answers = self.others(ACCEPTED)
            silent |= set(answers.silent)
        with self.counting:
            own = self.counter.count()
        return own if self.owners is None else everywhere.joined_accepted(own, answers.parts)

    def where(self, receipt: Receipt) -> dict[str, Any]:
        """How far a request has come; in a cluster as its home and the owners say, with the names of those that do not
        answer under ``silent``."""
        if self.nodes is None:
            reports = self.reports()
            durable = journey.acknowledged(self.disk, f"{self.data}/raw", receipt)
            return journey.where(receipt, durable, standing.processed(reports), standing.delivered(reports))
        silent: set[str] = set()
        durable_there = self.acknowledged(receipt, silent)
        reports = self.all_reports(silent)
        wanted = self.parts().destinations
        delivered = {name: Delivered(name) for name in wanted}
        delivered |= {name: one for name, one in standing.delivered(reports).items() if name in wanted}
        told = journey.where(
            receipt, durable_there, standing.processed(reports), delivered, self.node.partitions
        )
        return {**told, "silent": sorted(silent)}

    def acknowledged(self, receipt: Receipt, silent: set[str]) -> bool | None:
        """Whether its home holds a request; None, and the home's name among the silent, where it does not answer."""
        home = everywhere.home_text(receipt.writer)
        if self.nodes is None or home == self.nodes.me:
            return journey.acknowledged(self.disk, f"{self.data}/raw", receipt)
        try:
            asked = {"op": "acknowledged", "receipt": str(receipt)}
            _, data = self.nodes.ask(home, LOOK, asked, ASK_S)
        except HeadwaterError:
            silent.add(self.nodes.name(home))
            return None
        return bool(msgspec.json.decode(data))

    # -- dead letters, of all nodes; with the names of those that do not answer

    def dead_list(
        self, limit: int, stream: str | None, reason: str | None
    ) -> tuple[Sequence[dict[str, Any]], list[str]]:
        """The newest, without their bodies."""
        own = self.dead.list(limit, stream, reason)
        if self.nodes is None:
            return own, []
        asked = {"op": "letters", "limit": limit, "stream": stream, "reason": reason}
        answers = self.nodes.ask_all(LOOK, asked, ASK_S)
        letters = everywhere.joined_letters({self.nodes.me: own, **answers.parts})
        return self.named(everywhere.newest(letters, limit)), self.unheard(answers)

    def dead_find(
        self, message_ids: Sequence[str], places: Iterable[tuple[str, str, int]], origins: Sequence[str] = ()
    ) -> tuple[Sequence[dict[str, Any]], list[str]]:
        """All with one of these message ids, or at one of these places, with their bodies; in a cluster with the id of
        the ``node`` that holds each."""
        places = list(places)
        own = self.dead.find(message_ids, places, origins)
        if self.nodes is None:
            return own, []
        asked = {"op": "find", "message_ids": list(message_ids), "places": places, "origins": list(origins)}
        answers = self.nodes.ask_all(LOOK, asked, ASK_S)
        told = {node: [with_bytes(one) for one in part] for node, part in answers.parts.items()}
        return everywhere.joined_letters({self.nodes.me: own, **told}), self.unheard(answers)

    def dead_show(self, wanted: str) -> tuple[dict[str, Any] | None, list[str]]:
        """One with its body, by origin or message id."""
        if self.nodes is None:
            return self.dead.show(wanted), []
        letters, silent = self.dead_find([wanted], [], [wanted])
        for letter in self.named(letters[:1]):
            rest = {name: value for name, value in letter.items() if name != "body"}
            return {**rest, **bodies.shown(bytes(letter["body"]))}, silent
        return None, silent

    def dead_page(self, wanted: Mapping[str, Any], node: str | None, at: object) -> dict[str, Any]:
        """Letters of the other nodes in pieces, one node after the other; see app.Routes.dead_page."""
        others = sorted(self.nodes.others()) if self.nodes is not None else []
        if self.nodes is None or (node is None and not others):
            return {"letters": [], "node": None, "at": None, "silent": self.away()}
        node = node or others[0]
        asked = {"op": "page", "wanted": dict(wanted), "at": at}
        told: dict[str, Any] = {"letters": [], "at": None}
        silent = []
        try:
            told = msgspec.json.decode(self.nodes.ask(node, LOOK, asked, ASK_S)[1])
        except HeadwaterError as error:
            silent = [f"{self.nodes.name(node)}: {error}"]
        later = [one for one in others if one > node]
        following = node if told["at"] is not None else later[0] if later else None
        silent += [] if following else self.away()
        return {"letters": told["letters"], "node": following, "at": told["at"], "silent": silent}

    def named(self, letters: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """With the names of the nodes in place of their ids."""
        assert self.nodes is not None
        return [{**one, "node": self.nodes.name(one["node"]).removeprefix("node ")} for one in letters]

    def away(self) -> list[str]:
        """Nodes that have accepted events and are not part of the cluster now, by name: evicted or stopped; not those
        that are forgotten."""
        if self.nodes is None:
            return []
        return [self.nodes.name(home) for home in sorted(self.homes_away() - self.nodes.forgotten())]

    def homes_away(self) -> set[str]:
        """The ids of all nodes that have accepted events, as far as this node has processed them, and are not part of
        the cluster now."""
        if self.nodes is None:
            return set()
        there = {self.nodes.me, *self.nodes.others()}
        vectors = set(standing.processed(self.reports()).vectors.values())
        return {everywhere.home_text(writer) for vector in vectors for writer in vector} - there

    def unheard(self, answers: Answers) -> list[str]:
        """Who did not say what was asked, each with the reason where it gave one."""
        assert self.nodes is not None
        return [
            *answers.silent,
            *self.away(),
            *(f"{self.nodes.name(node)}: {error}" for node, error in answers.refused.items()),
        ]

    # -- this node alone

    def metrics(self) -> str:
        """Prometheus text, of this node alone: in a cluster every node is scraped, and what they say adds up."""
        reports, now_ns = self.reports(), self.clock.boot_ns()
        samples = [
            *metrics.from_reports(reports, now_ns),
            *metrics.from_compressed(standing.compressed(reports)),
            *metrics.from_destinations(standing.delivered(reports)),
            *(metrics.from_ledgers(self.ledgers()) if self.nodes is None else self.own_part(reports)),
            *metrics.from_unmapped(standing.unmapped(reports)),
            Sample("headwater_ready", {}, float(self.readiness().ready)),
        ]
        return metrics.render(samples)

    def own_part(self, reports: Mapping[str, Report]) -> Iterable[Sample]:
        """What this node accepted, and what became of the events of its partitions, whoever accepted them."""
        with self.counting:
            accepted = self.counter.count()
        destinations = standing.delivered(reports)
        wanted = {name: one for name, one in destinations.items() if name in self.parts().destinations}
        yield from metrics.from_part(accepted.streams, standing.processed(reports).streams, wanted)
        lane = reports.get("lane-0")
        yield from metrics.from_lag(lane.detail.get("lag", []) if lane is not None else [])
        member = reports.get("member-0")
        yield from metrics.from_clocks(member.detail.get("status", {}).get("nodes", ()) if member else ())

    def status(self) -> dict[str, Any]:
        """One page about everything, for ``headwater status``."""
        silent: set[str] = set()
        reports, now, ledgers = self.reports(), self.readiness(), self.ledgers(silent)
        delivered = self.delivered_everywhere(reports, silent)
        node = reports.get("node")
        many = {"cluster": {"silent": sorted(silent)}} if self.nodes is not None else {}
        return {
            **many,
            "node": msgspec.to_builtins(self.node),
            "state": "draining" if self.control.draining else node.state if node else "starting",
            "generation": self.control.generation,
            "ready": now.ready,
            "reasons": now.reasons,
            "warnings": now.warnings,
            "roles": {
                role: self.role(report, node) for role, report in sorted(reports.items()) if role != "node"
            },
            "destinations": {
                name: self.destination(delivered.get(name, Delivered(name)), ledgers)
                for name in self.parts().destinations
            },
            "raw": standing.raw(reports),
            "streams": reconcile.as_json(ledgers),
            "refused": standing.refused(reports),
            "unmapped": standing.unmapped(reports),
        }

    def delivered_everywhere(
        self, reports: Mapping[str, Report], silent: set[str]
    ) -> Mapping[str, Delivered]:
        """The destinations as all nodes together deliver to them; the reason of a pause says at which node it is."""
        if self.nodes is None:
            return standing.delivered(reports)
        by_node: dict[str, dict[str, Report]] = {}
        for role, report in self.all_reports(silent).items():
            node, _, own = role.partition("/")
            by_node.setdefault(node, {})[own] = report
        found: dict[str, Delivered] = {}
        for node, told in by_node.items():
            for name, one in standing.delivered(told).items():
                at = f"at {self.nodes.name(node)}: {one.reason}" if one.reason else one.reason
                named = dataclasses.replace(one, reason=at)
                found[name] = standing.together(found[name], named) if name in found else named
        return found

    def destination(self, one: Delivered, ledgers: Sequence[Ledger]) -> dict[str, Any]:
        """One destination, for the status page. What it has not said yet is null."""
        behind = None
        if one.vectors:
            behind = sum(told.pending for ledger in ledgers if (told := ledger.destinations.get(one.name)))
        age_ns = self.clock.boot_ns() + self.control.offset_ns - one.loaded_ns
        return {
            "state": one.state,
            "reason": one.reason,
            "command": one.command,
            "catching_up": one.catching_up,
            "written_off": one.written_off,
            "rows_behind": behind,
            "last_load": text_of(one.loaded_ns) if one.loaded_ns else None,
            "last_load_age_s": round(age_ns / 1e9, 1) if one.loaded_ns else None,
            "lag_s": None if behind is None else round(one.lag_age_s, 1) if behind else 0.0,
        }

    def role(self, report: Report, node: Report | None) -> dict[str, Any]:
        """One process, for the status page."""
        told = node.detail.get("roles", {}).get(report.role, {}) if node else {}
        return {
            "state": report.state,
            "pid": report.pid,
            "restarts": told.get("restarts", 0),
            "age_s": round((self.clock.boot_ns() - report.boot_ns) / 1e9, 1),
            "reasons": report.reasons,
        }


def with_bytes(letter: Mapping[str, Any]) -> dict[str, Any]:
    """A dead letter that came as JSON, with its body as bytes."""
    return {**letter, "body": base64.b64decode(letter["body"])}


def text_of(node_ns: int) -> str:
    """Node time as text, UTC."""
    at = datetime.datetime.fromtimestamp(node_ns / 1e9, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
