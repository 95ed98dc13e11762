"""Where a processor gets other nodes' events from, and what it may rely on (docs/decisions/0007-cluster.md).

On one node there is nobody else: ``ALONE``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from headwater.event.position import Position, Vector, WriterId

Stretch = tuple[Position, Position]
"""From where on, and up to where."""


class Sources(Protocol):
    """Mirrors of other nodes' logs, and state that others kept for partitions that come to us."""

    def open(self, name: str, partitions: Sequence[int], origin: Vector, until: Vector | None) -> str | None:
        """The folder of a mirror that follows other nodes' logs from ``origin`` on; None: there is none now."""
        ...

    def trim(self, name: str, below: Vector) -> None:
        """Nothing below is read again."""
        ...

    def close(self, name: str) -> None:
        """The mirror is not needed any more."""
        ...

    def reachable(self, needed: Mapping[WriterId, Stretch]) -> bool:
        """Whether these stretches of writers' logs can be read now, from their homes or from copies."""
        ...

    def since(self, at_ns: int, limit: Vector) -> Vector:
        """Where each of these writers' logs stood at that node time, at most at ``limit``; at ``limit`` where its home
        does not say."""
        ...

    def given(
        self, partitions: Sequence[int], stood: Mapping[int, Vector]
    ) -> Mapping[int, Mapping[str, int]]:
        """What a destination was given of these partitions where it stands: partition → stream → events."""
        ...

    def standby(self) -> list[str]:
        """Folders of state that are kept for other nodes' processors."""
        ...

    def stood(self, partitions: Sequence[int]) -> Mapping[int, Vector]:
        """Where destinations stand with partitions that come from another node, as far as they say it soon."""
        ...


class Alone:
    """One node."""

    def open(self, name: str, partitions: Sequence[int], origin: Vector, until: Vector | None) -> str | None:
        return None

    def trim(self, name: str, below: Vector) -> None:
        pass

    def close(self, name: str) -> None:
        pass

    def reachable(self, needed: Mapping[WriterId, Stretch]) -> bool:
        return True

    def since(self, at_ns: int, limit: Vector) -> Vector:
        return Vector({}, at_ns)

    def given(
        self, partitions: Sequence[int], stood: Mapping[int, Vector]
    ) -> Mapping[int, Mapping[str, int]]:
        return {}

    def standby(self) -> list[str]:
        return []

    def stood(self, partitions: Sequence[int]) -> Mapping[int, Vector]:
        return {}


ALONE = Alone()
