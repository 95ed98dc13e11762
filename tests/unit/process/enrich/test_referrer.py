import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.process.enrich import referrer
from headwater.process.enrich.settings import ReferrerSettings

NAMES = [field.name for field in referrer.FIELDS]
MEMO = referrer.memo(ReferrerSettings())
TEXT = st.one_of(
    st.none(), st.text(max_size=40), st.from_regex(r"https?://[a-z.]{0,20}(google|t)\.[a-z.]{0,6}/\?q=.{0,9}")
)


def describe(url, host="shop.example", settings=None):
    memo = MEMO if settings is None else referrer.memo(settings)
    return dict(zip(NAMES, memo.rows([(url, host)])[0], strict=True))


@pytest.mark.slow
@given(st.lists(st.tuples(TEXT, TEXT), max_size=8))
def test_no_text_raises_and_outputs_do_not_depend_on_the_batch(pairs):
    memo = referrer.memo(ReferrerSettings())
    out = memo.apply(*(pa.array([pair[side] for pair in pairs], pa.string()) for side in (0, 1)))
    assert memo.failed == 0
    for row, pair in enumerate(pairs):
        assert {name: array[row].as_py() for name, array in out.items()} == describe(*pair)


@pytest.mark.parametrize(
    ("url", "kind", "engine", "term"),
    [
        ("https://www.google.com/", "search", "Google", None),
        ("https://www.google.co.uk/search?q=blue+shoes", "search", "Google", "blue shoes"),
        ("https://google.de/url?q=%C3%BC", "search", "Google", "ü"),
        ("https://yandex.com.tr/search/?text=a", "search", "Yandex", "a"),
        ("https://de.search.yahoo.com/search?p=a&q=b", "search", "Yahoo!", "a"),
        ("https://duckduckgo.com/", "search", "DuckDuckGo", None),
        ("android-app://com.google.android.googlequicksearchbox/", "search", "Google", None),
        ("https://mail.google.com/mail/u/0", "email", None, None),
        ("android-app://com.google.android.gm", "email", None, None),
        ("https://l.facebook.com/l.php?u=x", "social", None, None),
        ("https://t.co/abc", "social", None, None),
        ("https://uk.pinterest.co.uk/pin/1", "social", None, None),
        ("https://googleads.g.doubleclick.net/", "paid", None, None),
        ("https://blog.example.org/post", "link", None, None),
        ("https://google.example.com/?q=a", "link", None, None),
        ("https://notfacebook.com/", "link", None, None),
        (None, "direct", None, None),
        ("", "direct", None, None),
        ("about:blank", "direct", None, None),
    ],
)
def test_referrer_is_classed(url, kind, engine, term):
    row = describe(url)
    assert (row["referrer_kind"], row["search_engine"], row["search_term"]) == (kind, engine, term)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://shop.example/a", "shop.example"),
        ("https://www.shop.example/a", "shop.example"),
        ("https://shop.example/a", "www.shop.example"),
        ("https://help.shop.example/a", "www.shop.example"),
        ("https://shop.example", "help.shop.example"),
    ],
)
def test_own_pages_are_internal(url, host):
    assert describe(url, host)["referrer_kind"] == "internal"


def test_neighbouring_subdomains_are_internal_when_the_settings_say_so():
    pair = ("https://a.shop.example/", "b.shop.example")
    assert describe(*pair)["referrer_kind"] == "link"
    assert describe(*pair, ReferrerSettings(internal_hosts=("Shop.example",)))["referrer_kind"] == "internal"


def test_without_page_and_referrer_there_is_nothing_to_say():
    assert set(describe(None, None).values()) == {None}


def test_settings_extend_and_correct_the_table():
    own = ReferrerSettings(
        kinds={"intranet.example": "social", "mail.google.com": "link"}, engines={"find.example": ("needle",)}
    )
    assert describe("https://x.intranet.example/", settings=own)["referrer_kind"] == "social"
    assert describe("https://mail.google.com/", settings=own)["referrer_kind"] == "link"
    row = describe("https://find.example/?needle=a%20b", settings=own)
    assert (row["search_engine"], row["search_term"]) == ("find.example", "a b")


def test_search_term_is_capped():
    row = describe("https://bing.com/?q=" + "a" * 50, settings=ReferrerSettings(value_chars_max=10))
    assert row["search_term"] == "a" * 10
