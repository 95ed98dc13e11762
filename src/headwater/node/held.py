"""Whether the door is closed because too few nodes of the cluster see each other (``cluster.below_minimum: reject``).

The member process says in its report how it stands; the supervisor writes what follows into the control page, where
the collectors and readiness look. So the door opens and closes within a quarter of a second, and a member process that
is silent for long closes it: nobody knows then what the others see.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headwater.cluster.settings import ClusterSettings
from headwater.config.control import HELD_JOINING, HELD_SILENT, NOT_HELD, Held
from headwater.config.report import STALE_S, Report

JOINING = Held(HELD_JOINING)


def judged(cluster: ClusterSettings | None, report: Callable[[], Report | None], now_ns: int) -> Held:
    """What the control page says now, boot time ``now_ns``."""
    if cluster is None or cluster.below_minimum == "spool":
        return NOT_HELD
    told = report()
    if told is None:
        return JOINING
    if now_ns - told.boot_ns > STALE_S * 1e9:
        return Held(HELD_SILENT)
    return msgspec.convert(told.detail.get("held", [HELD_JOINING, 0, 0]), Held)
