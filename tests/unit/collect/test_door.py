"""What the door answers, and what it appends: the surface that is fixed."""

import base64
import gzip
from typing import Any

import msgspec
import pytest
import zstandard

from headwater.collect.settings import KeySettings
from headwater.config.control import HELD_TOO_FEW, NOT_HELD, Held
from headwater.event.position import Receipt
from headwater.event.record import ADDRESS_NONE, DEAD, SINGLE
from headwater.event.record import MEMORY as MEMORY_FLAG
from headwater.event.slots import NO_SLOT, slot_of
from headwater.kit.errors import Busy, Unavailable
from tests.unit.collect.harness import BROWSER, MEMORY, SECOND, SERVER, Bench, get, post

PAGE = "Origin: https://shop.example.com"


def body(**event: Any) -> bytes:
    return msgspec.json.encode(event)


def batch(*events: Any, **more: Any) -> bytes:
    return msgspec.json.encode({"batch": list(events), **more})


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- acknowledged


@pytest.mark.parametrize("path", ["track", "page", "screen", "identify", "group", "alias", *"tpsiga"])
def test_segment_path_takes_its_event(bench: Bench, path: str) -> None:
    answer = bench.ask(post(f"/v1/{path}", body(event="x", anonymousId="a1")))
    receipt = answer.json["receipt"]
    assert answer.status == 200
    assert answer.json == {"ok": True, "success": True, "accepted": 1, "ack": "disk", "receipt": receipt}
    assert str(Receipt.parse(receipt)) == receipt
    (record,) = bench.log.records
    assert (record.stream, record.events, record.refused) == ("web", 1, ())
    assert record.flags == SINGLE and record.slot == slot_of("a1")
    assert record.head.path == f"/v1/{path}" and record.head.dialect == "segment"


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/b", "/v1/import", "/v1/batch/"])
def test_batch_is_one_record(bench: Bench, path: str) -> None:
    sent = batch(*[{"type": "track", "event": str(n)} for n in range(100)], sentAt="2026-01-01T00:00:00Z")
    answer = bench.ask(post(path, sent))
    assert (answer.status, answer.json["accepted"], answer.json["receipt"][-4:]) == (200, 100, "-100")
    (record,) = bench.log.records
    assert (record.events, record.body, record.flags, record.slot) == (100, sent, 0, NO_SLOT)


def test_receipt_covers_the_request(bench: Bench) -> None:
    numbers = [int(bench.ask(post()).json["receipt"].split("-")[2]) for _ in range(12)]
    assert numbers == list(range(1, 13))  # over the edge from one digit to two


def test_native_answer_says_no_success(bench: Bench) -> None:
    answer = bench.ask(post("/events", b'{"event":"x"}\n{"event":"y"}'))
    assert answer.json["accepted"] == 2 and "success" not in answer.json


def test_body_is_stored_as_received_but_on_one_line(bench: Bench) -> None:
    bench.ask(post("/v1/track", b'{\r\n "event": "x\\n" }'))
    assert bench.log.records[0].body == b'{   "event": "x\\n" }'


def test_memory_answers_before_the_disk(bench: Bench) -> None:
    client = bench.client()
    client.send(post(key=MEMORY))
    (answer,) = client.answers()
    assert answer.json["ack"] == "memory" and bench.log.records[0].flags == SINGLE | MEMORY_FLAG


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_memory_waits_too_while_the_disk_is_far_behind(bench: Bench, path: str) -> None:
    bench.log.pending_bytes = bench.log.pending_bytes_half + 1
    client = bench.client()
    some = b'{"batch":[{"type":"track","event":"x"},7]}' if path == "/v1/batch" else body(event="x")
    client.send(post(path, some, key=MEMORY))
    assert not client.answers()
    bench.log.commit()
    assert client.answers()[0].status == 200


def test_disk_answers_after_the_commit_only(bench: Bench) -> None:
    client = bench.client()
    client.send(post())
    assert not client.answers()
    bench.log.commit()
    assert client.answers()[0].status == 200


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("zstd", zstandard.compress)]
)
def test_encoded_body_is_stored_decoded(bench: Bench, encoding: str, encode: Any) -> None:
    plain = body(event="x")
    assert bench.ask(post("/v1/track", encode(plain), f"Content-Encoding: {encoding}")).status == 200
    assert bench.log.records[0].body == plain


