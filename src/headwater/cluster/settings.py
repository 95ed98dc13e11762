"""Settings of the cluster: the one block that makes a single node's configuration that of many.

Without it nothing of the cluster runs. The names that Kuzzle's cluster plugin used for the same things are accepted
beside ours (``minimumNodes``, ``retryJoin``, ``bindings``, ``timers``, with both spellings of its misspelt key); what
they say is written over our own setting, and saying both differently is refused.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.errors import HeadwaterError, Misconfigured
from headwater.peer.address import LANE_PORT, MEMBER_PORT, dialled, machine_interfaces, parse, resolve

GIB = 1024**3
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KAFKA_SERVER = re.compile(r"\s*(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}\s*")
KAFKA_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,249}")
WEBHOOK = re.compile(r"https?://[^/\s:@]+(:[0-9]{1,5})?(/\S*)?")
SECRET_CHARACTERS_MIN = 16
WEIGHT_MAX = 100
COPIES_MAX = 5
HEARTBEAT_S_MIN, HEARTBEAT_S_MAX = 0.5, 60.0
LEASE_HEARTBEATS_MIN = 3
"""A lease must outlive this many heartbeats, or one lost packet would cost the leadership."""
WILDCARDS = ("0.0.0.0", "::", "*")  # noqa: S104 - compared, not bound


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Mutual TLS between nodes: each shows its certificate, and believes those that the authority signed."""

    certificate: str = ""
    """File with this node's certificate and the chain above it, PEM."""
    key: str = ""
    """File with its private key, PEM."""
    authority: str = ""
    """File with the certificates of who may sign nodes' certificates, PEM."""

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "authority"):
            if not getattr(self, name):
                raise ValueError(f"{name}: is needed; TLS between nodes is mutual")


class BindingsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The two listeners under the names that Kuzzle's cluster plugin gave them."""

    router: str = ""
    """The same as `cluster.listen`."""
    pub: str = ""
    """The same as `cluster.lane`."""


class TimersSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times under the names of Kuzzle's cluster plugin, milliseconds."""

    heartbeat: int | None = None
    """The same as `cluster.heartbeat_s`."""
    joinAttemptInterval: int | None = None
    """The same as `cluster.join_retry_s`."""
    joinAttemptIntervall: int | None = None
    """The same, as the plugin's documentation spells it (the plugin never read it)."""
    discoverTimeout: int | None = None
    """The same as `cluster.dial_timeout_s`."""
    waitForMissingRooms: int | None = None
    """Accepted, without effect: there are no rooms."""


class AdvisoriesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who is told, beside the log, that a node falls behind or is back."""

    webhook: str = ""
    """URL (http or https) that gets each advisory as JSON by POST. Tried for five minutes; nothing waits for it."""

    def __post_init__(self) -> None:
        if self.webhook and not WEBHOOK.fullmatch(self.webhook):
            raise ValueError(f"webhook: expected http://HOST… or https://HOST…, got {self.webhook[:80]!r}")


class KafkaLaneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Events travel between nodes through a topic of Kafka. None of these reloads; the same on all nodes."""

    servers: str = ""
    """Addresses to begin with, `HOST:PORT,HOST:PORT`; the other brokers are learned from them."""
    topic: str = ""
    """Name of the topic, for this cluster alone. Empty: `headwater-` and `cluster.name`. It is made where it is not
    there."""
    partitions: int = 12
    """Of a topic that is made: nodes are spread over so many Kafka partitions, each with all that it accepts in one. It
    has nothing to do with the partitions of the visitors."""
    replication: int = 0
    """Of a topic that is made: on how many brokers each record is. 0: what the brokers do by themselves."""
    tls: bool = False
    """Speak TLS with the brokers."""
    tls_ca_file: str = ""
    """Certificates (PEM) that the brokers' are checked against. Empty: those of the system."""
    user: str = ""
    """User (SASL). Empty: none is given."""
    password: str = ""
    """Password of that user; write `${env.NAME}`."""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How the user proves it."""
    key_password: str = ""
    """Password of the key that `ssl.key.location` among the `properties` names."""
    properties: dict[str, str] = {}
    """More of librdkafka's properties, such as `ssl.certificate.location`. Those by which something could be lost are
    refused."""
    spool_bytes_max: int = 4 * GIB
    """What this node keeps of what came from the topic at most, bytes. What is too old for it is fetched from the node
    that accepted it."""

    def __post_init__(self) -> None:
        if not self.servers or not all(KAFKA_SERVER.fullmatch(one) for one in self.servers.split(",")):
            raise ValueError(f"servers: expected HOST:PORT,HOST:PORT…, got {self.servers[:80]!r}")
        if self.topic and not KAFKA_TOPIC.fullmatch(self.topic):
            raise ValueError(
                f"topic: expected 1 to 249 letters, digits, `_`, `.`, `-`, got {self.topic[:80]!r}"
            )
        if bool(self.user) != bool(self.password):
            raise ValueError("user, password: give both, or neither")
        for name, least, most in (
            ("partitions", 1, 10_000),
            ("replication", 0, 32),
            ("spool_bytes_max", 256 * 1024**2, 2**60),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected {least} to {most}, got {getattr(self, name)}")
        for name in self.properties:
            if name.endswith(".password"):
                raise ValueError(f"properties: {name} would be shown; give `password` or `key_password`")

    @property
    def all_properties(self) -> dict[str, str]:
        """Of librdkafka, what the settings say."""
        protocol = ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")
        told = {
            "security.protocol": protocol,
            "ssl.ca.location": self.tls_ca_file,
            "ssl.key.password": self.key_password,
            "sasl.username": self.user,
            "sasl.password": self.password,
            "sasl.mechanism": self.mechanism if self.user else "",
        }
        return {**{name: value for name, value in told.items() if value}, **self.properties}


class ClusterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How this node finds the others and what they agree on. Nothing of it reloads."""

    name: str = "headwater"
    """Name of the cluster; nodes of another name are refused, so that two clusters can share one store."""
    node: str = ""
    """Name of this node in status and messages. Empty: the host's name. Nodes are told apart by their data folders, not
    by this."""
    secret: str = ""
    """What every node of the cluster knows and nobody else, at least 16 characters. Two nodes prove to each other that
    they know it; it is never sent."""
    secret_file: str = ""
    """The file that holds the secret instead; a relative path is below the data folder."""
    listen: str = "tcp://127.0.0.1:7510"
    """Where other nodes reach this one: `tcp://HOST:PORT`, or `tcp://[INTERFACE:FAMILY]:PORT` with the name of a
    network interface, an address, or `_site_` (the first address that other machines can reach), and `ipv4` or
    `ipv6`."""
    lane: str = "tcp://127.0.0.1:7511"
    """The second listener, on which events travel to the owners of their partitions; written like `listen`."""
    advertise: str = ""
    """Host name or address that others are told, where it is another than the one bound (containers, NAT). Empty: the
    address of `listen`; for all addresses (`0.0.0.0`) the one of `_site_`."""
    peers: list[str] = []
    """`host:port` of other nodes' `listen`, tried at the start beside what the store and the last table say. A few are
    enough; own addresses in it do no harm, so that all nodes can have the same list."""
    store: StoreSettings | None = None
    """Where nodes find each other and the leader holds its lease: Redis or ZooKeeper. Events never go through it, and
    the cluster goes on while it is away. Without one, `peers` is needed."""
    zone: str = ""
    """Rack or availability zone; a partition's standby is put into another zone than its owner, where there is one."""
    weight: int = 100
    """Share of the partitions that this node takes, 0 to 100 against the others' weights; 0: it only accepts."""
    minimum_nodes: int = 1
    """So many nodes must see each other, this one included, before events are accepted and partitions are worked on."""
    below_minimum: Literal["reject", "spool"] = "reject"
    """What happens to events while too few nodes see each other: refused with 503 and the reason, or accepted into the
    local log, from where they go on when the others are back."""
    heartbeat_s: float = 2.0
    """Between two signs of life to every other node, seconds. Silent for two: suspect; for three: evicted, when one
    other node does not hear it either."""
    lease_ttl_s: float = 10.0
    """How long the leader's lease lives without renewal, seconds; it is renewed three times in it. How long a new
    leader takes at most after the old one died."""
    dial_timeout_s: float = 3.0
    """How long connecting to another node may take, seconds."""
    join_retry_s: float = 1.0
    """Between two attempts to reach a node or to join, seconds; grows up to eight times that while nobody answers."""
    join_retry_max: int = 30
    """After so many attempts without joining, an error is logged once. It goes on trying, and readiness says why."""
    copies: int = 2
    """On how many nodes an event's block must be on disk for `ack: replicated`, the accepting one included."""
    copies_timeout_s: float = 5.0
    """How long a request at `ack: replicated` waits for the other nodes once its events are on this node's disk,
    seconds; then it is answered 503 `not_replicated`, which says that they are."""
    copies_bytes_max: int = 4 * GIB
    """What this node keeps of other nodes' raw logs as copies at most, bytes. It refuses more, and they look for
    another node; copies go when nobody needs them any more."""
    admin_token: str = ""
    """What `Authorization: Bearer` must carry for `POST /cluster/drain`, `evict`, `reset`, at least 16 characters.
    Empty: these can be asked for over the unix socket only, that is, by the commands on the node itself."""
    admin_token_file: str = ""
    """The file that holds it instead; a relative path is below the data folder."""
    mirror_bytes_max: int = 4 * GIB
    """What this node keeps of other nodes' logs at most, bytes. All of it can be fetched again."""
    kafka: KafkaLaneSettings | None = None
    """Events travel between nodes through a topic of Kafka, and over `lane` only what the topic lacks. Left out: over
    `lane`."""
    clock_warning_s: float = 5.0
    """A node's wall clock that is further from those of most nodes than this, seconds, is named in status, in metrics
    and once in the log. Far below `process.dedupe_window_s`, beyond which copies of events that come through that node
    are not known."""
    activity_max: int = 50
    """How many of the last happenings in the cluster (joined, left, evicted) each node remembers."""
    advisories: AdvisoriesSettings | None = None
    """Who else is told when an owner of partitions stays behind this node's log for more than 2 s, and when it is
    back; the log always tells it."""
    tls: TlsSettings | None = None
    """Mutual TLS instead of the secret."""
    bindings: BindingsSettings | None = None
    """`listen` and `lane` in the form of Kuzzle's cluster plugin."""
    timers: TimersSettings | None = None
    """Times in the form of Kuzzle's cluster plugin."""
    minimumNodes: int | None = None
    """The same as `minimum_nodes`, as in Kuzzle's cluster plugin."""
    retryJoin: int | None = None
    """The same as `join_retry_max`, as in Kuzzle's cluster plugin."""
    privileged: bool = True
    """Accepted, without effect: a word of Kuzzle's cluster plugin."""

    def __post_init__(self) -> None:
        take_over_aliases(self)
        check_names(self)
        check_numbers(self)
        check_addresses(self)
        check_company(self)

    @property
    def node_name(self) -> str:
        """The name that others see."""
        return self.node or socket.gethostname()

    @property
    def kafka_topic(self) -> str:
        """The topic of the Kafka lane."""
        return (self.kafka.topic if self.kafka is not None else "") or f"headwater-{self.name}"

    @property
    def lease_renew_s(self) -> float:
        """How often the lease is renewed."""
        return self.lease_ttl_s / 3


