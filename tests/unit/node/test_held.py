from headwater.cluster.settings import ClusterSettings
from headwater.config.control import HELD_JOINING, HELD_SILENT, HELD_TOO_FEW, NOT_HELD, Held
from headwater.config.report import Report
from headwater.node.held import judged

NOW = 100 * 10**9
REJECT = ClusterSettings(secret="s" * 20)
SPOOL = ClusterSettings(secret="s" * 20, below_minimum="spool")


def told(held, at_ns=NOW):
    return lambda: Report(role="member-0", pid=1, start=1, boot_ns=at_ns, detail={"held": held})


def test_a_node_alone_is_never_held():
    assert judged(None, lambda: None, NOW) == NOT_HELD


def test_the_door_stays_closed_until_the_node_has_joined():
    assert judged(REJECT, lambda: None, NOW) == Held(HELD_JOINING)


def test_the_member_process_decides():
    assert judged(REJECT, told([HELD_TOO_FEW, 1, 3]), NOW) == Held(HELD_TOO_FEW, 1, 3)
    assert judged(REJECT, told([0, 3, 3]), NOW).text == ""


def test_a_silent_member_process_closes_the_door():
    assert judged(REJECT, told([0, 3, 3], at_ns=0), NOW) == Held(HELD_SILENT)


def test_spooling_takes_events_whatever_the_cluster_says():
    assert judged(SPOOL, lambda: None, NOW) == NOT_HELD
    assert judged(SPOOL, told([HELD_TOO_FEW, 1, 3]), NOW) == NOT_HELD
