"""The story of an event: each fate has its own words, and who mends it."""

import json

import pytest

from headwater.event.position import Position, Vector, WriterId
from headwater.ops import explain
from headwater.ops.find import Found, Searched
from headwater.ops.known import Known, Stand, by_id, by_place, grouped, vectors_of

W, LOG = WriterId(0xAB0000), 7
WRITER, LOG_TEXT = f"{W:016x}", f"{LOG:016x}"
SECOND = 10**9


def found(seq, message_id="m1", **more):
    given = {
        "writer": WRITER, "log": LOG_TEXT, "seq": seq, "message_id": message_id, "stream": "web",
        "received_ns": (100 + seq) * SECOND, "closed_ns": (100 + seq) * SECOND + 2_000_000, "dialect": "native",
        "method": "POST", "path": "/events", "slot": 0, "events": 1, "index": 0, "body": b"{}",
    }  # fmt: skip
    return Found(**{**given, **more})


def at(seq, log=LOG):
    """Partition 0 stands there."""
    return grouped({0: Vector({W: Position(log, seq)})})


def row(seq, message_id="m1", **more):
    place = {"_hw_writer": str(int(W)), "_hw_log": str(LOG), "_hw_seq": str(seq), "_hw_partition": 0}
    return {
        "message_id": message_id,
        "key_id": "web",
        "received_at": f"1970-01-01T00:01:{40 + seq}Z",
        **place,
        **more,
    }


def stand(seq, *rows, **more):
    return Stand(**{"state": "delivering", "vectors": at(seq), "rows": list(rows), **more})


def letter(seq, **more):
    return {
        "writer": WRITER, "log": LOG_TEXT, "seq": seq, "row": 0, "stream": "web", "reason": "no good", "field": "event",
        "message_id": "m1", "received": "1970-01-01T00:01:40+00:00", **more,
    }  # fmt: skip


def tell(copies, processed=9, letters=(), **destinations):
    known = Known(
        partitions=64, letters=list(letters), processed=at(processed), destinations=destinations,
        warnings=["process-0 is being restarted"],
    )  # fmt: skip
    return explain.tell("m1", copies, known, Searched(events=3))


def fates(story, name="w"):
    return [(one.processing.state, one.destinations[name].state) for one in story.copies]


def test_the_first_copy_is_a_row_and_the_others_are_duplicates_of_it():
    story = tell([found(4), found(1)], w=stand(9, row(1)))
    assert [one.position[-2:] for one in story.copies] == ["-1", "-4"]
    assert fates(story) == [("row", "there"), ("duplicate", "nothing")]
    assert story.copies[1].processing.of == f"{WRITER}-{LOG_TEXT}-1"
    assert story.copies[1].processing.says.endswith("within the dedupe window")
    assert story.copies[0].destinations["w"].row == row(1)
    assert (story.copies[0].received_at, story.copies[0].closed_ms) == ("1970-01-01T00:01:41.000000Z", 2.0)


def test_copies_further_apart_than_the_window_are_both_rows():
    assert fates(tell([found(1), found(4)], w=stand(9, row(1), row(4)))) == [("row", "there")] * 2


def test_the_same_id_of_another_key_is_no_copy():
    story = tell([found(1), found(4, stream="shop")], w=stand(9, row(1), row(4, key_id="shop")))
    assert fates(story) == [("row", "there")] * 2
    story = tell([found(1), found(4, stream="shop")], w=stand(9, row(1)))
    assert story.copies[1].processing.state == "unknown"


def test_an_event_that_processing_has_not_reached_waits_and_says_for_what():
    (copy,) = tell([found(6)], processed=2, w=stand(2)).copies
    assert (copy.processing.state, copy.destinations["w"].state) == ("pending", "pending")
    assert copy.processing.says == (
        "processing has not reached it: 4 events of its log come before it; process-0 is being restarted"
    )


def test_an_event_waits_for_a_paused_destination_and_the_command_is_named():
    paused = stand(
        6, state="paused", reason="by operator since noon", command="headwater destination resume w"
    )
    story = tell([found(6)], w=paused, v=stand(9, row(6)))
    assert fates(story) == [("row", "pending")]
    told = story.copies[0].destinations["w"]
    assert told.says == "not there yet: it is paused by operator since noon; it is the next one of its log"
    assert told.command == "headwater destination resume w"
    assert story.copies[0].destinations["v"].state == "there"


