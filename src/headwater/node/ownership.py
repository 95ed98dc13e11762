"""Which partitions this node works on now, as its processes ask (docs/decisions/0007-cluster.md).

Without a cluster: all of them, always. With one: those that the newest table gives to it, while its view is viable
(INV-OWN-2); none before the member process has said anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from headwater.cluster.table import View
from headwater.cluster.view import ViewReader, view_path
from headwater.config.report import read_reports
from headwater.event.position import EMPTY, Position, Vector, WriterId
from headwater.kit import ask
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.lane.calls import LOOK, wait_of
from headwater.log import files, moment
from headwater.log.cut import home_of
from headwater.node.context import Context
from headwater.node.nodes import answers_of
from headwater.ops import standing
from headwater.ops.everywhere import REPORTS, Answers
from headwater.process.sources import Stretch

LANE_WAIT_S = 5.0
SINCE_WAIT_S = 10.0
STOOD_WAIT_NS = 8_000_000_000
STOOD_POLL_S = 0.05
TRIM_INTERVAL_NS = 1_000_000_000
PIPELINE = "{}/{}/main"


class Ownership:
    """The newest table, as far as it concerns this node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.alone = context.settings.cluster is None
        self.reader = ViewReader(context.disk, view_path(context.data))
        self.everything = list(range(context.node.partitions))

    @property
    def view(self) -> View | None:
        """What the member process said last."""
        return None if self.alone else self.reader.read()

    def owned(self) -> list[int]:
        """The partitions of this node."""
        if self.alone:
            return self.everything
        view = self.view
        return view.table.owned_by(view.me) if view is not None and view.viable else []

    def of_processor(self, number: int, processors: int) -> list[int]:
        """Those of them that belong to one processor."""
        return [partition for partition in self.owned() if partition % processors == number]

    def epoch(self) -> int:
        """Of the table by which ``owned`` is said; 0 while there is none."""
        view = self.view
        return view.table.epoch if view is not None else 0

    def owners(self) -> dict[str, frozenset[int]]:
        """Node id → the partitions that it owns."""
        view = self.view
        if view is None:
            return {}
        return {node: frozenset(view.table.owned_by(node)) for node in view.table.members}

    def forgotten(self) -> frozenset[str]:
        """The ids of nodes that are gone for good, as an operator said."""
        return frozenset(self.view.table.forgotten) if self.view is not None else frozenset()

    def pipeline(self, destination: str) -> str:
        """The name under which a destination keeps its positions. Unavailable: the cluster has not said its name."""
        if self.alone:
            return PIPELINE.format(self.context.node.folder_id, destination)
        view = self.view
        if view is None or not view.cluster_id:
            raise Unavailable("the cluster has no table yet", code="no_table")
        return PIPELINE.format(view.cluster_id, destination)


