"""Retrying dead letters: what is sent, what is noted, and what is said about it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headwater.kit import ask
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Busy, HeadwaterError, Rejected
from headwater.log.block import Secret
from headwater.ops import retry
from headwater.ops.retried import Retried, Retry
from headwater.ops.retry import Asked, Asking, Result, Retrier, settle

WRITER, LOG = "0000000000ab0000", "0000000000000007"
NEW = "0000000000ab0000-0000000000000009"


def origin(seq: int) -> str:
    return f"{WRITER}-{LOG}-{seq}"


class Letters:
    """The dead letters of a node, in memory."""

    def __init__(self, data: str) -> None:
        self.retried = Retried(SystemDisk(), data)
        self.kept: list[dict[str, Any]] = []

    def add(self, seq: int, body: bytes = b"{}", **more: Any) -> None:
        self.kept.append({
            "writer": WRITER, "log": LOG, "seq": seq, "row": 0, "stream": "web", "reason": "r", "message_id": f"m{seq}",
            "received": "2026-01-01T00:00:00+00:00", "body": body, **more,
        })  # fmt: skip

    def find(self, ids: Any, places: Any = (), origins: Any = ()) -> list[dict[str, Any]]:
        found = [x for x in self.kept if f"{x['writer']}-{x['log']}-{x['seq']}" in origins
                 or (x["writer"], x["log"], x["seq"]) in places]  # fmt: skip
        for one in found:
            known = self.retried.of([(one["writer"], one["log"], one["seq"], one["row"])])
            for told in known.values():
                one["retried_at"], one["retried_as"] = told.at, told.receipt or None
        return found


class Node:
    """A data folder whose collect worker and deliverer are played."""

    def __init__(self, path: Any) -> None:
        (path / "raw").mkdir()
        (path / "run").mkdir()
        self.data = str(path)
        self.letters = Letters(self.data)
        self.sent: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.results: list[dict[str, Any]] | HeadwaterError | None = None
        self.seq = 0
        self.rows: set[int] = set()
        self.arrived = True
        look = SimpleNamespace(
            disk=SystemDisk(), clock=SystemClock(), secret=Secret(1), dead=self.letters, data=self.data,
            parts=lambda: SimpleNamespace(roles=["collect-0", "collect-1", "process-0"]), where=self.where,
            dead_find=lambda *asked: (self.letters.find(*asked), []), nodes=None,
        )  # fmt: skip
        self.retrier = Retrier(cast(Any, look), self.sql)

    def where(self, receipt: Any) -> dict[str, Any]:
        return {"processed": True, "destinations": {"w": self.arrived}}

    async def sql(self, query: str, limit: object, name: object) -> tuple[dict[str, Any], bytes]:
        return {}, json.dumps([{"_hw_seq": str(seq)} for seq in self.rows]).encode()

    async def collect(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if request["op"] == "ping":
            return {}, b""
        self.sent += request["letters"]
        self.bodies.append(request.get("body", b""))
        if isinstance(self.results, HeadwaterError):
            raise self.results
        if self.results is not None:
            return {"results": self.results}, b""
        self.seq += len(request["letters"])
        first = self.seq - len(request["letters"]) + 1
        return {
            "results": [
                {"receipt": f"{NEW}-{first + n}", "events": 1} for n in range(len(request["letters"]))
            ]
        }, b""

    async def retry(self, *letters: Asked | int, **more: Any) -> list[Result]:
        asked = [one if isinstance(one, Asked) else Asked(origin=origin(one)) for one in letters]
        server = await ask.serve(f"{self.data}/run/collect-1.sock", self.collect)
        try:
            return await self.retrier.retry(Asking(letters=asked, **{"wait_s": 0.0, **more}))
        finally:
            await server.close()

    def noted(self, seq: int) -> Retry | None:
        return self.letters.retried.of([(WRITER, LOG, seq, 0)]).get((WRITER, LOG, seq, 0))


@pytest.fixture
def node(tmp_path: Any) -> Node:
    return Node(tmp_path)


async def test_a_letter_is_sent_with_its_id_and_its_time_and_noted_with_its_receipt(node: Node) -> None:
    node.letters.add(1, b'{"event":"A"}')
    node.rows = {0}
    (told,) = await node.retry(1)
    assert (told.state, told.says, told.receipt) == ("there", "in w", f"{NEW}-1")
    assert (told.position, told.events) == (f"{NEW}-0", 1)
    (sent,) = node.sent
    assert sent["add"] == {"messageId": "m1", "timestamp": "2026-01-01T00:00:00Z"}
    assert (sent["stream"], node.bodies) == ("web", [b'{"event":"A"}'])
    noted = node.noted(1)
    assert noted is not None and noted.receipt == f"{NEW}-1"


async def test_a_letter_is_retried_once_unless_asked_again(node: Node) -> None:
    node.letters.add(1)
    await node.retry(1)
    (told,) = await node.retry(1)
    assert (told.state, told.receipt, len(node.sent)) == ("retried_before", f"{NEW}-1", 1)
    (told,) = await node.retry(1, again=True)
    assert (told.receipt, len(node.sent)) == (f"{NEW}-2", 2)


async def test_a_retry_that_was_cut_short_is_told_and_not_done_twice_unasked(node: Node) -> None:
    node.letters.add(1)
    node.results = [{"unknown": "EIO"}]
    assert (await node.retry(1))[0].state == "uncertain"
    node.results = None
    (told,) = await node.retry(1)
    assert (told.state, len(node.sent)) == ("uncertain", 1)
    assert "headwater explain m1" in told.says
    assert (await node.retry(1, again=True))[0].receipt is not None


@pytest.mark.parametrize("answer", [{"refused": "no name", "field": "event"}, {"busy": "no room"}])
async def test_what_was_certainly_not_sent_is_not_noted(node: Node, answer: dict[str, Any]) -> None:
    node.letters.add(1)
    node.results = [answer]
    (told,) = await node.retry(1)
    assert (told.state, node.noted(1)) == (next(iter(answer)), None)


async def test_a_request_that_is_refused_whole_leaves_no_note(node: Node) -> None:
    node.letters.add(1)
    node.results = Rejected("no")
    with pytest.raises(Rejected):
        await node.retry(1)
    assert node.noted(1) is None


async def test_a_dry_run_notes_nothing(node: Node) -> None:
    node.letters.add(1)
    node.results = [{"receipt": None, "events": 1}]
    assert (await node.retry(1, dry_run=True))[0].state == "would_send"
    assert node.noted(1) is None


async def test_a_corrected_body_is_sent_instead(node: Node) -> None:
    node.letters.add(1, b"bad")
    await node.retry(Asked(origin=origin(1), body='{"event":"ü"}'))
    await node.retry(Asked(origin=origin(1), body_base64="AP8="), again=True)
    assert node.bodies == ['{"event":"ü"}'.encode(), b"\x00\xff"]
    with pytest.raises(Rejected, match="body_base64"):
        await node.retry(Asked(origin=origin(1), body_base64="!"), again=True)


async def test_a_letter_that_is_not_there_is_told_beside_the_others(node: Node) -> None:
    node.letters.add(2)
    told = await node.retry(1, 2)
    assert [(one.origin, one.state == "not_found") for one in told] == [(origin(1), True), (origin(2), False)]


async def test_what_a_destination_refused_is_left_to_its_deliverer(node: Node) -> None:
    node.letters.add(1, destination="w")
    node.letters.add(2, destination="w")
    asked: list[Any] = []

    async def deliverer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        asked.append(request)
        return {"retried": [origin(1)], "refused_again": [{"origin": origin(2), "reason": "too long"}]}, b""

    server = await ask.serve(f"{node.data}/run/deliver-w.sock", deliverer)
    told = await node.retry(1, 2)
    await server.close()
    assert [(one.state, one.says) for one in told] == [("there", "in w"), ("refused_again", "too long")]
    assert (asked[0]["op"], asked[0]["origins"]) == ("retry", [origin(1), origin(2)])
    assert not node.sent


async def test_a_deliverer_that_cannot_do_it_is_told_in_words(node: Node) -> None:
    node.letters.add(1, destination="w")

    async def deliverer(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        raise Rejected("op 'retry': expected one of sql", code="op")

    server = await ask.serve(f"{node.data}/run/deliver-w.sock", deliverer)
    (told,) = await node.retry(1)
    await server.close()
    assert (told.state, "cannot load single rows again" in told.says) == ("refused_again", True)


async def test_without_a_collect_worker_nothing_is_noted(node: Node) -> None:
    node.letters.add(1)
    with pytest.raises(HeadwaterError, match="no collect worker answers"):
        await node.retrier.retry(Asking(letters=[Asked(origin=origin(1))]))
    assert node.noted(1) is None


async def test_one_request_at_a_time_and_of_bounded_size(node: Node) -> None:
    with pytest.raises(Rejected, match="1 to 100"):
        await node.retry()
    async with node.retrier.lock:
        with pytest.raises(Busy):
            await node.retry(1)


HELD = [
    ({}, {"w": {0}}, [], False, "there", "in w"),
    ({}, {"w": {0}}, ["v"], False, "there", "in w; not yet in v"),
    ({0: "no name"}, {"w": set()}, [], False, "dead_again", "dead again: no name"),
    ({}, {"w": set()}, [], False, "sent", ""),
    (
        {},
        {"w": set()},
        [],
        True,
        "duplicate",
        "dropped as a duplicate: an event with its message id was there already",
    ),
    ({}, {}, ["w"], True, "sent", ""),
]


@pytest.mark.parametrize(("dead", "held", "waiting", "late", "state", "says"), HELD)
def test_what_became_of_an_event(
    dead: dict[int, str], held: dict[str, set[int]], waiting: list[str], late: bool, state: str, says: str
) -> None:
    result = Result("o", "sent", events=1)
    settle(result, {0}, dead, held, waiting, late=late)
    assert (result.state, result.says) == (state, says)


def test_of_several_events_some_may_be_duplicates() -> None:
    result = Result("o", "sent", events=3)
    settle(result, {0, 1, 2}, {}, {"w": {0, 2}}, [], late=True)
    assert (result.state, result.says) == ("there", "2 of 3 events have a row, the others are duplicates")


def test_positions_of_the_new_events_follow_from_the_receipt() -> None:
    result = Result("o", receipt=f"{NEW}-7", events=2)
    assert [place[2] for place in retry.places_of(result)] == [5, 6]
