"""``headwater backup``: one file with everything that a data folder holds, also while its node runs.

First a snapshot (node/snapshot.py), which takes seconds and in which each destination's own process copies its file
(destinations/copying.py); then the snapshot is packed, at low priority, while the node does what it likes. The file
appears under its name when it is whole and on disk, and never in place of another one.

Of a stopped node the data folder is locked until the snapshot is there; a start is refused for that long.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, cast

import msgspec

import headwater
from headwater.config.running import NodeInfo, read_node, read_settings
from headwater.destinations.duckdb.settings import WAL, DuckDbSettings
from headwater.kit import ask
from headwater.kit.clock import Clock
from headwater.kit.disk import Disk
from headwater.kit.errors import Misconfigured, Rejected, Unavailable
from headwater.kit.happenings import wall_text
from headwater.node import archive, snapshot
from headwater.node.archive import Head, Listed, Manifest
from headwater.node.folder import Identity, Lock, read_identity, take_lock
from headwater.node.settings import Settings
from headwater.node.snapshot import Facts, Item, Snapshot

SETTLE_S = 30.0
"""How long to wait for a node that starts or stops."""
ASK_S = 24 * 3600.0
"""No copy of a destination takes longer."""
COPY_TRIES = 3
SYNC_BYTES = 16 * 1024 * 1024
LINK_INTERVAL_S = 1.0
POLL_S = 0.1

Tell = Callable[[str, int, int], None]
"""Progress: what is done now, bytes so far, bytes in all (0: not known)."""


@dataclass(frozen=True, slots=True)
class Running:
    """A node that runs on the folder."""

    info: NodeInfo
    settings: Settings


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was made."""

    path: str
    bytes: int
    holds_bytes: int
    files: int
    seconds: float
    delivery_waited_ms: dict[str, float]
    """Destination → how long nothing was loaded into it."""
    facts: Facts
    configuration: str
    inside: list[str]
    outside: list[str]


