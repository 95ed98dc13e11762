"""The root of all settings: the stages' structs under their names, and what concerns the node as a whole.

Everything that can be checked without starting anything is checked here and in configuration.py, so that nobody
finds out about a wrong setting later.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.cluster.settings import ClusterSettings, KafkaLaneSettings, port_of, secret_of
from headwater.collect.keys import secrets_of
from headwater.collect.settings import CollectSettings, KeySettings
from headwater.destinations import registry
from headwater.destinations.registry import AnySettings
from headwater.identity.settings import IdentitySettings
from headwater.kit.errors import Misconfigured
from headwater.lane.kafka.settings import KafkaSettings
from headwater.log.settings import LogSettings
from headwater.ops.settings import OpsSettings, host_and_port
from headwater.process.settings import ProcessSettings

if TYPE_CHECKING:
    from headwater.config.load import Document  # reads YAML, which the processes of a node need not

MIB, GIB = 1024**2, 1024**3
SEGMENTS_MIN = 3
SEGMENT_BYTES_MIN = 8 * MIB
DATA_BYTES_DEFAULT_MAX = 20 * GIB
DATA_SHARE_DEFAULT = 0.3
DATA_BYTES_MIN = 256 * 1024 * 1024
RAW_SHARE, READY_SHARE, STATE_SHARE, RESERVE_SHARE = 0.70, 0.15, 0.10, 0.05
"""Of the configured size (protocol.md §2); the rest, 10 %, is for state."""
DESTINATION_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
DELAY_S_MAX = 3600.0
SECRET_FILE_BYTES_MAX = 65_536


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that a configuration file may say. Relative paths are below the data folder."""

    collect: CollectSettings = CollectSettings()
    """The door: listener, bounds, proxies."""
    ops: OpsSettings = OpsSettings()
    """Health, metrics, status, SQL, demo."""
    process: ProcessSettings = ProcessSettings()
    """Processing: how many processors, dedupe, columns."""
    identity: IdentitySettings = IdentitySettings()
    """Whose an anonymous visitor's events are."""
    log: LogSettings = LogSettings()
    """Segments and how long they are kept."""
    keys: list[KeySettings] = []
    """Write keys. Reloads."""
    destinations: dict[str, AnySettings] = {}
    """Where events go, by name. Reloads: added, removed and changed destinations are started, stopped, restarted."""
    cluster: ClusterSettings | None = None
    """What makes this node one of many. Left out: one node, and nothing of the cluster runs."""
    shutdown_delay: float = 0.0
    """Seconds between failing `/ping` and `/ready` with 503 and closing the door, everything served meanwhile. As long
    as a load balancer needs to notice: twice its interval, for example 20. 0 suits a terminal."""
    shutdown_timeout: float = 5.0
    """Seconds that requests under way get to finish once the door is closed."""
    drain_timeout_s: float = 20.0
    """Seconds that processing and delivery get after that. What is left then is done at the next start: nothing is
    lost by a short time, so keep the sum below what the supervisor of the machine allows (systemd: 90 s)."""
    data_bytes_max: int = 0
    """Size of the data folder, bytes: 70 % raw log, 15 % ready log, 10 % state, 5 % reserve; destinations' files are
    not counted. 0: 20 GiB or 30 % of the free disk, the smaller."""

    def __post_init__(self) -> None:
        for name in ("shutdown_delay", "shutdown_timeout", "drain_timeout_s"):
            if not 0 <= getattr(self, name) <= DELAY_S_MAX:
                raise wrong(name, f"expected 0 to {DELAY_S_MAX:.0f} seconds, got {getattr(self, name)}")
        if self.data_bytes_max and self.data_bytes_max < DATA_BYTES_MIN:
            raise wrong("data_bytes_max", f"expected at least {DATA_BYTES_MIN}, got {self.data_bytes_max}")
        check_keys(self.keys)
        check_listeners(self.collect.listen, self.ops.listen)
        check_destinations(self.destinations)
        check_replicated(self.keys, self.cluster)
        check_delivered(self.keys, self.destinations)
        if self.cluster is not None:
            check_cluster_listeners(self.cluster, self.collect.listen, self.ops.listen)
            check_kafka(self.cluster)

    @property
    def raw_bytes_max(self) -> int:
        """Quota of the raw log."""
        return int(self.data_bytes_max * RAW_SHARE)

    @property
    def reserve_bytes(self) -> int:
        """What is left free on the disk."""
        return int(self.data_bytes_max * RESERVE_SHARE)

    @property
    def ids_bytes_max(self) -> int:
        """What each processor may keep of ids beyond its window: half of the state's share."""
        return int(self.data_bytes_max * STATE_SHARE / 2 / self.process.workers)

    @property
    def ready_bytes_max(self) -> int:
        """Quota of each processor's ready log."""
        return int(self.data_bytes_max * READY_SHARE / self.process.workers)


