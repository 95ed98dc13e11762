"""``headwater dead retry``: dead letters go in once more.

A letter of *processing* is appended to the raw log again, by a collect worker (collect/again.py), as an event with a
position of its own and the same message id; so dedupe drops it where the client sent a corrected copy within the
window. A row that a *destination* refused never went away: its deliverer tries to load it again.

Each letter is noted before its bytes go out and its receipt afterwards (retried.py): what was cut short in between is
told as uncertain, and never done twice unasked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headwater.event.position import Receipt
from headwater.event.record import ADDRESS_HASH, ADDRESS_NONE, ADDRESS_V6, DEAD
from headwater.kit import ask
from headwater.kit.errors import Busy, HeadwaterError, Rejected, Unavailable
from headwater.ops import everywhere
from headwater.ops.collector import collector
from headwater.ops.everywhere import OtherNodes
from headwater.ops.find import RawLog, Request, Requests
from headwater.ops.known import AskSql
from headwater.ops.look import ASK_S, LOOK, Look
from headwater.ops.retried import Letter as Key

LETTERS_MAX = 100
"""Letters of one request."""
BODIES_BYTES_MAX = 32 * 1024 * 1024
APPEND_S = 60.0
POLL_S = 0.2
FOLD_S = 3.0
"""So long after an event was processed its dead letter can be read at the latest."""
WAIT_S, WAIT_S_MAX = 15.0, 600.0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A letter that is to be retried, with a corrected body where there is one."""

    origin: str
    destination: str | None = None
    body: str | None = None
    body_base64: str | None = None

    def corrected(self) -> bytes | None:
        """The corrected bytes. Rejected: they are no base64."""
        if self.body is not None:
            return self.body.encode("utf-8", "surrogatepass")
        if self.body_base64 is None:
            return None
        try:
            return base64.b64decode(self.body_base64, validate=True)
        except binascii.Error as error:
            raise Rejected(f"`body_base64` of {self.origin}: {error}", code="body_base64") from error


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A request to retry."""

    letters: list[Asked]
    again: bool = False
    """Also those that were retried before."""
    dry_run: bool = False
    wait_s: float = WAIT_S


@dataclass(slots=True)
class Result:
    """What came of one letter."""

    origin: str
    state: str = ""
    """there | duplicate | dead_again | sent | would_send | refused | retried_before | uncertain | part_of | not_found |
    busy | refused_again"""
    says: str = ""
    receipt: str | None = None
    position: str | None = None
    """Of the new event, the first one where there are several."""
    events: int = 0
    destination: str | None = None

    def now(self, state: str, says: str) -> None:
        """What is known now."""
        self.state, self.says = state, says


@dataclass(slots=True)
class Outgoing:
    """A letter of processing on its way."""

    key: Key
    letter: dict[str, Any]
    result: Result
    body: bytes
    message: dict[str, Any] = field(default_factory=dict)
    """As the collect worker takes it (collect/again.py, Letter)."""


@dataclass(frozen=True, slots=True)
class EveryRequest:
    """Requests in the raw logs of all nodes: each stands with the node that accepted it."""

    own: Requests
    nodes: OtherNodes

    def of(self, writer: int, log: int, seq: int) -> Request | None:
        """As Requests.of. Unavailable: its node does not answer."""
        home = everywhere.home_text(writer)
        if home == self.nodes.me:
            return self.own.of(writer, log, seq)
        asked = {"op": "request", "writer": writer, "log": log, "seq": seq}
        _, data = self.nodes.ask(home, LOOK, asked, ASK_S)
        return msgspec.json.decode(data, type=Request | None)


def is_meant(one: Asked, letter: Mapping[str, Any]) -> bool:
    """Whether a letter is the one that is asked for."""
    writer, log, seq = one.origin.split("-")[:3] if one.origin.count("-") >= 2 else ("", "", "")
    here = (letter["writer"], letter["log"], str(letter["seq"])) == (writer, log, seq)
    return here and (one.destination is None or letter.get("destination") == one.destination)


class Retrier:
    """Retries letters, one request at a time."""

    def __init__(self, look: Look, sql: AskSql) -> None:
        self.look = look
        self.sql = sql
        self.lock = asyncio.Lock()

    async def retry_everywhere(self, asking: Asking) -> list[Result]:
        """Each letter at the node that holds it, which remembers what was retried; one result for each."""
        nodes = self.look.nodes
        if nodes is None or not 0 < len(asking.letters) <= LETTERS_MAX:
            return await self.retry(asking)
        holders, silent = await asyncio.to_thread(self.holders, asking.letters)
        groups: dict[str, list[int]] = {}
        results = [Result(one.origin) for one in asking.letters]
        for number, holder in enumerate(holders):
            if holder is None:
                but = f" at the nodes that answer; {', '.join(silent)} did not" if silent else ""
                results[number].now("not_found", f"there is no such dead letter{but}")
            else:
                groups.setdefault(holder, []).append(number)
        for holder, numbers in groups.items():
            part = msgspec.structs.replace(asking, letters=[asking.letters[number] for number in numbers])
            told = await self.retry_at(holder, part)
            for number, result in zip(numbers, told, strict=True):
                results[number] = result
        return results

    def holders(self, letters: Sequence[Asked]) -> tuple[list[str | None], list[str]]:
        """The node that holds each letter; and who did not answer."""
        found, silent = self.look.dead_find([], [], [one.origin for one in letters])
        return [next((x["node"] for x in found if is_meant(one, x)), None) for one in letters], silent

    async def retry_at(self, holder: str, asking: Asking) -> list[Result]:
        """The letters of one node. What it does not answer is uncertain: it may have sent them."""
        nodes = self.look.nodes
        if nodes is None or holder == nodes.me:
            return await self.retry(asking)
        request = {"op": "retry", "asking": msgspec.to_builtins(asking)}
        wait_s = min(asking.wait_s, WAIT_S_MAX) + APPEND_S
        try:
            _, data = await asyncio.to_thread(nodes.ask, holder, LOOK, request, wait_s)
        except Unavailable as error:
            results = [Result(one.origin) for one in asking.letters]
            for result in results:
                result.now("uncertain", f"{nodes.name(holder)}, which holds it, gave no answer: {error}")
            return results
        return msgspec.json.decode(data, type=list[Result])

    async def retry(self, asking: Asking) -> list[Result]:
        """One result for each letter, in their order. Busy: another request is under way."""
        if not 0 < len(asking.letters) <= LETTERS_MAX:
            raise Rejected(f"`letters`: expected 1 to {LETTERS_MAX}", code="letters")
        if self.lock.locked():
            raise Busy("letters are being retried for somebody else", code="retry_busy")
        async with self.lock:
            results = [Result(one.origin) for one in asking.letters]
            outgoing, refused = await asyncio.to_thread(self.resolved, asking, results)
            for name, group in refused.items():
                await self.ask_destination(name, group, dry_run=asking.dry_run)
            if outgoing:
                await self.send(outgoing, dry_run=asking.dry_run)
                await self.wait([one.result for one in outgoing if one.result.state == "sent"], asking.wait_s)
            return results

    # -- what is asked for

    def resolved(
        self, asking: Asking, results: Sequence[Result]
    ) -> tuple[list[Outgoing], dict[str, list[Result]]]:
        """The letters that can go out, and those of destinations; the others have their result."""
        requests = self.requests()
        outgoing: list[Outgoing] = []
        refused: dict[str, list[Result]] = {}
        size = 0
        for one, result in zip(asking.letters, results, strict=True):
            letter = self.letter_of(one)
            if letter is None:
                result.now("not_found", "there is no such dead letter")
            elif "destination" in letter:
                result.destination = letter["destination"]
                refused.setdefault(letter["destination"], []).append(result)
            elif "retried_at" in letter and not asking.again:
                retried_before(letter, result)
            elif (out := self.outgoing(letter, one, result, requests)) is not None:
                size += len(out.body)
                if size > BODIES_BYTES_MAX and outgoing:
                    result.now("busy", "too many bytes in one request; it was not sent")
                else:
                    outgoing.append(out)
        return outgoing, refused

    def requests(self) -> Requests | EveryRequest:
        """Where the requests of events stand."""
        own = Requests(RawLog(self.look.disk, f"{self.look.data}/raw", self.look.secret))
        return own if self.look.nodes is None else EveryRequest(own, self.look.nodes)

    def outgoing(
        self, letter: dict[str, Any], one: Asked, result: Result, requests: Requests | EveryRequest
    ) -> Outgoing | None:
        """A letter as it goes out; None where it cannot, and its result says why."""
        try:
            return outgoing_of(letter, one, result, requests)
        except Unavailable as error:
            result.now("busy", f"not sent: the node that has its request does not answer: {error}")
            return None

    def letter_of(self, one: Asked) -> dict[str, Any] | None:
        """The letter that is meant."""
        found = self.look.dead.find([], [], [one.origin])
        return next((letter for letter in found if is_meant(one, letter)), None)

    # -- letters of destinations

    async def ask_destination(self, name: str, results: Sequence[Result], *, dry_run: bool) -> None:
        """Let the deliverer try again what its destination refused."""
        if dry_run:
            for result in results:
                result.now("would_send", f"{name} would try to load it again")
            return
        request = {"op": "retry", "destination": name, "origins": [result.origin for result in results]}
        try:
            told, _ = await ask.ask_async(f"{self.look.data}/run/deliver-{name}.sock", request, APPEND_S)
        except HeadwaterError as error:
            why = (
                f"{name} refused it, and this version cannot load single rows again"
                if error.code == "op"
                else error
            )
            for result in results:
                result.now("refused_again", str(why))
            return
        again = {one["origin"]: one["reason"] for one in told.get("refused_again", [])}
        for result in results:
            if result.origin in told.get("retried", []):
                result.now("there", f"in {name}")
            else:
                result.now("refused_again", again.get(result.origin, "it was not tried"))

    # -- letters of processing

    async def send(self, outgoing: Sequence[Outgoing], *, dry_run: bool) -> None:
        """Append them; each result says what came of it."""
        socket = await collector(self.look)
        retried = self.look.dead.retried
        keys = [one.key for one in outgoing]
        before = await asyncio.to_thread(retried.of, keys)
        if not dry_run:
            await asyncio.to_thread(retried.begin, keys, now_text(self.look.clock.wall_ns()))
        request = {"op": "append", "letters": [one.message for one in outgoing], "dry_run": dry_run}
        try:
            body = b"".join(one.body for one in outgoing)
            told, _ = await ask.ask_async(socket, request, APPEND_S, body=body)
        except Rejected:
            await asyncio.to_thread(retried.undo, keys, before)
            raise
        except HeadwaterError as error:  # it may have arrived
            told = {"results": [{"unknown": str(error)}] * len(outgoing)}
        for one, answer in zip(outgoing, told["results"], strict=True):
            note(one.result, answer, dry_run=dry_run)
        if not dry_run:
            states = {one.key: one.result for one in outgoing}
            undo = [key for key, result in states.items() if result.state in ("refused", "busy")]
            done = {key: result.receipt for key, result in states.items() if result.receipt is not None}
            await asyncio.to_thread(retried.undo, undo, before)
            await asyncio.to_thread(retried.done, done)

    # -- what became of them

    async def wait(self, results: Sequence[Result], wait_s: float) -> None:
        """Until it is known what became of each, or the time is over."""
        clock = self.look.clock
        end_ns = clock.boot_ns() + int(min(wait_s, WAIT_S_MAX) * 1e9)
        passed_ns: int | None = None
        while results:
            last = Receipt.parse(max(results, key=seq_of).receipt or "")
            told = await asyncio.to_thread(self.look.where, last)
            await self.look_at(results, told, late=passed_ns is not None and clock.boot_ns() > passed_ns)
            if all(result.state != "sent" for result in results) or clock.boot_ns() > end_ns:
                return
            if passed_ns is None and told["processed"]:
                passed_ns = clock.boot_ns() + int(FOLD_S * 1e9)
            await clock.sleep(POLL_S)

    async def look_at(self, results: Sequence[Result], told: Mapping[str, Any], *, late: bool) -> None:
        """Rows first, then dead letters; what has neither, though everybody has passed it, is a duplicate. ``late``:
        dead letters would be there by now."""
        if not told["processed"]:
            return
        arrived = [name for name, there in told["destinations"].items() if there]
        waiting = [name for name in told["destinations"] if name not in arrived]
        rows = {name: await self.rows(name, results) for name in arrived}
        for result in results:
            seqs = set(range(seq_of(result) - result.events, seq_of(result)))
            letters, _ = await asyncio.to_thread(self.look.dead_find, [], places_of(result))
            dead = {letter["seq"]: letter["reason"] for letter in letters if "destination" not in letter}
            held = {name: seqs & found for name, found in rows.items() if found is not None}
            settle(result, seqs, dead, held, waiting, late=late)

    async def rows(self, name: str, results: Sequence[Result]) -> set[int] | None:
        """The numbers of the new events that have a row in a destination; None where it cannot be asked."""
        receipt = Receipt.parse(results[0].receipt or "")
        first = min(seq_of(result) - result.events for result in results)
        last = max(seq_of(result) for result in results)
        query = (
            f"select _hw_seq from events where _hw_writer = {receipt.writer} and _hw_log = {receipt.log} "  # noqa: S608 - numbers
            f"and _hw_seq >= {first} and _hw_seq < {last}"
        )
        try:
            _, body = await self.sql(query, max(1, last - first), name)
        except HeadwaterError:
            return None
        return {int(row["_hw_seq"]) for row in msgspec.json.decode(body)}


def settle(
    result: Result,
    seqs: set[int],
    dead: Mapping[int, str],
    held: Mapping[str, set[int]],
    waiting: Sequence[str],
    *,
    late: bool,
) -> None:
    """What is known of one letter's new events; it stays ``sent`` until everything is."""
    there = set().union(*held.values()) if held else set()
    rest = seqs - there - dead.keys()
    later = f"; not yet in {', '.join(waiting)}" if waiting else ""
    if dead:
        reason = next(iter(dead.values()))
        more = f" ({len(dead)} of {len(seqs)} events)" if len(seqs) > 1 else ""
        result.now("dead_again", f"dead again: {reason}{more}")
    elif there and not rest:
        result.now("there", f"in {', '.join(name for name, found in held.items() if found)}{later}")
    elif late and held and not there:
        result.now("duplicate", "dropped as a duplicate: an event with its message id was there already")
    elif late and held:
        result.now(
            "there", f"{len(there)} of {len(seqs)} events have a row, the others are duplicates{later}"
        )


