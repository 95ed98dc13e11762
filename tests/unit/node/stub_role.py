"""A process that stands in for every role: reports that it runs, ends at SIGTERM, does what files tell it to.

``<data>/stub/<role>`` holds one word: ``die`` (end at once), ``stubborn`` (ignore SIGTERM). Each start adds a line to
``<data>/stub/starts``, each orderly end one to ``<data>/stub/ends``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from headwater.kit.signals import Signals, end_with_parent
from headwater.node import context, role


def note(told, name: str) -> None:
    with open(f"{told.data}/stub/{name}", "a", encoding="ascii") as file:
        file.write(f"{told.role}-{told.instance} {os.getpid()} {told.log}\n")


def word(told) -> str:
    try:
        with open(f"{told.data}/stub/{told.role}", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


async def live(told) -> None:
    mine = context.connect(told.role, told.instance, told.data, int(told.log, 16))
    with Signals() as signals:
        while True:
            mine.publish(
                "running", [], {"generation": mine.control.generation, "draining": mine.control.draining}
            )
            if await signals.next(0.02) is signal.SIGTERM and word(told) != "stubborn":
                note(told, "ends")
                return


def main() -> int:
    told = role.parse(sys.argv[1:])
    end_with_parent(told.parent)
    note(told, "starts")
    if word(told) == "die":
        return 7
    asyncio.run(live(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
