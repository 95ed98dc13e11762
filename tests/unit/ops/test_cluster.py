"""What a node of a cluster answers over HTTP, and to whom."""

import json

import pytest

from headwater.kit import ask
from headwater.kit.errors import Rejected
from tests.unit.ops.test_app import TOKEN, Node

ADMIN = "a" * 20
A, B = "00000000000a0000", "00000000000b0000"


def member(node_id, name, **changed):
    return {
        "id": node_id, "name": name, "alive": True, "state": "active", "incarnation": 5, "zone": "", "weight": 100,
        "partitions": 32, "standby": 32, "address": f"{name}:7510", "lane_address": f"{name}:7511",
        "started": "2026-11-21T13:00:00Z", "heard_s": 0.1, **changed,
    }  # fmt: skip


def page(**changed):
    return {
        "cluster": "headwater", "cluster_id": A, "node": A, "name": "a", "incarnation": 5, "state": "active",
        "viable": True, "why": "", "waits_for": [], "epoch": 7, "leader": B, "leader_incarnation": 5,
        "nodes": [member(A, "a"), member(B, "b"), member("0c0000", "c", alive=False, state="gone")],
        "activity": [{"date": "2026-11-21T13:00:00Z", "event": "joined", "id": A, "address": "a:7510"}], **changed,
    }  # fmt: skip


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, clustered=True, admin_token=ADMIN)
    made.say("member-0", status=page())
    return made


async def told(node, path, **options):
    status, _, text = await node.get(path, **options)
    return status, json.loads(text)


async def test_a_node_alone_has_nothing_of_it(tmp_path):
    for path in ("/cluster/status", "/cluster/_status", "/_plugin/cluster/health"):
        assert (await told(Node(tmp_path / path.replace("/", "-")), path))[0] == 404


async def test_status_is_what_the_member_says_with_the_lanes_beside_it(node):
    node.say("lane-0", peers={B: {"lag_events": 3}})
    status, found = await told(node, "/cluster/status")
    assert (status, found["epoch"], found["lanes"]) == (200, 7, {"peers": {B: {"lag_events": 3}}})


async def test_before_the_member_says_anything_the_status_says_so(tmp_path):
    status, found = await told(Node(tmp_path, clustered=True), "/cluster/status")
    assert (status, found["error"]["code"]) == (503, "no_member")


async def test_t1_kuzzles_status_has_its_shape(node):
    _, found = await told(node, "/cluster/_status")
    result = found["result"]
    assert (found["controller"], found["action"], found["status"]) == ("cluster", "status", 200)
    assert result["activeNodes"] == 2
    assert [set(one) >= {"id", "address", "birthdate"} for one in result["nodes"]] == [True, True]
    assert {"state", "epoch", "lag", "incarnation"} <= set(result)
    assert result["activity"][0]["event"] == "joined"


async def test_t2_the_plugins_status_has_its_shape(node):
    _, found = await told(node, "/_plugin/cluster/status")
    assert found["result"] == {
        "count": 2,
        "current": {"pub": "tcp://a:7511", "router": "tcp://a:7510", "ready": True},
        "pool": [{"pub": "tcp://b:7511", "router": "tcp://b:7510", "ready": True}],
    }


async def test_j2_below_the_minimum_the_plugins_routes_say_ko(node):
    assert (await told(node, "/_plugin/cluster/health"))[1]["result"] == "ok"
    node.say("member-0", status=page(viable=False))
    for path in ("/_plugin/cluster/health", "/_plugin/cluster/status"):
        status, found = await told(node, path)
        assert (status, found["error"]["message"], found["error"]["name"]) == (404, "ko", "NotFoundError")


async def test_load_balancers_may_ask_the_plugins_health_without_a_token(tmp_path):
    node = Node(tmp_path, clustered=True, token=TOKEN)
    node.say("member-0", status=page())
    assert (await told(node, "/_plugin/cluster/health"))[0] == 200
    assert (await told(node, "/cluster/status"))[0] == 401


ORDERS = [("/cluster/drain", {"node": "b"}), ("/cluster/evict", {"node": "b"}), ("/cluster/forget", {"node": "b"}),
          ("/cluster/reset", {}), ("/_plugin/cluster/reset", {})]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), ORDERS)
async def test_orders_need_the_admin_token_and_no_other(tmp_path, path, body):
    """T2."""
    node = Node(tmp_path, clustered=True, token=TOKEN, admin_token=ADMIN)
    node.say("member-0", status=page())
    asked = []

    async def answer(request):
        asked.append(request)
        return {"name": "b"}, b""

    server = await ask.serve(f"{node.path}/run/member-0.sock", answer)
    try:
        for wrong in ({}, {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer {ADMIN}x"}):
            assert (await node.post(path, body, **wrong))[0] == 401
        assert asked == []
        assert (await node.post(path, body, authorization=f"Bearer {ADMIN}"))[0] == 200
        assert (await node.post(path, body, trusted=True))[0] == 200
        assert [one["op"] for one in asked] == [path.rpartition("/")[2]] * 2
        # as seed 004 asks for it: curl -XPOST, without a body and its type
        assert (await node.request("POST", "/cluster/reset", authorization=f"Bearer {ADMIN}"))[0] == 200
    finally:
        await server.close()


async def test_without_an_admin_token_nobody_from_outside_may_order(tmp_path):
    node = Node(tmp_path, clustered=True)
    for given in ("Bearer ", "Bearer", ""):
        assert (await node.post("/cluster/reset", {}, authorization=given))[0] == 401


async def test_a_page_of_another_origin_may_not_order_even_with_the_token(node):
    sent = await node.post(
        "/cluster/reset", {}, authorization=f"Bearer {ADMIN}", origin="https://evil.example"
    )
    assert sent[0] == 403


@pytest.mark.parametrize("body", [{}, {"node": ""}, {"node": 5}, {"node": "b", "back": "yes"}])
async def test_a_wrong_order_says_what_was_expected(node, body):
    status, _, text = await node.post("/cluster/drain", body, trusted=True)
    assert (status, json.loads(text)["error"]["kind"]) == (400, "Rejected")


async def test_what_the_member_refuses_reaches_the_asker(node):
    async def answer(request):
        raise Rejected("no node 'x'", code="node", help="known are a, b")

    server = await ask.serve(f"{node.path}/run/member-0.sock", answer)
    try:
        status, _, text = await node.post("/cluster/drain", {"node": "x"}, trusted=True)
    finally:
        await server.close()
    assert (status, json.loads(text)["error"]["help"]) == (400, "known are a, b")
