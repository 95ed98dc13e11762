"""``headwater cluster``: many nodes, seen and steered from any of them."""

from __future__ import annotations

from typing import Any

import click

from headwater.cli import show, trial
from headwater.cli.client import Node, data_option, folders, json_option
from headwater.cli.show import answer_no
from headwater.kit.errors import HeadwaterError, Misconfigured
from headwater.kit.plural import counted

ACTIVITY_SHOWN = 10
NODE_COLUMNS = (
    "node",
    "state",
    "partitions",
    "standby for",
    "zone",
    "weight",
    "incarnation",
    "address",
    "heard",
    "clock",
)


@click.group()
def cluster() -> None:
    """Look at the nodes of a cluster and steer them, from any of them.

    A node belongs to a cluster when its configuration has a block `cluster:` (docs/guides/cluster.md).

    \b
    headwater cluster try                 three nodes on this machine, to look at and to kill
    headwater cluster status              who is there, who owns how much, what it waits for
    headwater cluster drain node-b        move node-b's partitions away, for example before a repair
    headwater cluster evict node-c        node-c does not answer: do not wait for it
    headwater cluster forget node-c       node-c is gone for good: never wait for what only it has
    headwater cluster reset               say everything again, after the store was lost or restored

    Over HTTP the same: GET /cluster/status, and POST /cluster/drain, evict, forget, reset with `Authorization: Bearer`
    and cluster.admin_token.
    """


@cluster.command(name="try")
@click.option(
    "--dir",
    "folder",
    default="headwater-cluster",
    show_default=True,
    metavar="DIR",
    shell_complete=folders,
    help="Where data, configurations and logs of the nodes go.",
)
@click.option("--fresh", is_flag=True, help="Begin anew: delete what earlier starts left in DIR.")
@click.option(
    "--nodes",
    type=click.IntRange(trial.NODES_MIN, trial.NODES_MAX),
    default=3,
    show_default=True,
    help="How many nodes.",
)
@click.option(
    "--port",
    type=click.IntRange(trial.PORT_MIN, trial.PORT_MAX),
    default=8420,
    show_default=True,
    help="The first port; the others follow it.",
)
@click.option("--restart", is_flag=True, help="Start a node again that ended; without it, it stays away.")
def try_out(folder: str, fresh: bool, nodes: int, port: int, restart: bool) -> None:
    """Run three nodes behind HAProxy with Redis on this machine, until Ctrl-C: a cluster to look at and to break.

    It prints where to send events, where to look, and how to kill a node. HAProxy and Redis are Debian's; without Redis
    the nodes have a list of each other, without HAProxy there is no front door. What happens is said in the terminal; a
    node that was killed stays dead, so that you see what the others do, until you start it with the command that is
    printed (then it is yours to stop), or at the next start.

    Each node is a data folder and a configuration in DIR, written anew at each start: read them, they are what a
    cluster needs. Ctrl-C drains and ends everything; the data stays for the next start.

    \b
    headwater cluster try
    headwater cluster try --fresh --nodes 5
    headwater cluster try --dir /tmp/three --port 9420 --restart
    """
    import asyncio
    import sys

    from headwater.cli.trial_run import TrialRun
    from headwater.kit.clock import SystemClock
    from headwater.kit.rng import SystemRng

    found = trial.find(folder, port, nodes)
    trial.check_ports(found)
    trial.make_files(found, SystemRng(), fresh=fresh)
    sys.exit(asyncio.run(TrialRun(found, SystemClock(), restart=restart).run()))


@cluster.command()
@data_option
@json_option
def status(data: str, as_json: bool) -> None:
    """Show nodes, partitions and what happened lately. Exit code 1 while too few nodes see each other.

    Every node tells what it sees itself; ask another one where two could disagree. `incarnation` is the time at which
    a node's membership began, so a greater one means that it has joined again.

    `clock` says how far a node's clock is ahead of those of most nodes; further than `cluster.clock_warning_s` is a
    warning.

    Below the nodes: what is mirrored here of other nodes' logs; of each node's raw log how many events each owner
    has not gone past yet, and for how long at least (`slow`: more than 2 s); and how old the state is that stands
    by elsewhere.

    \b
    headwater cluster status
    headwater cluster status --json | jq '.nodes[] | {name, state, partitions}'
    headwater cluster status --json | jq -e .viable
    """
    told = asked(Node(data), "/cluster/status")
    if as_json:
        show.as_json(told)
    else:
        page(told)
    if not told["viable"]:
        answer_no(told["why"] or "too few nodes see each other")


