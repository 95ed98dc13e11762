import re

import pytest

from headwater.config import docs
from headwater.node import reference
from headwater.node.settings import Settings
from headwater.ops import metrics
from tests.parts import ROOT


def every(struct, key=""):
    for field in docs.fields(struct):
        yield f"{key}{field.name}", field
        for inner in docs.structs_in(field.type):
            yield from every(inner, f"{key}{field.name}.")


@pytest.mark.parametrize(("key", "field"), [pytest.param(k, f, id=k) for k, f in every(Settings)])
def test_every_setting_says_what_it_means(key, field):
    assert len(field.meaning) > 10 or docs.structs_in(field.type), "a block is explained by its struct"


def test_every_setting_stands_in_the_page():
    page = reference.configuration()
    assert all(f"`{field.name}`" in page for _, field in every(Settings) if not docs.structs_in(field.type))
    assert "## `destinations.NAME (type: duckdb)`" in page
    assert "| `nice` |" in page
    assert re.search(r"\| `secret` ↻ \|", page)
    assert re.search(r"\| `listen` \|", page)


def test_every_metric_and_happening_stands_in_the_page():
    page = reference.metrics()
    for told in metrics.TOLD.values():
        assert all(name in metrics.HELP and f"`{name}`" in page for name in told.values())
    assert "`role_ended` | warning | `role`, `exit_code`, `again_in_s`" in page
    assert "| `kafka_dead_letter` |" in page


def test_every_counter_that_the_code_counts_has_its_meaning_in_the_page():
    counted = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"counters\.(?:add|set)\(\s*\"(\w+)\"", path.read_text())
    }
    assert len(counted) >= 5
    assert counted <= metrics.HELP.keys()


def test_the_unit_leaves_more_time_than_the_defaults_take():
    unit = (ROOT / "deploy/systemd/headwater.service").read_text()
    defaults = Settings()
    taken = defaults.shutdown_delay + defaults.shutdown_timeout + defaults.drain_timeout_s
    (allowed,) = re.findall(r"TimeoutStopSec=(\d+)", unit)
    assert int(allowed) > 2 * taken
    assert "KillMode=mixed" in unit
