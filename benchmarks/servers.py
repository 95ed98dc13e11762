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
START_S_MAX, STOP_S_MAX = 30.0, 30.0


class Unavailable(Exception):
    """This server cannot run here (not built yet, tool missing). The report says so; other servers still run."""


class Server(ABC):
    name: str
    promise: str  # what the 2xx means, for the report

    def __init__(self, *, ack: str, port: int, folder: Path) -> None:
        self.ack, self.port, self.folder = ack, port, folder
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Build what is needed, once before the rounds; raises Unavailable."""

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
        output = (self.folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *self.command()],
            env={**os.environ, **self.environment()},
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        output.close()
        deadline = time.monotonic() + START_S_MAX
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
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
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)


def get(port: int, path: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """(status, body); (0, b"") when nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
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
        if self.binary.exists() and self.binary.stat().st_mtime > max(f.stat().st_mtime for f in source.parent.glob("*.[ch]")):
            return
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-O2", "-march=native", "-pthread", "-Wall", *_xxhash_include(), str(source), "-o", str(self.binary)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"accept.c did not compile: {done.stderr[-1000:]}")

    def command(self) -> list[str]:
        more = (["--memory"] if self.ack == "memory" else []) + (["--buffered"] if self.buffered else [])
        return [str(self.binary), "--port", str(self.port), "--dir", str(self.folder / "raw"), "--key", events.KEY, "--keep-mb", "4096", *more]


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
        return [
            sys.executable, "-m", "granian", "--interface", "rsgi", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", "1", "--runtime-threads", "1", "--loop", "uvloop", "--http", "1", "--no-ws", "--backpressure", "2048",
            "--log-level", "warning", "benchmarks.reference.granian_app:app",
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {"BENCH_KEY": events.KEY, "BENCH_DIR": str(self.folder / "raw"), "BENCH_MEMORY": "1" if self.ack == "memory" else "0"}


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
    """A whole node. Adapt here: the configuration text, `role`, `pause`, and the questions at the end.

    `destination=False` starts it for the accept workloads: no destinations, processing paused. What is then measured is
    the collect process; supervisor and the rest are in the tree's number, which stands beside it.
    """

    name = "headwater"
    promise = "on disk (fdatasync)"

    def __init__(self, *, ack: str, port: int, folder: Path, destination: bool = False) -> None:
        super().__init__(ack=ack, port=port, folder=folder)
        self.ops_port, self.destination = port + 1, destination
        self.data = folder / "data"
        self.paused: list[int] = []

    def prepare(self) -> None:
        done = subprocess.run([sys.executable, "-m", "headwater", "--help"], check=False, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise Unavailable(f"headwater is not built here: {(done.stderr.strip().splitlines() or ['?'])[-1]}")

    def configuration(self) -> str:
        # JSON is YAML: no library needed to write it.
        text: dict[str, object] = {
            "collect": {"listen": f"127.0.0.1:{self.port}", "workers": 1},
            "ops": {"listen": f"127.0.0.1:{self.ops_port}"},
            "keys": [{"id": "web", "secret": "${env.WEB_KEY}", "origins": ["*"], "ack": self.ack}],
        }
        if self.destination:
            text["destinations"] = {"warehouse": {"type": "duckdb", "path": "warehouse.duckdb"}}
        return json.dumps(text, indent=2)

    def command(self) -> list[str]:
        path = self.folder / "headwater.yaml"
        path.write_text(self.configuration())
        return [sys.executable, "-m", "headwater", "run", "--config", str(path), "--data", str(self.data)]

    def environment(self) -> dict[str, str]:
        return {"WEB_KEY": events.KEY}

    def role(self, command: str) -> str:
        # "process" is looked for as a word, so that paths and options do not match
        words = command.split()
        return next((r for r in ("collect", "process", "deliver") if r in words), "supervisor")

    def accept_roles(self) -> tuple[str, ...]:
        return ("collect",)

    def start(self) -> None:
        super().start()
        if not self.destination:
            self.pause()

    def stop(self) -> None:
        self.go_on()
        super().stop()

    def pause(self) -> None:
        """Holds processing and delivery, so that the door alone is measured. SIGSTOP, until the node offers better."""
        for pid, p in self.tree().items():
            if self.role(p.command) in ("process", "deliver"):
                os.kill(pid, signal.SIGSTOP)
                self.paused.append(pid)

    def go_on(self) -> None:
        for pid in self.paused:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.paused.clear()

    # -- questions to the running node --

    def ask(self, *words: str) -> Any:
        """`headwater WORDS --data DIR`, on the load's core; its answer as JSON."""
        command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "headwater", *words, "--data", str(self.data)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
        if done.returncode:
            raise Unavailable(f"headwater {' '.join(words)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        return json.loads(done.stdout)

    def counts(self) -> dict[str, int]:
        """Events `accepted`, `delivered`, `duplicate`, `dead`, `filtered`, `pending`, summed over streams."""
        answer = self.ask("reconcile", "--json")
        streams = answer if isinstance(answer, list) else [answer]
        total: dict[str, int] = {}
        for stream in streams:
            for name, value in stream.items():
                if isinstance(value, int) and not isinstance(value, bool):
                    total[name] = total.get(name, 0) + value
        return total

    def rows(self) -> int:
        """Rows of `events`, asked of the node's own SQL."""
        answer = self.ask("sql", "--json", "select count(*) as n from events")
        return int(answer[0]["n"])

    def delivered(self, receipt: str) -> bool:
        """Whether the event of this receipt is in the warehouse, by the ops address."""
        status, body = get(self.ops_port, f"/api/where?receipt={receipt}")
        if status == 404:
            return False
        if status != 200:
            raise Unavailable(f"/api/where answered {status}")
        places: dict[str, Any] = json.loads(body).get("destinations", {})
        return bool(places) and all(p in (True, "delivered") or (isinstance(p, dict) and p.get("delivered")) for p in places.values())
