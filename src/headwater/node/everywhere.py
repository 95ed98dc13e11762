"""Questions between nodes, as the lane process answers and asks them (lane/calls.py).

``Here`` answers what another node asks: a request for one of this node's deliverers, or for its ops process, goes to
its socket; what the ledger of the whole cluster needs of this node is read from its files. ``Everywhere`` asks all
others at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from headwater.cluster.table import View
from headwater.config.report import read_reports
from headwater.kit import ask
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable
from headwater.lane.calls import NODE, Caller, Reply, wait_of
from headwater.node.context import Context
from headwater.ops import everywhere
from headwater.ops.accepted import AcceptedCounter

UNREACHED = frozenset({"node_silent", "peer_gone", "no_answer", "connect_failed", "connection_lost"})
"""Codes of errors that say that nobody answered there."""
PART_S = 2.0
"""How long another node may take for its part of the ledger."""


class Here:
    """Answers other nodes."""

    def __init__(
        self,
        context: Context,
        lag: Callable[[], list[dict[str, Any]]] = list,
        copies: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """``lag``: how far the owners are behind this node's log; ``copies``: of the homes that are away, what this
        node has (lane/copies_read)."""
        self.context = context
        self.lag = lag
        self.copies = copies
        self.counter = AcceptedCounter(context.disk, context.path("raw"), context.secret)
        self.counting = asyncio.Lock()

    async def answer(self, socket: str, request: Mapping[str, Any], body: bytes) -> Reply:
        """One question. Rejected: not understood."""
        if socket != NODE:
            path = self.context.path("run", f"{socket}.sock")
            return await asyncio.to_thread(ask.ask, path, request, wait_of(request), body=body)
        part = request.get("part")
        if part == everywhere.REPORTS:
            return {"told": await asyncio.to_thread(self.reports)}, b""
        if part == everywhere.ACCEPTED:
            async with self.counting:
                accepted = await asyncio.to_thread(self.counter.count)
            return {"told": everywhere.accepted_as_told(accepted)}, b""
        if part == everywhere.LAG:
            return {"told": self.lag()}, b""
        if part == everywhere.COPIES:
            return {"told": self.copies()}, b""
        raise Rejected(f"part {part!r}: expected reports, accepted, lag or copies", code="call_part")

    def reports(self) -> list[dict[str, Any]]:
        """Where this node's processors and deliverers stand."""
        context = self.context
        told = read_reports(context.disk, context.path("run", "reports"), context.control.start)
        return everywhere.reports_as_told(told)


class Everywhere:
    """Asks every other member."""

    def __init__(self, caller: Caller, view: Callable[[], View | None], me: str) -> None:
        self.caller = caller
        self.view = view
        self.me = me

    def others(self) -> list[str]:
        """Everybody else that is a member, or heard."""
        view = self.view()
        return sorted({*view.table.members, *view.alive} - {self.me}) if view is not None else []

    async def ask(self, part: str) -> dict[str, Any]:
        """{parts: {node: its part}, silent: [names]}."""
        nodes = self.others()
        answers = await asyncio.gather(*(self.one(node, part) for node in nodes))
        parts = {node: told for node, told in zip(nodes, answers, strict=True) if told is not None}
        silent = [self.name(node) for node, told in zip(nodes, answers, strict=True) if told is None]
        return {"parts": parts, "silent": silent}

    async def ask_all(
        self, socket: str, request: Mapping[str, Any], wait_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """One question to a process of every other node: {node: {reply, bytes} or {error}}, the bytes behind each
        other, and who is ``silent`` (its name, by id)."""
        nodes = self.others()
        answers = await asyncio.gather(*(self.asked(node, socket, request, wait_s) for node in nodes))
        told = {
            node: {"error": ask.describe(one)}
            if isinstance(one, HeadwaterError)
            else {"reply": one[0], "bytes": len(one[1])}
            for node, one in zip(nodes, answers, strict=True)
            if one is not None
        }
        silent = {node: self.name(node) for node in nodes if node not in told}
        bodies = (one[1] for one in answers if isinstance(one, tuple))
        return {"answers": told, "silent": silent}, b"".join(bodies)

    async def asked(
        self, node: str, socket: str, request: Mapping[str, Any], wait_s: float
    ) -> Reply | HeadwaterError | None:
        """What one node answers, be it an error; None where nobody there does."""
        try:
            async with asyncio.timeout(wait_s):
                return await self.caller.call(node, socket, request, b"")
        except (Unavailable, TimeoutError) as error:
            return error if isinstance(error, Unavailable) and error.code not in UNREACHED else None
        except HeadwaterError as error:
            return error

    async def one(self, node: str, part: str) -> Any:
        """The part of one node; None where it does not answer in time."""
        try:
            async with asyncio.timeout(PART_S):
                reply, _ = await self.caller.call(node, NODE, {"part": part}, b"")
        except (HeadwaterError, TimeoutError):
            return None
        return reply["told"]

    def name(self, node: str) -> str:
        """As people know it."""
        view = self.view()
        record = view.alive.get(node) if view is not None else None
        return f"node {record.name if record is not None else node}"
