import msgspec
import pytest

from headwater.collect.settings import CollectSettings
from headwater.kit.errors import Misconfigured
from headwater.log.settings import LogSettings
from headwater.node import configuration, first
from headwater.node.reload import compare
from headwater.node.settings import GIB, Settings, named_destinations, sized

KEYS = 'keys: [{id: web, secret: "secret-of-web-1", origins: ["*"]}]\n'


def read(tmp_path, text):
    path = tmp_path / "headwater.yaml"
    path.write_text(text)
    return configuration.read(str(path), str(tmp_path), {"WEB_KEY": "secret-of-web-1"}).settings


def refused(tmp_path, text):
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, text)
    return str(caught.value)


def test_the_minimal_configuration_of_the_surface(tmp_path):
    settings = read(
        tmp_path,
        """
collect: {listen: "127.0.0.1:8420", workers: 1}
ops: {listen: "127.0.0.1:8421"}
keys:
  - {id: web, secret: "${env.WEB_KEY}", origins: ["*"], ack: disk}
destinations:
  warehouse: {type: duckdb, path: warehouse.duckdb}
""",
    )
    assert settings.keys[0].id == "web"
    assert settings.destinations["warehouse"].path == "warehouse.duckdb"


def test_the_configuration_of_the_first_start_is_right(tmp_path):
    first.write_secret(str(tmp_path), "web", _rng())
    settings = read(tmp_path, first.CONFIGURATION)
    assert settings.keys[0].browser and list(settings.destinations) == ["warehouse"]


def test_settings_go_through_run_config_json_unchanged(tmp_path):
    settings = read(tmp_path, KEYS + "destinations: {warehouse: {type: duckdb}}\nshutdown_delay: 3\n")
    assert msgspec.json.decode(msgspec.json.encode(settings), type=Settings) == settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            KEYS + "collect: {lisen: x}",
            "headwater.yaml:2: collect.lisen: unknown key (did you mean `listen`?)",
        ),
        ("keys: [{id: a, secret: secret-one}, {id: a, secret: secret-two}]", "stands twice"),
        (
            "keys: [{id: a, secret: secret-one}, {id: b, secret: secret-one}]",
            "keys[1]: has the same secret as the key `a`",
        ),
        ("keys:\n  - {id: a, secret_file: keys/none.secret}", "cannot read keys/none.secret"),
        (
            "keys: [{id: a, secret: secret-one, ack: delivered}]",
            "keys[a].ack: `delivered` waits for a destination",
        ),
        (
            'collect: {listen: "127.0.0.1:9"}\nops: {listen: "127.0.0.1:9"}',
            "ops.listen: is the address of collect.listen",
        ),
        (
            'collect: {listen: "0.0.0.0:9"}\nops: {listen: "127.0.0.1:9"}',
            "ops.listen: is the address of collect.listen",
        ),
        ('ops: {listen: "0.0.0.0:9"}', "headwater.yaml:1: ops.token: is needed"),
        ('ops: {listen: "0.0.0.0:9", token: short}', "ops.token: expected at least 16 characters"),
        ('ops: {listen: "nowhere"}', "ops.listen: expected host:port"),
        ("destinations: {Ware House: {type: duckdb}}", "a name has 1 to 48"),
        ("destinations: {a: {type: duckdb}, b: {type: duckdb}}", "is the file of `a`"),
        ("destinations: {a: {type: duckbd}}", "duckbd"),
        ("destinations: {a: {path: x}}", "type"),
        ('\ncollect:\n  listen: "127.0.0.1:99999"', "headwater.yaml:3: collect.listen: expected host:port"),
        (
            "collect:\n  workers: 0",
            "headwater.yaml:2: collect.workers: expected a number from 1 to 256, got 0",
        ),
        (
            "process:\n  workers: 0",
            "headwater.yaml:2: process.workers: expected a number from 1 to 64, got 0",
        ),
        ("process:\n  cut_bytes_max: 1", "headwater.yaml:2: process.cut_bytes_max: expected a number from"),
        (
            "destinations:\n  a: {type: duckdb, path: x}\n  b:\n    type: duckdb\n    load_rows: -1",
            "headwater.yaml:5: destinations.b.load_rows: expected at least 1",
        ),
        (
            "destinations:\n  a: {type: duckdb, path: x}\n  b:\n    type: duckbd",
            "headwater.yaml:4: destinations.b.type: invalid value 'duckbd' (expected duckdb | postgres | memory)",
        ),
        ("log:\n  segment_bytes: 5", "headwater.yaml:2: log.segment_bytes: expected a multiple of 4096"),
        ("shutdown_delay: -1", "shutdown_delay: expected 0 to 3600 seconds"),
        ("data_bytes_max: 5", "data_bytes_max: expected at least"),
    ],
)
def test_what_is_wrong_is_refused_with_the_place(tmp_path, text, told):
    assert told in refused(tmp_path, text)


