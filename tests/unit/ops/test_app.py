import asyncio
import json
import shlex
import sys

import pytest

from headwater.config.control import ControlPage
from headwater.config.report import Report, replace
from headwater.config.running import NodeInfo
from headwater.event.position import Position, Vector, WriterId
from headwater.kit import ask
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Busy, Rejected
from headwater.log.block import Secret
from headwater.ops import app, demo
from headwater.ops.guard import Guard
from headwater.ops.look import Look, Parts
from headwater.ops.retried import Retried
from headwater.ops.settings import OpsSettings

WRITER = WriterId(0xAB0000)
RECEIPT = f"{WRITER:016x}-{5:016x}-1"
TOKEN = "t" * 20


class NoLetters:
    def __init__(self, path):
        self.retried = Retried(SystemDisk(), path)

    def list(self, limit, stream, reason):
        return [{"origin": "a-b-1", "stream": stream, "limit": limit}]

    def show(self, wanted):
        return {"origin": wanted} if wanted == "a-b-1" else None

    def find(self, message_ids, places, origins=()):
        return []

    def page(self, wanted, at):
        return [], None


class Node:
    """A data folder of a running node, without processes."""

    def __init__(self, path, *, clustered=False, admin_token="", **settings):
        self.path = str(path)
        for name in ("raw", "run/reports"):
            (path / name).mkdir(parents=True)
        self.clock, self.disk = SystemClock(), SystemDisk()
        self.control = ControlPage.create(f"{path}/run/control", offset_ns=0, start=1)
        self.control.set_alive_boot_ns(self.clock.boot_ns())
        info = NodeInfo(
            pid=1, start=1, version="0", folder_id="0", partitions=1, started_wall_ns=0,
            collector="http://127.0.0.1:8420", ops="http://127.0.0.1:8421", configuration="x",
        )  # fmt: skip
        self.settings = OpsSettings(**settings)
        parts = Parts(roles=["collect-0"], destinations=["w"], keys=[{"id": "web"}], demo_key="wk")
        look = Look(
            info,
            self.path,
            self.disk,
            self.clock,
            self.control,
            lambda: parts,
            NoLetters(self.path),
            Secret(1),
        )
        self.admin_token = admin_token
        self.application = app.make(look, self.settings, clustered=clustered)
        self.say("collect-0")

    def say(self, role, **detail):
        report = Report(role=role, pid=1, start=1, boot_ns=self.clock.boot_ns(), detail=detail)
        import msgspec

        replace(self.disk, f"{self.path}/run/reports/{role}.json", msgspec.json.encode(report))

    async def request(self, method, path, body=b"", *, trusted=False, host="127.0.0.1:8421", **headers):
        guard = Guard(
            self.application,
            ["ops.example"],
            self.settings.token,
            trusted=trusted,
            admin_token=self.admin_token,
        )
        return await call(guard, method, path, body, [("host", host), *headers.items()])

    async def get(self, path, **options):
        return await self.request("GET", path, **options)

    async def post(self, path, value, **options):
        headers = {"content-type": "application/json", **options}
        return await self.request("POST", path, json.dumps(value).encode(), **headers)


async def call(application, method, path, body, headers):
    """One request through ASGI: status, headers, body."""
    plain, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": plain, "raw_path": plain.encode(), "query_string": query.encode(),
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers], "http_version": "1.1",
        "scheme": "http", "client": None, "server": ("127.0.0.1", 8421), "root_path": "", "extensions": {},
    }  # fmt: skip
    sent, done = [], asyncio.Event()

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    done.set()
    text = b"".join(m.get("body", b"") for m in sent[1:])
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, text


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


async def test_ping_and_ready_fail_first_when_the_node_drains(node):
    assert (await node.get("/ping"))[0] == 200
    assert (await node.get("/ready"))[0] == 200
    node.control.set_draining()
    assert (await node.get("/ping"))[0] == 503
    status, _, text = await node.get("/ready")
    assert (status, json.loads(text)["reasons"]) == (503, ["draining: the node is about to stop"])
    assert (await node.get("/health"))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"])
