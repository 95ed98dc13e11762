"""What every role of a node gets: its name, its settings, and the machine as arguments."""

from __future__ import annotations

import os
import sys
from typing import Any

from headwater.config.control import ControlPage
from headwater.config.report import Publisher, Report, Sample
from headwater.config.running import NodeInfo, read_node, read_settings
from headwater.event.position import WriterId, writer_id
from headwater.kit.clock import Clock, SystemClock
from headwater.kit.counters import Counters
from headwater.kit.disk import Disk, SystemDisk
from headwater.kit.happenings import Happenings
from headwater.kit.rng import Rng, SystemRng
from headwater.log.block import Secret
from headwater.node.folder import read_identity, secret_of
from headwater.node.heartbeat import own_cell
from headwater.node.settings import Settings


class Context:
    """One role in one process."""

    def __init__(
        self,
        role: str,
        instance: str,
        data: str,
        log_id: int,
        *,
        disk: Disk,
        clock: Clock,
        rng: Rng,
        secret: Secret,
        control: ControlPage,
        node: NodeInfo,
        settings: Settings,
    ) -> None:
        self.role = role
        self.instance = instance
        self.name = f"{role}-{instance}"
        self.data = data
        self.log_id = log_id
        self.disk = disk
        self.clock = clock
        self.rng = rng
        self.secret = secret
        self.control = control
        self.node = node
        self.settings = settings
        self.counters = Counters()
        self.happenings = Happenings(self.name, clock, self.counters, sys.stderr)
        self.publisher = Publisher(disk, clock, f"{data}/run/reports", self.name)
        self.heartbeat = own_cell(disk, data, self.name)

    @property
    def number(self) -> int:
        """Of a role with numbered processes."""
        return int(self.instance)

    def writer(self) -> WriterId:
        """The writer of this collect worker."""
        return writer_id(int(self.node.folder_id, 16), self.number)

    def path(self, *parts: str) -> str:
        """A path in the data folder."""
        return "/".join((self.data, *parts))

    def node_ns(self) -> int:
        """Node time."""
        return self.clock.boot_ns() + self.control.offset_ns

    def read_settings(self) -> Settings:
        """The settings as the supervisor wrote them last."""
        self.settings = read_settings(self.data, self.disk, Settings)
        return self.settings

    def publish(
        self, state: str, reasons: list[str], detail: dict[str, Any] | None = None, *, at_once: bool = False
    ) -> None:
        """Write this role's report, if it is its time; in any case it is alive."""
        if self.heartbeat is not None:
            self.heartbeat.set(self.clock.boot_ns())
        report = Report(
            role=self.name,
            pid=os.getpid(),
            start=self.control.start,
            state=state,
            reasons=reasons,
            samples=[Sample(name, labels, value) for name, labels, value in self.counters],
            detail=detail or {},
        )
        self.publisher.publish(report, at_once=at_once)


def connect(role: str, instance: str, data: str, log_id: int) -> Context:
    """The context of a process that the supervisor started."""
    disk = SystemDisk()
    return Context(
        role,
        instance,
        data,
        log_id,
        disk=disk,
        clock=SystemClock(),
        rng=SystemRng(),
        secret=secret_of(read_identity(data, disk)),
        control=ControlPage.attach(f"{data}/run/control"),
        node=read_node(data, disk),
        settings=read_settings(data, disk, Settings),
    )
