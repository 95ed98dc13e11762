"""``headwater restore``: a data folder from a backup, which is there as a whole or not at all.

Everything is written into ``.restoring`` inside the new folder, each file on disk, and compared with the manifest. Only
then the parts are moved to their names, ``headwater.json`` last: without it no node starts. What a restore left that
died is removed by the next one.

The restored folder is an older copy of itself, and somewhere a destination may know what became of the original after
the backup: logs that this folder never began, among which its own next ones must not be taken for read. So they begin
above all that is known in it (node/logids.py), above the time, and AHEAD_DAYS above both: that covers a clock that
stands back, even further than the backup. What is further still, its destination says (`destination_ahead`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator

import msgspec

from headwater.kit.clock import Clock
from headwater.kit.disk import Disk, make_folders
from headwater.kit.errors import Misconfigured, Rejected, Unavailable
from headwater.node import archive, folder, hold, logids
from headwater.node.archive import Manifest

RESTORING = ".restoring"
AHEAD_DAYS = 31
DAY_NS = 86_400_000_000_000

Tell = Callable[[str, int, int], None]


def check(path: str, tell: Tell) -> Manifest:
    """Read a backup to its end and compare everything; nothing is written. Errors as archive.read."""

    def take(name: str, size: int, mode: int, pieces: Iterator[bytes]) -> None:
        for _ in pieces:
            pass

    return archive.read(path, take, tell=counting("checking", tell))


def restore(path: str, data: str, disk: Disk, clock: Clock, tell: Tell) -> Manifest:
    """Make the data folder ``data`` from a backup; durable on return. After any error it is as it was.

    Misconfigured: the folder is not empty. Rejected: the backup is not what one can restore (archive.read).
    """
    new = not os.path.lexists(data)
    try:
        make_folders(disk, data)
        with drafts(data) as draft:
            manifest = archive.read(path, writer(draft), tell=counting("restoring", tell))
            begin_ahead(path, draft, disk, clock)
            sync_tree(draft)
            settle(draft, data)
    except OSError as error:
        clean(data, new)
        raise Unavailable(f"{error.filename or data}: {error.strerror}", code="restore_failed") from error
    except BaseException:
        clean(data, new)
        raise
    return manifest


def clean(data: str, new: bool) -> None:
    """Leave nothing behind that was not there."""
    if new:
        with contextlib.suppress(OSError):
            os.rmdir(data)


@contextlib.contextmanager
def drafts(data: str) -> Iterator[str]:
    """The folder ``.restoring`` in an empty data folder, gone afterwards."""
    if not os.path.isdir(data):
        raise Misconfigured(
            f"{data} is no folder", code="restore_place", help="give a new or an empty folder"
        )
    foreign = sorted(name for name in os.listdir(data) if name not in (RESTORING, "lost+found"))
    if foreign:
        raise Misconfigured(
            f"{data} is not empty: it holds {', '.join(foreign[:3])}",
            code="restore_place",
            help="nothing is overwritten; give a new or an empty folder with --data",
        )
    draft = f"{data}/{RESTORING}"
    os.makedirs(draft, 0o700, exist_ok=True)
    with hold.locked_folder(draft) as held:
        if not hold.taken(held, fcntl.LOCK_EX):
            raise Misconfigured(f"another restore writes {data} just now", code="restore_place")
        for name in os.listdir(draft):
            remove(f"{draft}/{name}")
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def remove(path: str) -> None:
    """A file or a folder."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def writer(draft: str) -> archive.Take:
    """Writes the files of a backup below a folder."""

    def take(name: str, size: int, mode: int, pieces: Iterator[bytes]) -> None:
        target = f"{draft}/{name}"
        os.makedirs(os.path.dirname(target), 0o750, exist_ok=True)
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(file, "wb") as out:
            for piece in pieces:
                out.write(piece)
            out.flush()
            os.fchmod(file, mode & 0o770)
            os.fsync(file)

    return take


def begin_ahead(path: str, draft: str, disk: Disk, clock: Clock) -> None:
    """Have the next logs begin above everything. Misconfigured where this version would not start on the folder;
    Rejected where it is none."""
    try:
        restored = folder.open_folder(draft, disk)
    except Misconfigured as error:
        if error.code == "no_folder":
            raise Rejected(f"{path} holds no {folder.NAME}", code="backup_damaged") from error
        raise Misconfigured(
            error.message.replace(draft, path),
            code=error.code,
            help="restore it with the version that wrote it",
        ) from error
    known = max(
        int(restored.identity.log_id, 16), logids.greatest(draft, disk), folder.log_id_at(clock.wall_ns())
    )
    restored.know_log_id(known + folder.log_id_at(AHEAD_DAYS * DAY_NS))


def sync_tree(path: str) -> None:
    """Make the names below a folder durable."""
    for place, _, _ in os.walk(path):
        sync_folder(place)


def settle(draft: str, data: str) -> None:
    """Move everything to its name; what makes it a data folder comes last."""
    for name in sorted(os.listdir(draft), key=lambda name: name == folder.NAME):
        if name == folder.NAME:
            sync_folder(data)
        os.rename(f"{draft}/{name}", f"{data}/{name}")
    sync_folder(data)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    with hold.locked_folder(path) as file:
        os.fsync(file)


def counting(what: str, tell: Tell) -> Callable[[int], None]:
    """Progress from pieces."""
    so_far = 0

    def more(count: int) -> None:
        nonlocal so_far
        so_far += count
        tell(what, so_far, 0)

    return more


def told(manifest: Manifest) -> dict[str, object]:
    """What a backup says of itself, without its files."""
    known = msgspec.to_builtins(manifest)
    files = known.pop("files")
    return {**known, "files": len(files), "bytes": sum(one["size"] for one in files)}
