"""What SIGHUP may change: a pure comparison of two settings.

Keys, destinations and enrichment reload. Anything else that differs refuses the whole reload, naming the keys: a node
that runs with half of a file would be worse than one that runs with the old one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from headwater.node.settings import Settings

RELOADS = ("keys", "destinations", "process.enrich")
"""Keys, and everything below them, that may change while the node runs."""


class Change(NamedTuple):
    """What a reload does."""

    refused: list[str]
    """Keys that differ and cannot be reloaded; not empty: nothing is done."""
    changed: list[str]
    started: list[str]
    """Destinations that are new or changed."""
    stopped: list[str]
    """Destinations that are gone or changed."""


def compare(old: Settings, new: Settings) -> Change:
    """What changes from ``old`` to ``new``."""
    differing = sorted(differences(plain(old), plain(new)))
    refused = [key for key in differing if not reloads(key)]
    before, after = old.destinations, new.destinations
    return Change(
        refused,
        [key for key in differing if reloads(key)],
        [name for name, settings in after.items() if before.get(name) != settings],
        [name for name, settings in before.items() if after.get(name) != settings],
    )


def reloads(key: str) -> bool:
    """Whether a setting may change while the node runs."""
    return any(key == root or key.startswith(root + ".") for root in RELOADS)


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as plain data."""
    data: dict[str, Any] = msgspec.to_builtins(settings)
    return data


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """The keys whose values differ; lists are compared whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for name in {*old, *new}:
            inner = f"{key}.{name}" if key else name
            found += differences(old.get(name), new.get(name), inner)
        return found
    return [] if old == new else [key]
