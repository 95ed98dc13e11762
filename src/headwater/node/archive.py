"""A backup as one file: a tar, packed by zstd where its name says so (``.tar.zst``), that says of itself what it holds.

::

    headwater-backup.json    Head: format, folder, time. First, so that a foreign file is known at once
    data/…                   the data folder
    manifest.json            Manifest: every file with its size and SHA-256, and the hash of all that

Written and read in one pass, in pieces of a mebibyte. What has no manifest at its end is torn; what is not exactly what
the manifest lists is damaged. ``tar --zstd -xf`` reads it too.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, TypeVar, cast

import msgspec
import zstandard

from headwater.kit.errors import Rejected, Unavailable
from headwater.node.snapshot import Facts, Item

FORMAT = 1
HEAD, MANIFEST, DATA = "headwater-backup.json", "manifest.json", "data/"
SUFFIXES = (".tar.zst", ".tar")
PIECE_BYTES = 1024 * 1024
SMALL_BYTES_MAX = 256 * 1024 * 1024
"""Of a head or manifest; 100,000 files take about 20 MiB."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LEVEL = 3

S = TypeVar("S", bound=msgspec.Struct)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first member."""

    headwater_backup: int
    version: str
    folder_id: str
    began_ns: int
    """Wall clock."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the data folder."""

    path: str
    size: int
    mode: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The last member."""

    head: Head
    facts: Facts
    node_ran: bool
    configuration: str = ""
    """Where the node read its configuration, which is no part of the backup."""
    inside: list[str] = []
    """Destinations whose files are in it."""
    outside: list[str] = []
    """Destinations that are elsewhere."""
    files: list[Listed]
    seal: str = ""
    """SHA-256 of this with an empty seal."""


class Reader:
    """Passes on the bytes of a file, up to a length, and knows their hash."""

    def __init__(self, file: IO[bytes], length: int, tell: Callable[[int], None]) -> None:
        self.file = file
        self.left = length
        self.hash = hashlib.sha256()
        self.tell = tell

    def read(self, length: int = -1) -> bytes:
        """As a file's."""
        data = self.file.read(self.left if length < 0 else min(length, self.left))
        self.left -= len(data)
        self.hash.update(data)
        self.tell(len(data))
        return data


def sealed(manifest: Manifest) -> Manifest:
    """The manifest with its own hash in it."""
    open_ = msgspec.structs.replace(manifest, seal="")
    return msgspec.structs.replace(open_, seal=hashlib.sha256(msgspec.json.encode(open_)).hexdigest())


# -- writing


def write(
    file: IO[bytes],
    packed: bool,
    head: Head,
    items: Sequence[Item],
    manifest_of: Callable[[list[Listed]], Manifest],
    *,
    tell: Callable[[int], None],
    done: Callable[[Item], None],
) -> Manifest:
    """Write all of it into an open file. ``tell``: so many bytes more; ``done``: an item's file may go.

    Unavailable: a file is shorter than it was when the snapshot was made.
    """
    with ExitStack() as stack:
        out: IO[bytes] = file
        if packed:
            compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
            out = stack.enter_context(compressor.stream_writer(file, closefd=False))
        tar = stack.enter_context(
            tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=PIECE_BYTES)
        )
        add_small(tar, HEAD, msgspec.json.format(msgspec.json.encode(head)), head)
        listed = []
        for item in items:
            listed.append(add_file(tar, item, tell))
            done(item)
        manifest = sealed(manifest_of(listed))
        add_small(tar, MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)), head)
    return manifest


