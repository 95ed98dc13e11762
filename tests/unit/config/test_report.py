from headwater.config.report import Publisher, Report, Sample, read_report, read_reports
from headwater.kit.clock import SystemClock
from headwater.kit.disk import SystemDisk

SECOND = 1_000_000_000


class HandClock(SystemClock):
    def __init__(self):
        self.now = SECOND

    def boot_ns(self):
        return self.now


def report(**changes):
    return Report(**{"role": "collect-0", "pid": 7, "start": 2, **changes})


def publisher(tmp_path):
    clock = HandClock()
    return Publisher(SystemDisk(), clock, str(tmp_path), "collect-0"), clock


def test_a_report_is_read_as_written(tmp_path):
    out, _ = publisher(tmp_path)
    told = report(
        samples=[Sample("headwater_events_total", {"worker": "0"}, 4.0)], detail={"a": [1]}, reasons=["x"]
    )
    assert out.publish(told)
    got = read_reports(SystemDisk(), str(tmp_path), 2)["collect-0"]
    assert (got.samples, got.detail, got.reasons, got.boot_ns) == (told.samples, {"a": [1]}, ["x"], SECOND)


def test_changes_are_written_at_most_five_times_a_second(tmp_path):
    out, clock = publisher(tmp_path)
    written = 0
    for n in range(100):
        clock.now += SECOND // 100
        written += out.publish(report(detail={"n": n}))
    assert 4 <= written <= 6


def test_without_a_change_a_sign_of_life_every_two_seconds(tmp_path):
    out, clock = publisher(tmp_path)
    written = 0
    for _ in range(100):
        clock.now += SECOND // 10
        written += out.publish(report())
    assert 5 <= written <= 6


def test_last_words_are_not_held_back(tmp_path):
    out, _ = publisher(tmp_path)
    out.publish(report())
    assert not out.publish(report(state="draining"))
    assert out.publish(report(state="stopped"), at_once=True)


def test_a_full_disk_costs_the_report_and_not_the_process(tmp_path):
    out, clock = publisher(tmp_path)
    out.publish(report())

    class Full(SystemDisk):
        def pwrite(self, file, data, offset):
            return super().pwrite(file, data[:5], offset)

    out.disk = Full()
    assert not out.publish(report(state="draining"), at_once=True)
    assert read_reports(SystemDisk(), str(tmp_path), 2)["collect-0"].state == "running"
    out.disk = SystemDisk()
    clock.now += SECOND
    assert out.publish(report(state="stopped"))


def test_reports_of_a_former_start_and_broken_ones_are_ignored(tmp_path):
    out, _ = publisher(tmp_path)
    out.publish(report())
    (tmp_path / "process-0.json").write_text("{")
    assert read_reports(SystemDisk(), str(tmp_path), 3) == {}
    assert set(read_reports(SystemDisk(), str(tmp_path), 2)) == {"collect-0"}
    assert read_report(SystemDisk(), f"{tmp_path}/none.json") is None
    assert read_reports(SystemDisk(), f"{tmp_path}/none", 2) == {}
