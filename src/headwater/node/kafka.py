"""Puts the Kafka lane of a node together, from `cluster.kafka`. Imports the driver: only where the setting stands."""

from __future__ import annotations

from headwater.cluster.settings import ClusterSettings
from headwater.kit.errors import Misconfigured
from headwater.kit.tasks import Report
from headwater.lane.copies_read import Away
from headwater.lane.home import Now, RawLog
from headwater.lane.kafka.home import KafkaHome
from headwater.lane.kafka.lane import KafkaLane
from headwater.lane.kafka.record import key_of
from headwater.lane.kafka.spool import Spool
from headwater.lane.mirror import Source
from headwater.node.context import Context
from headwater.node.settings import kafka_of


def lane(
    context: Context,
    cluster: ClusterSettings,
    raw: RawLog,
    *,
    me: str,
    secret: bytes,
    now: Now,
    away: Away,
    direct: Source,
    report: Report,
) -> KafkaLane:
    """The lane, not yet running. ``direct``: whom a mirror would follow without Kafka."""
    settings = cluster.kafka
    if settings is None:
        raise Misconfigured("there is no block `cluster.kafka`", code="no_kafka")
    topic = cluster.kafka_topic
    spool = Spool(
        context.disk,
        context.path("kafka"),
        topic,
        secret=context.secret,
        clock=context.clock,
        report=report,
        bytes_max=settings.spool_bytes_max,
        reserve_bytes=context.settings.reserve_bytes,
    )
    home = KafkaHome(
        raw,
        now,
        context.clock,
        context.happenings.emit,
        home=int(me, 16),
        topic=topic,
        key=key_of(secret, cluster.name),
        path=context.path("kafka", "cursor"),
    )
    return KafkaLane(
        home,
        spool,
        kafka_of(settings),
        me=me,
        group=f"{topic}-{me}",
        partitions=settings.partitions,
        replication=settings.replication,
        away=away,
        direct=direct,
        clock=context.clock,
        rng=context.rng,
        happenings=context.happenings,
    )
