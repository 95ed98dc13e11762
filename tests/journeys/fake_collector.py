"""A FAKE of the collector, for the tests of the browser tag only.

It serves pages and the real tag from the source tree, records every batch, and answers as told:
the tests need replies (429, 503, hang, a lost reply) that a healthy collector does not give on request.
Nothing is stored; receipts are invented.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import headwater

STATIC = Path(headwater.__file__).parent / "collect" / "static"
TYPES = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css",
}


@dataclass
class Reply:
    """What the fake does with one batch."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    wait: threading.Event | None = None  # hold the reply until set
    cut: bool = False  # close without a reply (after recording)
    text: str | None = None  # a raw body instead of the JSON


@dataclass
class Batch:
    at: float
    origin: str | None
    content_type: str
    method: str
    size: int
    body: dict[str, Any]
    reply: Reply

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.body["batch"])

    @property
    def ids(self) -> list[str]:
        return [event["messageId"] for event in self.events]

    @property
    def names(self) -> list[str]:
        return [event.get("event") or event["type"] for event in self.events]


class FakeCollector:
    """Two origins when two are started: one serves pages, one collects."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.preflights = 0
        self.plan: list[Reply] = []  # for the next batches; then `default`
        self.default = Reply()
        self.pages: dict[str, tuple[str, dict[str, str]]] = {}
        self.files: dict[str, Path] = {f"/{path.name}": path for path in STATIC.iterdir()}
        self.changed = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _send(self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in (more or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path in owner.files:
                    file = owner.files[path]
                    self._send(
                        200, file.read_bytes(), TYPES[file.suffix], {"Access-Control-Allow-Origin": "*"}
                    )
                elif path in owner.pages:
                    text, headers = owner.pages[path]
                    self._send(200, text.encode(), "text/html; charset=utf-8", headers)
                else:  # a favicon that is absent would be an error on the console
                    self._send(204 if path == "/favicon.ico" else 404, b"", "text/plain")

            def do_OPTIONS(self) -> None:
                owner.preflights += 1
                self._send(204, b"", "text/plain")

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                batch = owner._record(self, raw)
                reply = batch.reply
                if reply.wait is not None:
                    reply.wait.wait(30)
                if reply.cut:
                    self.close_connection = True
                    return
                try:
                    self._send(
                        reply.status,
                        (reply.text if reply.text is not None else owner._text(batch)).encode(),
                        "application/json",
                        {
                            "Access-Control-Allow-Origin": "*",
                            "Access-Control-Expose-Headers": "Retry-After",
                            **reply.headers,
                        },
                    )
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the page is gone: that is one of the cases

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _record(self, request: BaseHTTPRequestHandler, raw: bytes) -> Batch:
        with self.changed:
            reply = self.plan.pop(0) if self.plan else self.default
            batch = Batch(
                time.monotonic(),
                request.headers["Origin"],
                request.headers["Content-Type"],
                request.path,
                len(raw),
                json.loads(raw),
                reply,
            )
            self.batches.append(batch)
            self.changed.notify_all()
            return batch

    def _text(self, batch: Batch) -> str:
        refused = [{"index": i, "reason": why, "field": "event"} for i, why in batch.reply.refused.items()]
        body: dict[str, Any] = {"ok": batch.reply.status == 200, "success": batch.reply.status == 200}
        if batch.reply.status == 200:
            body |= {
                "accepted": len(batch.events) - len(refused),
                "ack": "disk",
                "receipt": f"fake-{len(self.batches)}",
            }
        if refused:
            body["refused"] = refused
        return json.dumps(body)

    # ---- what the tests ask
    def page(self, path: str, body: str, head: str = "", **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[urlsplit(path).path] = (
            f"<!doctype html><title>{urlsplit(path).path}</title>{head}<body>{body}</body>",
            named,
        )
        return self.url + path

    def wait_for(self, what: Callable[[], bool], timeout_s: float = 15) -> None:
        with self.changed:
            assert self.changed.wait_for(what, timeout_s), (
                f"not seen in {timeout_s} s; batches: {[(b.reply.status, b.names) for b in self.batches]}"
            )

    @property
    def received(self) -> Counter[str]:
        """How often each event name came, whatever was answered."""
        return Counter(name for batch in list(self.batches) for name in batch.names)

    @property
    def accepted(self) -> Counter[str]:
        """How often each event name came in a batch that was answered with 200 and not refused there."""
        return Counter(
            name for batch in list(self.batches) if batch.reply.status == 200 and not batch.reply.cut
            for i, name in enumerate(batch.names) if i not in batch.reply.refused
        )  # fmt: skip

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for batch in list(self.batches) for event in batch.events]