ReadText = Callable[[str], str]


def sized(settings: Settings, free_bytes: int, used_bytes: int) -> Settings:
    """The settings with a definite ``data_bytes_max``; ``used_bytes`` is what the data folder takes already."""
    share = int((free_bytes + used_bytes) * DATA_SHARE_DEFAULT)
    return with_size(settings, max(DATA_BYTES_MIN, min(DATA_BYTES_DEFAULT_MAX, share)))


def with_size(settings: Settings, data_bytes_max: int) -> Settings:
    """The settings, with this size where they leave it open, and segments that fit into it."""
    if not settings.data_bytes_max:
        settings = msgspec.structs.replace(settings, data_bytes_max=data_bytes_max)
    log = settings.log
    smaller = msgspec.structs.replace(
        log,
        segment_bytes=fitting(log.segment_bytes, settings.raw_bytes_max // settings.collect.workers),
        ready_segment_bytes=fitting(log.ready_segment_bytes, settings.ready_bytes_max),
    )
    return msgspec.structs.replace(settings, log=smaller)


def fitting(segment_bytes: int, quota_bytes: int) -> int:
    """A segment's size under a quota: one is written, one is next, one is read, so that three must have room, or the
    log stands still for good. Misconfigured where not even the smallest have."""
    most = quota_bytes // SEGMENTS_MIN // MIB * MIB
    if most < SEGMENT_BYTES_MIN:
        raise wrong(
            "data_bytes_max",
            f"is too small: {quota_bytes} bytes for each log are less than {SEGMENTS_MIN} segments of 8 MiB",
            "give more, or fewer workers",
        )
    return min(segment_bytes, most)


def check_keys(keys: Sequence[KeySettings]) -> None:
    """Each id once."""
    seen: set[str] = set()
    for key in keys:
        if key.id in seen:
            raise wrong(f"keys[{key.id}].id", "stands twice; an id names one key and one stream")
        seen.add(key.id)


def check_replicated(keys: Sequence[KeySettings], cluster: ClusterSettings | None) -> None:
    """`ack: replicated` needs other nodes, and copies on them."""
    for key in keys:
        if key.ack != "replicated":
            continue
        if cluster is None:
            raise wrong(
                f"keys[{key.id}].ack",
                "`replicated` needs other nodes, and there is no `cluster` block",
                "say `disk`, or make this node one of several (docs/configuration.md, cluster)",
            )
        if cluster.copies < 2:
            raise wrong(
                f"keys[{key.id}].ack",
                f"`replicated` needs copies, and cluster.copies is {cluster.copies}",
                "say `disk`, or give cluster.copies 2 or more",
            )


def check_delivered(keys: Sequence[KeySettings], destinations: Mapping[str, AnySettings]) -> None:
    """`ack: delivered` needs a destination: the one that it names, or the only one."""
    known = ", ".join(destinations)
    for key in keys:
        if key.ack != "delivered":
            continue
        if not destinations:
            raise wrong(
                f"keys[{key.id}].ack",
                "`delivered` waits for a destination, and there is none",
                "say `disk`, or add one below `destinations`",
            )
        if key.ack_destination and key.ack_destination not in destinations:
            raise wrong(
                f"keys[{key.id}].ack_destination",
                f"there is no destination {key.ack_destination!r}",
                f"expected one of: {known}",
            )
        if not key.ack_destination and len(destinations) > 1:
            raise wrong(
                f"keys[{key.id}].ack_destination",
                f"`ack: delivered` must say for which of {len(destinations)} destinations it waits",
                f"expected one of: {known}",
            )


def named_destinations(settings: Settings) -> list[KeySettings]:
    """The keys, each at `ack: delivered` with the destination that it waits for."""
    only = next(iter(settings.destinations), "")
    return [
        msgspec.structs.replace(key, ack_destination=only)
        if key.ack == "delivered" and not key.ack_destination
        else key
        for key in settings.keys
    ]


def check_secrets(keys: Sequence[KeySettings], read: ReadText, document: Document) -> None:
    """Each secret in one key only; files of secrets can be read."""
    owner: dict[str, str] = {}
    for number, key in enumerate(keys):
        place = document.where(("keys", number))
        for secret in readable_secrets(key, read, place):
            if owner.setdefault(secret, key.id) != key.id:
                raise Misconfigured(
                    f"{place}: keys[{number}]: has the same secret as the key `{owner[secret]}`",
                    code="configuration",
                    help="a secret names one key",
                    key=f"keys[{number}]",
                )


def check_cluster_secrets(cluster: ClusterSettings | None, read: ReadText, document: Document) -> None:
    """The cluster's files of secrets can be read."""
    if cluster is not None:
        with document.placed():
            secret_of(cluster, "secret", read)
            secret_of(cluster, "admin_token", read)


def secret_reader(data: str) -> ReadText:
    """Reads a file of secrets; relative paths are below the data folder."""

    def read_text(path: str) -> str:
        with open(os.path.join(data, path), encoding="utf-8") as file:
            return file.read(SECRET_FILE_BYTES_MAX)

    return read_text


def readable_secrets(key: KeySettings, read: ReadText, place: str) -> list[str]:
    """The secrets of a key; Misconfigured, with the place, where its file cannot be read."""
    try:
        return secrets_of(key, read)
    except OSError as error:
        raise Misconfigured(
            f"{place}: keys[{key.id}].secret_file: cannot read {key.secret_file}: {error.strerror}",
            code="configuration",
            help=f"`headwater keys new {key.id}` makes one",
            key=f"keys[{key.id}].secret_file",
        ) from error
    except Misconfigured as error:
        raise Misconfigured(f"{place}: {error.message}", code="configuration", help=error.help) from error


def check_listeners(collect: str, ops: str) -> None:
    """Two listeners cannot have one address."""
    collect_host, collect_port = host_and_port("collect.listen", collect)
    ops_host, ops_port = host_and_port("ops.listen", ops)
    wildcard = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    if collect_port == ops_port != 0 and (collect_host == ops_host or {collect_host, ops_host} & wildcard):
        raise wrong("ops.listen", f"is the address of collect.listen ({collect})", "give it another port")


def check_cluster_listeners(cluster: ClusterSettings, collect: str, ops: str) -> None:
    """The cluster's listeners have ports of their own: an address of an interface is only known when it is bound."""
    taken = {
        host_and_port("collect.listen", collect)[1]: "collect.listen",
        host_and_port("ops.listen", ops)[1]: "ops.listen",
    }
    for name in ("listen", "lane"):
        port = port_of(name, getattr(cluster, name))
        if port and port in taken:
            raise wrong(f"cluster.{name}", f"has the port of {taken[port]} ({port})", "give it another port")


def check_kafka(cluster: ClusterSettings) -> None:
    """The Kafka lane has its driver, and no properties that would undo its promises."""
    if cluster.kafka is None:
        return
    try:
        kafka_of(cluster.kafka)
    except ValueError as error:
        field, _, what = str(error).partition(": ")
        raise wrong(f"cluster.kafka.{field}", what, "leave it out") from error
    if importlib.util.find_spec("confluent_kafka") is None:
        raise wrong(
            "cluster.kafka",
            "needs the package confluent_kafka, which is not installed",
            "pip install 'headwater[kafka]'",
        )


def kafka_of(settings: KafkaLaneSettings) -> KafkaSettings:
    """What its driver is told. ValueError: properties that may not be set."""
    return KafkaSettings(servers=settings.servers, properties=settings.all_properties)


def check_destinations(destinations: dict[str, AnySettings]) -> None:
    """Names fit into file names; no two share a file."""
    paths: dict[Any, str] = {}
    for name, settings in destinations.items():
        if not DESTINATION_NAME.fullmatch(name):
            raise wrong(f"destinations.{name}", "a name has 1 to 48 of a-z, 0-9, `_`, `-`")
        with named(f"destinations.{name}.type"):
            registry.check_driver(settings)
        path = getattr(settings, "path", None)
        if path is not None and paths.setdefault(path, name) != name:
            raise wrong(f"destinations.{name}.path", f"is the file of `{paths[path]}`; each needs its own")
        alone = getattr(settings, "alone", None)
        if alone is not None and paths.setdefault(alone, name) != name:
            raise wrong(
                f"destinations.{name}.schema", f"is the schema of `{paths[alone]}`; each needs its own"
            )


@contextlib.contextmanager
def named(field: str) -> Iterator[None]:
    """An error from inside is about this setting."""
    try:
        yield
    except Misconfigured as error:
        raise wrong(field, error.message, error.help) from error


def wrong(field: str, what: str, help: str = "") -> Misconfigured:
    """A settings error of the root."""
    return Misconfigured(f"{field}: {what}", code="settings", help=help, field=field)
