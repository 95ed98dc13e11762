import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from headwater.process.enrich import distinct, geo
from headwater.process.enrich.settings import GeoSettings

NAMES = [field.name for field in geo.FIELDS]
NESTED = {
    "country": {"iso_code": "DE", "names": {"en": "Germany", "de": "Deutschland"}},
    "subdivisions": [{"iso_code": "BE", "names": {"en": "Land Berlin"}}],
    "city": {"names": {"en": "Berlin"}},
    "postal": {"code": "10115"},
    "location": {"latitude": 52.5, "longitude": 13.25, "time_zone": "Europe/Berlin"},
}
NETWORK = {"autonomous_system_number": 64500, "autonomous_system_organization": "Example Net"}
FLAT = {
    "country_code": "FR", "country": "France", "region": "Île-de-France", "city": "Paris", "asn": "AS64501",
    "as_name": "Autre", "latitude": "48.5", "longitude": "2.25", "timezone": "Europe/Paris",
    "postal_code": "75001",
}  # fmt: skip


def database(path: Path, record: dict, networks: tuple[str, ...] = ("192.0.2.0/24", "2001:db8::/32")) -> str:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test")
    writer.insert_network(IPSet(list(networks)), record)
    fresh = path.with_suffix(".new")
    writer.to_db_file(str(fresh))
    os.replace(fresh, path)
    return str(path)


def place(reader: geo.Geo, address: str | None, now_s: float = 0.0) -> dict:
    return {
        name: array[0].as_py()
        for name, array in reader.apply(pa.array([address], pa.string()), now_s).items()
    }


def test_nested_record_fills_the_columns(tmp_path):
    reader = geo.Geo(GeoSettings(databases=(database(tmp_path / "city.mmdb", NESTED),), language="de"))
    row = place(reader, "192.0.2.7")
    assert list(row.values()) == [
        "DE", "Deutschland", "BE", "Land Berlin", "Berlin", "10115", 52.5, 13.25, "Europe/Berlin", None, None
    ]  # fmt: skip
    assert place(reader, "2001:db8::1") == row
    reader.close()


def test_flat_record_fills_the_columns(tmp_path):
    reader = geo.Geo(GeoSettings(databases=(database(tmp_path / "flat.mmdb", FLAT),)))
    row = place(reader, "192.0.2.7")
    assert (row["country"], row["region_name"], row["city"]) == ("FR", "Île-de-France", "Paris")
    assert (row["latitude"], row["longitude"], row["postal"]) == (48.5, 2.25, "75001")
    assert (row["asn"], row["as_organisation"], row["timezone"]) == (64501, "Autre", "Europe/Paris")
    reader.close()


def test_several_databases_complete_each_other(tmp_path):
    paths = (database(tmp_path / "city.mmdb", NESTED), database(tmp_path / "asn.mmdb", NETWORK))
    reader = geo.Geo(GeoSettings(databases=paths))
    row = place(reader, "192.0.2.7")
    assert (row["city"], row["asn"], row["as_organisation"]) == ("Berlin", 64500, "Example Net")
    reader.close()


def test_address_that_is_none_or_unknown_gives_nulls(tmp_path):
    reader = geo.Geo(GeoSettings(databases=(database(tmp_path / "city.mmdb", NESTED),)))
    addresses = pa.array([None, "", "junk", "198.51.100.1", "1.2.3", "0" * 500, "192.0.2.1"])
    assert reader.apply(addresses, 0.0)["country"].to_pylist() == [None] * 6 + ["DE"]
    assert reader.memo.failed == reader.readers[0].failures == 0
    reader.close()


def test_without_databases_all_is_null():
    out = geo.Geo(GeoSettings()).apply(pa.array(["192.0.2.7", None]), 0.0)
    assert [array.null_count for array in out.values()] == [2] * len(NAMES)


@pytest.mark.slow
@given(st.lists(st.text(max_size=50), max_size=5))
@settings(deadline=None, max_examples=60)
def test_no_text_raises(tmp_path_factory, texts):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "any.mmdb"
    reader = geo.Geo(GeoSettings(databases=(str(path) if path.exists() else database(path, NESTED),)))
    reader.apply(pa.array(texts, pa.string()), 0.0)
    assert reader.memo.failed == 0
    reader.close()


