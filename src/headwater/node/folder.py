"""The data folder: made, opened, locked, and what it says about itself.

``headwater.json`` {"format", "folder_id", "partitions", "secret", "starts", "log_id"}, readable by its owner only, is
replaced whole and durably at each start, and whenever a log id is handed out: *before* the id is used, so that none is
ever given twice, whatever the clock does (INV-LOG-3).

``lock`` is held by flock, by the supervisor and by every process that it starts (they inherit it): the next supervisor
waits until the last of them is gone, so no two processes ever write the same log.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from typing import Any

import msgspec

from headwater.event.position import WriterId, writer_id
from headwater.event.slots import PARTITIONS_DEFAULT
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, make_folders, read_whole, write_whole
from headwater.kit.errors import Misconfigured
from headwater.kit.rng import Rng
from headwater.log.block import Secret

FORMAT = 2
FORMAT_COMPRESSED = 3
"""As 2, and raw may hold compressed segments, which older versions would take for lost ones. A folder gets it with
its first such segment, so that one without can still be opened by them."""
FORMATS = (FORMAT, FORMAT_COMPRESSED)
NAME = "headwater.json"
FOLDERS = ("keys", "raw", "ready", "state", "run", "run/reports")
LOCK_WAIT_S = 5.0
LOCK_POLL_S = 0.1
LOG_RANDOM_BITS = 22


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What ``headwater.json`` holds."""

    format: int
    folder_id: str
    partitions: int
    secret: str
    """u64 in hex: the seed of every block's hash (log/block)."""
    starts: int = 0
    log_id: str = "0" * 16
    """The last log id that was handed out, in any process of any start."""


class Folder:
    """A data folder of this version, opened by the supervisor (``open_folder``)."""

    def __init__(self, path: str, disk: Disk, identity: Identity) -> None:
        self.path = path
        self.disk = disk
        self.identity = identity
        self.saving = threading.Lock()
        """Several processes may be prepared at once, each in a thread."""

    @property
    def id(self) -> int:
        """The folder's u64, low 16 bits zero."""
        return int(self.identity.folder_id, 16)

    @property
    def secret(self) -> Secret:
        """What the folder's blocks are hashed with."""
        return secret_of(self.identity)

    def writer(self, worker: int) -> WriterId:
        """The writer of a collect worker."""
        return writer_id(self.id, worker)

    def raw(self, worker: int) -> str:
        """The folder of a collect worker's logs."""
        return f"{self.path}/raw/{self.writer(worker):016x}"

    def ready(self, processor: int) -> str:
        """The folder of a processor's commits."""
        return f"{self.path}/ready/{processor}"

    def count_start(self) -> int:
        """The number of this start; durable on return."""
        self.save(starts=self.identity.starts + 1)
        return self.identity.starts

    def next_log_id(self, clock: Clock, rng: Rng) -> int:
        """A log id above every one that was ever handed out here; durable on return.

        Drawn also where the wall clock went back: a folder restored from a copy must not count on as its lost
        future did (protocol-why.md L2).
        """
        draw = rng.below(1 << LOG_RANDOM_BITS)
        by_time = log_id_at(clock.wall_ns()) + draw
        with self.saving:
            log_id = max(int(self.identity.log_id, 16) + 1 + draw, by_time)
            self.save(log_id=f"{log_id:016x}")
        return log_id

    def know_log_id(self, log_id: int) -> None:
        """Ids that are handed out from now on are above this one too; durable on return."""
        with self.saving:
            if log_id > int(self.identity.log_id, 16):
                self.save(log_id=f"{log_id:016x}")

    def know_format(self, number: int) -> None:
        """The folder is about to hold what only this format allows; durable on return."""
        with self.saving:
            if self.identity.format < number:
                self.save(format=number)

    def save(self, **changes: Any) -> None:
        """Change the identity durably."""
        self.identity = msgspec.structs.replace(self.identity, **changes)
        write_whole(self.disk, f"{self.path}/{NAME}", msgspec.json.encode(self.identity), private=True)


