"""Who gets an event: slots of keys (C1), and the owners of slots (C2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from headwater.event import slots

NO_SLOT = slots.NO_SLOT
SEPARATOR = "\x1f"
Key = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Directory:
    """One version of a topic's table: ``owner[slot]`` is a node id or "", ``nodes`` are those alive with their
    address."""

    epoch: int
    owner: Sequence[str]
    nodes: Mapping[str, str]

    def owner_of(self, slot: int) -> str:
        """The node that owns a slot and is alive; empty: none."""
        node = self.owner[slot % len(self.owner)] if self.owner else ""
        return node if node in self.nodes else ""

    def owns(self, node: str, slot: int) -> bool:
        """Whether ``node`` may process events of this slot. What has no slot belongs to whoever got it."""
        return slot == NO_SLOT or bool(self.owner and self.owner[slot % len(self.owner)] == node)


Discover = Callable[[], Directory]


def slot_of(key: Key) -> int:
    """The slot of an affinity key. The parts of a composite key stay apart: ("ab", "c") is not ("a", "bc")."""
    return slots.slot_of(key if isinstance(key, str) else SEPARATOR.join(map(escaped, key)))


def escaped(part: str) -> str:
    return part.replace("\\", "\\\\").replace(SEPARATOR, "\\u")
