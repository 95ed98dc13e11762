"""Client address → place and network, from MMDB files that the user supplies (none is shipped).

Both common forms of record are read: MaxMind's and DB-IP's nested one (`country.iso_code`, `city.names.en`,
`location.latitude` …) and flat ones (`country_code`, `city`, `latitude`, `asn` as `AS15169` or a number).
Several files may be given, such as one for cities and one for networks: the first that knows a field gives
it.

**Hot reload.**  `Geo.apply` takes the moment and looks at the files at most each `reload_check_s`.  The
user's file is only ever copied, never mapped: it is copied into an unlinked private file, opened from there,
and must answer its metadata and a probe before it replaces the old one.  So a file that is half written,
truncated, replaced or deleted under our hands breaks nothing (a mapped file that shrinks would kill the
process).  A changed file is taken when two looks in a row saw the same size, time and inode, and these did
not change during the copy.  What goes wrong is counted in `GeoReader.failures`, told in `.trouble`, and tried
again at the next look (a file that is no database: when it has changed); the former database stays.

An address that is none (hashed, empty), or that the database lacks, gives nulls.  Output depends on the
database of the moment, the one exception to INV-STATE; a commit's rows are what it said then.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import maxminddb
import pyarrow as pa

from headwater.process.enrich.distinct import Field, Memo, Row, texts
from headwater.process.enrich.settings import GeoSettings

FIELDS = (
    *texts("country", "country_name", "region", "region_name", "city", "postal"),
    Field("latitude", pa.float64()),
    Field("longitude", pa.float64()),
    *texts("timezone"),
    Field("asn", pa.int64()),
    *texts("as_organisation"),
)

_NOTHING: Row = (None,) * len(FIELDS)
_Stamp = tuple[int, int, int]


class GeoReader:
    """One MMDB file, with its last good state.

    `failures` counts what went wrong, `trouble` tells what is wrong now (None: nothing), `loads` counts the
    databases taken.
    """

    def __init__(
        self, path: str | Path, *, reload_check_s: float = 10.0, copy_folder: str | Path | None = None
    ) -> None:
        """Opens nothing yet: `refresh` does.  `copy_folder` holds the private copy; default: the system's for
        temporary files.  It needs room for the file, twice during a reload.
        """
        self.path = Path(path)
        self.failures = 0
        self.loads = 0
        self.trouble: str | None = None
        self._check_s = reload_check_s
        self._folder = copy_folder
        self._reader: maxminddb.Reader | None = None
        self._taken: _Stamp | None = None
        self._seen: _Stamp | None = None
        self._refused: _Stamp | None = None
        self._next_look_s: float | None = None

    def refresh(self, now_s: float) -> bool:
        """Look at the file if it is time to (by a monotonic clock); True when another database is in use
        now."""
        if self._next_look_s is not None and now_s < self._next_look_s:
            return False
        self._next_look_s = now_s + self._check_s
        try:
            stamp = _stamp(self.path)
            if stamp == self._taken:
                self.trouble = None
                return False
            settled = stamp == self._seen or self._reader is None
            self._seen = stamp
            if not settled or stamp == self._refused:
                return False
            reader = self._open(stamp)
        except maxminddb.InvalidDatabaseError as error:
            self._refused = stamp
            return self._failed(error)
        except (OSError, ValueError) as error:
            return self._failed(error)
        former, self._reader, self._taken = self._reader, reader, stamp
        self.loads += 1
        self.trouble = None
        if former is not None:
            former.close()
        return True

    def find(self, address: str) -> Mapping[str, object] | None:
        """The record of an address, or None.  Never raises."""
        if self._reader is None:
            return None
        try:
            record = self._reader.get(address)
        except (ValueError, TypeError):  # no address, or IPv6 in a database of IPv4; a NUL is a TypeError
            return None
        except maxminddb.InvalidDatabaseError as error:
            self._failed(error)
            return None
        return record if isinstance(record, dict) else None

    def close(self) -> None:
        """Give the private copy back."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            self._taken = None

    def _failed(self, error: Exception) -> bool:
        self.failures += 1
        self.trouble = f"{self.path}: {type(error).__name__}: {error}"
        return False

    def _open(self, stamp: _Stamp) -> maxminddb.Reader:
        with tempfile.NamedTemporaryFile(prefix="headwater-geo-", suffix=".mmdb", dir=self._folder) as copy:
            with self.path.open("rb") as source:
                shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            if _stamp(self.path) != stamp:
                raise ValueError("changed while it was copied; waiting until it is whole")
            reader = maxminddb.open_database(copy.name)
        try:
            reader.metadata()
            reader.get("192.0.2.1")
        except BaseException:
            reader.close()
            raise
        return reader


