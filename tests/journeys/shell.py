"""What a terminal would be used for: the defaults' ports, programs with a life of their own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.parts import free_ports

DEFAULT_PORTS = (8420, 8421)


def default_start(folder: Path) -> list[str]:
    """The command of a start with the defaults in ``folder``. Where something else on this machine has their ports, a
    start is tried, which makes the configuration and says so, and the ports are changed in it, as a user would."""
    command = [sys.executable, "-m", "headwater", "run"]
    if not taken(DEFAULT_PORTS):
        return command
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2, done
    assert "cannot listen" in done.stderr
    config = folder / "headwater.yaml"
    with free_ports(len(DEFAULT_PORTS)) as ports:
        for default, port in zip(DEFAULT_PORTS, ports, strict=True):
            config.write_text(config.read_text().replace(f"127.0.0.1:{default}", f"127.0.0.1:{port}"))
    return command


def taken(ports: Sequence[int]) -> bool:
    """Whether something listens at one of these ports."""
    for port in ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                return True
    return False


@contextmanager
def program(command: Sequence[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program while the block runs; what it prints is in ``log``. It is ended by SIGTERM, then by SIGKILL."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
