"""Advisories to a URL: JSON by POST, one after the other, each tried again for some minutes. Nobody waits for it: what
does not fit into the queue, or could not be delivered, is counted and left out; the log has every advisory anyway.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headwater.kit import retry
from headwater.kit.clock import Clock
from headwater.kit.counters import Counters
from headwater.kit.errors import HeadwaterError, Rejected, Unavailable
from headwater.kit.queues import BoundedQueue
from headwater.kit.retry import Backoff
from headwater.kit.rng import Rng

QUEUE_ADVISORIES_MAX, QUEUE_BYTES_MAX = 1_000, 1024 * 1024
POST_S = 5.0
BACKOFF = Backoff(first_s=0.5, ceiling_s_max=30.0, attempts_max=20, total_s_max=300.0)
LATER = (408, 425, 429)
"""Refusals that pass by themselves, beside 5xx."""
LEFT_OUT = "headwater_advisories_left_out_total"


class Webhook:
    """One listener."""

    def __init__(
        self, url: str, clock: Clock, rng: Rng, counters: Counters, backoff: Backoff = BACKOFF
    ) -> None:
        self.url = url
        self.clock = clock
        self.rng = rng
        self.counters = counters
        self.backoff = backoff
        self.queue: BoundedQueue[bytes] = BoundedQueue(
            "advisories", events_max=QUEUE_ADVISORIES_MAX, bytes_max=QUEUE_BYTES_MAX
        )

    def offer(self, advisory: Mapping[str, Any]) -> None:
        """Have it sent; never waits."""
        data = msgspec.json.encode(advisory)
        if not self.queue.shed(data, "full", size_bytes=len(data)):
            self.counters.add(LEFT_OUT, why="full")

    async def run(self) -> None:
        """Send, until cancelled."""
        while True:
            data = await self.queue.get()
            try:
                await retry.call(lambda data=data: self.post(data), self.backoff, self.clock, self.rng)  # type: ignore[misc]
            except HeadwaterError as error:
                self.counters.add(LEFT_OUT, why=error.code)

    async def post(self, data: bytes) -> None:
        """Once. Unavailable: try again; Rejected: it is not wanted."""
        await asyncio.to_thread(send, self.url, data)


def send(url: str, data: bytes) -> None:
    """POST. Unavailable: no answer, or one that passes; Rejected: any other than 2xx."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=POST_S)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url} does not answer: {error}", code="webhook_silent") from error
    finally:
        connection.close()
    if status >= 500 or status in LATER:
        raise Unavailable(f"{url} answered {status}", code="webhook_silent")
    if not 200 <= status < 300:
        raise Rejected(f"{url} answered {status}", code="webhook_refused")
