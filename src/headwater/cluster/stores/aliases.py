"""Configurations of the programs that Headwater stands in for: where they say that their Redis is.

Two are known. Jitsu (1.x, server and configurator) has the block ``redis`` below ``coordination``, ``meta.storage`` (or
``meta: storage:``), or ``storage``; with it come ``server.name`` and ``server.admin_token``. Kuzzle (its cluster
plugin) has ``services.internalCache`` and ``services.memoryStorage`` with a list of nodes or one.

``take`` gives our settings and says of everything else about a store in such a document why it was left. What is
contradictory or cannot work is Misconfigured and names the key as the document has it. Pure: nothing is connected.

The address of a sentinel without a port gets 26379; Jitsu's documentation says 23679 once, which its code never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headwater.cluster.stores.address import SCHEMES
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.errors import Misconfigured

Block = Mapping[str, Any]
JITSU_PLACES = ("coordination.redis", "meta.storage.redis", "storage.redis", "auth.redis")
"""Where Jitsu has its Redis; the first that is there is taken."""
JITSU_KEYS = {"host", "port", "password", "database", "sentinel_master_name", "tls_skip_verify"}
KUZZLE_PLACES = ("services.internalCache", "services.memoryStorage")
KUZZLE_KEYS = {"database", "nodes", "node", "backend"}
TRUE, FALSE = ("true", True), ("false", False, "", None)
BESIDE = {
    "services.db": "Headwater keeps nothing in Elasticsearch",
    "services.storageEngine": "Headwater keeps nothing in Elasticsearch",
    "plugins.common": "Headwater has no pipes whose timeouts must be raised",
}
CLUSTER_PLUGIN = (
    "belongs to the nodes, not to the store: put it below `cluster:`, which knows the plugin's names"
)
NO_HOST = "expected a block with `host`, or `nodes` in Kuzzle's"


class Left(NamedTuple):
    """A key that was not taken."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What such a document says, in our words."""

    store: StoreSettings | None = None
    """None: it names no store."""
    node: str = ""
    """Name of this node (`cluster.node`)."""
    admin_token: str = field(default="", repr=False)
    """`cluster.admin_token`."""
    left: tuple[Left, ...] = ()


def take(document: Block) -> Taken:
    """Our settings from a document of Jitsu or Kuzzle, as YAML gives it. Misconfigured: names the key."""
    left: list[Left] = []
    store = jitsu_store(document, left) or kuzzle_store(document, left)
    for key, why in BESIDE.items():
        if at(document, key) is not None:
            left.append(Left(key, why))
    if at(document, "plugins.cluster") is not None:
        left.append(Left("plugins.cluster", CLUSTER_PLUGIN))
    return Taken(store, text(document, "server.name"), text(document, "server.admin_token"), tuple(left))


def jitsu_store(document: Block, left: list[Left]) -> StoreSettings | None:
    """The Redis of a Jitsu document."""
    check_coordination(document)
    places = [place for place in JITSU_PLACES if at(document, place) is not None]
    if not places:
        return None
    chosen = places[0]
    block = block_at(document, chosen)
    left.extend(left_beside(document, places, JITSU_KEYS))
    return jitsu_redis(chosen, block)


def left_beside(document: Block, places: list[str], known: set[str]) -> Iterator[Left]:
    """Of several places the first is taken: the others where they say something else, and its unknown keys."""
    chosen, *others = places
    block = block_at(document, chosen)
    for other in others:
        if block_at(document, other) != block:
            yield Left(other, f"{chosen} says where nodes meet; Headwater keeps nothing else in Redis")
    for key in sorted(set(block) - known):
        yield Left(f"{chosen}.{key}", "unknown: nothing of events is kept in the store")


def check_coordination(document: Block) -> None:
    """``coordination: {type: redis}`` refers to the Redis of ``meta.storage``; other kinds are not there."""
    coordination = at(document, "coordination")
    if coordination is None:
        return
    if not isinstance(coordination, Mapping):
        raise wrong("coordination", "expected a block with `redis` or `type: redis`")
    kind = coordination.get("type", "redis")
    unknown = sorted(set(coordination) - {"type", "redis"})
    if kind != "redis" or unknown:
        key = "coordination.type" if kind != "redis" else f"coordination.{unknown[0]}"
        raise wrong(key, "expected redis; for ZooKeeper write cluster.store yourself")
    if "redis" not in coordination and at(document, "meta.storage.redis") is None:
        raise wrong(
            "coordination.type", "says redis, and neither coordination.redis nor meta.storage.redis is there"
        )