def test_a_dead_letter_says_its_reason_and_its_retry():
    retried = {"retried_at": "noon", "retried_as": "r-1"}
    (copy,) = tell([found(1)], letters=[letter(1, **retried)], w=stand(9)).copies
    assert (copy.processing.state, copy.processing.reason, copy.processing.field) == (
        "dead",
        "no good",
        "event",
    )
    assert copy.processing.says == "dead: no good (field event); retried at noon, receipt r-1"
    assert copy.destinations["w"].state == "nothing"


def test_an_event_that_the_door_refused_is_dead_also_before_its_letter_is_written():
    (copy,) = tell([found(1, refused="no name", field="event")], w=stand(9)).copies
    assert (copy.processing.state, copy.processing.reason) == ("dead", "no name")


def test_a_dead_copy_is_nobodys_original():
    story = tell([found(1), found(4)], letters=[letter(1)], w=stand(2))
    assert [one.processing.state for one in story.copies] == ["dead", "row"]


def test_a_row_that_a_destination_refused_says_why():
    refused = letter(1, destination="w", reason="constraint", help="widen it")
    story = tell([found(1)], letters=[refused], w=stand(9), v=stand(9, row(1)))
    assert story.copies[0].destinations["w"].state == "refused"
    assert story.copies[0].destinations["w"].says == "refused: constraint (widen it)"
    assert story.copies[0].destinations["v"].state == "there"


def test_a_row_that_one_destination_lacks_though_it_has_passed_it_is_missing():
    story = tell([found(1)], w=stand(9), v=stand(9, row(1)))
    assert story.copies[0].destinations["w"].state == "missing"
    (copy,) = tell([found(1)], w=stand(9)).copies
    assert copy.processing.state == "unknown"


def test_what_only_a_destination_still_knows_is_told_too():
    (copy,) = tell([], w=stand(9, row(3))).copies
    assert (copy.in_raw, copy.processing.state, copy.message_id, copy.stream) == (False, "row", "m1", "web")


def test_what_could_not_be_asked_is_said():
    story = tell([found(1)], w=stand(9, error="it does not run"))
    assert story.not_asked == ["w: it does not run"]
    assert story.copies[0].destinations["w"].state == "unknown"
    assert story.searched["destinations"] == []


def test_never_seen_says_what_was_searched():
    story = tell([], w=stand(9))
    assert (story.found, story.copies, story.searched["raw"]["events"]) == (False, [], 3)


def test_of_a_receipt_only_its_events_are_told_and_others_say_what_they_are_copies_of():
    known = Known(partitions=64, processed=at(9), destinations={"w": stand(9, row(1))})
    place = (WRITER, LOG_TEXT, 4)
    story = explain.tell("r", [found(4)], known, None, places={place: "receipt"})
    (copy,) = story.copies
    assert (copy.found_by, copy.processing.of) == ("receipt", f"{WRITER}-{LOG_TEXT}-1")


def test_a_damaged_position_is_told_as_such():
    known = Known(partitions=64, processed=at(9))
    place = (WRITER, LOG_TEXT, 4)
    (copy,) = explain.tell("p", [], known, None, [place], {place: "position"}).copies
    assert copy.processing.state == "damaged"


@pytest.mark.parametrize(("seq", "log", "passed"), [(4, 7, True), (5, 7, False), (0, 8, False), (9, 6, True)])
def test_a_position_is_passed_when_everything_up_to_it_is(seq, log, passed):
    one = explain.Seen(place=(WRITER, f"{log:016x}", seq), message_id="m", stream="web", partition=0)
    assert explain.passes(vectors_of(at(5)), one)[0] is passed


def test_nobody_knows_where_nothing_was_said():
    one = explain.Seen(place=(WRITER, LOG_TEXT, 1), message_id="m", stream="web", partition=0)
    assert explain.passes({}, one) == (None, "")


def test_an_id_cannot_leave_its_place_in_a_statement():
    assert by_id(["a'b", "x\0y", "--"]) == ["message_id in ('a''b', '--')"]
    assert by_id(["\0"]) == []
    assert by_place([(WRITER, LOG_TEXT, 1), (WRITER, LOG_TEXT, 2)]) == [
        f"(_hw_writer = {int(W)} and _hw_log = 7 and _hw_seq in (1, 2))"
    ]


def test_a_story_shows_no_write_key():
    (copy,) = tell([found(1, body=b'{"writeKey": "secret", "event": "A"}')], w=stand(9)).copies
    assert copy.event == '{"writeKey": "***", "event": "A"}'


def test_a_story_is_json():
    import msgspec

    assert (
        json.loads(msgspec.json.encode(tell([found(1)], w=stand(9, row(1)))))["copies"][0]["in_raw"] is True
    )
