"""The routes of a node that is one of many. There is nothing of it where the configuration has no block ``cluster``.

=======================================  ================================================================
GET /cluster/status                      who is there, who leads, who owns what, what it waits for
POST /cluster/drain {node, back}         move a node's partitions away, or let it have some again
POST /cluster/evict {node}               take a node that is gone out of the table now
POST /cluster/forget {node, yes}         it is gone for good: wait for nothing that only it has; without yes, who it is
POST /cluster/reset                      forget what can be said again, and say it again
GET /cluster/_status                     the same as Kuzzle's ``cluster:status``
GET /_plugin/cluster/health, /status     the same as Kuzzle's cluster plugin: 404 ``ko`` below the minimum
POST /_plugin/cluster/reset              as /cluster/reset
=======================================  ================================================================

POST asks for the cluster's admin token, or comes over the unix socket (guard.py). What is shown is what the member
process reported last (``cluster/status.py``), with what the lane process says of its peers; what is asked for is done
by the member process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headwater.kit import ask
from headwater.kit.errors import Rejected, Unavailable
from headwater.kit.rng import SystemRng
from headwater.ops.everywhere import LAG
from headwater.ops.guard import ADMIN
from headwater.ops.look import Look

ASK_S = 15.0
BODY_BYTES_MAX = 4096
ORDERS = ("drain", "evict", "forget", "reset")
PATHS = (
    ("/cluster/status", "who is there, who leads, who owns what, what it waits for"),
    ("/cluster/drain", "POST {node, back}: move its partitions away (unix socket or cluster.admin_token)"),
    ("/cluster/evict", "POST {node}: it is gone, do not wait for it (unix socket or cluster.admin_token)"),
    ("/cluster/forget", "POST {node, yes}: it is gone for good (unix socket or cluster.admin_token)"),
    ("/cluster/reset", "POST: say everything again (unix socket or cluster.admin_token)"),
    ("/cluster/_status", "the same as Kuzzle's cluster:status"),
    ("/_plugin/cluster/health", "the same as Kuzzle's cluster plugin, with /status and POST /reset"),
)
"""What ``/`` tells."""


def kafka_words(lanes: Mapping[str, Any]) -> list[str]:
    """What hinders the Kafka lane. The node is ready nevertheless: events wait in its raw log."""
    told = lanes.get("kafka") or {}
    return [told["says"]] if told.get("says") else []


def routes(look: Look) -> list[Route]:
    """All of them."""
    pages = ClusterPages(look)
    return [
        Route("/cluster/status", pages.status),
        Route("/cluster/_status", pages.native),
        *(Route(f"/cluster/{order}", pages.order, methods=["POST"]) for order in ORDERS),
        Route("/_plugin/cluster/health", pages.plugin_health),
        Route("/_plugin/cluster/status", pages.plugin_status),
        Route("/_plugin/cluster/reset", pages.plugin_reset, methods=["POST"]),
    ]


class ClusterPages:
    """The handlers."""

    def __init__(self, look: Look) -> None:
        self.look = look

    def told(self) -> dict[str, Any]:
        """What the member process said last, with the lanes. Unavailable: it has not said anything yet."""
        reports = self.look.reports()
        member = reports.get("member-0")
        if member is None:
            raise Unavailable("the member process has not started yet", code="no_member")
        if "status" not in member.detail:
            why = "; ".join(member.reasons) or "the node's log says more"
            raise Unavailable(f"the member process is {member.state}: {why}", code="no_member")
        lane = reports.get("lane-0")
        lanes = lane.detail if lane is not None else {}
        age_s = round((self.look.clock.boot_ns() - member.boot_ns) / 1e9, 1)
        status = member.detail["status"]
        waits_for = [*status["waits_for"], *kafka_words(lanes)]
        return {**status, "waits_for": waits_for, "lanes": lanes, "age_s": age_s}

    async def ordered(self, order: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Have the member process do something. HeadwaterError as it says."""
        path = f"{self.look.data}/run/member-0.sock"
        told, _ = await ask.ask_async(path, {"op": order, **asked}, ASK_S)
        return told

    async def status(self, request: Request) -> Response:
        return JSONResponse({**self.told(), "lag": await asyncio.to_thread(self.lag)})

    def lag(self) -> dict[str, Any]:
        """How far each owner is behind each node's raw log, as that node says; and who did not say it."""
        lane = self.look.reports().get("lane-0")
        own = lane.detail.get("lag", []) if lane is not None else []
        answers = self.look.others(LAG)
        rows = [*own, *(row for part in answers.parts.values() for row in part)]
        return {
            "homes": sorted(rows, key=lambda row: (row["home_name"], row["owner_name"])),
            "silent": answers.silent,
        }

    async def native(self, request: Request) -> Response:
        return JSONResponse(enveloped("status", native_status(self.told())))

    async def order(self, request: Request) -> Response:
        if not request.scope.get(ADMIN):
            return not_admin()
        order = request.url.path.rpartition("/")[2]
        asked = asked_of(order, await body_of(request))
        if order == "forget":
            asked["homes"] = sorted(await asyncio.to_thread(self.look.homes_away))
        return JSONResponse(await self.ordered(order, asked))

    async def plugin_health(self, request: Request) -> Response:
        if not self.serves():
            return ko("health")
        return JSONResponse(enveloped("health", "ok"))

    async def plugin_status(self, request: Request) -> Response:
        if not self.serves():
            return ko("status")
        return JSONResponse(enveloped("status", plugin_status(self.told())))

    async def plugin_reset(self, request: Request) -> Response:
        if not request.scope.get(ADMIN):
            return not_admin()
        if not self.serves():
            return ko("reset")
        await self.ordered("reset", {})
        return JSONResponse(enveloped("reset", "ok"))

    def serves(self) -> bool:
        """Whether enough nodes see each other."""
        try:
            return bool(self.told()["viable"])
        except Unavailable:
            return False


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request; one without a body asks for nothing in particular."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > BODY_BYTES_MAX:
            raise Rejected(f"the body is larger than {BODY_BYTES_MAX} bytes", code="body_size")
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Rejected(f"the body is not a JSON object: {error}", code="body_format") from error


