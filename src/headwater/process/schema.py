"""Learned columns: a node-wide, append-only file that says which path became which column (protocol.md §17.13).

One JSON line per path and kind. Processors of one node share it under a file lock; a line is durable before a commit
uses it. The first kind of a path owns the column; each further kind is a variant ``<column>|<kind>``, which a
destination casts or puts into ``_unmapped``.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from headwater.process.columns import COLUMN_KIND
from headwater.process.names import Path, column_name


class Learned(msgspec.Struct, frozen=True):
    """One line of the file."""

    path: Path
    kind: str
    column: str


class Key(NamedTuple):
    """What is learned: a path and the kind of its values."""

    path: Path
    kind: str


encoder = msgspec.json.Encoder()
decoder = msgspec.json.Decoder(Learned)


class LearnedSchema:
    """The learned columns as this process knows them; grows, never changes."""

    def __init__(self, path: str, *, columns_max: int) -> None:
        self.file = path
        self.columns_max = columns_max
        self.entries: dict[Key, Learned] = {}
        self.first_kind: dict[Path, str] = {}
        self.kind_of: dict[str, str] = {}
        """Column → kind of its own values."""
        self.taken = set(COLUMN_KIND)
        self.read_bytes = 0
        self.version = 0
        """Grows with every entry; caches built from the schema compare it."""
        self.refresh()

    def refresh(self) -> None:
        """Read what others have added."""
        if not os.path.exists(self.file):
            return
        with open(self.file, "rb") as file:
            file.seek(self.read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.read_bytes += len(line)
                self._add(decoder.decode(line))

    def column(self, path: Path, kind: str) -> str | None:
        """Column name (or ``name|kind``) for values of a kind at a path; None when it is not learned."""
        entry = self.entries.get(Key(path, kind))
        if entry is None:
            return None
        return entry.column if self.first_kind[path] == kind else f"{entry.column}|{kind}"

    def mixed(self) -> set[Path]:
        """Paths with values of several kinds, or with values and objects."""
        kinds: dict[Path, int] = {}
        for key in self.entries:
            kinds[key.path] = kinds.get(key.path, 0) + 1
        inner = {path[:n] for path in kinds for n in range(1, len(path))}
        return {path for path, count in kinds.items() if count > 1 or path in inner}

    def known(self, keys: Iterable[Key]) -> bool:
        """Whether all of them are learned."""
        return all(key in self.entries for key in keys)

    def learn(self, keys: Iterable[Key]) -> None:
        """Add what is not known yet, as far as ``columns_max`` allows; durable on return."""
        wanted = [k for k in dict.fromkeys(keys) if k not in self.entries]
        if not wanted or len(self.first_kind) >= self.columns_max:
            return
        with open(self.file, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.refresh()
            file.truncate(self.read_bytes)  # a torn line of a crashed process
            for key in wanted:
                if key in self.entries or (
                    key.path not in self.first_kind and len(self.first_kind) >= self.columns_max
                ):
                    continue
                known = self.first_kind.get(key.path)
                column = (
                    self.entries[Key(key.path, known)].column if known else column_name(key.path, self.taken)
                )
                entry = Learned(key.path, key.kind, column)
                line = encoder.encode(entry) + b"\n"
                file.write(line)
                self.read_bytes += len(line)
                self._add(entry)
            file.flush()
            os.fsync(file.fileno())

    def _add(self, entry: Learned) -> None:
        self.entries[Key(entry.path, entry.kind)] = entry
        self.first_kind.setdefault(entry.path, entry.kind)
        self.kind_of.setdefault(entry.column, entry.kind)
        self.taken.add(entry.column)
        self.version += 1
