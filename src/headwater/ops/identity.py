"""Who is linked to what, over HTTP; and an operator's word that takes a link back.

What is known is asked of a destination, since each keeps every fact below its position beside its rows. An unlink is
accepted like an event, by a collect worker (collect/operator.py): durable when it is answered, and everything else
follows from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from headwater.kit import ask
from headwater.kit.errors import Rejected
from headwater.kit.rng import SystemRng
from headwater.ops.asked import NOT_TRUSTED, json_body
from headwater.ops.collector import collector
from headwater.ops.guard import TRUSTED

if TYPE_CHECKING:
    from headwater.ops.app import Routes

ASK_S, APPEND_S = 60.0, 60.0
MESSAGE_ID_BYTES = 16
PATHS = (
    ("/api/identity?id=", "who is linked to an anonymous or user id, since when, by which event"),
    ("/api/identity/log", "the newest facts about visitors; ?since_us=&limit="),
    (
        "/api/identity/unlink",
        "POST {anonymous_id, user_id, message_id}: a link taken back (unix socket or token only)",
    ),
)


class Unlinking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request to take a link back. ``message_id``: the caller's, where it may have to ask again."""

    anonymous_id: str
    user_id: str
    message_id: str = ""


class Identity:
    """The handlers."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes

    async def show(self, request: Request) -> Response:
        return JSONResponse(await self.answer(request, do="show", id=request.query_params.get("id", "")))

    async def log(self, request: Request) -> Response:
        numbers = {name: number(request, name) for name in ("since_us", "limit")}
        return JSONResponse(await self.answer(request, do="log", **numbers))

    async def unlink(self, request: Request) -> Response:
        if not request.scope.get(TRUSTED):
            raise Rejected(NOT_TRUSTED, code="not_trusted")
        body = await json_body(request, self.routes.settings.request_bytes_max)
        try:
            asked = msgspec.convert(body, Unlinking)
        except msgspec.ValidationError as error:
            raise Rejected(f"the body is not what was expected: {error}", code="body_format") from error
        message_id = asked.message_id or f"unlink-{SystemRng().token(MESSAGE_ID_BYTES)}"
        decision = {
            "type": "unlink",
            "messageId": message_id,
            "anonymousId": asked.anonymous_id,
            "userId": asked.user_id,
        }
        socket = await collector(self.routes.look)
        told, _ = await ask.ask_async(socket, {"op": "decide"}, APPEND_S, body=msgspec.json.encode(decision))
        return JSONResponse({"message_id": message_id, "receipt": told["receipt"]})

    async def answer(self, request: Request, **asked: Any) -> dict[str, Any]:
        """What a destination knows; of those that are not named, the first that keeps facts."""
        name = request.query_params.get("destination")
        names = [self.routes.destination(name)] if name else list(self.routes.look.parts().destinations)
        none: Rejected | None = None
        for one in names:
            try:
                _, data = await ask.ask_async(
                    self.routes.socket(one), {"op": "identity", "destination": one, **asked}, ASK_S
                )
            except Rejected as error:
                if error.code != "identity_none":
                    raise
                none = error
                continue
            return {**msgspec.json.decode(data), "destination": one}
        raise none or Rejected("there are no destinations", code="destination_name")


def routes(own: Routes) -> list[BaseRoute]:
    """Of the ops listener."""
    identity = Identity(own)
    return [
        Route("/api/identity", identity.show),
        Route("/api/identity/log", identity.log),
        Route("/api/identity/unlink", identity.unlink, methods=["POST"]),
    ]


def number(request: Request, name: str) -> int | None:
    """A whole number out of the query string."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 19:
        raise Rejected(f"`{name}`: expected a whole number, got {text!r}", code=name)
    return int(text)
