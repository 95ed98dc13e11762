"""Segment's own clients, unmodified, pointed at Headwater: every call arrives exactly once, with equal content, though
the collector is killed or restarted while they send.

The oracle is the list of calls that the test made; what arrived is read back by SQL.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest

from tests.journeys.running import SERVER_KEY, WEB_KEY, Running, unique, wait_for
from tests.parts import NPM, require_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

HERE = Path(__file__).parent
CALLS = 24
"""Of each half: before and after the collector goes away."""
METHODS = ("track", "identify", "page", "screen", "group", "alias")
LABELS = (
    "plain",
    "Grüße aus Köln",
    "日本語 🛶",
    'quote " back \\ slash /',
    "<script>",
    "line\nbreak\ttab",
    " space ",
    "",
)


@pytest.fixture(scope="module")
def collector(make_shared_node: Callable[..., Running]) -> Running:
    node = make_shared_node()
    node.start()
    return node


def call(tag: str, number: int) -> dict[str, Any]:
    """One call as the spec writes it. Its user id names it."""
    method = METHODS[number % len(METHODS)]
    facts = {
        "number": number, "price": number + 0.25, "negative": -number, "large": 2**40 + number, "flag": number % 2 == 0,
        "label": LABELS[number % len(LABELS)], "deep": {"in": {"side": f"d{number}"}},
        "list": [number, "x", {"y": None}],
    }  # fmt: skip
    message: dict[str, Any] = {
        "method": method,
        "userId": f"{tag}-{number}",
        "timestamp": (
            datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=number, milliseconds=number)
        ).isoformat(),
        "context": {"app": {"name": "shop", "version": f"1.{number}"}, "locale": "de-DE"},
    }
    match method:
        case "track":
            message |= {"event": f"Event {number}", "properties": facts, "anonymousId": f"a-{number}"}
        case "identify":
            message |= {"traits": facts, "anonymousId": f"a-{number}"}
        case "page" | "screen":
            message |= {"name": f"Name {number}", "properties": facts, "anonymousId": f"a-{number}"}
        case "group":
            message |= {"groupId": f"g-{number}", "traits": facts, "anonymousId": f"a-{number}"}
        case "alias":
            message |= {"previousId": f"p-{number}"}
    return message


def expected(message: dict[str, Any]) -> dict[str, Any]:
    """The columns that a call must have, by the written rules of names."""
    row = {
        "type": message["method"],
        "user_id": message["userId"],
        "anonymous_id": message.get("anonymousId"),
        "group_id": message.get("groupId"),
        "previous_id": message.get("previousId"),
        "app_version": message["context"]["app"]["version"],
        "locale": message["context"]["locale"],
        "event": message.get("event") or message.get("name") or message["method"],
        "name": message.get("name"),
    }
    for root, prefix in (("properties", ""), ("traits", "traits_")):
        for name, value in message.get(root, {}).items():
            row |= (
                {f"{prefix}deep_in_side": value["in"]["side"]}
                if name == "deep"
                else {f"{prefix}{name}": value}
            )
    return row


def in_columns(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it was read, JSON columns decoded."""
    decoded = {n: json.loads(v) for n, v in row.items() if n.endswith("list") and isinstance(v, str)}
    return row | decoded


def arrived(node: Running, tag: str, calls: list[dict[str, Any]]) -> None:
    """Each call is there exactly once, as it was made."""
    node.wait_rows(len(calls), where=f"user_id like '{tag}-%'", timeout_s=60)
    streams = node.wait_settled()
    assert all(s["holds"] for s in streams), streams
    rows = node.sql(f"select * from events where user_id like '{tag}-%'")
    unique(r["message_id"] for r in rows)
    by_user = {r["user_id"]: in_columns(r) for r in rows}
    assert unique(r["user_id"] for r in rows) == {c["userId"] for c in calls}
    for made in calls:
        row, wanted = by_user[made["userId"]], expected(made)
        assert {name: row.get(name) for name in wanted} == wanted
        sent = datetime.fromisoformat(row["original_timestamp"].replace(" ", "T")).replace(tzinfo=UTC)
        assert sent == datetime.fromisoformat(made["timestamp"]), row
        assert not row["_unmapped"], row


