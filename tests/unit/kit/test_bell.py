"""Waking another process: rings are heard at once, and cost nothing where nobody listens."""

from __future__ import annotations

import asyncio
from pathlib import Path

from headwater.kit.bell import Bell, Ringer


async def test_a_ring_is_heard_and_rings_that_wait_are_one(tmp_path: Path) -> None:
    path, heard = str(tmp_path / "bell"), asyncio.Event()
    count = 0

    def listen() -> None:
        nonlocal count
        count += 1
        heard.set()

    bell = Bell(path, asyncio.get_running_loop(), listen)
    ringer = Ringer(path)
    for _ in range(100):
        ringer.ring()
    async with asyncio.timeout(5):
        await heard.wait()
    assert count == 1
    heard.clear()
    ringer.ring()
    async with asyncio.timeout(5):
        await heard.wait()
    ringer.close()
    bell.close()


async def test_a_ring_that_nobody_hears_is_no_error_and_later_ones_are_heard(tmp_path: Path) -> None:
    path, heard = str(tmp_path / "bell"), asyncio.Event()
    ringer = Ringer(path)
    ringer.ring()  # no pipe
    Bell(path, asyncio.get_running_loop(), heard.set).close()
    ringer.ring()  # a pipe, nobody there
    bell = Bell(path, asyncio.get_running_loop(), heard.set)
    ringer.ring()
    async with asyncio.timeout(5):
        await heard.wait()
    for _ in range(70_000):  # more than the pipe holds
        ringer.ring()
    ringer.close()
    bell.close()