def test_received_is_node_time(bench: Bench) -> None:
    bench.door.offset_ns = 7
    bench.ask(post())
    assert bench.log.records[0].received_ns == bench.now + 7


# -- the pixel


def test_pixel_takes_its_query_as_body_without_the_key(bench: Bench) -> None:
    answer = bench.ask(get(f"/pixel.gif?event=Opened&key={BROWSER}&properties.price=9.5"))
    assert (answer.status, answer.headers["content-type"], answer.body[:6]) == (200, "image/gif", b"GIF89a")
    Receipt.parse(answer.headers["x-headwater-receipt"])
    (record,) = bench.log.records
    assert record.body == b"event=Opened&properties.price=9.5"
    assert (record.head.dialect, record.head.query, record.flags) == ("pixel", "", 0)


def test_pixels_of_one_key_share_a_head(bench: Bench) -> None:
    for number in range(3):
        bench.ask(get(f"/pixel.gif?event=Opened&anonymousId={number}&key={BROWSER}"))
    assert len({msgspec.json.encode(record.head) for record in bench.log.records}) == 1


def test_head_of_the_pixel_is_no_event(bench: Bench) -> None:
    answer = bench.ask(get(f"/pixel.gif?event=Opened&key={BROWSER}", method="HEAD"))
    assert (answer.status, answer.body, bench.log.records) == (200, b"", [])


def test_pixel_without_event_is_refused_with_a_reason(bench: Bench) -> None:
    answer = bench.ask(get(f"/pixel.gif?key={BROWSER}&anonymousId=1"))
    assert answer.status == 400 and answer.json["field"] == "event"
    assert bench.log.records[0].flags & DEAD


# -- keys


@pytest.mark.parametrize(
    "line",
    [
        f"X-Write-Key: {BROWSER}",
        f"Authorization: Bearer {BROWSER}",
        f"authorization: bearer {BROWSER}",
        "Authorization: Basic " + base64.b64encode(f"{BROWSER}:".encode()).decode(),
        "Authorization: Basic " + base64.b64encode(f"{BROWSER}:ignored".encode()).decode(),
        "Authorization: basic " + base64.b64encode(BROWSER.encode()).decode(),
    ],
)
def test_key_in_a_header(bench: Bench, line: str) -> None:
    assert bench.ask(post("/v1/track", body(event="x"), line, key="")).status == 200


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        (f"/v1/track?key={BROWSER}", body(event="x")),
        (f"/v1/track?a=b&writeKey={BROWSER}", body(event="x")),
        ("/v1/track", body(event="x", writeKey=BROWSER)),
        ("/v1/batch", batch({"type": "page"}, writeKey=BROWSER)),
        ("/v1/batch", batch({"type": "page", "writeKey": BROWSER})),
        ("/v1/batch", batch({"type": "page"}, {"type": 5}, writeKey=BROWSER)),
        ("/events", b'{"event":"x","writeKey":"%s"}\n{"event":"y"}' % BROWSER.encode()),
        ("/events", b'[{"event":"x","writeKey":"%s"}]' % BROWSER.encode()),
    ],
)
def test_key_in_query_or_body(bench: Bench, path: str, sent: bytes) -> None:
    assert bench.ask(post(path, sent, key="")).status == 200
    assert bench.log.records[0].stream == "web"


def test_key_in_the_query_is_not_stored(bench: Bench) -> None:
    bench.ask(post(f"/v1/track?a=b&key={BROWSER}&c=d", body(event="x"), key=""))
    assert bench.log.records[0].head.query == "a=b&c=d"
    assert BROWSER not in repr(bench.log.records)


