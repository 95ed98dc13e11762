"""A mistake in the commit thread: everybody is told, and the log ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from headwater.kit.errors import Broken
from headwater.kit.threads import inline
from headwater.log.group import GroupCommit


async def test_nobody_is_left_waiting_when_a_commit_breaks(tmp_path: Path) -> None:
    def write(*_: Any, **__: Any) -> None:
        raise TypeError("a mistake")

    blocks = SimpleNamespace(writer=1, log_id=1, ended="", next_seq=0, write=write, close=lambda: None)
    told: list[Any] = []
    group: GroupCommit[str] = GroupCommit(
        blocks,  # type: ignore[arg-type]
        asyncio.get_running_loop(),
        lambda waiters, error: told.append((list(waiters), error)),
        pending_bytes_max=1000,
        submit=inline,
    )
    group.append(1, bytes(16), b"{}", b"head", stream="web", waiter="a")
    await group.close()
    assert told[0][0] == ["a"] and isinstance(told[0][1], Broken)
    assert "a mistake" in blocks.ended
