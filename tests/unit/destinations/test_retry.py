"""Refused rows tried again: each lands once, and the ledger follows, also when it is killed between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.destinations import retry
from headwater.destinations.memory import MemoryDestination, Store
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable
from tests.chains import LOG
from tests.unit.destinations.replay_world import OLD, WRITERS, Event, Log, World, letters_of, vector

REFUSED = ("m3", "m5")


class Choosy:
    """A world whose destination refuses m3 and m5 for now."""

    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.refused = set(REFUSED)
        events = [Event(0, n, n, 1000 + n) for n in range(8)]
        self.world = World(folder, Log(events), self.made)
        self.world.commit(8, 0)
        self.world.run()

    def made(self) -> MemoryDestination:
        return MemoryDestination(self.store, lambda row: row["message_id"] not in self.refused)

    def retry(self, *numbers: int, **more: Any) -> dict[str, Any]:
        asked = {"origins": [name(n) for n in numbers]} if numbers else {}
        return retry.retry(self.world.deliverer, {**asked, **more})

    def ids(self) -> list[str]:
        return sorted(row["message_id"] for row in self.world.held())

    def dead(self) -> int:
        return sum(row.total.dead for row in self.world.deliverer.destination.positions(MAIN).values())


MAIN = "cluster/warehouse/main"
EVERY = [f"m{n}" for n in range(8)]


def name(number: int) -> str:
    return f"{WRITERS[0]:016x}-{LOG:016x}-{number}"


@pytest.fixture
def choosy(tmp_path: Path) -> Choosy:
    found = Choosy(tmp_path)
    assert found.ids() == [m for m in EVERY if m not in REFUSED] and found.dead() == 2
    return found


def test_what_is_accepted_now_becomes_a_row(choosy: Choosy) -> None:
    choosy.refused = {"m5"}
    told = choosy.retry(all=True)
    assert told["retried"] == [name(3)] and told["left"] == 1
    assert [one["origin"] for one in told["refused_again"]] == [name(5)]
    assert choosy.ids() == [m for m in EVERY if m != "m5"] and choosy.dead() == 1
    (row,) = [row for row in choosy.world.held() if row["message_id"] == "m3"]
    assert row["config"] == OLD and row["_hw_seq"] == 3 and row["_hw_partition"] == 3
    choosy.world.check_ledger()


def test_only_those_that_are_named_are_tried(choosy: Choosy) -> None:
    choosy.refused = set()
    told = choosy.retry(5, 7)
    assert told["retried"] == [name(5)] and told["unknown"] == [name(7)] and told["left"] == 1
    assert "m3" not in choosy.ids()
    choosy.world.check_ledger()


def test_killed_between_the_row_and_its_letter_it_is_there_once(choosy: Choosy) -> None:
    """INV-LED-1: the second try finds the row, and counts nothing."""
    choosy.refused = set()
    kept = choosy.world.letters.remove
    choosy.world.letters.remove = lambda origins: None  # type: ignore[method-assign]
    choosy.retry(3)
    choosy.world.letters.remove = kept  # type: ignore[method-assign]
    choosy.world.start()
    choosy.world.run(3)
    told = choosy.retry(3)
    assert told["retried"] == [name(3)] and told["left"] == 1
    assert choosy.ids().count("m3") == 1 and choosy.dead() == 1
    choosy.world.check_ledger()


def test_where_another_copy_has_a_row_the_letter_stays(choosy: Choosy) -> None:
    choosy.refused = set()
    (row,) = [row for row in choosy.world.held() if row["message_id"] == "m7"]
    row = {**row, "message_id": "m3", "key_id": "web", "_hw_seq": 99}
    choosy.store.rows["events"].append(row)
    told = choosy.retry(3)
    assert told["refused_again"] == [{"origin": name(3), "reason": retry.COPY}]
    assert choosy.ids().count("m3") == 1


def test_a_letter_of_an_event_that_processing_refuses_is_left_to_a_replay(choosy: Choosy) -> None:
    choosy.world.letters.add_letters(letters_of([Event(0, 20, 20, 0)]), 0)
    told = choosy.retry(20)
    assert told["refused_again"] == [{"origin": name(20), "reason": retry.NO_ROW}]


def test_the_destination_goes_on_after_it(choosy: Choosy) -> None:
    choosy.refused = set()
    choosy.retry(all=True)
    choosy.world.log.events += [Event(0, 8, 8, 2000)]
    choosy.world.commit(9, 0)
    choosy.world.run()
    assert choosy.ids() == sorted([*EVERY, "m8"])
    assert choosy.world.deliverer.have[0] == vector(9, 0)
    choosy.world.check_ledger()


@pytest.mark.parametrize("asked", [{}, {"origins": []}, {"origins": ["m3"]}, {"origins": ["1-2"]}])
def test_what_is_no_origin_is_said(choosy: Choosy, asked: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as raised:
        retry.retry(choosy.world.deliverer, asked)
    assert raised.value.code == "retry_origins"


def test_a_paused_destination_tries_nothing(choosy: Choosy) -> None:
    choosy.store.up = False
    choosy.world.log.events += [Event(0, 8, 8, 2000)]
    choosy.world.commit(9, 0)
    choosy.world.run(3)
    with pytest.raises(HeadwaterError) as raised:
        choosy.retry(all=True)
    assert isinstance(raised.value, Unavailable)
