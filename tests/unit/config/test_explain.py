import pytest

from headwater.config import docs, load
from headwater.config.explain import explain
from headwater.kit.errors import Rejected
from tests.unit.config.test_load import Inner, Root

TEXT = 'collect:\n  listen: "${env.HOST|h}:${env.PORT}"\nkeys:\n  - {id: a, secret: s}\n'


def told(key, **environment):
    document = load.read(TEXT, "hw.yaml", {"PORT": "1", **environment})
    return explain(load.convert(document, document.data, Root), document, key)


def test_a_value_its_default_its_place_and_its_meaning():
    (one,) = told("collect.listen")
    assert (one.value, one.default, one.meaning, one.type) == ("h:1", "x", "Where. On two lines.", "text")
    assert one.source.startswith(
        "hw.yaml:2, ${env.HOST} is not set, its default, ${env.PORT} from the environment"
    )


def test_what_is_not_in_the_file_is_a_default():
    assert told("collect.workers")[0].source == "default"


def test_a_block_is_explained_setting_by_setting():
    assert [one.key for one in told("collect")] == ["collect.listen", "collect.workers", "collect.names"]


@pytest.mark.parametrize("key", ["keys[0].secret", "keys.0.secret"])
def test_secrets_are_never_shown(key):
    (one,) = told(key)
    assert (one.value, one.source) == ("…", "hw.yaml:4")


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(Rejected, match=r"did you mean `collect\.listen`"):
        told("collect.lisen")


@pytest.mark.parametrize(
    ("key", "help"),
    [
        ("lisen", "did you mean `collect.listen`"),
        ("colect", "did you mean `collect`"),
        ("nope", "without a key, every setting is listed"),
    ],
)
def test_an_unknown_key_is_guessed_by_its_last_part_or_its_block_or_not_at_all(key, help):
    with pytest.raises(Rejected) as wrong:
        told(key)
    assert help in wrong.value.help


def test_fields_say_what_the_text_below_them_says():
    assert docs.meanings(Inner) == {"listen": "Where. On two lines.", "workers": "How many."}
