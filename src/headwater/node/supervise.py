"""The supervisor: one process that starts all others, starts them again, and stops them in order.

It does no work on events. It recovers what a dead process left (INV-LOG-4), hands out log ids, keeps the control page
and the raw log's room, answers SIGHUP by a reload and SIGTERM or Ctrl-C by a drain (protocol.md §12)::

    draining: /ping and /ready say 503 → shutdown_delay, everything served → collectors stop, their logs get ends
    → in a cluster, others take over what it owns → processors run to the end of raw → deliverers to the end of ready
    → the lane stays until others have read this node's log → member leaves → ops stops → exit 0

A second Ctrl-C stops at once. Where time runs out, or the machine does, recovery at the next start is the same code.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from headwater.cluster.view import ViewReader, view_path
from headwater.config.control import ControlPage
from headwater.config.report import Publisher, Report, read_report, read_reports
from headwater.config.running import config_path, node_path, write_private
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Broken, HeadwaterError, Rejected
from headwater.kit.happenings import Happenings
from headwater.kit.rng import Rng
from headwater.kit.signals import Signals
from headwater.log import compress
from headwater.log.recover import StreamsOf, no_streams, raw_streams, recover_all
from headwater.node import (
    former,
    held,
    hold,
    leaving,
    logids,
    nodetime,
    reload,
    retention,
    rotation,
    salt,
    snapshot,
)
from headwater.node.child import MODULE, Child, Spec
from headwater.node.configuration import Configuration
from headwater.node.folder import FORMAT_COMPRESSED
from headwater.node.happenings import (
    KeyRotated,
    LogDamaged,
    NodeDraining,
    NodeStarted,
    NodeStopped,
    ProcessorRetired,
    Reloaded,
    ReloadRefused,
    RoleHeard,
    RoleSilent,
    TickFailed,
)
from headwater.node.heartbeat import Heartbeats
from headwater.node.rawkeeper import RawKeeper
from headwater.node.service_manager import ServiceManager
from headwater.node.settings import with_size
from headwater.node.start import Prepared

TICK_S = 0.25
KEEP_INTERVAL_S, KEEP_SHARE = 0.5, 0.02
"""How often files are looked through, and which part of the time that may take: 32 ms for 2,400 segments."""
FORMER_INTERVAL_S = 2.0
HAND_OVER_POLL_S = 0.1
CLOSE_MARGIN_S = 2.0
"""What a process gets beyond the time that a setting gives its work."""
FAST_STOP_S = 2.0
SILENT_S = 10.0
"""A collector says that it lives five times a second; one that has not for so long stands still."""


class Supervisor:
    """The processes of one node, from their start to their end."""

    def __init__(
        self,
        prepared: Prepared,
        read_again: Callable[[], Configuration],
        disk: Disk,
        clock: Clock,
        rng: Rng,
        happenings: Happenings,
        *,
        on_ready: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
        manager: ServiceManager | None = None,
        module: str = MODULE,
    ) -> None:
        self.prepared = prepared
        self.settings = prepared.settings
        self.folder = prepared.folder
        self.data = prepared.folder.path
        self.read_again = read_again
        self.disk = disk
        self.clock = clock
        self.rng = rng
        self.happenings = happenings
        self.on_ready = on_ready
        self.on_drain = on_drain
        self.manager = manager or ServiceManager()
        self.module = module
        self.heartbeats = Heartbeats(disk, self.data)
        self.silent: set[str] = set()
        self.children: dict[Spec, Child] = {}
        self.state = "starting"
        self.generation = 0
        self.reload_refused = ""
        self.keep_ns = 0
        self.former_ns = 0
        self.ticked_ns = clock.boot_ns()
        self.publisher = Publisher(disk, clock, f"{self.data}/run/reports", "node")
        self.control = ControlPage.create(
            f"{self.data}/run/control", offset_ns=nodetime.first_offset_ns(clock), start=prepared.info.start
        )
        self.raw_keeper = RawKeeper(
            disk, clock, self.control, happenings, self.data, prepared.info.partitions, prepared.folder.secret
        )
        self.group: asyncio.TaskGroup

    # -- running

    async def run(self) -> int:
        """Until a signal ends it; the exit code."""
        try:
            with Signals() as signals:
                self.manager.tell("STATUS=recovering what the last start left")
                await asyncio.to_thread(self.recover)
                self.tell_who_runs()
                async with asyncio.TaskGroup() as self.group:
                    self.start_children(self.wanted())
                    ticking = self.group.create_task(self.tick_forever())
                    watching = self.group.create_task(self.watch_forever())
                    in_order = await self.serve(signals)
                    ticking.cancel()
                    watching.cancel()
        finally:
            self.kill_all()
        self.publish(at_once=True)
        self.happenings.emit(NodeStopped(in_order=in_order))
        return 0 if in_order else 1

    def recover(self) -> None:
        """Give every log of a former start its end; no new one comes before any log that is known."""
        former.finish(self.disk, self.data)
        for name in self.disk.listdir(f"{self.data}/raw"):
            compress.remove_draft(self.disk, f"{self.data}/raw/{name}")
        self.recover_raw()
        self.recover_ready()
        self.folder.know_log_id(logids.greatest(self.data, self.disk))

    def recover_raw(self) -> None:
        """Give every raw log its end; no collector runs (INV-LOG-4)."""
        for name in self.disk.listdir(f"{self.data}/raw"):
            self.recover_logs(f"{self.data}/raw/{name}", raw_streams)

    def recover_ready(self) -> None:
        """Give every ready log its end; no processor runs (INV-LOG-4)."""
        for name in self.disk.listdir(f"{self.data}/ready"):
            self.recover_logs(f"{self.data}/ready/{name}", no_streams)

    def recover_logs(self, folder: str, streams_of: StreamsOf) -> None:
        """Give the logs of a folder their ends, and say what was lost."""
        for end in recover_all(self.disk, folder, self.folder.secret, streams_of):
            for lost in end.damaged:
                self.happenings.emit(
                    LogDamaged(folder=folder, log=f"{end.log:016x}", first=lost.first, next=lost.next)
                )

    def tell_who_runs(self) -> None:
        """Write what other processes read about this start."""
        for name in self.disk.listdir(f"{self.data}/run/reports"):
            self.disk.unlink(f"{self.data}/run/reports/{name}")
        write_private(config_path(self.data), self.settings)
        write_private(node_path(self.data), self.prepared.info)
        self.keep_salt()
        self.control.set_alive_boot_ns(self.clock.boot_ns())
        self.control.set_held(held.judged(self.settings.cluster, lambda: None, self.clock.boot_ns()))
        self.keep_raw()
        self.happenings.emit(
            NodeStarted(version=self.prepared.info.version, start=self.prepared.info.start, data=self.data)
        )

    def wanted(self) -> list[Spec]:
        """The processes that the settings ask for."""
        settings = self.settings
        return [
            Spec("ops", "0"),
            *([Spec("member", "0")] if settings.cluster is not None else []),
            *([Spec("upkeep", "0")] if settings.log.compress_after_s else []),
            *([Spec("lane", "0")] if settings.cluster is not None else []),
            *(Spec("deliver", name) for name in settings.destinations),
            *(Spec("process", str(n)) for n in range(settings.process.workers)),
            *(Spec("collect", str(n)) for n in range(settings.collect.workers)),
        ]

    def start_children(self, specs: Iterable[Spec]) -> None:
        """Start and keep these processes."""
        for spec in specs:
            child = Child(
                spec,
                self.data,
                lambda spec=spec: self.prepare(spec),  # type: ignore[misc]
                self.clock,
                self.rng,
                self.happenings,
                lock_file=self.prepared.lock.file,
                module=self.module,
            )
            self.children[spec] = child
            self.group.create_task(child.keep())

    def prepare(self, spec: Spec) -> str:
        """What must be done while a process is not there; the id of its new log, in hex."""
        self.heartbeats.expect(spec.name)
        if spec.role == "collect":
            self.recover_logs(self.folder.raw(int(spec.instance)), raw_streams)
        elif spec.role == "process":
            self.recover_logs(self.folder.ready(int(spec.instance)), no_streams)
        else:
            return f"{0:016x}"
        return f"{self.folder.next_log_id(self.clock, self.rng):016x}"

    async def serve(self, signals: Signals) -> bool:
        """Act on signals until one ends the node; True when it ended in order."""
        while True:
            number = await signals.next()
            if number is signal.SIGHUP:
                await self.reload()
            elif number is not None:
                return await self.stop(number, signals)

    # -- upkeep

    async def tick_forever(self) -> None:
        """Time, sign of life, reports, the room in raw."""
        while True:
            self.tick()
            if self.clock.boot_ns() >= self.keep_ns:
                began_ns = self.clock.boot_ns()
                try:
                    await asyncio.to_thread(self.keep_raw)
                    took_ns = self.clock.boot_ns() - began_ns
                    self.keep_ns = began_ns + int(max(KEEP_INTERVAL_S * 1e9, took_ns / KEEP_SHARE))
                    await asyncio.to_thread(self.keep_former)
                    await self.keep_secrets()
                    if await asyncio.to_thread(self.keep_salt):
                        self.next_generation()
                except (OSError, HeadwaterError) as error:
                    self.keep_ns = self.clock.boot_ns() + int(KEEP_INTERVAL_S * 1e9)
                    self.happenings.emit(TickFailed(reason=str(error)))
            await self.clock.sleep(TICK_S)

    def tick(self) -> None:
        """What costs nothing."""
        now_ns = self.clock.boot_ns()
        control = self.control
        control.set_offset_ns(
            nodetime.slewed_ns(control.offset_ns, self.clock.wall_ns(), now_ns, now_ns - self.ticked_ns)
        )
        control.set_alive_boot_ns(now_ns)
        self.ticked_ns = now_ns
        control.set_held(held.judged(self.settings.cluster, self.member_report, now_ns))
        if self.state == "starting" and self.accepts():
            self.state = "running"
            self.manager.tell("READY=1", f"STATUS=accepting events on {self.prepared.info.collector}")
            self.on_ready()
        self.publish()

    async def watch_forever(self) -> None:
        """Beside ``tick_forever``, which waits for the disk: a slow disk is no reason to take the node for dead."""
        while True:
            self.watch()
            await self.clock.sleep(TICK_S)

    def watch(self) -> None:
        """Say that the node is alive while every collector is, or while it ends."""
        now_ns = self.clock.boot_ns()
        for spec in self.of_role("collect"):
            child = self.children[spec]
            silent_s = self.heartbeats.silent_s(spec.name, child.began_ns, now_ns)
            self.hear(child, silent_s if child.state == "running" else 0.0)
        alive = self.state == "draining" or (self.state == "running" and not self.silent)
        self.manager.look(now_ns, alive=alive)

    def hear(self, child: Child, silent_s: float) -> None:
        """Say it once when a collector stands still, and when it goes on."""
        name = child.spec.name
        if silent_s > SILENT_S and name not in self.silent:
            self.silent.add(name)
            pid = child.process.pid if child.process is not None else 0
            self.happenings.emit(RoleSilent(role=name, pid=pid, silent_s=round(silent_s, 1)))
            self.manager.tell(f"STATUS={name} (process {pid}) stands still: no more signs of life")
        elif silent_s <= SILENT_S and name in self.silent:
            self.silent.discard(name)
            self.happenings.emit(RoleHeard(role=name))
            self.manager.tell(f"STATUS=accepting events on {self.prepared.info.collector}")

    def accepts(self) -> bool:
        """Whether every collector and the ops process say that they run."""
        reports = self.reports()
        doors = [spec.name for spec in self.children if spec.role in ("collect", "ops")]
        return all(name in reports and reports[name].state == "running" for name in doors)

    def reports(self) -> Mapping[str, Report]:
        """What the processes of this start say."""
        return read_reports(self.disk, f"{self.data}/run/reports", self.prepared.info.start)

    def member_report(self) -> Report | None:
        """What the member process of this start says."""
        told = read_report(self.disk, f"{self.data}/run/reports/member-0.json")
        return told if told is not None and told.start == self.prepared.info.start else None

    def keep_raw(self) -> None:
        """Retire what is safe, and tell the collectors how much room is left. In a thread."""
        with hold.retiring(self.data) as may:
            if may:
                if retention.compressed(self.disk, f"{self.data}/raw"):
                    self.folder.know_format(FORMAT_COMPRESSED)
                self.raw_keeper.keep(self.settings, self.reports())

    def keep_former(self) -> None:
        """Retire what processors left that no longer run. In a thread."""
        if self.clock.boot_ns() - self.former_ns < FORMER_INTERVAL_S * 1e9:
            return
        self.former_ns = self.clock.boot_ns()
        settings = self.settings
        snapshot.sweep(self.data)
        with hold.retiring(self.data) as may:
            if not may:
                return
            for number in former.retire(
                self.disk,
                self.data,
                self.reports(),
                settings.process.workers,
                settings.destinations,
                self.folder.secret,
            ):
                self.happenings.emit(ProcessorRetired(number=number))

    async def keep_secrets(self) -> None:
        """End the secrets whose time has come; who reads the files of secrets reads them again."""
        for key in await asyncio.to_thread(
            rotation.finish_overdue, self.disk, self.data, self.clock.wall_ns()
        ):
            self.next_generation()
            self.happenings.emit(KeyRotated(key=key))

    def keep_salt(self) -> bool:
        """Give address hashes a new salt when it is time; whether it changed."""
        return salt.keep(self.disk, self.data, self.settings, self.clock.wall_ns(), self.rng)

    def next_generation(self) -> None:
        """Have every process take over what reloads."""
        self.generation += 1
        self.control.set_generation(self.generation)

    def publish(self, *, at_once: bool = False) -> None:
        """The node's own report."""
        roles = {
            child.spec.name: {"state": child.state, "restarts": child.restarts}
            for child in self.children.values()
        }
        often = [c.spec.name for c in self.children.values() if c.spec.role != "upkeep" and c.ends_often()]
        reasons = [f"{name} ended 3 times within 10 minutes, see the log" for name in often]
        report = Report(
            role="node",
            pid=self.prepared.info.pid,
            start=self.prepared.info.start,
            state=self.state,
            reasons=reasons,
            detail={
                "roles": roles,
                "generation": self.generation,
                "raw": self.raw_keeper.told,
                "warnings": [w for w in (self.raw_keeper.warning, self.reload_refused) if w],
            },
        )
        self.publisher.publish(report, at_once=at_once)

    # -- reload

    async def reload(self) -> None:
        """Take over a changed configuration, whole or not at all; what was refused is told until the next good one."""
        try:
            found = await asyncio.to_thread(self.read_again)
            with found.document.placed():
                new = with_size(found.settings, self.settings.data_bytes_max)
            change = reload.compare(self.settings, new)
            if change.refused:
                keys = ", ".join(change.refused)
                raise Rejected(f"{keys}: takes effect at a restart only; nothing was changed", code="reload")
        except HeadwaterError as error:
            self.reload_refused = f"the changed configuration was not taken over: {error}"
            self.happenings.emit(ReloadRefused(reason=str(error)))
            return
        self.reload_refused = ""
        self.settings = new
        write_private(config_path(self.data), new)
        self.keep_salt()
        self.next_generation()
        await self.stop_children([Spec("deliver", name) for name in change.stopped], CLOSE_MARGIN_S)
        self.start_children(Spec("deliver", name) for name in change.started)
        self.happenings.emit(Reloaded(changed=change.changed))

    # -- stopping

    async def stop(self, number: signal.Signals, signals: Signals) -> bool:
        """Drain; a second Ctrl-C or SIGTERM cuts it short. True when it ended in order."""
        self.happenings.emit(
            NodeDraining(by_signal=number.name, shutdown_delay_s=self.settings.shutdown_delay)
        )
        self.manager.tell("STOPPING=1", "STATUS=draining: what was accepted is being delivered")
        self.on_drain()
        draining = self.group.create_task(self.drain())
        while not draining.done():
            if await signals.next(TICK_S) in (signal.SIGINT, signal.SIGTERM):
                draining.cancel()
                await self.stop_children(list(self.children), FAST_STOP_S)
                return False
        return True

    async def drain(self) -> None:
        """Door, processing, delivery, in this order."""
        settings = self.settings
        self.state = "draining"
        self.control.set_draining()
        await self.clock.sleep(settings.shutdown_delay)
        collectors = self.of_role("collect")
        await self.stop_children(collectors, settings.shutdown_timeout + CLOSE_MARGIN_S)
        await asyncio.to_thread(self.recover_raw)  # the processors still write their ready logs
        until_ns = self.clock.boot_ns() + int(settings.drain_timeout_s * 1e9)
        await self.hand_over(until_ns)
        for role in ("process", "deliver"):
            await self.stop_children(self.of_role(role), self.left_s(until_ns) + CLOSE_MARGIN_S)
        await asyncio.to_thread(self.recover_ready)
        await self.stop_children(self.of_role("upkeep"), CLOSE_MARGIN_S)
        await self.stop_children(self.of_role("lane"), self.left_s(until_ns) + CLOSE_MARGIN_S)
        await self.stop_children(self.of_role("member"), settings.shutdown_timeout + CLOSE_MARGIN_S)
        await self.stop_children(self.of_role("ops"), CLOSE_MARGIN_S)
        self.state = "stopped"

    def left_s(self, until_ns: int) -> float:
        """Seconds until then, or 0."""
        return max(0.0, (until_ns - self.clock.boot_ns()) / 1e9)

    async def hand_over(self, until_ns: int) -> None:
        """While everything runs, until others own what this node has; at most until then."""
        if self.settings.cluster is None:
            return
        views = ViewReader(self.disk, view_path(self.data))
        with suppress(Broken):  # then nobody knows what others have
            while not leaving.handed_over(views.read()) and self.clock.boot_ns() < until_ns:
                await self.clock.sleep(HAND_OVER_POLL_S)

    def of_role(self, role: str) -> list[Spec]:
        """The processes of a role."""
        return [spec for spec in self.children if spec.role == role]

    async def stop_children(self, specs: Iterable[Spec], within_s: float) -> None:
        """Stop these at once; each has the same time."""
        stopping = [self.children[spec] for spec in specs if spec in self.children]
        await asyncio.gather(*(child.stop(within_s) for child in stopping))
        for child in stopping:
            self.children.pop(child.spec, None)

    def kill_all(self) -> None:
        """Whatever is left must not outlive the supervisor."""
        for child in self.children.values():
            child.stopping.set()
            child.signal(signal.SIGKILL)
