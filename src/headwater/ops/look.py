"""A look at the running node: what the routes answer from. Reads files and shared memory; waits for nobody."""

from __future__ import annotations

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
from headwater.log.block import Secret
from headwater.ops import everywhere, metrics, ready, reconcile, standing
from headwater.ops import where as journey
from headwater.ops.accepted import Accepted, AcceptedCounter
from headwater.ops.everywhere import ACCEPTED, REPORTS, Answers, Everywhere, Owners
from headwater.ops.ready import ALIVE_S, Readiness
from headwater.ops.reconcile import Ledger
from headwater.ops.retried import Retried
from headwater.ops.standing import Delivered


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
    ) -> None:
        self.others = others
        self.owners = owners
        """None: this node is alone."""
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
        )

    def ledgers(self) -> list[Ledger]:
        """The conservation ledger. The order of reading is part of it: destinations, processors, logs."""
        silent: set[str] = set()
        destinations = standing.delivered(self.all_reports(silent))
        processed = standing.processed(self.all_reports(silent))
        accepted = self.accepted(silent)
        wanted = {name: one for name, one in destinations.items() if name in self.parts().destinations}
        return reconcile.without_some(
            reconcile.reconcile(accepted, processed, wanted, self.node.partitions if self.owners else 0),
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
        """How far a request has come."""
        reports = self.reports()
        durable = journey.acknowledged(self.disk, f"{self.data}/raw", receipt)
        return journey.where(receipt, durable, standing.processed(reports), standing.delivered(reports))

    def metrics(self) -> str:
        """Prometheus text."""
        reports, now_ns = self.reports(), self.clock.boot_ns()
        samples = [
            *metrics.from_reports(reports, now_ns),
            *metrics.from_compressed(standing.compressed(reports)),
            *metrics.from_destinations(standing.delivered(reports)),
            *metrics.from_ledgers(self.ledgers()),
            *metrics.from_unmapped(standing.unmapped(reports)),
            Sample("headwater_ready", {}, float(self.readiness().ready)),
        ]
        return metrics.render(samples)

    def status(self) -> dict[str, Any]:
        """One page about everything, for ``headwater status``."""
        reports, now, ledgers = self.reports(), self.readiness(), self.ledgers()
        node = reports.get("node")
        return {
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
                name: self.destination(standing.delivered(reports).get(name, Delivered(name)), ledgers)
                for name in self.parts().destinations
            },
            "raw": standing.raw(reports),
            "streams": reconcile.as_json(ledgers),
            "refused": standing.refused(reports),
            "unmapped": standing.unmapped(reports),
        }

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


def text_of(node_ns: int) -> str:
    """Node time as text, UTC."""
    at = datetime.datetime.fromtimestamp(node_ns / 1e9, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}Z"