def log_id_at(wall_ns: int) -> int:
    """The least log id of a moment: ids follow the clock where it goes forward."""
    return wall_ns // 1_000_000 << LOG_RANDOM_BITS


def make_folder(path: str, disk: Disk, rng: Rng) -> Folder:
    """A new data folder, or the one that is there. Durable on return."""
    if disk.exists(f"{path}/{NAME}"):
        return open_folder(path, disk)
    make_folders(disk, path)  # also where it is there: who made it may have died before its name was durable
    own = {"lock", "keys", NAME + ".tmp"}
    foreign = sorted(name for name in disk.listdir(path) if name not in own and not name.endswith(".mmdb"))
    if foreign:
        raise Misconfigured(
            f"{path} is not a data folder, and not empty: it holds {', '.join(foreign[:3])}",
            code="folder_foreign",
            help="give an empty or a new folder with --data",
        )
    for name in FOLDERS:
        disk.mkdir(f"{path}/{name}")
    disk.sync_dir(path)
    identity = Identity(
        format=FORMAT,
        folder_id=f"{rng.u64() & ~0xFFFF or 1 << 16:016x}",
        partitions=PARTITIONS_DEFAULT,
        secret=f"{rng.u64():016x}",
    )
    folder = Folder(path, disk, identity)
    folder.save()
    return folder


def open_folder(path: str, disk: Disk) -> Folder:
    """An existing data folder. Misconfigured where there is none, or one of another version."""
    identity = read_identity(path, disk)
    for name in FOLDERS:
        disk.mkdir(f"{path}/{name}")
    return Folder(path, disk, identity)


def secret_of(identity: Identity) -> Secret:
    """The secret of a data folder."""
    return Secret(int(identity.secret, 16))


def read_identity(path: str, disk: Disk) -> Identity:
    """What a data folder says about itself; Misconfigured as ``open_folder``."""
    try:
        data = read_whole(disk, f"{path}/{NAME}")
    except FileNotFoundError:
        raise Misconfigured(
            f"{path} is not a data folder: it has no {NAME}", code="no_folder", help="name it with --data"
        ) from None
    try:
        told = msgspec.json.decode(data, type=dict[str, Any])
        if (version := told.get("format")) not in FORMATS:
            raise Misconfigured(
                f"{path} has format {version}; this version of Headwater reads {' and '.join(map(str, FORMATS))}",
                code="folder_format",
                help="start it with the version that wrote it, or give another folder with --data",
            )
        return msgspec.convert(told, Identity)
    except msgspec.MsgspecError as error:
        raise Misconfigured(f"{path}/{NAME} cannot be read: {error}", code="folder_format") from error


class Lock:
    """The lock of a data folder. ``file`` is inherited by the processes of the node."""

    def __init__(self, file: int) -> None:
        self.file = file

    def release(self) -> None:
        """Let go; the processes that inherited it hold it until they end."""
        os.close(self.file)


def take_lock(path: str, clock: Clock, wait_s: float = LOCK_WAIT_S) -> Lock:
    """Lock the folder; Misconfigured says who holds it. Waits a little: a killed node's last processes are ending."""
    file = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    until = clock.boot_ns() + int(wait_s * 1e9)
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        holder = os.pread(file, 64, 0).decode(errors="replace").strip() or "unknown"
        if clock.boot_ns() >= until or is_alive(holder):
            os.close(file)
            raise Misconfigured(
                f"the data folder {path} is in use by process {holder}",
                code="folder_locked",
                help="stop that node first, or give another folder with --data",
            )
        clock.block(LOCK_POLL_S)
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return Lock(file)


def is_alive(pid: str) -> bool:
    """Whether a process of this number runs."""
    return pid.isdigit() and os.path.exists(f"/proc/{pid}")
