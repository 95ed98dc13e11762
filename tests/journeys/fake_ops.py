"""A FAKE of the ops process's demo routes, for the test of the demo page only: it serves the real page files under
the real policy, and plays the journey of each event that a fake collector received, by the clock."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import headwater
from tests.journeys.fake_collector import TYPES, FakeCollector

STATIC = Path(headwater.__file__).parent / "ops" / "static"
PROCESSED_S, LANDED_S = 0.15, 0.45


class FakeOps:
    def __init__(self, collector: FakeCollector, key: str) -> None:
        self.never: set[str] = set()  # event names that do not land
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                kind, status = "application/json", 200
                if url.path == "/demo/config.json":
                    body = json.dumps(
                        {
                            "collector": collector.url,
                            "key": key,
                            "tag": collector.url + "/headwater.js",
                            "destination": "warehouse",
                            "program": ".venv/bin/headwater",
                            "data": "'/srv/a folder'",
                        }
                    ).encode()
                elif url.path == "/demo/journey":
                    body = json.dumps(owner.journey(collector, parse_qs(url.query)["message_id"][0])).encode()
                elif (
                    file := STATIC / ("demo.html" if url.path == "/demo" else Path(url.path).name)
                ).is_file():
                    body, kind = file.read_bytes(), TYPES[file.suffix]
                else:
                    body, status = b"{}", 404
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header(
                    "Content-Security-Policy",
                    f"default-src 'self'; script-src 'self' {collector.url}; connect-src 'self' {collector.url}; "
                    "img-src 'self' data:; style-src 'self'",
                )
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def journey(self, collector: FakeCollector, message_id: str) -> dict[str, Any]:
        for batch in list(collector.batches):
            for event in batch.events:
                if event["messageId"] == message_id:
                    age = time.monotonic() - batch.at
                    landed = age > LANDED_S and event.get("event") not in self.never
                    return {
                        "acknowledged": True,
                        "processed": age > PROCESSED_S,
                        "destinations": {"warehouse": landed},
                        "row": self.row(event) if landed else None,
                    }
        return {"acknowledged": False, "processed": False, "destinations": {"warehouse": False}, "row": None}

    @staticmethod
    def row(event: dict[str, Any]) -> dict[str, Any]:
        page = event["context"]["page"]
        return {
            "message_id": event["messageId"],
            "event": event.get("event"),
            "type": event["type"],
            "anonymous_id": event["anonymousId"],
            "user_id": event.get("userId"),
            "received_at": event["timestamp"],
            "timestamp": event["timestamp"],
            "key_id": "web",
            "page_url": page["url"],
            "page_path": page["path"],
            "locale": event["context"]["locale"],
            "ua_browser": "Chrome",
            "is_bot": False,
            "ip": None,
            **{k: v for k, v in event.get("properties", {}).items() if not isinstance(v, list | dict)},
        }
