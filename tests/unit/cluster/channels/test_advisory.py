from headwater.cluster.channels.advisory import Slowness


def looks(*told):
    slowness = Slowness()
    return [slowness.look(*one) for one in told]


def test_r1_a_consumer_is_slow_by_age_or_by_share():
    assert looks((0, 2.0, 0.85)) == [None]
    assert looks((0, 2.1, 0.0)) == ["waiting"]
    assert looks((0, 0.0, 0.86)) == ["waiting"]


def test_r1_one_advisory_on_entry_and_one_on_exit_after_two_calm_seconds():
    told = looks((0, 3, 0), (1, 3, 0), (2, 0, 0.2), (3, 0, 0.2), (3.9, 0, 0.2), (4, 0, 0.2), (5, 0, 0.2))
    assert told == ["waiting", None, None, None, None, "resumed", None]


def test_r1_a_relapse_begins_the_calm_anew():
    assert looks((0, 3, 0), (1, 0, 0), (2, 0, 0.3), (3.5, 0, 0), (5, 0, 0), (5.5, 0, 0))[1:] == [None] * 4 + [
        "resumed"
    ]


def test_r1_it_is_said_again_every_30_s_at_most():
    told = looks(*((second, 3, 0) for second in range(65)))
    assert [second for second, action in enumerate(told) if action] == [0, 30, 60]
