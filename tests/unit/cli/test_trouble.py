"""The commands for trouble, against a node that is played, and against a folder whose node does not run."""

from __future__ import annotations

import json
import sqlite3

import msgspec
import pytest

from headwater.cli import dead
from headwater.cli.explain import tell_copy
from headwater.cli.when import WHEN
from headwater.ops import deep
from headwater.ops.explain import Copy
from tests.unit.cli.test_commands import STREAM, Played, data_folder, run

WRITER, LOG = "0000000000ab0000", "0000000000000007"


@pytest.fixture
def folder(tmp_path):
    data_folder(tmp_path)
    return tmp_path


@pytest.fixture
def played(folder):
    (folder / "run").rename(folder / "run.before")
    node = Played(folder)
    node.answers["/api/explain/elsewhere"] = (200, {"looked": [], "silent": []})
    node.answers["/api/dead/page"] = (200, {"letters": [], "node": None, "at": None, "silent": []})
    yield node
    node.server.shutdown()
    node.server.server_close()


def letters(folder, *rows):
    """Dead letters of processing: (seq, reason, body)."""
    from headwater.process.dead import DeadLetters

    (folder / "state/0").mkdir()
    DeadLetters(f"{folder}/state/0/dead.sqlite").close()
    with sqlite3.connect(folder / "state/0/dead.sqlite") as base:
        for seq, reason, body in rows:
            values = (
                WRITER,
                LOG,
                seq,
                0,
                "web",
                reason,
                "event",
                f"m{seq}",
                "2026-01-01T00:00:00+00:00",
                body,
            )
            base.execute("insert into dead values (?,?,?,?,?,?,?,?,?,?)", values)
    base.close()


def origin(seq):
    return f"{WRITER}-{LOG}-{seq}"


# -- explain


def test_explain_without_a_node_tells_what_files_tell_and_says_what_it_could_not_ask(folder):
    letters(folder, (1, "no name", b"{}"))
    (folder / "state/deliver-w").mkdir()
    (folder / "state/deliver-w/state.json").write_text('{"format":1,"pipeline":"p"}')
    done = run("explain", "m1", f"--data={folder}")
    assert done.exit_code == 0, done.output
    assert "dead: no name (field event)" in done.output
    assert "not asked: w: the node does not answer" in done.output
    told = json.loads(run("explain", "m1", "--json", f"--data={folder}").stdout)
    assert told["copies"][0]["processing"]["reason"] == "no name"


def test_explain_says_never_seen_with_1_and_what_was_searched(folder):
    done = run("explain", "nope", f"--data={folder}")
    assert (done.exit_code, "was never seen here" in done.stderr) == (1, True)
    assert "searched: the raw log, which holds nothing" in done.stdout
    assert json.loads(run("explain", "nope", "--json", f"--data={folder}").stdout)["found"] is False


def test_explain_asks_the_node_that_runs(played, folder):
    row = {"_hw_writer": str(int(WRITER, 16)), "_hw_log": "7", "_hw_seq": "1", "message_id": "m1", "key_id": "web",
           "event": "Signed\x1b[2J Up"}  # fmt: skip
    known = {"partitions": 64, "destinations": {"w": {"state": "delivering", "rows": [row]}}}
    played.answers["/api/explain/known"] = (200, known)
    done = run("explain", "m1", played.data)
    assert (done.exit_code, "became a row" in done.output) == (0, True)
    assert "event=Signed\\x1b[2J Up" in done.output, "what a terminal would obey is not printed"
    assert played.asked[1:] == [("/api/explain/known", {"message_ids": ["m1"], "places": []})]


def test_explain_names_the_nodes_of_a_cluster_that_do_not_answer(played, folder):
    played.answers["/api/explain/elsewhere"] = (200, {"looked": [], "silent": ["node c"]})
    played.answers["/api/explain/known"] = (200, {"partitions": 64, "silent": ["node c"]})
    assert run("explain", "m1", played.data).output.count("node c does not answer") == 1


@pytest.mark.parametrize(("state", "word"), [("pending", "mend it with"), ("missing", "see")])
def test_explain_says_whether_a_command_mends_or_shows(capsys, state, word):
    told = {"position": "p", "found_by": "message id", "processing": {"state": "row", "says": "became a row"},
            "message_id": "m", "stream": "web", "received_at": None, "closed_ms": None, "in_raw": True, "request": None,
            "destinations": {"w": {"state": state, "says": "", "command": "headwater do"}}}  # fmt: skip
    tell_copy(1, msgspec.convert(told, Copy), "headwater-data")
    assert f" {word}: headwater do\n" in capsys.readouterr().out


