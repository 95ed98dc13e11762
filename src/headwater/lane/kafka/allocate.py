"""Which partitions a member reads, where the group does not share them out by itself (K9). Pure.

Every member computes the same from the same configuration, so that what nobody reads is known to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from headwater.kit.errors import Misconfigured
from headwater.lane.kafka.settings import Allocation

Partitions = dict[str, list[int]]


def allocate(allocation: Allocation, counts: Mapping[str, int]) -> dict[str, Partitions]:
    """Member → topic → partitions. ``counts``: how many each topic has. Misconfigured: a partition is named twice."""
    if allocation.mode == "fixed":
        return {
            member: {
                topic: list(range(place * allocation.count, min((place + 1) * allocation.count, count)))
                for topic, count in counts.items()
            }
            for place, member in enumerate(allocation.members)
        }
    given: dict[str, Partitions] = {}
    taken: dict[tuple[str, int], str] = {}
    for member, topics in allocation.partitions.items():
        given[member] = {}
        for topic, numbers in topics.items():
            for number in numbers:
                if (topic, number) in taken:
                    raise Misconfigured(
                        f"partition {number} of {topic} is given to {taken[topic, number]} and to {member}",
                        code="kafka_allocation",
                    )
                taken[topic, number] = member
            given[member][topic] = sorted(number for number in numbers if number < counts.get(topic, 0))
    return given


def own(allocation: Allocation, member: str, counts: Mapping[str, int]) -> Partitions:
    """What one member reads. Misconfigured: the allocation does not know it."""
    given = allocate(allocation, counts)
    if member not in given:
        raise Misconfigured(
            f"the allocation does not name the member {member}",
            code="kafka_allocation",
            help=f"it knows {', '.join(given)}",
        )
    return {topic: numbers for topic, numbers in given[member].items() if numbers}


def unowned(allocation: Allocation, counts: Mapping[str, int]) -> Partitions:
    """What nobody reads."""
    taken = {
        (topic, n) for one in allocate(allocation, counts).values() for topic, ns in one.items() for n in ns
    }
    left = {topic: [n for n in range(count) if (topic, n) not in taken] for topic, count in counts.items()}
    return {topic: numbers for topic, numbers in left.items() if numbers}
