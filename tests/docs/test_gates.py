"""The gates are red when they should be: each rule is broken once, in a copy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import ROOT

BIN = Path(sys.executable).parent


def ruff(source: str, path: str) -> str:
    done = subprocess.run(
        [BIN / "ruff", "check", "--no-cache", "--output-format=concise", "--stdin-filename", path, "-"],
        input=source,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "import time; time.time()",
        "import time; time.sleep(1)",
        "from time import monotonic",
        "from datetime import datetime; datetime.now()",
        "import random",
        "import secrets",
        "from uuid import uuid4",
        "import os; os.urandom(8)",
        "import asyncio; asyncio.sleep(1)",
        "from asyncio import create_task",
    ],
)
@pytest.mark.parametrize("path", ["src/headwater/log/write.py", "tests/unit/log/test_write.py"])
def test_clock_and_chance_are_refused_outside_kit(line: str, path: str) -> None:
    assert "TID251" in ruff(line + "\n", path)


@pytest.mark.parametrize("path", ["src/headwater/kit/clock.py", "tests/journeys/test_seed.py"])
def test_clock_and_chance_are_allowed_where_they_are_real(path: str) -> None:
    assert "TID251" not in ruff("import time\n\ntime.sleep(1)\n", path)


def imports(tmp_path: Path, files: dict[str, str]) -> str:
    """What import-linter says about a headwater made of these files."""
    for name in ("pyproject.toml", "scripts"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path)
    for path, text in {"__init__.py": "", **files}.items():
        file = tmp_path / "src" / "headwater" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        for folder in file.relative_to(tmp_path / "src").parents[:-1]:
            (tmp_path / "src" / folder / "__init__.py").touch()
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ("BROKEN" in done.stdout), done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_headwater_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    said = imports(
        tmp_path,
        {
            "kit/clock.py": "",
            "log/write.py": "from headwater.kit import clock",
            "process/run.py": "from headwater.process import shape\nfrom headwater.process import dedupe",
            "process/shape.py": "",
            "process/dedupe.py": "",
            "destinations/registry.py": "from headwater.destinations.duckdb import write",
            "destinations/duckdb/write.py": "import duckdb",
            "destinations/files/write.py": "",
        },
    )
    assert "BROKEN" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("log/write.py", "from headwater.collect import door", "headwater.log is not allowed"),
        (
            "process/run.py",
            "from headwater.collect import door",
            "headwater.process is not allowed",
        ),
        ("utils/things.py", "", "headwater.utils"),
        ("collect/door.py", "import duckdb", "headwater is not allowed to import duckdb"),
        (
            "destinations/duckdb/write.py",
            "from headwater.destinations.files import write",
            "headwater.destinations.duckdb.write imports headwater.destinations.files.write",
        ),
        (
            "process/dedupe.py",
            "from headwater.process import shape",
            "headwater.process.dedupe imports headwater.process.shape",
        ),
    ],
)
def test_an_import_against_the_direction_is_refused(
    tmp_path: Path, path: str, text: str, complaint: str
) -> None:
    there = {"collect/door.py": "", "destinations/files/write.py": "", "process/shape.py": ""}
    assert complaint in imports(tmp_path, there | {path: text})
