"""What a node owes to its clients, looked at from outside: `headwater sql` on each destination, and the ledger.

Of a round: every acknowledged event is in every destination once with its value, every other one at most once, and
nothing else is there. Of all rounds together: as many rows as those rounds had, and the ledger holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.chaos.load import Load
from tests.journeys.running import Running, wait_for

SETTLED_S = 120


class Violation(AssertionError):
    """An event is lost, doubled or changed, or the ledger does not hold."""


@dataclass
class Oracle:
    """Remembers what every round left."""

    node: Running
    lost: int = 0
    doubled: int = 0
    before: int = 0
    """Rows of the rounds before, alike in every destination."""

    def check(self, load: Load, destinations: list[str], *, unknown: int = 0) -> None:
        """After a round, with the clients at rest. ``unknown``: delivered events of which the data folder, an older
        copy, does not know; its ledger has that many too few, and says so."""
        # not /ready: a process that was killed three times in ten minutes makes the node unready, as it should
        wait_for(lambda: self.node.status_of(self.node.collect, "/ping") == 200, 60, self.node.log)
        streams = self.settled(unknown)
        counts = {name: self.one(load, name) for name in destinations}
        if len(set(counts.values())) != 1:
            raise Violation(f"destinations differ: {counts}")
        self.before += counts[destinations[0]]
        if not unknown and not all(stream["holds"] for stream in streams):
            raise Violation(f"the ledger does not hold: {streams}")

    def settled(self, unknown: int) -> list[dict[str, Any]]:
        """The ledger, once nothing waits any more."""
        last: list[dict[str, Any]] = []

        def nothing_waits() -> bool:
            done = self.node.command("reconcile", "--json")
            last[:] = json.loads(done.stdout) if done.stdout.strip().startswith("[") else []
            return done.returncode in (0, 1) and sum(s["pending"] for s in last) == -unknown

        wait_for(nothing_waits, SETTLED_S, lambda: f"{last}\n{self.node.log()}", interval_s=0.3)
        return last

    def one(self, load: Load, name: str) -> int:
        """One destination; how many events of the round it has."""
        rows = self.ask(name, f"select message_id, value from events where event = 'R{load.round}'")
        there = {row["message_id"]: row["value"] for row in rows}
        lost = load.acknowledged - there.keys()
        doubled = len(rows) - len(there)
        self.lost, self.doubled = self.lost + len(lost), self.doubled + doubled
        if lost:
            raise Violation(
                f"{name}: {len(lost)} of {len(load.acknowledged)} lost, such as {sorted(lost)[:5]}"
            )
        if doubled:
            raise Violation(f"{name}: {doubled} events more than once")
        wrong = [message for message, value in there.items() if load.sent.get(message) != value]
        if wrong:
            raise Violation(f"{name}: {len(wrong)} events that nobody sent so, such as {wrong[:5]}")
        (total,) = self.ask(name, "select count(*) as n, count(distinct message_id) as ids from events")
        expected = self.before + len(rows)
        if not total["n"] == total["ids"] == expected:
            raise Violation(f"{name}: {total} of {expected} rows of all rounds")
        return len(rows)

    def ask(self, name: str, query: str) -> list[dict[str, Any]]:
        """Rows; the deliverer may have died a moment ago."""
        answer: list[dict[str, Any]] = []

        def answered() -> bool:
            done = self.node.command(
                "sql", "--json", "--limit", "1000000", "--destination", name, query, timeout_s=90
            )
            if done.returncode == 0:
                answer[:] = json.loads(done.stdout)
            return done.returncode == 0

        wait_for(answered, 60, self.node.log, interval_s=0.3)
        return answer
