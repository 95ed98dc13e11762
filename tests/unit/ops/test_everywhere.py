"""One ledger over several nodes: each partition is counted once, and who does not answer is named."""

from typing import Any

import msgspec
import pytest

from headwater.config.report import Report
from headwater.event.commit import RESTARTED
from headwater.event.position import Position, Receipt, Vector, WriterId
from headwater.kit.errors import Rejected
from headwater.ops import everywhere, metrics, reconcile, standing
from headwater.ops import where as journey
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
    assert found.holds and (found.pending, found.uncounted) == (0, 1)
    assert "1 partitions were taken over" in found.problems[0] and "(here 1)" in found.problems[0]
    assert "could not be read" not in found.problems[0]
    seeding = {"partitions": [], "unread_homes": [THERE]}
    told = msgspec.structs.replace(told, detail={**told.detail, "counters": counters, "seeding": seeding})
    found = ledger([told, deliverer([1], 4)], OWNERS)
    assert f"the older events of {THERE} could not be read" in found.problems[0]


def letter(seq: int, **more: Any) -> dict[str, Any]:
    return {"writer": "a", "log": "1", "seq": seq, "row": 0, "stream": "web", **more}


def test_a_letter_that_two_nodes_have_is_told_once_and_held_by_the_same_whoever_is_asked() -> None:
    told = {THERE: [letter(1), letter(2)], HERE: [letter(1)]}
    assert [(one["seq"], one["node"]) for one in everywhere.joined_letters(told)] == [(1, HERE), (2, THERE)]
    backwards = dict(reversed(told.items()))
    assert everywhere.joined_letters(backwards) == everywhere.joined_letters(told)


def test_that_a_letter_was_retried_counts_wherever_it_is_known() -> None:
    retried = letter(1, retried_at="2026", retried_as="r")
    (found,) = everywhere.joined_letters({HERE: [letter(1)], THERE: [retried]})
    assert (found["node"], found["retried_as"]) == (HERE, "r")


def test_letters_of_destinations_are_others_than_those_of_processing() -> None:
    assert len(everywhere.joined_letters({HERE: [letter(1)], THERE: [letter(1, destination="w")]})) == 2


def test_the_newest_of_all_nodes_are_listed() -> None:
    joined = everywhere.joined_letters({HERE: [letter(1), letter(5)], THERE: [letter(3)]})
    assert [one["seq"] for one in everywhere.newest(joined, 2)] == [5, 3]


NAMES = {HERE: "a", THERE: "b"}


def test_a_decision_says_where_it_was_carried_out_and_who_is_silent() -> None:
    answers = everywhere.Answers({}, ["node c"], {THERE: Rejected("nothing to resume", code="not_held")})
    said = everywhere.said_together({"since": "now"}, answers, HERE, NAMES)
    assert said == {
        "since": "now",
        "nodes": {"a": {"since": "now"}, "b": {"error": "nothing to resume", "code": "not_held"}},
        "silent": ["node c"],
    }


def test_a_decision_that_nobody_carried_out_is_an_error() -> None:
    own = Rejected("nothing to resume", code="not_held")
    with pytest.raises(Rejected, match="nothing to resume"):
        everywhere.said_together(own, everywhere.Answers({}, ["node c"]), HERE, NAMES)


def where(durable: bool | None, *vectors: Vector, partitions: int = 2) -> dict[str, Any]:
    receipt = Receipt(B, 1, 4)
    processed = standing.Processed(dict(enumerate(vectors)))
    return journey.where(receipt, durable, processed, {"w": standing.Delivered("w")}, partitions)


def test_a_request_is_processed_when_the_owners_of_all_partitions_have_said_so() -> None:
    assert where(True, END, END)["processed"]
    assert not where(True, END)["processed"], "nobody speaks for the other partition"
    assert not where(True, END, Vector({B: Position(1, 3)}))["processed"]


def test_whether_a_silent_home_holds_a_request_is_known_from_those_who_read_it() -> None:
    assert where(None, END, END)["acknowledged"] is True
    assert where(None, Vector({B: Position(1, 3)}))["acknowledged"] is None
    later = Vector({B: Position(2, 9)})
    assert where(None, later, later)["acknowledged"] is None, "its log may have ended before"
    assert not where(None, later, later)["processed"]


def test_the_metrics_of_all_nodes_add_up_to_the_ledger_without_what_is_pending() -> None:
    here = metrics.from_part({"web": 6}, {"web": {**COUNTS, "dead": 1}}, {"w": delivered_rows(3)})
    there = metrics.from_part({"web": 4}, {"web": COUNTS}, {"w": delivered_rows(5)})
    total: dict[str, float] = {}
    for sample in (*here, *there):
        name = sample.labels.get("kind", sample.name)
        total[name] = total.get(name, 0) + sample.value
    assert (total["headwater_accepted_events_total"], total["delivered"], total["dead"]) == (10, 8, 1)
    assert "pending" not in total


def delivered_rows(rows: int) -> standing.Delivered:
    return standing.Delivered("w", streams={"web": {"rows": rows}})