class Backup:
    """One backup while it is made."""

    def __init__(
        self, data: str, disk: Disk, clock: Clock, tell: Tell = lambda what, done, whole: None
    ) -> None:
        self.data = data
        self.disk = disk
        self.clock = clock
        self.tell = tell
        self.identity: Identity = read_identity(data, disk)
        self.waited_ms: dict[str, float] = {}
        self.inside: list[str] = []
        self.outside: list[str] = []
        self.node_ran = False
        self.configuration = ""

    def make(self, target: str) -> Done:
        """Make it; the file is durable on return.

        Misconfigured: no data folder, no room. Rejected: the target cannot be. Unavailable: the node, or a destination
        in it, did not answer; nothing was made.
        """
        began_ns, began_wall_ns = self.clock.boot_ns(), self.clock.wall_ns()
        path = target_path(target, self.identity, began_wall_ns)
        head = Head(
            headwater_backup=archive.FORMAT,
            version=headwater.__version__,
            folder_id=self.identity.folder_id,
            began_ns=began_wall_ns,
        )
        with draft(path, self.data) as file, snapshot.place(self.data, self.disk) as place:
            held, facts = self.hold(place)
            manifest = self.pack(file, path, head, held, facts)
            os.fsync(file)
            size = os.fstat(file).st_size
        return Done(
            path=path,
            bytes=size,
            holds_bytes=sum(listed.size for listed in manifest.files),
            files=len(manifest.files),
            seconds=(self.clock.boot_ns() - began_ns) / 1e9,
            delivery_waited_ms=self.waited_ms,
            facts=facts,
            configuration=self.configuration,
            inside=self.inside,
            outside=self.outside,
        )

    # -- the snapshot

    def hold(self, place: str) -> tuple[Snapshot, Facts]:
        """Make the snapshot, of a running node or of a stopped one."""
        found = self.settle()
        self.node_ran = isinstance(found, Running)
        held = Snapshot(self.data, place, self.disk, self.clock, stopped=not self.node_ran)
        try:
            if isinstance(found, Running):
                self.hold_running(held, found)
            else:
                self.tell_of_last_run()
                held.check_room([])
                held.note_memories()
                held.note_logs()
                held.note_rest(lambda path: False)
        finally:
            if isinstance(found, Lock):
                found.release()
        return held, held.finish()

    def settle(self) -> Running | Lock:
        """The running node, all of whose former logs have their ends; or the lock of a folder on which none runs."""
        until_ns = self.clock.boot_ns() + int(SETTLE_S * 1e9)
        while True:
            try:
                return take_lock(self.data, self.clock, 0.0)
            except Misconfigured as error:
                if error.code != "folder_locked":
                    raise
            with contextlib.suppress(Unavailable, FileNotFoundError):
                info = read_node(self.data, self.disk)
                if info.start == read_identity(self.data, self.disk).starts:  # written behind the recovery
                    return Running(info, read_settings(self.data, self.disk, Settings))
            if self.clock.boot_ns() > until_ns:
                raise Unavailable(
                    f"the node on {self.data} is starting or stopping, and does not come to an end with it",
                    code="node_unsettled",
                    help="try again when `headwater status` answers",
                )
            self.clock.block(POLL_S)

    def hold_running(self, held: Snapshot, node: Running) -> None:
        """The parts in their order; see Snapshot."""
        self.configuration = node.info.configuration
        files = self.destination_files(node.settings)
        held.check_room(list(files.values()))
        held.note_memories()
        held.link_logs()
        for name, path in files.items():
            self.copy_destination(held, name, path)
        held.note_logs()
        theirs = {*files.values(), *(path + WAL for path in files.values())}
        held.note_rest(theirs.__contains__)

    def tell_of_last_run(self) -> None:
        """What is known of the destinations of a stopped node: for people, all its files are taken anyway."""
        with contextlib.suppress(Unavailable, FileNotFoundError, msgspec.MsgspecError):
            self.configuration = read_node(self.data, self.disk).configuration
            self.destination_files(read_settings(self.data, self.disk, Settings))

    def destination_files(self, settings: Settings) -> dict[str, str]:
        """The destinations whose file is in the data folder, and where in it."""
        found = {}
        for name, one in settings.destinations.items():
            path = os.path.relpath(os.path.join(self.data, getattr(one, "path", "..")), self.data)
            if isinstance(one, DuckDbSettings) and not path.startswith(".."):
                found[name] = path
                self.inside.append(name)
            else:
                self.outside.append(name)
        return found

    def copy_destination(self, held: Snapshot, name: str, path: str) -> None:
        """Have the process that holds a destination copy it; meanwhile new segments get their second name."""
        for left in reversed(range(COPY_TRIES)):
            folder = held.target(f"{path}.copy/-")[:-2]
            try:
                told = self.ask(held, name, folder, path)
                break
            except Unavailable as error:  # its process may have died: the supervisor starts another one
                empty(folder)
                if not left or error.code == "destination_closed":
                    raise
                self.clock.block(LINK_INTERVAL_S)
        for part in told["files"]:
            os.rename(f"{folder}/{part}", held.target(os.path.join(os.path.dirname(path), part)))
            held.note(os.path.join(os.path.dirname(path), part))
        empty(folder)
        self.waited_ms[name] = told["held_ms"]
        held.link_logs()

    def ask(self, held: Snapshot, name: str, folder: str, path: str) -> dict[str, Any]:
        """One try of ``copy_destination``."""
        snapshot.belong(self.data, os.path.dirname(folder), folder)
        whole = os.path.getsize(f"{self.data}/{path}") if os.path.exists(f"{self.data}/{path}") else 0
        socket = f"{self.data}/run/deliver-{name}.sock"
        request = {"op": "copy", "destination": name, "folder": folder}
        with ThreadPoolExecutor(1) as pool:
            asked: Future[tuple[dict[str, Any], bytes]] = pool.submit(ask.ask, socket, request, ASK_S)
            linked_ns = self.clock.boot_ns()
            while not asked.done():
                self.clock.block(POLL_S)
                there = f"{folder}/{os.path.basename(path)}"
                self.tell(f"copying {name}", os.path.getsize(there) if os.path.exists(there) else 0, whole)
                if self.clock.boot_ns() - linked_ns > LINK_INTERVAL_S * 1e9:
                    linked_ns = self.clock.boot_ns()
                    held.link_logs()
            return asked.result()[0]

    # -- the file

    def pack(self, file: int, path: str, head: Head, held: Snapshot, facts: Facts) -> Manifest:
        """Write the snapshot into the file; what is written is given back."""
        items = sorted(held.items.values())
        whole, so_far = sum(item.size for item in items), 0

        def more(count: int) -> None:
            nonlocal so_far
            so_far += count
            self.tell("packing", so_far, whole)

        def done(item: Item) -> None:
            os.unlink(item.source)

        def manifest_of(listed: list[Listed]) -> Manifest:
            return Manifest(
                head=head,
                facts=facts,
                node_ran=self.node_ran,
                configuration=self.configuration,
                inside=self.inside,
                outside=self.outside,
                files=listed,
            )

        with Synced(file) as synced:
            out = cast(IO[bytes], synced)
            return archive.write(out, path.endswith(".zst"), head, items, manifest_of, tell=more, done=done)


