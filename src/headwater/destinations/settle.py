"""Rows made right by facts that came later, in one destination (protocol.md §10, Settle).

Whose an anonymous id was follows from its facts by one function (identity/owner.py); here it is applied to the rows
that are there already. A pass takes the ids that facts have touched, many at once, and corrects a bounded number of
rows in one transaction; what is left comes in the next one, and fresh rows go between. Everything can be repeated, so
nothing is remembered but which ids are open, and that stands in the destination, written by the step that brought the
facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from headwater.destinations.port import Settling
from headwater.identity.owner import Fact, Interval, intervals, redundant
from headwater.identity.settings import IdentitySettings
from headwater.identity.table import intervals_table
from headwater.kit.clock import Clock
from headwater.kit.errors import HeadwaterError, Misconfigured, Rejected

LOOK_INTERVAL_S = 1.0
"""How often the destination is asked where no facts came through here: other nodes' steps bring some too."""

TROUBLE_INTERVAL_S = 15.0


class Settler:
    """``turn`` from the deliverer's thread, between its steps."""

    def __init__(
        self,
        destination: Settling,
        settings: IdentitySettings,
        clock: Clock,
        partitions: Callable[[], Sequence[int] | None] = lambda: None,
        tell: Callable[[HeadwaterError], None] = lambda trouble: None,
    ) -> None:
        """``partitions``: whose ids are settled from here; None: all. ``tell``: of a trouble, when it begins."""
        self.destination = destination
        self.partitions = partitions
        self.settings = settings
        self.clock = clock
        self.tell = tell
        self.due_ns = 0
        self.trouble: HeadwaterError | None = None
        """Why rows cannot be corrected now; rows are delivered all the same."""
        self.counters = {"passes": 0, "ids": 0, "rows": 0}

    def touch(self) -> None:
        """Facts came: look soon, not at once, so that one pass serves many. A trouble keeps its own pace."""
        if self.trouble is not None:
            return
        soon_ns = self.clock.boot_ns() + self.settings.settle_interval_ms * 1_000_000
        self.due_ns = min(self.due_ns, soon_ns)

    def turn(self) -> float:
        """One pass, if it is due; seconds until the next is."""
        wait_s = (self.due_ns - self.clock.boot_ns()) / 1e9
        if wait_s > 0:
            return wait_s
        wait_s = self.next_s()
        self.due_ns = self.clock.boot_ns() + int(wait_s * 1e9)
        return wait_s

    def next_s(self) -> float:
        """One pass; seconds until the next. What an operator must mend, such as a constraint that refuses a user, keeps
        no fresh row waiting: it is told, and tried again now and then."""
        try:
            more = self.settle_some()
        except (Rejected, Misconfigured) as error:
            if self.trouble is None or self.trouble.code != error.code:
                self.tell(error)
            self.trouble = error
            return TROUBLE_INTERVAL_S
        self.trouble = None
        return 0.0 if more else LOOK_INTERVAL_S

    @property
    def told(self) -> dict[str, object]:
        """For the status."""
        trouble = self.trouble
        why = {"reason": trouble.message, "help": trouble.help} if trouble else {"reason": None, "help": None}
        return {**self.counters, **why}

    def settle_some(self) -> bool:
        """One pass; whether there may be more to do."""
        done = self.destination.settle(
            self.partitions(),
            self.whose,
            ids_max=self.settings.settle_ids_max,
            rows_max=self.settings.settle_rows_max,
        )
        self.counters["passes"] += bool(done.ids or done.rows)
        self.counters["ids"] += done.ids
        self.counters["rows"] += done.rows
        return done.more

    def whose(self, facts: pa.Table) -> pa.Table:
        """What the facts of the ids of a pass say."""
        return intervals_table(changes(facts, self.settings))

    def close(self) -> None:
        """Nothing is held."""


def changes(facts: pa.Table, settings: IdentitySettings) -> Mapping[str, list[Interval]]:
    """Whose each id was, of the ids whose rows may not agree with it."""
    everything: dict[str, list[Fact]] = {}
    settled: dict[str, list[Fact]] = {}
    columns = (facts[name].to_pylist() for name in facts.column_names)
    for anonymous_id, kind, user, time_us, message, done in zip(*columns, strict=True):
        fact = Fact(kind, user or "", time_us, message)
        everything.setdefault(anonymous_id, []).append(fact)
        if done:
            settled.setdefault(anonymous_id, []).append(fact)
    return {
        anonymous_id: intervals(known, settings.policy)
        for anonymous_id, known in everything.items()
        if not redundant(known, settled.get(anonymous_id, ()))
    }