class Client:
    """A tracker in a process of its own, told line by line what to send."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def send(self, calls: list[dict[str, Any]]) -> None:
        for one in calls:
            self.tell(one)
            assert self.line().startswith("sent "), self.process.stderr

    def tell(self, what: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def line(self) -> str:
        stdout: IO[str] | None = self.process.stdout
        assert stdout is not None
        return stdout.readline()

    def flush(self) -> dict[str, Any]:
        """End it, and what it says then."""
        self.tell({"flush": True})
        out, err = self.process.communicate(timeout=90)
        assert self.process.returncode == 0, err
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@contextmanager
def client(*command: str) -> Iterator[Client]:
    running = Client(list(command))
    try:
        yield running
    finally:
        running.close()


@pytest.mark.real("node", "analytics-node")
def test_every_call_of_analytics_node_arrives_once_though_the_collector_is_killed(collector: Running) -> None:
    node = str(require_part("node"))
    script, host = str(HERE / "segment_server.mjs"), f"http://127.0.0.1:{collector.collect}"
    calls = [call("node", number) for number in range(2 * CALLS)]
    with client(node, script, str(NPM), host, SERVER_KEY) as tracker:
        tracker.send(calls[:CALLS])
        collector.wait_rows(1, where="user_id like 'node-%'")
        collector.kill_all()
        tracker.send(calls[CALLS:])
        collector.start()
        told = tracker.flush()
    assert told["errors"] == [], told
    arrived(collector, "node", calls)


def test_every_call_of_analytics_python_arrives_once_though_the_collector_restarts(
    collector: Running,
) -> None:
    pytest.importorskip("segment.analytics", reason="segment-analytics-python is missing: pip install it")
    tag, host = "python", f"http://127.0.0.1:{collector.collect}"
    calls = [call(tag, number) for number in range(2 * CALLS)]
    with client(sys.executable, str(HERE / "segment_server.py"), host, SERVER_KEY, "gzip") as tracker:
        tracker.send(calls[:CALLS])
        stopping = threading.Thread(target=collector.stop)
        stopping.start()
        tracker.send(calls[CALLS:])
        stopping.join(60)
        collector.start()
        told = tracker.flush()
    assert told["errors"] == [], told
    arrived(collector, tag, calls)


# ---- the browser SDK

PAGE = """<!doctype html><html><head><title>Shop</title><link rel="icon" href="data:,">
<script src="/{bundle}"></script></head><body>A page with analytics-next</body></html>"""
PACKAGE = """
async ([key, collector, host, options]) => {
  window.tracker = AnalyticsNext.AnalyticsBrowser.load(
    {writeKey: key, cdnURL: collector},
    {integrations: {'Segment.io': {apiHost: host + '/v1', protocol: 'http', ...options}}})
  await window.tracker.ready()
}"""
CALLS_OF_A_PAGE = """
(calls) => {
  for (const c of calls) {
    const options = {timestamp: new Date(c.timestamp), context: c.context}
    switch (c.method) {
      case 'track': tracker.track(c.event, c.properties, options); break
      case 'identify': tracker.identify(c.userId, c.traits, options); break
      case 'page': tracker.page(c.name, c.properties, options); break
      case 'screen': tracker.screen(c.name, c.properties, options); break
      case 'group': tracker.group(c.groupId, c.traits, options); break
      case 'alias': tracker.alias(c.userId, c.previousId, options); break
    }
  }
}"""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Pages with the SDK's own bundle, from an origin of their own."""
    bundles = require_part("analytics-next") / "dist" / "umd"

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.split("?")[0].lstrip("/")
            page = not name.endswith(".js")
            body = (
                PAGE.format(bundle="index.js").encode() if page else (bundles / Path(name).name).read_bytes()
            )
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if page else "text/javascript")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def browser_call(tag: str, number: int) -> dict[str, Any]:
    """As `call`, with the tag inside: which user and group an event carries is what the browser remembers then."""
    made = call(tag, number)
    for root in ("properties", "traits"):
        if root in made:
            made[root] = made[root] | {"tag": tag}
    return made


