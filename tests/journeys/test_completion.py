"""Tab in real shells, with the script that ``headwater completion`` prints, at a terminal of their own."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts import ROOT, require_part

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
CONTROLS = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\][^\a]*\a|[\a\r]")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with `headwater` on its PATH, and the folder `data-of-mine` to complete."""
    command = tmp_path / "bin/headwater"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom headwater.cli.main import main\nmain()\n")
    command.chmod(0o755)
    (tmp_path / "data-of-mine").mkdir()
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    path = f"{home}/bin:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TERM": "dumb", "PYTHONPATH": f"{ROOT}/src", "PS1": "$ "}


def script(home: Path, shell: str) -> Path:
    """The script, as a user would save it."""
    done = subprocess.run(
        [str(home / "bin/headwater"), "completion", shell],
        env=environment(home), capture_output=True, text=True, check=True,
    )  # fmt: skip
    file = home / f"completion.{shell}"
    file.write_text(done.stdout)
    return file


class Terminal:
    """A shell at a terminal: type, and wait for what shows."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.seen = b""

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def until(self, text: str, timeout_s: float = 20) -> None:
        end = time.monotonic() + timeout_s
        while text.encode() not in CONTROLS.sub(b"", self.seen):
            left_s = end - time.monotonic()
            if left_s <= 0 or not select.select([self.file], [], [], left_s)[0]:
                raise AssertionError(f"{text!r} did not show: {self.seen!r}")
            self.seen += os.read(self.file, 4096)
        self.seen = b""


@contextmanager
def terminal(command: list[str], home: Path) -> Iterator[Terminal]:
    pid, file = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execve(command[0], command, environment(home))
    try:
        yield Terminal(file)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(file)


def bash(home: Path) -> tuple[list[str], str]:
    return ["/bin/bash", "--norc", "--noprofile", "-i"], f"source {script(home, 'bash')}; echo rea''dy\n"


def zsh(home: Path) -> tuple[list[str], str]:
    path = str(require_part("zsh"))
    begin = f"autoload -U compinit; compinit -u; source {script(home, 'zsh')}; echo rea''dy\n"
    return [path, "-f", "-i"], begin


@pytest.mark.parametrize("shell", [bash, zsh], ids=["bash", "zsh"])
def test_tab_completes_commands_options_and_folders(
    home: Path, shell: Callable[[Path], tuple[list[str], str]]
) -> None:
    command, begin = shell(home)
    with terminal(command, home) as at:
        at.type(begin)
        at.until("ready")
        at.type("headwater sta\t")
        at.until("status ")
        at.type("--js\t")
        at.until("--json ")
        at.type("--data da\t")
        at.until("data-of-mine/")
        at.type("\x15headwater con\tex\t")
        at.until("explain ")


def test_fish_completes_commands_options_and_folders(home: Path) -> None:
    fish = str(require_part("fish"))

    def told(line: str) -> str:
        asked = f"source {script(home, 'fish')}; complete -C '{line}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", asked], env=environment(home), cwd=home,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    assert told("headwater sta").split()[0] == "status"
    assert told("headwater status --js").split()[0] == "--json"
    assert "data-of-mine/" in told("headwater status --data da")


def test_the_script_of_an_unknown_shell_is_wrong_usage(home: Path) -> None:
    done = subprocess.run(
        [str(home / "bin/headwater"), "completion", "tcsh"],
        env=environment(home), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