def asked_of(order: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the member process is asked for. Rejected names what is wrong."""
    if order == "reset":
        return {}
    node, back = body.get("node"), body.get("back", False)
    if not isinstance(node, str) or not node:
        raise Rejected("`node` is missing: expected the name or the id of a node", code="node")
    if not isinstance(back, bool):
        raise Rejected("`back`: expected true or false", code="back")
    if not isinstance(yes := body.get("yes", False), bool):
        raise Rejected("`yes`: expected true or false", code="yes")
    more = {"drain": {"back": back}, "forget": {"yes": yes}}
    return {"node": node, **more.get(order, {})}


def native_status(page: dict[str, Any]) -> dict[str, Any]:
    """In the shape of Kuzzle's ``cluster:status``, with fields of ours beside it."""
    return {
        "activeNodes": sum(one["alive"] for one in page["nodes"]),
        "activity": page["activity"],
        "nodes": [
            {
                "id": one["id"],
                "address": one["address"],
                "birthdate": one["started"],
                "incarnation": one["incarnation"],
            }
            for one in page["nodes"]
            if one["alive"]
        ],
        "state": page["state"],
        "epoch": page["epoch"],
        "incarnation": page["incarnation"],
        "lag": page["lanes"],
    }


def plugin_status(page: dict[str, Any]) -> dict[str, Any]:
    """In the shape of Kuzzle's cluster plugin: this node, and the others."""
    alive = [one for one in page["nodes"] if one["alive"]]
    shown = {
        one["id"]: {
            "pub": f"tcp://{one['lane_address']}",
            "router": f"tcp://{one['address']}",
            "ready": one["state"] == "active",
        }
        for one in alive
    }
    current = shown.pop(page["node"], None)
    return {"count": len(alive), "current": current, "pool": list(shown.values())}


def enveloped(
    action: str, result: Any, status: int = 200, error: dict[str, Any] | None = None
) -> dict[str, Any]:
    """An answer as Kuzzle's API gives it."""
    return {
        "requestId": SystemRng().token(12),
        "status": status,
        "error": error,
        "controller": "cluster",
        "action": action,
        "collection": None,
        "index": None,
        "volatile": None,
        "result": result,
    }


def ko(action: str) -> Response:
    """The plugin's answer while too few nodes see each other."""
    error = {"status": 404, "message": "ko", "name": "NotFoundError"}
    return JSONResponse(enveloped(action, None, 404, error), 404)


def not_admin() -> Response:
    """The answer to an order that does not come from an operator."""
    error = Rejected("only over the unix socket, or with cluster.admin_token", code="not_trusted")
    return JSONResponse({"error": ask.describe(error)}, 403)
