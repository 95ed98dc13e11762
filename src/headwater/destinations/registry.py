"""Every kind of destination. An adapter's driver is imported when a destination of its kind is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.memory import MemoryDestination, MemorySettings, Store
from headwater.destinations.port import Destination
from headwater.destinations.settings import DestinationSettings
from headwater.kit.clock import Clock


@dataclass(frozen=True, slots=True)
class Place:
    """Where a destination may keep things: relative paths are below ``data``; ``folder`` is its own."""

    data: str
    folder: str
    clock: Clock


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its settings, and how a destination is made of them."""

    settings: type[DestinationSettings]
    make: Callable[[DestinationSettings, Place], Destination]


def make_duckdb(settings: DestinationSettings, place: Place) -> Destination:
    from headwater.destinations.duckdb.write import DuckDbDestination

    assert isinstance(settings, DuckDbSettings)
    return DuckDbDestination(settings, os.path.join(place.data, settings.path), place.folder, place.clock)


def make_memory(settings: DestinationSettings, place: Place) -> Destination:
    return MemoryDestination(Store())


KINDS: dict[str, Kind] = {
    "duckdb": Kind(DuckDbSettings, make_duckdb),
    "memory": Kind(MemorySettings, make_memory),
}
"""``type`` of a destination's settings → its kind. ``memory`` forgets: for tests and try-outs."""

AnySettings = DuckDbSettings | MemorySettings
"""What a configuration's ``destinations`` holds; ``type`` says which."""


def make(settings: DestinationSettings, place: Place) -> Destination:
    """The destination of these settings, not yet opened."""
    return KINDS[str(type(settings).__struct_config__.tag)].make(settings, place)
