"""Giving a generated key a new secret: two are valid for a time, then one."""

import os

import pytest

from headwater.kit.disk import SystemDisk
from headwater.kit.errors import Rejected
from headwater.kit.rng import SystemRng
from headwater.node import first, rotation

DISK = SystemDisk()
END = 5_000_000_000


@pytest.fixture
def data(tmp_path):
    first.write_secret(str(tmp_path), "web", SystemRng())
    return str(tmp_path)


def lines(data):
    with open(f"{data}/keys/web.secret") as file:
        return file.read().split()


def begin(data, until_ns=END):
    return rotation.begin(DISK, data, "web", until_ns, SystemRng())


def test_the_new_secret_comes_first_and_the_old_one_stays(data):
    (old,) = lines(data)
    begin(data)
    new, kept = lines(data)
    assert kept == old != new
    assert os.stat(f"{data}/keys/web.secret").st_mode & 0o777 == 0o600
    assert rotation.until(DISK, data, "web") == END


def test_when_its_time_is_over_the_old_secret_goes_and_not_before(data):
    begin(data)
    new, _ = lines(data)
    assert rotation.finish_overdue(DISK, data, END - 1) == []
    assert lines(data)[0] == new and len(lines(data)) == 2
    assert rotation.finish_overdue(DISK, data, END) == ["web"]
    assert lines(data) == [new]
    assert sorted(os.listdir(f"{data}/keys")) == ["web.secret"]
    assert rotation.finish_overdue(DISK, data, END) == []


def test_a_second_rotation_waits_for_the_end_of_the_first(data):
    begin(data)
    before = lines(data)
    with pytest.raises(Rejected, match="under way"):
        begin(data)
    assert lines(data) == before
    rotation.finish(DISK, data, "web")
    begin(data)


def test_without_a_rotation_there_is_nothing_to_finish(data):
    with pytest.raises(Rejected, match="no rotation"):
        rotation.finish(DISK, data, "web")


def test_a_crash_before_the_new_secret_leaves_the_old_one_for_good(data, monkeypatch):
    (old,) = lines(data)

    def die(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rotation, "write_secrets", die)
        with pytest.raises(KeyboardInterrupt):
            begin(data)
    assert lines(data) == [old]
    assert rotation.finish_overdue(DISK, data, END) == []
    assert lines(data) == [old]
    begin(data)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("0s", 0)]
)
def test_a_span_is_read_as_people_write_it(text, seconds):
    assert rotation.span_s(text) == seconds


@pytest.mark.parametrize("text", ["366d", "99999d", "8761h", "999999999s"])
def test_a_span_of_more_than_a_year_is_refused_with_the_limit(text):
    assert rotation.span_s("365d") == rotation.span_s("8760h")
    with pytest.raises(Rejected, match="at most 365d"):
        rotation.span_s(text)


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1.5h", "1w"])
def test_what_is_no_span_is_refused(text):
    with pytest.raises(Rejected, match="30m, 24h or 7d"):
        rotation.span_s(text)
