"""What is said to librdkafka, and what its errors mean: the one place for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from headwater.kit.errors import Broken, HeadwaterError, Lost, Misconfigured, Rejected, Unavailable
from headwater.lane.kafka.settings import ConsumeSettings, KafkaSettings, ProduceSettings

FENCED = (KafkaError.FENCED_INSTANCE_ID, KafkaError._FENCED)
OPERATOR = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_EXCEPTION,
)
WRONG = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD)


def translate(error: KafkaError | KafkaException, doing: str) -> HeadwaterError:
    """The error that says what to do next. What is not known better is Unavailable: Kafka heals most by itself."""
    if isinstance(error, KafkaException):
        return translate(error.args[0], doing)
    said = f"{doing}: {error.str()}"
    name = f"kafka_{error.name().strip('_').lower()}"
    if error.code() in FENCED or (is_fatal(error) and "group.instance.id" in error.str()):
        return Lost(said, code=name, help="another process uses the same member name")
    if error.code() in OPERATOR:
        return Misconfigured(said, code=name, help="see whether the topic exists and what the account may do")
    if error.code() in WRONG:
        return Rejected(said, code=name)
    if is_fatal(error):
        return Broken(said, code=name, help="this producer or consumer is at its end; make a new one")
    return Unavailable(said, code=name)


def is_fatal(error: KafkaError) -> bool:
    """Whether the producer or consumer is at its end. A consumer's fatal error says `fatal() == False` and hides the
    real code in its text (confluent-kafka-python#869)."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def base(settings: KafkaSettings, told: Callable[[KafkaError], None]) -> dict[str, Any]:
    """What producers and consumers share. ``told`` hears of errors that belong to no message."""
    return {
        "bootstrap.servers": settings.servers,
        "client.id": settings.client_id,
        "socket.timeout.ms": round(settings.socket_timeout_s * 1000),
        "topic.metadata.propagation.max.ms": 5_000,  # how long a topic that is not there may just be new
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2000,
        "log_level": 0,  # it would write to stderr; what matters comes through error_cb
        "error_cb": told,
        **settings.properties,
    }


def producer(
    settings: KafkaSettings, produce: ProduceSettings, told: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """Configuration of an idempotent producer (K1). Room is kept by us, so the driver's own limits are out of reach."""
    return base(settings, told) | {
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "linger.ms": produce.linger_ms,
        "batch.size": 1_000_000,
        "compression.type": produce.compression,
        "message.max.bytes": max(1_000_000, produce.event_bytes_max + 4096),
        "message.timeout.ms": round(produce.delivery_timeout_s * 1000),
        "request.timeout.ms": round(settings.socket_timeout_s * 1000),
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2_147_483_647,
    }


def asker(settings: KafkaSettings, consume: ConsumeSettings) -> dict[str, Any]:
    """Configuration of a handle that only asks about topics and the group's offsets, and never joins."""
    return base(settings, lambda _: None) | {"group.id": consume.group, "enable.auto.commit": False}


def consumer(
    settings: KafkaSettings,
    consume: ConsumeSettings,
    told: Callable[[KafkaError], None],
    committed: Callable[[KafkaError | None, list[Any]], None],
) -> dict[str, Any]:
    """Configuration of a member. Offsets are committed by us alone, and a missing one is for us to decide (K7)."""
    own: dict[str, Any] = {
        "group.id": consume.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "session.timeout.ms": round(consume.session_timeout_s * 1000),
        "heartbeat.interval.ms": round(consume.heartbeat_s * 1000),
        "topic.metadata.refresh.interval.ms": round(consume.metadata_s * 1000),
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 100,
        "fetch.message.max.bytes": 1024 * 1024,
        "queued.max.messages.kbytes": max(1, consume.fetch_bytes_max // 1024),
        "on_commit": committed,
    }
    if consume.allocation.mode == "balanced":
        own["group.instance.id"] = consume.member
        own["partition.assignment.strategy"] = "cooperative-sticky"
    return base(settings, told) | own
