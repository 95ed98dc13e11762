"""The servers under test: how each is built, started, found ready and stopped. All bind 127.0.0.1.

`HeadwaterServer` is the place to adapt when the product's surface changes; the others are references.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from benchmarks import events, machine

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
CACHE = ROOT / ".cache" / "bench"
SERVER_CORE, LOAD_CORE = 0, 1
START_S_MAX, STOP_S_MAX = 30.0, 40.0
ROLE_MODULE = "headwater.node.role"


class Unavailable(Exception):
    """This server cannot run here (not built yet, tool missing). The report says so; other servers still run."""


class Server(ABC):
    name: str
    promise: str  # what the 2xx means, for the report

    def __init__(self, *, ack: str, port: int, folder: Path) -> None:
        self.ack, self.port, self.folder = ack, port, folder
        self.process: subprocess.Popen[bytes] | None = None
        self.cores = str(SERVER_CORE)

    def prepare(self) -> None:
        """Build what is needed, once before the rounds; raises Unavailable."""
        return

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return {}

    def role(self, command: str) -> str:
        """Groups processes in the report by what they do."""
        return "server"

    def accept_roles(self) -> tuple[str, ...]:
        """The roles that answer requests."""
        return ("server",)

    def start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.launch()
        self.wait_until_answers()

    def launch(self) -> None:
        """Starts the process on what the folder holds; nobody waits for it."""
        output = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            ["taskset", "-c", self.cores, *self.command()],
            env={**os.environ, **self.environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            start_new_session=True,
        )
        output.close()

    def wait_until_answers(self) -> None:
        deadline = time.monotonic() + START_S_MAX
        while not self.answers():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                self.stop()
                raise Unavailable(f"{self.name} did not start: {said.strip() or 'no output'}")
            time.sleep(0.05)

    def answers(self) -> bool:
        return get(self.port, "/ping")[0] == 200

    def tree(self) -> dict[int, machine.Process]:
        assert self.process is not None
        return machine.tree(self.process.pid)

    def stop(self) -> None:
        """SIGTERM to the root, then SIGKILL to whatever of its own tree is left; removes the data."""
        if self.process is None:
            return
        mine = set(self.tree())
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                print(f"  {self.name}: did not stop within {STOP_S_MAX:.0f} s, killed", file=sys.stderr)
        for pid in mine & set(self.tree()):
            kill(pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 5
        while self.tree() and time.monotonic() < deadline:  # whoever still writes would bring the folder back
            time.sleep(0.02)
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)


def get(port: int, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
    """(status, body); (0, b"") when nothing answers."""
    return ask(port, "GET", path, None, timeout_s)


def post_json(port: int, path: str, value: object, timeout_s: float = 60.0) -> tuple[int, bytes]:
    """The same for a POST."""
    return ask(port, "POST", path, json.dumps(value), timeout_s)


def ask(port: int, method: str, path: str, body: str | None, timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class CLoop(Server):
    """Blocks with O_DIRECT, which is the better C and therefore what ratios are taken to."""

    name = "C loop"
    promise = "on disk (fdatasync)"
    binary = CACHE / "accept"
    buffered = False

    def prepare(self) -> None:
        source = HERE / "reference" / "accept.c"
        if shutil.which("cc") is None:
            raise Unavailable("no C compiler")
        if self.binary.exists() and self.binary.stat().st_mtime > max(
            f.stat().st_mtime for f in source.parent.glob("*.[ch]")
        ):
            return
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-O2", "-march=native", "-pthread", "-Wall", *_xxhash_include()]
        command += [str(source), "-o", str(self.binary)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"accept.c did not compile: {done.stderr[-1000:]}")

    def command(self) -> list[str]:
        more = (["--memory"] if self.ack == "memory" else []) + (["--buffered"] if self.buffered else [])
        data, keep_mb = str(self.folder / "raw"), "4096"
        command = [str(self.binary), "--port", str(self.port), "--dir", data, "--key", events.KEY]
        return [*command, "--keep-mb", keep_mb, *more]


class CLoopBuffered(CLoop):
    """Blocks through the page cache: to be compared with a server that writes so too."""

    name = "C loop buffered"
    buffered = True


def _xxhash_include() -> list[str]:
    """The system's xxhash.h, or else the one that pyarrow carries."""
    if Path("/usr/include/xxhash.h").exists():
        return []
    import pyarrow

    vendored = Path(pyarrow.get_include()) / "arrow" / "vendored" / "xxhash"
    if not (vendored / "xxhash.h").exists():
        raise Unavailable("no xxhash.h (apt install libxxhash-dev)")
    return [f"-I{vendored}"]