@pytest.mark.parametrize(
    ("lines", "sent", "code"),
    [
        (["X-Write-Key: wrong-secret"], body(event="x"), "unknown_key"),
        (["X-Write-Key: wrong-secret"], body(event="x", writeKey=BROWSER), "unknown_key"),
        (["Authorization: Digest abc"], body(event="x"), "unknown_key"),
        (["Authorization: Basic !!!"], body(event="x"), "unknown_key"),
        ([], body(event="x"), "no_key"),
        ([], body(event="x", writeKey="wrong-secret"), "unknown_key"),
    ],
)
def test_request_without_a_valid_key_is_401_and_not_stored(
    bench: Bench, lines: list[str], sent: bytes, code: str
) -> None:
    answer = bench.ask(post("/v1/track", sent, *lines, key=""))
    assert (answer.status, answer.json["error"], bench.log.records) == (401, code, [])
    assert "wrong-secret" not in answer.body.decode()


def test_malformed_body_without_key_is_400_and_not_stored(bench: Bench) -> None:
    answer = bench.ask(post("/v1/track", b"{nonsense", key=""))
    assert (answer.status, bench.log.records) == (400, [])


def test_rotated_and_removed_keys_take_effect_with_the_next_request() -> None:
    bench = Bench([KeySettings(id="a", secret=["old-secret", "new-secret"])])
    client = bench.client()
    client.send(post(key="old-secret"))
    bench.log.commit()
    bench.door.use(bench.table([KeySettings(id="a", secret="new-secret")]))
    for secret in ("old-secret", "new-secret"):
        client.send(post(key=secret))
        bench.log.commit()
    assert [answer.status for answer in client.answers()] == [200, 401, 200]


# -- origins


def test_server_key_with_an_origin_is_refused(bench: Bench) -> None:
    for request in (post("/v1/track", body(event="x"), PAGE, key=SERVER),
                    post("/v1/track", body(event="x", writeKey=SERVER), PAGE, key="")):  # fmt: skip
        answer = bench.ask(request)
        assert (answer.status, answer.json["error"]) == (403, "server_key_in_browser")
        assert "access-control-allow-origin" not in answer.headers
    assert not bench.log.records


def test_browser_key_from_a_foreign_page_is_refused(bench: Bench) -> None:
    answer = bench.ask(post("/v1/track", body(event="x"), "Origin: https://evil.org", key="shop-secret"))
    assert (answer.status, answer.json["error"], answer.headers["vary"]) == (
        403,
        "origin_not_allowed",
        "Origin",
    )
    assert "access-control-allow-origin" not in answer.headers and not bench.log.records


def test_allowed_page_may_read_the_answer(bench: Bench) -> None:
    headers = bench.ask(post("/v1/track", body(event="x"), PAGE, key="shop-secret")).headers
    assert headers["access-control-allow-origin"] == "https://shop.example.com"
    assert headers["access-control-allow-credentials"] == "true" and headers["vary"] == "Origin"
    headers = bench.ask(post("/v1/track", body(event="x"), PAGE)).headers
    assert headers["access-control-allow-origin"] == "*" and "access-control-allow-credentials" not in headers


def test_allowed_page_may_read_refusals_too(bench: Bench) -> None:
    refused = bench.ask(post("/v1/track", b"{}", PAGE, key="shop-secret"))
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (
        400,
        "https://shop.example.com",
    )
    bench.log.busy = Busy("the disk is behind")
    busy = bench.ask(post("/v1/track", b"{}", PAGE, key="shop-secret"))
    assert (busy.status, busy.headers["access-control-allow-origin"]) == (503, "*")


def test_browser_key_without_origin_is_accepted_unless_required() -> None:
    bench = Bench([
        KeySettings(id="a", secret="some-secret", origins=["*"]),
        KeySettings(id="b", secret="other-secret", origins=["*"], require_origin=True),
    ])  # fmt: skip
    assert bench.ask(post(key="some-secret")).status == 200
    assert bench.ask(post(key="other-secret")).json["error"] == "origin_required"
    assert bench.ask(post("/v1/track", body(event="x"), PAGE, key="other-secret")).status == 200


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        ("/v1/batch", "https://shop.example.com", 204),
        ("/v1/batch?key=shop-secret", "https://shop.example.com", 204),
        ("/v1/batch?key=shop-secret", "https://evil.org", 403),
        (f"/v1/batch?key={SERVER}", "https://shop.example.com", 403),
        ("/v1/batch?key=wrong-secret", "https://shop.example.com", 401),
        ("/headwater.js", "https://anything.example", 204),
    ],
)
def test_preflight(bench: Bench, path: str, origin: str, status: int) -> None:
    request = get(path, f"Origin: {origin}", "Access-Control-Request-Method: POST", method="OPTIONS")
    answer = bench.ask(request)
    assert answer.status == status and "Origin" in answer.headers["vary"]
    if status == 204:
        assert answer.headers["access-control-max-age"] == "7200"
        assert "Content-Type" in answer.headers["access-control-allow-headers"]
    else:
        assert "access-control-allow-origin" not in answer.headers


