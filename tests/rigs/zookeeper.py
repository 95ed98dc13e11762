"""Real ZooKeeper: one node, or an ensemble of three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.parts import free_ports, require_part
from tests.rigs.server import Server, ask, until

JAVA = (
    "-Xms32m",
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dzookeeper.root.logger=WARN,CONSOLE",
)
MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
HEAL_S = 30.0


class ZooKeeper:
    """An ensemble of ``count`` nodes; sessions from half a second on."""

    def __init__(self, folder: Path, count: int = 1) -> None:
        self.folder = folder
        with free_ports(3 * count) as ports:
            self.ports, others = ports[:count], ports[count:]
        pairs = list(zip(others[::2], others[1::2], strict=True))
        lines = [f"server.{n}=127.0.0.1:{a}:{b}" for n, (a, b) in enumerate(pairs, 1)] if count > 1 else []
        self.servers = {port: self.server(n, port, lines) for n, port in enumerate(self.ports, 1)}

    def server(self, number: int, port: int, lines: list[str]) -> Server:
        folder = self.folder / str(number)
        classes = f"/etc/zookeeper/conf:{require_part('zookeeper')}"
        server = Server([str(require_part("java")), *JAVA, "-cp", classes, MAIN, "zoo.cfg"], folder)
        (folder / "data").mkdir()
        (folder / "data" / "myid").write_text(f"{number}\n")
        config = [
            "tickTime=500", "initLimit=20", "syncLimit=6", f"dataDir={folder / 'data'}", f"clientPort={port}",
            "clientPortAddress=127.0.0.1", "admin.enableServer=false", "4lw.commands.whitelist=*",
            "minSessionTimeout=500", "maxSessionTimeout=40000", *lines,
        ]  # fmt: skip
        (folder / "zoo.cfg").write_text("\n".join(config) + "\n")
        return server

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "type": "zookeeper",
            "nodes": [f"127.0.0.1:{port}" for port in self.ports],
            "chroot": "/tests/stores",
            "user": "headwater",
            "password": "zookeeper-secret-83",
        }

    def up(self) -> None:
        for server in self.servers.values():
            server.start()
        until(lambda: all("Mode:" in ask(port, b"srvr") for port in self.ports), HEAL_S, self.state)

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

    def kill_master(self) -> None:
        """Kill the node that leads."""
        (port,) = [port for port in self.ports if "Mode: leader" in ask(port, b"srvr")]
        self.servers[port].kill()

    def state(self) -> str:
        return "\n".join(server.said() for server in self.servers.values())

    def close(self) -> None:
        self.down()
