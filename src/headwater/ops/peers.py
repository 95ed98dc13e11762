"""What ops processes of other nodes ask of this one, over its lane (node/everywhere): what only this node's files say,
and decisions that each node takes for itself. Socket ``run/look.sock`` (kit/ask.py), answers as JSON in the body:

================  ======================================  ====================================================
op                request                                 answer
================  ======================================  ====================================================
``acknowledged``  receipt                                 whether this node's raw log holds the request
``letters``       limit, stream, reason                   the newest dead letters, without their bodies
``find``          message_ids, places, origins            dead letters with their bodies as base64
``page``          wanted, at                              some dead letters as ``find``; from where to go on
``search``        id, since_ns, until_ns, search_s        what the raw log holds of an event (find.Looked)
``request``       writer, log, seq                        the request of an event (find.Request), or null
``stood``         at_ns, ends                             where the raw logs stood at that node time, by writer
``retry``         asking (retry.Asking)                   what came of each dead letter
``adopt``         destination, from                       as POST /api/destinations/NAME/adopt
================  ======================================  ====================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.event.position import Position, Receipt, WriterId
from headwater.kit.errors import Rejected
from headwater.log import moment
from headwater.ops import find
from headwater.ops import where as journey
from headwater.ops.find import Request
from headwater.ops.look import Look

if TYPE_CHECKING:
    from headwater.ops.app import Routes

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Peers:
    """Answers other nodes; each of them has proved that it knows the cluster's secret."""

    def __init__(self, look: Look, routes: Routes) -> None:
        self.look = look
        self.routes = routes
        self.raw = find.RawLog(look.disk, f"{look.data}/raw", look.secret)

    async def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """One question. Rejected: not understood."""
        handlers: dict[str, Handler] = {
            "acknowledged": in_thread(self.acknowledged),
            "letters": in_thread(self.letters),
            "find": in_thread(self.find),
            "page": in_thread(self.page),
            "search": in_thread(self.search),
            "request": in_thread(self.request_of),
            "stood": in_thread(self.stood),
            "retry": self.retry,
            "adopt": self.adopt,
        }
        handler = handlers.get(str(request.get("op")))
        if handler is None:
            raise Rejected(f"op {request.get('op')!r}: expected one of {', '.join(handlers)}", code="op")
        try:
            told = await handler(request)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            raise Rejected(f"{request.get('op')}: {error}", code="peer_request") from error
        return {}, msgspec.json.encode(told)

    def acknowledged(self, request: Mapping[str, Any]) -> bool:
        receipt = Receipt.parse(request["receipt"])
        return journey.acknowledged(self.look.disk, self.raw.path, receipt)

    def letters(self, request: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        return self.look.dead.list(int(request["limit"]), request.get("stream"), request.get("reason"))

    def find(self, request: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        places = [(one[0], one[1], int(one[2])) for one in request["places"]]
        return self.look.dead.find(request["message_ids"], places, request["origins"])

    def page(self, request: Mapping[str, Any]) -> dict[str, Any]:
        letters, at = self.look.dead.page(request["wanted"], request.get("at"))
        return {"letters": letters, "at": at}

    def search(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """As far as the time allows."""
        clock = self.look.clock
        end_ns = clock.boot_ns() + int(float(request["search_s"]) * 1e9)
        looked = find.look(
            self.raw,
            str(request["id"]),
            since_ns=request.get("since_ns"),
            until_ns=request.get("until_ns"),
            progress=lambda done, total: clock.boot_ns() < end_ns,
        )
        return find.told(looked)

    def request_of(self, request: Mapping[str, Any]) -> Request | None:
        return find.Requests(self.raw).of(int(request["writer"]), int(request["log"]), int(request["seq"]))

    def stood(self, request: Mapping[str, Any]) -> dict[str, list[int]]:
        """At most at ``ends``; of the writers of this node."""
        ends = {WriterId(int(writer, 16)): Position(*map(int, at)) for writer, at in request["ends"].items()}
        found = moment.all_at(
            self.look.disk, self.raw.path, int(request["at_ns"]), ends, secret=self.look.secret
        )
        return {f"{writer:016x}": list(at) for writer, at in found.items()}

    async def retry(self, request: Mapping[str, Any]) -> Any:
        from headwater.ops.retry import Asking

        return await self.routes.letters_again().retry(msgspec.convert(request["asking"], Asking))

    async def adopt(self, request: Mapping[str, Any]) -> Any:
        name = self.routes.destination(request["destination"])
        return await self.routes.adopt_here(name, {"from": request["from"]})


def in_thread(work: Callable[[Mapping[str, Any]], Any]) -> Handler:
    """Files are read beside the loop."""
    return lambda request: asyncio.to_thread(work, request)
