"""Every kind of destination. An adapter's driver is imported when a destination of its kind is made."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

from headwater.destinations.duckdb.settings import DuckDbSettings
from headwater.destinations.memory import MemoryDestination, MemorySettings, Store
from headwater.destinations.port import Destination
from headwater.destinations.postgres.settings import PostgresSettings
from headwater.destinations.settings import DestinationSettings
from headwater.kit.clock import Clock
from headwater.kit.errors import Misconfigured


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
    driver: str = ""
    """The package that an extra of this kind's name brings; empty: it is always there."""


def make_duckdb(settings: DestinationSettings, place: Place) -> Destination:
    from headwater.destinations.duckdb.write import DuckDbDestination

    assert isinstance(settings, DuckDbSettings)
    return DuckDbDestination(settings, os.path.join(place.data, settings.path), place.folder, place.clock)


def make_postgres(settings: DestinationSettings, place: Place) -> Destination:
    check_driver(settings)
    from headwater.destinations.postgres.write import PostgresDestination

    assert isinstance(settings, PostgresSettings)
    return PostgresDestination(settings, place.data, place.clock)


def make_memory(settings: DestinationSettings, place: Place) -> Destination:
    return MemoryDestination(Store())


KINDS: dict[str, Kind] = {
    "duckdb": Kind(DuckDbSettings, make_duckdb),
    "postgres": Kind(PostgresSettings, make_postgres, driver="psycopg"),
    "memory": Kind(MemorySettings, make_memory),
}
"""``type`` of a destination's settings → its kind. ``memory`` forgets: for tests and try-outs."""

AnySettings = DuckDbSettings | PostgresSettings | MemorySettings
"""What a configuration's ``destinations`` holds; ``type`` says which."""


def kind_of(settings: DestinationSettings) -> str:
    """The ``type`` of these settings."""
    return str(type(settings).__struct_config__.tag)


def check_driver(settings: DestinationSettings) -> None:
    """Misconfigured where the driver of a destination is not installed."""
    name = kind_of(settings)
    driver = KINDS[name].driver
    if driver and importlib.util.find_spec(driver) is None:
        raise Misconfigured(
            f"a destination of type {name} needs the package {driver}, which is not installed",
            code="driver_missing",
            help=f"pip install 'headwater[{name}]'",
        )


def make(settings: DestinationSettings, place: Place) -> Destination:
    """The destination of these settings, not yet opened."""
    return KINDS[kind_of(settings)].make(settings, place)