async def test_a_request_for_another_name_is_refused(node, host):
    assert (await node.get("/api/status", host=host))[0] == 421
    assert (await node.get("/api/status", host=host, trusted=True))[0] == 200


@pytest.mark.parametrize("clustered", [False, True])
async def test_the_root_lists_every_path(tmp_path, clustered):
    node = Node(tmp_path, clustered=clustered)
    status, headers, text = await node.get("/")
    assert (status, headers["content-type"]) == (200, "text/plain; charset=utf-8")
    for path in (getattr(route, "path", "") for route in node.application.routes):
        if not path.startswith(("/demo/", "/_plugin/cluster/")) and path != "/":
            assert path.partition("/{")[0] in text.decode(), path


async def test_the_root_does_not_name_a_demo_that_is_not_served(tmp_path):
    assert b"/demo" not in (await Node(tmp_path, token=TOKEN).get("/", trusted=True))[2]


async def test_a_path_that_is_not_there_says_where_the_paths_are(node):
    status, _, text = await node.get("/nowhere")
    error = json.loads(text)["error"]
    assert (status, error["code"], error["help"]) == (404, "not_found", "GET / lists what is here")


async def test_status_lists_every_destination_whether_it_has_said_anything_or_not(node):
    (told,) = [json.loads((await node.get("/api/status"))[2])["destinations"]]
    assert told == {
        "w": {"state": "starting", "reason": None, "command": None, "catching_up": None, "written_off": False,
                  "rows_behind": None, "last_load": None,
              "last_load_age_s": None, "lag_s": None}
    }  # fmt: skip
    vector = Vector({WRITER: Position(5, 1)}).encode().hex()
    stand = {"vectors": {vector: [0]}, "lag": {"rows": 0, "age_s": 1.25}}
    gone = {"state": "delivering", **stand}
    loaded = node.clock.boot_ns() - 4 * 10**9
    node.say(
        "deliver-w", destinations={"w": {"state": "delivering", "loaded_ns": loaded, **stand}, "gone": gone}
    )
    told = json.loads((await node.get("/api/status"))[2])["destinations"]
    assert list(told) == ["w"]
    assert (told["w"]["rows_behind"], told["w"]["lag_s"]) == (0, 0.0)
    assert 4.0 <= told["w"]["last_load_age_s"] < 6
    assert told["w"]["last_load"].endswith("Z")


async def test_a_destination_that_was_taken_out_of_the_configuration_is_heard_no_more(node):
    stand = {"vectors": {}, "lag": {"rows": 9, "age_s": 99.0}}
    for name in ("w", "gone"):
        node.say(f"deliver-{name}", destinations={name: {"state": "paused", "reason": "away", **stand}})
    status = json.loads((await node.get("/api/status"))[2])
    assert "deliver-w" in status["roles"] and "deliver-gone" not in status["roles"]
    told = json.loads((await node.get(f"/api/where?receipt={WRITER:016x}-{5:016x}-1"))[2])
    assert list(told["destinations"]) == ["w"]
    for path in ("/metrics", "/health", "/ready"):
        text = (await node.get(path))[2].decode()
        assert "gone" not in text, path


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8421", "OPS.example:80"])
async def test_the_names_of_this_listener_are_let_in(node, host):
    assert (await node.get("/api/status", host=host))[0] == 200


async def test_a_token_is_asked_for_everywhere_but_where_load_balancers_look(tmp_path):
    node = Node(tmp_path, token=TOKEN)
    for path in ("/ping", "/health", "/ready"):
        assert (await node.get(path))[0] == 200
    for path in ("/metrics", "/api/status", "/demo", "/nowhere"):
        assert (await node.get(path))[0] == 401
        assert (await node.get(path, authorization="Bearer wrong"))[0] == 401
    assert (await node.get("/metrics", authorization=f"Bearer {TOKEN}"))[0] == 200
    assert (await node.get("/metrics", trusted=True))[0] == 200