def jitsu_redis(place: str, block: Block) -> StoreSettings:
    """``host`` is a host, a URL, or a list of sentinels with commas; Jitsu has one database number and no Cluster."""
    host = str(block.get("host") or "")
    if not host:
        raise wrong(place, NO_HOST)
    master = str(block.get("sentinel_master_name") or "")
    settings: dict[str, Any] = {
        "password": str(block.get("password") or ""),
        "database": number(f"{place}.database", block.get("database") or 0),
        "tls_skip_verify": truth(f"{place}.tls_skip_verify", block.get("tls_skip_verify")),
        "sentinel_master_name": master,
    }
    port = number(f"{place}.port", block.get("port") or 0)
    if "://" in host:
        if host.partition("://")[0] not in SCHEMES:
            raise wrong(f"{place}.host", f"expected a host or a URL that begins with {', '.join(SCHEMES)}")
        settings["url"] = host
    elif master:
        settings["nodes"] = [with_port(one.strip(), port) for one in host.split(",")]
    else:
        settings["url"] = f"redis://{with_port(host, port)}"
    return made(place, settings)


def kuzzle_store(document: Block, left: list[Left]) -> StoreSettings | None:
    """The Redis of a Kuzzle document: ``nodes`` of a Redis Cluster, or one ``node``."""
    places = [place for place in KUZZLE_PLACES if at(document, place) is not None]
    if not places:
        return None
    chosen = places[0]
    block = block_at(document, chosen)
    left.extend(left_beside(document, places, KUZZLE_KEYS))
    database = number(f"{chosen}.database", block.get("database") or 0)
    if "nodes" in block:
        return made(chosen, {"nodes": kuzzle_nodes(f"{chosen}.nodes", block["nodes"]), "database": database})
    node = block.get("node")
    if not isinstance(node, Mapping):
        raise wrong(chosen, NO_HOST)
    (address,) = kuzzle_nodes(f"{chosen}.node", [node])
    return made(chosen, {"url": f"redis://{address}", "database": database})


def kuzzle_nodes(key: str, nodes: Any) -> list[str]:
    """A list of ``{host, port}``."""
    if not isinstance(nodes, list) or not nodes:
        raise wrong(key, "expected a list of `host` and `port`")
    addresses = []
    for count, node in enumerate(nodes):
        if not isinstance(node, Mapping) or not node.get("host"):
            raise wrong(f"{key}[{count}]", "expected `host` and `port`")
        addresses.append(with_port(str(node["host"]), number(f"{key}[{count}].port", node.get("port") or 0)))
    return addresses


def made(place: str, settings: Block) -> StoreSettings:
    """The settings; what they refuse is said with the document's place."""
    try:
        return StoreSettings(**settings)
    except ValueError as error:
        raise wrong(place, str(error)) from error


def with_port(host: str, port: int) -> str:
    """``host:port``; a port in the host wins, no port leaves the default to the address."""
    bare = host.rpartition("]")[2] if host.startswith("[") else host
    if not port or ":" in bare:
        return host
    return f"{host}:{port}"


def at(document: Block, key: str) -> Any:
    """What stands at ``a.b.c``, where any dots may be part of a key, as in ``meta.storage:``; None: nothing."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        value = document.get(".".join(parts[:length]))
        if value is None:
            continue
        if length == len(parts):
            return value
        inner = at(value, ".".join(parts[length:])) if isinstance(value, Mapping) else None
        if inner is not None:
            return inner
    return None


def block_at(document: Block, key: str) -> Block:
    """The block at ``key``."""
    found = at(document, key)
    if not isinstance(found, Mapping):
        raise wrong(key, NO_HOST)
    return found


def text(document: Block, key: str) -> str:
    """The text at ``key``; empty where there is none."""
    found = at(document, key)
    if isinstance(found, Mapping | list):
        raise wrong(key, "expected text")
    return "" if found is None else str(found)


def number(key: str, value: Any) -> int:
    """A whole number, also as text: templates of the environment give text."""
    if isinstance(value, bool) or not str(value).isdecimal():
        raise wrong(key, "expected a whole number")
    return int(value)


def truth(key: str, value: Any) -> bool:
    """true or false, also as text."""
    value = value.lower() if isinstance(value, str) else value
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise wrong(key, "expected true or false")


def wrong(key: str, what: str) -> Misconfigured:
    """An error of the document. Values are not shown: any of them may hold a password."""
    return Misconfigured(f"{key}: {what}", code="configuration", field=key)
