"""A running node is changed by SIGHUP, or says why not; a stopping one drains; and what `ack: memory` means."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.journeys.running import SERVER_KEY, WEB_KEY, Running, unique, wait_for
from tests.parts import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NEW_KEY, NEXT_KEY, MEMORY_KEY = "wk_new_0123456789", "wk_next_0123456789", "wk_memory_0123456789"
MEMORY = f'  - {{id: fast, secret: "{MEMORY_KEY}", ack: memory}}'


@pytest.fixture(scope="module")
def shared(make_shared_node: Callable[..., Running]) -> Running:
    node = make_shared_node(keys=MEMORY, workers=2)
    node.start()
    return node


def test_sighup_takes_a_new_key_without_a_restart(shared: Running) -> None:
    pids = shared.pids()
    assert shared.post("/events", {"event": "Early"}, key=NEW_KEY)[0] == 401
    shared.configure(keys=f'{MEMORY}\n  - {{id: new, secret: ["{NEW_KEY}", "{NEXT_KEY}"]}}')
    shared.signal(signal.SIGHUP)
    wait_for(lambda: shared.post("/events", {"event": "Reloaded"}, key=NEW_KEY)[0] == 200, 10, shared.log)
    statuses = [shared.post("/events", {"event": "Rotated"}, key=key)[0] for key in (NEW_KEY, NEXT_KEY) * 4]
    assert statuses == [200] * 8  # both workers, both secrets
    assert shared.pids() == pids
    shared.wait_rows(8, where="event = 'Rotated' and key_id = 'new'")
    shared.configure(keys=MEMORY)
    shared.signal(signal.SIGHUP)
    wait_for(lambda: shared.post("/events", {"event": "Late"}, key=NEW_KEY)[0] == 401, 10, shared.log)
    assert shared.post("/events", {"event": "Old key"})[0] == 200


def test_sighup_refuses_a_changed_address_and_says_why(shared: Running) -> None:
    before, seen = shared.config.read_text(), len(shared.log_text())
    shared.config.write_text(before.replace(f'"127.0.0.1:{shared.collect}"', f'"127.0.0.1:{free_port()}"'))
    shared.signal(signal.SIGHUP)
    wait_for(lambda: "collect.listen" in shared.log_text()[seen:], 10, shared.log)
    assert "restart" in shared.log_text()[seen:]
    assert shared.post("/events", {"event": "Same address"})[0] == 200
    shared.config.write_text(before)


def test_sighup_refuses_a_broken_file_and_goes_on(shared: Running) -> None:
    before, seen = shared.config.read_text(), len(shared.log_text())
    shared.config.write_text(before.replace("origins:", "orgins:"))
    shared.signal(signal.SIGHUP)
    wait_for(lambda: "orgins" in shared.log_text()[seen:], 10, shared.log)
    assert "origins" in shared.log_text()[seen:]  # the nearest known key
    assert shared.post("/events", {"event": "Old file"})[0] == 200
    shared.config.write_text(before)
    shared.signal(signal.SIGHUP)


def test_sighup_refuses_sizes_that_do_not_fit_and_goes_on(shared: Running) -> None:
    before, seen = shared.config.read_text(), len(shared.log_text())
    shared.config.write_text(f"{before}\ndata_bytes_max: 268435456\nprocess: {{workers: 64}}\n")
    shared.signal(signal.SIGHUP)
    wait_for(lambda: "is too small" in shared.log_text()[seen:], 10, shared.log)
    assert shared.post("/events", {"event": "Old sizes"})[0] == 200
    shared.config.write_text(before)


def test_memory_key_says_memory_and_its_events_arrive(shared: Running) -> None:
    for number in range(20):
        status, reply = shared.post(
            "/events", {"event": "Fast", "messageId": f"fast-{number}"}, key=MEMORY_KEY
        )
        assert (status, reply["ack"]) == (200, "memory")
        assert reply["receipt"]
    assert shared.post("/events", {"event": "Sure"})[1]["ack"] == "disk"
    shared.wait_rows(20, where="event = 'Fast' and key_id = 'fast'")
    assert shared.command("where", reply["receipt"]).returncode == 0


@pytest.mark.parametrize(
    "level",
    [
        pytest.param("replicated", marks=pytest.mark.one_node("three nodes keep `replicated`")),
        "telepathy",
    ],
)
def test_level_that_cannot_be_kept_refuses_to_start(make_node: Callable[..., Running], level: str) -> None:
    node = make_node(keys=f'  - {{id: more, secret: "{NEW_KEY}", ack: {level}}}')
    done = node.command("run", "--config", str(node.config))
    assert done.returncode == 2
    assert level in done.stderr
    assert "disk" in done.stderr
    assert NEW_KEY not in done.stderr


def test_drain_serves_until_its_delay_is_over_and_answers_what_has_begun(
    make_node: Callable[..., Running],
) -> None:
    node = make_node(keys=MEMORY, more="shutdown_delay: 1.5", workers=2)
    node.start()
    acknowledged: list[str] = []
    refused: list[object] = []
    stopping = threading.Event()

    def send(name: str, key: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", node.collect, timeout=10)
        count = 0
        while not stopping.is_set():
            count += 1
            event = {"event": "Draining", "messageId": f"{name}-{count}"}
            headers = {"X-Write-Key": key, "Content-Type": "application/json"}
            try:
                connection.request("POST", "/events", json.dumps(event), headers)
                reply = connection.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException):
                connection.close()  # the door is closed: not acknowledged
                stopping.wait(0.05)
                continue
            if reply.status == 200:
                acknowledged.append(event["messageId"])
            else:
                refused.append(reply.status)
            stopping.wait(0.005)
        connection.close()

    threads = [
        threading.Thread(target=send, args=(f"{kind}{n}", key))
        for kind, key in (("disk", WEB_KEY), ("memory", MEMORY_KEY))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        asked = time.monotonic()
        node.signal(signal.SIGTERM)
        wait_for(lambda: node.status_of(node.collect, "/ping") == 503, 1.4, node.log)
        during = len(acknowledged)
        time.sleep(0.5)
        assert len(acknowledged) > during  # still served
        assert node.process is not None
        assert node.process.wait(30) == 0, node.log()
        assert time.monotonic() - asked > 1.5
    finally:
        stopping.set()
        for thread in threads:
            thread.join(15)
    assert set(refused) <= {503}, refused
    node.start()
    streams = node.wait_settled()
    assert all(s["holds"] for s in streams), streams
    rows = unique(r["message_id"] for r in node.sql("select message_id from events where event = 'Draining'"))
    lost = set(acknowledged) - rows
    assert not lost, f"{len(lost)} of {len(acknowledged)}: {sorted(lost)[:5]}"


def test_second_ctrl_c_stops_at_once_and_loses_nothing(make_node: Callable[..., Running]) -> None:
    node = make_node(more="shutdown_delay: 60")
    node.start()
    assert node.post("/events", {"event": "Sure", "messageId": "sure"})[0] == 200
    node.signal(signal.SIGINT)
    time.sleep(0.5)
    assert node.process is not None
    assert node.process.poll() is None
    node.signal(signal.SIGINT)
    assert node.process.wait(15) == 1  # not in order
    node.start()
    node.wait_rows(1, where="message_id = 'sure'")


def test_inv_log_4_a_drain_leaves_the_ready_logs_of_running_processors_alone(make_node):
    """A backlog at the drain: what is processed after the collectors' end is delivered too."""
    node = make_node()
    node.start()
    stopped = node.pids("role process")
    node.post(
        "/v1/track", {"messageId": "first", "anonymousId": "a", "type": "track", "event": "e"}, key=SERVER_KEY
    )
    node.wait_rows(1)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    batch = [{"messageId": f"m{n}", "anonymousId": "a", "type": "track", "event": "e"} for n in range(100)]
    assert node.post("/v1/batch", {"batch": batch}, key=SERVER_KEY)[0] == 200
    node.signal(signal.SIGINT)
    wait_for(lambda: not node.pids("role collect"), 20, node.log)
    time.sleep(0.5)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert node.process.wait(40) == 0
    node.start()
    assert node.wait_settled()[0]["delivered"] == 101


