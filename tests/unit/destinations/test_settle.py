"""When rows are corrected, and whose: the loop beside delivery, over a destination that does as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from headwater.destinations.memory import MemoryDestination, Store
from headwater.destinations.port import Settled, Whose
from headwater.destinations.settle import LOOK_INTERVAL_S, TROUBLE_INTERVAL_S, Settler
from headwater.identity.settings import IdentitySettings
from headwater.kit.clock import SystemClock
from headwater.kit.errors import HeadwaterError, Misconfigured, Unavailable


class Scripted(MemoryDestination):
    """Its passes do what ``script`` says, one after the other."""

    def __init__(self, *script: Settled | HeadwaterError) -> None:
        super().__init__(Store())
        self.script = list(script)
        self.asked: list[Sequence[int] | None] = []

    def unsettled(self, partitions: Sequence[int] | None, limit: int) -> list[str]:
        return []

    def facts(self, ids: Sequence[str]) -> pa.Table:
        raise NotImplementedError

    def ids_of_user(self, user_id: str, limit: int) -> list[str]:
        raise NotImplementedError

    def newest_facts(self, since_us: int, limit: int) -> pa.Table:
        raise NotImplementedError

    def rows_by_user(self, table: str, ids: Sequence[str]) -> pa.Table:
        raise NotImplementedError

    def settle(
        self, partitions: Sequence[int] | None, whose: Whose, *, ids_max: int, rows_max: int
    ) -> Settled:
        self.asked.append(partitions)
        next_ = self.script.pop(0)
        if isinstance(next_, HeadwaterError):
            raise next_
        return next_


def settler(destination: Scripted, **more: Any) -> Settler:
    return Settler(destination, IdentitySettings(settle_interval_ms=0), SystemClock(), **more)


def test_a_pass_that_leaves_something_is_followed_at_once_and_others_when_it_is_time() -> None:
    destination = Scripted(Settled(3, 7, more=True), Settled(1, 2, more=False))
    one = settler(destination)
    assert one.turn() == 0.0
    assert one.turn() == LOOK_INTERVAL_S
    assert 0 < one.turn() <= LOOK_INTERVAL_S
    assert one.counters == {"passes": 2, "ids": 4, "rows": 9}


def test_whose_rows_are_corrected_from_here_is_asked_at_each_pass() -> None:
    destination = Scripted(*[Settled(0, 0, more=True)] * 3)
    owned: list[int] | None = [1, 2]
    one = settler(destination, partitions=lambda: owned)
    one.turn()
    owned = [2]
    one.turn()
    owned = None
    one.turn()
    assert destination.asked == [[1, 2], [2], None]


def test_what_an_operator_must_mend_is_told_once_and_tried_again_now_and_then() -> None:
    wrong = Misconfigured("no index", code="visitor_index", help="make one")
    destination = Scripted(wrong, wrong, Settled(0, 0, more=False))
    told: list[HeadwaterError] = []
    one = settler(destination, tell=told.append)
    for _ in range(2):
        assert one.turn() == TROUBLE_INTERVAL_S
        one.touch()
        assert one.turn() > TROUBLE_INTERVAL_S / 2  # more facts do not hurry it
        assert (one.told["reason"], one.told["help"]) == ("no index", "make one")
        one.due_ns = 0
    assert one.turn() == LOOK_INTERVAL_S
    assert told == [wrong]
    assert one.told == {"passes": 0, "ids": 0, "rows": 0, "reason": None, "help": None}


def test_a_destination_that_does_not_answer_is_the_deliverers_matter() -> None:
    one = settler(Scripted(Unavailable("gone")))
    with pytest.raises(Unavailable):
        one.turn()
