"""Settings of the Kafka channels. None of these reloads."""

from __future__ import annotations

from typing import Literal

import msgspec

Policy = Literal["earliest", "latest", "stop"]


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the brokers are and how to speak to them."""

    servers: str
    """Addresses to begin with, ``host:port,host:port``; the others are learned from them."""
    client_id: str = "headwater"
    """The name that the brokers see in their logs and quotas."""
    socket_timeout_s: float = 10.0
    """A broker that does not answer for so long is asked anew, over another connection. librdkafka's own 60 s
    would let a frozen leader hold what was sent to it for a minute after its partitions have moved."""
    properties: dict[str, str] = {}
    """More of librdkafka's properties, such as those of TLS and SASL (``security.protocol``, ``sasl.password``).
    They win over what Headwater sets, but for those that its promises rest on, which are refused."""

    def __post_init__(self) -> None:
        if not self.servers.strip():
            raise ValueError("servers: expected host:port, got nothing")
        for name in sorted(RESERVED & self.properties.keys()):
            raise ValueError(f"properties: {name} may not be set: {RESERVED_WHY}")


RESERVED_WHY = "what Headwater promises rests on it"
RESERVED = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "group.instance.id",
        "partitioner",
        "request.required.acks",
    }
)


class ProduceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How events are sent."""

    linger_ms: float = 5.0
    """How long the driver waits for more events before it sends what it has, milliseconds."""
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    """lz4 takes least CPU of both sides; zstd takes least room."""
    queue_events_max: int = 100_000
    """Events that may be on their way; a caller with more waits (K1)."""
    queue_bytes_max: int = 128 * 1024 * 1024
    """The same in bytes."""
    event_bytes_max: int = 1_000_000
    """A larger event (key and value) is refused at once. Brokers take 1 MiB unless they are told otherwise."""
    delivery_timeout_s: float = 300.0
    """An event that the brokers did not take for so long fails (Unavailable); 0 tries for ever."""

    def __post_init__(self) -> None:
        if self.event_bytes_max > self.queue_bytes_max:
            raise ValueError(
                f"event_bytes_max: expected at most queue_bytes_max ({self.queue_bytes_max}),"
                f" got {self.event_bytes_max}"
            )
        for name in ("queue_events_max", "event_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


class Allocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who reads which partitions (K9).

    ``balanced``: the group shares them out by itself. ``fixed``: each of ``members`` takes ``count`` partitions of
    each topic, by its place in the list. ``explicit``: ``partitions`` says it, member by member and topic by topic.
    In the last two nobody takes over from a member that is gone; what nobody takes is told.
    """

    mode: Literal["balanced", "fixed", "explicit"] = "balanced"
    count: int = 0
    members: tuple[str, ...] = ()
    partitions: dict[str, dict[str, tuple[int, ...]]] = {}

    def __post_init__(self) -> None:
        if self.mode == "fixed" and (self.count < 1 or not self.members):
            raise ValueError("allocation: fixed needs `count` of at least 1 and the list of `members`")
        if self.mode == "explicit" and not self.partitions:
            raise ValueError("allocation: explicit needs `partitions`: {member: {topic: [numbers]}}")


class ConsumeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a group reads topics."""

    group: str
    """Name of the group; its members share the partitions, and its offsets are kept by the brokers."""
    topics: tuple[str, ...]
    member: str
    """Name of this member in the group, the same at each start: the node id. Two at once: the older one is Lost."""
    allocation: Allocation = Allocation()

    batch_bytes: int = 1024 * 1024
    """A micro-batch is closed at this size, bytes; the sink may ask for another one (K3)."""
    batch_bytes_max: int = 2 * 1024 * 1024
    """The largest that it may ask for."""
    batch_events_max: int = 5_000
    batch_age_s: float = 1.0
    """A micro-batch is closed when its first event has waited for so long."""
    ahead_bytes_max: int = 4 * 1024 * 1024
    """What may wait for the sink, per partition; the partition is paused at the broker above it."""
    fetch_bytes_max: int = 16 * 1024 * 1024
    """What the driver reads ahead for all partitions."""

    session_timeout_s: float = 10.0
    """A member that the group does not hear for so long is out, and its partitions move (K2)."""
    heartbeat_s: float = 3.0
    revoke_deadline_s: float = 5.0
    """How long a sink may take to finish a partition that moves to somebody else."""
    commit_interval_s: float = 1.0
    """Offsets are committed this often: what is between them comes again after a crash."""
    idle_s: float = 60.0
    """A partition without events for so long is told to the sink, once."""
    metadata_s: float = 30.0
    """How often topics are looked at for new partitions."""

    begin: Literal["earliest", "latest"] = "earliest"
    """Where a new group begins; partitions that were made later are always read from their first event (K7)."""
    out_of_range: Policy = "earliest"
    """What to do when the offset is not there any more: go on from the first or behind the last event that is, or
    stop."""

    retries_max: int = 5
    """How often a batch that the sink failed on is tried again as it is, before the bad event is looked for (K6)."""
    retry_first_s: float = 0.1
    retry_ceiling_s_max: float = 30.0
    """The first wait, and where waits stop doubling."""
    dead_letter_topic: str = "{topic}.dead"
    """Where events go that the sink cannot take; ``{topic}`` is the topic that they came from. It must exist."""
    events_per_s_max: float = 0
    """At most so many events per second over the whole group; 0 is no limit (K8)."""

    def __post_init__(self) -> None:
        if not self.topics or not self.group or not self.member:
            raise ValueError("expected `group`, `member` and at least one of `topics`")
        for name in ("batch_bytes", "batch_bytes_max", "batch_events_max", "ahead_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.batch_bytes > self.batch_bytes_max:
            raise ValueError(
                f"batch_bytes: expected at most batch_bytes_max ({self.batch_bytes_max}), got {self.batch_bytes}"
            )
        if self.heartbeat_s * 2 > self.session_timeout_s:
            raise ValueError(
                f"heartbeat_s: expected at most half of session_timeout_s ({self.session_timeout_s}),"
                f" got {self.heartbeat_s}"
            )
        if self.events_per_s_max < 0:
            raise ValueError(f"events_per_s_max: expected 0 or more, got {self.events_per_s_max}")
