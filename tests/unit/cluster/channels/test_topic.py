import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.cluster.channels.topic import NO_SLOT, Directory, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("user-1", 1481),
        ("anonymous:42", 225),
        ("", 1218),
        ("é", 3251),
        ("018a0a64206514f8eabaf3a83350373f", 734),
    ],
)
def test_c1_slots_are_the_same_everywhere(key, slot):
    assert slot_of(key) == slot


@given(
    st.lists(st.text("ab\\u\x1f", max_size=4), min_size=1),
    st.lists(st.text("ab\\u\x1f", max_size=4), min_size=1),
)
def test_c1_composite_keys_stay_apart(one, other):
    from headwater.cluster.channels import topic

    def joined(parts):
        return topic.SEPARATOR.join(map(topic.escaped, parts))

    assert (joined(one) == joined(other)) == (one == other)
    assert slot_of(("ab", "c")) != slot_of(("a", "bc"))


def test_c2_only_a_live_node_is_an_owner():
    directory = Directory(1, ["a", "b", "", "c"], {"a": "x:1", "b": "y:1"})
    assert [directory.owner_of(slot) for slot in range(5)] == ["a", "b", "", "", "a"]
    assert directory.owns("c", 3)
    assert not directory.owns("a", 3)
    assert directory.owns("anybody", NO_SLOT)
    assert Directory(0, [], {}).owner_of(7) == ""
