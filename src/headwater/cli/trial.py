"""What a cluster for trying out consists of: folders, ports, configurations and words. Nothing here starts anything.

``headwater cluster try`` makes the files anew at each start, so that what stands here is what runs; the data folders
and the secrets stay::

    headwater-cluster/
      made-by-headwater      says that this folder may be deleted by --fresh
      web.secret, cluster.secret, admin.token
      a/headwater.yaml, a/data/, a/said.log       the same for b, c …
      redis/, haproxy/

Ports follow the first one (``--port``, 8420): the front door, +1 HAProxy's page, +2 Redis; node n has +10·n for events,
and behind it the ports of its operations, membership and lane.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from headwater.kit.errors import Misconfigured
from headwater.kit.rng import Rng
from headwater.node import first, listening

HOST = "127.0.0.1"
MARK = "made-by-headwater"
SECRET_FILES = ("web.secret", "cluster.secret", "admin.token")
NODES_MIN, NODES_MAX = 2, 9
PORT_MIN, PORT_MAX = 1024, 65_000
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Debian keeps servers here, which is not on every user's PATH."""
PACKAGES = {"redis-server": "redis-server", "haproxy": "haproxy"}

NODE = """\
# Made by `headwater cluster try` at each start; changes here are lost.
# docs/guides/cluster.md explains the block `cluster`.
collect:
  listen: "{host}:{collect}"
  trusted_proxies: ["{host}"]            # HAProxy says who the client is
  forwarded_headers: ["x-forwarded-for"]
ops: {{listen: "{host}:{ops}"}}
keys:
  - {{id: web, secret_file: ../../web.secret, origins: ["*"], ack: disk}}
destinations:
  warehouse: {{type: duckdb, path: warehouse.duckdb, node: {holder}}}   # one file, held by one node
data_bytes_max: 2147483648
shutdown_delay: 1.5                      # HAProxy looks each 0.5 s, and believes the second look
drain_timeout_s: 10

cluster:                                 # the whole difference to one node alone
  node: {name}
  secret_file: ../../cluster.secret
  admin_token_file: ../../admin.token
  listen: tcp://{host}:{member}
  lane: tcp://{host}:{lane}
  minimum_nodes: {minimum}                      # more than half
  {meeting}
"""

HAPROXY = """\
# Made by `headwater cluster try` at each start; changes here are lost.
# deploy/haproxy/haproxy.cfg is the one for production.
global
    maxconn 2000
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend door
    bind {host}:{door}
    default_backend headwater
backend headwater
    balance roundrobin
    option forwardfor
    option httpchk GET /ready
    http-check expect status 200
    # Neither a refused connection nor 503 has taken anything, so another node may be asked; nothing else is.
    retry-on conn-failure 503
    retries {retries}
    option redispatch 1
    default-server check inter 500ms fall 2 rise 2
{servers}
frontend page
    bind {host}:{page}
    stats enable
    stats uri /
    stats refresh 2s
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Of one node."""

    collect: int
    ops: int
    member: int
    lane: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A cluster on this machine."""

    folder: str
    """Absolute."""
    port: int
    count: int
    redis: str
    """The program; empty where it is missing: then the nodes have a list of each other."""
    haproxy: str
    """The program; empty where it is missing: then there is no front door."""

    @property
    def names(self) -> list[str]:
        """Of the nodes: a, b, c …"""
        return [chr(ord("a") + number) for number in range(self.count)]

    @property
    def holder(self) -> str:
        """The node with the warehouse's file."""
        return self.names[0]

    @property
    def door(self) -> int:
        """Where events go in: the front door, or the first node."""
        return self.port if self.haproxy else self.ports(self.holder).collect

    @property
    def page(self) -> int:
        """Of HAProxy's page."""
        return self.port + 1

    @property
    def redis_port(self) -> int:
        return self.port + 2

    def ports(self, name: str) -> Ports:
        """Of a node."""
        base = self.port + 10 * (self.names.index(name) + 1)
        return Ports(base, base + 1, base + 2, base + 3)

    def all_ports(self) -> dict[int, str]:
        """Every port that is listened on, and what for."""
        found = {self.redis_port: "Redis"} if self.redis else {}
        found |= {self.port: "the front door", self.page: "HAProxy's page"} if self.haproxy else {}
        for name in self.names:
            ports = self.ports(name)
            found |= {ports.collect: f"events at {name}", ports.ops: f"operations of {name}"}
            found |= {ports.member: f"membership of {name}", ports.lane: f"lane of {name}"}
        return found

    def data(self, name: str) -> str:
        """The data folder of a node."""
        return f"{self.folder}/{name}/data"

    def config(self, name: str) -> str:
        """The configuration of a node."""
        return f"{self.folder}/{name}/headwater.yaml"