def test_a_restart_right_after_a_stop_or_a_kill_gets_its_port_again(
    make_node: Callable[..., Running],
) -> None:
    node = make_node(workers=2)
    node.start()
    for end in (node.stop, node.kill_all):
        open_ones = [http.client.HTTPConnection("127.0.0.1", node.collect, timeout=10) for _ in range(20)]
        for connection in open_ones:  # the door closes these, so its side is the one that waits
            connection.request("GET", "/ping")
            assert connection.getresponse().read()
        end()
        node.start()
        for connection in open_ones:
            connection.close()
        assert node.post("/events", {"event": "Again"})[0] == 200


def test_a_second_node_on_the_same_port_is_refused_with_the_process_that_has_it(
    make_node: Callable[..., Running],
) -> None:
    node, other = make_node(), make_node()
    node.start()
    other.collect = node.collect
    other.configure()
    done = other.command("run", "--config", str(other.config))
    assert done.returncode == 2
    (worker,) = node.pids(" collect ")
    assert f"headwater.yaml:2: collect.listen: cannot listen on 127.0.0.1:{node.collect}: " in done.stderr
    assert f"process {worker} (" in done.stderr
    assert "headwater.node.role collect 0" in done.stderr
    assert not (other.data / "raw").exists() or not os.listdir(other.data / "raw")