@cluster.command()
@click.argument("node")
@click.option("--back", is_flag=True, help="Let it have partitions again.")
@data_option
@json_option
def drain(node: str, back: bool, data: str, as_json: bool) -> None:
    """Move the partitions of NODE to the others; it stays a member and goes on accepting events.

    NODE is a name or an id, as `headwater cluster status` shows them. Stopping a node (SIGTERM) does this by itself;
    use it to take work off a machine that goes on running. It lasts until `--back`, or until the node is started again.

    \b
    headwater cluster drain node-b
    headwater cluster drain node-b --back
    """
    told = ordered(Node(data), "drain", {"node": node, "back": back})
    tell(told, as_json, f"{told['name']} takes partitions again" if back else f"{told['name']} is draining")


@cluster.command()
@click.argument("node")
@data_option
@json_option
def evict(node: str, data: str, as_json: bool) -> None:
    """Take NODE, which does not answer, out of the cluster without waiting for anybody else to miss it.

    Its partitions go to the others at once. Events that only it has on its disk are delivered when it comes back; it
    joins again by itself then. A node that is well is not evicted: stop it, or drain it.

    \b
    headwater cluster evict node-c
    """
    told = ordered(Node(data), "evict", {"node": node})
    tell(told, as_json, f"{told['name']} is evicted")


@cluster.command()
@click.argument("node")
@click.option("--yes", is_flag=True, help="Do it; without it, only what would be given up is said.")
@data_option
@json_option
def forget(node: str, yes: bool, data: str, as_json: bool) -> None:
    """Say that NODE, which is gone, will never come back: nobody waits any more for what only its disk has.

    Until then it is named wherever it could know more: `reconcile` counts nothing as certain, `explain` and `dead` say
    that it was not asked. NODE is the id that they show, or its name while that is known. Forgetting needs `--yes`:
    events that NODE had accepted and nobody had processed are given up, and cannot be counted, nor can its dead
    letters; what `reconcile` shows as accepted of it is what was processed. A destination that lacks events which only
    NODE has is paused, and says how to leave them out. Keys with `ack: replicated` lose nothing.

    A node that is alive, or a member still, is refused. Should NODE come back after all, it joins as ever, and
    what it has is delivered.

    \b
    headwater cluster forget node-c
    headwater cluster forget 84792222d2dd0000 --yes
    """
    told = ordered(Node(data), "forget", {"node": node, "yes": yes})
    if told["forgotten"] or as_json:
        tell(told, as_json, f"{told['name']} ({told['node']}) is forgotten")
    if not told["forgotten"]:
        answer_no(
            f"{told['name']} ({told['node']}) would be forgotten: what it had accepted and nobody has processed is "
            "given up, uncounted, with its dead letters; say --yes"
        )


@cluster.command()
@data_option
@json_option
def reset(data: str, as_json: bool) -> None:
    """Have the cluster say everything again: the store forgets it, every node says its part.

    Nothing is lost by it: events, positions and state are on the nodes' disks and in the destinations, none of it in
    the store. For a store that was lost, restored from an old copy, or holds what it should not.

    \b
    headwater cluster reset
    """
    told = ordered(Node(data), "reset", {})
    tell(told, as_json, "the cluster says everything again")


def asked(node: Node, path: str) -> Any:
    """A page of the node; Misconfigured where it is no cluster's."""
    try:
        return node.get(path)
    except HeadwaterError as error:
        raise alone(error) from error


def ordered(node: Node, order: str, body: dict[str, Any]) -> Any:
    """What the node answers to an order."""
    try:
        return node.post(f"/cluster/{order}", body)
    except HeadwaterError as error:
        raise alone(error) from error


def alone(error: HeadwaterError) -> HeadwaterError:
    """The error, in other words where the node is not one of many."""
    if error.code != "not_found":
        return error
    return Misconfigured(
        "this node is not part of a cluster",
        code="no_cluster",
        help="its configuration has no block `cluster:`; docs/guides/cluster.md says what to write",
    )


