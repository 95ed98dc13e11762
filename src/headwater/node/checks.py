"""``headwater check``: what a start would find, and what it would only find out later."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Mapping
from typing import Literal

import msgspec

from headwater.kit.clock import Clock
from headwater.kit.disk import ALIGNMENT, Disk
from headwater.kit.errors import HeadwaterError
from headwater.kit.plural import counted
from headwater.node import configuration, first, listening
from headwater.node.folder import NAME as FOLDER_FILE
from headwater.node.folder import is_alive, open_folder, read_identity
from headwater.node.settings import ReadText, Settings, secret_reader, sized
from headwater.node.start import listeners, used_bytes

SYNCS = 50
SYNC_SLOW_MS = 10.0
FILES_WANTED = 4096
GIB = 1024**3
GENERATED = re.compile(r"keys/[A-Za-z0-9_.-]{1,64}\.secret")
"""Files of secrets that the first start makes (node/first.py)."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    result: Literal["fine", "warning", "wrong"]
    says: str


def everything(
    config: str | None, data: str, disk: Disk, clock: Clock, environment: Mapping[str, str]
) -> list[Finding]:
    """All findings, the configuration first; without one, nothing else can be checked.

    ``config`` None: ``headwater.yaml`` here; where it is missing, the one that a start makes is checked.
    """
    path = config or configuration.CONFIGURATION_DEFAULT
    made = config is None and not disk.exists(path)
    try:
        text = first.CONFIGURATION if made else configuration.text_of(path)
        found = configuration.parse(text, path, environment, secrets_at_start(data, disk))
    except HeadwaterError as error:
        return [Finding("configuration", "wrong", str(error))]
    settings = found.settings
    running = holder(data)
    keys = counted(len(settings.keys), "key")
    says = (
        f"none here; `headwater run` makes {path}, with {keys}, and starts"
        if made
        else f"{found.path}, {keys}"
    )
    return [
        Finding("configuration", "fine", says),
        *([] if settings.keys else [Finding("keys", "warning", "none: nobody can send")]),
        *(
            []
            if settings.destinations
            else [Finding("destinations", "warning", "none: events stay in the log")]
        ),
        *(Finding(one.key, "warning", f"left out: {one.why}") for one in found.left),
        check_folder(data, disk),
        check_room(settings, data, disk),
        check_sync(data, disk, clock),
        *check_ports(settings, running),
        check_files(settings),
    ]


def secrets_at_start(data: str, disk: Disk) -> ReadText:
    """Reads files of secrets as a start finds them: the first one makes the generated ones that are missing."""
    read_text = secret_reader(data)

    def read(path: str) -> str:
        try:
            return read_text(path)
        except FileNotFoundError:
            if GENERATED.fullmatch(path) is None or not is_new(data, disk):
                raise
            return f"made-at-the-first-start-{path}"

    return read


def is_new(data: str, disk: Disk) -> bool:
    """Whether no node was ever started on the data folder."""
    try:
        return not disk.exists(data) or read_identity(data, disk).starts == 0
    except HeadwaterError:
        return not disk.exists(f"{data}/{FOLDER_FILE}")


def holder(data: str) -> str | None:
    """The process that runs on the data folder."""
    try:
        with open(f"{data}/lock", encoding="ascii", errors="replace") as file:
            pid = file.readline(32).strip()
    except OSError:
        return None
    return pid if is_alive(pid) else None


def check_folder(data: str, disk: Disk) -> Finding:
    """The data folder."""
    if not disk.exists(data):
        return Finding("data folder", "fine", f"{data} is made at the first start")
    try:
        folder = open_folder(data, disk)
    except HeadwaterError as error:
        return Finding("data folder", "wrong", str(error))
    running = holder(data)
    return Finding(
        "data folder",
        "fine",
        f"{data}, {counted(folder.identity.starts, 'start')}"
        + (f", in use by process {running}" if running else ""),
    )


def existing(data: str) -> str:
    """The folder itself, or the nearest one above that is there."""
    while not os.path.isdir(data):
        data = os.path.dirname(data)
    return data


def check_room(settings: Settings, data: str, disk: Disk) -> Finding:
    """Whether the disk can hold what the settings allow."""
    free = disk.free_bytes(existing(data))
    used = used_bytes(disk, data)
    size = sized(settings, free, used).data_bytes_max
    says = f"{size / GIB:.1f} GiB for logs and state, {free / GIB:.1f} GiB free"
    return Finding("room", "fine" if size <= free + used else "wrong", says)


def check_sync(data: str, disk: Disk, clock: Clock) -> Finding:
    """How long the disk takes to make a page durable: each acknowledgement waits for it."""
    folder = existing(data)
    path = f"{folder}/.headwater-check-{os.getpid()}"
    took: list[float] = []
    try:
        file = disk.open(path, write=True, create=True)
        try:
            disk.pwrite(file, bytes(ALIGNMENT * SYNCS), 0)
            disk.sync(file)
            for number in range(SYNCS):
                begin = clock.boot_ns()
                disk.pwrite(file, bytes(ALIGNMENT), number * ALIGNMENT)
                disk.sync(file)
                took.append((clock.boot_ns() - begin) / 1e6)
        finally:
            disk.close(file)
            disk.unlink(path)
    except OSError as error:
        return Finding("disk", "wrong", f"cannot write to {folder}: {error.strerror}")
    took.sort()
    median, late = took[len(took) // 2], took[-2]
    result: Literal["fine", "warning"] = "fine" if median < SYNC_SLOW_MS else "warning"
    return Finding("disk", result, f"fdatasync takes {median:.2f} ms, {late:.2f} ms at worst, in {folder}")


def check_ports(settings: Settings, running: str | None) -> list[Finding]:
    """Whether the listeners' addresses are free."""
    found = []
    try:
        places = listeners(settings)
    except HeadwaterError as error:
        return [Finding("cluster", "wrong", str(error))]
    for field, listen, host, port in places:
        trouble = listening.trouble(host, port)
        if trouble is None:
            found.append(Finding(field, "fine", f"{listen} is free"))
        elif running:
            found.append(
                Finding(field, "fine", f"{listen} is taken, by the running node (process {running})")
            )
        else:
            found.append(Finding(field, "wrong", f"cannot listen on {listen}: {trouble}"))
    return found


def check_files(settings: Settings) -> Finding:
    """How many files and connections a process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(FILES_WANTED, getattr(settings.collect, "connections_max", FILES_WANTED) + 64)
    result: Literal["fine", "warning"] = "fine" if soft >= wanted else "warning"
    return Finding("open files", result, f"{soft} allowed per process; each connection takes one (ulimit -n)")
