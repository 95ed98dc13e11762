"""The data folder as it is at one moment, held fast in ``run/backup/<pid>/`` without copying the logs.

Everything that one part refers to is in the parts that are noted after it (protocol.md §0): what deliverers remember ≤
destinations ≤ folds ≤ the ready logs ≤ the raw log. So a restored folder lacks nothing that it has already used, and
every event that was acknowledged before the snapshot began is in it.

* Segments get a second name (a hard link). The node may give its own back meanwhile; ``log/retain`` removes what has
  two names and does not recycle it. Of a log that grows, what lies below its watermark is taken, and a watermark that
  says so. Links are made while nothing is retired (``hold``): at the beginning, after each destination, and at the end.
* Of a *stopped* node's logs without an end nothing is cut: after a crash of the machine the watermark, which is never
  synced, may be older than the blocks. The next start of the restored folder decides, as the next start here would.
* Small files, and what is changed in place, are copied.

A snapshot whose process has died is removed by the next one, and by the node (``sweep``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from headwater.identity.copies import copy_store
from headwater.kit.clock import Clock
from headwater.kit.copies import cloned, copy_file, copy_sqlite
from headwater.kit.disk import Disk, make_folders, read_whole
from headwater.kit.errors import Misconfigured, Unavailable
from headwater.log import extent, files
from headwater.log.files import Segment
from headwater.node import folder, hold

PLACE = "run/backup"
ROOM_LEFT_BYTES = 64 * 1024 * 1024
"""What copies must leave free on the disk of the node."""
CHANGED_TRIES = 3
OWN = ("run", "lock", "raw", "ready", "state", "mirror", "kafka", folder.NAME)
"""Names in the data folder that are not simply copied. What mirrors hold is other nodes' and can be fetched again."""
U64 = struct.Struct("=Q")


