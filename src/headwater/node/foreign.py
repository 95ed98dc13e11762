"""Blocks of other programs in a configuration, put where ours are: what Jitsu and Kuzzle say of many nodes.

``coordination``, ``meta.storage``, ``storage``, ``auth`` and ``server`` are Jitsu's, ``services`` and ``plugins`` are
Kuzzle's. Where one of them stands, the block ``cluster`` is made of them: the store and the node's name
(cluster/stores/aliases.py), and all that ``plugins.cluster`` says (cluster/settings.py knows its names). What stands in
our own ``cluster`` as well must be the same. What is left out is told by ``headwater check``; nothing else is passed
over: keys that are unknown are refused as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from headwater.cluster.stores import aliases
from headwater.cluster.stores.aliases import Left
from headwater.config.load import Document, Path, Place
from headwater.kit.errors import Misconfigured

BLOCKS = ("coordination", "meta", "meta.storage", "storage", "auth", "server", "services", "plugins")
OF_SERVER = ("name", "admin_token")
OF_PLUGINS = ("cluster", "common")


def adopted(document: Document) -> tuple[Document, tuple[Left, ...]]:
    """The document in our words, and what was left out. Misconfigured: names the key, and where it stands."""
    there = [name for name in BLOCKS if name in document.data]
    if not there:
        return document, ()
    with document.placed():
        taken = aliases.take(document.data)
        check_inside(document.data, "server", OF_SERVER)
        check_inside(document.data, "plugins", OF_PLUGINS)
        made = dict(merged(document.data, cluster_of(document.data, taken)))
    data = {name: value for name, value in document.data.items() if name not in BLOCKS}
    left = tuple(one for one in taken.left if one.key != "plugins.cluster")
    return Document(document.name, {**data, "cluster": made}, places(document, made, there[0])), left


def cluster_of(data: Mapping[str, Any], taken: aliases.Taken) -> dict[str, Any]:
    """The block that the foreign ones make."""
    plugin = data.get("plugins", {}).get("cluster") or {}
    if not isinstance(plugin, Mapping):
        raise wrong("plugins.cluster", "expected a block")
    found = {
        "store": msgspec.to_builtins(taken.store) if taken.store is not None else None,
        "node": taken.node,
        "admin_token": taken.admin_token,
    }
    return {**plugin, **{name: value for name, value in found.items() if value}}


def merged(data: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of both, each once."""
    own = data.get("cluster") or {}
    if not isinstance(own, Mapping):
        raise wrong("cluster", "expected a block")
    for name, value in made.items():
        if own.get(name, value) != value:
            raise wrong(f"cluster.{name}", "says something else than the block of the other program")
    yield from {**made, **own}.items()


def check_inside(data: Mapping[str, Any], block: str, known: tuple[str, ...]) -> None:
    """Nothing stands in a foreign block but what is taken from it."""
    inside = data.get(block)
    if inside is None:
        return
    if not isinstance(inside, Mapping):
        raise wrong(block, "expected a block")
    for name in inside:
        if name not in known:
            raise wrong(f"{block}.{name}", f"unknown; of `{block}` these are understood: {', '.join(known)}")


def places(document: Document, made: Mapping[str, Any], first: str) -> dict[Path, Place]:
    """Where the values of the new block stand; what has no place of its own has that of the first foreign block."""
    found = dict(document.places)
    start = document.places.get((first,), Place(1))
    found.setdefault(("cluster",), start)
    for name in made:
        found.setdefault(("cluster", name), document.places.get(("plugins", "cluster", name), start))
    for path, place in document.places.items():
        if path[:2] == ("plugins", "cluster"):
            found.setdefault(("cluster", *path[2:]), place)
    return found


def wrong(key: str, what: str) -> Misconfigured:
    """An error of the document; values are not shown."""
    return Misconfigured(f"{key}: {what}", code="configuration", field=key)
