"""Makes a data folder with the code of another version, and packs it.

``python -m tests.journeys.previous.make 701d3ae tests/journeys/previous/701d3ae.tar.zst`` from the top of the
repository. The folder holds events in each place that a crash can leave them in: delivered, processed only, accepted
only; each tenth was sent twice, and one is a dead letter.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import zstandard

from tests.journeys.running import Running, wait_for
from tests.parts import ROOT

STAGES = ("delivered", "processed", "accepted")
EACH = 50
DEAD = "dead-0"
SMALL = "log: {segment_bytes: 8388608, ready_segment_bytes: 8388608, spare_segments_max: 0}\n"
LEFT_OUT = ("run", "lock")
"""What is worthless when its processes are gone."""


def ids() -> set[str]:
    """The ids that must be in the warehouse in the end."""
    return {f"{stage}-{n}" for stage in STAGES for n in range(EACH)}


def events(stage: str) -> list[dict[str, object]]:
    """The events of a stage; each tenth comes twice."""
    once: list[dict[str, object]] = [
        {"type": "track", "event": "E", "messageId": f"{stage}-{n}", "anonymousId": f"a{n % 7}",
         "properties": {"number": n, "text": "x" * n, "deep": {"flag": n % 2 == 0}}}
        for n in range(EACH)
    ]  # fmt: skip
    return once + once[::10]


def make(revision: str, folder: Path) -> Path:
    """Run that version until its data folder holds all of this, and kill it; the folder. Needs the history."""
    code = folder / "code"
    code.mkdir()
    archive = subprocess.run(["git", "archive", revision, "src"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(code)
    node = Running(folder, more=SMALL)
    node.environment["PYTHONPATH"] = str(code / "src")
    try:
        node.start()
        fill(node)
    finally:
        node.close()
    return node.data


def fill(node: Running) -> None:
    """Events in every place; then the end."""
    refused = {"type": "nonsense", "messageId": DEAD, "userId": "u"}
    status, told = node.post("/v1/batch", {"batch": [*events("delivered"), refused]})
    assert (status, len(told["refused"])) == (200, 1), told
    for stage, stopped in zip(STAGES, (" deliver ", " process ", ""), strict=True):
        status, told = node.post("/v1/batch", {"batch": events(stage)})
        assert status == 200, told
        if stage == "delivered":
            node.wait_rows(EACH)
        if stage == "processed":
            wait_for(lambda receipt=told["receipt"]: processed(node, receipt), 20, node.log)  # type: ignore[misc]
        for pid in node.pids(stopped) if stopped else ():
            os.kill(pid, signal.SIGSTOP)
    node.kill_all()


def processed(node: Running, receipt: str) -> bool:
    """Whether a request is processed, as the node says."""
    told = node.command("where", "--json", receipt).stdout
    return bool(told) and bool(json.loads(told)["processed"])


def pack(data: Path, target: Path) -> None:
    """The folder as one small file."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(data.rglob("*")):
            name = path.relative_to(data)
            if path.is_file() and name.parts[0] not in LEFT_OUT:
                entry = tarfile.TarInfo(str(name))
                entry.size, entry.mode = path.stat().st_size, 0o600
                with path.open("rb") as file:
                    tar.addfile(entry, file)
    target.write_bytes(zstandard.ZstdCompressor(level=19).compress(plain.getvalue()))


def unpack(source: Path, data: Path) -> None:
    """What ``pack`` packed."""
    plain = zstandard.ZstdDecompressor().decompress(source.read_bytes(), max_output_size=1 << 30)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        tar.extractall(data)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made_in:
        pack(make(sys.argv[1], Path(made_in)), Path(sys.argv[2]))