class Geo:
    """Several databases as one: the columns of FIELDS for a column of addresses."""

    def __init__(self, settings: GeoSettings, *, copy_folder: str | Path | None = None) -> None:
        self.readers = tuple(
            GeoReader(path, reload_check_s=settings.reload_check_s, copy_folder=copy_folder)
            for path in settings.databases
        )
        self.memo = Memo(self._describe, FIELDS, entries_max=settings.entries_max)
        self._language = settings.language

    def apply(self, addresses: pa.Array | pa.ChunkedArray, now_s: float) -> dict[str, pa.Array]:
        """One array per field; `now_s` is a monotonic clock's.  Without databases all is null, at no cost."""
        if not self.readers:
            return {field.name: pa.nulls(len(addresses), field.type) for field in FIELDS}
        self.refresh(now_s)
        return self.memo.apply(addresses)

    def refresh(self, now_s: float) -> None:
        """Look at the files if it is time to. Before the first event, so that one which breaks later was read once."""
        changed = [reader.refresh(now_s) for reader in self.readers]
        if any(changed):
            self.memo.clear()

    def close(self) -> None:
        """Close all databases."""
        for reader in self.readers:
            reader.close()

    def _describe(self, address: str | None) -> Row:
        if not address or len(address) > 64:
            return _NOTHING
        records = [record for reader in self.readers if (record := reader.find(address)) is not None]
        if not records:
            return _NOTHING
        rows = [place(record, self._language) for record in records]
        if len(rows) == 1:
            return rows[0]
        return tuple(next((v for v in values if v is not None), None) for values in zip(*rows, strict=True))


def place(record: Mapping[str, object], language: str) -> Row:
    """The values of FIELDS, in their order, from a record of either form."""
    country = record.get("country") or record.get("registered_country")
    regions = record.get("subdivisions")
    region = (
        regions[0] if isinstance(regions, Sequence) and not isinstance(regions, str) and regions else None
    )
    city, location, postal = record.get("city"), record.get("location"), record.get("postal")
    nested = isinstance(country, Mapping)
    return (
        _text(_of(country, "iso_code"), record.get("country_code"), None if nested else country),
        _text(_name(country, language), record.get("country_name")),
        _text(_of(region, "iso_code"), record.get("region_code")),
        _text(_name(region, language), record.get("region"), record.get("state1")),
        _text(_name(city, language), city),
        _text(_of(postal, "code"), postal, record.get("postal_code"), record.get("zip")),
        _number(_of(location, "latitude"), record.get("latitude"), record.get("lat")),
        _number(_of(location, "longitude"), record.get("longitude"), record.get("lng")),
        _text(_of(location, "time_zone"), record.get("timezone"), record.get("time_zone")),
        _network(record.get("autonomous_system_number"), record.get("asn")),
        _text(
            record.get("autonomous_system_organization"), record.get("as_name"), record.get("as_organization")
        ),
    )


def _stamp(path: Path) -> _Stamp:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _of(part: object, key: str) -> object:
    return part.get(key) if isinstance(part, Mapping) else None


def _name(part: object, language: str) -> object:
    names = _of(part, "names")
    return _of(names, language) or _of(names, "en")


def _text(*candidates: object) -> str | None:
    return next((text for text in candidates if isinstance(text, str) and text), None)


def _number(*candidates: object) -> float | None:
    for candidate in candidates:
        if isinstance(candidate, int | float | str) and not isinstance(candidate, bool):
            try:
                return float(candidate)
            except (ValueError, OverflowError):
                continue
    return None


def _network(*candidates: object) -> int | None:
    for candidate in candidates:
        digits = str(candidate).upper().removeprefix("AS")
        if digits.isascii() and digits.isdigit() and len(digits) <= 10:
            return int(digits)
    return None
