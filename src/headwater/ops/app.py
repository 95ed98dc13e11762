"""The routes of the ops listener.

========================================  =============================================================
GET /                                     these paths, as text
GET /ping                                 200 while the node serves, 503 when it drains
GET /health                               which processes live
GET /ready                                200 while events are accepted, else 503, with the reasons
GET /metrics                              Prometheus text
GET /api/status                           everything on one page
GET /api/where?receipt=                   how far a request has come
GET /api/reconcile[?deep=1&timeout=]      the conservation ledger, one object per stream; deep: rows counted too
GET /api/explain?id=[&search_s=]          where an event is and why, as a story
POST /api/explain/known {message_ids, places}  what the node knows of events besides the raw log
POST /api/explain/elsewhere {id}          what the raw logs of the other nodes of a cluster hold of an event
POST /api/dead/page {wanted, node, at}    dead letters of the other nodes, in pieces (unix socket or token only)
GET /api/dead, /api/dead/ORIGIN           what could not be processed or delivered
POST /api/dead/retry {letters}            dead letters once more (unix socket or token only)
GET /api/keys                             write keys, without secrets
POST /api/sql {query, limit, destination} rows as JSON
POST /api/destinations/NAME/adopt {from}  an operator's decision (unix socket or token only)
POST /api/destinations/NAME/pause {reason}, …/resume  an operator's pause (unix socket or token only)
POST /api/destinations/NAME/write-off     the raw log need not be kept for it (unix socket or token only)
POST /api/destinations/NAME/replay {do}   the raw log processed again: start, list, cancel, … (as adopt)
POST /api/destinations/NAME/retry {…}     rows that it refused, tried again (as adopt)
GET /api/identity?id=, /api/identity/log  who is linked to what, and by which event (identity.py)
POST /api/identity/unlink {anonymous_id, user_id}  a link taken back (unix socket or token only)
GET /demo, /demo/…                        the demo page (demo.py)
/cluster/…, /_plugin/cluster/…            where the node is one of many (cluster.py)
========================================  =============================================================

Errors are ``{"error": {kind, code, message, help}}``; the status follows from the kind (kit/errors.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headwater.config.report import INTERVAL_S_MIN
from headwater.event.position import Receipt
from headwater.kit import ask
from headwater.kit.errors import (
    Broken,
    Busy,
    HeadwaterError,
    Lost,
    Misconfigured,
    Rejected,
    Unavailable,
)
from headwater.ops import cluster, deep, demo, everywhere, identity, known, reconcile, standing
from headwater.ops.asked import NOT_TRUSTED, json_body
from headwater.ops.guard import TRUSTED
from headwater.ops.look import LOOK, Look
from headwater.ops.settings import OpsSettings

if TYPE_CHECKING:
    from headwater.ops.retry import Retrier

STATUS: dict[type[HeadwaterError], int] = {
    Rejected: 400,
    Lost: 409,
    Misconfigured: 409,
    Broken: 500,
    Busy: 503,
    Unavailable: 503,
}
DEAD_LIMIT_MAX = 10_000
ADOPT_TIMEOUT_S = 60.0
DEEP_S, DEEP_S_MAX = 600.0, 24 * 3600.0
SEARCH_S = 20.0
RETRY_BYTES_MAX = 64 * 1024 * 1024
"""Of a request to retry, with corrected bodies."""
ANSWER_S = 10.0
"""What an answer may take beyond the time that was allowed for the work."""


SILENT = "Headwater-Silent"

PATHS = (
    ("/ping", "200 while the node serves, 503 when it drains"),
    ("/health", "which processes live"),
    ("/ready", "200 while events are accepted, else 503, with the reasons"),
    ("/metrics", "Prometheus text"),
    ("/demo", "a page that sends events and shows their way"),
    ("/api/status", "everything on one page"),
    ("/api/where?receipt=", "how far a request has come"),
    (
        "/api/reconcile",
        "the conservation ledger, one object per stream; ?deep=1 counts rows in the destinations too",
    ),
    ("/api/explain?id=", "where an event is and why, by message id, receipt or position"),
    ("/api/explain/known", "POST {message_ids, places}: what is known of events besides the raw log"),
    (
        "/api/explain/elsewhere",
        "POST {id, search_s}: what the raw logs of the cluster's other nodes hold of it",
    ),
    (
        "/api/dead/page",
        "POST {wanted, node, at}: other nodes' dead letters, in pieces (unix socket or token only)",
    ),
    ("/api/dead, /api/dead/ORIGIN", "what could not be processed or delivered"),
    (
        "/api/dead/retry",
        "POST {letters, again, dry_run, wait_s}: dead letters once more (unix socket or token only)",
    ),
    ("/api/keys", "write keys, without secrets"),
    ("/api/sql", "POST {query, limit, destination}: rows as JSON"),
    ("/api/destinations/NAME/adopt", "POST {from}: an operator's decision (unix socket or token only)"),
    (
        "/api/destinations/NAME/pause",
        "POST {reason}, and …/resume: an operator's pause (unix socket or token only)",
    ),
    (
        "/api/destinations/NAME/write-off",
        "POST: the raw log need not be kept for it (unix socket or token only)",
    ),
    ("/api/destinations/NAME/replay", "POST {do}: the raw log processed again (unix socket or token only)"),
    (
        "/api/destinations/NAME/retry",
        "POST {origins | all}: refused rows tried again (unix socket or token only)",
    ),
    *identity.PATHS,
)
"""What ``/`` tells."""


def make(
    look: Look, settings: OpsSettings, *, clustered: bool = False, routes: Routes | None = None
) -> Starlette:
    """The application; who may reach it is guard.py's. ``routes``: where others use them too."""
    routes = routes or Routes(look, settings, (*PATHS, *cluster.PATHS) if clustered else PATHS)
    shown = demo.routes(look, settings, routes.ask_sql) if settings.demo and not settings.token else []
    return Starlette(
        routes=[
            Route("/", routes.root),
            Route("/ping", routes.ping),
            Route("/health", routes.health),
            Route("/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/api/status", routes.status),
            Route("/api/where", routes.where),
            Route("/api/reconcile", routes.reconcile),
            Route("/api/explain", routes.explain),
            Route("/api/explain/known", routes.explain_known, methods=["POST"]),
            Route("/api/dead", routes.dead_list),
            Route("/api/explain/elsewhere", routes.explain_elsewhere, methods=["POST"]),
            Route("/api/dead/page", routes.dead_page, methods=["POST"]),
            Route("/api/dead/retry", routes.dead_retry, methods=["POST"]),
            Route("/api/dead/{origin:path}", routes.dead_show),
            Route("/api/keys", routes.keys),
            Route("/api/sql", routes.sql, methods=["POST"]),
            Route("/api/destinations/{name}/adopt", routes.adopt, methods=["POST"]),
            Route("/api/destinations/{name}/pause", routes.pause, methods=["POST"]),
            Route("/api/destinations/{name}/resume", routes.resume, methods=["POST"]),
            Route("/api/destinations/{name}/write-off", routes.write_off, methods=["POST"]),
            Route("/api/destinations/{name}/replay", routes.replay, methods=["POST"]),
            Route("/api/destinations/{name}/retry", routes.retry, methods=["POST"]),
            *identity.routes(routes),
            *(cluster.routes(look) if clustered else []),
            *shown,
        ],
        exception_handlers={HeadwaterError: failed, 404: not_found},
    )


