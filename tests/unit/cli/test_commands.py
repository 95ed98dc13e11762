"""The command line without a node, and against one that is played: exit codes, outputs, help."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import click
import pytest
from click.testing import CliRunner

from headwater.cli.main import COMMANDS, main

HEAVY = ("pyarrow", "duckdb", "numpy", "uvicorn", "starlette", "rich", "yaml")
STREAM = dict.fromkeys(
    ("accepted", "delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged"), 0
)


def run(*words, **options):
    return CliRunner().invoke(main, [str(word) for word in words], **options)


class Played:
    """What the ops socket of a node answers, by path."""

    def __init__(self, data):
        self.data = f"--data={data}"
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[tuple[str, object]] = []
        played = self

        class Handler(BaseHTTPRequestHandler):
            def address_string(self):
                return "unix"

            def log_message(self, format, *args):
                pass

            def do_GET(self):
                length = int(self.headers.get("content-length") or 0)
                played.asked.append((self.path, json.loads(self.rfile.read(length) or b"null")))
                status, value = played.answers[self.path.partition("?")[0]]
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

        (data / "run").mkdir()
        self.server = ThreadingUnixStreamServer(str(data / "run/ops.sock"), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()


@pytest.fixture
def node(tmp_path):
    played = Played(tmp_path)
    yield played
    played.server.shutdown()
    played.server.server_close()


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom headwater.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def test_completing_every_command_and_option_imports_nothing_heavy():
    code = (
        "import os, sys\nfrom headwater.cli.main import main\nfrom click.shell_completion import BashComplete\n"
        "asked = BashComplete(main, {}, 'headwater', 'X')\n"
        "for words in ([], ['sql'], ['run'], ['keys', 'rotate'], ['log', 'inspect']):\n"
        "    print(*(item.value for begun in ('', '--') for item in asked.get_completions(words, begun)))\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *told, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert told[0].split()[: len(COMMANDS)] == list(COMMANDS)
    assert all("--data" in line for line in told[1:])


def test_the_version_is_an_option_and_a_command():
    assert run("--version").output == run("version").output


def commands(group, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands(main)], ids=" ".join)
def test_every_command_has_help_and_an_example(path):
    done = run(*path, "--help")
    assert done.exit_code == 0
    command = dict(commands(main))[path]
    if not isinstance(command, click.Group) and path not in (
        ("version",),
        ("keys", "list"),
    ):
        assert f"headwater {' '.join(path)}" in done.output


@pytest.mark.parametrize(
    "words",
    [("sql", "select 1"), ("status",), ("reconcile",), ("where", "x"), ("dead", "list"), ("keys", "list")],
)
def test_without_a_node_the_exit_code_is_3_and_the_folder_is_named(tmp_path, words):
    done = run(*words, f"--data={tmp_path}")
    assert done.exit_code == 3
    assert f"no node answers on {tmp_path}" in done.output


@pytest.mark.parametrize(
    "words", [("nonsense",), ("sql",), ("sql", "x", "--json", "--csv"), ("sql", "x", "--limit", "0")]
)
def test_wrong_usage_is_2(words):
    assert run(*words).exit_code == 2


def test_sql_lists_rows_that_are_too_wide_for_a_table(node):
    names = [f"c{number}" for number in range(80)]
    row = dict.fromkeys(names) | {"c0": "first", "c79": 7}
    node.answers["/api/sql"] = (
        200,
        {"columns": [{"name": name} for name in names], "truncated": "", "rows": [row]},
    )
    assert run("sql", "from events", node.data).output.splitlines() == ["-- row 1", "c0   first", "c79  7"]


def test_sql_as_table_json_and_csv(node):
    node.answers["/api/sql"] = (200, {"columns": [{"name": "event"}, {"name": "n"}], "truncated": "",
                                      "rows": [{"event": "a,b", "n": 1}, {"event": None, "n": 2}]})  # fmt: skip
    table = run("sql", "q", node.data)
    assert table.exit_code == 0
    assert "event" in table.output and "a,b" in table.output
    assert json.loads(run("sql", "--json", "q", node.data).output) == [
        {"event": "a,b", "n": 1},
        {"event": None, "n": 2},
    ]
    assert run("sql", "--csv", "q", node.data).output.splitlines() == ["event,n", '"a,b",1', ",2"]
    assert node.asked[0] == ("/api/sql", {"query": "q", "limit": 1000, "destination": None})


def test_csv_has_true_and_false_and_nothing_for_null(node):
    rows = [{"a": True, "b": "x"}, {"a": False, "b": None}]
    node.answers["/api/sql"] = (
        200,
        {"columns": [{"name": "a"}, {"name": "b"}], "truncated": "", "rows": rows},
    )
    assert run("sql", "--csv", "q", node.data).output.splitlines() == ["a,b", "true,x", "false,"]


def test_an_answer_without_rows_is_told_on_stderr_to_people_only(node):
    node.answers["/api/sql"] = (200, {"columns": [{"name": "event"}], "truncated": "", "rows": []})
    done = run("sql", "q", node.data)
    assert ("event" in done.stdout, done.stderr) == (True, "no rows\n")
    assert run("sql", "--json", "q", node.data).output == "[]\n"
    assert run("sql", "--csv", "q", node.data).output == "event\n"


def test_a_cut_answer_is_told_on_stderr(node):
    node.answers["/api/sql"] = (200, {"columns": [{"name": "n"}], "truncated": "rows", "rows": [{"n": 1}]})
    done = run("sql", "--json", "q", node.data)
    assert json.loads(done.stdout) == [{"n": 1}]
    assert "cut after 1 row;" in done.stderr


def test_an_error_of_the_node_is_one_line_and_its_exit_code(node):
    node.answers["/api/sql"] = (
        400,
        {"error": {"kind": "Rejected", "code": "sql_error", "message": "no table x"}},
    )
    done = run("sql", "from x", node.data)
    assert (done.exit_code, done.output) == (2, "headwater: no table x\n")
    node.answers["/api/sql"] = (
        503,
        {"error": {"kind": "Unavailable", "code": "no_answer", "message": "gone"}},
    )
    assert run("sql", "from x", node.data).exit_code == 3


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_reconcile_says_no_with_1(node, holds, code):
    ledger = {
        "stream": "web",
        **STREAM,
        "holds": holds,
        "problems": [] if holds else ["one is lost"],
        "destinations": {},
    }
    node.answers["/api/reconcile"] = (200, [ledger])
    done = run("reconcile", node.data)
    assert done.exit_code == code
    assert ("web: one is lost" in done.output) is not holds
    assert json.loads(run("reconcile", "--json", node.data).stdout)[0]["holds"] is holds


def test_reconcile_tells_the_destinations_apart_only_where_they_differ(node):
    whole = {**STREAM, "accepted": 9, "delivered": 9, "holds": True}
    later = {**whole, "delivered": 2, "filtered": 7}
    web = {"stream": "web", **whole, "problems": [], "destinations": {"full": whole, "later": later}}
    app = {"stream": "app", **whole, "problems": [], "destinations": {"full": whole, "later": whole}}
    node.answers["/api/reconcile"] = (200, [app, web])
    rows = [line.split() for line in run("reconcile", node.data).stdout.splitlines()]
    assert ["app", "all", *["9", "9", "0", "0", "0", "0", "0", "0", "yes"]] in rows
    assert ["web", "full", *["9", "9", "0", "0", "0", "0", "0", "0", "yes"]] in rows
    assert ["web", "later", *["9", "2", "0", "0", "0", "7", "0", "0", "yes"]] in rows
    node.answers["/api/reconcile"] = (200, [app])
    rows = [line.split() for line in run("reconcile", node.data).stdout.splitlines()]
    assert ["app", *["9", "9", "0", "0", "0", "0", "0", "0", "yes"]] in rows


@pytest.mark.parametrize(("arrived", "code"), [(True, 0), (False, 1)])
def test_where_says_not_yet_with_1(node, arrived, code):
    told = {"receipt": "r", "acknowledged": True, "processed": True, "destinations": {"w": arrived}}
    node.answers["/api/where"] = (200, told)
    assert run("where", "r", node.data).exit_code == code
    assert json.loads(run("where", "r", "--json", node.data).stdout) == told
    assert node.asked[0][0] == "/api/where?receipt=r"


@pytest.mark.parametrize(("ready", "code"), [(True, 0), (False, 1)])
def test_status_says_not_ready_with_1(node, ready, code):
    node.answers["/api/status"] = (200, {
        "node": {"version": "1", "collector": "c", "ops": "o"}, "state": "running", "ready": ready,
        "reasons": [] if ready else ["draining"], "warnings": [], "streams": [],
        "roles": {"collect-0": {"state": "running", "pid": 1, "restarts": 0, "reasons": []}},
        "unmapped": [{"where": "process-0", "name": "timestamp", "count": 3, "example": "yesterday"}],
        "destinations": {
            "w": {"state": "paused", "reason": "gone", "command": "headwater destination adopt w",
                  "rows_behind": None, "last_load": None, "last_load_age_s": None, "lag_s": None},
            "v": {"state": "delivering", "reason": None, "command": None,
                  "rows_behind": 70, "last_load": "2026-01-01T00:00:00Z", "last_load_age_s": 190.4, "lag_s": 2.31},
            "u": {"state": "delivering", "reason": None, "command": None, "written_off": True,
                  "rows_behind": 0, "last_load": None, "last_load_age_s": None, "lag_s": 0.0},
        },
    })  # fmt: skip
    done = run("status", node.data)
    assert done.exit_code == code
    assert "mend it with: headwater destination adopt w --data" in done.output
    rows = [re.split(r"\s{2,}", line.strip()) for line in done.output.splitlines()]
    assert ["destination", "state", "rows behind", "last load", "lag"] in rows
    assert ["w", "paused", "unknown", "not since the start", "unknown"] in rows
    assert ["v", "delivering", "70", "3 min ago", "2.3 s"] in rows
    assert ["u", "delivering, written off", "0", "not since the start", "0.0 s"] in rows
    assert ["process-0", "timestamp", "3", "yesterday"] in rows


def test_dead_letters_are_listed_and_shown(node):
    node.answers["/api/dead"] = (200, [{"origin": "a-b-1", "stream": "web", "reason": "why"}])
    node.answers["/api/dead/a-b-1"] = (200, {"origin": "a-b-1", "body": "{"})
    assert "a-b-1" in run("dead", "list", node.data).output
    assert json.loads(run("dead", "show", "--json", "a-b-1", node.data).output)["body"] == "{"
    node.answers["/api/dead/none"] = (
        404,
        {"error": {"kind": "Rejected", "code": "not_found", "message": "no letter"}},
    )
    assert run("dead", "show", "none", node.data).exit_code == 1


@pytest.mark.parametrize(
    ("stream", "code", "told"),
    [("nope", 1, "no stream 'nope' here: there are former, web"), ("web", 0, ""), ("former", 0, "")],
)
def test_dead_letters_of_a_stream_that_is_not_there_are_no_answer(node, stream, code, told):
    node.answers["/api/dead"] = (200, [])
    node.answers["/api/keys"] = (200, [{"id": "web"}])
    node.answers["/api/reconcile"] = (200, [{"stream": "former", **STREAM}])
    done = run("dead", "list", "--stream", stream, node.data)
    assert (done.exit_code, told in done.stderr) == (code, True)
    listed = run("dead", "list", "--json", "--stream", stream, node.data)
    assert (listed.exit_code, json.loads(listed.stdout)) == (code, [])


def test_no_dead_letters_are_told_in_words(node):
    node.answers["/api/dead"] = (200, [])
    done = run("dead", "list", node.data)
    assert (done.exit_code, done.output) == (0, "no dead letters\n")


def test_adopt_asks_for_a_decision(node):
    node.answers["/api/destinations/w/adopt"] = (200, {"partitions": 64})
    assert run("destination", "adopt", "w", node.data).exit_code == 2
    assert run("destination", "adopt", "w", "--from", "now", node.data).exit_code == 0
    assert node.asked == [("/api/destinations/w/adopt", {"from": "now"})]


# -- without a node


def configuration(tmp_path, text):
    path = tmp_path / "headwater.yaml"
    path.write_text(text)
    return f"--config={path}"


def test_explain_tells_value_place_and_meaning(tmp_path):
    config = configuration(tmp_path, "collect:\n  workers: 3\n")
    done = run("config", "explain", "collect.workers", config, f"--data={tmp_path}")
    assert done.exit_code == 0
    assert "collect.workers = 3" in done.output
    assert "from headwater.yaml:2; default 1; integer" in done.output
    wrong = run("config", "explain", "collect.wrkers", config, f"--data={tmp_path}")
    assert (wrong.exit_code, "did you mean `collect.workers`" in wrong.output) == (2, True)


def test_check_says_no_with_1(tmp_path):
    bad = configuration(tmp_path, "collect: {workrs: 3}\n")
    done = run("check", bad, f"--data={tmp_path}/data")
    assert (done.exit_code, "did you mean `workers`" in done.output) == (1, True)


def test_check_looks_at_the_machine(tmp_path):
    done = run(
        "check",
        "--json",
        configuration(tmp_path, 'collect: {listen: "127.0.0.1:0"}\n'),
        f"--data={tmp_path}/data",
    )
    found = {one["what"]: one["result"] for one in json.loads(done.stdout)}
    assert found["configuration"] == "fine"
    assert {"data folder", "room", "disk", "collect.listen", "ops.listen", "open files"} <= set(found)
    assert not (tmp_path / "data").exists(), "a check changes nothing"


def test_check_in_a_fresh_folder_says_what_a_start_would_make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {one["what"]: one for one in json.loads(run("check", "--json").stdout)}
    assert found["configuration"]["result"] == "fine"
    assert "`headwater run` makes headwater.yaml, with 1 key" in found["configuration"]["says"]
    assert {"data folder", "collect.listen"} <= set(found)
    assert list(tmp_path.iterdir()) == [], "a check changes nothing"
    named = run("check", "--config", "headwater.yaml")
    assert (named.exit_code, "No such file" in named.output) == (1, True)


@pytest.mark.parametrize(
    ("started", "secret_file", "fine"),
    [(False, "keys/web.secret", True), (True, "keys/web.secret", False), (False, "web.secret", False)],
)
def test_check_misses_no_secret_that_the_first_start_makes(tmp_path, started, secret_file, fine):
    if started:
        data_folder(tmp_path / "data").count_start()
    config = configuration(tmp_path, f"keys: [{{id: web, secret_file: {secret_file}}}]\n")
    found = json.loads(run("check", "--json", config, f"--data={tmp_path}/data").stdout)
    assert (found[0]["result"] == "fine") is fine, found[0]


def data_folder(tmp_path):
    from headwater.kit.disk import SystemDisk
    from headwater.kit.rng import SystemRng
    from headwater.node.folder import make_folder

    return make_folder(str(tmp_path), SystemDisk(), SystemRng())


def test_a_log_without_problems_says_so(tmp_path):
    data_folder(tmp_path)
    done = run("log", "inspect", "--problems", f"--data={tmp_path}")
    assert (done.exit_code, done.output) == (0, "no problems in 0 segments\n")
    assert run("log", "inspect", f"--data={tmp_path}").output == "no segments\n"
    assert json.loads(run("log", "inspect", "--problems", "--json", f"--data={tmp_path}").output) == []


def test_a_dash_prints_a_secret_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (run("keys", "new", "-").output.strip() for _ in range(2))
    assert first != second and min(len(first), len(second)) >= 16
    assert list(tmp_path.iterdir()) == []


def test_a_new_key_is_written_and_told(tmp_path):
    data_folder(tmp_path)
    done = run("keys", "new", "shop", "--origin", "https://a.example", f"--data={tmp_path}")
    assert done.exit_code == 0
    assert "secret_file: keys/shop.secret" in done.output
    assert (tmp_path / "keys/shop.secret").stat().st_mode & 0o777 == 0o600
    assert run("keys", "new", "shop", f"--data={tmp_path}").exit_code == 2
    assert run("keys", "new", "../x", f"--data={tmp_path}").exit_code == 2
    assert "start the node" in done.output
    assert "kill" not in done.output, "there is no process to tell"


def test_a_new_key_for_a_running_node_says_how_to_reload(node, tmp_path):
    data = tmp_path / "data"
    data_folder(data)
    (tmp_path / "run/ops.sock").rename(data / "run/ops.sock")
    node.answers["/api/status"] = (200, {})
    node.answers["/api/keys"] = (200, [{"id": "web", "secret_file": None}])
    done = run("keys", "new", "shop", f"--data={data}")
    assert (done.exit_code, f"kill -HUP $(head -1 {data}/lock)" in done.output) == (0, True)
    done = run("keys", "new", "web", f"--data={data}")
    assert (done.exit_code, "there is a key 'web' already" in done.output) == (1, True)
    assert not (data / "keys/web.secret").exists()


def test_a_new_key_that_the_configuration_has_is_no(tmp_path):
    data_folder(tmp_path / "data")
    config = configuration(tmp_path, "keys: [{id: web, secret: a-long-secret}]\n")
    done = run("keys", "new", "web", config, f"--data={tmp_path}/data")
    assert (done.exit_code, "there is a key 'web' already" in done.output) == (1, True)
    assert run("keys", "new", "shop", config, f"--data={tmp_path}/data").exit_code == 0


def test_a_new_key_that_stands_in_the_configuration_without_its_secret_yet_is_made(tmp_path):
    data_folder(tmp_path / "data")
    config = configuration(tmp_path, "keys: [{id: shop, secret_file: keys/shop.secret}]\n")
    assert run("keys", "new", "shop", config, f"--data={tmp_path}/data").exit_code == 0


@pytest.mark.parametrize("origin", ["notaurl", "https://a.example/path", "", "a.example"])
def test_an_origin_that_no_page_has_is_refused(tmp_path, origin):
    data_folder(tmp_path)
    done = run("keys", "new", "shop", "--origin", origin, f"--data={tmp_path}")
    assert (done.exit_code, f"got {origin!r}" in done.output) == (2, True)
    assert not (tmp_path / "keys/shop.secret").exists()


def test_rotate_says_what_is_wrong_with_the_folder_and_the_time(tmp_path):
    done = run("keys", "rotate", "web", f"--data={tmp_path}/nowhere")
    assert (done.exit_code, "is not a data folder" in done.output) == (2, True)
    done = run("keys", "rotate", "web", "--grace", "99999h", f"--data={tmp_path}")
    assert (done.exit_code, "99999h is too long: expected at most 365d" in done.output) == (2, True)


def test_keys_list_tells_of_a_rotation(node):
    key: dict[str, object] = {"kind": "server", "origins": [], "ack": "disk", "secret_file": None}
    keys = [
        {"id": "a", **key, "secrets": 1, "old_secret_until": None},
        {"id": "b", **key, "secrets": 2, "old_secret_until": "2026-01-02T03:04:05Z"},
        {"id": "c", **key, "secrets": 2, "old_secret_until": None},
    ]
    node.answers["/api/keys"] = (200, keys)
    a, b, c = run("keys", "list", node.data).output.split("\n a ")[1].splitlines()[:3]
    assert "secret" not in a
    assert "the old secret is valid until 2026-01-02 03:04:05 UTC" in b
    assert "two secrets are valid" in c
    assert json.loads(run("keys", "list", "--json", node.data).output) == keys


@pytest.mark.parametrize(("count", "told"), [(0, "0 keys"), (1, "1 key"), (2, "2 keys")])
def test_what_is_counted_agrees_with_its_number(tmp_path, count, told):
    keys = ", ".join(f"{{id: k{n}, secret: secret-number-{n}}}" for n in range(count))
    done = run("check", configuration(tmp_path, f"keys: [{keys}]\n"), f"--data={tmp_path}/data")
    assert f"headwater.yaml, {told}\n" in done.output


def test_log_inspect_says_what_each_segment_holds(tmp_path):
    from headwater.kit.clock import SystemClock
    from headwater.kit.disk import SystemDisk
    from headwater.kit.rng import SystemRng
    from headwater.kit.threads import inline
    from headwater.log.write import BlockWriter
    from headwater.node.folder import make_folder

    disk = SystemDisk()
    folder = make_folder(str(tmp_path), disk, SystemRng())
    for number, (path, blocks) in enumerate(
        ((folder.raw(0), (1,)), (folder.raw(1), (150, 50)), (folder.ready(0), (1, 1)))
    ):
        writer = BlockWriter(
            disk, SystemClock(), path, folder.writer(number), 7,
            secret=folder.secret, start=1, offset_ns=0, segment_bytes=1 << 20, submit=inline,
        )  # fmt: skip
        for events in blocks:
            writer.write(b"x", records=1, events=events)
        writer.close()
    done = run("log", "inspect", f"--data={tmp_path}")
    cells = [re.split(r"\s{2,}", line.strip())[1:3] for line in done.output.splitlines() if ".seg" in line]
    assert cells == [["event 0", "1"], ["events 0 to 199", "2"], ["blocks 0 to 1", "2"]]


def test_version_is_printed():
    import headwater

    assert json.loads(run("version", "--json").output)["headwater"] == headwater.__version__
