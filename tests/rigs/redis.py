"""Real Redis: one server, a master with replicas under sentinels, a Cluster.

Every rig says what a store is given to reach it (``settings``), and can be made to fail and to heal: ``down`` and
``up`` (all of it), ``kill_master`` (returns when it is dead) and ``heal`` (everything runs and is in sync again).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.parts import free_port, free_ports, require_part
from tests.rigs.server import Server, ask, until

NODE_TIMEOUT_MS = 1000
HEAL_S = 30.0


def redis_server(folder: Path, port: int, *options: str) -> Server:
    """A server that keeps nothing unless it is told to."""
    binary = str(require_part("redis"))
    plain = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    return Server([binary, *plain, "--repl-diskless-sync-delay", "0", *options], folder)


def info(port: int, section: str, password: str = "") -> dict[str, str]:
    """What INFO tells, or nothing while there is no answer."""
    login = f"AUTH {password}\r\n" if password else ""
    told = ask(port, f"{login}INFO {section}\r\n".encode(), is_whole)
    return dict(line.partition(":")[::2] for line in told.splitlines() if ":" in line)


def is_whole(said: bytes) -> bool:
    """Whether a text of announced length, or an error, is there. (A sentinel knows no QUIT.)"""
    announced = re.search(rb"\$(\d+)\r\n", said)
    if announced is None:
        return said.startswith(b"-") and said.endswith(b"\r\n")
    return len(said) >= announced.end() + int(announced[1]) + 2


class Single:
    """One server on which everything can be done to."""

    def __init__(self, folder: Path, *options: str, password: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.password = password
        login = ("--requirepass", password) if password else ()
        self.server = redis_server(folder, self.port, *login, *options)
        self.dump = folder / "dump.rdb"

    @property
    def settings(self) -> dict[str, Any]:
        return {"url": f"redis://127.0.0.1:{self.port}", "password": self.password}

    def up(self) -> None:
        self.server.start()
        until(lambda: "redis_version" in info(self.port, "server", self.password), 10, self.server.said)

    def down(self) -> None:
        self.server.kill()

    def heal(self) -> None:
        self.up()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    def save(self) -> Path:
        """What it knows now, as a file beside its own."""
        login = f"AUTH {self.password}\r\n" if self.password else ""
        assert "+OK" in ask(self.port, f"{login}SAVE\r\nQUIT\r\n".encode())
        return Path(shutil.copy(self.dump, self.folder / "older.rdb"))

    def put_back(self, older: Path) -> None:
        """Stop it, give it the older file, start it."""
        self.server.kill()
        shutil.copy(older, self.dump)
        self.up()

    def close(self) -> None:
        self.server.kill()


class Sentinels:
    """A master, two replicas, three sentinels; a failover takes about two seconds."""

    master_name = "main"

    def __init__(self, folder: Path, *, password: str = "redis-secret-81") -> None:
        self.folder = folder
        self.password = password
        with free_ports(6) as ports:
            self.ports, self.sentinel_ports = ports[:3], ports[3:]
        login = ("--requirepass", password, "--masterauth", password)
        first = f"127.0.0.1 {self.ports[0]}"
        self.servers = {
            port: redis_server(
                folder / str(port), port, *login, *(("--replicaof", first) if port != self.ports[0] else ())
            )
            for port in self.ports
        }
        self.sentinels = {port: self.sentinel(port) for port in self.sentinel_ports}

    def sentinel(self, port: int) -> Server:
        folder = self.folder / f"sentinel-{port}"
        server = Server([str(require_part("redis-sentinel")), "sentinel.conf"], folder)
        name = self.master_name
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {name} 127.0.0.1 {self.ports[0]} 2\n"
            f"sentinel auth-pass {name} {self.password}\n"
            f"sentinel down-after-milliseconds {name} 1000\n"
            f"sentinel failover-timeout {name} 3000\nsentinel parallel-syncs {name} 1\n"
        )
        return server

    @property
    def settings(self) -> dict[str, Any]:
        """The address of one sentinel: the others are found."""
        one = f"127.0.0.1:{self.sentinel_ports[0]}"
        return {"url": f"sentinel://{self.master_name}:{self.password}@{one}"}

    def up(self) -> None:
        """Servers that come back are told their place at once; the sentinels would take ten seconds."""
        master = self.named()
        for port, server in self.servers.items():
            if not server.runs:
                server.start()
                place = "NO ONE" if port == master else f"127.0.0.1 {master}"
                until(lambda port=port, place=place: self.placed(port, place), 10, server.said)  # type: ignore[misc]
        until(self.in_sync, HEAL_S, self.state)
        for sentinel in self.sentinels.values():
            sentinel.start()
        until(self.watched, HEAL_S, self.state)

    def named(self) -> int:
        """Port of the master that the sentinels last agreed on, from their files."""
        files = [(server.folder / "sentinel.conf").read_text() for server in self.sentinels.values()]
        epochs = [re.search(r"^sentinel config-epoch \S+ (\d+)", text, re.M) for text in files]
        newest = files[max(range(3), key=lambda n: int(epochs[n][1]) if epochs[n] else 0)]  # type: ignore[index]
        found = re.search(r"^sentinel monitor \S+ \S+ (\d+)", newest, re.M)
        assert found
        return int(found[1])

    def placed(self, port: int, place: str) -> bool:
        words = f"AUTH {self.password}\r\nREPLICAOF {place}\r\nQUIT\r\n"
        return "OK\r\n+OK" in ask(port, words.encode())

    def heal(self) -> None:
        self.up()

    def down(self) -> None:
        for server in (*self.sentinels.values(), *self.servers.values()):
            server.kill()

    def kill_master(self) -> None:
        self.servers[self.master].kill()

    def freeze(self) -> None:
        for server in (*self.sentinels.values(), *self.servers.values()):
            server.freeze()

    def thaw(self) -> None:
        for server in (*self.servers.values(), *self.sentinels.values()):
            server.thaw()

    @property
    def master(self) -> int:
        """Port of the master, by the servers' own word."""
        (port,) = [port for port, told in self.replication().items() if told.get("role") == "master"]
        return port

    def replication(self) -> dict[int, dict[str, str]]:
        return {port: info(port, "replication", self.password) for port in self.ports}

    def in_sync(self) -> bool:
        told = list(self.replication().values())
        roles = sorted(one.get("role", "") for one in told)
        links = [one.get("master_link_status") for one in told if one.get("role") == "slave"]
        return roles == ["master", "slave", "slave"] and links == ["up", "up"]

    def watched(self) -> bool:
        """All sentinels name the master that is one, and know each other and both replicas."""
        wanted = f"status=ok,address=127.0.0.1:{self.master},slaves=2,sentinels=3"
        return all(wanted in info(port, "sentinel").get("master0", "") for port in self.sentinel_ports)

    def state(self) -> str:
        told = {port: info(port, "sentinel").get("master0") for port in self.sentinel_ports}
        return f"{self.replication()} {told}"

    def close(self) -> None:
        self.down()


