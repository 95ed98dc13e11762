"""Whom a node hears: when, with which incarnation, and what they said last (protocol.md §9).

Silent for 2H: *suspect*; for 3H: *missed*. All by this node's own monotonic clock; no clocks are compared. Silence
counts from the last heartbeat, or from when one could be expected (the start, the first table that names the node).
Time that this node itself stood still is nobody's silence: who was stopped for a while first listens again.

One node id is one node. A second one under the same id is told apart by its incarnation and address: at the same
address it can only be the next life of the process, and the newer wins. At another address it is a copied data folder
as long as the first is heard, and is refused; once that one is silent for 2H, it is the same node in another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headwater.cluster.messages import Heartbeat

Verdict = Literal["fine", "new", "superseded", "cloned"]
SUSPECT, DEAD = 2, 3
"""In heartbeats."""
LATE = 1.5
"""In heartbeats, as well: the next one should have been here."""
FORGET = 300
"""In heartbeats: strangers that were silent for so long are forgotten."""


@dataclass(slots=True)
class Heard:
    """What one node said last, and when."""

    beat: Heartbeat
    last_ns: int


class Hearing:
    """The heartbeats of all others. Bounded by the nodes that proved to be of this cluster (peer handshake)."""

    def __init__(self, heartbeat_ns: int, now_ns: int) -> None:
        self.heartbeat_ns = heartbeat_ns
        self.heard: dict[str, Heard] = {}
        self.expected: dict[str, int] = {}
        """Since when a heartbeat could have come, of members that were never heard."""
        self.since_ns = now_ns
        self.asked: tuple[int, dict[str, Heartbeat]] | None = None
        """The last answer of ``fresh``, for the same moment."""

    def heartbeat(self, beat: Heartbeat, now_ns: int) -> Verdict:
        """Take it in, unless it comes from somebody who should not be. *new*: it was not heard just before."""
        node, known = beat.record.node, self.heard.get(beat.record.node)
        if known is not None:
            verdict = self.judge(known, beat, now_ns)
            if verdict != "fine":
                return verdict
        fresh = self.hears(node, now_ns) and known is not None and known.beat.record == beat.record
        self.heard[node], self.asked = Heard(beat, now_ns), None
        return "fine" if fresh else "new"

    def judge(self, known: Heard, beat: Heartbeat, now_ns: int) -> Verdict:
        was, now = known.beat.record, beat.record
        if now.member_address != was.member_address and now_ns - known.last_ns < SUSPECT * self.heartbeat_ns:
            return "cloned"
        return "superseded" if now.incarnation < was.incarnation else "fine"

    def silence_ns(self, node: str, now_ns: int) -> int:
        """For how long nothing came from a node that should have said something."""
        known = self.heard.get(node)
        since = max(self.since_ns, self.expected.get(node, 0))
        return now_ns - (max(known.last_ns, since) if known is not None else since)

    def hears(self, node: str, now_ns: int) -> bool:
        known = self.heard.get(node)
        return known is not None and now_ns - known.last_ns < DEAD * self.heartbeat_ns

    def misses(self, node: str, now_ns: int) -> bool:
        return not self.hears(node, now_ns) and self.silence_ns(node, now_ns) >= DEAD * self.heartbeat_ns

    def suspects(self, node: str, now_ns: int) -> bool:
        return self.silence_ns(node, now_ns) >= SUSPECT * self.heartbeat_ns

    def fresh(self, now_ns: int) -> dict[str, Heartbeat]:
        """What those say whom this node hears."""
        if self.asked is None or self.asked[0] != now_ns:
            end = now_ns - DEAD * self.heartbeat_ns
            said = {node: known.beat for node, known in self.heard.items() if known.last_ns > end}
            self.asked = (now_ns, said)
        return self.asked[1]

    def expect(self, members: set[str], now_ns: int) -> None:
        """These should be heard from now on; strangers that are long silent are forgotten."""
        self.expected = {node: self.expected.get(node, now_ns) for node in members}
        old = now_ns - FORGET * self.heartbeat_ns
        for node in [one for one, known in self.heard.items() if known.last_ns < old and one not in members]:
            del self.heard[node]

    def excuse(self, gap_ns: int, now_ns: int) -> None:
        """This node stood still for a while: that was not the others' silence."""
        self.asked = None
        for known in self.heard.values():
            known.last_ns = min(known.last_ns + gap_ns, now_ns)
        self.since_ns = min(self.since_ns + gap_ns, now_ns)

    def forget(self, node: str) -> None:
        self.heard.pop(node, None)
        self.asked = None

    def forget_all(self, now_ns: int) -> None:
        """Nothing that was heard says anything about now."""
        self.heard.clear()
        self.asked = None
        self.since_ns = now_ns
