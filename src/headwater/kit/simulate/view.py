"""What one simulated process sees of a SimDisk (kit.disk.Disk): its descriptors, its calls, its death."""

from __future__ import annotations

import errno
import os
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xxhash import xxh3_64

from headwater.kit.disk import About
from headwater.kit.simulate.files import PAGE_BYTES, File
from headwater.kit.simulate.names import FOLDER, ROOT

if TYPE_CHECKING:
    from headwater.kit.simulate.disk import SimDisk


class Dead(BaseException):
    """The process that made this call does not exist any more."""


@dataclass(slots=True)
class Descriptor:
    """An open file."""

    path: str
    file: File
    write: bool
    direct: bool


class ProcessDisk:
    """One process's view (kit.disk.Disk)."""

    def __init__(self, disk: SimDisk, name: str) -> None:
        self.disk = disk
        self.name = name
        self.descriptors: dict[int, Descriptor] = {}
        self.next = 3
        self.dead = False
        self.calls_left: int | None = None

    def kill(self, *, quiet: bool = False) -> None:
        """SIGKILL: descriptors are closed, what was written stays in the cache."""
        if not quiet and not self.dead:
            self.disk.note(f"{self.name} killed")
            self.disk.met["killed"] += 1
        self.dead = True
        for descriptor in self.descriptors.values():
            descriptor.file.descriptors -= 1
        self.descriptors.clear()

    def die_at(self, calls: int) -> None:
        """Die at the n-th call from now (1 = the next); drawn: before it, within it or after it."""
        self.calls_left = calls

    def begin(self, call: str, path: str, detail: str = "") -> bool:
        """Every call starts here. True: the process dies after its effect."""
        if self.disk.between is not None and not self.dead:
            self.disk.between(self, call)
        if self.dead:
            raise Dead(self.name)
        self.disk.calls += 1
        self.disk.note(f"{self.name} {call} {path} {detail}".rstrip())
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left <= 0:
                self.calls_left = None
                if self.disk.random.random() < 0.5:
                    self.kill()
                    raise Dead(self.name)
                return True
        return False

    def end(self, dying: bool) -> None:
        if dying:
            self.kill()
            raise Dead(self.name)

    def raise_fault(self, call: str, path: str) -> None:
        fault = self.disk.fault(call, path)
        if fault is not None:
            self.disk.note(f"  {errno.errorcode[fault.error]}")
            raise OSError(fault.error, os.strerror(fault.error), path)

    def find(self, path: str) -> File:
        file = self.disk.names.live.get(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return file

    def at(self, file: int) -> Descriptor:
        if self.dead:
            raise Dead(self.name)
        found = self.descriptors.get(file)
        if found is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(file))
        return found

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        direct: bool = False,
        private: bool = False,
    ) -> int:
        path = normal(path)
        dying = self.begin(
            "open", path, f"{'w' if write else 'r'}{'c' if create else ''}{'d' if direct else ''}"
        )
        self.raise_fault("open", path)
        if create and path not in self.disk.names.live:
            self.folder(posixpath.dirname(path))
            if self.disk.used_bytes() >= self.disk.capacity_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            self.disk.names.change("create", (path,), self.disk.new_file())
        file = self.find(path)
        if file is FOLDER:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        number = self.next
        self.next += 1
        self.descriptors[number] = Descriptor(path, file, write, direct)
        file.descriptors += 1
        self.end(dying)
        return number

    def close(self, file: int) -> None:
        descriptor = self.at(file)
        dying = self.begin("close", descriptor.path)
        del self.descriptors[file]
        descriptor.file.descriptors -= 1
        self.end(dying)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        descriptor = self.at(file)
        dying = self.begin(
            "pread", descriptor.path, f"{offset}+{length}{' direct' if descriptor.direct else ''}"
        )
        self.raise_fault("pread", descriptor.path)
        if descriptor.direct and (length % 512 or offset % 512):
            raise OSError(errno.EINVAL, "a direct read wants whole sectors", descriptor.path)
        image = descriptor.file.device if descriptor.direct else descriptor.file.cache
        self.disk.spend(100)
        self.end(dying)
        return bytes(image[offset : offset + length])

    def pwrite(self, file: int, data: bytes | memoryview, offset: int) -> int:
        descriptor = self.at(file)
        dying = self.begin("pwrite", descriptor.path, f"{offset}+{len(data)} {xxh3_64(data).hexdigest()[:8]}")
        if not descriptor.write:
            raise OSError(errno.EBADF, "not open for writing", descriptor.path)
        length = len(data)
        fault = self.disk.fault("pwrite", descriptor.path)
        if fault is not None:
            if fault.part is None:
                self.disk.note(f"  {errno.errorcode[fault.error]}")
                raise OSError(fault.error, os.strerror(fault.error), descriptor.path)
            length = int(length * fault.part)
            self.disk.note(f"  short: {length}")
            self.disk.met["short"] += 1
        if descriptor.file.pages_needed(offset, length):
            room = self.disk.capacity_bytes - self.disk.used_bytes()
            while length and descriptor.file.pages_needed(offset, length) * PAGE_BYTES > room:
                length = max(0, (offset + length - 1) // PAGE_BYTES * PAGE_BYTES - offset)
            if length < len(data):
                self.disk.note(f"  ENOSPC after {length}")
                self.disk.met["ENOSPC"] += 1
        if data and not length:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), descriptor.path)
        if dying and self.disk.random.random() < 0.5:
            length = self.disk.random.randint(0, length)
        descriptor.file.write(offset, bytes(data[:length]))
        self.disk.spend(200)
        self.end(dying)
        return length

    def sync(self, file: int) -> None:
        descriptor = self.at(file)
        dying = self.begin("sync", descriptor.path)
        fault = self.disk.fault("sync", descriptor.path)
        self.disk.spend(2000)
        if fault is not None:
            descriptor.file.sync_fails(self.disk.random)
            self.disk.note(f"  {errno.errorcode[fault.error]}")
            self.disk.met[errno.errorcode[fault.error]] += 1
            self.end(dying)
            raise OSError(fault.error, os.strerror(fault.error), descriptor.path)
        if not self.disk.lying:
            descriptor.file.sync()
        self.end(dying)

    def sync_dir(self, path: str) -> None:
        path = normal(path)
        dying = self.begin("sync_dir", path)
        self.folder(path)
        self.raise_fault("sync_dir", path)
        self.disk.spend(2000)
        if not self.disk.lying:
            self.disk.names.sync(path)
        self.end(dying)

    def size(self, file: int) -> int:
        return len(self.at(file).file.cache)

    def about(self, path: str) -> About:
        if not self.exists(path):
            return About(0, 0)
        return About(len(self.find(normal(path)).cache), 1)

    def truncate(self, file: int, length: int) -> None:
        descriptor = self.at(file)
        dying = self.begin("truncate", descriptor.path, str(length))
        if not descriptor.write:
            raise OSError(errno.EINVAL, "not open for writing", descriptor.path)
        self.raise_fault("truncate", descriptor.path)
        descriptor.file.truncate(length)
        self.end(dying)

    def rename(self, source: str, target: str) -> None:
        source, target = normal(source), normal(target)
        dying = self.begin("rename", source, target)
        self.raise_fault("rename", source)
        file = self.find(source)
        self.folder(posixpath.dirname(target))
        if file is FOLDER or self.disk.names.live.get(target) is FOLDER:
            raise NotImplementedError("folders are not renamed")
        if source != target:
            self.disk.names.change("rename", (source, target), file)
        self.end(dying)

    def unlink(self, path: str) -> None:
        path = normal(path)
        dying = self.begin("unlink", path)
        self.raise_fault("unlink", path)
        if self.find(path) is FOLDER:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        self.disk.names.change("unlink", (path,), None)
        self.end(dying)

    def mkdir(self, path: str) -> None:
        """With its parents; nothing happens when it is there already."""
        path = normal(path)
        dying = self.begin("mkdir", path)
        missing = []
        while path not in self.disk.names.live:
            missing.append(path)
            path = posixpath.dirname(path)
        self.folder(path)
        for name in reversed(missing):
            self.disk.names.change("mkdir", (name,), FOLDER)
        self.end(dying)

    def listdir(self, path: str) -> list[str]:
        path = normal(path)
        dying = self.begin("listdir", path)
        self.folder(path)
        self.end(dying)
        return self.disk.names.folder_content(path)

    def exists(self, path: str) -> bool:
        if self.dead:
            raise Dead(self.name)
        return normal(path) in self.disk.names.live

    def free_bytes(self, path: str) -> int:
        if self.dead:
            raise Dead(self.name)
        return max(0, self.disk.capacity_bytes - self.disk.used_bytes())

    def cell(self, path: str, *, write: bool = False) -> SimCell:
        number = self.open(path, write=write, create=write)
        if len(self.at(number).file.cache) < 8:
            if not write:
                self.close(number)
                raise FileNotFoundError(errno.ENOENT, "the cell is still being made", path)
            self.pwrite(number, bytes(8), 0)
        return SimCell(self, number)

    def folder(self, path: str) -> None:
        """OSError unless this is a folder."""
        if self.find(path) is not FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


class SimCell:
    """A u64 in shared memory: seen by all processes at once, durable when the kernel likes."""

    def __init__(self, view: ProcessDisk, file: int) -> None:
        self.view = view
        self.file = file

    def get(self) -> int:
        return int.from_bytes(self.view.at(self.file).file.cache[:8], "little")

    def set(self, value: int) -> None:
        descriptor = self.view.at(self.file)
        dying = self.view.begin("set", descriptor.path, str(value))
        if not descriptor.write:
            raise TypeError("this cell is mapped for reading")
        descriptor.file.write(0, value.to_bytes(8, "little"))
        self.view.end(dying)

    def close(self) -> None:
        self.view.close(self.file)


def normal(path: str) -> str:
    """Absolute, without dots and doubled slashes."""
    return posixpath.normpath(ROOT + path).replace("//", "/")