def retried_before(letter: Mapping[str, Any], result: Result) -> None:
    """Of a letter that was retried already."""
    result.receipt = letter.get("retried_as")
    if result.receipt:
        says = (
            f"it was retried at {letter['retried_at']}, receipt {result.receipt}; --again does it once more"
        )
        result.now("retried_before", says)
    else:
        result.now(
            "uncertain",
            f"a retry at {letter['retried_at']} was cut short: nobody knows whether it was sent; look with "
            f"`headwater explain {letter['message_id']}`, and send it with --again",
        )


def outgoing_of(
    letter: dict[str, Any], one: Asked, result: Result, requests: Requests | EveryRequest
) -> Outgoing | None:
    """A letter as it goes out; None where another letter holds its bytes."""
    place = (letter["writer"], letter["log"], letter["seq"])
    request = requests.of(int(place[0], 16), int(place[1], 16), place[2])
    corrected = one.corrected()
    first = request.first_seq if request is not None else place[2]
    alone = request is None or request.flags & DEAD or not letter["body"]
    if corrected is None and alone and place[2] != first:
        result.now("part_of", f"its request was refused as a whole: retry {place[0]}-{place[1]}-{first}")
        return None
    body = bytes(letter["body"]) if corrected is None else corrected
    key = (*place, letter["row"])
    message = {"stream": letter["stream"], "bytes": len(body), "origin": one.origin, **told_of(request, body)}
    message["add"] = {"messageId": letter["message_id"], "timestamp": received_text(letter["received"])}
    return Outgoing(key, letter, result, body, message)


