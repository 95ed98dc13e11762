"""Starts the programs of a trial cluster, says what happens to them, and ends them in order.

One process of its own for each: Redis, the nodes, HAProxy. All of them end when this one does, however it ends, and
nothing else is ever ended. A node that dies stays dead unless ``restart`` was asked for: who tries out a cluster wants
to see the fault. ::

    start: Redis → nodes, all at once → every node ready → HAProxy → the door answers → the welcome
    end:   HAProxy → nodes, all at once, each drains → Redis
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

import headwater
from headwater.cli import trial as trials
from headwater.cli.client import Node
from headwater.cli.trial import HOST, Trial
from headwater.kit.clock import Clock
from headwater.kit.errors import HeadwaterError, Unavailable
from headwater.kit.signals import Signals

LAUNCH = """\
import os, sys
from headwater.kit.signals import end_with_parent
end_with_parent(int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""A program that ends when this process does; the kernel remembers that over an ``exec``."""
TICK_S, LOOK_S = 0.2, 1.0
READY_S, DOOR_S = 90.0, 10.0
DRAIN_S, SERVER_STOP_S = 60.0, 5.0
AGAIN_S = 2.0
ASK_S = 2.0
SAID_LINES = 15


class Program:
    """One process, in a session of its own, so that Ctrl-C is not for it. What it says is in ``said``."""

    def __init__(self, name: str, command: Sequence[str], said: str) -> None:
        self.name = name
        self.command = [sys.executable, "-c", LAUNCH, str(os.getpid()), *command]
        self.said = said
        self.process: subprocess.Popen[bytes] | None = None
        self.told = False
        """Whether its end was told."""

    def start(self) -> None:
        with open(self.said, "ab") as said:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        self.told = False

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.poll() if self.process is not None else 0

    def signal(self, number: signal.Signals) -> None:
        """For it, while it is there."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def last_words(self) -> str:
        """The end of what it said."""
        try:
            with open(self.said, encoding="utf-8", errors="replace") as said:
                return "".join(said.readlines()[-SAID_LINES:])
        except OSError:
            return ""


class TrialRun:
    """A trial cluster from its start to its end."""

    def __init__(self, trial: Trial, clock: Clock, *, restart: bool) -> None:
        self.trial = trial
        self.clock = clock
        self.restart = restart
        folder = trial.folder
        self.redis = Program("Redis", trials.redis_command(trial), f"{folder}/redis/said.log")
        self.haproxy = Program("HAProxy", trials.haproxy_command(trial), f"{folder}/haproxy/said.log")
        self.nodes = {
            name: Program(
                f"node {name}",
                [sys.executable, "-m", "headwater", *trials.node_words(trial, name)],
                f"{folder}/{name}/said.log",
            )
            for name in trial.names
        }
        self.again_ns: dict[str, int] = {}
        self.seen: set[tuple[str, str, int]] = set()

    async def run(self) -> int:
        """Until a signal; the exit code. Unavailable: it did not come to run."""
        with Signals() as signals:
            try:
                if await self.start(signals):
                    await self.watch(signals)
                return 0 if await self.stop(signals) else 1
            finally:
                self.kill_all()

    # -- start

    async def start(self, signals: Signals) -> bool:
        """Everything, in order; False where a signal came first."""
        if self.trial.redis:
            self.redis.start()
        for program in self.nodes.values():
            program.start()
        say(self.clock, f"starting {self.trial.count} nodes")
        if not await self.wait(signals, self.all_ready, READY_S, self.unready):
            return False
        if self.trial.haproxy:
            self.haproxy.start()
            door = self.trial.door
            if not await self.wait(signals, lambda: answers(door, "/ping"), DOOR_S, self.haproxy.last_words):
                return False
        await asyncio.to_thread(self.look)  # what happened up to now is no news
        for line in trials.welcome(self.trial, headwater.__version__, self.pids()):
            click.echo(line)
        return True

    async def wait(
        self, signals: Signals, done: Callable[[], bool], within_s: float, why: Callable[[], str]
    ) -> bool:
        """Until it is done; False where a signal came. Unavailable: a program ended, or the time is over."""
        end_ns = self.clock.boot_ns() + int(within_s * 1e9)
        while not await asyncio.to_thread(done):
            for program in self.started():
                if program.code is not None:
                    raise Unavailable(
                        f"{program.name} ended with {program.code}: {program.last_words()}",
                        code="trial_start",
                    )
            if self.clock.boot_ns() > end_ns:
                raise Unavailable(f"not ready within {within_s:.0f} s: {why()}", code="trial_start")
            if await signals.next(TICK_S) in (signal.SIGINT, signal.SIGTERM):
                return False
        return True

    def started(self) -> list[Program]:
        """Every program that was started."""
        return [one for one in (self.redis, *self.nodes.values(), self.haproxy) if one.process is not None]

    def all_ready(self) -> bool:
        return all(answers(self.trial.ports(name).ops, "/ready") for name in self.nodes)

    def unready(self) -> str:
        """What the nodes say that are not ready."""
        return "\n".join(
            f"{name}: {program.last_words()}"
            for name, program in self.nodes.items()
            if not answers(self.trial.ports(name).ops, "/ready")
        )

    def pids(self) -> dict[str, int]:
        return {name: program.pid for name, program in self.nodes.items()}

    # -- watch

    async def watch(self, signals: Signals) -> None:
        """Say what happens, until a signal ends it."""
        looked_ns = 0
        while await signals.next(TICK_S) not in (signal.SIGINT, signal.SIGTERM):
            self.tell_ends()
            if self.clock.boot_ns() - looked_ns > LOOK_S * 1e9:
                looked_ns = self.clock.boot_ns()
                for line in await asyncio.to_thread(self.look):
                    say(self.clock, line)

    def tell_ends(self) -> None:
        """Say once that a program is gone; start a node again where that was asked for."""
        now_ns = self.clock.boot_ns()
        for program in (self.redis, self.haproxy):
            if program.process is not None and program.code is not None and not program.told:
                program.told = True
                say(self.clock, f"{program.name} ended with {program.code}; {program.said} says more")
        for name, program in self.nodes.items():
            if program.code is None:
                continue
            if not program.told:
                program.told = True
                self.again_ns[name] = now_ns + int(AGAIN_S * 1e9)
                say(self.clock, trials.ended_words(self.trial, name, program.code, again=self.restart))
            elif self.restart and now_ns > self.again_ns[name]:
                program.start()
                say(self.clock, f"node {name} is process {program.pid} now")

    def look(self) -> list[str]:
        """What happened in the cluster, as the first node that answers says it. In a thread."""
        for name in self.nodes:
            told = status_of(self.trial, name)
            if told is not None:
                return trials.changes(self.seen, told)
        return []

    # -- end

    async def stop(self, signals: Signals) -> bool:
        """In order; a second signal cuts it short. True when every node that ran ended in order."""
        say(
            self.clock,
            "ending: the nodes deliver what they accepted. Ctrl-C again stops at once, without loss",
        )
        await self.end([self.haproxy], SERVER_STOP_S, signals)
        running = [program for program in self.nodes.values() if program.code is None]
        in_order = await self.end(running, DRAIN_S, signals)
        await self.end([self.redis], SERVER_STOP_S, signals)
        return in_order and all(program.code == 0 for program in running)

    async def end(self, programs: Sequence[Program], within_s: float, signals: Signals) -> bool:
        """SIGTERM to all; SIGKILL to who is left at a second signal, or when the time is over: then False."""
        end_ns = self.clock.boot_ns() + int(within_s * 1e9)
        for program in programs:
            program.signal(signal.SIGTERM)
        while any(program.code is None for program in programs):
            cut = await signals.next(TICK_S) in (signal.SIGINT, signal.SIGTERM)
            if cut or self.clock.boot_ns() > end_ns:
                for program in programs:
                    program.signal(signal.SIGKILL)
                return False
        return True

    def kill_all(self) -> None:
        """Whatever is left."""
        for program in self.started():
            program.signal(signal.SIGKILL)
        for program in self.started():
            assert program.process is not None
            program.process.wait()


def answers(port: int, path: str) -> bool:
    """Whether a page answers 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def status_of(trial: Trial, name: str) -> Any:
    """What a node says of the cluster; None while it says nothing."""
    try:
        return Node(trial.data(name)).get("/cluster/status", timeout_s=ASK_S)
    except HeadwaterError:
        return None


def say(clock: Clock, line: str) -> None:
    """A line with the time of day, UTC."""
    seconds = clock.wall_ns() // 1_000_000_000 % 86_400
    moment = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    click.echo(f"  {click.style(moment, dim=True)}  {line}")
