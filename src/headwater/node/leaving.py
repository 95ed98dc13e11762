"""When a node of a cluster may stop without taking anything with it (docs/decisions/0007-cluster.md).

First its partitions go to others, while its processors and deliverers still run, so that each moves with its state.
Then its lane stays until the owners have processed its log to the end. A node waits for nobody who is leaving too, or
is not heard: when all stop at once, each stops with what it has, and goes on from there at its next start.
"""

from __future__ import annotations

from collections.abc import Mapping

from headwater.cluster.table import View
from headwater.lane.lag import Ends, covers, newest
from headwater.lane.wire import Progress
from headwater.node.needs import decoded


def successors(view: View | None) -> list[str]:
    """The other members that go on."""
    if view is None or not view.viable:
        return []
    return [
        node
        for node, record in view.alive.items()
        if node != view.me and node in view.table.members and record.state == "active"
    ]


def handed_over(view: View | None) -> bool:
    """Whether others own everything, or nobody could."""
    return view is None or not successors(view) or not view.table.owned_by(view.me)


def read_to_the_end(view: View | None, heard: Mapping[str, Progress], ends: Ends) -> bool:
    """Whether each owner that goes on has processed all that this node's logs hold. ``heard``: what each said last."""
    if view is None:
        return True
    note = newest(ends)
    return all(
        said is not None and said.epoch >= view.table.epoch and said.at and covers(decoded(said.at), note)
        for said in (heard.get(node) for node in {*view.table.owner} & {*successors(view)})
    )
