"""Both ends, as the lane role has them::

self.both = Both(context, self.trouble, self.views, self.dial)
self.firsts[Kind.STATE] = self.both.serve              # a connection that begins with STATE
self.standby = self.both.needed                        # what own partitions' standbys would begin from
self.group.start("standby", self.both.run())           # until cancelled
detail()["standby"] = self.both.told()                 # for status
await self.both.close()                                # when the group has ended
"""

from __future__ import annotations

import asyncio
from typing import Any

from headwater.cluster.table import View
from headwater.event.position import Vector
from headwater.kit import tasks
from headwater.kit.errors import Broken
from headwater.kit.threads import Thread
from headwater.node.context import Context
from headwater.node.standby.keeper import Dial, StandbyKeeper, Views
from headwater.node.standby.serve import Authenticated, StandbyServer
from headwater.peer.frames import Frame


class Both:
    """This node as an owner that has standbys, and as a standby."""

    def __init__(self, context: Context, report: tasks.Report, views: Views, dial: Dial) -> None:
        process = context.settings.process
        self.views = views
        self.view: View | None = None
        self.unread = ""
        self.reading, self.writing = Thread("standby-read"), Thread("standby-write")
        self.server = StandbyServer(
            context.disk,
            context.clock,
            context.data,
            self.reading,
            report,
            secret=context.secret,
            workers=process.workers,
            window_s=process.dedupe_window_s,
        )
        self.keeper = StandbyKeeper(
            context.disk,
            context.clock,
            context.data,
            self.writing,
            report,
            self,
            dial,
            window_s=process.dedupe_window_s,
        )

    def read(self) -> View | None:
        """The newest view; the last one while it cannot be read."""
        try:
            self.view, self.unread = self.views.read(), ""
        except Broken as error:
            self.unread = error.message
        return self.view

    async def serve(self, connection: Authenticated, opened: Frame) -> None:
        """A standby has dialled and says what it wants."""
        await self.server.serve(connection, connection.peer.node, opened)

    def needed(self) -> dict[int, Vector]:
        """Per own partition where the state stands that its standby has, as far as it said so."""
        return needed(self.read(), self.server)

    async def run(self) -> None:
        """Follow the nodes for which this one is the standby, until cancelled."""
        await self.keeper.run()

    def told(self) -> dict[str, Any]:
        """For the report: whom this node follows and from where it would go on, and what is wrong."""
        return {
            "kept": {
                node: {str(p): vector.encode().hex() for p, vector in vectors.items()}
                for node, vectors in self.keeper.standing.items()
            },
            "ready": sorted(p for partitions in self.keeper.whole.values() for p in partitions),
            "trouble": {**self.keeper.trouble, **({"view": self.unread} if self.unread else {})},
            "unreadable": {str(number): why for number, why in self.server.trouble.items()},
        }

    async def close(self) -> None:
        """End the threads, with what was submitted."""
        for thread in (self.reading, self.writing):
            await asyncio.to_thread(thread.close)


def needed(view: View | None, server: StandbyServer) -> dict[int, Vector]:
    """Of the partitions that the table gives to this node, what their standbys have on their disks."""
    found: dict[int, Vector] = {}
    if view is not None:
        for partition in view.table.owned_by(view.me):
            synced = server.synced(view.table.standby[partition])
            if partition in synced:
                found[partition] = synced[partition]
    return found
