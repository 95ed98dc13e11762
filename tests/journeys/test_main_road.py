"""The main road, as a user meets it: an event goes in at the door and comes out as a row, and every question about it
has an answer. All through the fixed surface: HTTP, the CLI, the events table."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.running import SERVER_KEY, WEB_KEY, Running, unique, wait_for
from tests.journeys.shell import default_start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SHOP_KEY, SLOW_KEY, STRICT_KEY = "wk_shop_0123456789", "wk_slow_0123456789", "wk_strict_0123456789"
KEYS = f"""
  - {{id: shop, secret: "{SHOP_KEY}", origins: ["https://shop.example.com", "https://*.shop.example.com"]}}
  - {{id: strict, secret: "{STRICT_KEY}", origins: ["https://shop.example.com"], require_origin: true}}
  - {{id: slow, secret: "{SLOW_KEY}", events_per_s_max: 1, burst_events: 3}}
"""
JSON = {"Content-Type": "application/json"}
NEVER_THERE = "ffffffffffff0000-0000000000000001-1"


@pytest.fixture(scope="module")
def road(make_shared_node: Callable[..., Running]) -> Running:
    """One node for this module: each test has ids and names of its own."""
    node = make_shared_node(keys=KEYS, door="body_bytes_max: 65536")
    node.start()
    return node


def basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{key}:".encode()).decode()}


def rows_of(node: Running, where: str, count: int = 1) -> list[dict[str, Any]]:
    """The rows, as soon as there are so many, and what they are."""
    node.wait_rows(count, where=where)
    return node.sql(f"select * from events where {where} order by received_at, message_id")


def stream(node: Running, name: str) -> dict[str, Any]:
    """What reconcile says about one key; nothing yet is zero of everything."""
    names = ("accepted", "delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged")
    return next((s for s in node.reconcile() if s["stream"] == name), dict.fromkeys(names, 0))


# ---- one event, from the answer to the row


def test_native_event_is_acknowledged_with_a_receipt_and_becomes_a_row(road: Running) -> None:
    event = {
        "type": "track", "event": "Product Added", "messageId": "native-1", "anonymousId": "a-native", "userId": "u-1",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "properties": {"price": 9.5, "quantity": 2, "gift": True, "colour": "блакитний", "type": "canoe",
                       "size": {"length": 4.2, "unit": "m"}, "tags": ["a", 1]},
    }  # fmt: skip
    status, reply = road.post("/events", event)
    assert status == 200, reply
    receipt = reply.pop("receipt")
    assert reply == {"ok": True, "accepted": 1, "ack": "disk"}
    assert re.fullmatch(r"\S+", receipt)
    (row,) = rows_of(road, "message_id = 'native-1'")
    assert {name: row[name] for name in ("event", "type", "anonymous_id", "user_id", "key_id")} == {
        "event": "Product Added", "type": "track", "anonymous_id": "a-native", "user_id": "u-1", "key_id": "web",
    }  # fmt: skip
    assert (row["price"], row["quantity"], row["gift"], row["colour"]) == (9.5, 2, True, "блакитний")
    assert row["properties_type"] == "canoe"  # `type` is a standard field
    assert (row["size_length"], row["size_unit"]) == (4.2, "m")
    assert in_json(row["tags"]) == ["a", 1]
    assert row["timestamp"].replace("T", " ").startswith("2026-01-02 03:04:05.678")
    (age,) = road.sql("select epoch(now() - received_at) as s from events where message_id = 'native-1'")
    assert -1 < age["s"] < 60


def in_json(value: Any) -> Any:
    """A JSON column, whether it is printed as text or as what it holds."""
    return json.loads(value) if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/track", {"event": "E"}),
        ("/v1/t", {"event": "E"}),
        ("/v1/page", {"name": "Home"}),
        ("/v1/screen", {"name": "Main"}),
        ("/v1/identify", {"userId": "u", "traits": {"plan": "pro"}}),
        ("/v1/group", {"groupId": "g", "traits": {"plan": "pro"}}),
        ("/v1/alias", {"userId": "u", "previousId": "p"}),
        ("/v1/batch", {"batch": [{"type": "track", "event": "E"}]}),
        ("/v1/import", {"batch": [{"type": "track", "event": "E"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_segment_call_is_acknowledged_as_segment_clients_expect(
    road: Running, path: str, body: dict[str, Any]
) -> None:
    name = "segment" + path.replace("/", "-")
    for event in body.get("batch", [body]):
        event |= {"messageId": name, "anonymousId": "a-segment"}
    answer = road.ask("POST", path, body, basic(SERVER_KEY) | JSON)
    assert answer.status == 200, answer
    assert answer.json["success"] is True
    assert answer.json | {"receipt": ""} == {
        "ok": True,
        "success": True,
        "accepted": 1,
        "ack": "disk",
        "receipt": "",
    }
    (row,) = rows_of(road, f"message_id = '{name}'")
    words = {"t": "track", "batch": "track", "import": "track"}
    last = path.rsplit("/", 1)[1]
    assert (row["type"], row["key_id"]) == (words.get(last, last), "server")
    if "traits" in body:
        assert row["traits_plan"] == "pro"


def test_click_is_a_row_in_less_than_two_seconds(road: Running) -> None:
    road.sql("select 1")
    took = []
    for number in range(3):
        started = time.monotonic()
        assert road.post("/events", {"event": "Click", "messageId": f"click-{number}"})[0] == 200
        road.wait_rows(1, where=f"message_id = 'click-{number}'")
        took.append(time.monotonic() - started)
    assert min(took) < 2, took  # the starts of the command are in it; the least, since the machine is shared


def test_where_tells_the_journey_of_a_receipt(road: Running) -> None:
    receipt = road.post("/events", {"event": "Followed", "messageId": "where-1"})[1]["receipt"]
    road.wait_rows(1, where="message_id = 'where-1'")
    done = road.command("where", receipt, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["acknowledged"], told["processed"], told["destinations"]) == (
        True,
        True,
        {"warehouse": True},
    )
    assert "warehouse" in road.command("where", receipt).stdout


def test_where_says_no_for_a_receipt_that_was_never_given(road: Running) -> None:
    done = road.command("where", NEVER_THERE, "--json")
    assert done.returncode == 1, (done.stdout, done.stderr)
    done = road.command("where", "not a receipt")
    assert done.returncode == 2
    assert "receipt" in done.stderr


def test_same_message_id_twice_is_one_row_and_one_duplicate(road: Running) -> None:
    before = stream(road, "web")
    for _ in range(3):
        assert road.post("/events", {"event": "Once", "messageId": "twice-1"})[0] == 200
    (row,) = rows_of(road, "message_id = 'twice-1'")
    assert row["event"] == "Once"
    wait_for(lambda: stream(road, "web")["duplicate"] - before["duplicate"] == 2, 15)


def test_reconcile_accounts_for_every_event(road: Running) -> None:
    road.post("/v1/batch", {"batch": [{"type": "track", "event": "Counted"}, {"type": "track"}]})
    streams = {s["stream"]: s for s in road.wait_settled()}
    assert {"web"} <= streams.keys()
    for told in streams.values():
        assert told["holds"] is True, told
        numbers = {
            name: told[name]
            for name in ("delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged")
        }
        assert told["accepted"] == sum(numbers.values()), told
        assert set(told["destinations"]) == {"warehouse"}
        assert told["destinations"]["warehouse"]["delivered"] == told["delivered"]
    for name, told in streams.items():
        (counted,) = road.sql(f"select count(*) as n from events where key_id = '{name}'")
        assert counted["n"] == told["delivered"], told
    assert road.command("reconcile").returncode == 0


def test_sql_answers_while_events_stream_in(road: Running) -> None:
    stopping = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not stopping.is_set():
            batch = [
                {"type": "track", "event": "Streaming", "messageId": f"stream-{sent + n}"} for n in range(20)
            ]
            if road.post("/v1/batch", {"batch": batch})[0] == 200:
                sent += len(batch)
            time.sleep(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    counts = []
    try:
        road.wait_rows(1, where="event = 'Streaming'")
        for _ in range(4):
            rows = road.sql("select event, count(*) as n from events where event = 'Streaming' group by 1")
            counts.append(rows[0]["n"])
    finally:
        stopping.set()
        thread.join(10)
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] <= sent
    road.wait_rows(sent, where="event = 'Streaming'")
    unique(r["message_id"] for r in road.sql("select message_id from events where event = 'Streaming'"))


def test_sql_reads_only(road: Running) -> None:
    for statement in ("drop table events", "delete from events", "copy events to '/tmp/never'", "select 1; select 2",
                      "select * from read_text('/etc/passwd')", "selec"):  # fmt: skip
        done = road.command("sql", "--json", statement)
        assert done.returncode in (1, 2), (statement, done)
        assert done.stderr.strip(), statement
    assert not Path("/tmp/never").exists()
    assert road.command("sql", "select 42 as answer").stdout.count("42") == 1


# ---- what is refused, and where it goes


def test_bad_event_in_a_batch_is_refused_alone(road: Running) -> None:
    batch = [
        {"type": "track", "event": "Good", "messageId": "alone-0"},
        {"type": "track", "messageId": "alone-1"},
        {"type": "walk", "event": "Bad", "messageId": "alone-2"},
        "alone-3",
        {"type": "track", "event": "Good", "messageId": "alone-4"},
    ]
    status, reply = road.post("/v1/batch", {"batch": batch}, key=SERVER_KEY)
    assert (status, reply["ok"], reply["success"], reply["accepted"]) == (200, True, True, 2)
    assert [r["index"] for r in reply["refused"]] == [1, 2, 3]
    assert [r["field"] for r in reply["refused"]][:2] == ["event", "type"]
    assert all("expected" in r["reason"] for r in reply["refused"])
    rows = rows_of(road, "message_id like 'alone-%'", 2)
    assert [r["message_id"] for r in rows] == ["alone-0", "alone-4"]
    wait_for(lambda: len(dead_of(road, "alone-")) == 2, 15)


def dead_of(node: Running, words: str) -> list[dict[str, Any]]:
    """Dead letters whose message id begins so."""
    done = node.command("dead", "list", "--json")
    assert done.returncode == 0, done.stderr
    return [d for d in json.loads(done.stdout) if str(d.get("message_id") or "").startswith(words)]


def test_wholly_refused_batch_is_400_with_the_same_list(road: Running) -> None:
    status, reply = road.post(
        "/v1/batch", {"batch": [{"type": "track", "messageId": "none-0"}, 7]}, key=SERVER_KEY
    )
    assert (status, reply["ok"]) == (400, False)
    assert [set(r) for r in reply["refused"]] == [{"index", "reason", "field"}] * 2
    assert "receipt" not in reply
    status, reply = road.post("/events", b'{"type": "track", "messageId": "none-1"', key=SERVER_KEY)
    assert (status, reply["ok"]) == (400, False)
    assert "JSON" in json.dumps(reply)


def test_dead_letter_keeps_the_bytes_and_the_reason(road: Running) -> None:
    body = b'{"type": "track",  "messageId": "dead-1", "n": 1.50}'  # two spaces, one and a half as written
    assert road.post("/events", body)[0] == 400
    wait_for(lambda: len(dead_of(road, "dead-1")) == 1, 15)
    (letter,) = dead_of(road, "dead-1")
    assert letter["stream"] == "web"
    assert "event" in letter["field"]
    assert "expected" in letter["reason"]
    done = road.command("dead", "show", letter["origin"], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["body"] == body.decode()
    assert '"n": 1.50' in road.command("dead", "show", "dead-1").stdout
    assert road.command("dead", "show", "nobody").returncode == 1


def test_corrected_retry_of_a_refused_event_passes(road: Running) -> None:
    assert road.post("/events", {"type": "track", "messageId": "mended"})[0] == 400
    assert road.post("/events", {"type": "track", "event": "Mended", "messageId": "mended"})[0] == 200
    (row,) = rows_of(road, "message_id = 'mended'")
    assert row["event"] == "Mended"


def test_refused_event_teaches_no_column(road: Running) -> None:
    assert road.post("/events", {"type": "track", "messageId": "untaught", "rubbish": 1})[0] == 400
    wait_for(lambda: len(dead_of(road, "untaught")) == 1, 15)
    taught = {"event": "Taught", "messageId": "taught", "properties": {"rubbish": 2}}
    assert road.post("/events", taught)[0] == 200
    (row,) = rows_of(road, "message_id = 'taught'")
    assert {name: value for name, value in row.items() if "rubbish" in name} == {"rubbish": 2}


# ---- keys


@pytest.mark.parametrize(
    ("key", "origin", "status"),
    [
        (WEB_KEY, None, 200),
        (WEB_KEY, "https://anything.example", 200),
        (SERVER_KEY, None, 200),
        (SERVER_KEY, "https://anything.example", 403),
        (SHOP_KEY, None, 200),
        (SHOP_KEY, "https://shop.example.com", 200),
        (SHOP_KEY, "https://www.shop.example.com", 200),
        (SHOP_KEY, "http://shop.example.com", 403),
        (SHOP_KEY, "https://evilshop.example.com", 403),
        (SHOP_KEY, "null", 403),
        (STRICT_KEY, None, 403),
        (STRICT_KEY, "https://shop.example.com", 200),
        ("wk_nobody_0123456789", None, 401),
        (None, None, 401),
    ],
)
def test_key_decides_who_may_send_from_where(
    road: Running, key: str | None, origin: str | None, status: int
) -> None:
    headers = JSON | ({"X-Write-Key": key} if key else {}) | ({"Origin": origin} if origin else {})
    answer = road.ask("POST", "/events", {"event": "Keyed"}, headers)
    assert answer.status == status, answer
    if status != 200:
        assert answer.json["ok"] is False
        assert answer.json["reason"]
        assert key is None or key not in answer.body.decode()
    elif origin:
        assert answer.headers["access-control-allow-origin"] in ("*", origin)


def test_key_may_come_in_five_ways(road: Running) -> None:
    event = {"event": "Five ways"}
    ways: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        ("/events", basic(WEB_KEY), event),
        ("/events", {"Authorization": f"Bearer {WEB_KEY}"}, event),
        ("/events", {"X-Write-Key": WEB_KEY}, event),
        ("/events", {}, event | {"writeKey": WEB_KEY}),
        (f"/events?key={WEB_KEY}", {}, event),
        ("/v1/batch", {}, {"writeKey": WEB_KEY, "batch": [event | {"type": "track"}]}),
    ]
    for path, headers, body in ways:
        answer = road.ask("POST", path, body, headers | JSON)
        assert answer.status == 200, (path, headers, answer)
    rows = rows_of(road, "event = 'Five ways'", len(ways))
    assert len(rows) == len(ways)
    assert WEB_KEY not in json.dumps(rows)


def test_preflight_names_what_is_allowed(road: Running) -> None:
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,authorization",
    }
    answer = road.ask("OPTIONS", "/v1/t", None, asked | {"Origin": "https://shop.example.com"})
    assert answer.status in (200, 204)
    assert answer.headers["access-control-allow-origin"] in ("*", "https://shop.example.com")
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert int(answer.headers["access-control-max-age"]) > 60


# ---- the door


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nothing", None, {}, 404),
        ("POST", "/v1/nothing", b"{}", {}, 404),
        ("GET", "/events", None, {}, 405),
        ("DELETE", "/v1/track", None, {}, 405),
        ("POST", "/pixel.gif", b"{}", {}, 405),
        ("POST", "/events", b'{"event": "' + b"x" * 66_000 + b'"}', {}, 413),
        (
            "POST",
            "/events",
            gzip.compress(b'{"event": "' + b"x" * 4_000_000 + b'"}'),
            {"Content-Encoding": "gzip"},
            413,
        ),
        ("POST", "/events", b"{}", {"Content-Encoding": "br"}, 415),
        ("POST", "/events", b"{}", {"X-Long": "x" * 20_000}, 431),
        ("POST", "/events", b"{", {}, 400),
        ("POST", "/events", b"", {}, 400),
        ("POST", "/events", b"[]", {}, 400),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str | int) else "",
)
def test_refusal_says_what_was_wrong(
    road: Running, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    answer = road.ask(method, path, body, {"X-Write-Key": WEB_KEY} | headers)
    assert answer.status == status, answer
    assert answer.json["ok"] is False
    assert answer.json["error"]
    assert answer.json["reason"]
    if status == 405:
        assert answer.headers["allow"]


def test_quota_is_429_with_retry_after(road: Running) -> None:
    answers = [road.ask("POST", "/events", {"event": "Much"}, {"X-Write-Key": SLOW_KEY}) for _ in range(8)]
    refused = [a for a in answers if a.status != 200]
    assert answers[0].status == 200
    assert refused
    assert all(a.status == 429 and 1 <= int(a.headers["retry-after"]) < 60 for a in refused), refused
    assert road.post("/events", {"event": "Other key"})[0] == 200


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", None)],
    ids=["gzip", "deflate", "zstd"],
)
def test_compressed_body_is_the_same_event(
    road: Running, encoding: str, pack: Callable[[bytes], bytes] | None
) -> None:
    if pack is None:
        import zstandard

        pack = zstandard.ZstdCompressor().compress
    body = json.dumps(
        {"event": "Packed", "messageId": f"packed-{encoding}", "properties": {"text": "ü" * 500}}
    )
    headers = {"X-Write-Key": WEB_KEY, "Content-Encoding": encoding} | JSON
    assert road.ask("POST", "/events", pack(body.encode()), headers).status == 200
    (row,) = rows_of(road, f"message_id = 'packed-{encoding}'")
    assert row["text"] == "ü" * 500


def test_lines_are_events_and_the_last_needs_no_end(road: Running) -> None:
    lines = [json.dumps({"event": "Line", "messageId": f"line-{n}"}) for n in range(3)]
    body = "\n".join([lines[0], "{broken", lines[1], "", lines[2]]).encode()
    answer = road.ask(
        "POST", "/events", body, {"X-Write-Key": WEB_KEY, "Content-Type": "application/x-ndjson"}
    )
    assert (answer.status, answer.json["accepted"]) == (200, 3)
    assert [r["index"] for r in answer.json["refused"]] == [1]
    assert [r["message_id"] for r in rows_of(road, "message_id like 'line-%'", 3)] == [
        "line-0",
        "line-1",
        "line-2",
    ]


def test_array_is_several_events(road: Running) -> None:
    events = [{"event": "Item", "messageId": f"item-{n}", "properties": {"nth": n}} for n in range(5)]
    answer = road.ask("POST", "/events", events, {"X-Write-Key": WEB_KEY} | JSON)
    assert (answer.status, answer.json["accepted"]) == (200, 5)
    assert [r["nth"] for r in rows_of(road, "message_id like 'item-%'", 5)] == [0, 1, 2, 3, 4]


def test_pixel_is_an_image_and_an_event(road: Running) -> None:
    query = f"key={WEB_KEY}&event=Opened&messageId=pixel-1&anonymousId=a-pixel&properties.price=9.5"
    query += "&properties.mail=May%20news"
    answer = road.ask(
        "GET", f"/pixel.gif?{query}", headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}
    )
    assert (answer.status, answer.headers["content-type"], answer.body[:6]) == (200, "image/gif", b"GIF89a")
    assert "no-store" in answer.headers["cache-control"]
    (row,) = rows_of(road, "message_id = 'pixel-1'")
    assert (row["event"], row["type"], row["anonymous_id"]) == ("Opened", "track", "a-pixel")
    assert (row["price"], row["mail"]) == (9.5, "May news")
    assert WEB_KEY not in json.dumps(row)


def test_tag_is_served_with_an_etag(road: Running) -> None:
    first = road.ask("GET", "/headwater.js")
    assert (first.status, first.headers["content-type"].split(";")[0]) == (200, "text/javascript")
    again = road.ask("GET", "/headwater.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_small_pages_answer_get_and_head(road: Running) -> None:
    for path in ("/ping", "/robots.txt"):
        got, head = road.ask("GET", path), road.ask("HEAD", path)
        assert (got.status, head.status, head.body) == (200, 200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    assert b"Disallow: /" in road.ask("GET", "/robots.txt").body


# ---- the node itself


def test_operations_answer_health_readiness_and_metrics(road: Running) -> None:
    for path in ("/health", "/ready"):
        assert road.ask("GET", path, port=road.ops).status == 200
    metrics = road.ask("GET", "/metrics", port=road.ops)
    assert metrics.status == 200
    assert b"# TYPE headwater_" in metrics.body
    status = road.command("status", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)
    assert WEB_KEY not in metrics.body.decode() + status.stdout + road.log()


def test_ctrl_c_drains_and_a_second_start_goes_on(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    first = [{"type": "track", "event": "Before", "messageId": f"b-{n}"} for n in range(50)]
    receipt = node.post("/v1/batch", {"batch": first})[1]["receipt"]
    assert node.stop() == 0, node.log()
    assert node.command("where", receipt).returncode == 3
    node.start()
    second = [{"type": "track", "event": "After", "messageId": f"a-{n}"} for n in range(50)]
    assert node.post("/v1/batch", {"batch": [*second, first[0]]})[0] == 200
    (told,) = [s for s in node.wait_settled() if s["stream"] == "web"]
    assert (told["accepted"], told["delivered"], told["duplicate"], told["holds"]) == (101, 100, 1, True)
    ids = unique(r["message_id"] for r in node.sql("select message_id from events"))
    assert ids == {e["messageId"] for e in first + second}
    assert node.command("where", receipt).returncode == 0


def test_sigterm_ends_in_order_too(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    pids = node.pids()
    node.signal(signal.SIGTERM)
    assert node.process is not None
    assert node.process.wait(30) == 0, node.log()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_second_node_in_the_same_folder_is_refused(road: Running) -> None:
    done = road.command("run", "--config", str(road.config))
    assert done.returncode == 2, done
    assert "in use" in done.stderr
    assert road.post("/events", {"event": "Still here"})[0] == 200


def test_first_start_makes_configuration_folder_and_key(tmp_path: Path) -> None:
    process = subprocess.Popen(
        default_start(tmp_path), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "/demo" in line:
                break
        assert re.search(r"http://127\.0\.0\.1:\d+/demo", said), said
        assert "curl" in said
        (key_file,) = (tmp_path / "headwater-data" / "keys").iterdir()
        secret = key_file.read_text().strip()
        assert secret in said
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert secret not in (tmp_path / "headwater.yaml").read_text()
        command = next(line for line in said.splitlines() if "curl" in line)
        done = subprocess.run(
            ["sh", "-c", command[command.index("curl") :]],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert '"ok":true' in done.stdout.replace(" ", ""), (command, done)
        sql = [sys.executable, "-m", "headwater", "sql", "--json", "select count(*) as n from events"]

        def there() -> bool:
            done = subprocess.run(sql, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
            return done.returncode == 0 and json.loads(done.stdout)[0]["n"] == 1

        wait_for(there, 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert secret not in process.stdout.read()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_question_before_the_first_event_has_an_answer(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    wait_for(lambda: node.command("sql", "select 1").returncode == 0, 15, node.log)
    assert node.sql("select event, count(*) from events group by 1") == []
    assert node.reconcile() == []
    assert json.loads(node.command("dead", "list", "--json").stdout) == []


# ---- exit codes


def test_exit_codes_tell_fine_no_wrong_usage_and_no_answer(road: Running, tmp_path: Path) -> None:
    def code(*words: str, data: Path = road.data) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "headwater", *words, *([] if words[0] in ("version",) else ["--data", str(data)])],
            capture_output=True, text=True, timeout=60, check=False, env=road.environment, cwd=tmp_path,
        )  # fmt: skip
        if done.returncode:
            assert done.stderr.strip() or done.stdout.strip(), (words, done)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    assert code("version") == 0
    assert code("status") == 0
    assert code("check", "--config", str(road.config)) == 0
    assert code("where", NEVER_THERE) == 1
    assert code("frobnicate") == 2
    assert code("sql") == 2
    (tmp_path / "wrong.yaml").write_text("colect: {workers: 1}\n")
    assert code("run", "--config", str(tmp_path / "wrong.yaml"), data=tmp_path / "other") == 2
    for words in (("status",), ("sql", "select 1"), ("reconcile",), ("where", NEVER_THERE), ("dead", "list")):
        assert code(*words, data=tmp_path / "nowhere") == 3, words
    assert not (tmp_path / "nowhere").exists()
    assert os.listdir(tmp_path)