def take_over_aliases(settings: ClusterSettings) -> None:
    """Write what the plugin's names say over our own settings. Misconfigured where both say something else."""
    bindings, timers = settings.bindings or BindingsSettings(), settings.timers or TimersSettings()
    take_over(settings, "listen", "bindings.router", bindings.router or None)
    take_over(settings, "lane", "bindings.pub", bindings.pub or None)
    take_over(settings, "minimum_nodes", "minimumNodes", settings.minimumNodes)
    take_over(settings, "join_retry_max", "retryJoin", settings.retryJoin)
    take_over(settings, "heartbeat_s", "timers.heartbeat", seconds(timers.heartbeat))
    take_over(settings, "dial_timeout_s", "timers.discoverTimeout", seconds(timers.discoverTimeout))
    for name in ("joinAttemptInterval", "joinAttemptIntervall"):
        take_over(settings, "join_retry_s", f"timers.{name}", seconds(getattr(timers, name)))
    lease_s = LEASE_HEARTBEATS_MIN * settings.heartbeat_s
    if timers.heartbeat and settings.lease_ttl_s == default_of("lease_ttl_s") < lease_s:
        msgspec.structs.force_setattr(settings, "lease_ttl_s", lease_s)


def take_over(settings: ClusterSettings, own: str, alias: str, value: Any) -> None:
    """One alias."""
    if value is None:
        return
    if getattr(settings, own) not in (default_of(own), value):
        raise wrong(
            alias, f"says {value}, and cluster.{own} says {getattr(settings, own)}", "write one of them"
        )
    msgspec.structs.force_setattr(settings, own, value)


def default_of(name: str) -> Any:
    """The default of a setting."""
    return next(one.default for one in msgspec.structs.fields(ClusterSettings) if one.name == name)


def seconds(milliseconds: int | None) -> float | None:
    """Of the plugin's milliseconds."""
    return None if milliseconds is None else milliseconds / 1000


def check_names(settings: ClusterSettings) -> None:
    """Names fit into keys of a store and into one column."""
    if not NAME.fullmatch(settings.name):
        raise wrong("name", f"expected 1 to 64 letters, digits, `_`, `.`, `-`, got {settings.name!r}")
    if settings.node and not NAME.fullmatch(settings.node):
        raise wrong("node", f"expected 1 to 64 letters, digits, `_`, `.`, `-`, got {settings.node!r}")
    for name in ("secret", "admin_token"):
        text = getattr(settings, name)
        if text and getattr(settings, f"{name}_file"):
            raise wrong(f"{name}_file", f"stands beside `{name}`", "give one of them")
        if text:
            check_secret(name, text)
    if not (settings.secret or settings.secret_file or settings.tls):
        raise wrong(
            "secret",
            "is missing: without it any machine that reaches this one could join",
            "give cluster.secret_file, the same for all nodes (`headwater keys new -` prints one), or cluster.tls",
        )
    if settings.kafka is not None and not (settings.secret or settings.secret_file):
        raise wrong(
            "kafka",
            "what goes through the topic is signed with cluster.secret, and there is none",
            "give cluster.secret_file beside cluster.tls",
        )