async def test_pages_of_other_origins_get_nothing(node):
    query = {"query": "select 1"}
    assert (await node.post("/api/sql", query, origin="http://evil.example"))[0] == 403
    assert (await node.request("POST", "/api/sql", b"{}", **{"content-type": "text/plain"}))[0] == 415
    assert (await node.get("/api/status", **{"sec-fetch-site": "cross-site"}))[0] == 403
    status, headers, _ = await node.get("/api/status", origin="http://127.0.0.1:8421")
    assert status == 200
    assert "access-control-allow-origin" not in headers


async def test_every_answer_has_the_strict_headers(node):
    for path in ("/ping", "/api/status", "/nowhere"):
        _, headers, _ = await node.get(path)
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


async def test_sql_is_asked_of_the_process_that_holds_the_warehouse(node):
    async def answer(request):
        if "boom" in request["query"]:
            raise Rejected("no such table: boom", code="sql_error")
        if "slow" in request["query"]:
            raise Rejected("stopped after 30 s", code="sql_time")
        if "busy" in request["query"]:
            raise Busy("later", retry_after_s=7)
        assert request["rows_max"] == 5
        return {
            "columns": [{"name": "a", "type": "INTEGER"}],
            "rows": 1,
            "truncated": "",
            "ms": 1.0,
        }, b'[{"a":1}]'

    server = await ask.serve(f"{node.path}/run/deliver-w.sock", answer)
    status, _, text = await node.post("/api/sql", {"query": "select 1 as a", "limit": 5})
    assert (status, json.loads(text)["rows"]) == (200, [{"a": 1}])
    status, _, text = await node.post("/api/sql", {"query": "from boom"})
    assert (status, json.loads(text)["error"]["message"]) == (400, "no such table: boom")
    status, _, text = await node.post("/api/sql", {"query": "slow"})
    assert (status, "destinations.w.sql.time_max_s" in json.loads(text)["error"]["help"]) == (400, True)
    status, headers, _ = await node.post("/api/sql", {"query": "busy"})
    assert (status, headers["retry-after"]) == (503, "7")
    await server.close()
    assert (await node.post("/api/sql", {"query": "select 1"}))[0] == 503


@pytest.mark.parametrize("body", [{}, {"query": ""}, {"query": 3}, {"query": "x", "limit": 0}, [1],
                                  {"query": "x", "destination": "none"}])  # fmt: skip
async def test_a_wrong_request_for_sql_is_refused_in_words(node, body):
    status, _, text = await node.post("/api/sql", body)
    assert status == 400
    assert json.loads(text)["error"]["message"]


async def test_a_large_body_is_refused(tmp_path):
    node = Node(tmp_path, request_bytes_max=100)
    status, _, text = await node.post("/api/sql", {"query": "x" * 200})
    assert (status, json.loads(text)["error"]["code"]) == (400, "body_size")


async def test_adopt_is_for_the_trusted_only(node):
    asked = []

    async def answer(request):
        asked.append(request)
        return {"partitions": 64}, b""

    server = await ask.serve(f"{node.path}/run/deliver-w.sock", answer)
    assert (await node.post("/api/destinations/w/adopt", {"from": "now"}))[0] == 403
    assert asked == []
    assert (await node.post("/api/destinations/w/adopt", {"from": "now"}, trusted=True))[0] == 200
    assert asked == [{"op": "adopt", "destination": "w", "from": "now", "vectors": {}, "passed": {}}]
    await server.close()