class Synced(io.RawIOBase):
    """A file that is written out as it grows: a long tail of pages would hold up the node's own syncs at the end."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.unsynced = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        """As a file's; all of it."""
        view = memoryview(data).cast("B")
        self.unsynced += len(view)
        length = len(view)
        while view:
            view = view[os.write(self.file, view) :]
        if self.unsynced > SYNC_BYTES:
            self.unsynced = 0
            os.fdatasync(self.file)
        return length


def empty(folder: str) -> None:
    """Remove a folder of files."""
    for name in os.listdir(folder):
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)


def target_path(target: str, identity: Identity, wall_ns: int) -> str:
    """Where the backup goes: the file that is named, or one with a name of its own in the folder that is."""
    path = os.path.abspath(target)
    if os.path.isdir(path):
        time = wall_text(wall_ns)[:19].replace(":", "-")
        path = f"{path}/headwater-{identity.folder_id}-{time}Z.tar.zst"
    if not path.endswith(archive.SUFFIXES):
        raise Rejected(
            f"{target}: expected a name that ends with .tar.zst or .tar, or a folder that is there",
            code="backup_name",
        )
    if os.path.lexists(path):
        raise there_already(path)
    return path


def there_already(path: str) -> Rejected:
    """The error for a target that is there."""
    return Rejected(
        f"{path} is there already", code="backup_exists", help="nothing is overwritten; give another name"
    )


@contextlib.contextmanager
def draft(path: str, data: str) -> Iterator[int]:
    """A file that gets its name, durably, when the block ends without an error; what a dead one left is used again.

    Rejected: it cannot be made there, somebody else makes it, or its name is taken at the end.
    """
    part = f"{path}.part"
    if os.path.realpath(path).startswith(os.path.realpath(data) + "/"):
        raise Rejected(
            f"{path} is in the data folder, and would be a part of the next backup",
            code="backup_inside",
            help="give a place outside of it, best on another machine",
        )
    try:
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Rejected(f"{part} cannot be made: {error.strerror}", code="backup_place") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Rejected(f"another backup writes {path} just now", code="backup_exists") from None
        os.fchmod(file, 0o600)
        os.ftruncate(file, 0)
        try:
            yield file
            name_it(part, path)
        except OSError as error:
            raise Unavailable(
                f"{error.filename or path}: {error.strerror or error}", code="backup_failed"
            ) from error
        finally:
            os.unlink(part)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        os.close(file)


def name_it(part: str, path: str) -> None:
    """Give a whole file its name, which nothing may have."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise there_already(path) from None
