"""Reports: what each process says about itself, as a small JSON file that anyone may read at any time.

A process writes ``run/reports/<role>.json`` whole, by rename, at most 5 times a second and only when something
changed, otherwise every 2 s as a sign of life. Nobody waits for anybody: a reader sees the last whole report. Reports
are not durable and need not be; what must survive is in logs, state and destinations.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import msgspec

from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, read_whole

INTERVAL_S_MIN = 0.2
INTERVAL_S_MAX = 2.0
STALE_S = 10.0
"""A report that is older says nothing about its process any more."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One number for /metrics. Names as Prometheus wants them: ``headwater_<what>_<unit>[_total]``."""

    name: str
    labels: dict[str, str]
    value: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says. ``detail`` is the role's own; the rest is read by everyone."""

    role: str
    """``collect-0``, ``process-1``, ``deliver-warehouse``, ``ops-0``."""
    pid: int
    start: int
    """Start number of the node (control page); reports of former starts are ignored."""
    boot_ns: int = 0
    """When it was written, by CLOCK_BOOTTIME; the publisher fills it in."""
    state: str = "running"
    """starting | running | paused | draining | stopped"""
    reasons: list[str] = []
    """Why the role is not ready, in words for a person; empty means ready."""
    samples: list[Sample] = []
    detail: dict[str, Any] = {}


decode_report = msgspec.json.Decoder(Report).decode


class Publisher:
    """Writes one role's reports. Cheap to call often: it looks at the clock first."""

    def __init__(self, disk: Disk, clock: Clock, folder: str, role: str) -> None:
        self.disk = disk
        self.clock = clock
        self.path = f"{folder}/{role}.json"
        self.last: Report | None = None
        self.last_ns = 0

    def due(self) -> bool:
        """Whether a changed report would be written now; lets the caller save the work of making one."""
        return self.last is None or self.clock.boot_ns() - self.last_ns >= INTERVAL_S_MIN * 1e9

    def publish(self, report: Report, *, at_once: bool = False) -> bool:
        """Write ``report`` if it is its time; ``at_once`` for the last words of a process. True when written.

        A full disk costs the report, never the process: the next one is tried in its time.
        """
        now = self.clock.boot_ns()
        if not at_once:
            if not self.due():
                return False
            if report == self.last and now - self.last_ns < INTERVAL_S_MAX * 1e9:
                return False
        self.last, self.last_ns = report, now
        try:
            replace(self.disk, self.path, msgspec.json.encode(msgspec.structs.replace(report, boot_ns=now)))
        except OSError:
            return False
        return True


def replace(disk: Disk, path: str, data: bytes) -> None:
    """Replace a file whole, without waiting for the disk: readers see the old or the new bytes."""
    draft = f"{path}.tmp"
    file = disk.open(draft, write=True, create=True)
    try:
        disk.truncate(file, 0)
        if disk.pwrite(file, data, 0) != len(data):
            raise OSError(errno.ENOSPC, "no space left on device", draft)
    finally:
        disk.close(file)
    disk.rename(draft, path)


def read_report(disk: Disk, path: str) -> Report | None:
    """One report; None where there is none that can be read (another version's, or not yet written)."""
    try:
        return decode_report(read_whole(disk, path))
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def read_reports(disk: Disk, folder: str, start: int) -> Mapping[str, Report]:
    """The reports of the start that is running, by role."""
    reports: dict[str, Report] = {}
    try:
        names = disk.listdir(folder)
    except FileNotFoundError:
        return reports
    for name in names:
        if name.endswith(".json"):
            report = read_report(disk, f"{folder}/{name}")
            if report is not None and report.start == start:
                reports[report.role] = report
    return reports