def test_preflight_without_any_key_for_the_page_is_refused() -> None:
    bench = Bench([KeySettings(id="shop", secret="shop-secret", origins=["https://shop.example.com"])])
    request = get(
        "/v1/t", "Origin: https://evil.org", "Access-Control-Request-Method: POST", method="OPTIONS"
    )
    assert bench.ask(request).status == 403


# -- refused


def test_bad_events_of_a_batch_are_refused_alone(bench: Bench) -> None:
    sent = batch(
        {"type": "page"},
        {"type": "track"},
        {"type": "nope"},
        5,
        {"type": "page", "userId": {}},
        {"type": "page"},
    )
    answer = bench.ask(post("/v1/batch", sent))
    assert (answer.status, answer.json["accepted"]) == (200, 2)
    assert [(one["index"], one["field"]) for one in answer.json["refused"]] == [
        (1, "event"), (2, "type"), (3, ""), (4, "userId")
    ]  # fmt: skip
    assert all(one["reason"].startswith("expected") for one in answer.json["refused"])
    (record,) = bench.log.records
    assert (record.events, record.refused, record.body, record.flags) == (6, (1, 2, 3, 4), sent, 0)


def test_wholly_refused_batch_is_a_dead_record(bench: Bench) -> None:
    client = bench.client()
    client.send(post("/v1/batch", batch({"type": "track"}, {"type": "track"})))
    (answer,) = client.answers()  # without waiting for the disk
    assert (answer.status, answer.json["ok"], len(answer.json["refused"])) == (400, False, 2)
    (record,) = bench.log.records
    assert (record.events, record.flags, record.stream) == (2, DEAD, "web")
    assert record.head.refusal.endswith("|event")


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        (b'"text"', ""),
        (b"{}", "event"),
        (b'{"event":""}', "event"),
        (b'{"event":5}', "event"),
        (b'{"event":"x","type":"nope"}', "type"),
        (b'{"event":"x","userId":[]}', "userId"),
        (b'{"event":"x","anonymousId":{}}', "anonymousId"),
        (b'{"event":"x","messageId":true}', "messageId"),
        (b'{"event":"x","groupId":"%s"}' % (b"x" * 513), "groupId"),
        (b'{"event":"\xff"}', ""),
        (b'{"event":"x","skipped":"\xff"}', ""),
        (b'{"event":"x","deep":' + b"[" * 100_000, ""),
        (b'{"event":"x","deep":' + b"[" * 50_000 + b"]" * 50_000 + b"}", ""),
        (b'{"event":"x","big":"' + b"x" * 300_000 + b'"}', ""),
    ],
)
def test_bad_single_event_says_why_and_where(bench: Bench, sent: bytes, field: str) -> None:
    answer = bench.ask(post("/v1/track", sent))
    assert answer.status == 400
    assert (answer.json["ok"], answer.json["error"]) == (False, "bad_events")
    (refused,) = answer.json["refused"]
    assert (refused["index"], refused["field"]) == (0, field) and "expected" in refused["reason"]
    (record,) = bench.log.records
    assert (record.flags, record.events, record.body) == (DEAD, 1, sent)


@pytest.mark.parametrize(
    "sent", [b'{"event":"x"}', b'{"event":"x","timestamp":"yesterday"}', b'{"event":"x","userId":7}']
)
def test_missing_ids_and_odd_times_are_not_refused(bench: Bench, sent: bytes) -> None:
    assert bench.ask(post("/v1/track", sent)).status == 200


def test_batch_without_or_with_too_many_events_is_refused() -> None:
    bench = Bench(batch_events_max=3)
    assert bench.ask(post("/v1/batch", b'{"batch":[]}')).status == 400
    assert bench.ask(post("/v1/batch", batch(*[{"type": "page"}] * 4))).status == 400
    assert bench.ask(post("/v1/batch", batch(*[{"type": "page"}] * 3))).status == 200


