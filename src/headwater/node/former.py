"""Processors that no longer run, because `process.workers` was lowered: when their folders may go, and how.

What such a processor left is still asked for: its commits by destinations that have not loaded them, and by processors
that own its partitions now and start again; its ids by the latter. ``ready/<n>`` and ``state/<n>`` may go when *both*
have all of it: each processor says in its report up to where it took the former one over, durably (process/state.py),
and each destination up to where it needs nothing of that ready log. A report that is missing keeps them.

Removal is one rename each, ready log first; what is renamed is nobody's any more, and what a crash leaves of it goes at
the next start. A ready log without its state would be a chain without its beginning; a state without its ready log is
only behind those who took it over.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping

from headwater.config.report import Report
from headwater.event.position import Position, WriterId
from headwater.kit.disk import Disk
from headwater.log.block import Secret
from headwater.log.ready import ReadyReader
from headwater.ops import standing

GONE = ".gone"


def numbers(disk: Disk, data: str, workers: int) -> list[int]:
    """The processors that have left something and do not run."""
    names = {*disk.listdir(f"{data}/ready"), *disk.listdir(f"{data}/state")}
    return sorted(int(name) for name in names if name.isdigit() and int(name) >= workers)


def retire(
    disk: Disk,
    data: str,
    reports: Mapping[str, Report],
    workers: int,
    destinations: Iterable[str],
    secret: Secret,
) -> list[int]:
    """Remove what all processors and destinations have of former processors; their numbers."""
    destinations = list(destinations)
    retired = []
    for number in numbers(disk, data, workers):
        if taken_over(reports, workers, number) and delivered(
            disk, data, reports, destinations, number, secret
        ):
            remove(disk, data, number)
            retired.append(number)
    return retired


def taken_over(reports: Mapping[str, Report], workers: int, number: int) -> bool:
    """Whether every processor says that it has what the former one left, up to one and the same end."""
    told = [
        reports[name].detail.get("former", {}).get(str(number)) if name in reports else None
        for name in (f"process-{n}" for n in range(workers))
    ]
    return None not in told and all(end == told[0] for end in told)


def delivered(
    disk: Disk,
    data: str,
    reports: Mapping[str, Report],
    destinations: Iterable[str],
    number: int,
    secret: Secret,
) -> bool:
    """Whether no destination needs a commit of this ready log. One that has not said so does."""
    if not disk.exists(f"{data}/ready/{number}"):
        return True
    told = standing.delivered(reports)
    for name in destinations:
        passed = told[name].ready_passed.get(str(number)) if name in told else None
        if passed is None or commits_behind(disk, data, number, passed, secret):
            return False
    return True


def commits_behind(disk: Disk, data: str, number: int, passed: Position, secret: Secret) -> bool:
    """Whether a former processor's ready log holds a commit behind this position."""
    reader = ReadyReader(disk, f"{data}/ready/{number}", WriterId(number), passed, secret=secret)
    try:
        return bool(reader.read(1))
    finally:
        reader.close()


def remove(disk: Disk, data: str, number: int) -> None:
    """Remove a former processor's ready log and state."""
    for part in ("ready", "state"):
        path = f"{data}/{part}/{number}"
        if disk.exists(path):
            disk.rename(path, f"{path}{GONE}")
            disk.sync_dir(f"{data}/{part}")
            shutil.rmtree(f"{path}{GONE}")


def finish(disk: Disk, data: str) -> None:
    """Remove what an earlier removal left when it was cut short."""
    for part in ("ready", "state"):
        for name in disk.listdir(f"{data}/{part}"):
            if name.endswith(GONE):
                shutil.rmtree(f"{data}/{part}/{name}")
