"""Stand-ins for stages that are built elsewhere at this moment. Deleted when they are merged; used by node/settings.py
and node/build.py only. Each has the name, the fields and the meaning that the real one has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from headwater.kit.errors import Misconfigured


class CollectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """collect/settings.py"""

    listen: str = "127.0.0.1:8420"
    """Address and port of the collector."""
    workers: int = 1
    """Processes that share the port; each has its own log."""
    trusted_proxies: list[str] = []
    """Addresses or networks whose forwarded headers are believed."""


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """collect/settings.py"""

    id: str
    """Name of the key and of its stream."""
    secret: str | list[str] = ""
    """What clients send; two while clients move from one to the other."""
    secret_file: str = ""
    """Instead: a file with one secret per line, relative to the data folder."""
    kind: Literal["browser", "server", ""] = ""
    """Browser or server; default: browser when `origins` is given."""
    origins: list[str] = []
    """Of a browser key: the pages that may send."""
    ack: Literal["memory", "disk", "replicated", "delivered"] = "disk"
    """What 2xx promises."""

    def __post_init__(self) -> None:
        if self.ack in ("replicated", "delivered"):
            field = f"keys[{self.id}].ack"
            raise Misconfigured(f"{field}: expected `disk` or `memory`, got {self.ack!r}", field=field)

    @property
    def browser(self) -> bool:
        return self.kind == "browser" or (not self.kind and bool(self.origins))


def secrets_of(settings: KeySettings, read: Callable[[str], str]) -> list[str]:
    """collect/keys.py"""
    if settings.secret_file:
        return [line.strip() for line in read(settings.secret_file).splitlines() if line.strip()]
    return [settings.secret] if isinstance(settings.secret, str) else settings.secret


class SqlSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """destinations/duckdb/settings.py"""

    rows_max: int = 10_000
    """Rows of one answer."""


class DuckDbSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="duckdb"
):
    """destinations/duckdb/settings.py"""

    path: str = "warehouse.duckdb"
    """The file; a relative path is below the data folder."""
    sql: SqlSettings = SqlSettings()
    """Limits of readers' SQL."""


class MemorySettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="memory"
):
    """destinations/memory.py"""


AnySettings = DuckDbSettings | MemorySettings


class StubRole:
    """A role that only says that it runs."""

    def __init__(self, context: object) -> None:
        self.context = context

    async def start(self) -> None:
        pass

    async def tick(self) -> None:
        pass

    async def reload(self, settings: object) -> None:
        pass

    async def drain(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    def reasons(self) -> list[str]:
        return []

    def detail(self) -> dict[str, object]:
        return {}