def test_explain_in_no_data_folder_and_of_no_id_is_wrong_usage(tmp_path):
    assert run("explain", "m1", f"--data={tmp_path}").exit_code == 2
    assert run("explain", "x" * 600, f"--data={tmp_path}").exit_code == 2
    assert run("explain", "m1", "--since", "yesterday", f"--data={tmp_path}").exit_code == 2


def test_times_are_ago_or_of_the_clock_in_utc():
    assert WHEN.convert("1970-01-01T00:01", None, None) == 60 * 10**9
    assert WHEN.convert("1970-01-01T01:00+01:00", None, None) == 0
    assert WHEN.convert("0s", None, None) > WHEN.convert("2h", None, None) + 7100 * 10**9


# -- reconcile --deep


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_reconcile_deep_says_what_was_counted_and_no_with_1(played, holds, code):
    counted = {
        **deep.nothing(),
        "counted": 4,
        "said": 4 if holds else 5,
        "copies": 1,
        "copies_apart_s": 4000.0,
    }
    destinations = {"w": {**STREAM, "holds": holds, "deep": counted}}
    problems = [] if holds else ["w: the table holds 4 rows"]
    ledger = {"stream": "web", **STREAM, "holds": holds, "problems": problems, "destinations": destinations}
    played.answers["/api/reconcile"] = (200, [ledger])
    done = run("reconcile", "--deep", "--timeout", "7", played.data)
    assert done.exit_code == code
    assert "rows counted" in done.output and "closest two received 4000 s apart" in done.output
    assert ("web: w: the table holds 4 rows" in done.output) is not holds
    assert played.asked[0][0] == "/api/reconcile?deep=1&timeout=7.0"


# -- pause and resume


def test_pause_and_resume_are_told(played):
    told = {"destination": "w", "since": "noon", "reason": "why"}
    played.answers["/api/destinations/w/pause"] = (200, told)
    played.answers["/api/destinations/w/resume"] = (200, told)
    done = run("destination", "pause", "w", "--reason", "why", played.data)
    assert (done.exit_code, "w is paused since noon: why" in done.output) == (0, True)
    assert "headwater destination resume w --data" in done.output
    assert json.loads(run("destination", "resume", "w", "--json", played.data).output) == told
    assert played.asked == [
        ("/api/destinations/w/pause", {"reason": "why"}),
        ("/api/destinations/w/resume", {}),
    ]


# -- dead letters


def test_the_list_is_of_bounded_width_also_where_nobody_watches(played):
    one = {"origin": origin(1), "stream": "web", "received": "2026-01-01T00:00:00.123456+00:00",
           "reason": "x" * 500, "message_id": "\x1b[2J" + "y" * 500, "field": "", "retried_at": "noon"}  # fmt: skip
    played.answers["/api/dead"] = (200, [one, {**one, "origin": origin(2)}])
    lines = run("dead", "list", played.data).output.splitlines()
    assert max(map(len, lines)) <= 190
    assert len([line for line in lines if WRITER in line]) == 2
    assert "\x1b" not in "".join(lines) and "field" not in lines[1]
    assert "uncertain" in lines[3]


def test_a_body_that_is_no_text_is_shown_under_another_name(played):
    letter = {"origin": "a-b-1", "body": None, "body_base64": "AP8="}
    played.answers["/api/dead/a-b-1"] = (200, letter)
    assert run("dead", "show", "a-b-1", played.data).output.splitlines()[1] == "body_base64  AP8="
    played.answers["/api/dead/a-b-1"] = (200, {"origin": "a-b-1", "body": "a\x1b[2J"})
    assert run("dead", "show", "a-b-1", played.data).output.splitlines()[1] == 'body_json  "a\\u001b[2J"'


def test_an_export_is_one_letter_on_each_line_also_without_a_node(folder, tmp_path):
    letters(folder, (1, "no name", b'{"a":\n1}'), (2, "not UTF-8", b"\xff"), (3, "no name", b"{}"))
    done = run("dead", "export", f"--data={folder}", "-")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["origin"], one["body"]) for one in told] == [
        (origin(1), '{"a":\n1}'), (origin(2), None), (origin(3), "{}")
    ]  # fmt: skip
    assert (told[1]["body_base64"], done.stderr) == ("/w==", "3 dead letters written\n")
    out = tmp_path / "out.ndjson"
    assert run("dead", "export", "--reason", "NO NAME", "--json", str(out), f"--data={folder}").exit_code == 0
    assert len(out.read_text().splitlines()) == 2
    out.write_text("corrected by hand")
    done = run("dead", "export", str(out), f"--data={folder}")
    assert (done.exit_code, out.read_text()) == (2, "corrected by hand")
    assert run("dead", "export", "--force", str(out), f"--data={folder}").exit_code == 0
    assert len(out.read_text().splitlines()) == 3
    assert run("dead", "export", "-", f"--data={folder}/state").exit_code == 2


