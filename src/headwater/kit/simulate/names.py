"""Which names a simulated disk holds, now and after a machine crash.

The model is weaker than ext4 or XFS (which journal all operations in order), so that what holds here holds there:

* A name is durable after ``sync_dir`` of its folder. Syncing a file makes no name durable.
* Each operation (create, rename, unlink, mkdir) survives a crash whole or not at all; a rename is atomic: there is
  always the old or the new file under the target's name, once the target exists.
* Unsynced operations survive in any combination, also of one folder, as long as operations on the *same name* keep
  their order: one survives only if the earlier ones on its names did.
* Names and bytes are independent: an unsynced file may be there with no bytes, or have its bytes and lose its name.
* A folder that does not survive takes along what is in it, however often that was synced.
"""

from __future__ import annotations

import posixpath
import random
from dataclasses import dataclass

from headwater.kit.simulate.files import File

FOLDER = File(-1)
"""Stands for every folder."""
ROOT = "/"


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of names. ``node`` is what the last of ``names`` leads to afterwards; None: nothing."""

    kind: str
    names: tuple[str, ...]
    node: File | None
    folders: tuple[str, ...]

    def apply(self, table: dict[str, File]) -> None:
        for name in self.names:
            table.pop(name, None)
        if self.node is not None:
            table[self.names[-1]] = self.node


class Names:
    """The tree of one disk."""

    def __init__(self) -> None:
        self.live: dict[str, File] = {ROOT: FOLDER}
        self.durable: dict[str, File] = {ROOT: FOLDER}
        self.pending: list[Operation] = []

    def change(self, kind: str, names: tuple[str, ...], node: File | None) -> None:
        """Do it now; durable later."""
        operation = Operation(kind, names, node, tuple(map(posixpath.dirname, names)))
        operation.apply(self.live)
        self.pending.append(operation)

    def folder_content(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""
        prefix = folder.rstrip("/") + "/"
        return sorted(
            path[len(prefix) :]
            for path in self.live
            if path.startswith(prefix) and "/" not in path[len(prefix) :]
        )

    def sync(self, folder: str) -> None:
        """All operations on names of this folder are durable, with what they rest upon."""
        wanted: set[str] = set()
        chosen: set[int] = set()
        for index in range(len(self.pending) - 1, -1, -1):
            operation = self.pending[index]
            if folder in operation.folders or wanted.intersection(operation.names):
                wanted.update(operation.names)
                chosen.add(index)
        self.settle(chosen)

    def settle_below(self, folder: str) -> None:
        """All operations below a folder are durable: nobody asks what a crash leaves there."""
        self.settle({i for i, o in enumerate(self.pending) if all(n.startswith(folder) for n in o.names)})

    def crash(self, rng: random.Random) -> list[str]:
        """Some operations survive; returns the lost ones in words."""
        mode = rng.choice(("none", "all", "prefix", "any", "any"))
        count = {"none": 0, "prefix": rng.randint(0, len(self.pending))}.get(mode, len(self.pending))
        chosen: set[int] = set()
        blocked: set[str] = set()
        for index, operation in enumerate(self.pending):
            drawn = index < count and (mode != "any" or rng.random() < 0.5)
            if drawn and not blocked.intersection(operation.names):
                chosen.add(index)
            else:
                blocked.update(operation.names)
        lost = [f"{o.kind} {' → '.join(o.names)}" for i, o in enumerate(self.pending) if i not in chosen]
        self.settle(chosen)
        self.pending.clear()
        for path in sorted(self.durable, key=len):
            if path != ROOT and posixpath.dirname(path) not in self.durable:
                del self.durable[path]
        self.live = dict(self.durable)
        return lost

    def settle(self, chosen: set[int]) -> None:
        """Make these pending operations durable, in their order."""
        for index in sorted(chosen):
            self.pending[index].apply(self.durable)
        self.pending = [operation for index, operation in enumerate(self.pending) if index not in chosen]
