"""Who may talk to the ops listener: the door before every route.

* A request for a name that this listener does not have is refused (421): a web page that points its own name at
  127.0.0.1 (DNS rebinding) gets nothing.
* Where a token is set, everything but /ping, /health and /ready asks for it; it is compared in constant time.
* What changes the cluster asks for its admin token instead, also where no other token is set.
* What changes something, or asks SQL, comes as JSON and not from another origin. There is no CORS: pages of other
  origins cannot read anything.

Requests over the unix socket are trusted: the file's mode says who may open it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/ping", "/health", "/ready", "/_plugin/cluster/health")
ADMIN_PATHS = (
    "/cluster/drain",
    "/cluster/evict",
    "/cluster/forget",
    "/cluster/reset",
    "/_plugin/cluster/reset",
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
TRUSTED, ADMIN = "headwater.trusted", "headwater.admin"
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(:\d{1,5})?")
ADMIN_HELP = "send `Authorization: Bearer` with cluster.admin_token, or use `headwater cluster` on a node"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Guard:
    """ASGI middleware; ``trusted`` for the unix socket."""

    def __init__(
        self, app: ASGIApp, hosts: Sequence[str], token: str, *, trusted: bool, admin_token: str = ""
    ) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in (*LOOPBACK_NAMES, *hosts))
        self.token = token.encode()
        self.admin_token = admin_token.encode()
        self.trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = None if self.trusted else self.refusal(scope)
        admin = scope["path"] in ADMIN_PATHS
        scope[TRUSTED] = self.trusted or (refusal is None and bool(self.token) and not admin)
        scope[ADMIN] = self.trusted or (refusal is None and admin)
        answer: ASGIApp = self.app if refusal is None else refusal
        await answer(scope, receive, with_headers(send))

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """Why a request is not let in; None when it is."""
        host = only(scope, b"host")
        if host is None or host_name(host) not in self.hosts:
            return refuse(421, "host", f"this listener is not {host!r}", "add the name to ops.hosts")
        admin = scope["path"] in ADMIN_PATHS
        if admin and not (self.admin_token and carries(scope, self.admin_token)):
            return refuse(401, "admin_token", "the cluster's admin token is needed", ADMIN_HELP)
        if not admin and self.token and scope["path"] not in OPEN_PATHS and not carries(scope, self.token):
            return refuse(401, "token", "a token is needed", "send `Authorization: Bearer` with ops.token")
        origin = only(scope, b"origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return refuse(403, "origin", f"not from a page of {origin}", "")
        site = only(scope, b"sec-fetch-site")
        if scope["path"].startswith("/api/") and site in ("cross-site", "same-site"):
            return refuse(403, "origin", "not from a page of another site", "")
        if scope["method"] not in ("GET", "HEAD") and not admin:  # no page of a browser has the token
            kind = (only(scope, b"content-type") or "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return refuse(415, "content_type", f"expected application/json, got {kind!r}", "")
        return None


def carries(scope: Scope, wanted: bytes) -> bool:
    """Whether the request carries this token; compared in constant time."""
    scheme, _, token = (only(scope, b"authorization") or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), wanted)


def refuse(status: int, code: str, message: str, help: str) -> JSONResponse:
    """A refusal in the form of every error of the API."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    error = {"kind": "Rejected", "code": code, "message": message, **({"help": help} if help else {})}
    return JSONResponse({"error": error}, status, headers)


def only(scope: Scope, name: bytes) -> str | None:
    """The value of a header that came once; None when it did not come, or came twice."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else None


def host_name(host: str) -> str | None:
    """The name in a Host header, without port and brackets."""
    match = HOST.fullmatch(host)
    return match[1].strip("[]").lower() if match else None


def with_headers(send: Send) -> Send:
    """Adds the headers that every answer has."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *missing(message["headers"])]
        await send(message)

    return send_with_headers


def missing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers to add; a route that sets its own policy or caching keeps it."""
    there = {name for name, _ in headers}
    defaults = (*HEADERS, POLICY, (b"cache-control", b"no-store"))
    return [(name, value) for name, value in defaults if name not in there]
