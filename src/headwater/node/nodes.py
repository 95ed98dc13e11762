"""The other nodes of the cluster, as the ops process asks them: through this node's lane (node/everywhere.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.kit import ask
from headwater.kit.errors import HeadwaterError
from headwater.node.context import Context
from headwater.ops.everywhere import Answers

if TYPE_CHECKING:
    from headwater.node.ownership import Ownership

BEYOND_S = 5.0
"""What the lane may take beyond the time of the other node."""


class Nodes:
    """See ops/everywhere.OtherNodes. From threads: each question waits."""

    def __init__(self, context: Context, ownership: Ownership) -> None:
        self.context = context
        self.ownership = ownership
        self.me = context.node.folder_id

    def others(self) -> dict[str, str]:
        """Node id → name, of everybody else that is a member, or heard."""
        view = self.ownership.view
        if view is None:
            return {}
        nodes = sorted({*view.table.members, *view.alive} - {self.me})
        return {node: view.alive[node].name if node in view.alive else node for node in nodes}

    def name(self, node: str) -> str:
        """As people know it."""
        view = self.ownership.view
        record = view.alive.get(node) if view is not None else None
        return f"node {record.name if record is not None else node}"

    def forgotten(self) -> frozenset[str]:
        """The ids of nodes that are gone for good, as an operator said."""
        return self.ownership.forgotten()

    def ask(
        self, node: str, socket: str, request: Mapping[str, Any], wait_s: float
    ) -> tuple[dict[str, Any], bytes]:
        """One question to a process of one node. Unavailable: nobody answers; its errors are raised here."""
        asked = {"op": "call", "node": node, "socket": socket, "request": {**request, "wait_s": wait_s}}
        return ask.ask(self.lane, asked, wait_s + BEYOND_S)

    def ask_all(self, socket: str, request: Mapping[str, Any], wait_s: float) -> Answers:
        """One question to a process of every other node."""
        asked = {"op": "ask_all", "socket": socket, "request": {**request, "wait_s": wait_s}}
        try:
            told, data = ask.ask(self.lane, asked, wait_s + BEYOND_S)
        except HeadwaterError:
            return Answers({}, ["the lane of this node"])
        return answers_of(told, data)

    @property
    def lane(self) -> str:
        return self.context.path("run", "lane.sock")


def answers_of(told: Mapping[str, Any], data: bytes) -> Answers:
    """From what the lane gathered: each node's JSON, or its reply where it sent none."""
    parts: dict[str, Any] = {}
    refused: dict[str, HeadwaterError] = {}
    at = 0
    for node, one in told["answers"].items():
        if "error" in one:
            refused[node] = ask.revive(one["error"])
            continue
        body = data[at : at + one["bytes"]]
        at += one["bytes"]
        parts[node] = msgspec.json.decode(body) if body else one["reply"]
    return Answers(parts, [f"node {name.removeprefix('node ')}" for name in told["silent"].values()], refused)
