"""The browser tag as a file: small, valid, and free of what a strict Content-Security-Policy forbids.

What it does is tested in a real browser: tests/journeys/test_tag.py.
"""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import headwater

STATIC = Path(headwater.__file__).parent / "collect" / "static"
TAG = STATIC / "headwater.js"
MODULE = STATIC / "headwater.mjs"
GZIP_BYTES_MAX = 6 * 1024

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def test_tag_is_at_most_6_kb_gzip() -> None:
    assert len(gzip.compress(TAG.read_bytes(), 9)) <= GZIP_BYTES_MAX


def test_tag_carries_the_version_of_the_package() -> None:
    found = re.search(r"VERSION = '([^']+)'", TAG.read_text())
    assert found is not None
    assert found[1] == headwater.__version__


@pytest.mark.parametrize(
    "forbidden",
    [r"\beval\b", r"\bFunction\(", "innerHTML", "createElement", r"document\.write", r"\.style\b"],
)
def test_tag_needs_nothing_that_a_strict_policy_forbids(forbidden: str) -> None:
    assert re.search(forbidden, TAG.read_text()) is None


def test_tag_is_plain_ascii() -> None:
    """Served as text/javascript; a page in another charset must read the same characters."""
    assert TAG.read_text().isascii()
    assert MODULE.read_text().isascii()


@needs_node
@pytest.mark.slow
@pytest.mark.parametrize("path", [TAG, MODULE], ids=lambda path: path.name)
def test_tag_is_valid_javascript(path: Path) -> None:
    done = subprocess.run(
        ["node", "--check", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_node
@pytest.mark.slow
def test_module_does_nothing_without_a_browser() -> None:
    """Server rendering imports the same module; calls answer, and nothing throws."""
    code = (
        f"import({str(MODULE.as_uri())!r}).then(async m => console.log(JSON.stringify(await m.track('x'))))"
    )
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == '{"ok":false,"reason":"no_browser"}', done.stderr
