"""nginx in front, with the configuration of the seed (003, "In a production scenario"): who the client is, whether it
spoke HTTPS, and a rolling restart under which nobody gets an error and nothing is lost.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.running import SERVER_KEY, WEB_KEY, Running, unique, wait_for
from tests.journeys.shell import program
from tests.parts import free_ports, require_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.real("nginx")]

# The seed's, with addresses of this machine; what comes before `upstream` lets nginx run as anybody, in its own folder.
CONFIG = """
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
access_log off;
client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
upstream divolte {{
    hash $request_uri consistent;
{servers}
}}
server {{
    listen 127.0.0.1:{plain};
    server_name tracking.example.com;
    location / {{
        proxy_pass http://divolte;
        proxy_redirect off;
        proxy_buffering off;
        proxy_set_header Host $http_host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_pass_header Server;
    }}
    error_page 500 502 503 504 /50x.html;
    location = /50x.html {{ root /usr/share/nginx/html; }}
}}
server {{
    listen 127.0.0.1:{tls} ssl;
    server_name tracking.example.com;
    location / {{
        proxy_pass http://divolte;
        proxy_redirect off;
        proxy_buffering off;
        proxy_set_header Host $http_host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_pass_header Server;
    }}
    ssl_certificate {folder}/star.pem;
    ssl_certificate_key {folder}/star.key;
    ssl_session_cache shared:SSL:1m;
    ssl_session_timeout 5m;
    ssl_ciphers HIGH:!aNULL:!MD5;
    ssl_prefer_server_ciphers on;
    error_page 500 502 503 504 /50x.html;
    location = /50x.html {{ root /usr/share/nginx/html; }}
}}
}}
"""
DELAY_S = 3


class Nginx:
    """nginx in a folder of its own, in front of some nodes."""

    def __init__(self, folder: Path, nodes: list[Running]) -> None:
        self.folder = folder
        self.nodes = nodes
        with free_ports(2) as (self.plain, self.tls):
            pass
        self.config = folder / "nginx.conf"
        self.write(nodes)
        make = [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=tracking.example.com",
            "-keyout", f"{folder}/star.key", "-out", f"{folder}/star.pem",
        ]  # fmt: skip
        subprocess.run(make, check=True, capture_output=True, timeout=60)

    def write(self, nodes: list[Running]) -> None:
        servers = "\n".join(
            f"    server 127.0.0.1:{node.collect}{'' if node in nodes else ' down'};" for node in self.nodes
        )
        user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not write into the folder
        told = CONFIG.format(folder=self.folder, user=user, servers=servers, plain=self.plain, tls=self.tls)
        self.config.write_text(told)

    def command(self) -> list[str]:
        return [
            str(require_part("nginx")),
            "-p",
            str(self.folder),
            "-c",
            str(self.config),
            "-e",
            f"{self.folder}/error.log",
        ]

    def log(self) -> str:
        return (self.folder / "error.log").read_text() if (self.folder / "error.log").exists() else ""


@pytest.fixture(scope="module")
def nodes(make_shared_node: Callable[..., Running]) -> list[Running]:
    """Two, as in the seed. They trust the proxy on this machine, and nobody else on it (127.0.0.7 is a client)."""
    door = 'trusted_proxies: ["127.0.0.1"]'
    made = [make_shared_node(door=door, more=f"shutdown_delay: {DELAY_S}") for _ in range(2)]
    for node in made:
        node.start()
    return made


@pytest.fixture(scope="module")
def nginx(nodes: list[Running], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    require_part("nginx")
    front = Nginx(tmp_path_factory.mktemp("nginx"), nodes)
    os.chmod(front.folder, 0o755)
    with program(front.command(), front.folder / "said.log") as process:
        wait_for(lambda: nodes[0].status_of(front.plain, "/ping") == 200, 10, front.log)
        yield front
        assert process.poll() is None, front.log()


def row_of(nodes: list[Running], message_id: str) -> dict[str, object]:
    """The one row, in whichever node it landed."""
    found: list[dict[str, object]] = []

    def there() -> bool:
        for node in nodes:
            found.extend(node.sql(f"select * from events where message_id = '{message_id}'"))
        return bool(found)

    wait_for(there, 20, interval_s=0.2)
    (row,) = found
    return row


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bare", None),
        ("spoofed", "6.6.6.6"),
        ("list", "6.6.6.6, 127.0.0.1"),
        ("garbage", "<x>, :::, 1.2.3.4.5"),
    ],
)
def test_client_address_is_the_one_that_the_proxy_saw(
    nodes: list[Running], nginx: Nginx, name: str, told: str | None
) -> None:
    headers = {"X-Write-Key": SERVER_KEY} | ({"X-Forwarded-For": told} if told else {})
    event = {"event": "Proxied", "messageId": f"proxied-{name}"}
    answer = nodes[0].ask("POST", f"/events?{name}", event, headers, port=nginx.plain, source="127.0.0.7")
    assert answer.status == 200, answer
    assert row_of(nodes, f"proxied-{name}")["ip"] == "127.0.0.7"


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded"])
def test_header_of_a_stranger_is_ignored(nodes: list[Running], header: str) -> None:
    told = {"Forwarded": "for=6.6.6.6;proto=https"}.get(header, "6.6.6.6")
    headers = {"X-Write-Key": SERVER_KEY, header: told, "X-Forwarded-Proto": "https"}
    event = {"event": "Direct", "messageId": f"direct-{header}"}
    assert nodes[0].ask("POST", "/events", event, headers, source="127.0.0.8").status == 200
    assert row_of(nodes[:1], f"direct-{header}")["ip"] == "127.0.0.8"
    settings = nodes[0].ask("GET", f"/v1/projects/{WEB_KEY}/settings", headers=headers, source="127.0.0.8")
    assert settings.json["integrations"]["Segment.io"]["protocol"] == "http"


def test_https_at_the_proxy_is_known_behind_it(nodes: list[Running], nginx: Nginx) -> None:
    """The settings for Segment's browser SDK say where to send: with the scheme and host that the client used."""
    trust = ssl.create_default_context(cafile=str(nginx.folder / "star.pem"))
    trust.check_hostname = False
    connection = http.client.HTTPSConnection("127.0.0.1", nginx.tls, timeout=10, context=trust)
    path = f"/v1/projects/{WEB_KEY}/settings"
    connection.request("GET", path, headers={"Host": "tracking.example.com"})
    reply = connection.getresponse()
    told = json.loads(reply.read())["integrations"]["Segment.io"]
    connection.close()
    assert (told["protocol"], told["apiHost"]) == ("https", "tracking.example.com/v1")
    plain = nodes[0].ask("GET", path, headers={"Host": "tracking.example.com"}, port=nginx.plain)
    assert plain.json["integrations"]["Segment.io"]["protocol"] == "http"


