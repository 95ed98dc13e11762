"""Segment's HTTP API: what enters, what is refused, and how a batch is split."""

from typing import Any

import msgspec
import pytest

from headwater.dialects import segment
from headwater.dialects.envelope import Limits, Refusal
from headwater.event.record import Head
from headwater.event.slots import NO_SLOT, slot_of

envelope = segment.envelope(Limits(events_max=10, event_bytes_max=1000, id_length_max=20))
encode = msgspec.json.encode


def head(path: str) -> Head:
    return Head("web", "segment", "POST", path)


@pytest.mark.parametrize(("path", "kind"), segment.TYPE_OF_PATH.items())
def test_path_tells_the_type(path: str, kind: str) -> None:
    verdict = envelope(b'{"event":"x"}', path)
    assert (verdict.events, list(verdict.refused), verdict.single) == (1, [], True)
    assert segment.default_type(head(path)) == segment.default_type(head(path + "/")) == kind


def test_only_a_track_call_needs_an_event_name() -> None:
    assert not envelope(b"{}", "/v1/page").refused
    assert envelope(b"{}", "/v1/track").refused[0].field == "event"
    assert envelope(b'{"type":"track"}', "/v1/page").refused[0].field == "event"
    assert not envelope(b'{"type":"page"}', "/v1/track").refused


@pytest.mark.parametrize(
    ("event", "key"),
    [
        ({"anonymousId": "a", "userId": "u", "messageId": "m"}, "a"),
        ({"anonymousId": "", "userId": "u"}, "u"),
        ({"anonymousId": None, "userId": 7}, "7"),
        ({"anonymousId": 0, "userId": "u"}, "0"),
        ({"messageId": "m"}, "m"),
        ({"anonymousId": "ü"}, "ü"),
    ],
)
def test_slot_follows_the_first_id_that_is_there(event: dict[str, Any], key: str) -> None:
    assert envelope(encode({"event": "x", **event}), "/v1/track").slot == slot_of(key)


def test_event_without_ids_has_no_slot() -> None:
    assert envelope(b'{"event":"x"}', "/v1/track").slot == NO_SLOT


@pytest.mark.parametrize("raw", [b'{"event":"x"}', b' {"event":\n"x"}\n', b'{"event":"x",\r\n"a":"\\n"}'])
def test_single_event_is_stored_on_one_line_that_means_the_same(raw: bytes) -> None:
    stored = envelope(raw, "/v1/track").body
    assert b"\n" not in stored and b"\r" not in stored
    assert msgspec.json.decode(stored) == msgspec.json.decode(raw)


def test_batch_event_must_say_its_type() -> None:
    verdict = envelope(b'{"batch":[{"event":"x"},{"type":"page"}]}', "/v1/batch")
    assert [(one.index, one.field) for one in verdict.refused] == [(0, "type")]


def test_large_event_of_a_batch_is_refused_alone() -> None:
    events = [{"type": "page"}, {"type": "page", "big": "x" * 1000}, {"type": "page"}]
    verdict = envelope(encode({"batch": events, "writeKey": "k"}), "/v1/batch")
    assert (verdict.events, [one.index for one in verdict.refused], verdict.write_key) == (3, [1], "k")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"batch":{}}', b'{"batch":[]}', b"{}", b'{"batch":[{"type":"page"}', b'{"batch":["\xff"]}',
     b'{"batch":[' + b"[" * 100_000, encode({"batch": [{"type": "page"}] * 11})],
)  # fmt: skip
def test_batch_that_is_refused_as_a_whole_counts_as_one(body: bytes) -> None:
    verdict = envelope(body, "/v1/batch")
    assert verdict.events == 1 and len(verdict.refused) == 1 and not verdict.single