def check_secret(name: str, text: str) -> None:
    """Long enough; never shown."""
    if len(text) < SECRET_CHARACTERS_MIN:
        raise wrong(name, f"expected at least {SECRET_CHARACTERS_MIN} characters, got {len(text)}")


def check_numbers(settings: ClusterSettings) -> None:
    """Each number in its range."""
    for name, least, most in (
        ("weight", 0, WEIGHT_MAX),
        ("minimum_nodes", 1, 10_000),
        ("copies", 1, COPIES_MAX),
        ("heartbeat_s", HEARTBEAT_S_MIN, HEARTBEAT_S_MAX),
        ("lease_ttl_s", 0.1, 3600),
        ("dial_timeout_s", 0.1, 60),
        ("join_retry_s", 0.05, 60),
        ("join_retry_max", 1, 1_000_000),
        ("copies_timeout_s", 0.1, 300),
        ("copies_bytes_max", 256 * 1024**2, 2**60),
        ("clock_warning_s", 0.1, 3600),
        ("activity_max", 1, 10_000),
        ("mirror_bytes_max", 256 * 1024**2, 2**60),
    ):
        value = getattr(settings, name)
        if not least <= value <= most:
            raise wrong(name, f"expected {least:g} to {most:g}, got {value:g}")
    if settings.lease_ttl_s < LEASE_HEARTBEATS_MIN * settings.heartbeat_s:
        raise wrong(
            "lease_ttl_s",
            f"expected at least {LEASE_HEARTBEATS_MIN} heartbeats"
            f" ({LEASE_HEARTBEATS_MIN * settings.heartbeat_s:g} s), got {settings.lease_ttl_s:g}",
        )


def check_addresses(settings: ClusterSettings) -> None:
    """Bindings have ports, peers are addresses; two listeners are two."""
    listen, lane = port_of("listen", settings.listen), port_of("lane", settings.lane)
    if listen == lane != 0:
        raise wrong("lane", f"has the port of cluster.listen ({listen})", "give it another port")
    if settings.advertise in WILDCARDS:
        raise wrong("advertise", f"{settings.advertise} is no address that others could dial")
    for peer in settings.peers:
        try:
            dialled(peer, MEMBER_PORT)
        except HeadwaterError as error:
            raise wrong("peers", f"expected a list of HOST:PORT: {error.message}") from error


def check_company(settings: ClusterSettings) -> None:
    """More than one node need some way to find each other."""
    if settings.minimum_nodes > 1 and settings.store is None and not settings.peers:
        raise wrong(
            "minimum_nodes",
            f"{settings.minimum_nodes} nodes cannot find each other",
            "give cluster.store, or cluster.peers",
        )


def port_of(name: str, binding: str) -> int:
    """The port of a binding; the address that it means is looked up where it is bound."""
    try:
        return parse(binding, MEMBER_PORT if name == "listen" else LANE_PORT).port
    except Misconfigured as error:
        raise wrong(name, error.message, error.help) from error


def advertised(settings: ClusterSettings, binding: str, default_port: int) -> str:
    """The address that others are told for a binding. Misconfigured: none that they could dial."""
    interfaces = machine_interfaces()
    host, port = resolve(binding, interfaces, default_port)
    if settings.advertise:
        host = settings.advertise
    elif host in WILDCARDS:
        family = "ipv6" if ":" in host else "ipv4"
        try:
            host = resolve(f"tcp://[_site_:{family}]:{port}", interfaces)[0]
        except HeadwaterError as error:
            raise Misconfigured(
                f"cluster.advertise: {binding} means all addresses, and none of them can be reached by others",
                code="advertise",
                help="give cluster.advertise, or listen on one address",
            ) from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def secret_of(settings: ClusterSettings, name: str, read: Callable[[str], str]) -> str:
    """``secret`` or ``admin_token``, from the configuration or its file; empty where neither is given. ``read`` gives
    the text of a file; Misconfigured where it cannot, or where the secret is too short."""
    path = getattr(settings, f"{name}_file")
    if not path:
        return str(getattr(settings, name))
    try:
        text = read(path).strip()
    except OSError as error:
        raise wrong(
            f"{name}_file", f"cannot read {path}: {error.strerror}", "`headwater keys new -` prints a secret"
        ) from error
    check_secret(f"{name}_file", text)
    return text


def wrong(field: str, what: str, help: str = "") -> Misconfigured:
    """A settings error of this block."""
    return Misconfigured(f"cluster.{field}: {what}", code="settings", help=help, field=f"cluster.{field}")