def result(seq, state="there", **more):
    return {"origin": origin(seq), "state": state, "says": state, "receipt": None, "position": None, "events": 0,
            "destination": None, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("state", "code"), [("there", 0), ("duplicate", 0), ("dead_again", 1), ("refused", 1)]
)
def test_a_retry_says_what_became_of_each_and_no_with_1(played, state, code):
    played.answers["/api/dead/retry"] = (200, [result(1, state)])
    done = run("dead", "retry", origin(1), "--wait", "2", "--again", played.data)
    assert (done.exit_code, done.stdout) == (code, f"{origin(1)}  {state}\n")
    asked = {"again": True, "dry_run": False, "wait_s": 2.0, "letters": [{"origin": origin(1)}]}
    assert played.asked == [("/api/dead/retry", asked)]
    assert json.loads(run("dead", "retry", origin(1), "--json", played.data).stdout)[0]["state"] == state


@pytest.mark.parametrize("words", [(), ("x", "--all"), ("--all", "--edit", "-"), ("--stream", "web")])
def test_a_retry_asks_which_letters(folder, words):
    assert run("dead", "retry", *words, f"--data={folder}", input="").exit_code == 2


def test_all_takes_every_letter_in_portions_but_not_those_that_it_makes(played, folder, monkeypatch):
    monkeypatch.setattr(dead, "AT_ONCE", 2)
    letters(folder, *((seq, "r", b"{}") for seq in (1, 2, 3)))
    made = result(1, receipt=f"{WRITER}-{LOG}-4", position=origin(3), events=1)
    played.answers["/api/dead/retry"] = (200, [made, result(2)])
    assert run("dead", "retry", "--all", played.data).exit_code == 0
    assert [
        [one["origin"] for one in asked["letters"]] for path, asked in played.asked if path.endswith("retry")
    ] == [[origin(1), origin(2)]]


def test_the_letters_of_all_nodes_are_exported_each_once(played, folder):
    letters(folder, (1, "r", b"{}"))
    of_others = [{**letter(1), "body": "e30="}, {**letter(2), "body": "e30="}]
    played.answers["/api/dead/page"] = (
        200,
        {"letters": of_others, "node": None, "at": None, "silent": ["node c"]},
    )
    done = run("dead", "export", "-", played.data)
    told = [json.loads(line)["origin"] for line in done.output.splitlines() if line.startswith("{")]
    assert told == [origin(1), origin(2)]
    assert (done.exit_code, "node c" in done.output) == (1, True), "and who did not answer is named"


def letter(seq):
    return {
        "origin": origin(seq),
        "writer": WRITER,
        "log": LOG,
        "seq": seq,
        "row": 0,
        "stream": "web",
        "reason": "r",
    }


def test_nothing_to_retry_is_told(played, folder):
    assert run("dead", "retry", "--reason", "zzz", played.data).output == "no dead letters to retry\n"


def test_corrected_letters_go_with_their_bodies(played, tmp_path):
    played.answers["/api/dead/retry"] = (200, [result(1), result(2)])
    first = {"origin": origin(1), "body": '{"event":"ü"}', "reason": "r"}
    lines = [first, {"origin": origin(2), "body": None, "body_base64": "AP8="}]
    text = "\n".join(map(json.dumps, lines)) + "\n\n"
    assert run("dead", "retry", "--edit", "-", played.data, input=text).exit_code == 0
    assert played.asked[0][1]["letters"] == [
        {"origin": origin(1), "destination": None, "body": '{"event":"ü"}'},
        {"origin": origin(2), "destination": None, "body_base64": "AP8="},
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not a JSON object"),
        ('{"origin":"x"}', "expected `origin`, and `body` or `body_base64`"),
        ('{"body":"x"}', "expected `origin`, and `body` or `body_base64`"),
        ('{"origin":"x","body":{"event":"A"}}', "`body`: expected text"),
        ('{"origin":"x","body":"a","body_base64":"AA=="}', "expected `origin`, and `body` or `body_base64`"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(played, tmp_path, line, says):
    file = tmp_path / "edited.ndjson"
    file.write_text(f"\n{line}\n")
    done = run("dead", "retry", "--edit", str(file), played.data)
    assert (done.exit_code, f"{file}:2: {says}" in done.stderr, played.asked) == (2, True, [])