class Item(NamedTuple):
    """A file of the snapshot."""

    path: str
    """In the data folder."""
    source: str
    """Where its bytes are, as long as the snapshot is there."""
    size: int
    mode: int
    mtime: int


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the snapshot holds, for people and for the manifest."""

    folder_id: str
    events: int = 0
    """Events that were ever accepted, in all logs."""
    until_ns: int = 0
    """Node time of the last block of the raw logs; 0 without any."""
    raw: dict[str, tuple[int, int]] = {}
    """Writer (hex) → log and next number."""
    ready: dict[str, tuple[int, int]] = {}


class Snapshot:
    """One snapshot while it is made and read. ``stopped``: the caller holds the lock of the data folder."""

    def __init__(self, data: str, place: str, disk: Disk, clock: Clock, *, stopped: bool) -> None:
        self.data = data
        self.tree = f"{place}/data"
        self.disk = disk
        self.clock = clock
        self.stopped = stopped
        self.items: dict[str, Item] = {}
        self.limits: dict[str, dict[int, int | None]] = {}
        """Folder of a log (``raw/…``) → log → the first number that is not taken; None: the next start decides."""
        self.ends: dict[str, dict[int, int]] = {}
        """The same as far as it is known; for people."""
        self.until_ns = 0

    # -- in this order

    def link_logs(self) -> None:
        """Give every segment that is there a second name."""
        with hold.linking(self.data, self.clock):
            for part in self.logs():
                self.link_folder(part)

    def note_memories(self) -> None:
        """What deliverers remember, which must never be newer than their destinations."""
        for name in self.disk.listdir(f"{self.data}/state"):
            self.put_small(f"state/{name}/state.json")

    def note_logs(self) -> None:
        """Folds, then the ends of the ready logs, then those of the raw logs; and all of their segments."""
        with hold.linking(self.data, self.clock):
            for name in self.disk.listdir(f"{self.data}/state"):
                if not name.endswith(".gone"):
                    self.note_state(f"state/{name}")
            for part in self.logs():
                self.limits[part] = self.limits_of(part)
            for part in self.limits:
                self.link_folder(part)
                self.keep_open_end(part)
            self.put_schema()

    def note_rest(self, taken: Callable[[str], bool]) -> None:
        """All other files, but those that are ``taken`` already (paths in the data folder)."""
        for path in sorted(self.rest()):
            if not taken(path):
                self.copy(path)

    def finish(self) -> Facts:
        """Say how much of each segment belongs to it, and what all of it holds."""
        self.put_small(folder.NAME)  # last: it knows every log id that anything above does
        for part in self.limits:
            self.measure(part)
        identity = folder.read_identity(self.tree, self.disk)
        return Facts(
            folder_id=identity.folder_id,
            events=sum(sum(ends.values()) for part, ends in self.ends.items() if part.startswith("raw/")),
            until_ns=self.until_ns,
            raw=self.last_ends("raw"),
            ready=self.last_ends("ready"),
        )

    # -- logs

    def logs(self) -> list[str]:
        """The folders of all logs: ready before raw, since what is ready comes from raw."""
        return [
            f"{part}/{name}"
            for part in ("ready", "raw")
            for name in self.disk.listdir(f"{self.data}/{part}")
            if not name.endswith(".gone")
        ]

    def link_folder(self, part: str) -> None:
        """Second names for the segments of a log; what has one keeps it. Listed again where one got another form."""
        os.makedirs(f"{self.tree}/{part}", mode=0o700, exist_ok=True)
        while True:
            names = filter(files.SEGMENT.match, self.disk.listdir(f"{self.data}/{part}"))
            if all(self.link(f"{part}/{name}") for name in names):
                return

    def limits_of(self, part: str) -> dict[int, int | None]:
        """Up to where each log is taken; its end and its watermark are noted with it."""
        limits: dict[int, int | None] = {}
        ends = self.ends[part] = {}
        path = f"{self.data}/{part}"
        for log in files.logs(self.disk, path):
            end = files.read_end(self.disk, path, log)
            watermark = files.read_watermark(self.disk, path, log)
            if end is None and not self.stopped and not watermark:
                continue  # begun just now: nothing was acknowledged in it
            limits[log] = end.seq if end is not None else None if self.stopped else watermark
            ends[log] = watermark if end is None else end.seq
            if end is not None:
                self.put(f"{part}/{log:016x}.end", read_whole(self.disk, files.end_path(path, log)))
            if watermark:
                self.put(f"{part}/{log:016x}.wm", U64.pack(watermark))
        return limits

    def keep_open_end(self, part: str) -> None:
        """A start of the node, once the lock is let go, cuts the last segment of a log that has no end: copy it."""
        for log, limit in self.limits[part].items():
            own = [s for s in files.segments(self.disk, f"{self.tree}/{part}") if s.log == log]
            if limit is None and own:
                path = f"{part}/{os.path.basename(own[-1].path)}"
                os.unlink(f"{self.tree}/{path}")
                self.copy(path)

    def measure(self, part: str) -> None:
        """Which linked segments are taken, and how much of each.

        One that the node has given back since is left out where the one behind it does not follow at once: readers
        would take what lies between for damage.
        """
        live = {segment[:2] for segment in files.segments(self.disk, f"{self.data}/{part}")}  # in either form
        gap = False
        following: Segment | None = None
        for segment in reversed(files.segments(self.disk, f"{self.tree}/{part}")):
            path = f"{part}/{os.path.basename(segment.path)}"
            limit = self.limits[part].get(segment.log, 0)
            if limit is not None and segment.first >= limit:
                self.drop(path)
                continue
            same = following is not None and following.log == segment.log
            until = following.first if same and following is not None else limit
            if not path.endswith(".seg"):  # of another form than the one that is written: sealed, and whole
                following = segment
                continue
            found = extent.walk(self.disk, segment.path, segment, until)
            gap = gap or (until is not None and found.next_seq != until)
            if gap and segment[:2] not in live:
                self.drop(path)
                continue
            whole = until is not None and found.next_seq == until
            size = found.bytes if whole else extent.without_zeros(self.disk, segment.path)
            self.items[path] = self.items[path]._replace(size=size)
            self.ends[part][segment.log] = max(self.ends[part][segment.log], found.next_seq)
            if part.startswith("raw/"):
                self.until_ns = max(self.until_ns, found.node_time_ns)
            following = segment

    def last_ends(self, kind: str) -> dict[str, tuple[int, int]]:
        """Where each writer stands in the snapshot."""
        return {
            name: max(ends.items())
            for (part, name), ends in ((path.split("/"), ends) for path, ends in self.ends.items())
            if part == kind and ends
        }

    # -- state

    def note_state(self, part: str) -> None:
        """A folder of state: the fold first, what it refers to after it."""
        self.put_small(f"{part}/fold")
        for path in sorted(self.below(part)):
            name = os.path.basename(path)
            if name.endswith(".sqlite"):
                self.copy(path, copy_sqlite)
            elif name == "data.mdb":
                self.copy(path, lambda source, target: copy_store(os.path.dirname(source), target))
            elif name.endswith(".run"):
                self.link(path)  # or it is gone: ids that no window reaches any more (process/state.py)
            elif name not in ("fold", "state.json"):
                self.copy(path)

    def put_schema(self) -> None:
        """After the ready logs, whose columns it names; behind its last line may be the beginning of another."""
        with contextlib.suppress(FileNotFoundError):
            self.put("schema.ndjson", read_whole(self.disk, f"{self.data}/schema.ndjson"))

    # -- the rest

    def rest(self) -> Iterator[str]:
        """Files that belong to no part of the above."""
        for name in self.disk.listdir(self.data):
            if name not in OWN and name != "schema.ndjson":
                yield from self.below(name)

    def below(self, path: str) -> Iterator[str]:
        """The files at and below a path in the data folder, without drafts and what databases spill."""
        if (
            path.endswith((".tmp", ".sqlite-wal", ".sqlite-shm", "/lock.mdb"))
            or os.path.basename(path) == "spill"
        ):
            return
        whole = f"{self.data}/{path}"
        if os.path.isdir(whole):
            for name in self.disk.listdir(whole):
                yield from self.below(f"{path}/{name}")
        elif os.path.isfile(whole):
            yield path

    def check_room(self, destinations: list[str]) -> None:
        """Misconfigured where copies do not fit beside the node. Where files can share their bytes, they take none."""
        paths = {*self.rest(), *(path for path in destinations if os.path.isfile(f"{self.data}/{path}"))}
        wanted = sum(os.path.getsize(f"{self.data}/{path}") for path in paths)
        free = self.disk.free_bytes(self.data)
        if wanted + ROOM_LEFT_BYTES > free and not self.shares():
            raise Misconfigured(
                f"{self.data}: {free >> 20} MiB are free, and the snapshot takes {wanted >> 20} MiB for a moment",
                code="backup_room",
                help="make room on the disk of the data folder",
            )

    def shares(self) -> bool:
        """Whether files of this file system can share their bytes."""
        probe = f"{self.tree}/.probe"
        with open(f"{self.data}/{folder.NAME}", "rb") as source, open(probe, "wb") as target:
            able = cloned(source.fileno(), target.fileno())
        os.unlink(probe)
        return able

    # -- files

    def link(self, path: str) -> bool:
        """A second name; a no-op where it has one. False where the file is gone."""
        target = self.target(path)
        try:
            os.link(f"{self.data}/{path}", target)
        except FileExistsError:
            pass
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Misconfigured(
                f"{self.data}/{path} cannot be linked below {self.data}/run: {error.strerror}",
                code="backup_links",
                help="a backup needs a data folder on one file system that has hard links",
            ) from error
        self.note(path)
        return True

    def copy(self, path: str, by: Callable[[str, str], None] = copy_file) -> None:
        """A copy; tried again where the file was changed meanwhile."""
        target = self.target(path)
        for left in reversed(range(CHANGED_TRIES)):
            try:
                by(f"{self.data}/{path}", target)
                break
            except Unavailable as error:
                os.unlink(target)
                if error.code != "copy_changed" or not left:
                    raise
        self.note(path)

    def put_small(self, path: str) -> None:
        """A file that is replaced whole, as it is now, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.put(path, read_whole(self.disk, f"{self.data}/{path}"))

    def put(self, path: str, data: bytes) -> None:
        """A file of the snapshot with these bytes."""
        with open(os.open(self.target(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        self.note(path)

    def target(self, path: str) -> str:
        """Where a file of the snapshot is; its folder is made."""
        whole = f"{self.tree}/{path}"
        os.makedirs(os.path.dirname(whole), mode=0o700, exist_ok=True)
        return whole

    def note(self, path: str) -> None:
        """Take a file of the snapshot as it is, with the mode of the one in the data folder."""
        own = os.stat(f"{self.tree}/{path}")
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(f"{self.data}/{path}").st_mode & 0o777
            self.items[path] = Item(path, f"{self.tree}/{path}", own.st_size, mode, int(own.st_mtime))
            return
        self.items[path] = Item(path, f"{self.tree}/{path}", own.st_size, 0o600, int(own.st_mtime))

    def drop(self, path: str) -> None:
        """Leave a file out."""
        os.unlink(f"{self.tree}/{path}")
        self.items.pop(path, None)


@contextlib.contextmanager
def place(data: str, disk: Disk) -> Iterator[str]:
    """A folder for a snapshot, gone afterwards."""
    sweep(data)
    path = f"{data}/{PLACE}/{os.getpid()}"
    make_folders(disk, f"{data}/{PLACE}")
    while True:
        os.makedirs(path, 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError), hold.locked_folder(path) as held:
            if not hold.taken(held, fcntl.LOCK_EX) or not os.path.exists(path):
                continue  # the node has just swept it, before it was locked
            try:
                os.mkdir(f"{path}/data", 0o700)
                belong(data, f"{data}/{PLACE}", path, f"{path}/data")
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
            return


def belong(data: str, *paths: str) -> None:
    """Folders that root makes are the node's: a destination's process copies its file into them."""
    owner = os.stat(data)
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, owner.st_uid, owner.st_gid)


def sweep(data: str) -> None:
    """Remove the snapshots of processes that have died."""
    try:
        names = os.listdir(f"{data}/{PLACE}")
    except FileNotFoundError:
        return
    for name in names:
        with contextlib.suppress(FileNotFoundError), hold.locked_folder(f"{data}/{PLACE}/{name}") as held:
            if hold.taken(held, fcntl.LOCK_EX):
                shutil.rmtree(f"{data}/{PLACE}/{name}", ignore_errors=True)
