"""The example files in deploy/ are accepted by the programs that they are for."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater.node import configuration
from tests.journeys.running import wait_for
from tests.parts import ROOT

DOCKER = ROOT / "deploy" / "docker"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key, file = tmp_path / "key.pem", tmp_path / "star.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x",
         "-keyout", str(key), "-out", str(file)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    file.write_text(file.read_text() + key.read_text())
    return file


@pytest.mark.slow
@pytest.mark.real("nginx")
def test_nginx_accepts_its_example(tmp_path: Path, certificate: Path) -> None:
    site = (ROOT / "deploy/nginx/headwater.conf").read_text()
    for name in ("/etc/nginx/star.example.com.pem", "/etc/nginx/star.example.com.key"):
        site = site.replace(name, str(certificate))
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}} http {{ {site}\n}}")
    done = subprocess.run(["nginx", "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.real("haproxy")
def test_haproxy_accepts_its_example(tmp_path: Path, certificate: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    text = (ROOT / "deploy/haproxy/haproxy.cfg").read_text()
    config.write_text(text.replace("/etc/haproxy/star.example.com.pem", str(certificate)))
    done = subprocess.run(["haproxy", "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.real("systemd-analyze")
def test_systemd_accepts_its_example(tmp_path: Path) -> None:
    unit = (
        (ROOT / "deploy/systemd/headwater.service")
        .read_text()
        .replace("/opt/headwater/bin/headwater", "/bin/true")
    )
    file = tmp_path / "headwater.service"
    file.write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if "headwater" in line]
    assert (done.returncode, told) == (0, []), done.stderr


# -- containers: there is no docker here, so what can be checked without one is


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of deploy/compose.yaml."""
    return dict(yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"])


def node_settings(tmp_path: Path) -> Any:
    """What a replica runs with."""
    for name in ("web", "cluster", "admin"):
        (tmp_path / name).write_text(f"secret-of-{name}-0123456789\n")
    environment = {"HEADWATER_SECRETS": str(tmp_path), "HEADWATER_NODE": "node-1"}
    return configuration.read(str(DOCKER / "headwater.yaml"), str(tmp_path), environment).settings


def test_replicas_can_be_scaled_and_keep_what_they_have(services: dict[str, Any]) -> None:
    node = services["node"]
    assert (
        not {"container_name", "ports", "hostname", "network_mode"} & node.keys()
    )  # these bind it to one replica
    assert node["volumes"] == ["data:/var/lib/headwater"]  # named: it outlives `docker compose down`
    file = (ROOT / "deploy/Dockerfile").read_text()
    assert "VOLUME /var/lib/headwater" in file and "chown headwater: /var/lib/headwater" in file
    assert (ROOT / "deploy" / node["build"]["context"] / node["build"]["dockerfile"]).samefile(
        ROOT / "deploy/Dockerfile"
    )
    for line in file.splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            assert all((ROOT / word).exists() for word in words[1:-1]), line


def test_a_replica_gets_the_time_that_its_drain_takes(services: dict[str, Any], tmp_path: Path) -> None:
    settings = node_settings(tmp_path)
    drain_s = settings.shutdown_delay + settings.shutdown_timeout + settings.drain_timeout_s
    assert int(services["node"]["stop_grace_period"].removesuffix("s")) > drain_s + 10
    assert settings.shutdown_delay > 2 * 1 + 1  # the balancer looks each second and believes the second look


def test_compose_and_the_configuration_of_a_node_name_the_same_things(
    services: dict[str, Any], tmp_path: Path
) -> None:
    settings = node_settings(tmp_path)
    assert settings.cluster.store.url == "redis://redis:6379" and "redis" in services
    door = (DOCKER / "haproxy.cfg").read_text()
    port = settings.collect.listen.rpartition(":")[2]
    assert f" node:{port} " in door and services["node"]["expose"] == [port]
    assert "GET /ready" in door and "/ready" in " ".join(services["node"]["healthcheck"]["test"])
    inside = {name for name, service in services.items() if "ports" not in service}
    assert inside == {"node", "redis"}  # nobody outside speaks with nodes or Redis
    for name, service in services.items():
        assert service["networks"] == ["inside"] and "healthcheck" in service, name
    for one in services["door"]["volumes"]:
        assert (ROOT / "deploy" / one.split(":")[0]).is_file()


@pytest.mark.slow
@pytest.mark.real("haproxy")
def test_haproxy_accepts_the_door_of_compose() -> None:
    command = ["haproxy", "-c", "-f", str(DOCKER / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


PRETENDED = """#!/bin/sh
if [ "$1" = keys ]; then exec {python} -m headwater "$@"; fi
echo "$HEADWATER_NODE $*"
exec sleep 60
"""


@pytest.mark.slow
def test_each_replica_takes_a_folder_of_its_own_and_a_new_one_goes_on_with_what_was_left(
    tmp_path: Path,
) -> None:
    """The real entrypoint on one folder, as replicas have one volume; only the node itself is pretended."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "headwater"
    program.write_text(PRETENDED.format(python=sys.executable))
    program.chmod(0o755)
    root = tmp_path / "volume"
    running: list[subprocess.Popen[bytes]] = []

    def replica(number: int) -> None:
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "HEADWATER_ROOT": str(root),
            "HEADWATER_DATA": str(tmp_path / f"link-{number}"),
        }
        with (tmp_path / f"said-{number}").open("wb") as said:
            command = [str(DOCKER / "entrypoint.sh")]
            running.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))

    def named(number: int) -> str:
        said = tmp_path / f"said-{number}"
        wait_for(lambda: " run --config" in said.read_text(), 20, said.read_text)
        return said.read_text().splitlines()[-1].split()[0]

    try:
        for number in range(3):
            replica(number)
        names = [named(number) for number in range(3)]
        assert sorted(names) == ["node-1", "node-2", "node-3"]
        assert [os.path.realpath(tmp_path / f"link-{n}") for n in range(3)] == [
            str(root / name) for name in names
        ]
        secrets = {one.name: one.read_text() for one in (root / "secrets").iterdir() if one.name != "lock"}
        assert secrets.keys() == {"web", "cluster", "admin"} and len(set(secrets.values())) == 3
        gone = names.index("node-2")
        running[gone].send_signal(signal.SIGKILL)
        running[gone].wait()
        replica(3)
        assert named(3) == "node-2"
        assert secrets == {
            one.name: one.read_text() for one in (root / "secrets").iterdir() if one.name != "lock"
        }
    finally:
        for process in running:
            process.kill()
            process.wait()