class Granian(Server):
    name = "granian"
    promise = "on disk (fdatasync)"

    def prepare(self) -> None:
        try:
            import granian  # noqa: F401
        except ImportError:
            raise Unavailable("granian is not installed (extra `bench`)") from None

    def command(self) -> list[str]:
        options = (
            f"--interface rsgi --host 127.0.0.1 --port {self.port} --workers 1 --runtime-threads 1 --loop uvloop"
            " --http 1 --no-ws --backpressure 2048 --log-level warning benchmarks.reference.granian_app:app"
        )
        return [sys.executable, "-m", "granian", *options.split()]

    def environment(self) -> dict[str, str]:
        return {
            "BENCH_KEY": events.KEY,
            "BENCH_DIR": str(self.folder / "raw"),
            "BENCH_MEMORY": "1" if self.ack == "memory" else "0",
        }


class Nginx(Server):
    name = "nginx return 200"
    promise = "nothing"

    def prepare(self) -> None:
        if shutil.which("nginx") is None:
            raise Unavailable("nginx is not installed")

    def command(self) -> list[str]:
        text = (HERE / "reference" / "nginx.conf.in").read_text()
        path = self.folder / "nginx.conf"
        path.write_text(text.replace("@DIR@", str(self.folder)).replace("@PORT@", str(self.port)))
        return ["nginx", "-c", str(path), "-p", str(self.folder)]