def test_bad_encoding_is_refused_and_its_kind_named(bench: Bench) -> None:
    assert bench.ask(post("/v1/track", b"x", "Content-Encoding: br")).status == 415
    assert bench.ask(post("/v1/track", b"x", "Content-Encoding: gzip")).json["error"] == "encoding"
    bomb = gzip.compress(bytes(10_000_000))
    assert bench.ask(post("/v1/track", bomb, "Content-Encoding: gzip")).status == 413


# -- no room


def test_full_log_is_503_with_retry_after_and_nothing_is_accepted(bench: Bench) -> None:
    bench.log.busy = Busy("no room in the log", retry_after_s=5, code="log_full")
    answer = bench.ask(post())
    assert (answer.status, answer.headers["retry-after"], answer.json["error"]) == (503, "5", "log_full")
    assert not bench.log.records
    bench.log.busy = None
    assert bench.ask(post()).status == 200


def test_disk_that_fails_is_503_for_who_waits(bench: Bench) -> None:
    client = bench.client()
    client.send(post("/v1/track", body(event="x"), PAGE))
    bench.log.commit(Unavailable("the disk failed", code="log_failed"))
    (answer,) = client.answers()
    assert (answer.status, answer.json["error"]) == (503, "log_failed")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_quota_is_429_with_retry_after_and_comes_back() -> None:
    bench = Bench([KeySettings(id="a", secret="some-secret", events_per_s_max=10, burst_events=2)])
    assert [bench.ask(post(key="some-secret")).status for _ in range(3)] == [200, 200, 429]
    refused = bench.ask(post(key="some-secret"))
    assert (refused.json["error"], refused.headers["retry-after"]) == ("quota", "1")
    bench.now += SECOND
    assert bench.ask(post(key="some-secret")).status == 200
    assert len(bench.log.records) == 3


# -- privacy and addresses


def test_head_keeps_what_later_stages_read_and_nothing_else(bench: Bench) -> None:
    bench.ask(post("/v1/track?x=1", body(event="x"), "User-Agent: Chrome", "Referer: https://r.example/", "Cookie: c=1",
                   "Accept-Language: de", "DNT: 1", 'Sec-CH-UA: "C"', PAGE, "Content-Type: text/plain"))  # fmt: skip
    head = bench.log.records[0].head
    assert head.headers == {
        "user-agent": "Chrome",
        "referer": "https://r.example/",
        "accept-language": "de",
        "dnt": "1",
        "sec-ch-ua": '"C"',
        "origin": "https://shop.example.com",
    }
    assert (head.key_id, head.method, head.path, head.query) == ("web", "POST", "/v1/track", "x=1")
    assert (head.content_type, head.https) == ("text/plain", False)


@pytest.mark.parametrize(("policy", "last"), [("full", 7), ("truncated", 0), ("none", 0)])
def test_address_policy(policy: Any, last: int) -> None:
    bench = Bench(client_address=policy)
    bench.ask(post(), peer="203.0.113.7")
    record = bench.log.records[0]
    assert record.address[-1] == last
    assert bool(record.flags & ADDRESS_NONE) == (policy == "none")


def test_key_may_have_an_address_policy_of_its_own() -> None:
    bench = Bench([KeySettings(id="a", secret="some-secret", client_address="none")])
    bench.ask(post(key="some-secret"))
    assert bench.log.records[0].flags & ADDRESS_NONE


def test_trusted_proxy_tells_client_and_https() -> None:
    bench = Bench(trusted_proxies=["203.0.113.0/24"])
    told = post(
        "/v1/track", body(event="x"), "X-Forwarded-For: 9.9.9.9, 198.51.100.1", "X-Forwarded-Proto: https"
    )
    bench.ask(told, peer="203.0.113.7")
    bench.ask(told, peer="192.0.2.1")
    by_proxy, by_other = bench.log.records
    assert (by_proxy.address[-4:], by_proxy.head.https) == (bytes([198, 51, 100, 1]), True)
    assert (by_other.address[-4:], by_other.head.https) == (bytes([192, 0, 2, 1]), False)


