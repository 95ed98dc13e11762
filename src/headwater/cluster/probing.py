"""Asking others whether they hear somebody: the second witness of an eviction, and the test of a mended link."""

from __future__ import annotations

from collections.abc import Iterable

from headwater.cluster.actions import Send
from headwater.cluster.hearing import SUSPECT
from headwater.cluster.messages import Probe, ProbeAck

WITNESSES_MAX = 5
"""How many are asked at once."""


class Probing:
    """Questions under way and the newest answers; answers older than H count for nothing."""

    def __init__(self, heartbeat_ns: int) -> None:
        self.heartbeat_ns = heartbeat_ns
        self.asked_ns: dict[str, int] = {}
        self.answers: dict[str, dict[str, tuple[int | None, int]]] = {}

    def ask(self, about: str, witnesses: Iterable[str], now_ns: int) -> list[Send]:
        """At most four times per H, other witnesses each time."""
        if now_ns - self.asked_ns.get(about, -self.heartbeat_ns) < self.heartbeat_ns // 4:
            return []
        self.asked_ns[about] = now_ns
        self.answers = {node: said for node, said in self.answers.items() if node in self.asked_ns}
        known = self.answers.get(about, {})
        chosen = sorted(witnesses, key=lambda node: (known.get(node, (None, -1))[1], node))[:WITNESSES_MAX]
        return [Send(tuple(chosen), Probe(about=about))] if chosen else []

    def answered(self, witness: str, ack: ProbeAck, now_ns: int) -> None:
        """Answers to what was not asked are left out."""
        if ack.about in self.asked_ns:
            self.answers.setdefault(ack.about, {})[witness] = (ack.silent_ms, now_ns)

    def missed_by(self, about: str, now_ns: int) -> list[str]:
        """Who says just now that it has not heard it for 2H."""
        return [node for node, silent in self.newest(about, now_ns) if self.suspect(silent)]

    def heard_by(self, about: str, now_ns: int) -> list[str]:
        """Who says just now that it hears it."""
        return [node for node, silent in self.newest(about, now_ns) if not self.suspect(silent)]

    def newest(self, about: str, now_ns: int) -> list[tuple[str, int | None]]:
        said = self.answers.get(about, {})
        return [(node, silent) for node, (silent, at) in said.items() if now_ns - at <= self.heartbeat_ns]

    def suspect(self, silent_ms: int | None) -> bool:
        return silent_ms is None or silent_ms * 1_000_000 >= SUSPECT * self.heartbeat_ns

    def settle(self, about: str) -> None:
        """Nobody asks about it any more."""
        self.asked_ns.pop(about, None)
        self.answers.pop(about, None)
