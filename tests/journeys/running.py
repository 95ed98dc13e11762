"""A real node for a test: started as a user would start it, asked from the outside, always ended.

Nothing here imports Headwater: what these helpers know is the fixed surface (HTTP replies, the CLI, the events table).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.parts import free_ports

CONFIG = """
collect: {{listen: "127.0.0.1:{collect}", workers: {workers}{door}}}
ops: {{listen: "127.0.0.1:{ops}"}}
keys:
  - {{id: web, secret: "${{env.WEB_KEY}}", origins: ["*"], ack: disk}}
  - {{id: server, secret: "${{env.SERVER_KEY}}", ack: disk}}
{keys}
destinations:
  warehouse: {{type: duckdb, path: warehouse.duckdb, sql: {{rows_max: 1000000}}{warehouse}}}
{more}
"""
WEB_KEY, SERVER_KEY = "wk_test_browser_0123456789", "wk_test_server_0123456789"


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """One node in one folder; may be started, killed and started again.

    ``door`` is more of `collect` (``"body_bytes_max: 5000"``), ``warehouse`` more of the destination, ``keys`` more
    lines of the list of keys, ``more`` whole sections. ``data`` puts the data folder elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        door: str = "",
        keys: str = "",
        more: str = "",
        warehouse: str = "",
        data: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data = data or folder / "data"
        self.config = folder / "headwater.yaml"
        with free_ports(2) as (self.collect, self.ops):
            pass
        self.environment = {**os.environ, "WEB_KEY": WEB_KEY, "SERVER_KEY": SERVER_KEY}
        self.parameters = {"workers": workers, "door": door, "keys": keys, "more": more}
        self.parameters["warehouse"] = warehouse
        self.configure()
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, **changed: Any) -> None:
        """Write the configuration, with what has changed."""
        self.parameters.update(changed)
        inside = {
            name: f", {told}" if (told := self.parameters[name]) else "" for name in ("door", "warehouse")
        }
        told = {**self.parameters, **inside}
        self.config.write_text(CONFIG.format(collect=self.collect, ops=self.ops, **told))

    def start(self, timeout_s: float = 40) -> None:
        """Start and wait until it is ready, and answers questions."""
        self.begin()
        wait_for(lambda: self.alive() and self.status_of(self.ops, "/ready") == 200, timeout_s, self.log)
        wait_for(
            lambda: self.alive() and self.command("sql", "select 1").returncode == 0, timeout_s, self.log
        )

    def begin(self) -> None:
        """Start, and do not wait."""
        log = (self.folder / "node.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headwater", "run", "--config", str(self.config), "--data", str(self.data)],
            env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        log.close()

    def log_text(self) -> str:
        """What it printed, in all of its starts."""
        path = self.folder / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log(self) -> str:
        """The end of what it printed, for failures."""
        return self.log_text()[-4000:]

    def alive(self) -> bool:
        assert self.process is not None
        if (code := self.process.poll()) is not None:
            raise AssertionError(f"the node ended with {code}:\n{self.log()}")
        return True

    def signal(self, number: signal.Signals) -> None:
        """A signal to the supervisor alone."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 30) -> int:
        """Ctrl-C, and its exit code."""
        assert self.process is not None
        self.signal(signal.SIGINT)
        return self.process.wait(timeout_s)

    def pids(self, role: str = "") -> list[int]:
        """The node's processes whose command line names a role; the supervisor's alone for ``supervisor``."""
        assert self.process is not None
        if role == "supervisor":
            return [self.process.pid]
        return [pid for pid in children(self.process.pid) if role in command_line(pid)]

    def kill(self, *pids: int) -> None:
        """SIGKILL, only for processes that this node started."""
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def kill_all(self) -> None:
        """The whole node at once, as when its container goes."""
        assert self.process is not None
        pids = [self.process.pid, *children(self.process.pid)]
        self.kill(*pids)
        self.process.wait(10)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() and not zombie(pid) for pid in pids), 10)

    def close(self) -> None:
        """End whatever is left."""
        if self.process is not None and self.process.poll() is None:
            self.kill_all()

    def status_of(self, port: int, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, http.client.HTTPException):
            return 0

    def post(self, path: str, body: Any, *, key: str = WEB_KEY) -> tuple[int, Any]:
        """One JSON request on a connection of its own; (status, reply). Raises OSError when there is no answer."""
        answer = self.ask("POST", path, body, {"X-Write-Key": key, "Content-Type": "application/json"})
        return answer.status, answer.json if answer.body[:1] in (b"{", b"[") else answer.body

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        port: int = 0,
        source: str = "127.0.0.1",
        timeout_s: float = 15,
    ) -> Answer:
        """One request with just these headers, on a connection of its own, from the address ``source``. A body that
        is not bytes goes as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self.collect, timeout=timeout_s, source_address=(source, 0)
        )
        try:
            connection.request(method, path, data, headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def command(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A command of the CLI on this node."""
        return subprocess.run(
            [sys.executable, "-m", "headwater", *words, "--data", str(self.data)],
            env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def sql(self, query: str) -> list[dict[str, Any]]:
        done = self.command("sql", "--json", query)
        assert done.returncode == 0, done.stderr + done.stdout
        return list(json.loads(done.stdout))

    def reconcile(self) -> list[dict[str, Any]]:
        done = self.command("reconcile", "--json")
        assert done.stdout, done.stderr
        return list(json.loads(done.stdout))

    def wait_rows(self, count: int, timeout_s: float = 30, where: str = "true") -> None:
        """Until the warehouse holds so many events."""

        def there() -> bool:
            done = self.command("sql", "--json", f"select count(*) as n from events where {where}")
            return done.returncode == 0 and json.loads(done.stdout)[0]["n"] >= count

        wait_for(there, timeout_s, self.log, interval_s=0.2)

    def wait_settled(self, timeout_s: float = 60) -> list[dict[str, Any]]:
        """Until nothing is pending; the reconciliation then."""
        last: list[dict[str, Any]] = []

        def settled() -> bool:
            nonlocal last
            done = self.command("reconcile", "--json")
            if done.returncode not in (0, 1) or not done.stdout.strip().startswith("["):
                return False
            last = list(json.loads(done.stdout))
            return all(s["pending"] == 0 for s in last)

        wait_for(settled, timeout_s, lambda: f"{last}\n{self.log()}", interval_s=0.3)
        return last


def wait_for(
    condition: Callable[[], bool],
    timeout_s: float,
    about: Callable[[], str] = str,
    *,
    interval_s: float = 0.05,
) -> None:
    """Poll until true; AssertionError with what ``about`` tells when the time is over."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {about()}")
        time.sleep(interval_s)


def children(pid: int) -> list[int]:
    """All processes below one."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children") if Path(f"/proc/{pid}").exists() else ():
        try:
            direct = [int(p) for p in task.read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [child, *children(child)]
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def unique(values: Iterable[Any]) -> set[Any]:
    """The set of values; AssertionError that names doubles."""
    seen: set[Any] = set()
    doubles = [v for v in values if v in seen or seen.add(v)]  # type: ignore[func-returns-value]
    assert not doubles, f"more than once: {doubles[:5]} and {len(doubles)} in all"
    return seen
