"""A running node takes a new database of places: by SIGHUP, by a changed setting, and by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from tests.journeys.running import Running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def write_database(path: Path, country: str) -> None:
    """A database in which this machine is in ``country``; the file is replaced whole."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test")
    writer.insert_network(IPSet(["127.0.0.0/8"]), {"country": {"iso_code": country}})
    writer.to_db_file(f"{path}.new")
    os.replace(f"{path}.new", path)


class Places:
    """A node that knows places, and events named one after the other."""

    def __init__(self, make_node: Callable[..., Running], *, check_s: float) -> None:
        self.check_s = check_s
        self.node = make_node()
        self.configure("places.mmdb")
        write_database(self.node.folder / "places.mmdb", "NO")
        self.sent = 0
        self.node.start()

    def configure(self, database: str) -> None:
        geo = f"{{databases: [{self.node.folder / database}], reload_check_s: {self.check_s}}}"
        self.node.configure(more=f"process: {{enrich: {{geo: {geo}}}}}")

    def country(self) -> str | None:
        """Where an event that is sent now comes from."""
        self.sent += 1
        status, _ = self.node.post("/events", {"event": "Here", "messageId": f"m{self.sent}"})
        assert status == 200
        self.node.wait_rows(self.sent)
        (row,) = self.node.sql(f"select geo_country from events where message_id = 'm{self.sent}'")
        found: str | None = row["geo_country"]
        return found

    def check_history(self, before: int, old: str, new: str) -> None:
        """Events up to ``before`` keep the old country; then there is one moment from which on all have the new."""
        rows = self.node.sql("select message_id, geo_country from events order by _hw_log, _hw_seq")
        found = [row["geo_country"] for row in rows]
        assert found[:before] == [old] * before
        assert found == sorted(found, key=[old, new].index), found
        assert found[-1] == new


def test_a_replaced_database_is_taken_at_sighup(make_node: Callable[..., Running]) -> None:
    places = Places(make_node, check_s=3600)
    assert places.country() == "NO"
    write_database(places.node.folder / "places.mmdb", "SE")
    assert places.country() == "NO"
    places.node.signal(signal.SIGHUP)
    wait_for(lambda: places.country() == "SE", 20, places.node.log)
    places.check_history(2, "NO", "SE")


def test_another_database_is_taken_at_sighup(make_node: Callable[..., Running]) -> None:
    places = Places(make_node, check_s=3600)
    assert places.country() == "NO"
    write_database(places.node.folder / "other.mmdb", "DK")
    places.configure("other.mmdb")
    places.node.signal(signal.SIGHUP)
    wait_for(lambda: places.country() == "DK", 20, places.node.log)
    assert '"process.enrich.geo.databases"' in places.node.log_text()
    places.check_history(1, "NO", "DK")


def test_a_replaced_database_is_taken_without_being_told(make_node: Callable[..., Running]) -> None:
    places = Places(make_node, check_s=0.2)
    pids = places.node.pids()
    assert places.country() == "NO"
    write_database(places.node.folder / "places.mmdb", "FI")
    wait_for(lambda: places.country() == "FI", 20, places.node.log)
    places.check_history(1, "NO", "FI")
    assert places.node.pids() == pids


def test_a_broken_database_leaves_the_former_one_in_use(make_node: Callable[..., Running]) -> None:
    places = Places(make_node, check_s=0.2)
    assert places.country() == "NO"
    (places.node.folder / "places.mmdb").write_bytes(b"no database")
    for _ in range(3):
        assert places.country() == "NO"
    write_database(places.node.folder / "places.mmdb", "FI")
    wait_for(lambda: places.country() == "FI", 20, places.node.log)
