"""`make cluster`: three nodes behind HAProxy with Redis on one machine, that go on serving when one is killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.journeys.running import children, wait_for
from tests.journeys.shell import program
from tests.parts import free_row

pytestmark = [pytest.mark.slow, pytest.mark.journey, pytest.mark.timeout(180)]

ALONE = """
import sys
from headwater.cli import trial
from headwater.cli.main import main
trial.found_program = lambda name: ""
main(sys.argv[1:])
"""
EVICTED_S, EXIT_S = 9.0, 60.0
"""Eviction takes 7 s; the terminal looks each second."""


class Tried:
    """A cluster that was started as a user does."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process

    def said(self) -> str:
        return (self.folder / "said.log").read_text(errors="replace")

    def wait_said(self, words: str, within_s: float = 60) -> re.Match[str]:
        def there() -> bool:
            assert self.process.poll() is None, self.said()
            return re.search(words, self.said()) is not None

        wait_for(there, within_s, self.said)
        found = re.search(words, self.said())
        assert found
        return found

    def send(self, port: int, name: str) -> int:
        """One event through a door; 0 when there was no answer."""
        secret = (self.folder / "three" / "web.secret").read_text().strip()
        body = json.dumps({"event": "Tried", "messageId": name, "anonymousId": f"visitor-{name[-1]}"})
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(
                "POST", "/events", body, {"X-Write-Key": secret, "Content-Type": "application/json"}
            )
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def send_until_taken(self, port: int, name: str) -> list[int]:
        """As a client does: again, with the same message id, until the answer is 200. The answers."""
        answers = [self.send(port, name)]
        while answers[-1] != 200:
            assert len(answers) < 10, answers
            time.sleep(0.1)
            answers.append(self.send(port, name))
        return answers

    def command(self, *words: str, node: str = "a") -> subprocess.CompletedProcess[str]:
        data = self.folder / "three" / node / "data"
        return subprocess.run(
            [sys.executable, "-m", "headwater", *words, "--data", str(data)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def rows(self, node: str = "a") -> list[str]:
        done = self.command("sql", "--json", "select message_id from events where event = 'Tried'", node=node)
        return [row["message_id"] for row in json.loads(done.stdout)] if done.returncode == 0 else []

    def end(self) -> int:
        pids = children(self.process.pid)
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(EXIT_S)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10)
        return code


def words(port: int, *more: str) -> list[str]:
    return ["cluster", "try", "--dir", "three", "--port", str(port), *more]


def base_port() -> int:
    """A port with room for the others behind it."""
    return free_row(40)


@pytest.mark.real("redis", "haproxy")
def test_cluster_goes_on_when_a_node_is_killed_and_ctrl_c_ends_it_in_order(tmp_path: Path) -> None:
    port = base_port()
    start = [sys.executable, "-m", "headwater", *words(port)]
    with program(start, tmp_path / "said.log", cwd=tmp_path) as process:
        tried = Tried(tmp_path, process)
        pid = int(tried.wait_said(r"kill -9 (\d+)")[1])
        sent = {f"before-{n}" for n in range(30)}
        assert {tried.send(port, name) for name in sent} == {200}
        wait_for(lambda: set(tried.rows()) == sent, 30, tried.said)

        processes = [pid, *children(pid)]
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        # what its collector answers until it is gone too lies on this node's disk, and comes when the node is back
        wait_for(lambda: not any(alive(process) for process in processes), 5)
        more = {f"after-{n}" for n in range(30)}
        answers = [answer for name in more for answer in tried.send_until_taken(port, name)]
        took_s = time.monotonic() - killed
        # A refused connection is tried at another node by HAProxy; only what was under way gets an error.
        assert len([answer for answer in answers if answer != 200]) <= 2, answers
        tried.wait_said(r"node b was killed by signal 9")
        tried.wait_said(r"b evicted", EVICTED_S)
        evicted_s = time.monotonic() - killed
        wait_for(lambda: {*tried.rows("c")} == sent | more, 30, tried.said)
        rows_s = time.monotonic() - killed
        print(
            f"30 events in {took_s:.1f} s, evicted after {evicted_s:.1f} s, every row there after {rows_s:.1f} s"
        )
        status = json.loads(tried.command("cluster", "status", "--json").stdout)
        assert {one["name"] for one in status["nodes"] if one["member"]} == {"a", "c"}
        time.sleep(3)
        assert process.poll() is None
        assert "node b is process" not in tried.said()  # it was not asked for
        assert tried.end() == 0, tried.said()
        assert len(tried.rows()) == 0  # nobody answers any more

    with program(start, tmp_path / "said.log", cwd=tmp_path) as process:  # the same data, all three
        tried = Tried(tmp_path, process)
        wait_for(lambda: tried.said().count("Ctrl-C ends all of them") == 2, 60, tried.said)
        wait_for(lambda: sorted(tried.rows()) == sorted(sent | more), 30, tried.said)
        assert tried.end() == 0, tried.said()


@pytest.mark.thorough
def test_without_redis_and_haproxy_it_says_so_and_runs_on_a_list(tmp_path: Path) -> None:
    port = base_port()
    start = [sys.executable, "-c", ALONE, *words(port, "--restart")]
    with program(start, tmp_path / "said.log", cwd=tmp_path) as process:
        tried = Tried(tmp_path, process)
        pid = int(tried.wait_said(r"kill -9 (\d+)")[1])
        assert "apt-get install redis-server" in tried.said() and "apt-get install haproxy" in tried.said()
        names = {f"{n}-at-{door}" for n in range(5) for door in (10, 20, 30)}
        assert {tried.send(port + int(name[-2:]), name) for name in names} == {200}
        os.kill(pid, signal.SIGKILL)
        tried.wait_said(r"node b is process \d+ now")
        wait_for(lambda: {*tried.rows()} == names, 40, tried.said)
        assert tried.end() == 0, tried.said()


@pytest.mark.thorough
def test_nothing_is_left_when_the_terminal_itself_is_killed(tmp_path: Path) -> None:
    start = [sys.executable, "-m", "headwater", *words(base_port())]
    with program(start, tmp_path / "said.log", cwd=tmp_path) as process:
        Tried(tmp_path, process).wait_said(r"Ctrl-C ends all of them")
        pids = children(process.pid)
        assert len(pids) > 12
        process.kill()
        process.wait()
        wait_for(lambda: not any(alive(pid) for pid in pids), 10)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
