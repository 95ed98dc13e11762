"""Health and readiness, as pure functions of the control page and the reports.

*Ready* means: events sent now are accepted. A destination that is down, or a processor that is being restarted, is
told as a warning and takes no node out of a load balancer: its events wait, and would wait on any node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headwater.config.report import STALE_S, Report
from headwater.ops.standing import Delivered, state_text

ALIVE_S = 10.0


class Readiness(NamedTuple):
    """What /ready says."""

    ready: bool
    reasons: list[str]
    warnings: list[str]


def readiness(
    *,
    draining: bool,
    now_ns: int,
    alive_ns: int,
    reports: Mapping[str, Report],
    expected: Sequence[str],
    destinations: Mapping[str, Delivered],
    held: str = "",
) -> Readiness:
    """Whether this node takes events, and what is wrong otherwise. Times are boot times; ``held`` is why the cluster
    has the door closed."""
    reasons = ["draining: the node is about to stop"] if draining else []
    reasons += [held] if held else []
    if now_ns - alive_ns > ALIVE_S * 1e9:
        reasons.append("the supervisor gives no sign of life")
    warnings: list[str] = []
    for role in expected:
        trouble = troubles(role, reports.get(role), now_ns)
        (reasons if role.startswith("collect-") else warnings).extend(trouble)
    if (node := reports.get("node")) is not None:
        reasons += node.reasons
        warnings += node.detail.get("warnings", [])
    warnings += [
        f"destination {one.name} is {state_text(one.state, one.reason)}"
        for one in destinations.values()
        if one.state == "paused"
    ]
    return Readiness(not reasons, reasons, warnings)


def troubles(role: str, report: Report | None, now_ns: int) -> list[str]:
    """What is wrong with one process."""
    if report is None:
        return [f"{role} has not started yet"]
    if now_ns - report.boot_ns > STALE_S * 1e9:
        return [f"{role} gives no sign of life"]
    if report.state != "running":
        return [f"{role} is {report.state}", *(f"{role}: {reason}" for reason in report.reasons)]
    return [f"{role}: {reason}" for reason in report.reasons]


def health(alive: bool, reports: Mapping[str, Report], now_ns: int) -> dict[str, Any]:
    """What /health says: which processes live, whatever they can do."""
    roles = {
        role: {
            "state": report.state,
            "pid": report.pid,
            "age_s": round((now_ns - report.boot_ns) / 1e9, 1),
        }
        for role, report in sorted(reports.items())
    }
    return {"ok": alive, "roles": roles}
