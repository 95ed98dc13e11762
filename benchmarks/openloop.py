"""Runs load/openloop.c: requests at scheduled times, latencies from those times, whatever the server does.

The requests are those of load/single.lua and load/batch.lua: same head, same bodies, a new message id each.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import events
from benchmarks.servers import CACHE, LOAD_CORE, Unavailable

SOURCE = Path(__file__).resolve().parent / "load" / "openloop.c"
BINARY = CACHE / "openloop"
PAYLOADS = CACHE / "payload"
GRACE_S = 30.0


@dataclass(slots=True)
class Histogram:
    """Latencies in buckets 1.6 % wide, as openloop.c counts them."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, pairs: Iterable[Sequence[int]]) -> None:
        for bucket, count in pairs:
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def quantile_ms(self, q: float) -> float:
        """The upper border of the bucket that holds the quantile; NaN where nothing was counted."""
        left = q * self.total
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return border_ns(bucket) / 1e6
        return float("nan")


def border_ns(bucket: int) -> int:
    """Upper border of a bucket."""
    shift = max(0, bucket // 64 - 1)
    return (bucket - shift * 64 + 1) << shift


@dataclass(slots=True)
class Told:
    """What the generator saw, or a stretch of it."""

    seconds: float = 0.0
    done: int = 0
    refused: int = 0
    broken: int = 0
    waited: int = 0  # found no free connection at their time; counted from it nevertheless
    queued: int = 0  # not answered at the end of the stretch
    cpu_s: float = 0.0
    took: Histogram = field(default_factory=Histogram)
    late: Histogram = field(default_factory=Histogram)
    scheduling: str = ""
    status: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.done / self.seconds if self.seconds else 0.0

    def values(self) -> dict[str, object]:
        """For the JSON of a run: everything, the histogram too."""
        return {
            "seconds": self.seconds,
            "done": self.done,
            "refused": self.refused,
            "broken": self.broken,
            "waited": self.waited,
            "queued_at_end": self.queued,
            "rate": self.rate,
            **{name: self.took.quantile_ms(q) for name, q in QUANTILES.items()},
            "late_p50_ms": self.late.quantile_ms(0.5),
            "late_p99_ms": self.late.quantile_ms(0.99),
            "generator_cpu_s": self.cpu_s,
            "scheduling": self.scheduling,
            "status": self.status,
            "took": sorted(self.took.counts.items()),
        }


QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p99.9_ms": 0.999, "max_ms": 1.0}


def stretch(lines: Sequence[dict[str, Any]], since_s: float = 0.0, until_s: float = 1e18) -> Told:
    """What ended in the intervals that lie between two times since the generator's start."""
    told, before = Told(), (0.0, 0.0)
    for line in lines:
        at, cpu = float(line["at_s"]), float(line["cpu_s"])
        if before[0] >= since_s - 1e-6 and at <= until_s + 1e-6:
            if line.get("dropped"):
                raise RuntimeError(
                    f"the generator's queue was full: {line['dropped']} requests were not sent"
                )
            told.seconds += at - before[0]
            told.cpu_s += cpu - before[1]
            for name in ("done", "refused", "broken", "waited"):
                setattr(told, name, getattr(told, name) + int(line[name]))
            told.queued = int(line["queued"])
            told.took.add(line["took"])
            told.late.add(line["late"])
        before = (at, cpu)
    told.scheduling = str(lines[-1].get("scheduling", ""))
    told.status = dict(lines[-1].get("status", {}))
    return told


def build() -> None:
    """Compiles the generator and writes its requests; raises Unavailable."""
    if shutil.which("cc") is None:
        raise Unavailable("no C compiler for load/openloop.c")
    CACHE.mkdir(parents=True, exist_ok=True)
    if not BINARY.exists() or BINARY.stat().st_mtime < SOURCE.stat().st_mtime:
        command = ["cc", "-O2", "-Wall", str(SOURCE), "-o", str(BINARY), "-lm"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"openloop.c did not compile: {done.stderr[-1000:]}")
    for kind, path in (("single", "/v1/track"), ("batch", "/v1/batch")):
        bodies = (PAYLOADS / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
        requests_file(kind).write_bytes(b"".join(record_of(path, body.encode()) for body in bodies))


def requests_file(kind: str) -> Path:
    return CACHE / f"openloop-{kind}.bin"


def record_of(path: str, body: bytes) -> bytes:
    """Length and bytes of one request; marks stay, its Content-Length is right once they are replaced."""
    length = len(body) + body.count(events.MARK.encode()) * (events.ID_BYTES - len(events.MARK))
    text = request_head(path, length).encode() + body
    return struct.pack("<I", len(text)) + text


def request_head(path: str, length: int) -> str:
    """The 18 headers of load/common.lua."""
    key = base64.b64encode(f"{events.KEY}:".encode()).decode()
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: collect.shop.example",
        "Connection: keep-alive",
        f"Content-Length: {length}",
        'sec-ch-ua-platform: "Windows"',
        "User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
        " Chrome/141.0.0.0 Safari/537.36",
        'sec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8", "Google Chrome";v="141"',
        "Content-Type: application/json",
        "sec-ch-ua-mobile: ?0",
        f"Authorization: Basic {key}",
        "Accept: */*",
        "Origin: https://shop.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Mode: cors",
        "Sec-Fetch-Dest: empty",
        "Referer: https://shop.example/river/stone-17?utm_source=newsletter&v=100",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-US,en;q=0.9,de;q=0.8",
        "Cookie: _ga=GA1.1.1034589123.1759999999; session=5b1e0c1a-77b2-4f0e-9f6e-2b1f6f1d9c55; theme=harbor",
    )
    return "\r\n".join(lines) + "\r\n\r\n"


class Generator:
    """One run of the generator, in the background."""

    def __init__(
        self,
        port: int,
        *,
        seconds: float,
        rate: float = 0.0,
        kind: str = "single",
        connections: int = 64,
        interval_s: float = 1.0,
        count: int | None = None,
        seed: int = 1,
    ) -> None:
        self.seconds = seconds
        command = (
            f"taskset -c {LOAD_CORE} {BINARY} --port {port} --rate {rate:.1f} --seconds {seconds}".split()
        )
        command += f"--connections {connections} --interval {interval_s} --seed {seed}".split()
        command += ["--requests", str(requests_file(kind)), "--nonce", secrets.token_hex(4)]
        command += ["--count", str(count)] if count is not None else []
        self.output = (
            CACHE / f"openloop-{secrets.token_hex(4)}.ndjson"
        )  # a pipe would fill: it is read at the end
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True)

    def end(self) -> list[dict[str, Any]]:
        """Ends its schedule now; its lines when all that was on the way is answered."""
        self.process.terminate()
        self.seconds = 0.0
        return self.wait()

    def wait(self) -> list[dict[str, Any]]:
        """Its lines, when it has ended."""
        try:
            said = self.process.communicate(timeout=self.seconds + GRACE_S)[1]
        except subprocess.TimeoutExpired:
            self.stop()
            raise RuntimeError(f"the generator did not end {GRACE_S:.0f} s after its time") from None
        if self.process.returncode:
            raise RuntimeError(f"the generator ended with {self.process.returncode}: {said[-500:]}")
        lines = [json.loads(line) for line in self.output.read_text().splitlines()]
        self.output.unlink()
        return lines

    def stop(self) -> None:
        """Ends it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run(port: int, warm_up_s: float, seconds: float, **more: Any) -> Told:
    """Load for the warm-up and the time; what was seen after the warm-up."""
    lines = Generator(port, seconds=warm_up_s + seconds, **more).wait()
    return stretch(lines, warm_up_s)


def fill(port: int, batches: int, seconds_max: float = 600.0) -> int:
    """Batches of 100 events as fast as they are taken; how many events were."""
    lines = Generator(port, seconds=seconds_max, kind="batch", connections=16, count=batches).wait()
    return stretch(lines).done * 100