@pytest.mark.parametrize("operation", ["replay", "retry"])
async def test_replays_and_retries_are_for_the_trusted_only(node, operation):
    asked = []

    async def answer(request):
        asked.append(request)
        return {"replays": []}, b""

    server = await ask.serve(f"{node.path}/run/deliver-w.sock", answer)
    path, body = f"/api/destinations/w/{operation}", {"do": "list", "op": "adopt"}
    assert (await node.post(path, body))[0] == 403
    assert asked == []
    assert (await node.post(path, body, trusted=True))[0] == 200
    assert asked == [{"op": operation, "destination": "w", "do": "list"}]
    await server.close()


async def test_where_follows_a_receipt(node):
    assert (await node.get("/api/where?receipt=nonsense"))[0] == 400
    status, _, text = await node.get(f"/api/where?receipt={RECEIPT}")
    assert (status, json.loads(text)["acknowledged"]) == (200, False)


async def test_dead_letters_are_listed_and_shown(node):
    assert json.loads((await node.get("/api/dead?limit=3&stream=web"))[2])[0]["limit"] == 3
    assert (await node.get("/api/dead?limit=0"))[0] == 400
    assert (await node.get("/api/dead/a-b-1"))[0] == 200
    assert (await node.get("/api/dead/none"))[0] == 404


async def test_the_demo_page_may_load_from_the_collector_only(node):
    told = json.loads((await node.get("/demo/config.json"))[2])
    assert told == {"collector": "http://127.0.0.1:8420", "key": "wk",
                    "tag": "http://127.0.0.1:8420/headwater.js", "destination": "w",
                    "program": demo.program(), "data": shlex.quote(node.path)}  # fmt: skip


def test_the_command_of_the_demo_is_one_that_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a venv" / "python"))
    assert demo.program() == f"'{tmp_path}/a venv/python' -m headwater"
    (tmp_path / "a venv").mkdir()
    (tmp_path / "a venv" / "headwater").touch()
    assert demo.program() == f"'{tmp_path}/a venv/headwater'"
    (tmp_path / "headwater").touch(mode=0o755)
    assert demo.program() == "headwater"


async def test_the_demo_reads_the_row_back_once_it_is_there(node):
    async def answer(request):
        assert request["query"] == "select * from events where message_id = 'm-1'"
        return {"columns": []}, b'[{"message_id":"m-1"}]'

    vector = Vector({WRITER: Position(5, 1)}).encode().hex()
    folder = f"{node.path}/raw/{WRITER:016x}"
    node.disk.mkdir(folder)
    cell = node.disk.cell(f"{folder}/{5:016x}.wm", write=True)
    cell.set(1)
    server = await ask.serve(f"{node.path}/run/deliver-w.sock", answer)
    path = f"/demo/journey?receipt={RECEIPT}&message_id=m-1"
    told = json.loads((await node.get(path))[2])
    assert (told["acknowledged"], told["processed"], told["row"]) == (True, False, None)
    node.say("deliver-w", destinations={"w": {"state": "delivering", "vectors": {vector: [0]}}})
    told = json.loads((await node.get(path))[2])
    assert (told["processed"], told["destinations"], told["row"]) == (
        True,
        {"w": True},
        {"message_id": "m-1"},
    )
    await server.close()


@pytest.mark.parametrize("message_id", ["", "a'--", "x" * 300, "a b"])
async def test_a_strange_message_id_never_reaches_sql(node, message_id):
    from urllib.parse import quote

    assert (await node.get(f"/demo/journey?receipt={RECEIPT}&message_id={quote(message_id)}"))[0] == 400


async def test_the_demo_can_be_turned_off(tmp_path):
    assert (await Node(tmp_path, demo=False).get("/demo/config.json"))[0] == 404


async def test_metrics_and_status_answer(node):
    status, headers, text = await node.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'headwater_up{role="collect-0"} 1' in text
    assert json.loads((await node.get("/api/status"))[2])["ready"] is True
    assert json.loads((await node.get("/api/reconcile"))[2]) == []
    assert json.loads((await node.get("/api/keys"))[2]) == [{"id": "web"}]


