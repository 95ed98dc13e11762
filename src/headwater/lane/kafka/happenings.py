"""What can happen to a Kafka channel that an operator should know: log line, counter, and advisory in one."""

from __future__ import annotations

from typing import ClassVar

from headwater.kit.happenings import Happening, Level


class KafkaUnreachable(Happening):
    """No broker answers; it is tried on, and nothing is lost."""

    level: ClassVar[Level] = "warning"
    error: str


class KafkaOffsetsSkipped(Happening):
    """Events of a topic were gone before they were read: those from ``begin`` up to ``end`` are skipped. Where
    ``end`` is the smaller one, the topic ends before the offset, and events may come twice."""

    level: ClassVar[Level] = "error"
    group: str
    topic: str
    partition: int
    begin: int
    end: int
    policy: str


class KafkaPartitionsUnowned(Happening):
    """By the allocation that was configured nobody reads these partitions."""

    level: ClassVar[Level] = "warning"
    group: str
    topic: str
    partitions: list[int]


class KafkaDeadLetter(Happening):
    """The sink could not take an event, whatever it came with; it is in the dead-letter topic."""

    level: ClassVar[Level] = "warning"
    topic: str
    partition: int
    offset: int
    error: str
    attempts: int


class KafkaSinkDown(Happening):
    """The sink says that it cannot take anything now; this partition waits."""

    level: ClassVar[Level] = "warning"
    topic: str
    partition: int
    error: str


class KafkaSinkBack(Happening):
    """The sink takes events of this partition again."""

    topic: str
    partition: int


class KafkaCommitFailed(Happening):
    """Offsets could not be committed; it is tried again. What is not committed comes again after a crash."""

    level: ClassVar[Level] = "warning"
    group: str
    error: str


class KafkaPartitionsLost(Happening):
    """The group gave these partitions to others without waiting for this member: it was away for too long."""

    level: ClassVar[Level] = "warning"
    group: str
    partitions: int


class KafkaLaneWaits(Happening):
    """Kafka has not taken this node's events for 5 s. They are safe in the raw log and go on from there; new ones are
    accepted meanwhile. Told once."""

    level: ClassVar[Level] = "warning"
    topic: str
    reason: str


class KafkaLaneGoesOn(Happening):
    """Kafka takes this node's events again."""

    topic: str


class KafkaLaneRefused(Happening):
    """Something in the lane's topic was not put there by a node of this cluster, or cannot be taken. It is left out;
    what may be missing for it is fetched from its home. Told every 30 s at most."""

    level: ClassVar[Level] = "warning"
    topic: str
    records: int
    reason: str
