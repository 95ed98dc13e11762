"""Dead letters that come once more: read as the door reads, appended once, answered when they are durable."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from headwater.collect.again import Again, completed
from headwater.collect.door import Door
from headwater.collect.keys import KeyTable
from headwater.collect.settings import KEY_ID, CollectSettings
from headwater.event.record import ADDRESS_NONE, OPERATOR, SINGLE
from headwater.event.slots import slot_of
from headwater.kit.errors import Busy, Rejected, Unavailable
from headwater.kit.rng import SeededRng
from tests.unit.collect.harness import KEYS, MemoryLog

ADDRESS = "00000000000000000000ffff0a000001"


class Place:
    """A worker's log in memory, with its socket's handler."""

    def __init__(self, **settings: Any) -> None:
        given = CollectSettings(**settings)
        self.door = Door(given, KeyTable.build(KEYS, rng=SeededRng(1), read=str), boot_ns=lambda: 5, files={})
        self.log = MemoryLog(self.door)
        self.door.open(self.log)
        self.again = Again(given, self.door, cast(Any, self.log), lambda: 5)

    async def send(self, *bodies: bytes, dry_run: bool = False, **letter: Any) -> list[dict[str, Any]]:
        """One request; the log commits once it is in it."""
        letters = [
            {"stream": "web", "origin": f"o-{n}", "bytes": len(b), **letter} for n, b in enumerate(bodies)
        ]
        request = {"op": "append", "letters": letters, "body": b"".join(bodies), "dry_run": dry_run}
        answer = asyncio.ensure_future(self.again.answer(request))  # noqa: TID251 - a test's own task
        await asyncio.sleep(0)  # noqa: TID251 - lets it append
        self.log.commit(self.error)
        results: list[dict[str, Any]] = (await answer)[0]["results"]
        return results

    error: Any = None


async def test_a_letter_is_appended_under_its_key_with_what_its_request_said() -> None:
    place = Place()
    told = await place.send(
        b'{"event":"A","anonymousId":"a","messageId":"m"}',
        whole=False, headers={"user-agent": "x"}, address=ADDRESS, address_flags=0,
    )  # fmt: skip
    assert told == [{"receipt": "0000000000000001-0000000000000002-1", "events": 1}]
    (record,) = place.log.records
    assert (record.stream, record.slot, record.flags, record.received_ns) == ("web", slot_of("a"), SINGLE, 5)
    assert (record.head.key_id, record.head.headers) == ("web", {"user-agent": "x"})
    assert (record.head.path, record.head.query) == ("/v1/import", "retry-of=o-0")
    assert record.address == bytes.fromhex(ADDRESS)


async def test_nothing_is_answered_before_the_log_says_that_it_is_durable() -> None:
    place = Place()
    request = {
        "op": "append",
        "letters": [{"stream": "web", "origin": "o", "bytes": 13}],
        "body": b'{"event":"A"}',
    }
    answer = asyncio.ensure_future(place.again.answer(request))  # noqa: TID251 - a test's own task
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251 - lets it append
    assert place.log.records and not answer.done()
    place.log.commit()
    await answer


async def test_what_the_door_still_refuses_is_not_appended() -> None:
    place = Place()
    refused, good = await place.send(b'{"type":"track"}', b'{"event":"A"}', whole=False)
    assert refused == {"refused": "expected the event's name; a track call must have one", "field": "event"}
    assert good["events"] == 1
    assert len(place.log.records) == 1


async def test_an_event_of_a_segment_batch_must_say_its_type_and_one_of_a_call_gets_the_calls() -> None:
    place = Place()
    (told,) = await place.send(b'{"event":"A"}', whole=False, dialect="segment", path="/v1/batch")
    assert "expected a type" in told["refused"]
    await place.send(b'{"userId":"u"}', dialect="segment", path="/v1/identify")
    assert json.loads(place.log.records[0].body) == {"type": "identify", "userId": "u"}
    assert place.log.records[0].flags == SINGLE | ADDRESS_NONE


async def test_a_whole_request_is_appended_whole_or_not_at_all() -> None:
    place = Place()
    (told,) = await place.send(b'[{"event":"A"},{"type":"track"}]')
    assert told["refused"].endswith("(1 of 2 events are refused)")
    batch = b'{"batch":[{"event":"A","type":"track"},{"type":"page"}]}'
    (told,) = await place.send(batch, dialect="segment", path="/v1/batch")
    assert told == {"receipt": "0000000000000001-0000000000000002-2", "events": 2}
    (told,) = await place.send(b"event=Opened&anonymousId=a", dialect="pixel", path="/pixel.gif")
    record = place.log.records[-1]
    assert (told["events"], record.head.dialect, record.flags) == (1, "pixel", ADDRESS_NONE)


async def test_the_limits_are_those_of_the_door() -> None:
    body = b'{"event":"A","x":"' + b"x" * 200 + b'"}'
    assert "expected at most 150 bytes" in (await Place(event_bytes_max=150).send(body))[0]["refused"]
    assert "receipt" in (await Place().send(body))[0]


async def test_a_dry_run_appends_nothing() -> None:
    place = Place()
    assert await place.send(b'{"event":"A"}', dry_run=True) == [{"receipt": None, "events": 1}]
    assert not place.log.records


async def test_where_there_is_no_room_it_says_that_nothing_was_sent() -> None:
    place = Place()
    place.log.busy = Busy("no room")
    assert await place.send(b'{"event":"A"}') == [{"busy": "no room"}]
    place.log.busy = None
    place.door.leaving = True
    assert await place.send(b'{"event":"A"}') == [{"busy": "the node is stopping"}]
    assert not place.log.records


async def test_where_the_log_fails_nobody_says_that_it_is_there_or_that_it_is_not() -> None:
    place = Place()
    place.error = Unavailable("EIO")
    assert await place.send(b'{"event":"A"}') == [{"unknown": "EIO"}]


def letters(*lengths: int) -> list[dict[str, Any]]:
    return [{"stream": "web", "origin": "o", "bytes": length} for length in lengths]


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "dance", "letters": []},
        {"op": "append", "letters": letters(9), "body": b"{}"},
        {"op": "append", "letters": [{"origin": "o", "bytes": 2}], "body": b"{}"},
        {"op": "append", "letters": letters(-1, 3), "body": b"{}"},
    ],
)
async def test_requests_that_make_no_sense_append_nothing(request_: dict[str, Any]) -> None:
    place = Place()
    with pytest.raises(Rejected):
        await place.again.answer(request_)
    assert not place.log.records


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", {"messageId": "m", "timestamp": "t"}),
        (b' { "a" : 1 } ', {"messageId": "m", "timestamp": "t", "a": 1}),
        (b'{"messageId":"own"}', {"timestamp": "t", "messageId": "own"}),
        (b'{"messageId":null,"originalTimestamp":"x"}', {"messageId": None, "originalTimestamp": "x"}),
    ],
)
def test_an_event_gets_what_it_lacks_and_keeps_what_it_says(body: bytes, expected: dict[str, Any]) -> None:
    assert json.loads(completed(body, {"messageId": "m", "timestamp": "t"})) == expected


@pytest.mark.parametrize("body", [b"[1]", b"event=x", b'{"batch":[]}', b"{", b"\xff"])
def test_what_is_no_single_event_stays_as_it_is(body: bytes) -> None:
    assert completed(body, {"messageId": "m"}) == body


DECISION = {"type": "unlink", "messageId": "u1", "anonymousId": "v1", "userId": "ada"}


async def decide(place: Place, decision: Any, error: Any = None) -> dict[str, Any]:
    """One decision; the log commits once it is in it."""
    request = {"op": "decide", "body": json.dumps(decision).encode()}
    answer = asyncio.ensure_future(place.again.answer(request))  # noqa: TID251 - a test's own task
    await asyncio.sleep(0)  # noqa: TID251 - lets it append
    assert not answer.done() or answer.exception()
    place.log.commit(error)
    return (await answer)[0]


async def test_a_decision_stands_under_a_stream_that_no_key_has_in_the_partition_of_its_visitor() -> None:
    place = Place()
    assert await decide(place, DECISION) == {"receipt": "0000000000000001-0000000000000002-1"}
    (record,) = place.log.records
    assert (record.stream, record.head.key_id, record.slot) == (OPERATOR, OPERATOR, slot_of("v1"))
    assert (record.flags, record.events, record.received_ns) == (SINGLE | ADDRESS_NONE, 1, 5)
    assert json.loads(record.body) == DECISION and b"\n" not in record.body
    assert not KEY_ID.fullmatch(OPERATOR)


async def test_a_decision_is_answered_when_it_is_durable_and_not_where_the_log_failed() -> None:
    with pytest.raises(Unavailable, match="EIO"):
        await decide(Place(), DECISION, Unavailable("EIO"))
    place = Place()
    place.log.busy = Busy("no room")
    with pytest.raises(Busy):
        await decide(place, DECISION)
    assert not place.log.records


@pytest.mark.parametrize(
    "decision",
    [
        {**DECISION, "type": "track"},
        {**DECISION, "anonymousId": ""},
        {**DECISION, "userId": 7},
        {**DECISION, "more": 1},
        {name: value for name, value in DECISION.items() if name != "messageId"},
        [],
    ],
)
async def test_what_is_no_decision_is_refused(decision: Any) -> None:
    place = Place()
    with pytest.raises(Rejected, match="decision"):
        await decide(place, decision)
    assert not place.log.records
