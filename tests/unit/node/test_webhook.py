"""Advisories to a URL: in order, tried again, never waited for."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.retry import Backoff
from headwater.kit.rng import SystemRng
from headwater.node import webhook
from headwater.node.webhook import LEFT_OUT, Webhook

QUICK = Backoff(first_s=0.001, ceiling_s_max=0.001, attempts_max=5)


class Listener:
    """Answers with the statuses that it is given, then 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.told: list[Any] = []
        listener = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status = listener.statuses.pop(0) if listener.statuses else 200
                if status == 200:
                    listener.told.append((self.path, body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook?key=1"


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


async def sent(hook: Webhook, *advisories: dict[str, Any]) -> None:
    """Until all of them are dealt with."""
    for one in advisories:
        hook.offer(one)
    task = asyncio.get_running_loop().create_task(hook.run())
    async with asyncio.timeout(10):
        while not (hook.queue.getters and not hook.queue.entries):
            await asyncio.wait((task,), timeout=0.005)
    task.cancel()


def left_out(counters: Counters) -> dict[str, float]:
    return {labels["why"]: value for name, labels, value in counters if name == LEFT_OUT}


def test_advisories_come_in_order_and_are_tried_again(listener: Listener) -> None:
    counters = Counters()
    hook = Webhook(listener.url, SystemClock(), SystemRng(), counters, QUICK)
    listener.statuses = [503, 429]
    asyncio.run(sent(hook, {"n": 1}, {"n": 2}))
    assert listener.told == [("/hook?key=1", {"n": 1}), ("/hook?key=1", {"n": 2})]
    assert left_out(counters) == {}


def test_what_is_not_wanted_is_counted_and_holds_up_nothing(listener: Listener) -> None:
    counters = Counters()
    hook = Webhook(listener.url, SystemClock(), SystemRng(), counters, QUICK)
    listener.statuses = [404, *[500] * 5]
    asyncio.run(sent(hook, {"n": 1}, {"n": 2}, {"n": 3}))
    assert [body for _, body in listener.told] == [{"n": 3}]
    assert left_out(counters) == {"webhook_refused": 1, "webhook_silent": 1}


def test_a_full_queue_leaves_out_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "QUEUE_ADVISORIES_MAX", 2)
    counters = Counters()
    hook = Webhook("http://127.0.0.1:1/", SystemClock(), SystemRng(), counters, QUICK)
    for number in range(5):
        hook.offer({"n": number})
    assert left_out(counters) == {"full": 3}
