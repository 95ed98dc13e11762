"""The demo page: a small shop whose every click is a real event, and what it asks to show each one's journey.

The page's files (static/) come from this listener, the tag from the collector, so the policy names just these two.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from headwater.event.position import Receipt
from headwater.kit.errors import HeadwaterError, Rejected
from headwater.ops.look import Look
from headwater.ops.settings import OpsSettings

STATIC = Path(__file__).parent / "static"
FILES = {
    "/demo": ("demo.html", "text/html; charset=utf-8"),
    "/demo/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
    "/demo/demo.css": ("demo.css", "text/css; charset=utf-8"),
}
MESSAGE_ID = re.compile(r"[\w.:@/+=-]{1,200}")
SQL_WAIT_S = 2.0

AskSql = Callable[[str, object, object], Awaitable[tuple[dict[str, Any], bytes]]]


def routes(look: Look, settings: OpsSettings, ask_sql: AskSql) -> list[Route]:
    """The routes below /demo."""
    page = Demo(look, ask_sql)
    return [
        *(Route(path, page.file) for path in FILES),
        Route("/demo/config.json", page.config),
        Route("/demo/journey", page.journey),
    ]


class Demo:
    """The handlers."""

    def __init__(self, look: Look, ask_sql: AskSql) -> None:
        self.look = look
        self.ask_sql = ask_sql

    @property
    def policy(self) -> str:
        """What the page may load and talk to."""
        collector = self.look.node.collector
        return (
            f"default-src 'self'; script-src 'self' {collector}; connect-src 'self' {collector}; "
            "img-src 'self' data:; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def file(self, request: Request) -> Response:
        name, kind = FILES[request.url.path]
        headers = {"Content-Security-Policy": self.policy, "Cache-Control": "no-cache"}
        return FileResponse(STATIC / name, media_type=kind, headers=headers)

    async def config(self, request: Request) -> Response:
        parts = self.look.parts()
        if not parts.demo_key:
            raise Rejected("the demo needs a browser key: one with `origins`", code="no_browser_key")
        collector = self.look.node.collector
        return JSONResponse(
            {
                "collector": collector,
                "key": parts.demo_key,
                "tag": f"{collector}/headwater.js",
                "destination": next(iter(parts.destinations), ""),
                "program": program(),
                "data": shlex.quote(self.look.data),
            }
        )

    async def journey(self, request: Request) -> Response:
        """How far one event has come, and its row once it is in the warehouse."""
        receipt = Receipt.parse(request.query_params.get("receipt", ""))
        message_id = request.query_params.get("message_id", "")
        if not MESSAGE_ID.fullmatch(message_id):
            raise Rejected("`message_id` is missing or strange", code="message_id")
        told = await asyncio.to_thread(self.look.where, receipt)
        row = await self.row(message_id) if any(told["destinations"].values()) else None
        return JSONResponse({**told, "row": row})

    async def row(self, message_id: str) -> Any:
        """The row of a message id, as SQL reads it back; None while there is none."""
        literal = message_id.replace("'", "''")
        try:
            async with asyncio.timeout(SQL_WAIT_S):
                query = f"select * from events where message_id = '{literal}'"  # noqa: S608 - checked above, quoted
                _, rows = await self.ask_sql(query, 1, None)
        except (HeadwaterError, TimeoutError):
            return None
        found = msgspec.json.decode(rows)
        return found[0] if found else None


def program() -> str:
    """The command as a shell takes it in any folder: by its name where it is on the PATH, else as it is installed."""
    if shutil.which("headwater"):
        return "headwater"
    installed = os.path.join(os.path.dirname(sys.executable), "headwater")
    return (
        shlex.quote(installed) if os.path.exists(installed) else f"{shlex.quote(sys.executable)} -m headwater"
    )