@pytest.mark.parametrize("wish", ["DNT: 1", "Sec-GPC: 1"])
def test_wish_for_privacy_is_followed_by_policy(wish: str) -> None:
    bench = Bench([KeySettings(id=policy, secret=f"{policy}-secret", privacy=policy)
                   for policy in ("ignore", "anonymise", "drop")])  # fmt: skip
    for policy in ("ignore", "anonymise", "drop"):
        answer = bench.ask(post("/v1/track", body(event="x"), wish, key=f"{policy}-secret"))
        assert (answer.status, answer.json["accepted"]) == (200, 0 if policy == "drop" else 1)
    ignored, anonymised = bench.log.records
    assert not ignored.flags & ADDRESS_NONE and anonymised.flags & ADDRESS_NONE
    bench.ask(post("/v1/track", body(event="x"), "DNT: 0", key="drop-secret"))
    assert len(bench.log.records) == 3


# -- everything else


def test_settings_for_segments_browser_sdk(bench: Bench) -> None:
    answer = bench.ask(get(f"/v1/projects/{BROWSER}/settings", PAGE))
    segment = answer.json["integrations"]["Segment.io"]
    assert (segment["apiKey"], segment["apiHost"]) == (BROWSER, "collect.example.com/v1")
    assert segment["protocol"] == "http" and answer.headers["access-control-allow-origin"] == "*"
    proxied = Bench(trusted_proxies=["203.0.113.7"]).ask(
        get(f"/v1/projects/{BROWSER}/settings", "X-Forwarded-Proto: https")
    )
    assert proxied.json["integrations"]["Segment.io"]["protocol"] == "https"
    assert bench.ask(get("/v1/projects/wrong-secret/settings")).status == 401
    assert bench.ask(get(f"/v1/projects/{SERVER}/settings", PAGE)).status == 403


def test_metrics_of_segments_browser_sdk_are_dropped(bench: Bench) -> None:
    assert bench.ask(post("/v1/m", b'{"series":[]}', PAGE, key="")).status == 200
    assert not bench.log.records


def test_tag_is_packed_for_who_takes_gzip(bench: Bench) -> None:
    plain = bench.ask(get("/headwater.js"))
    packed = bench.ask(get("/headwater.js", "Accept-Encoding: deflate, GZIP;q=0.5, br"))
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    for one, more in ((plain, ()), (packed, ("Accept-Encoding: gzip",))):
        again = bench.ask(get("/headwater.js", f"If-None-Match: {one.headers['etag']}", *more))
        assert (again.status, again.headers["vary"]) == (304, "Accept-Encoding")
        other = packed if one is plain else plain
        assert bench.ask(get("/headwater.js", f"If-None-Match: {other.headers['etag']}", *more)).status == 200
    lasting = bench.ask(get(f"/headwater.{plain.headers['etag'].strip(chr(34))}.js", "Accept-Encoding: gzip"))
    assert lasting.body == packed.body
    head = bench.ask(get("/headwater.js", "Accept-Encoding: gzip", method="HEAD"))
    assert head.headers["content-length"] == str(len(packed.body))


@pytest.mark.parametrize("accepted", ["identity", "br", "gzip;q=0", "gzip; q=0.000, br", "", "*"])
def test_tag_is_plain_for_who_does_not_name_gzip(bench: Bench, accepted: str) -> None:
    answer = bench.ask(get("/headwater.js", f"Accept-Encoding: {accepted}"))
    assert (answer.status, "content-encoding" in answer.headers) == (200, False)


def test_accept_encoding_tells_no_other_heads_apart(bench: Bench) -> None:
    for accepted in ("gzip", "br", "gzip, br"):
        assert bench.ask(post("/v1/track", b'{"event":"x"}', f"Accept-Encoding: {accepted}")).status == 200
    assert len(bench.door.planner.plans) == 1


def test_tag_has_an_etag_and_a_lasting_name(bench: Bench) -> None:
    plain = bench.ask(get("/headwater.js"))
    etag = plain.headers["etag"]
    assert plain.status == 200 and "javascript" in plain.headers["content-type"]
    assert bench.ask(get("/headwater.js", f"If-None-Match: {etag}")).status == 304
    lasting = bench.ask(get(f"/headwater.{etag.strip(chr(34))}.js"))
    assert lasting.body == plain.body and "immutable" in lasting.headers["cache-control"]
    assert "immutable" not in plain.headers["cache-control"]
    assert bench.ask(get("/headwater.0123.js")).status == 404
    assert bench.ask(get("/headwater.mjs")).status == 200


