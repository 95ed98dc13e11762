"""The topic of the lane: made where it is not there. Blocks; for a thread."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headwater.lane.kafka import driver
from headwater.lane.kafka.settings import KafkaSettings

ASK_S = 10.0


def ensure(kafka: KafkaSettings, topic: str, partitions: int, replication: int) -> None:
    """Let the topic be there; one that is stays as it is. ``replication`` 0: what the brokers take by themselves.

    Misconfigured: it may not be made. Unavailable: the brokers do not answer.
    """
    doing = f"looking for the topic {topic}"
    try:
        admin = AdminClient(driver.base(kafka, lambda _: None))
        about = admin.list_topics(topic, timeout=ASK_S).topics[topic]
        if about.error is None:
            return
        if about.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise driver.translate(about.error, doing)
        doing = f"making the topic {topic}"
        wanted = NewTopic(topic, partitions, replication or -1)
        admin.create_topics([wanted], request_timeout=ASK_S)[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise driver.translate(error, doing) from error