class Cluster:
    """Three masters with a replica each."""

    def __init__(self, folder: Path, *, password: str = "redis-secret-82") -> None:
        self.folder = folder
        self.password = password
        with free_ports(12) as ports:
            self.ports, bus = ports[:6], ports[6:]
        options = [
            "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
            "--cluster-node-timeout", str(NODE_TIMEOUT_MS),
            "--cluster-require-full-coverage", "no", "--cluster-announce-ip", "127.0.0.1",
            "--requirepass", password, "--masterauth", password,
        ]  # fmt: skip
        self.servers = {
            port: redis_server(folder / str(port), port, *options, "--cluster-port", str(among_themselves))
            for port, among_themselves in zip(self.ports, bus, strict=True)
        }
        self.made = False

    @property
    def settings(self) -> dict[str, Any]:
        """Addresses of two nodes: the others are found."""
        return {"nodes": [f"127.0.0.1:{port}" for port in self.ports[:2]], "password": self.password}

    def up(self) -> None:
        for port, server in self.servers.items():
            server.start()
            until(lambda port=port: bool(info(port, "server", self.password)), 10, server.said)  # type: ignore[misc]
        if not self.made:
            self.make()
        until(self.in_sync, HEAL_S, self.state)

    def make(self) -> None:
        addresses = [f"127.0.0.1:{port}" for port in self.ports]
        command = ["redis-cli", "-a", self.password, "--no-auth-warning", "--cluster", "create", *addresses]
        done = subprocess.run(
            [*command, "--cluster-replicas", "1", "--cluster-yes"],
            check=False,
            capture_output=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stdout.decode()
        self.made = True

    def heal(self) -> None:
        self.up()

    def down(self) -> None:
        for server in self.servers.values():
            server.kill()

    def freeze(self) -> None:
        for server in self.servers.values():
            server.freeze()

    def thaw(self) -> None:
        for server in self.servers.values():
            server.thaw()

    def kill_master_of(self, key: str) -> None:
        """Kill the node that keeps this key."""
        slot = int(self.say(self.alive(), f"CLUSTER KEYSLOT {key}").strip().lstrip(":"))
        for line in self.say(self.alive(), "CLUSTER NODES").splitlines():
            words = line.split()
            if len(words) > 8 and "master" in words[2] and any(holds(part, slot) for part in words[8:]):
                self.servers[int(words[1].partition("@")[0].rpartition(":")[2])].kill()
                return
        raise AssertionError(self.state())

    def alive(self) -> int:
        return next(port for port, server in self.servers.items() if server.runs)

    def say(self, port: int, words: str) -> str:
        """One command's answer, without the answers around it."""
        told = ask(port, f"AUTH {self.password}\r\n{words}\r\nQUIT\r\n".encode())
        return told.removeprefix("+OK\r\n").removesuffix("+OK\r\n")

    def in_sync(self) -> bool:
        roles = [info(port, "replication", self.password) for port in self.ports]
        replicas = [one for one in roles if one.get("role") == "slave"]
        return (
            all("cluster_state:ok" in self.say(port, "CLUSTER INFO") for port in self.ports)
            and len(replicas) == 3
            and all(one.get("master_link_status") == "up" for one in replicas)
        )

    def state(self) -> str:
        return self.say(self.alive(), "CLUSTER NODES")

    def close(self) -> None:
        self.down()


def holds(part: str, slot: int) -> bool:
    """Whether ``0-5460`` or ``7`` holds the slot."""
    first, _, last = part.partition("-")
    return first.isdecimal() and int(first) <= slot <= int(last or first)
