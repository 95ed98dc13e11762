"""The entry of every process of a node but the supervisor: ``python -m headwater.node.role collect 0 --data=DIR …``.

It is started by the supervisor and ends with it. A role is built by build.py; this module is its life: start, publish
reports, reload, and at SIGTERM drain, stop, exit 0. A role that cannot start says why in its report and its log line,
and exits with 78 (EX_CONFIG) when a person must act.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from headwater.kit.errors import HeadwaterError, Misconfigured
from headwater.kit.signals import Signals, end_with_parent, is_parent
from headwater.node import build
from headwater.node.build import Context, Role
from headwater.node.happenings import ReloadFailed, RoleFailed

TICK_S = 0.05
EXIT_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one role until SIGTERM; the exit code."""
    told = parse(arguments)
    end_with_parent(told.parent)
    context = build.connect(told.role, told.instance, told.data, int(told.log, 16))
    try:
        return run_loop(live(context, told.parent))
    except (HeadwaterError, OSError) as error:
        code = error.code if isinstance(error, HeadwaterError) else "system"
        context.happenings.emit(RoleFailed(code=code, reason=str(error)))
        context.publish("stopped", [str(error)], at_once=True)
        return EXIT_CONFIG if isinstance(error, Misconfigured) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, as child.py writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=sorted(build.ROLES))
    parser.add_argument("instance")
    parser.add_argument("--data", required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--log", default="0")
    return parser.parse_args(arguments)


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """On uvloop where it is there."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def live(context: Context, parent: int) -> int:
    """The life of a role."""
    with Signals() as signals:
        role = build.ROLES[context.role](context)
        try:
            await role.start()
            await until_asked(role, context, signals, parent)
            context.publish("draining", role.reasons(), role.detail(), at_once=True)
            await role.drain()
        finally:
            await role.stop()
    context.publish("stopped", [], role.detail(), at_once=True)
    return 0


async def until_asked(role: Role, context: Context, signals: Signals, parent: int) -> None:
    """Report and reload until SIGTERM; the other signals are the supervisor's."""
    generation = context.control.generation
    while True:
        if not is_parent(parent):
            os._exit(1)
        if context.control.generation != generation:
            generation = context.control.generation
            await reload(role, context)
        await role.tick()
        if context.publisher.due():
            context.publish("running", role.reasons(), role.detail())
        if await signals.next(TICK_S) is signal.SIGTERM:
            return


async def reload(role: Role, context: Context) -> None:
    """Take over what reloads; a role that cannot goes on as it was."""
    try:
        await role.reload(context.read_settings())
    except HeadwaterError as error:
        context.happenings.emit(ReloadFailed(reason=str(error)))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        code
    )  # everything is closed; taking the interpreter apart costs time, and DuckDB complains about it