def told_of(request: Request | None, body: bytes) -> dict[str, Any]:
    """What the raw log says of the request, for the new record; where it says nothing, the body is read as those of
    ``POST /events`` are."""
    if request is None:
        return {}
    head = request.head
    whole = bool(request.flags & DEAD) or not body.lstrip().startswith(b"{")
    return {
        "dialect": head.dialect,
        "path": head.path,
        "content_type": head.content_type,
        "headers": head.headers,
        "https": head.https,
        "address": request.address.hex(),
        "address_flags": request.flags & (ADDRESS_V6 | ADDRESS_HASH | ADDRESS_NONE),
        "whole": whole,
    }


def note(result: Result, answer: Mapping[str, Any], *, dry_run: bool) -> None:
    """What the collect worker answered."""
    if "refused" in answer:
        field_ = f" (field {answer['field']})" if answer.get("field") else ""
        result.now("refused", f"still refused: {answer['refused']}{field_}; the letter stays as it is")
    elif "busy" in answer:
        result.now("busy", f"not sent: {answer['busy']}")
    elif "unknown" in answer:
        result.now("uncertain", f"nobody knows whether it was sent: {answer['unknown']}")
    elif dry_run:
        result.events = answer["events"]
        result.now("would_send", "it would be sent")
    else:
        result.receipt, result.events = answer["receipt"], answer["events"]
        result.position = "{}-{}-{}".format(*places_of(result)[0])
        result.now("sent", f"sent; see `headwater where {result.receipt}`")


def seq_of(result: Result) -> int:
    """The number behind the new events."""
    return int((result.receipt or "0").rpartition("-")[2])


def places_of(result: Result) -> list[tuple[str, str, int]]:
    """The positions of the new events."""
    writer, log, seq = (result.receipt or "").split("-")
    return [(writer, log, number) for number in range(int(seq) - result.events, int(seq))]


def received_text(received: str) -> str:
    """When the letter was received, as a tracker would say it."""
    return received.replace("+00:00", "Z")


def now_text(wall_ns: int) -> str:
    """A time of the wall clock."""
    return f"{datetime.datetime.fromtimestamp(wall_ns // 10**9, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