def test_reason_says_what_was_expected_and_where() -> None:
    assert list(envelope(b'{"event":"x","userId":[1]}', "/v1/track").refused) == [
        Refusal(0, "expected text or a whole number, got an array", "userId")
    ]
    assert envelope(encode({"event": "x", "userId": "u" * 21}), "/v1/track").refused[0] == Refusal(
        0, "expected at most 20 characters", "userId"
    )
    assert envelope(b'{"b":[]}', "/v1/batch").refused[0] == Refusal(0, "expected a field batch", "batch")


def test_split_of_a_batch_gives_each_event_and_what_is_said_of_all() -> None:
    body = (
        b'{"batch":[{"type":"page","n":\n1},\r\n{"type":"page"}],"sentAt":"2026-01-01","context":{"ip":"1"}}'
    )
    split = segment.split(head("/v1/batch"), body, 2)
    assert list(split.items) == [b'{"type":"page","n": 1}', b'{"type":"page"}']
    assert (split.sent_at, split.context, split.failure) == ("2026-01-01", b'{"ip":"1"}', None)


@pytest.mark.parametrize(
    "more", ['"sentAt":5,"context":[]', '"sentAt":null,"context":null', '"sentAt":"\\ud800"']
)
def test_odd_things_said_of_all_are_left_out(more: str) -> None:
    split = segment.split(head("/v1/batch"), b'{"batch":[{}],%s}' % more.encode(), 1)
    assert (len(split.items), split.sent_at, split.context) == (1, None, None)


def test_split_of_a_single_event_is_its_body() -> None:
    assert list(segment.split(head("/v1/track"), b'{"event":"x"}', 1).items) == [b'{"event":"x"}']


@pytest.mark.parametrize(
    ("item", "reason", "field"),
    [
        (b'{"type":"track","userId":"u"}', "expected the event's name", "event"),
        (b'{"event":"x"}', "expected", "type"),
        (b"7", "expected", ""),
        (b'{"type":"track","event":"x"}', "refused at the door", ""),
    ],
)
def test_why_an_item_of_a_batch_was_refused_is_found_again(item: bytes, reason: str, field: str) -> None:
    told = segment.why(head("/v1/batch"), item)
    assert told[0].startswith(reason) and told[1] == field


def test_a_context_for_many_events_may_not_make_a_small_batch_huge() -> None:
    def body(context: int, events: int, more: bytes = b"") -> bytes:
        one = b'{"type":"track","event":"x"' + more + b"}"
        return b'{"batch":[' + b",".join([one] * events) + b'],"context":{"a":"' + b"c" * context + b'"}}'

    usual = segment.envelope(Limits())
    assert not usual(body(2_000, 30), "/v1/batch").refused
    assert not usual(body(1_000, 1000, b',"properties":{"p":"' + b"p" * 200 + b'"}'), "/v1/batch").refused
    (refusal,) = usual(body(100_000, 1000), "/v1/batch").refused
    assert refusal.field == "context" and "8 times" in refusal.reason
    (refusal,) = usual(body(100_000, 1000, b',"userId":[]'), "/v1/batch").refused
    assert refusal.field == "context"


@pytest.mark.parametrize(
    "ident", ["2131404283747573504000000000000000000", "9223372036854775808", "1.5", "1e-7", "1e999"]
)
@pytest.mark.parametrize("name", ["messageId", "anonymousId", "userId"])
def test_numbers_that_are_not_read_alike_everywhere_are_no_ids(name: str, ident: str) -> None:
    (refusal,) = envelope(f'{{"event":"x","{name}":{ident}}}'.encode(), "/v1/track").refused
    assert refusal.field == name and "number" in refusal.reason
    assert not envelope(f'{{"event":"x","{name}":-9223372036854775808}}'.encode(), "/v1/track").refused


def test_bytes_that_are_no_utf_8_are_named_by_their_place_in_the_whole_body() -> None:
    for body, path in ((b'{"event":"a\xff"}', "/v1/track"), (b'{"batch":[{"event":"a\xff"}]}', "/v1/batch")):
        place = body.index(b"\xff")
        assert envelope(body, path).refused[0].reason == f"expected UTF-8: invalid start byte (byte {place})"
