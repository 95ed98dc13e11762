"""Advisories of this node: an owner that stays behind its raw log, and one that is back (lane/lag.py). Each is a line
of the log, a counter, and, where `cluster.advisories` names one, a message to a webhook.
"""

from __future__ import annotations

from collections.abc import Callable

from headwater.cluster.channels.advisory import Action
from headwater.cluster.settings import ClusterSettings
from headwater.kit.happenings import wall_text
from headwater.lane.lag import Lag
from headwater.node.context import Context
from headwater.node.happenings import OwnerResumed, OwnerSlow
from headwater.node.webhook import Webhook

REASON = "slow_consumer"
TOPIC = "events"


class Advisor:
    """Tells them."""

    def __init__(
        self, context: Context, cluster: ClusterSettings, me: str, name_of: Callable[[str], str]
    ) -> None:
        url = cluster.advisories.webhook if cluster.advisories is not None else ""
        self.context = context
        self.cluster = cluster
        self.me = me
        self.name_of = name_of
        self.webhook = Webhook(url, context.clock, context.rng, context.counters) if url else None
        self.number = 0

    def tell(self, owner: str, action: Action, lag: Lag) -> None:
        """One advisory; never waits."""
        context, name = self.context, self.name_of(owner)
        kind = OwnerResumed if action == "resumed" else OwnerSlow
        context.happenings.emit(
            kind(
                owner=name,
                events=lag.events,
                oldest_age_s=round(lag.age_s, 1),
                mirror_share=round(lag.share, 3),
            )
        )
        context.counters.add("headwater_advisories_total", reason=REASON, action=action)
        if self.webhook is not None:
            self.number += 1
            self.webhook.offer(
                {
                    "id": f"{self.me}-{context.control.start}-{self.number}",
                    "time": wall_text(context.clock.wall_ns()),
                    "cluster": self.cluster.name,
                    "node": self.cluster.node_name,
                    "topic": TOPIC,
                    "reason": REASON,
                    "action": action,
                    "peer": name,
                    "events": lag.events,
                    "oldest_age_s": round(lag.age_s, 1),
                    "mirror_share": round(lag.share, 3),
                }
            )
