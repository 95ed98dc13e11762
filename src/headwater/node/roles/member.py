"""The member process: this node's part in the cluster. It does nothing else, so that nothing holds its heartbeats up.

What it knows the other processes read in ``run/view``; what is told to people, and why the door is held, stands in its
report. Orders come through ``run/member-0.sock`` (ops/cluster.py). Reports are written beside the loop: a disk that is
slow must not make the node look dead to others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater.cluster.history import Activity
from headwater.cluster.member import Member, own_hosts
from headwater.cluster.settings import ClusterSettings, advertised, secret_of
from headwater.cluster.stores import registry
from headwater.cluster.stores.port import Store
from headwater.cluster.table import NodeRecord
from headwater.config.report import Publisher, Report, read_report
from headwater.kit import ask
from headwater.kit.errors import Lost, Misconfigured
from headwater.kit.tasks import Group
from headwater.kit.threads import Thread
from headwater.node.context import Context
from headwater.node.happenings import (
    ClusterChanged,
    ClusterClockRight,
    ClusterClockWrong,
    ClusterNodeEvicted,
    ClusterNotJoined,
    ClusterTaskFailed,
)
from headwater.node.settings import Settings, secret_reader
from headwater.peer.address import LANE_PORT, MEMBER_PORT
from headwater.peer.identity import PROTOCOL, Identity, Tls

CLOSE_S = 2.0
LOOK_S = 0.5
PAGE_S = 1.0


class MemberRole:
    """Wires the membership with the network, the store and the node."""

    def __init__(self, context: Context) -> None:
        settings = context.settings.cluster
        if settings is None:
            raise Misconfigured("there is no block `cluster`", code="no_cluster")
        self.context = context
        self.settings = settings
        self.writing = Thread("reports")
        context.publisher = PublisherAside(context.publisher, self.writing)
        self.group = Group("member", self.failed)
        record = record_of(context, settings)
        self.member = Member(
            settings,
            record,
            identity_of(context, settings, record),
            store_of(context, settings),
            data=context.data,
            partitions=context.node.partitions,
            own_hosts=own_hosts(settings),
            disk=context.disk,
            clock=context.clock,
            counters=context.counters,
            group=self.group,
            happened=self.happened,
        )
        self.begun_ns = context.clock.boot_ns()
        self.looked_ns = 0
        self.complained = False
        self.page_mark: object = None
        self.page_ns = 0
        self.told: dict[str, Any] = {}

    async def start(self) -> None:
        await self.group.__aenter__()
        await self.member.start()
        self.orders = await ask.serve(self.context.path("run", f"{self.context.name}.sock"), self.order)

    async def order(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What an operator wants."""
        return self.member.order(asked), b""

    async def tick(self) -> None:
        self.look()
        self.member.tick()
        if self.member.stopped:
            raise Lost(self.member.stopped, code="superseded")
        if self.context.control.draining:
            self.member.drain()
        self.complain()
        self.compare_clocks()

    def compare_clocks(self) -> None:
        """Say whose clock has become wrong, or right again."""
        for change in self.member.clock_changes():
            kind = ClusterClockWrong if change.wrong else ClusterClockRight
            self.context.happenings.emit(
                kind(node=change.node, node_name=self.member.name_of(change.node), ahead_s=change.ahead_s)
            )

    def look(self) -> None:
        """Which partitions' state this node has as their standby, as its lane says; now and then."""
        now_ns = self.context.clock.boot_ns()
        if now_ns - self.looked_ns < LOOK_S * 1e9:
            return
        self.looked_ns = now_ns
        lane = read_report(self.context.disk, self.context.path("run", "reports", "lane-0.json"))
        if lane is not None and lane.start == self.context.control.start:
            self.member.core.ready = frozenset(lane.detail.get("standby", {}).get("ready", ()))

    def complain(self) -> None:
        """Say it once in the log when this node does not get in."""
        if self.member.core.admitted():
            self.complained = False
            self.begun_ns = self.context.clock.boot_ns()
            return
        patience_s = self.settings.join_retry_max * self.settings.join_retry_s
        if not self.complained and self.context.clock.boot_ns() - self.begun_ns > patience_s * 1e9:
            self.complained = True
            self.context.happenings.emit(ClusterNotJoined(reasons=self.reasons()))

    def happened(self, activity: Activity, name: str) -> None:
        """Something of the cluster for the log."""
        kind = ClusterNodeEvicted if activity.event == "evicted" else ClusterChanged
        self.context.happenings.emit(
            kind(
                event=activity.event,
                node=activity.node,
                node_name=name,
                incarnation=activity.incarnation,
                epoch=activity.epoch,
                reason=activity.reason,
            )
        )

    def failed(self, owner: str, name: str, error: BaseException) -> None:
        """A task ended with an error: the process ends with it, and is started again."""
        self.context.happenings.emit(ClusterTaskFailed(task=name, reason=f"{type(error).__name__}: {error}"))

    async def reload(self, settings: Settings) -> None:
        pass  # nothing of it reloads

    async def drain(self) -> None:
        await self.orders.close()
        await self.member.leave(self.context.settings.shutdown_timeout)

    async def stop(self) -> None:
        await self.group.__aexit__(None, None, None)
        self.writing.close(CLOSE_S)

    def reasons(self) -> list[str]:
        return list(self.page()["waits_for"])

    def detail(self) -> dict[str, Any]:
        return {"held": self.member.held(), "status": self.page()}

    def page(self) -> dict[str, Any]:
        """The status, made anew when something changed, else once a second: with many nodes it is long."""
        now_ns = self.context.clock.boot_ns()
        mark = self.member.mark()
        if mark != self.page_mark or now_ns - self.page_ns > PAGE_S * 1e9:
            self.page_mark, self.page_ns, self.told = mark, now_ns, self.member.page()
        return self.told