RECORDS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["iso_code", "names", "en", "code", "latitude", "country_code"]), inner
        )
    ),
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from([*NESTED, *NETWORK, *FLAT]), RECORDS))
def test_no_record_raises(record):
    memo = distinct.Memo(lambda _: geo.place(record, "en"), geo.FIELDS, entries_max=2)
    memo.apply(pa.array(["x"]))
    assert memo.failed == 0


def test_changed_file_is_taken_when_two_looks_found_it_the_same(tmp_path):
    path = tmp_path / "city.mmdb"
    reader = geo.Geo(GeoSettings(databases=(database(path, NESTED),), reload_check_s=10.0))
    assert place(reader, "192.0.2.7", 0.0)["country"] == "DE"
    database(path, FLAT)
    assert place(reader, "192.0.2.7", 9.9)["country"] == "DE"
    assert place(reader, "192.0.2.7", 10.0)["country"] == "DE"
    assert place(reader, "192.0.2.7", 20.0)["country"] == "FR"
    assert reader.readers[0].loads == 2
    reader.close()


def test_file_is_looked_at_no_more_often_than_asked(tmp_path, monkeypatch):
    looks = []
    stamp = geo._stamp

    def counted(path):
        looks.append(path)
        return stamp(path)

    monkeypatch.setattr(geo, "_stamp", counted)
    reader = geo.GeoReader(database(tmp_path / "city.mmdb", NESTED), reload_check_s=5.0)
    assert [reader.refresh(now) for now in (0.0, 1.0, 4.9)] == [True, False, False]
    before = len(looks)
    reader.refresh(4.95)
    assert len(looks) == before
    reader.refresh(5.0)
    assert len(looks) == before + 1
    reader.close()


@pytest.mark.parametrize("damage", ["truncated", "emptied", "junk", "deleted"])
def test_broken_file_leaves_the_former_database_in_use_and_is_told(tmp_path, damage):
    path = tmp_path / "city.mmdb"
    reader = geo.GeoReader(database(path, NESTED), reload_check_s=1.0)
    reader.refresh(0.0)
    whole = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:  # in place, under the same inode: what a careless download does
        path.write_bytes(
            {"truncated": whole[: len(whole) // 2], "emptied": b"", "junk": b"x" * 9_999}[damage]
        )
    for now in range(1, 6):
        assert not reader.refresh(float(now))
        assert reader.find("192.0.2.7") == NESTED
    # a file that is no database is not copied again until it changes; a missing one is looked for
    assert reader.failures == (5 if damage == "deleted" else 1)
    assert str(path) in (reader.trouble or "")
    database(path, FLAT)
    assert [reader.refresh(float(now)) for now in (6, 7)] == [False, True]
    assert not reader.trouble
    found = reader.find("192.0.2.7")
    assert found is not None and found["city"] == "Paris"
    reader.close()


def test_file_that_is_missing_at_first_is_taken_as_soon_as_it_is_there(tmp_path):
    path = tmp_path / "late.mmdb"
    reader = geo.GeoReader(path, reload_check_s=1.0)
    assert not reader.refresh(0.0)
    assert str(path) in (reader.trouble or "")
    assert reader.find("192.0.2.7") is None
    database(path, NESTED)
    assert reader.refresh(1.0)
    assert not reader.trouble
    reader.close()


def test_private_copy_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir()
    reader = geo.GeoReader(database(tmp_path / "city.mmdb", NESTED), copy_folder=folder)
    reader.refresh(0.0)
    assert reader.find("192.0.2.7") == NESTED
    assert list(folder.iterdir()) == []
    reader.close()


def test_file_that_changes_while_it_is_copied_is_not_taken(tmp_path, monkeypatch):
    path = tmp_path / "city.mmdb"
    reader = geo.GeoReader(database(path, NESTED), reload_check_s=1.0)
    copy = shutil.copyfileobj

    def copy_and_change(source, target, size):
        copy(source, target, size)
        with path.open("ab") as file:
            file.write(b"\0")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", copy_and_change)
        assert not reader.refresh(0.0)
    assert "changed while" in (reader.trouble or "")
    assert reader.refresh(1.0)
    reader.close()
