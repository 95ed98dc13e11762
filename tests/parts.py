"""The real parts that tests start or drive: servers, a browser, other people's trackers.

This table is the one place that names them: `scripts/parts.py` installs from it, `require_part` skips with
the reason where one is missing, and docs/parts.md is made from it. A part is found, never started, here; a
test starts what it needs itself, on a port of its own.
"""

import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from headwater.kit.rng import SystemRng

ROOT = Path(__file__).resolve().parent.parent
NPM = ROOT / ".cache" / "npm"
MAVEN = ROOT / ".cache"

# Debian keeps servers in sbin, which is not on every user's PATH.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Part:
    """One real part: what it is for, and how it is found and installed."""

    name: str
    purpose: str
    binaries: tuple[str, ...] = ()
    """Names of the program, the first one found is taken."""
    files: tuple[str, ...] = ()
    """Where it lies, when it is on nobody's PATH; the first one found is taken."""
    debian: str | None = None
    """The Debian package that brings it."""
    npm: str | None = None
    """The npm package that brings it, put in `.cache/npm`."""
    npm_version: str | None = None
    maven: tuple[str, ...] = ()
    """The artefacts (group:artefact:version) that bring it, put with all they need in `.cache/<name>`."""

    @property
    def install(self) -> str:
        """The one line that brings it."""
        if self.maven:
            return f"make parts (Maven {self.maven[0]}; needs java and mvn)"
        if self.npm:
            return f"make parts (npm {self.npm}@{self.npm_version})"
        return f"apt-get install {self.debian}"


PARTS: tuple[Part, ...] = (
    Part(
        "nginx",
        purpose="a proxy in front of the collector: client address, HTTPS flag, drain",
        binaries=("nginx",),
        debian="nginx-light",
    ),
    Part(
        "haproxy",
        purpose="the example of a load balancer in deploy/",
        binaries=("haproxy",),
        debian="haproxy",
    ),
    Part(
        "redis",
        purpose="a coordination store: one server, with Sentinel, as a Cluster",
        binaries=("redis-server",),
        debian="redis-server",
    ),
    Part(
        "redis-sentinel", purpose="failover of Redis", binaries=("redis-sentinel",), debian="redis-sentinel"
    ),
    Part("java", purpose="runs ZooKeeper and Kafka", binaries=("java",), debian="default-jre-headless"),
    Part("mvn", purpose="brings Kafka's jars", binaries=("mvn",), debian="maven"),
    Part(
        "zookeeper",
        purpose="a coordination store",
        files=("/usr/share/java/zookeeper.jar",),
        debian="zookeeper",
    ),
    Part(
        "kafka",
        purpose="a real broker, and three of them: the Kafka lane and the public Kafka channels",
        maven=(
            "org.apache.kafka:kafka_2.13:4.3.1",
            "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4",  # without it the broker says nothing at all
        ),
    ),
    Part(
        "postgres",
        purpose="a warehouse in a server of its own",
        files=tuple(f"/usr/lib/postgresql/{version}/bin/postgres" for version in range(18, 12, -1)),
        debian="postgresql",
    ),
    Part(
        "chromium",
        purpose="the browser tag and the demo page in a real browser",
        binaries=("chromium", "chromium-browser", "google-chrome"),
        debian="chromium",
    ),
    Part("zsh", purpose="shell completion", binaries=("zsh",), debian="zsh"),
    Part("fish", purpose="shell completion", binaries=("fish",), debian="fish"),
    Part(
        "systemd-analyze",
        purpose="the unit of deploy/systemd",
        binaries=("systemd-analyze",),
        debian="systemd",
    ),
    Part("wrk", purpose="load from another process", binaries=("wrk",), debian="wrk"),
    Part("node", purpose="server-side trackers written in JavaScript", binaries=("node",), debian="nodejs"),
    Part(
        "analytics-next",
        purpose="Segment's browser tracker, unmodified",
        npm="@segment/analytics-next",
        npm_version="1.84.3",
    ),
    Part(
        "analytics-node",
        purpose="Segment's Node.js tracker, unmodified",
        npm="@segment/analytics-node",
        npm_version="3.1.0",
    ),
)
BY_NAME = {part.name: part for part in PARTS}


def find_part(name: str) -> Path | None:
    """Where the program (or the folder of the npm package, or of the jars) is, or None. A package of another version
    than the table's counts as missing."""
    part = BY_NAME[name]
    if part.maven:
        jars = MAVEN / part.name
        return jars if all((jars / jar_name(artefact)).is_file() for artefact in part.maven) else None
    if part.npm:
        folder = NPM / "node_modules" / part.npm
        manifest = folder / "package.json"
        wanted = f'"version": "{part.npm_version}"'
        return folder if manifest.is_file() and wanted in manifest.read_text("utf-8") else None
    for file in map(Path, part.files):
        if file.exists():
            return file
    for binary in part.binaries:
        for path in (None, *_SBIN):
            found = shutil.which(binary, path=path)
            if found:
                return Path(found)
    return None


def jar_name(artefact: str) -> str:
    """The file of an artefact (group:artefact:version)."""
    _, name, version = artefact.split(":")
    return f"{name}-{version}.jar"


def require_part(name: str) -> Path:
    """Where the part is; the test is skipped, with the reason, when it is missing."""
    found = find_part(name)
    if found is None:
        pytest.skip(f"{name} is missing: {BY_NAME[name].install}")
    return found


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on at this moment. Two calls may give the same one: take
    several at once with `free_ports`."""
    with free_ports(1) as (port,):
        return port


PORT_FIRST, PORT_END = 12_000, 32_000


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """`count` different ports, held bound (with SO_REUSEPORT, not listening) until the block is left, so that
    no other caller gets them meanwhile. They lie below those that the system gives to clients: a node that is
    started again would find its port taken by somebody's connection."""
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            holder = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = PORT_FIRST + SystemRng().below(PORT_END - PORT_FIRST)
            if port not in ports and nobody_listens(port):
                with suppress(OSError):
                    holder.bind(("127.0.0.1", port))
                    ports.append(port)
        yield ports


def free_row(count: int) -> int:
    """The first of ``count`` ports in a row on which nobody listens; it ends in 0."""
    while True:
        first = free_port() // 10 * 10
        if all(nobody_listens(first + n) for n in range(count)):
            return first


def nobody_listens(port: int) -> bool:
    """Whether a plain bind succeeds: one with SO_REUSEPORT would, beside another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as plain:
        try:
            plain.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