def test_no_message_holds_a_secret(tmp_path):
    for text in (
        "keys: [{id: a, secret: hunter2hunter2}, {id: b, secret: hunter2hunter2}]",
        'keys: [{id: a, secret: "hunter2 with spaces"}]',
    ):
        assert "hunter2" not in refused(tmp_path, text)


def test_the_default_size_is_30_percent_of_the_disk_and_at_most_20_gib():
    assert sized(Settings(), 1000 * GIB, 0).data_bytes_max == 20 * GIB
    assert sized(Settings(), 8 * GIB, 2 * GIB).data_bytes_max == 3 * GIB
    assert sized(Settings(data_bytes_max=GIB), 1000 * GIB, 0).data_bytes_max == GIB


def test_segments_are_small_enough_for_three_of_them_in_each_quota():
    assert sized(Settings(data_bytes_max=4 * GIB), 0, 0).log == LogSettings()
    small = sized(Settings(data_bytes_max=GIB // 4), 0, 0)
    assert small.log.segment_bytes == 59 * 1024**2
    assert small.log.ready_segment_bytes == 12 * 1024**2
    with pytest.raises(Misconfigured, match="data_bytes_max: is too small"):
        sized(Settings(data_bytes_max=GIB // 4, collect=CollectSettings(workers=8)), 0, 0)


# -- reload


def with_changes(**changes):
    return msgspec.structs.replace(Settings(), **changes)


@pytest.mark.parametrize(
    ("text", "changed", "started", "stopped"),
    [
        (KEYS, ["keys"], [], []),
        ("destinations: {a: {type: duckdb}}", ["destinations.a"], ["a"], []),
        ("", [], [], []),
    ],
)
def test_keys_and_destinations_reload(tmp_path, text, changed, started, stopped):
    change = compare(Settings(), read(tmp_path, text))
    assert (change.refused, change.changed, change.started, change.stopped) == ([], changed, started, stopped)


def test_a_changed_destination_is_stopped_and_started(tmp_path):
    before = read(tmp_path, "destinations: {a: {type: duckdb}, b: {type: duckdb, path: b.duckdb}}")
    after = read(tmp_path, "destinations: {a: {type: duckdb, threads: 7}}")
    change = compare(before, after)
    assert (change.started, change.stopped) == (["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('collect: {listen: "127.0.0.1:9"}', "collect.listen"),
        ("collect: {workers: 2}", "collect.workers"),
        ('ops: {listen: "127.0.0.1:9"}', "ops.listen"),
        ("process: {workers: 2}", "process.workers"),
        ("log: {retain_s: 1}", "log.retain_s"),
        ("shutdown_delay: 1", "shutdown_delay"),
    ],
)
def test_anything_else_refuses_the_whole_reload_and_names_the_key(tmp_path, text, key):
    assert compare(Settings(), read(tmp_path, KEYS + text)).refused == [key]


def _rng():
    from headwater.kit.rng import SeededRng

    return SeededRng(1)


REPLICATED = 'keys: [{id: web, secret: "secret-of-web-1", ack: replicated}]\n'
IN_CLUSTER = "cluster: {secret: the-secret-of-this-cluster, peers: ['127.0.0.1:1']"


def test_replicated_needs_other_nodes_and_copies(tmp_path):
    assert read(tmp_path, REPLICATED + IN_CLUSTER + "}").keys[0].ack == "replicated"
    told = refused(tmp_path, REPLICATED)
    assert "keys[web].ack" in told and "no `cluster` block" in told
    assert "cluster.copies is 1" in refused(tmp_path, REPLICATED + IN_CLUSTER + ", copies: 1}")


DELIVERED = (
    "keys: [{{id: web, secret: secret-of-web-1, ack: delivered{}}}, {{id: other, secret: secret-other}}]\n"
)
ONE, TWO = (
    f"destinations: {{{', '.join(f'{n}: {{type: duckdb, path: {n}.db}}' for n in ns)}}}" for ns in ("a", "ab")
)


def test_delivered_waits_for_the_destination_that_it_names_or_for_the_only_one(tmp_path):
    waits = [key.ack_destination for key in named_destinations(read(tmp_path, DELIVERED.format("") + ONE))]
    assert waits == ["a", ""]
    named = read(tmp_path, DELIVERED.format(", ack_destination: b") + TWO)
    assert named_destinations(named)[0].ack_destination == "b"


def test_delivered_without_a_clear_destination_is_refused_and_says_which_there_are(tmp_path):
    told = refused(tmp_path, DELIVERED.format("") + TWO)
    assert "keys[web].ack_destination" in told and "2 destinations" in told and "one of: a, b" in told
    told = refused(tmp_path, DELIVERED.format(", ack_destination: c") + TWO)
    assert "no destination 'c'" in told and "one of: a, b" in told
