"""Real Kafka brokers on loopback: one, or a cluster of three.

The jars come from `make parts` (tests/parts.py). A broker formats nothing: `meta.properties` is written beside its
empty data, which is all that a KRaft node needs. The first broker that ever ends by TERM leaves a class-data archive
in the cache, which halves the start of all later ones (2 s instead of 4).

A broker ends with the process that started it, whatever happens to that one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from headwater.kit.clock import SystemClock
from headwater.kit.signals import end_with_parent
from tests.parts import MAVEN, free_ports, require_part

ARCHIVE = MAVEN / "kafka.jsa"
CLUSTER_ID = "SGVhZHdhdGVyLXRlc3RzIQ"
JAVA_FLAGS = (
    "-Xms128m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.net.preferIPv4Stack=true",
    "-Xlog:disable",
)
READY_S = 100
STOP_S = 20
LOG = """\
status = error
rootLogger.level = warn
rootLogger.appenderRef.c.ref = C
appender.c.type = Console
appender.c.name = C
appender.c.layout.type = PatternLayout
appender.c.layout.pattern = %d{ISO8601} %p %c{1} %m%n
"""
# A broker that was killed may not come back before its old registration has ended: 9 s by default.
SETTINGS = """\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
num.network.threads=2
num.io.threads=4
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=2097152
log.retention.check.interval.ms=1000
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
"""
ALONE = """\
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""
TOGETHER = """\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
controller.quorum.election.timeout.ms=300
controller.quorum.fetch.timeout.ms=600
replica.lag.time.max.ms=2000
"""


class Broker:
    """One broker process that can be stopped, killed and started again on the same data and port."""

    def __init__(
        self, folder: Path, node: int, port: int, controllers: dict[int, int], extra: Sequence[str] = ()
    ) -> None:
        """``controllers``: the controller port of every node, this one's included."""
        self.folder = folder
        self.jars = require_part("kafka")
        self.java = require_part("java")
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.archive: Path | None = None
        data = folder / "data"
        data.mkdir(parents=True)
        directory = urlsafe_b64encode(f"headwater-test-{node}".encode()[:16].ljust(16, b"-")).decode()[:22]
        (data / "meta.properties").write_text(
            f"version=1\nnode.id={node}\ncluster.id={CLUSTER_ID}\ndirectory.id={directory}\n"
        )
        voters = ",".join(f"{other}@127.0.0.1:{at}" for other, at in controllers.items())
        address, control = f"PLAINTEXT://127.0.0.1:{port}", f"CONTROLLER://127.0.0.1:{controllers[node]}"
        own = (
            f"node.id={node}\ncontroller.quorum.voters={voters}\nlog.dirs={data}\n"
            f"listeners={address},{control}\nadvertised.listeners={address}\n"
        )
        kind = ALONE if len(controllers) == 1 else TOGETHER
        (folder / "server.properties").write_text("\n".join((SETTINGS, kind, own, *extra)))
        (folder / "log4j2.properties").write_text(LOG)

    @property
    def servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the process; ``ready`` waits for it."""
        flags = [*JAVA_FLAGS, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"]
        if ARCHIVE.exists():
            flags.append(f"-XX:SharedArchiveFile={ARCHIVE}")
        else:
            self.archive = ARCHIVE.with_suffix(f".{os.getpid()}")
            flags.append(f"-XX:ArchiveClassesAtExit={self.archive}")
        parent = os.getpid()
        with (self.folder / "out.log").open("ab") as out:
            self.process = subprocess.Popen(
                [
                    self.java,
                    *flags,
                    "-cp",
                    f"{self.jars}/*",
                    "kafka.Kafka",
                    self.folder / "server.properties",
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: end_with_parent(parent),  # noqa: PLW1509 - only a prctl
            )

    def ready(self) -> None:
        """Wait until its port is open, which in KRaft is when it serves."""
        clock = SystemClock()
        until_ns = clock.boot_ns() + READY_S * 1e9
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process is not None
            if self.process.poll() is not None or clock.boot_ns() > until_ns:
                raise RuntimeError(f"the broker does not come up: {self.said()}")
            clock.block(0.05)

    def said(self) -> str:
        """The last of what it printed."""
        return (self.folder / "out.log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)

    def stop(self) -> None:
        """TERM, and what it leaves for the next ones."""
        self.signal(signal.SIGTERM)
        if self.archive is not None and self.archive.exists():
            self.archive.rename(ARCHIVE)
        self.archive = None

    def signal(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Kafka:
    """A running cluster of one or more brokers, and the few things that tests ask of it."""

    def __init__(self, brokers: Sequence[Broker]) -> None:
        self.brokers = brokers
        self.servers = ",".join(broker.servers for broker in brokers)
        self.admin = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        self.topics_made = 0

    def topic(self, name: str = "topic", partitions: int = 1, config: dict[str, str] | None = None) -> str:
        """A new topic with a name that no other has."""
        self.topics_made += 1
        full = f"{name}-{self.topics_made}"
        wanted = NewTopic(full, partitions, len(self.brokers), config=config or {})
        self.admin.create_topics([wanted], request_timeout=READY_S)[full].result()
        return full

    def grow(self, topic: str, partitions: int) -> None:
        """Let a topic have more partitions."""
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()

    def leader(self, topic: str, partition: int = 0) -> int:
        """The node id of a partition's leader."""
        about = self.admin.describe_topics(TopicCollection([topic]))[topic].result()
        return int(about.partitions[partition].leader.id)


@contextmanager
def running(folder: Path, count: int = 1, extra: Sequence[str] = ()) -> Iterator[Kafka]:
    """A cluster that serves; it is gone afterwards."""
    with free_ports(2 * count) as ports:
        pass
    controllers = {node: ports[count + node - 1] for node in range(1, count + 1)}
    brokers = [
        Broker(folder / f"kafka{node}", node, ports[node - 1], controllers, extra) for node in controllers
    ]
    try:
        for broker in brokers:
            broker.start()
        for broker in brokers:
            broker.ready()
        yield Kafka(brokers)
    finally:
        if not ARCHIVE.exists():
            brokers[0].stop()
        for broker in brokers:
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)