def add_small(tar: tarfile.TarFile, name: str, data: bytes, head: Head) -> None:
    """A member of our own."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, head.began_ns // 1_000_000_000
    tar.addfile(entry, io.BytesIO(data))


def add_file(tar: tarfile.TarFile, item: Item, tell: Callable[[int], None]) -> Listed:
    """A file of the data folder."""
    entry = tarfile.TarInfo(DATA + item.path)
    entry.size, entry.mode, entry.mtime = item.size, item.mode, item.mtime
    with open(item.source, "rb") as file:
        reader = Reader(file, item.size, tell)
        try:
            tar.copybufsize = PIECE_BYTES  # type: ignore[attr-defined]
            tar.addfile(entry, cast(IO[bytes], reader))
        except OSError as error:
            if reader.left and not error.errno:
                raise Unavailable(
                    f"{item.path} became shorter while it was read", code="copy_changed"
                ) from error
            raise
    return Listed(path=item.path, size=item.size, mode=item.mode, sha256=reader.hash.hexdigest())


# -- reading

Take = Callable[[str, int, int, Iterator[bytes]], None]
"""A file comes: path, size, mode, and its bytes, all of which must be taken."""


def read(path: str, take: Take, *, tell: Callable[[int], None] = lambda count: None) -> Manifest:
    """Read a backup to its end, and hand out its files as they come, *before* they are known to be right.

    Right they are when this returns. Rejected: foreign, of a later format, torn, or damaged.
    """
    try:
        with members(path) as tar:
            return read_members(tar, path, take, tell)
    except (
        tarfile.TarError,
        zstandard.ZstdError,
        EOFError,
        ValueError,
    ) as error:  # headers can hold any text
        raise torn(path, str(error)) from error


def read_members(tar: tarfile.TarFile, path: str, take: Take, tell: Callable[[int], None]) -> Manifest:
    """``read``, of an opened tar."""
    head: Head | None = None
    found: list[Listed] = []
    for entry in tar:
        if head is None:
            head = read_head(tar, entry, path)
        elif entry.name == MANIFEST:
            return checked(small(tar, entry, path, Manifest), head, found, path)
        else:
            found.append(read_file(tar, entry, path, take, tell))
    if head is None:
        raise foreign(path)
    raise torn(path, "it has no manifest at its end")


def read_head(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> Head:
    """The first member."""
    if entry.name != HEAD:
        raise foreign(path)
    head = small(tar, entry, path, Head)
    if head.headwater_backup != FORMAT:
        raise Rejected(
            f"{path} is a backup of format {head.headwater_backup}; this version reads {FORMAT}",
            code="backup_format",
            help=f"restore it with Headwater {head.version}",
        )
    return head


def read_file(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str, take: Take, tell: Callable[[int], None]
) -> Listed:
    """A file of the data folder."""
    name = entry.name.removeprefix(DATA)
    steps = name.split("/")
    plain = entry.isreg() and not entry.issparse()  # what is sparse can be larger than any disk
    if not plain or name == entry.name or not name or {"", ".", ".."} & set(steps) or "\0" in name:
        raise damaged(path, f"it holds {entry.name!r}, which is no file of a data folder")
    digest = hashlib.sha256()
    content = tar.extractfile(entry)
    assert content is not None

    def pieces() -> Iterator[bytes]:
        while data := content.read(PIECE_BYTES):
            digest.update(data)
            tell(len(data))
            yield data

    take(name, entry.size, entry.mode & 0o777, pieces())
    return Listed(path=name, size=entry.size, mode=entry.mode, sha256=digest.hexdigest())


def checked(manifest: Manifest, head: Head, found: list[Listed], path: str) -> Manifest:
    """The manifest, when it is whole and lists just what was found."""
    if sealed(manifest).seal != manifest.seal or manifest.head != head:
        raise damaged(path, "its manifest was changed")
    for listed, there in zip(manifest.files, found, strict=False):
        if listed != there:
            raise damaged(path, f"{there.path} is not what was written")
    if len(manifest.files) != len(found):
        raise damaged(path, f"it holds {len(found)} files, and should hold {len(manifest.files)}")
    return manifest


@contextmanager
def members(path: str) -> Iterator[tarfile.TarFile]:
    """The tar inside, read forward only. Rejected where there is no such file, or it is none."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise Rejected(f"{path} cannot be read: {error.strerror}", code="backup_unreadable") from error
        packed = file.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC
        file.seek(0)
        source: IO[bytes] = file
        if packed:
            source = stack.enter_context(zstandard.ZstdDecompressor().stream_reader(file))
        try:
            tar = stack.enter_context(tarfile.open(fileobj=source, mode="r|", bufsize=PIECE_BYTES))
        except tarfile.ReadError as error:
            raise (torn(path, str(error)) if packed else foreign(path)) from error
        yield tar


def small(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str, kind: type[S]) -> S:
    """A member of our own."""
    content = tar.extractfile(entry) if entry.isreg() and entry.size <= SMALL_BYTES_MAX else None
    if content is None:
        raise damaged(path, f"{entry.name} is no file, or too large")
    try:
        return msgspec.json.decode(content.read(), type=kind)
    except msgspec.MsgspecError as error:
        raise damaged(path, f"{entry.name}: {error}") from error


def foreign(path: str) -> Rejected:
    """The error for a file of something else."""
    return Rejected(
        f"{path} is no backup of Headwater",
        code="backup_foreign",
        help="give a file that `headwater backup` wrote",
    )


def torn(path: str, why: str) -> Rejected:
    """The error for a beginning without an end."""
    return Rejected(
        f"{path} is torn: {why}",
        code="backup_torn",
        help="copy it again from where it was written, or take another",
    )


def damaged(path: str, why: str) -> Rejected:
    """The error for bytes that are not those that were written."""
    return Rejected(
        f"{path} is damaged: {why}",
        code="backup_damaged",
        help="copy it again from where it was written, or take another one",
    )