class HeadwaterServer(Server):
    """A whole node: `headwater run` with its collect, process, deliver and ops processes.

    `destination=False` is for the accept workloads: no destination, and processing is held by SIGSTOP. What is then
    measured is the collect process; supervisor and the rest are in the tree's number, which stands beside it. The
    supervisor watches for ends of processes only, so a held one is nothing to it; /ready would warn.
    """

    name = "headwater"
    promise = "on disk (fdatasync)"

    def __init__(self, *, ack: str, port: int, folder: Path, destination: bool = False) -> None:
        super().__init__(ack=ack, port=port, folder=folder)
        self.ops_port, self.destination = port + 1, destination
        self.data = folder / "data"
        self.data_bytes_max = 0  # 0: so much that no quota is met
        self.paused: list[int] = []

    def prepare(self) -> None:
        command = [sys.executable, "-m", "headwater", "version"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["?"])[-1]
            raise Unavailable(f"headwater does not run here: {said}")

    def configuration(self) -> str:
        # JSON is YAML: no library needed to write it.
        settings: dict[str, object] = {
            "collect": {"listen": f"127.0.0.1:{self.port}", "workers": 1},
            "ops": {"listen": f"127.0.0.1:{self.ops_port}"},
            "keys": [{"id": "web", "secret": "${env.WEB_KEY}", "origins": ["*"], "ack": self.ack}],
            "data_bytes_max": self.data_bytes_max or data_bytes_max(self.folder),
        }
        if self.destination:
            settings["destinations"] = {"warehouse": {"type": "duckdb", "path": "warehouse.duckdb"}}
        return json.dumps(settings, indent=2)

    def command(self) -> list[str]:
        path = self.folder / "headwater.yaml"
        path.write_text(self.configuration())
        return [sys.executable, "-m", "headwater", "run", "--config", str(path), "--data", str(self.data)]

    def environment(self) -> dict[str, str]:
        return {"WEB_KEY": events.KEY}

    def role(self, command: str) -> str:
        """`python -m headwater.node.role ROLE INSTANCE …`; the one that starts them is the supervisor."""
        words = command.split()
        return words[words.index(ROLE_MODULE) + 1] if ROLE_MODULE in words else "supervisor"

    def accept_roles(self) -> tuple[str, ...]:
        return ("collect",)

    def answers(self) -> bool:
        """Whether every process runs: accepting is not enough, since processing may be held the next moment."""
        status, body = get(self.ops_port, "/ready")
        return status == 200 and not json.loads(body)["warnings"] and super().answers()

    def start(self) -> None:
        super().start()
        if not self.destination:
            self.pause()

    def stop(self) -> None:
        """Drains in order; a node whose processing is held is killed, since nobody wants its events."""
        if self.process is not None and not self.destination:
            for pid in {self.process.pid, *self.tree()}:
                kill(pid, signal.SIGKILL)
        self.go_on()
        super().stop()

    def pause(self) -> None:
        """Holds processing and delivery, so that the door alone works."""
        for pid, p in self.tree().items():
            if self.role(p.command) in ("process", "deliver"):
                kill(pid, signal.SIGSTOP)
                self.paused.append(pid)

    def go_on(self) -> None:
        for pid in self.paused:
            kill(pid, signal.SIGCONT)
        self.paused.clear()

    # -- questions to the running node --

    def ledger(self) -> dict[str, Any]:
        """The conservation ledger of the stream that is measured, as `headwater reconcile --json` prints it."""
        command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "headwater", "reconcile", "--json"]
        command += ["--data", str(self.data)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
        if not done.stdout.strip():
            raise RuntimeError(f"headwater reconcile: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        ledger: dict[str, Any] = next((one for one in json.loads(done.stdout) if one["stream"] == "web"), {})
        if done.returncode or not ledger or not ledger["holds"]:
            raise RuntimeError(f"the ledger does not hold: {ledger.get('problems', 'no stream `web`')}")
        return ledger

    def rows(self) -> int:
        """Rows of `events`, asked of the node's own SQL; 0 before there is a table."""
        status, body = post_json(self.ops_port, "/api/sql", {"query": "select count(*) as n from events"})
        answer = json.loads(body) if body else {}
        if status == 200:
            return int(answer["rows"][0]["n"])
        if "events does not exist" in str(answer):
            return 0
        raise RuntimeError(f"/api/sql answered {status}: {answer}")

    def report(self, role: str) -> dict[str, Any]:
        """What a process of the running node last said of itself (`run/reports`), {} where it said nothing yet."""
        path = self.data / "run" / "reports" / f"{role}.json"
        try:
            return dict(json.loads(path.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def processed_events(self) -> int:
        """As the processor last said, at most two seconds ago; cumulative over all starts."""
        streams = self.report("process-0").get("detail", {}).get("counters", {})
        return sum(int(counters["in"]) for counters in streams.values())

    def delivered_rows(self) -> int:
        """The same of the deliverer."""
        one = self.report("deliver-warehouse").get("detail", {}).get("destinations", {}).get("warehouse", {})
        return sum(int(counts.get("rows", 0)) for counts in one.get("streams", {}).values())

    def delivered(self, receipt: str) -> bool:
        """Whether the event of this receipt is in the warehouse, by the ops address."""
        status, body = get(self.ops_port, f"/api/where?receipt={receipt}")
        if status != 200:
            raise RuntimeError(f"/api/where answered {status}: {body[:300]!r}")
        return bool(json.loads(body)["destinations"].get("warehouse"))


def data_bytes_max(folder: Path) -> int:
    """Room enough that no quota is met; half of a small disk."""
    return min(40 << 30, shutil.disk_usage(folder).free // 2)


def kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
