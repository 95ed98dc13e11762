"""What a process does not need it does not import: pyarrow is up to 0.4 s of a start and 50 MB of each process."""

import subprocess
import sys

import pytest

HEAVY = (
    "pyarrow",
    "duckdb",
    "numpy",
    "maxminddb",
    "ua_parser",
    "re2",
    "starlette",
    "uvicorn",
    "yaml",
    "rich",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "needed"),
    [
        ("headwater.node.role", set()),
        ("headwater.node.role, headwater.node.roles.collect, headwater.collect.worker", set()),
        ("headwater.node.role, headwater.node.roles.ops", {"starlette", "uvicorn"}),
        ("headwater.node.start, headwater.node.supervise", {"yaml"}),
        ("headwater.node.dead_letters, headwater.process.dead", set()),
    ],
    ids=["any role", "collect", "ops", "supervisor", "dead letters, which ops reads"],
)
def test_a_process_imports_only_what_it_needs(modules, needed):
    code = f"import sys, {modules}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) == needed