class Routes:
    """The handlers."""

    def __init__(self, look: Look, settings: OpsSettings, paths: Sequence[tuple[str, str]]) -> None:
        """``paths`` are those that ``/`` tells."""
        self.look = look
        self.settings = settings
        self.paths = paths
        self.retrier: Retrier | None = None

    async def root(self, request: Request) -> Response:
        """What this listener has, for whoever opens it in a browser."""
        demo = self.settings.demo and not self.settings.token
        shown = [(path, says) for path, says in self.paths if demo or not path.startswith("/demo")]
        width = max(len(path) for path, _ in shown)
        lines = "".join(f"  {path:<{width}}  {says}\n" for path, says in shown)
        about = (
            f"Headwater {self.look.node.version}, operations. Events are sent to {self.look.node.collector}."
        )
        return PlainTextResponse(f"{about}\n\n{lines}")

    async def ping(self, request: Request) -> Response:
        if self.look.control.draining:
            return PlainTextResponse("draining\n", 503)
        return PlainTextResponse("pong\n")

    async def health(self, request: Request) -> Response:
        told = self.look.health()
        return JSONResponse(told, 200 if told["ok"] else 503)

    async def ready(self, request: Request) -> Response:
        return JSONResponse((now := self.look.readiness())._asdict(), 200 if now.ready else 503)

    async def metrics(self, request: Request) -> Response:
        text = await asyncio.to_thread(self.look.metrics)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self.look.status))

    async def where(self, request: Request) -> Response:
        """Looked at twice where it has not arrived: what the processes say of themselves is a little old, and somebody
        who sees the row already must not hear that it is not there."""
        receipt = Receipt.parse(request.query_params.get("receipt", ""))
        told = await asyncio.to_thread(self.look.where, receipt)
        if told["acknowledged"] is not False and not (
            told["processed"] and all(told["destinations"].values())
        ):
            await self.look.clock.sleep(2 * INTERVAL_S_MIN)
            told = await asyncio.to_thread(self.look.where, receipt)
        return JSONResponse(told)

    async def reconcile(self, request: Request) -> Response:
        deep_s = seconds(request, "timeout", DEEP_S) if request.query_params.get("deep") == "1" else 0.0
        found = await self.counts(deep_s) if deep_s else {}
        ledgers = reconcile.as_json(await asyncio.to_thread(self.look.ledgers))
        return JSONResponse(deep.with_counts(ledgers, found) if deep_s else ledgers)

    async def counts(self, time_max_s: float) -> dict[str, dict[str, Any]]:
        """What each destination holds, counted in its process; or why it could not be counted."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.look.parts().destinations:
            asked = {
                "op": "deep",
                "destination": name,
                "time_max_s": time_max_s,
                "wait_s": time_max_s + ANSWER_S,
            }
            try:
                found[name], _ = await ask.ask_async(self.socket(name), asked, time_max_s + ANSWER_S)
            except HeadwaterError as error:
                found[name] = {"error": str(error)}
        return found

    async def dead_retry(self, request: Request) -> Response:
        from headwater.ops import retry

        if not request.scope.get(TRUSTED):
            return not_trusted()
        asked = await json_body(request, RETRY_BYTES_MAX)
        try:
            asking = msgspec.convert(asked, retry.Asking)
        except msgspec.ValidationError as error:
            raise Rejected(f"the body is not what was expected: {error}", code="body_format") from error
        results = await self.letters_again().retry_everywhere(asking)
        return Response(msgspec.json.encode(results), media_type="application/json")

    def letters_again(self) -> Retrier:
        """Retries the letters of this node, one request at a time."""
        from headwater.ops import retry

        self.retrier = self.retrier or retry.Retrier(self.look, self.ask_sql)
        return self.retrier

    async def explain(self, request: Request) -> Response:
        """The story of an event. The raw log is searched for a message id as long as `search_s` allows; the command
        searches it by itself, without a limit."""
        from headwater.ops import explain, find

        asked = request.query_params.get("id", "")
        if not 0 < len(asked) <= find.ID_CHARS_MAX:
            raise Rejected(
                "`id` is missing or too long: expected a message id, a receipt or a position", code="id"
            )
        search_s = seconds(request, "search_s", SEARCH_S)
        end_ns = self.look.clock.boot_ns() + int(search_s * 1e9)
        raw = find.RawLog(self.look.disk, f"{self.look.data}/raw", self.look.secret)
        looked = await asyncio.to_thread(
            find.look, raw, asked, progress=lambda done, total: self.look.clock.boot_ns() < end_ns
        )
        others, silent = await asyncio.to_thread(known.searched_elsewhere, self.look, asked, search_s)
        looked = find.together(looked, others)
        told = await known.ask(self.look, self.ask_sql, looked.message_ids, [*(looked.places or ())])
        told.silent = sorted({*told.silent, *silent})
        story = explain.tell(asked, looked.found, told, looked.searched, looked.damaged, looked.places)
        return Response(msgspec.json.encode(story), media_type="application/json")

    async def explain_elsewhere(self, request: Request) -> Response:
        """What the other nodes' raw logs hold of an event, for whoever searched this one's."""
        from headwater.ops import find

        body = await json_body(request, self.settings.request_bytes_max)
        asked, search_s = body.get("id"), body.get("search_s", SEARCH_S)
        if not isinstance(asked, str) or not 0 < len(asked) <= find.ID_CHARS_MAX:
            raise Rejected("`id`: expected a message id, a receipt or a position", code="id")
        if not isinstance(search_s, int | float) or not 0 < search_s <= DEEP_S_MAX:
            raise Rejected(f"`search_s`: expected seconds, at most {DEEP_S_MAX:g}", code="search_s")
        span = {name: body[name] for name in ("since_ns", "until_ns") if isinstance(body.get(name), int)}
        found, silent = await asyncio.to_thread(
            known.searched_elsewhere, self.look, asked, float(search_s), **span
        )
        told = {"looked": [find.told(one) for one in found], "silent": silent}
        return Response(msgspec.json.encode(told), media_type="application/json")

    async def explain_known(self, request: Request) -> Response:
        asked = await json_body(request, self.settings.request_bytes_max)
        try:
            ids = msgspec.convert(asked.get("message_ids", []), list[str])
            places = msgspec.convert(asked.get("places", []), list[known.Place])
        except msgspec.ValidationError as error:
            raise Rejected(f"`message_ids` and `places`: {error}", code="places") from error
        told = await known.ask(self.look, self.ask_sql, ids[: known.IDS_MAX], places[: known.PLACES_MAX])
        return Response(msgspec.json.encode(told), media_type="application/json")

    async def keys(self, request: Request) -> Response:
        return JSONResponse(list(self.look.parts().keys))

    async def dead_list(self, request: Request) -> Response:
        limit = number(request.query_params.get("limit", "100"), DEAD_LIMIT_MAX)
        stream = request.query_params.get("stream")
        reason = request.query_params.get("reason")
        letters, silent = await asyncio.to_thread(self.look.dead_list, limit, stream, reason)
        return JSONResponse(letters, headers=said_silent(silent))

    async def dead_show(self, request: Request) -> Response:
        origin = request.path_params["origin"]
        letter, silent = await asyncio.to_thread(self.look.dead_show, origin)
        if letter is None:
            but = f" at the nodes that answer; {', '.join(silent)} did not" if silent else ""
            wrong = Rejected(f"no dead letter {origin!r}{but}", code="not_found")
            return JSONResponse({"error": ask.describe(wrong)}, 404)
        return JSONResponse(letter)

    async def dead_page(self, request: Request) -> Response:
        """Dead letters of other nodes, a piece of one node at a time, with their bodies as base64: ``{wanted, node,
        at}`` → ``{letters, node, at, silent}``; the first request names no node, an answer without one was the last."""
        if not request.scope.get(TRUSTED):
            return not_trusted()
        asked = await json_body(request, self.settings.request_bytes_max)
        told = await asyncio.to_thread(
            self.look.dead_page, asked.get("wanted") or {}, asked.get("node"), asked.get("at")
        )
        return JSONResponse(told)

    async def sql(self, request: Request) -> Response:
        asked = await json_body(request, self.settings.request_bytes_max)
        query = asked.get("query")
        if not isinstance(query, str) or not query.strip():
            raise Rejected("`query` is missing: expected one reading statement as text", code="query")
        told, rows = await self.ask_sql(query, asked.get("limit"), asked.get("destination"))
        head = msgspec.json.encode({k: told.get(k) for k in ("columns", "truncated", "ms")})
        return Response(head[:-1] + b',"rows":' + rows + b"}", media_type="application/json")

    async def ask_sql(
        self, query: str, limit: object = None, destination: object = None
    ) -> tuple[dict[str, Any], bytes]:
        """Rows of a query as a JSON array, from the process that holds the warehouse."""
        name = self.destination(destination)
        if limit is not None and not (isinstance(limit, int) and limit > 0):
            raise Rejected(f"`limit`: expected a whole number above 0, got {limit!r}", code="limit")
        wait_s = self.settings.sql_timeout_s
        request = {
            "op": "sql", "destination": name, "query": query, "rows_max": limit, "wait_s": wait_s,
        }  # fmt: skip
        try:
            return await ask.ask_async(self.socket(name), request, wait_s)
        except Rejected as error:
            if error.code == "sql_time":
                error.help = f"the limit is destinations.{name}.sql.time_max_s"
            raise

    async def adopt(self, request: Request) -> Response:
        """Each node decides for its own partitions, where its destination waits for just this decision."""
        name, asked = await self.decision(request)
        return JSONResponse(await self.at_all(name, asked, "adopt"))

    async def adopt_here(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """For this node's partitions. In a cluster only where that is what its destination waits for: another trouble
        may pass by itself, and its events must not be left out for it."""
        if self.look.nodes is not None:
            here = standing.delivered(self.look.reports()).get(name)
            if here is None or " adopt " not in (here.command or ""):
                raise Rejected("it does not wait for this decision", code="not_paused")
        return await self.decide(name, {**asked, **standing.passed(self.look.reports()), "op": "adopt"})

    async def write_off(self, request: Request) -> Response:
        name, asked = await self.decision(request)
        return JSONResponse(await self.at_all(name, asked, "write_off"))

    async def pause(self, request: Request) -> Response:
        name, asked = await self.decision(request)
        return JSONResponse(await self.at_all(name, asked, "pause"))

    async def resume(self, request: Request) -> Response:
        name, asked = await self.decision(request)
        return JSONResponse(await self.at_all(name, asked, "resume"))

    async def replay(self, request: Request) -> Response:
        name, asked = await self.decision(request)
        nodes = self.look.nodes
        if asked.get("do") in ("start", "resume") and nodes is not None and nodes.others():
            raise Rejected(
                "a replay is not possible in a cluster of several nodes yet: each would make the rows of its own "
                "partitions only",
                code="cluster_replay",
                help="nothing was begun",
            )
        return JSONResponse(await self.decide(name, {**asked, "op": "replay"}))

    async def retry(self, request: Request) -> Response:
        name, asked = await self.decision(request)
        return JSONResponse(await self.decide(name, {**asked, "op": "retry"}))

    async def decision(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Which destination an operator decides about, and what. Rejected: somebody else asks."""
        if not request.scope.get(TRUSTED):
            raise Rejected(NOT_TRUSTED, code="not_trusted")
        asked = await json_body(request, self.settings.request_bytes_max)
        return self.destination(request.path_params["name"]), asked

    async def decide(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """An operator's decision about a destination, carried out by the process of this node that delivers to it."""
        told, _ = await ask.ask_async(self.socket(name), {**asked, "destination": name}, ADOPT_TIMEOUT_S)
        return told

    async def at_all(self, name: str, asked: Mapping[str, Any], op: str) -> dict[str, Any]:
        """A decision that every node carries out for itself; see everywhere.said_together."""
        try:
            own: dict[str, Any] | HeadwaterError = await (
                self.adopt_here(name, asked) if op == "adopt" else self.decide(name, {**asked, "op": op})
            )
        except HeadwaterError as error:
            if self.look.nodes is None:
                raise
            own = error
        if self.look.nodes is None:
            assert not isinstance(own, HeadwaterError)
            return own
        nodes = self.look.nodes
        socket = LOOK if op == "adopt" else f"deliver-{name}"
        request = {**asked, "op": op, "destination": name}
        answers = await asyncio.to_thread(nodes.ask_all, socket, request, ADOPT_TIMEOUT_S)
        names = {nodes.me: nodes.name(nodes.me).removeprefix("node "), **nodes.others()}
        told = everywhere.said_together(own, answers, nodes.me, names)
        return {**told, "silent": [*told["silent"], *self.look.away()]}

    def destination(self, name: object) -> str:
        """A destination of the configuration; the first one when none is named."""
        known = list(self.look.parts().destinations)
        if not known:
            raise Rejected("there are no destinations", code="destination_name")
        if name is None:
            return known[0]
        if name not in known:
            raise Rejected(
                f"no destination {name!r}: expected one of {', '.join(known)}", code="destination_name"
            )
        return str(name)

    def socket(self, destination: str) -> str:
        return f"{self.look.data}/run/deliver-{destination}.sock"


def not_trusted() -> Response:
    """The answer to a decision that does not come from an operator."""
    return JSONResponse({"error": ask.describe(Rejected(NOT_TRUSTED, code="not_trusted"))}, 403)


def said_silent(silent: Sequence[str]) -> dict[str, str]:
    """A header that says whom of the cluster nobody could ask, beside an answer that has no place for it."""
    return {SILENT: ", ".join(silent).encode("ascii", "replace").decode()} if silent else {}


async def failed(request: Request, error: Exception) -> Response:
    """An error of ours as an answer."""
    assert isinstance(error, HeadwaterError)
    if error.code == "not_trusted":
        return not_trusted()
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Busy) else None
    return JSONResponse({"error": ask.describe(error)}, STATUS.get(type(error), 500), headers)


async def not_found(request: Request, error: Exception) -> Response:
    """A path that is not there."""
    wrong = Rejected(f"no path {request.url.path!r} here", code="not_found", help="GET / lists what is here")
    return JSONResponse({"error": ask.describe(wrong)}, 404)


def seconds(request: Request, name: str, default: float) -> float:
    """A number of seconds out of the query string."""
    text = request.query_params.get(name, str(default))
    if not text.replace(".", "", 1).isdecimal() or not 0 < float(text) <= DEEP_S_MAX:
        raise Rejected(f"`{name}`: expected seconds, at most {DEEP_S_MAX:g}, got {text!r}", code=name)
    return float(text)


def number(text: str, most: int) -> int:
    """A limit out of the query string."""
    if not text.isdigit() or not 0 < int(text) <= most:
        raise Rejected(f"`limit`: expected 1 to {most}, got {text!r}", code="limit")
    return int(text)