class PublisherAside(Publisher):
    """Writes reports in a thread; the last words of the process at once."""

    def __init__(self, plain: Publisher, submit: Callable[[Callable[[], None]], None]) -> None:
        self.__dict__.update(plain.__dict__)
        self.submit = submit
        self.busy = False

    def publish(self, report: Report, *, at_once: bool = False) -> bool:
        """True when it was or will be written; one at a time."""
        if at_once:
            return super().publish(report, at_once=True)
        if self.busy or not self.due():
            return False
        self.busy = True
        self.submit(lambda: self.write(report))
        return True

    def write(self, report: Report) -> None:
        """In the thread."""
        try:
            super().publish(report)
        finally:
            self.busy = False


def record_of(context: Context, settings: ClusterSettings) -> NodeRecord:
    """How this node introduces itself. The incarnation is its node time in milliseconds, so it grows from start to
    start (the membership makes it greater than what is known, should a clock have gone back)."""
    started_ms = context.node_ns() // 1_000_000
    return NodeRecord(
        node=f"{int(context.node.folder_id, 16) & ~0xFFFF:016x}",
        name=settings.node_name,
        incarnation=started_ms,
        member_address=advertised(settings, settings.listen, MEMBER_PORT),
        lane_address=advertised(settings, settings.lane, LANE_PORT),
        ops_address=context.node.ops,
        collect_address=context.node.collector,
        zone=settings.zone,
        weight=settings.weight,
        protocol=PROTOCOL[1],
        started_ms=started_ms,
    )


def identity_of(context: Context, settings: ClusterSettings, record: NodeRecord) -> Identity:
    """What this node shows to others."""
    tls = settings.tls
    return Identity(
        node=record.node,
        incarnation=record.incarnation,
        folder=context.node.folder_id,
        cluster=settings.name,
        name=record.name,
        purpose="member",
        secret=secret_of(settings, "secret", secret_reader(context.data)).encode(),
        tls=Tls(tls.certificate, tls.key, tls.authority) if tls else None,
        rng=context.rng,
        clock=context.clock,
        counters=context.counters,
    )


def store_of(context: Context, settings: ClusterSettings) -> Store | None:
    """The coordination store; None where there is only a list."""
    if settings.store is None:
        return None
    return registry.make(settings.store, settings.name, context.clock, context.rng)