class Clients:
    """Send numbered events through the proxy until told to stop; who is not answered 200 is a failure."""

    def __init__(self, node: Running, port: int) -> None:
        self.acknowledged: list[str] = []
        self.failures: list[object] = []
        self.numbers = itertools.count()
        self.stopping = threading.Event()
        self.node, self.port = node, port
        self.threads = [threading.Thread(target=self.send, daemon=True) for _ in range(3)]
        for thread in self.threads:
            thread.start()

    def send(self) -> None:
        while not self.stopping.is_set():
            name = f"rolling-{next(self.numbers)}"
            event = {"event": "Rolling", "messageId": name}
            try:
                answer = self.node.ask(
                    "POST", f"/events?{name}", event, {"X-Write-Key": WEB_KEY}, port=self.port
                )
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((name, repr(error)))
                continue
            if answer.status == 200:
                self.acknowledged.append(name)
            else:
                self.failures.append((name, answer))
            time.sleep(0.01)

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)


def test_rolling_restart_loses_nothing_and_no_client_sees_it(nodes: list[Running], nginx: Nginx) -> None:
    """As the seed says: the liveness probe fails first, the balancer takes the backend out, then the server stops."""
    leaving, staying = nodes
    clients = Clients(staying, nginx.plain)
    try:
        time.sleep(0.5)
        told = time.monotonic()
        leaving.signal(signal.SIGTERM)
        wait_for(lambda: leaving.status_of(leaving.collect, "/ping") == 503, DELAY_S, leaving.log)
        assert time.monotonic() - told < 1.5
        assert leaving.status_of(leaving.ops, "/ready") == 503
        event = {"event": "Rolling", "messageId": "rolling-direct"}
        assert leaving.post("/events", event)[0] == 200  # traffic is still served
        assert leaving.process is not None
        assert leaving.process.poll() is None
        nginx.write([staying])  # what a balancer with health checks does by itself
        os.kill(int((nginx.folder / "nginx.pid").read_text()), signal.SIGHUP)
        assert leaving.process.wait(30) == 0, leaving.log()
        assert time.monotonic() - told >= DELAY_S
        time.sleep(0.3)
    finally:
        clients.stop()
    assert not clients.failures, clients.failures[:3]
    leaving.start()
    nginx.write(nodes)
    os.kill(int((nginx.folder / "nginx.pid").read_text()), signal.SIGHUP)
    sent = {*clients.acknowledged, "rolling-direct"}
    assert len(sent) > 50
    rows: list[str] = []
    for node in nodes:
        assert all(s["holds"] for s in node.wait_settled())
        here = node.sql("select message_id from events where event = 'Rolling'")
        assert here
        rows += [r["message_id"] for r in here]
    assert unique(rows) == sent


def test_requests_for_a_node_that_was_killed_go_to_the_other(nginx: Nginx) -> None:
    """nginx tries a refused connection at the next upstream by itself; nothing was accepted, so nothing doubles."""
    gone = nginx.nodes[0]
    gone.kill_all()
    try:
        statuses = {
            gone.ask(
                "POST",
                f"/events?again-{n}",
                {"event": "Elsewhere"},
                {"X-Write-Key": WEB_KEY},
                port=nginx.plain,
            ).status
            for n in range(8)
        }
        assert statuses == {200}
    finally:
        gone.start()
