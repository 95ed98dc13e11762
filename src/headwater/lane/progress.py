"""What owners still need of a home's raw log: said every second, to every home (protocol.md §6, INV-LANE-2).

An owner says it of its own partitions only, and with the epoch of the table by which they are its own. A home keeps
what each node said last: it stays true when the connection is gone, since nobody ever needs more than they said before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headwater.kit.clock import Clock
from headwater.kit.errors import HeadwaterError
from headwater.lane import wire
from headwater.lane.mirror import RETRY_S_MAX, RETRY_S_MIN, Dial
from headwater.lane.wire import Connection, Progress
from headwater.peer.frames import Frame, Kind

INTERVAL_S = 1.0


class Heard:
    """The home side: what each node said last."""

    def __init__(self, now_ns: Callable[[], int] = lambda: 0) -> None:
        self.now_ns = now_ns
        self.by_node: dict[str, Progress] = {}
        self.heard_ns: dict[str, int] = {}
        """When each said something last, boot time."""

    async def serve(self, connection: Connection, opened: Frame) -> None:
        """A connection on which a node says it, from its first frame on."""
        frame: Frame | None = opened
        while frame is not None:
            if frame.kind == Kind.PROGRESS:
                self.hear(connection.peer.node, wire.message(frame, Progress))
            frame = await connection.receive()

    def hear(self, node: str, said: Progress) -> None:
        """What an older connection of it still brings never replaces what it said by a newer table."""
        known = self.by_node.get(node)
        if known is None or said.epoch >= known.epoch:
            self.by_node[node] = said
            self.heard_ns[node] = self.now_ns()

    def keep(self, nodes: Mapping[str, object]) -> None:
        """Forget the nodes that are no members any more."""
        self.by_node = {node: said for node, said in self.by_node.items() if node in nodes}


async def say_forever(node: str, dial: Dial, clock: Clock, said: Callable[[], Progress | None]) -> None:
    """The owner side, for one home: until cancelled."""
    wait_s = RETRY_S_MIN
    while True:
        try:
            connection = await dial(node)
            try:
                while True:
                    if (now := said()) is not None:
                        kind, header, _ = wire.outgoing(now)
                        await connection.send(kind, header)
                        wait_s = RETRY_S_MIN
                    await clock.sleep(INTERVAL_S)
            finally:
                await connection.close()
        except HeadwaterError:
            wait_s = min(wait_s * 2, RETRY_S_MAX)
        await clock.sleep(wait_s)
