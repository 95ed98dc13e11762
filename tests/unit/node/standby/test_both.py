"""What the lane role has of both ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import msgspec

from headwater.cluster.table import View
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Broken
from headwater.node.standby.both import Both
from headwater.process.settings import ProcessSettings
from tests.unit.node.standby.nodes import OWNER, STANDBY, THIRD, view
from tests.unit.node.standby.world import SECRET, vector


class Views:
    def __init__(self, now: View | None) -> None:
        self.now = now
        self.spoilt = False

    def read(self) -> View | None:
        if self.spoilt:
            raise Broken("run/view: not a view")
        return self.now


async def never(node: str) -> None:
    raise AssertionError("nobody is followed here")


async def test_only_what_the_standby_of_a_partition_has_on_disk_is_needed(tmp_path: Path) -> None:
    mine = msgspec.structs.replace(view(), me=OWNER)
    views = Views(mine)
    context = SimpleNamespace(
        settings=SimpleNamespace(process=ProcessSettings()), disk=SystemDisk(), clock=SystemClock(),
        data=str(tmp_path), secret=SECRET,
    )  # fmt: skip
    both = Both(context, lambda *told: None, views, never)  # type: ignore[arg-type]
    try:
        assert both.needed() == {}
        both.server.told = {STANDBY: {0: vector(5, 5), 2: vector(5, 5)}, THIRD: {1: vector(1, 1)}}
        assert both.needed() == {0: vector(5, 5)}  # 2 is not ours, and THIRD is nobody's standby
        views.spoilt = True
        assert both.needed() == {0: vector(5, 5)}
        assert both.told()["trouble"] == {"view": "run/view: not a view"}
        views.spoilt, views.now = False, None
        assert both.needed() == {} and both.told()["trouble"] == {}
    finally:
        await both.close()