def tell(told: dict[str, Any], as_json: bool, words: str) -> None:
    """The answer to an order."""
    if as_json:
        show.as_json(told)
    else:
        click.echo(words)


def page(told: dict[str, Any]) -> None:
    """The status for a person."""
    word = click.style("viable", fg="green") if told["viable"] else click.style("not viable", fg="red")
    alive = counted(sum(one["alive"] for one in told["nodes"]), "node")
    names = {one["id"]: one["name"] for one in told["nodes"]}
    leader = names.get(told["leader"], told["leader"]) or "nobody"
    click.echo(f"Cluster {told['cluster']}, {alive} here, {word}; epoch {told['epoch']}, led by {leader}")
    click.echo(f"seen by {told['name']} ({told['node']})")
    for reason in told["waits_for"]:
        click.echo(click.style(f"  waits for: {reason}", fg="yellow"))
    for warning in told.get("warnings", ()):
        click.echo(click.style(f"  warning: {warning}", fg="yellow"))
    show.as_table(NODE_COLUMNS, (node_row(one, told["node"]) for one in told["nodes"]))
    lanes(told["lanes"], names)
    lags(told.get("lag", {}))
    standbys(told["lanes"])
    if told["activity"]:
        click.echo("lately:")
        for one in told["activity"][-ACTIVITY_SHOWN:]:
            click.echo("  " + activity_words(one, names))


def node_row(one: dict[str, Any], own: str) -> list[Any]:
    """A node as a row of the table."""
    return [
        f"{one['name']} *" if one["id"] == own else one["name"],
        one["state"],
        one["partitions"],
        one["standby"],
        one["zone"],
        one["weight"],
        one["incarnation"],
        one["address"],
        "itself" if one["id"] == own else heard_words(one["heard_s"]),
        clock_words(one.get("clock_ahead_s")),
    ]


def clock_words(ahead_s: float | None) -> str:
    """How far its clock is ahead of most."""
    return "" if ahead_s is None else f"{ahead_s:+.1f} s"


def heard_words(heard_s: float | None) -> str:
    """When a node was last heard."""
    return "not heard" if heard_s is None else f"{show.time(heard_s)} ago"


def activity_words(one: dict[str, Any], names: dict[str, str]) -> str:
    """A line of what happened."""
    name = one.get("name") or names.get(one["id"], one["id"])
    because = f": {one['reason']}" if one.get("reason") else ""
    return f"{one['date']}  {name} {one['event']}{because}"


def lanes(told: dict[str, Any], names: dict[str, str]) -> None:
    """What comes from other nodes' logs: one row for each stream and node. The rest of the report is in `--json`."""
    rows = [
        [stream, one.get("partitions"), names.get(node, node), *home_cells(home)]
        for stream, one in told.get("streams", {}).items()
        for node, home in one.get("homes", {}).items()
    ]
    if rows:
        show.as_table(("lane", "partitions", "from", "kept", "silent", "says"), rows)


def lags(told: dict[str, Any]) -> None:
    """How far each owner is behind each node's raw log."""
    rows = [
        [
            one["home_name"],
            one["owner_name"],
            one["partitions"],
            one["events"],
            show.time(one["age_s"]),
            f"{100 * one['mirror_share']:.0f} %",
            "slow" if one["slow"] else "",
        ]
        for one in told.get("homes", [])
    ]
    if rows:
        show.as_table(
            ("accepted by", "owner", "partitions", "events behind", "since", "mirror", "says"), rows
        )
    for name in told.get("silent", []):
        click.echo(click.style(f"  {name} does not say who is behind its log", fg="yellow"))


def standbys(told: dict[str, Any]) -> None:
    """Whose state stands by for this node's partitions, and how old it is."""
    rows = [
        [one["name"], one["partitions"], one["told"], show.time(one["behind_s"])]
        for one in told.get("standbys", {}).values()
    ]
    if rows:
        show.as_table(("standby", "partitions", "of them with state", "older by"), rows)


def home_cells(home: dict[str, Any]) -> list[Any]:
    """What one other node's log looks like from here."""
    return [show.size(home.get("bytes", 0)), home.get("silent"), home.get("trouble", "")]