def test_ping_says_when_the_node_drains(bench: Bench) -> None:
    assert bench.ask(get("/ping")).status == 200
    bench.door.leaving = True
    answer = bench.ask(get("/ping"))
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert bench.ask(post()).status == 200  # still served


def test_ready_fails_also_while_events_are_refused(bench: Bench) -> None:
    """A balancer that asks it goes elsewhere at once, and sees why; /ping stays, so connections may."""
    assert bench.ask(get("/ready")).json == {"ok": True}
    bench.door.hold(Held(HELD_TOO_FEW, 1, 2))
    answer = bench.ask(get("/ready"))
    assert (answer.status, answer.json["error"]) == (
        503,
        "not_enough_nodes",
    ) and "retry-after" in answer.headers
    assert bench.ask(get("/ping")).status == 200
    bench.door.hold(NOT_HELD)
    bench.log.busy = Busy("no room in the log", code="log_full")
    assert bench.ask(get("/ready")).json["error"] == "log_full"
    bench.log.busy = None
    bench.door.leaving = True
    assert bench.ask(get("/ready")).json["error"] == "draining"


def test_stopped_door_takes_nothing(bench: Bench) -> None:
    bench.door.stopped = True
    answer = bench.ask(post())
    assert (answer.status, answer.json["error"]) == (503, "draining") and not bench.log.records


def test_robots_are_kept_out(bench: Bench) -> None:
    assert bench.ask(get("/robots.txt")).body == b"User-agent: *\nDisallow: /\n"


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/v1/", "/v1/tracks", "/v1/projects//settings", "/ping/x", "*"]
)
def test_unknown_path_is_404_with_a_reason(bench: Bench, path: str) -> None:
    answer = bench.ask(get(path))
    assert (answer.status, answer.json["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/track"), ("PUT", "/events"), ("POST", "/ping"), ("DELETE", "/pixel.gif")],
)
def test_wrong_method_is_405_with_allow(bench: Bench, method: str, path: str) -> None:
    answer = bench.ask(get(path, method=method))
    assert answer.status == 405 and "OPTIONS" in answer.headers["allow"]


def test_head_is_get_without_a_body(bench: Bench) -> None:
    for path in ("/ping", "/robots.txt", "/headwater.js", "/nope"):
        with_body, without = bench.ask(get(path)), bench.ask(get(path, method="HEAD"))
        assert (without.status, without.headers, without.body) == (with_body.status, with_body.headers, b"")


def test_absolute_target_is_its_path(bench: Bench) -> None:
    assert bench.ask(get("http://collect.example.com/ping")).status == 200


def test_counters_tell_what_was_done(bench: Bench) -> None:
    bench.ask(post())
    bench.ask(post("/v1/track", b"{}"))
    bench.ask(get("/nope"))
    told = bench.door.stats.report()
    assert told["requests"] == {"segment": {"200": 1, "400": 1}, "unknown": {"404": 1}}
    assert (told["accepted_events"], told["refused_events"], told["refused"]) == (1, 1, {"event": 1})


@pytest.mark.parametrize("agent", ["ü", "é" * 200, "x" * 255, "x" * 256, "x" * 5000, "", "\u00ff\u00fe"])
def test_odd_user_agents_are_kept_in_a_known_shape(bench: Bench, agent: str) -> None:
    for number in range(4):
        bench.ask(post("/v1/track", body(event="x"), f"User-Agent: {number}", f"Referer: {number}"))
    request = post("/v1/track", body(event="x"), "User-Agent: @", "Referer: r").replace(b"@", agent.encode())
    bench.ask(request)
    assert bench.log.records[-1].head.headers == {"user-agent": agent[:2048], "referer": "r"}
    bench.ask(request.replace(agent.encode() or b"@", b"\xff\xfe"))
    assert [record.head.headers["user-agent"] for record in bench.log.records[:4]] == list("0123")