def find(folder: str, port: int, count: int) -> Trial:
    """The trial that this machine can have."""
    programs = {name: found_program(name) for name in PACKAGES}
    return Trial(os.path.abspath(folder), port, count, programs["redis-server"], programs["haproxy"])


def found_program(name: str) -> str:
    """Where a program is; empty where it is not."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}") or ""


def missing(trial: Trial) -> list[str]:
    """What a user is told about programs that are not there."""
    told = []
    if not trial.redis:
        told.append(
            "redis-server is missing (apt-get install redis-server): the nodes have a list of each other"
        )
    if not trial.haproxy:
        told.append(
            "haproxy is missing (apt-get install haproxy): no front door, send to any of the collectors"
        )
    return told


# -- files


def node_text(trial: Trial, name: str) -> str:
    """The configuration of a node."""
    ports = trial.ports(name)
    if trial.redis:
        meeting = f'store: {{url: "redis://{HOST}:{trial.redis_port}"}}'
    else:
        peers = ", ".join(f'"{HOST}:{trial.ports(one).member}"' for one in trial.names)
        meeting = f"peers: [{peers}]"
    return NODE.format(
        host=HOST, holder=trial.holder, name=name, meeting=meeting,
        minimum=trial.count // 2 + 1, collect=ports.collect, ops=ports.ops, member=ports.member, lane=ports.lane,
    )  # fmt: skip


def haproxy_text(trial: Trial) -> str:
    """The configuration of HAProxy."""
    servers = "".join(f"    server {name} {HOST}:{trial.ports(name).collect}\n" for name in trial.names)
    return HAPROXY.format(host=HOST, door=trial.port, page=trial.page, servers=servers, retries=trial.count)


def make_files(trial: Trial, rng: Rng, *, fresh: bool) -> None:
    """Folders, configurations, and the secrets that are missing; with ``fresh`` all of it anew.

    Misconfigured: the folder is somebody else's.
    """
    mark = f"{trial.folder}/{MARK}"
    if os.path.isdir(trial.folder) and os.listdir(trial.folder) and not os.path.exists(mark):
        raise Misconfigured(
            f"{trial.folder} was not made by `headwater cluster try`, and is left alone",
            code="trial_folder",
            help="give another folder with --dir",
        )
    if fresh and os.path.exists(mark):
        shutil.rmtree(trial.folder)
    for name in ("", "redis", "haproxy", *(f"{name}/data" for name in trial.names)):
        os.makedirs(f"{trial.folder}/{name}", mode=0o700, exist_ok=True)
    write(mark, "`headwater cluster try --fresh` deletes this folder.\n")
    for name in SECRET_FILES:
        if not os.path.exists(f"{trial.folder}/{name}"):
            write(f"{trial.folder}/{name}", first.new_secret(rng) + "\n")
    for name in trial.names:
        write(trial.config(name), node_text(trial, name))
    write(f"{trial.folder}/haproxy/haproxy.cfg", haproxy_text(trial))


def write(path: str, text: str) -> None:
    """A file that only its owner reads."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)


def check_ports(trial: Trial) -> None:
    """Misconfigured: somebody listens on one of the ports."""
    for port, what in trial.all_ports().items():
        if (trouble := listening.trouble(HOST, port)) is not None:
            raise Misconfigured(
                f"cannot listen on {HOST}:{port} ({what}): {trouble}",
                code="trial_port",
                help="end that process, or give another first port with --port",
            )


# -- commands


