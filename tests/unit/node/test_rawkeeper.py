"""How long the raw log lasts, and for whom it need not be kept."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from headwater.config.report import Report
from headwater.event.position import EMPTY
from headwater.kit.happenings import Happening
from headwater.kit.simulate.clock import SimClock, Time
from headwater.kit.simulate.disk import SimDisk
from headwater.log import retain
from headwater.log.block import Secret
from headwater.node.happenings import RawFillsUp
from headwater.node.rawkeeper import RawKeeper, expendable, held_by, time_left_s
from headwater.ops.standing import Delivered

S = 10**9
HOUR_S = 3600


def settings(**policies: str) -> Any:
    destinations = {name: SimpleNamespace(on_raw_full=policy) for name, policy in policies.items()}
    log = SimpleNamespace(segment_bytes=0, raw_full_warning_s=6 * HOUR_S)
    return SimpleNamespace(
        destinations=destinations, log=log, raw_bytes_max=1000, collect=SimpleNamespace(workers=1)
    )


def told(**more: Any) -> Report:
    return Report(role="deliver-w", pid=1, start=1, detail={"destinations": {"w": more}})


def test_the_time_that_is_left_follows_from_the_growth() -> None:
    assert time_left_s(deque([(0, 100), (100 * S, 200)]), 1000) == pytest.approx(800)
    assert time_left_s(deque([(0, 900), (100 * S, 1000)]), 1000) == 0
    assert time_left_s(deque([(0, 100), (100 * S, 100)]), 1000) is None
    assert time_left_s(deque([(0, 100), (5 * S, 200)]), 1000) is None, "five seconds say nothing"


def test_one_new_segment_is_no_trend_unless_it_is_all_that_grew_in_ten_minutes() -> None:
    assert time_left_s(deque([(0, 100), (100 * S, 200)]), 1000, 100) is None
    assert time_left_s(deque([(0, 100), (100 * S, 300)]), 1000, 100) == pytest.approx(350)
    assert time_left_s(deque([(0, 100), (590 * S, 200)]), 1000, 100) == pytest.approx(4720)
    assert time_left_s(deque([(0, 900), (10 * S, 1000)]), 1000, 100) == 0, "what is full is told at once"


def test_only_a_destination_that_is_late_holds_the_log() -> None:
    given = settings(a="refuse", b="refuse")
    assert held_by({"a": Delivered("a", "delivering", lag_age_s=3)}, given) is None
    late = {"a": Delivered("a", "paused", lag_age_s=50), "b": Delivered("b", "delivering", lag_age_s=90)}
    assert held_by(late, given) == "b"
    assert held_by({"gone": Delivered("gone", "paused")}, given) is None


def test_the_log_need_not_be_kept_where_a_setting_or_an_operator_says_so() -> None:
    assert expendable(settings(w="refuse"), {"d": told()}) == set()
    assert expendable(settings(w="write_off"), {"d": told()}) == {"w"}
    assert expendable(settings(w="refuse"), {"d": told(written_off=True)}) == {"w"}


def test_the_alarm_is_told_at_once_and_logged_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    time, held = Time(), [0]
    emitted: list[Happening] = []
    disk = SimDisk().process("supervisor")
    disk.mkdir("/raw")
    disk.mkdir("/raw/0000000000000007")
    clock = SimClock(time)
    happenings: Any = SimpleNamespace(emit=emitted.append)
    keeper = RawKeeper(disk, clock, SimpleNamespace(), happenings, "", 4, Secret(0))  # type: ignore[arg-type]
    monkeypatch.setattr(retain, "held_bytes", lambda disk, folder, safe: held[0])
    reports = {"d": told(state="paused", lag={"age_s": 99.0})}
    for minute in range(260):
        held[0] = 2 * minute
        time.advance(60)
        keeper.look_ahead(settings(w="refuse"), reports, EMPTY, held[0])
        assert bool(keeper.warning) == (minute > 140), "more than six hours are left until then"
    assert "new events are refused" in keeper.warning
    assert [type(one) for one in emitted] == [RawFillsUp] * 2
    assert "write-off w" in keeper.warning
    written_off = {"d": told(state="paused", lag={"age_s": 99.0}, written_off=True)}
    time.advance(60)
    keeper.look_ahead(settings(w="refuse"), written_off, EMPTY, held[0])
    assert (
        "given up" in keeper.warning and "refused" not in keeper.warning and "write-off" not in keeper.warning
    )
    keeper.look_ahead(settings(w="refuse"), {}, EMPTY, 0)
    time.advance(60)
    keeper.look_ahead(settings(w="refuse"), {}, EMPTY, 0)
    assert keeper.warning == "" and keeper.told["full_in_s"] is None
