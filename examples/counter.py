"""Counts clicks per user on any number of processes, which may be killed (seed 001).

It needs Redis (or ZooKeeper), for the processes to find each other; the clicks go directly. In four terminals:

    export COUNTER_SECRET="the same for all, at least 16 characters"
    python examples/counter.py count node-1
    python examples/counter.py count node-2
    python examples/counter.py count node-3
    python examples/counter.py click --clicks 20000

Kill one of the three with `kill -9`: the two others take over its users within 6 seconds, and what it had not
acknowledged goes to them. With Kafka, what a consumer does not take for 2 seconds waits there instead of in memory:

    python examples/counter.py click --kafka localhost:9092
    python examples/counter.py replay --kafka localhost:9092
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

from headwater.cluster.channels.discovery import Member, Watch, store_of
from headwater.cluster.channels.inbound import InboundChannel
from headwater.cluster.channels.outbound import OutboundChannel
from headwater.cluster.stores.settings import StoreSettings
from headwater.kit.clock import SystemClock
from headwater.kit.counters import Counters
from headwater.kit.happenings import Happenings
from headwater.peer import connection

TOPIC, CLUSTER = "clicks", "shop"


def identity(node):
    """Who this process is. Only those who know the secret can speak with it."""
    return connection.Identity(
        node=node,
        incarnation=time.time_ns() // 1_000_000,
        folder=node,
        cluster=CLUSTER,
        secret=os.environ["COUNTER_SECRET"].encode(),
    )


def open_store(url):
    """Where the processes find each other."""
    kind, _, servers = url.partition("://")
    if kind == "zookeeper":
        return store_of(StoreSettings(type="zookeeper", nodes=servers.split(",")), CLUSTER, TOPIC)
    return store_of(StoreSettings(url=url), CLUSTER, TOPIC)


def say(**what):
    print(json.dumps(what), flush=True)


async def count(options, stopped):
    """A consumer: gets the clicks of the users that it owns, and says how many it has counted."""
    clicks = collections.Counter()
    whom, store = identity(options.node), open_store(options.store)

    async def handle(events):
        clicks.update(bytes(event.data).decode() for event in events)
        say(node=options.node, clicks=clicks)

    async with Member(TOPIC, whom, store) as member:
        channel = InboundChannel(TOPIC, whom, member.directory, handle)
        listener = await connection.listen(options.listen, whom, channel.serve)
        await member.join(listener.address)
        say(node=options.node, listens=listener.address)
        await stopped.wait()
        await member.leave(10.0)
        await listener.close()
    await store.close()


async def click(options, stopped):
    """A producer: users click in turn. Says in the end what became of the clicks."""
    whom, store = identity(f"clicks-{os.getpid()}"), open_store(options.store)
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(Watch(TOPIC, whom, store))
        advice = await stack.enter_async_context(kafka_advice(options, whom)) if options.kafka else None
        channel = OutboundChannel(TOPIC, whom, watch.directory, advise=tell, advice=advice)
        out = await stack.enter_async_context(channel)
        for n in range(options.clicks):
            user = f"user-{n % options.users}"
            await out.send(user, user.encode())
            if n % 100 == 99:
                await asyncio.sleep(100 / options.rate)
            if stopped.is_set():
                break
        pending = await out.drain(60.0)
        say(pending=pending, **out.counts)
    await store.close()


async def replay(options, stopped):
    """Delivers what waits in Kafka. Any number of these share the work."""
    from headwater.lane.kafka.replay import KafkaReplayer

    whom, store = identity(f"replay-{os.getpid()}"), open_store(options.store)
    async with Watch(TOPIC, whom, store) as watch:
        replayer = KafkaReplayer(
            TOPIC, *kafka_settings(options), whom, watch.directory, happenings=happenings()
        )
        running = asyncio.create_task(replayer.run())
        asked = asyncio.create_task(stopped.wait())
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        replayer.stop()
        await running
    await store.close()


def kafka_settings(options):
    from headwater.lane.kafka.advice import SpoolSettings
    from headwater.lane.kafka.settings import KafkaSettings

    return SpoolSettings(topic=f"{CLUSTER}.spool.{TOPIC}"), KafkaSettings(servers=options.kafka)


def kafka_advice(options, whom):
    from headwater.lane.kafka.advice import KafkaAdvice

    return KafkaAdvice(*kafka_settings(options), whom, happenings=happenings())


def happenings():
    """Where Kafka's troubles are told: lines of JSON on stderr."""
    return Happenings("counter", SystemClock(), Counters(), sys.stderr)


def tell(advisory):
    """What the channel advises of: consumers that fall behind, events that nobody takes."""
    print(advisory.reason, advisory.action, advisory.peer, advisory.events, file=sys.stderr, flush=True)


async def main(options):
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await {"count": count, "click": click, "replay": replay}[options.does](options, stopped)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    does = parser.add_subparsers(dest="does", required=True)
    commands = {name: does.add_parser(name) for name in ("count", "click", "replay")}
    for command in commands.values():
        command.add_argument("--store", default="redis://localhost:6379", help="or zookeeper://HOST:PORT,…")
    commands["count"].add_argument("node", help="a name that no other process has")
    commands["count"].add_argument("--listen", default="127.0.0.1:0", help="such as tcp://[_site_:ipv4]:7512")
    commands["click"].add_argument("--clicks", type=int, default=20_000)
    commands["click"].add_argument("--users", type=int, default=40)
    commands["click"].add_argument("--rate", type=float, default=1000.0, help="clicks per second, about")
    commands["click"].add_argument("--kafka", default="", help="brokers that keep what cannot be delivered")
    commands["replay"].add_argument("--kafka", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
