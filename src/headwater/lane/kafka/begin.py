"""Where reading of a partition begins (K7). Pure.

``latest`` must not skip what comes into a partition that is made later. So a member looks, before it joins, at which
partitions there are and whether the group has offsets of the topic: only a group without any is new, and only
partitions that were there then are begun at their end. Where a group begins is committed at once, so that the next
member finds offsets. Everything in doubt is read from its first event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headwater.lane.kafka.settings import Policy


@dataclass(frozen=True, slots=True)
class Known:
    """What was seen of a topic before joining."""

    partitions: int
    offsets: bool
    """Whether the group has an offset for any of its partitions."""


def first_offset(
    policy: Literal["earliest", "latest"], partition: int, known: Known, low: int, high: int
) -> int:
    """Where a partition without an offset of the group begins; ``low``, ``high``: the first offset that is there, the
    one behind the last."""
    if policy == "latest" and not known.offsets and partition < known.partitions:
        return high
    return low


def out_of_range(policy: Policy, low: int, high: int) -> int | None:
    """Where to go on when the offset is not there; None: nowhere, a person must say."""
    return {"earliest": low, "latest": high, "stop": None}[policy]
