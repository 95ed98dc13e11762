"""One ledger over several nodes: each partition is counted once, and who does not answer is named."""

from typing import Any

import msgspec

from headwater.config.report import Report
from headwater.event.commit import RESTARTED
from headwater.event.position import Position, Vector, WriterId
from headwater.ops import everywhere, reconcile, standing
from headwater.ops.accepted import Accepted

HERE, THERE = "00000000000a0000", "00000000000b0000"
A, B = WriterId(0xA0000), WriterId(0xB0000)
END = Vector({A: Position(1, 6), B: Position(1, 4)})
COUNTS = {"in": 5, "out": 5, "duplicate": 0, "dead": 0, "filtered": 0, "erased": 0, "damaged": 0}


def processor(partitions: list[int], **counts: int) -> Report:
    detail: dict[str, Any] = {
        "vectors": [{"partitions": partitions, "vector": END.encode().hex()}],
        "counters": {"web": {**COUNTS, **counts}},
    }
    return Report(role="process-0", pid=1, start=1, detail=detail)


def deliverer(partitions: list[int], rows: int) -> Report:
    told = {
        "state": "delivering",
        "vectors": {END.encode().hex(): partitions},
        "streams": {"web": {"out": rows, "rows": rows, "dead": 0, "erased": 0, "skipped": 0, "revived": 0}},
    }
    return Report(role="deliver-w", pid=1, start=1, detail={"destinations": {"w": told}})


def ledger(others: list[Report], owners: dict[str, frozenset[int]]) -> reconcile.Ledger:
    own = {"process-0": processor([0]), "deliver-w": deliverer([0], 5)}
    reports = everywhere.joined_reports(
        HERE, own, {THERE: [msgspec.to_builtins(one) for one in others]}, owners
    )
    accepted = everywhere.joined_accepted(
        Accepted({"web": 6}, {A: Position(1, 6)}),
        {THERE: everywhere.accepted_as_told(Accepted({"web": 4}, {B: Position(1, 4)}))},
    )
    (found,) = reconcile.reconcile(
        accepted, standing.processed(reports), standing.delivered(reports), partitions=2
    )
    return found


OWNERS = {HERE: frozenset({0}), THERE: frozenset({1})}


def test_the_ledger_is_that_of_all_nodes() -> None:
    found = ledger([processor([1]), deliverer([1], 5)], OWNERS)
    assert (found.accepted, found.delivered, found.pending, found.holds) == (10, 10, 0, True)
    assert found.destinations["w"].delivered == 10


def test_who_no_longer_owns_a_partition_does_not_speak_for_it() -> None:
    found = ledger([processor([0, 1]), deliverer([0, 1], 5)], OWNERS)
    assert (found.accepted, found.delivered, found.pending, found.holds) == (10, 5, 5, True)


def test_events_that_are_missing_show() -> None:
    found = ledger([processor([1], **{"in": 4, "out": 4}), deliverer([1], 4)], OWNERS)
    assert not found.holds and "9 of 10 accepted" in found.problems[0]


def test_without_an_answer_of_every_node_nothing_is_said_to_hold() -> None:
    whole = ledger([processor([1]), deliverer([1], 5)], OWNERS)
    (found,) = reconcile.without_some([whole], ["b"])
    assert not found.holds and found.problems == ["b did not answer: what only they know is not counted"]


def test_partitions_that_came_without_state_are_told_and_are_no_mismatch() -> None:
    told = processor([1], **{"in": 4, "out": 4})
    counters = told.detail["counters"] | {RESTARTED: {**dict.fromkeys(COUNTS, 0), "in": 1}}
    found = ledger(
        [msgspec.structs.replace(told, detail={**told.detail, "counters": counters}), deliverer([1], 4)],
        OWNERS,
    )
    assert found.holds and found.pending == 1 and "1 partitions were taken over" in found.problems[0]
