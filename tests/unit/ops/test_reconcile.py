"""INV-LED-1: the ledger adds up at any moment, whatever was read when, and says so when it does not."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from headwater.event.position import Position, Vector, WriterId
from headwater.ops.accepted import Accepted
from headwater.ops.reconcile import KINDS, reconcile
from headwater.ops.standing import Delivered, Processed

W = WriterId(1 << 16)
PARTITIONS = 2


@dataclass
class World:
    """One writer, one processor, two destinations, and a history of what each said."""

    accepted: int = 0
    processed: int = 0
    counts: dict = field(default_factory=lambda: dict.fromkeys(("in", *KINDS), 0))
    commits: list = field(default_factory=list)
    delivered: dict = field(default_factory=lambda: {"a": 0, "b": 0})

    def accept(self, count):
        self.accepted += count

    def commit(self, kinds):
        """Process everything accepted; the i-th event becomes kinds[i % n]."""
        while self.processed < self.accepted:
            kind = kinds[self.processed % len(kinds)]
            self.counts["in"] += 1
            self.counts[kind] += 1
            self.processed += 1
        self.commits.append((self.processed, dict(self.counts)))

    def deliver(self, name):
        if self.delivered[name] < len(self.commits):
            self.delivered[name] += 1

    def logs(self):
        return Accepted({"web": self.accepted}, {W: Position(1, self.accepted)} if self.accepted else {})

    def processors(self):
        at, counts = self.commits[-1] if self.commits else (0, dict.fromkeys(("in", *KINDS), 0))
        return Processed(vectors(at), {"web": counts})

    def destinations(self):
        told = {}
        for name, number in self.delivered.items():
            at, counts = self.commits[number - 1] if number else (0, {"out": 0})
            dead = counts["out"] // 5
            streams = {"web": {"out": counts["out"], "rows": counts["out"] - dead, "dead": dead}}
            told[name] = Delivered(name, "delivering", vectors=vectors(at), streams=streams)
        return told


def vectors(seq):
    return dict.fromkeys(range(PARTITIONS), Vector({W: Position(1, seq)}))


def adds_up(ledger):
    numbers = [
        getattr(ledger, name)
        for name in ("delivered", "pending", "dead", "duplicate", "filtered", "erased", "damaged")
    ]
    return sum(numbers)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(0, 9)),
        st.tuples(
            st.just("commit"), st.lists(st.sampled_from(("out", "duplicate", "dead", "filtered")), min_size=1)
        ),
        st.tuples(st.just("deliver"), st.sampled_from(("a", "b"))),
    ),
    max_size=30,
)


@given(STEPS, st.data())
def test_inv_led_1_reports_of_different_moments_never_give_a_false_alarm(steps, data):
    """Destinations are read first, then processors (whose report may be older still), then logs."""
    world = World()
    moments = [(world.destinations(), world.processors(), world.logs())]
    for step, argument in steps:
        getattr(world, step)(argument)
        moments.append((world.destinations(), world.processors(), world.logs()))
    last = len(moments) - 1
    d = data.draw(st.integers(0, last))
    p = data.draw(
        st.integers(max(0, d - 6), last)
    )  # reports are written late: processors may tell of an earlier moment
    log = data.draw(st.integers(max(d, p), last))
    for ledger in reconcile(moments[log][2], moments[p][1], moments[d][0]):
        assert ledger.holds, ledger.problems
        assert ledger.pending >= 0
        assert adds_up(ledger) == ledger.accepted
        assert set(ledger.destinations) == {"a", "b"}
        for one in ledger.destinations.values():
            assert one.holds
            assert adds_up(one) == ledger.accepted


def test_a_processors_report_that_is_older_than_the_destinations_is_no_alarm():
    world = World()
    world.accept(3)
    before = world.processors()
    world.commit(["out", "duplicate"])
    world.deliver("a")
    assert problems(world, processors=before) == []


def settled():
    world = World()
    world.accept(20)
    world.commit(["out", "out", "duplicate"])
    world.deliver("a")
    world.deliver("b")
    return world


def problems(world, **changes):
    parts = {
        "logs": world.logs(),
        "processors": world.processors(),
        "destinations": world.destinations(),
        **changes,
    }
    (ledger,) = reconcile(parts["logs"], parts["processors"], parts["destinations"])
    assert ledger.holds == (not ledger.problems)
    return ledger.problems


def test_a_settled_world_holds():
    assert problems(settled()) == []


def test_an_event_lost_between_log_and_processing_is_seen():
    world = settled()
    world.commits[-1][1]["in"] -= 1
    world.commits[-1][1]["duplicate"] -= 1
    assert any("19 of 20 accepted" in problem for problem in problems(world))


def test_an_event_that_processing_does_not_account_for_is_seen():
    world = settled()
    world.commits[-1][1]["duplicate"] -= 1
    assert any("took in 20 and accounts for 19" in problem for problem in problems(world))


def test_a_doubled_event_is_seen():
    world = settled()
    world.commits[-1][1]["in"] += 1
    world.commits[-1][1]["duplicate"] += 1
    assert any("21 of 20 accepted" in problem for problem in problems(world))


def test_a_row_lost_in_the_destination_is_seen():
    world = settled()
    told = world.destinations()
    told["a"].streams["web"]["rows"] -= 1
    assert any(problem.startswith("a: was given") for problem in problems(world, destinations=told))


def test_a_commit_that_skipped_a_destination_is_seen():
    world = settled()
    told = world.destinations()
    for name in ("out", "rows"):
        told["b"].streams["web"][name] -= 1
    assert any("stands where processing stands" in problem for problem in problems(world, destinations=told))


def test_damage_is_an_alarm():
    world = World()
    world.accept(2)
    world.commit(["damaged"])
    assert any("2 damaged" in problem for problem in problems(world))


def test_without_destinations_what_was_given_out_counts_as_delivered():
    world = settled()
    (ledger,) = reconcile(world.logs(), world.processors(), {})
    assert (ledger.delivered, ledger.pending, ledger.holds) == (world.counts["out"], 0, True)


def test_of_a_node_that_is_forgotten_what_was_processed_counts_as_accepted():
    """The log that says how many there were is gone with it; so it is told, and no mismatch."""
    world = settled()
    gone = Accepted({}, {})
    (silent,) = reconcile(gone, world.processors(), world.destinations())
    assert not silent.holds
    (ledger,) = reconcile(gone, world.processors(), world.destinations(), forgotten=["a" * 12 + "0000"])
    assert (ledger.holds, ledger.accepted, ledger.pending) == (True, world.counts["in"], 0)
    assert "gone for good" in ledger.problems[0]
    world.accept(5)  # by others, and on their way
    (ledger,) = reconcile(
        world.logs(), world.processors(), world.destinations(), forgotten=["a" * 12 + "0000"]
    )
    assert (ledger.holds, ledger.pending) == (True, 5)


def test_a_dead_letter_that_a_replay_made_a_row_of_is_delivered_and_adds_up():
    """Processing still counts it as dead; only this destination does not."""
    world = World()
    world.accept(4)
    world.commit(["out", "dead", "out", "dead"])
    told = world.destinations()
    told["a"].streams["web"] = {"out": 2, "rows": 3, "revived": 1}
    (ledger,) = reconcile(world.logs(), world.processors(), told)
    one = ledger.destinations["a"]
    assert one.holds and (one.delivered, one.dead, one.pending) == (3, 1, 0)
    assert adds_up(one) == ledger.accepted
    told["a"].streams["web"]["revived"] = 0
    assert any("accounts for 3" in problem for problem in problems(world, destinations=told))


def test_what_an_operator_left_out_is_filtered_and_adds_up():
    world = settled()
    told = world.destinations()
    told["a"].streams["web"] = {"out": world.counts["out"], "rows": 0, "skipped": world.counts["out"]}
    (ledger,) = reconcile(world.logs(), world.processors(), told)
    assert ledger.holds
    assert ledger.destinations["a"].filtered == world.counts["out"]
    assert adds_up(ledger.destinations["a"]) == ledger.accepted


def test_the_first_numbers_are_of_the_destination_that_is_behind_not_of_one_that_left_events_out():
    accepted = Accepted({"web": 10}, {W: Position(1, 10)})
    processed = Processed(vectors(10), {"web": {"in": 10, "out": 10}})
    behind = Delivered("behind", vectors=vectors(6), streams={"web": {"out": 6, "rows": 6}})
    later = Delivered("later", vectors=vectors(10), streams={"web": {"out": 10, "rows": 1, "skipped": 9}})
    (ledger,) = reconcile(accepted, processed, {"behind": behind, "later": later})
    assert (ledger.delivered, ledger.pending, ledger.filtered) == (6, 4, 0)
    assert ledger.holds, ledger.problems


def test_events_that_rotted_after_they_were_processed_are_explained():
    accepted = Accepted({"web": 7, "": 3}, {W: Position(1, 10)})
    processed = Processed(vectors(10), {"web": {"in": 10, "out": 10}})
    rotten, web = reconcile(accepted, processed, {})
    assert not rotten.holds and not web.holds, "a mismatch stays one"
    for ledger in (rotten, web):
        assert any("processed before the raw log could no longer be read" in one for one in ledger.problems)
    more = Processed(vectors(10), {"web": {"in": 11, "out": 11}})
    for ledger in reconcile(accepted, more, {}):
        assert not any("could no longer be read" in one for one in ledger.problems), "that would be a guess"
