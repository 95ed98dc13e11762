"""What the numbers were measured on: the machine in words, a disk probe, a calibration loop, and /proc readers."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def describe(folder: Path) -> dict[str, object]:
    """The machine, the interpreter and the disk under `folder`."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    memory_kb = int(
        next(
            line.split()[1]
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemTotal")
        )
    )
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    stat = os.stat(folder)
    mount = subprocess.run(
        ["findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "-T", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release(),
        "python": sys.version.split("\n")[0],
        "python_build": " ".join(f for f in ("--enable-optimizations", "--with-lto") if f in flags)
        or "no PGO/LTO flags recorded",
        "packages": _packages(
            "uvloop", "httptools", "msgspec", "orjson", "granian", "duckdb", "pyarrow", "arro3-io"
        ),
        "tools": {
            "nginx": _version(["nginx", "-v"]),
            "wrk": _version(["wrk", "--version"]),
            "cc": _version(["cc", "--version"]),
        },
        "disk": mount.stdout.strip() or f"device {stat.st_dev}",
        "fdatasync_ms": fdatasync_probe(folder),
        "load_average_at_start": os.getloadavg(),
    }


def _packages(*names: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return "absent"
    return (done.stdout + done.stderr).strip().split("\n")[0]


def fdatasync_probe(folder: Path, size: int = 96 << 10, rounds: int = 200) -> dict[str, float]:
    """p50 and p99 of pwrite + fdatasync of 96 KiB into a pre-zeroed file, as a commit block does it."""
    path = folder / "probe.bin"
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600)
    try:
        for _ in range(rounds):
            os.write(fd, bytes(size))
        os.fsync(fd)
        block, times = os.urandom(size), []
        for n in range(rounds):
            start = time.perf_counter()
            os.pwrite(fd, block, n * size)
            os.fdatasync(fd)
            times.append(time.perf_counter() - start)
    finally:
        os.close(fd)
        path.unlink()
    times.sort()
    return {
        "p50": round(times[len(times) // 2] * 1e3, 3),
        "p99": round(times[int(len(times) * 0.99)] * 1e3, 3),
    }


def calibrate(core: int) -> float:
    """CPU ms of a fixed piece of Python work on `core` (about 50): how fast the machine is just now."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            table: dict[int, bytes] = {}
            text = b"0123456789abcdef" * 64
            for n in range(40_000):
                table[n & 1023] = text[n & 511 : (n & 511) + 64]
                hash(table[n & 1023])
            best = min(best, time.process_time() - start)
        return best * 1e3
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class Process:
    """One reading of /proc/PID. `cpu_s` is own time, `reaped_s` that of exited children that were waited for."""

    pid: int
    parent: int
    session: int
    command: str
    cpu_s: float
    reaped_s: float
    rss_mb: float
    rss_peak_mb: float


def read_process(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    f = stat[stat.rindex(")") + 2 :].split()  # f[0] is field 3 (state) of proc(5)

    def mb(name: str) -> float:
        return int(status[name].split()[0]) / 1024 if name in status else 0.0

    user, system, child_user, child_system = (int(x) / TICKS_PER_S for x in f[11:15])
    return Process(
        pid, int(f[1]), int(f[3]), command, user + system, child_user + child_system, mb("VmRSS"), mb("VmHWM")
    )


def tree(root: int) -> dict[int, Process]:
    """`root`, all that descend from it, and all of its session (orphans stay in the session)."""
    every = {p.pid: p for entry in os.listdir("/proc") if entry.isdigit() and (p := read_process(int(entry)))}
    found = {pid for pid, p in every.items() if root in (pid, p.session)}
    grown = True
    while grown:
        more = {pid for pid, p in every.items() if p.parent in found} - found
        grown = bool(more)
        found |= more
    return {pid: every[pid] for pid in found}


def machine_cpu_s() -> tuple[float, float]:
    """(busy, stolen) CPU seconds of the whole machine since boot."""
    f = [int(x) / TICKS_PER_S for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return f[0] + f[1] + f[2] + f[5] + f[6], f[7]