def redis_command(trial: Trial) -> list[str]:
    """A Redis that keeps nothing: what is in the store can be lost at any time."""
    options = {
        "port": str(trial.redis_port), "bind": HOST, "dir": f"{trial.folder}/redis", "save": "", "appendonly": "no"
    }  # fmt: skip
    return [trial.redis, *(word for name, value in options.items() for word in (f"--{name}", value))]


def haproxy_command(trial: Trial) -> list[str]:
    return [trial.haproxy, "-db", "-f", f"{trial.folder}/haproxy/haproxy.cfg"]


def node_words(trial: Trial, name: str) -> list[str]:
    """The words behind ``headwater`` that start a node."""
    return ["run", "--config", trial.config(name), "--data", trial.data(name)]


def shown(path: str) -> str:
    """A path as it is typed here."""
    relative = os.path.relpath(path)
    return shlex.quote(path if relative.startswith("..") else relative)


def start_words(trial: Trial, name: str) -> str:
    """How a person starts a node again."""
    from headwater.cli import banner  # reads YAML, which `--help` must not wait for

    return f"{banner.program()} run --config {shown(trial.config(name))} --data {shown(trial.data(name))}"


# -- words


def welcome(trial: Trial, version: str, pids: Mapping[str, int]) -> list[str]:
    """What is printed once everything runs."""
    import click

    from headwater.cli import banner  # reads YAML, which `--help` must not wait for

    with open(f"{trial.folder}/web.secret", encoding="utf-8") as file:
        secret = file.read().strip()
    victim = trial.names[1]
    data = f"--data {shown(trial.data(trial.holder))}"
    title = click.style(f"Headwater {version}, {trial.count} nodes", bold=True, fg="cyan")
    told = ["", f"  {title} are running on this machine.  Ctrl-C ends all of them.", ""]
    told += [banner.row("note", click.style(line, fg="yellow")) for line in missing(trial)]
    if trial.haproxy:
        told += [
            banner.row(
                "front door", f"http://{HOST}:{trial.port}  (HAProxy, its page: http://{HOST}:{trial.page}/)"
            )
        ]
    for name in trial.names:
        ports = trial.ports(name)
        told += [
            banner.row(
                f"node {name}",
                f"events http://{HOST}:{ports.collect}  status http://{HOST}:{ports.ops}/cluster/status"
                f"  process {pids[name]}",
            )
        ]
    told += [
        banner.row("write key", f"{secret}  (web)"),
        banner.row("try", banner.curl(f"http://{HOST}:{trial.door}", secret)),
        banner.row("demo", click.style(f"http://{HOST}:{trial.ports(trial.holder).ops}/demo", bold=True)),
        banner.row("warehouse", f"a DuckDB file, held by node {trial.holder}; from any node:"),
        banner.row("ask", f"{banner.program()} sql {data} {banner.QUERY}"),
        banner.row("watch", f"watch -n1 {banner.program()} cluster status {data}"),
        banner.row(
            "kill one", f"kill -9 {pids[victim]}        # {victim}, without warning; the others go on"
        ),
        banner.row("stop one", f"kill {pids[victim]}           # in order: it drains and leaves"),
        banner.row("start it", start_words(trial, victim)),
        banner.row("data", f"{shown(trial.folder)}  (kept for the next start; --fresh begins anew)"),
        "",
    ]
    return told


def ended_words(trial: Trial, name: str, code: int, *, again: bool) -> str:
    """What is said when a node is gone."""
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    then = "it is started again" if again else f"start it again: {start_words(trial, name)}"
    held = "; the warehouse is with it, rows wait until it is back" if name == trial.holder else ""
    return f"node {name} {how}{held}. {then}"


def changes(seen: set[tuple[str, str, int]], told: Mapping[str, object]) -> list[str]:
    """The lines of what happened in the cluster that were not told yet; ``seen`` grows by them."""
    lines = []
    activity = told["activity"]
    assert isinstance(activity, list)
    for one in activity:
        mark = (one["event"], one["id"], one["incarnation"])
        if mark not in seen:
            seen.add(mark)
            because = f": {one['reason']}" if one.get("reason") else ""
            lines.append(f"{one['name'] or one['id']} {one['event']}{because}")
    return lines
