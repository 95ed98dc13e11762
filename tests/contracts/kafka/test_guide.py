"""The example of docs/guides/kafka.md runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts import ROOT
from tests.rigs.kafka import Kafka

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]


def test_the_example_of_the_guide_counts_the_clicks(kafka: Kafka, tmp_path: Path) -> None:
    text = (ROOT / "docs/guides/kafka.md").read_text("utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    topic = kafka.topic("clicks")
    (tmp_path / "example.py").write_text(example.replace('"clicks"', f'"{topic}"'))
    done = subprocess.run(
        [sys.executable, tmp_path / "example.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "KAFKA": kafka.servers},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in text
    assert done.stdout.startswith("{'visitor-0': 4")