def browser_expected(made: dict[str, Any]) -> dict[str, Any]:
    """What a browser sends as the call says; it adds ids and the page by itself (to alias the user of before)."""
    wanted = expected(made)
    del wanted["anonymous_id"]
    if made["method"] != "identify":
        del wanted["user_id"]
    if made["method"] != "group":
        del wanted["group_id"]
    return wanted


@pytest.mark.real("chromium", "analytics-next")
@pytest.mark.parametrize("strategy", ["single", "batching"])
def test_every_call_of_analytics_next_arrives_once_though_the_collector_restarts(
    collector: Running, chromium: Any, site: str, strategy: str
) -> None:
    tag, host = f"next-{strategy}", f"127.0.0.1:{collector.collect}"
    batching = {"deliveryStrategy": {"strategy": "batching", "config": {"size": 5, "timeout": 300}}}
    calls = [browser_call(tag, number) for number in range(2 * CALLS)]
    context = chromium.new_context()
    strangers: list[str] = []

    def refuse(route: Any) -> None:
        strangers.append(route.request.url)
        route.abort()

    # A pattern, not a function: a function is asked about every request, in this thread, which also waits elsewhere.
    context.route(re.compile(r"^(?!http://127\.0\.0\.1:|data:)"), refuse)
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(f"{site}/shop?utm_source=news&utm_campaign=spring")
    page.evaluate(PACKAGE, [WEB_KEY, f"http://{host}", host, batching if strategy == "batching" else {}])
    page.evaluate(CALLS_OF_A_PAGE, calls[:CALLS])
    where = f"locale = 'de-DE' and coalesce(tag, traits_tag, user_id) like '{tag}%'"
    collector.wait_rows(1, where=where)
    assert collector.stop() == 0
    page.evaluate(CALLS_OF_A_PAGE, calls[CALLS:])
    page.wait_for_timeout(300)
    collector.start()
    wait_for(lambda: rows_there(page, collector, where) >= len(calls), 60, collector.log, interval_s=0.5)
    rows = collector.sql(f"select * from events where {where}")
    unique(r["message_id"] for r in rows)
    assert len(rows) == len(calls)
    by_version = {r["app_version"]: in_columns(r) for r in rows}
    for made in calls:
        row, wanted = by_version[made["context"]["app"]["version"]], browser_expected(made)
        assert {name: row.get(name) for name in wanted} == wanted
        assert row["library_name"] == "analytics.js"
        assert row["page_url"] == f"{site}/shop?utm_source=news&utm_campaign=spring"
        assert (row["utm_source"], row["utm_campaign"]) == ("news", "spring")
        assert row["ua_family"] in ("Chrome", "Chromium", "HeadlessChrome", "Chrome Headless")
    assert all(
        r["anonymous_id"] for r in rows
    )  # another one after each login of somebody else, as the SDK wants it
    streams = collector.wait_settled()
    assert all(s["holds"] for s in streams), streams
    assert (troubles, strangers) == ([], [])
    context.close()


def rows_there(page: Any, node: Running, where: str) -> int:
    """How many; the page goes on living meanwhile (Playwright runs it in this thread's turn)."""
    page.wait_for_timeout(100)
    return int(node.sql(f"select count(*) as n from events where {where}")[0]["n"])


@pytest.mark.real("chromium", "analytics-next")
def test_settings_that_headwater_serves_are_enough_for_analytics_next(
    collector: Running, chromium: Any, site: str
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(site)
    collector_url = f"http://127.0.0.1:{collector.collect}"
    answer = collector.ask("GET", f"/v1/projects/{WEB_KEY}/settings", headers={"Origin": site})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] in ("*", site)
    told = answer.json["integrations"]["Segment.io"]
    assert told["apiKey"] == WEB_KEY
    assert told["apiHost"] == f"127.0.0.1:{collector.collect}/v1"
    page.evaluate(
        "([key, url]) => AnalyticsNext.AnalyticsBrowser.load({writeKey: key, cdnURL: url})"
        ".then(([a]) => a.track('Only settings', {number: 1}))",
        [WEB_KEY, collector_url],
    )
    collector.wait_rows(1, where="event = 'Only settings'")
    context.close()