def test_a_paused_destination_is_named_once():
    from headwater.ops import standing

    told = {"state": "paused", "reason": "destination w is paused: it is gone"}
    assert standing.destination("w", told).reason == "it is gone"
    assert standing.destination("w", {"reason": "the disk is full"}).reason == "the disk is full"
    assert standing.destination("w", {}).reason is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/destinations/w/pause", {"reason": "why"}),
        ("/api/destinations/w/resume", {}),
        ("/api/dead/retry", {"letters": [{"origin": "a-b-1"}]}),
    ],
)
async def test_an_operators_decision_is_taken_from_an_operator_only(node, path, body):
    status, _, text = await node.post(path, body)
    assert (status, json.loads(text)["error"]["code"]) == (403, "not_trusted")


async def test_a_pause_goes_to_its_deliverer(node):
    asked = []

    async def deliverer(request):
        asked.append(request)
        return {"since": "noon"}, b""

    server = await ask.serve(f"{node.path}/run/deliver-w.sock", deliverer)
    status, _, text = await node.post("/api/destinations/w/pause", {"reason": "why"}, trusted=True)
    await server.close()
    assert (status, json.loads(text)) == (200, {"since": "noon"})
    assert [(one["op"], one["destination"], one["reason"]) for one in asked] == [("pause", "w", "why")]
    assert (await node.post("/api/destinations/x/pause", {}, trusted=True))[0] == 400


async def test_explain_finds_nothing_in_an_empty_node_and_says_what_it_asked(node):
    async def deliverer(request):
        assert "message_id in ('m''1')" in request["query"]
        return {"columns": []}, b"[]"

    server = await ask.serve(f"{node.path}/run/deliver-w.sock", deliverer)
    status, _, text = await node.get("/api/explain?id=m'1")
    await server.close()
    told = json.loads(text)
    assert (status, told["found"], told["searched"]["destinations"]) == (200, False, ["w"])
    told = json.loads((await node.get("/api/explain?id=m1"))[2])
    assert told["not_asked"][0].startswith("w: no answer")
    assert (await node.get("/api/explain"))[0] == 400
    assert (await node.post("/api/explain/known", {"places": [["x"]]}))[0] == 400


async def test_all_is_pending_for_a_destination_that_has_not_said_yet_where_it_stands(node):
    """As after the end of its process: it must not be missing in the ledger, as though it were up to date."""
    node.say("process-0", vectors=[], counters={"web": {"in": 1, "out": 1}})
    node.say("deliver-w")
    (told,) = json.loads((await node.get("/api/reconcile"))[2])
    assert told["destinations"]["w"]["delivered"] == told["delivered"] == 0


async def test_reconcile_deep_asks_every_destination_and_tells_who_did_not_answer(node):
    node.say("process-0", vectors=[], counters={"web": {"in": 1, "out": 1}})
    stand = {"state": "delivering", "vectors": {}, "streams": {"web": {"out": 1, "rows": 1}}}
    node.say("deliver-w", destinations={"w": stand})

    async def deliverer(request):
        assert (request["op"], request["time_max_s"]) == ("deep", 9.0)
        counted = {
            "counted": 1,
            "said": 1,
            "differences": [],
            "doubled_rows": 0,
            "doubled_examples": [],
            "copies": 0,
        }
        return {"streams": {"web": counted}}, b""

    server = await ask.serve(f"{node.path}/run/deliver-w.sock", deliverer)
    (told,) = json.loads((await node.get("/api/reconcile?deep=1&timeout=9"))[2])
    await server.close()
    assert told["destinations"]["w"]["deep"]["counted"] == 1
    (told,) = json.loads((await node.get("/api/reconcile?deep=1"))[2])
    assert any("could not be counted: no answer" in problem for problem in told["problems"])
    (told,) = json.loads((await node.get("/api/reconcile"))[2])
    assert "deep" not in told["destinations"]["w"]
    assert (await node.get("/api/reconcile?deep=1&timeout=-1"))[0] == 400