class Mirrors:
    """Other nodes' logs for this node's processors and deliverers (``process/sources.Sources``); from their threads."""

    def __init__(self, context: Context, ownership: Ownership) -> None:
        self.context = context
        self.ownership = ownership
        self.me = int(context.node.folder_id, 16)
        self.trimmed_ns: dict[str, int] = {}

    def ask(self, request: dict[str, object]) -> dict[str, object] | None:
        """What the lane answers; None while it does not."""
        if self.ownership.alone:
            return None
        try:
            return ask.ask(self.context.path("run", "lane.sock"), request, LANE_WAIT_S)[0]
        except HeadwaterError as error:
            self.context.counters.add("headwater_lane_silent_total", 1, code=error.code)
            return None

    def open(self, name: str, partitions: Sequence[int], origin: Vector, until: Vector | None) -> str | None:
        """See Sources."""
        request: dict[str, object] = {
            "op": "open",
            "stream": name,
            "partitions": list(partitions),
            "origin": origin.encode().hex(),
            "until": until.encode().hex() if until is not None else None,
            "pid": os.getpid(),
        }
        answer = self.ask(request)
        return str(answer["path"]) if answer is not None else None

    def complete(self, name: str) -> bool:
        """Whether a mirror holds all that its homes can give."""
        answer = self.ask({"op": "status", "stream": name})
        return answer is not None and bool(answer["complete"])

    def holder(self, node: str) -> str:
        """The node that holds a destination of which only one process may: the one that the settings name, by name or
        id, else the first leader. Unavailable: it is not known yet."""
        view = self.ownership.view
        if view is None or not view.cluster_id:
            raise Unavailable("the cluster has no table yet", code="no_table")
        named = [one.node for one in view.alive.values() if node in (one.name, one.node)]
        return named[0] if node and named else node or view.cluster_id

    def call(
        self, node: str, socket: str, request: dict[str, object], body: bytes
    ) -> tuple[dict[str, object], bytes]:
        """Ask a process of another node. Unavailable: it does not answer."""
        path = self.context.path("run", "lane.sock")
        told: dict[str, object] = {"op": "call", "node": node, "socket": socket, "request": request}
        return ask.ask(path, told, wait_of(request), body=body)

    def everywhere(self, part: str) -> Answers:
        """Every other node's part of the ledger; see ops/everywhere."""
        answer = self.ask({"op": "everywhere", "part": part})
        if answer is None:
            return Answers({}, ["the lane of this node"])
        return Answers(answer["parts"], answer["silent"])  # type: ignore[arg-type]

    def trim(self, name: str, below: Vector) -> None:
        """See Sources; at most once a second."""
        now_ns = self.context.clock.boot_ns()
        if self.ownership.alone or now_ns - self.trimmed_ns.get(name, 0) < TRIM_INTERVAL_NS:
            return
        self.trimmed_ns[name] = now_ns
        self.ask({"op": "trim", "stream": name, "below": below.encode().hex()})

    def close(self, name: str) -> None:
        """See Sources."""
        self.trimmed_ns.pop(name, None)
        self.ask({"op": "close", "stream": name})

    def reachable(self, needed: Mapping[WriterId, Stretch]) -> bool:
        """See Sources: their homes are alive, or some node has copies that reach so far, as the lane knows."""
        if self.ownership.alone:
            return True
        if not all(self.holds(w, last) for w, (_, last) in needed.items() if home_of(w) == self.me):
            return False
        view = self.ownership.view
        alive = {int(node, 16) for node in view.alive} if view is not None else set()
        lost = {w: one for w, one in needed.items() if home_of(w) not in alive | {self.me}}
        if not lost:
            return True
        told = {f"{w:016x}": [*first, *last] for w, (first, last) in lost.items()}
        answer = self.ask({"op": "reachable", "needed": told})
        return answer is not None and bool(answer["reachable"])

    def holds(self, writer: WriterId, end: Position) -> bool:
        """Whether an own log reaches that far, or may yet; it does not where the folder was put back from a backup."""
        disk, folder = self.context.disk, self.context.path("raw", f"{writer:016x}")
        logs = files.logs(disk, folder) if disk.exists(folder) else []
        ended = files.read_end(disk, folder, end.log) if end.log in logs else None
        return end.log <= max(logs, default=0) and (ended is None or end.seq <= ended.seq)

    def released(self, epoch: int) -> bool:
        """Whether every other node that answers delivers by this table or a newer one, or no more: what it gave up,
        stands."""
        answers = self.everywhere(REPORTS)
        told = [
            one
            for reports in answers.parts.values()
            for one in reports
            if one["role"].startswith("deliver-") and one["state"] != "stopped"
        ]
        return all(one["detail"].get("epoch", 0) >= epoch for one in told)

    def stood(self, partitions: Sequence[int]) -> Mapping[int, Vector]:
        """See Sources: as the deliverers of this node find it, which begin with these partitions too. One node begins
        where its own state ends: destinations that stand further (a folder put back from a backup) wait for it."""
        if self.ownership.alone:
            return {}
        context = self.context
        until_ns = context.clock.boot_ns() + STOOD_WAIT_NS
        found: dict[int, Vector] = {}
        while True:
            reports = read_reports(context.disk, context.path("run", "reports"), context.control.start)
            told = standing.delivered(reports)
            found = {}
            for one in told.values():
                for p in partitions:
                    if p in one.vectors:
                        found[p] = found.get(p, EMPTY).join(one.vectors[p])
            silent = [
                name
                for name in context.settings.destinations
                if name not in told
                or (told[name].state != "paused" and not told[name].vectors.keys() >= set(partitions))
            ]
            if not silent or context.clock.boot_ns() > until_ns:
                return found
            context.clock.block(STOOD_POLL_S)

    def since(self, at_ns: int, limit: Vector) -> Vector:
        """See Sources: own logs say it themselves, those of other nodes by their ops processes."""
        try:
            told = self.stood_elsewhere(at_ns, limit).parts
        except HeadwaterError:
            told = {}
        return Vector(dict(limit.items()) | self.stood_here(at_ns, limit) | positions_in(told), at_ns)

    def stood_when(self, at_ns: int, limit: Vector) -> Vector:
        """Where the raw logs of all nodes stood at a time, at most at ``limit``; where they begin, if they reach back
        less far. Of a home that is no member any more nothing is read, so it stands at the limit. Unavailable: a member
        does not say it, and what it accepted since must not be left out."""
        found = dict(limit.items()) | self.stood_here(at_ns, limit)
        if not self.ownership.alone and (others := {home_of(writer) for writer in limit} - {self.me}):
            answers = self.stood_elsewhere(at_ns, limit)
            members = {int(node, 16) for node in self.ownership.owners()}
            if silent := others & members - {int(node, 16) for node in answers.parts}:
                nodes = ", ".join(f"{node:016x}" for node in sorted(silent))
                raise Unavailable(
                    f"node {nodes} does not say where its log stood at the time of `start`",
                    code="home_silent",
                )
            found |= positions_in(answers.parts)
        return Vector(found, min(at_ns, limit.clock))

    def stood_here(self, at_ns: int, limit: Vector) -> dict[WriterId, Position]:
        """As ``stood_when``, of this node's logs."""
        context = self.context
        ends = dict(limit.items())
        return moment.all_at(context.disk, context.path("raw"), at_ns, ends, secret=context.secret)

    def stood_elsewhere(self, at_ns: int, limit: Vector) -> Answers:
        """As ``stood_when``, by node: writer in hex → position. Unavailable: the lane does not answer."""
        ends = {f"{writer:016x}": list(at) for writer, at in limit.items()}
        asked = {"op": "ask_all", "socket": LOOK, "request": {"op": "stood", "at_ns": at_ns, "ends": ends}}
        return answers_of(*ask.ask(self.context.path("run", "lane.sock"), asked, SINCE_WAIT_S))

    def given(
        self, partitions: Sequence[int], stood: Mapping[int, Vector]
    ) -> Mapping[int, Mapping[str, int]]:
        """See Sources: of a destination that stands furthest."""
        found: dict[int, Mapping[str, int]] = {}
        for name in self.context.settings.destinations:
            path = self.context.path("run", f"deliver-{name}.sock")
            try:
                told = ask.ask(path, {"op": "positions"}, LANE_WAIT_S)[0]["partitions"]
            except HeadwaterError:
                continue
            for p in partitions:
                row = told.get(str(p))
                if row is not None and row["vector"] == stood[p].encode().hex():
                    found[p] = {stream: counts["out"] for stream, counts in row["streams"].items()}
        return found

    def standby(self) -> list[str]:
        """Folders of state that are kept for other nodes' processors."""
        folder = self.context.path("standby")
        if self.ownership.alone or not self.context.disk.exists(folder):
            return []
        return [f"{folder}/{name}" for name in sorted(self.context.disk.listdir(folder))]


def positions_in(told: Mapping[str, Mapping[str, Sequence[int]]]) -> dict[WriterId, Position]:
    """What nodes answered, together."""
    return {WriterId(int(writer, 16)): Position(*at) for part in told.values() for writer, at in part.items()}
