"""Parts of a cluster with one mistake each; the oracle must find every one of them (test_cluster.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from headwater.cluster.table import View
from headwater.destinations.port import PositionRow, Step
from headwater.event.position import EMPTY, Position, Vector
from headwater.kit.errors import Broken
from headwater.lane import wire
from headwater.lane.folder import MirrorLog
from headwater.lane.mirror import HomeMirror
from headwater.lane.wire import Progress
from headwater.node import needs
from headwater.node.standby import sink
from headwater.process.idruns import About
from headwater.process.worker import ProcessWorker
from tests.simulation.cluster_world import Parts, Tables


class Blind(Tables):
    """Commits without comparing; the position only grows (INV-DST-1)."""

    def matches(self, step: Step) -> bool:
        return all((step.pipeline, p) in self.store.positions for p in step.partitions)

    def moved(self, step: Step, partition: int) -> PositionRow:
        row = super().moved(step, partition)
        old = Vector.decode(self.store.positions[step.pipeline, partition].vector)
        joined = Vector.decode(row.vector).join(old).encode()
        return PositionRow(joined, row.streams, row.config_epoch, row.owner)


def anything_held(about: About, vectors: Mapping[int, Vector], wanted: Collection[int]) -> tuple[int, ...]:
    """Ids of commits that reach beyond the vector count as seen (INV-STATE)."""
    return tuple(p for p in about.partitions if p in wanted)


def nothing_remembered(self: ProcessWorker, *_: object) -> None:
    """Ids are no part of what is taken over (INV-STATE)."""


def safe_for_itself(view: View | None, by_node: Mapping[str, Progress]) -> tuple[Vector, Vector]:
    """A home gives back what its own partitions do not need (INV-LANE-2)."""
    if view is None or view.me not in by_node:
        return EMPTY, EMPTY
    own = needs.by_partition(by_node[view.me], view.table.epoch)
    vector = needs.meet(needs.decoded(need.vector) for need in own.values())
    return vector, vector


def delta_anywhere(self: sink.Sink, entry: Any) -> None:
    """The standby takes commits that do not go on where it stands, and says that it stands behind them."""
    try:
        SINK_DELTA(self, entry)
    except Broken:
        _, about = sink.named(entry.chunk)
        self.fold.vectors |= dict.fromkeys(about.partitions, about.target)
        self.changed = True


SINK_DELTA = sink.Sink._delta


def asks_further(self: HomeMirror, node: str = "") -> wire.Open:
    """A mirror is asked for from an event behind where it ends."""
    asked = OPENING(self, node)
    origin = asked.origin_vector
    moved = {w: Position(at.log, at.seq + 1) if w in self.logs else at for w, at in origin.items()}
    return wire.Open(
        stream=asked.stream,
        partitions=asked.partitions,
        origin=Vector(moved, origin.clock).encode(),
        until=asked.until,
        credit=asked.credit,
        home=asked.home,
    )


OPENING = HomeMirror.opening

VARIANTS: dict[str, Parts] = {
    "blind": Parts(destination=Blind),
    "no ids": Parts(
        patches=(
            (ProcessWorker, "_remember_all", nothing_remembered),
            (ProcessWorker, "_remember_rest", nothing_remembered),
        )
    ),
    "safe for itself": Parts(patches=((needs, "safe", safe_for_itself),)),
    "asks further": Parts(
        patches=((HomeMirror, "opening", asks_further), (MirrorLog, "check", lambda self, head: None))
    ),
}
