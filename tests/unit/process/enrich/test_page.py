import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.process.enrich import page
from headwater.process.enrich.settings import PageSettings

NAMES = [field.name for field in page.FIELDS]
URLISH = st.one_of(st.none(), st.text(max_size=60), st.text(alphabet="htps:/?#&=%[]@;+.a0é", max_size=60))


def describe(url, settings=None):
    return dict(zip(NAMES, page.memo(settings or PageSettings()).rows([(url,)])[0], strict=True))


@pytest.mark.slow
@given(st.lists(URLISH, max_size=10))
def test_no_text_raises_and_outputs_do_not_depend_on_the_batch(urls):
    memo = page.memo(PageSettings())
    out = memo.apply(pa.array(urls, pa.string()))
    assert memo.failed == 0
    for row, url in enumerate(urls):
        assert {name: array[row].as_py() for name, array in out.items()} == describe(url)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://www.Shop.example/a/b?x=1#top", ("https", "www.shop.example", None, "/a/b", "?x=1", "#top")),
        ("HTTP://user:pass@Host:8080", ("http", "host", 8080, "/", None, None)),
        ("https://h:443/", ("https", "h", None, "/", None, None)),
        ("https://h:99999/", ("https", "h", None, "/", None, None)),
        ("http://[2001:DB8::1]:81/x", ("http", "[2001:db8::1]", 81, "/x", None, None)),
        ("http://[", ("http", "[", None, "/", None, None)),
        ("https://xn--bcher-kva.example/%zz", ("https", "xn--bcher-kva.example", None, "/%zz", None, None)),
        ("//cdn.example/x", (None, "cdn.example", None, "/x", None, None)),
        ("/shop?x=1", (None, None, None, "/shop", "?x=1", None)),
        ("?x#", (None, None, None, None, "?x", None)),
        ("localhost:3000/x", (None, None, None, "localhost:3000/x", None, None)),
        ("https://h./a", ("https", "h", None, "/a", None, None)),
        ("", (None,) * 6),
        ("  ", (None,) * 6),
    ],
)
def test_url_is_taken_apart(url, parts):
    address = page.split(url)
    assert address == parts
    host, path, search = tuple(describe(url).values())[:3]
    assert (host, path, search) == (address.host, address.path, address.search)


def test_campaign_parameters_are_decoded_and_broken_encoding_stays():
    row = describe(
        "https://h/?UTM_Source=News+letter&utm_medium=e%2Dmail&utm_campaign=50%&utm_term=%ff&utm_id=&utm_content=a%0Ab"
    )
    assert row["utm_source"] == "News letter"
    assert row["utm_medium"] == "e-mail"
    assert row["utm_campaign"] == "50%"
    assert row["utm_term"] == "�"
    assert row["utm_id"] is None
    assert row["utm_content"] == "a b"


def test_first_of_equal_parameters_counts():
    assert describe("https://h/?utm_source=a&utm_source=b")["utm_source"] == "a"


def test_parameters_of_an_address_copied_from_html_are_found():
    assert describe("https://h/?x=1&amp;utm_source=a")["utm_source"] == "a"


@pytest.mark.parametrize(
    "kind",
    ["gclid", "gbraid", "wbraid", "dclid", "fbclid", "msclkid", "ttclid", "li_fat_id", "twclid", "yclid"],
)
def test_click_id_is_found_with_its_kind(kind):
    row = describe(f"https://h/?a=b&{kind}=Ab%2B1+2")
    assert (row["click_id"], row["click_id_kind"]) == ("Ab+1+2", kind)


def test_ad_network_goes_before_a_shared_link():
    assert describe("https://h/?fbclid=f&gclid=g")["click_id_kind"] == "gclid"


def test_click_ids_of_the_settings_are_found():
    row = describe("https://h/?acmeclick=7", PageSettings(click_ids=("AcmeClick",)))
    assert (row["click_id"], row["click_id_kind"]) == ("7", "acmeclick")


def test_outputs_are_capped():
    row = describe("https://h/" + "p" * 50 + "?utm_source=" + "s" * 50, PageSettings(value_chars_max=10))
    assert len(row["page_path"]) == len(row["page_search"]) == len(row["utm_source"]) == 10
    assert describe("https://h/abc", PageSettings(chars_max=11))["page_path"] == "/a"


def test_only_so_many_parameters_are_looked_at():
    url = "https://h/?" + "a=1&" * 10 + "utm_source=x"
    assert describe(url, PageSettings(parameters_max=10))["utm_source"] is None
    assert describe(url, PageSettings(parameters_max=11))["utm_source"] == "x"
