from headwater.config.report import Report, Sample
from headwater.event.position import Position, Receipt, Vector, WriterId
from headwater.ops import metrics, ready
from headwater.ops.standing import Delivered, Processed
from headwater.ops.where import where

NOW = 100 * 10**9
EXPECTED = ["collect-0", "process-0", "deliver-w"]


def report(role, **changes):
    return Report(**{"role": role, "pid": 1, "start": 1, "boot_ns": NOW, **changes})


def look(*, draining=False, alive_ns=NOW, without=(), destinations=None, held="", **changed):
    reports = {role: report(role) for role in EXPECTED if role not in without}
    reports |= {told.role: told for told in changed.values()}
    return ready.readiness(
        draining=draining, now_ns=NOW, alive_ns=alive_ns, reports=reports, expected=EXPECTED,
        destinations=destinations or {}, held=held,
    )  # fmt: skip


def test_a_node_whose_door_is_open_is_ready():
    assert look() == (True, [], [])


def test_a_draining_node_is_not_ready():
    assert look(draining=True).reasons == ["draining: the node is about to stop"]


def test_a_node_that_the_cluster_holds_is_not_ready_and_says_why():
    assert look(held="not enough nodes: 1 of at least 3").reasons == ["not enough nodes: 1 of at least 3"]


def test_a_missing_or_silent_collector_is_a_reason():
    assert look(without=["collect-0"]).reasons == ["collect-0 has not started yet"]
    assert look(c=report("collect-0", boot_ns=0)).reasons == ["collect-0 gives no sign of life"]
    assert look(c=report("collect-0", reasons=["the raw log is at its quota"])).ready is False


def test_processing_and_destinations_are_warnings_only():
    now = look(without=["process-0"], destinations={"w": Delivered("w", "paused", "its file is missing")})
    assert now.ready
    assert now.warnings == ["process-0 has not started yet", "destination w is paused: its file is missing"]


def test_a_dead_supervisor_and_a_role_that_ends_often_are_reasons():
    assert look(alive_ns=0).reasons == ["the supervisor gives no sign of life"]
    assert look(n=report("node", reasons=["collect-0 ended 3 times"])).reasons == ["collect-0 ended 3 times"]


# -- where

W = WriterId(1 << 16)


def at(seq):
    return {0: Vector({W: Position(5, seq)}), 1: Vector({W: Position(5, seq)})}


def test_a_receipt_goes_from_stop_to_stop():
    receipt = Receipt(W, 5, 10)
    nowhere, there = {"w": Delivered("w", vectors=at(9))}, {"w": Delivered("w", vectors=at(10))}
    assert where(receipt, False, Processed(at(99)), there)["acknowledged"] is False
    assert where(receipt, True, Processed(at(9)), nowhere)["processed"] is False
    assert where(receipt, True, Processed(at(10)), nowhere)["destinations"] == {"w": False}
    assert where(receipt, True, Processed(at(10)), there)["destinations"] == {"w": True}
    assert where(receipt, True, Processed(at(9)), there)["processed"], "a late report of the processor"
    assert where(receipt, True, Processed(), {"w": Delivered("w")})["destinations"] == {"w": False}


def test_one_partition_that_lags_holds_the_receipt_back():
    receipt = Receipt(W, 5, 10)
    lagging = {**at(10), 1: Vector({W: Position(5, 9)})}
    assert where(receipt, True, Processed(lagging), {})["processed"] is False


# -- metrics


def test_metrics_are_prometheus_text():
    text = metrics.render(
        [Sample("headwater_x_total", {"b": 'q"\\\n', "a": "1"}, 3.0), Sample("headwater_ready", {}, 0.5)]
    )
    assert text.splitlines() == [
        "# HELP headwater_ready 1 when the node takes events.",
        "# TYPE headwater_ready gauge",
        "headwater_ready 0.5",
        "# TYPE headwater_x_total counter",
        r'headwater_x_total{a="1",b="q\"\\\n"} 3',
    ]


def test_what_a_collector_counts_has_names_and_units():
    detail = {
        "accepted_events": 5,
        "commit_ns": 2_000_000_000,
        "requests": {"track": {"200": 4}},
        "refused": {"key": 1},
    }
    told = {(s.name, tuple(s.labels.values())): s.value for s in metrics.from_reports(
        {"collect-0": report("collect-0", detail=detail)}, NOW)}  # fmt: skip
    assert told["headwater_collect_accepted_events_total", ("collect-0",)] == 5
    assert told["headwater_collect_commit_seconds_total", ("collect-0",)] == 2
    assert told["headwater_collect_requests_total", ("collect-0", "track", "200")] == 4
    assert told["headwater_collect_refused_total", ("collect-0", "key")] == 1
