"""Writes the generated documents, or says with --check which of them are stale.

A generator is a function that returns the whole text of one document, or None while what it describes is not
there. It reads the code, so that a list in the documentation cannot fall behind; prose is written by hand.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable

import click

from scripts import invariants, semantics
from tests.parts import PARTS, ROOT, Part

MADE_BY = "<!-- Made by `make docs`; do not edit. -->\n\n"


def parts() -> str:
    """docs/parts.md from the table of tests/parts.py."""
    return (
        "# Real parts of the tests\n\n"
        "Tests start or drive these. `make parts` installs what it can; a test whose part is missing is\n"
        "skipped, and the summary of the run says why.\n\n"
        "| part | what the tests use it for | where it comes from |\n"
        "|---|---|---|\n" + "".join(f"| {part.name} | {part.purpose} | {_source(part)} |\n" for part in PARTS)
    )


def _source(part: Part) -> str:
    if part.maven:
        return "Maven " + ", ".join(f"`{artefact}`" for artefact in part.maven)
    return f"npm `{part.npm}` {part.npm_version}" if part.npm else f"Debian `{part.debian}`"


def commands() -> str | None:
    """docs/commands.md from the commands of `headwater`."""
    if importlib.util.find_spec("headwater.cli") is None:
        return None
    headwater = importlib.import_module("headwater.cli.main").main
    if not isinstance(headwater, click.Command):
        return None
    sections = ["# Commands\n", *_command(headwater, "headwater", None)]
    return "\n".join(sections)


def configuration() -> str:
    """docs/configuration.md from the structs of the settings."""
    from headwater.node.reference import configuration

    return configuration()


def metrics() -> str:
    """docs/metrics.md from the metrics and the happenings."""
    from headwater.node.reference import metrics

    return metrics()


def _command(command: click.Command, name: str, parent: click.Context | None) -> list[str]:
    # A fixed width, so that the terminal it is made in makes no difference.
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100)
    text = [f"## {context.command_path}\n", f"```\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            if below is not None and not below.hidden:
                text += _command(below, child, context)
    return text


DOCUMENTS: dict[str, Callable[[], str | None]] = {
    "docs/commands.md": commands,
    "docs/configuration.md": configuration,
    "docs/invariants.md": lambda: invariants.document(ROOT),
    "docs/metrics.md": metrics,
    "docs/parts.md": parts,
    "docs/semantics.md": lambda: semantics.document(ROOT),
}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; exit 1 when one is stale")
    check = arguments.parse_args().check
    stale = []
    for path, generate in DOCUMENTS.items():
        text = generate()
        file = ROOT / path
        wanted = None if text is None else MADE_BY + text
        if (file.read_text("utf-8") if file.exists() else None) == wanted:
            continue
        stale.append(path)
        if not check and wanted is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(wanted, "utf-8")
        elif not check:
            file.unlink()
    if stale:
        print(f"docs: {'stale, run `make docs`' if check else 'written'}: {', '.join(stale)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
