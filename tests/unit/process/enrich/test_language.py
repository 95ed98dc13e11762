import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.process.enrich import language
from headwater.process.enrich.settings import LanguageSettings

TEXT = st.one_of(st.none(), st.text(max_size=30), st.text(alphabet="aezAZ-_;,=q.01* ", max_size=30))


@pytest.mark.slow
@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_no_text_raises_and_outputs_do_not_depend_on_the_batch(pairs):
    memo = language.memo(LanguageSettings())
    out = memo.apply(*(pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1)))
    assert memo.failed == 0
    for row, (locale, accept) in enumerate(pairs):
        assert (out["language"][row].as_py(), out["locale"][row].as_py()) == language.describe(
            locale or "", accept or ""
        )


@given(TEXT)
def test_normal_form_is_its_own_normal_form(text):
    tag = language.normal(text or "")
    assert tag is None or language.normal(tag) == tag


@pytest.mark.parametrize(
    ("locale", "accept", "expected"),
    [
        ("en-us", None, ("en", "en-US")),
        ("zh_hant_tw.UTF-8", None, ("zh", "zh-Hant-TW")),
        ("de_DE@euro", None, ("de", "de-DE")),
        ("es-419", None, ("es", "es-419")),
        ("iw-IL", None, ("he", "he-IL")),
        ("sl-rozaj-biske-1994", None, ("sl", "sl-rozaj-biske-1994")),
        ("de-DE-u-co-phonebk", None, ("de", "de-DE")),
        ("fr", "en;q=1", ("fr", "fr")),
        ("C", "en", ("en", "en")),
        (None, "de;q=0.5, en-GB , fr;q=0.9", ("en", "en-GB")),
        (None, "da, en-gb;q=0.8, en;q=0.7", ("da", "da")),
        (None, "*;q=1, it;q=0.1", ("it", "it")),
        (None, "en;q=0", (None, None)),
        (None, "en;q=nan, fr;q=0.2", ("fr", "fr")),
        (None, "*", (None, None)),
        ("POSIX", "", (None, None)),
        ("und", None, (None, None)),
        (None, None, (None, None)),
    ],
)
def test_language_and_locale(locale, accept, expected):
    assert language.describe(locale or "", accept or "") == expected
