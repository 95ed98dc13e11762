import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.process.enrich import bots, user_agent
from headwater.process.enrich.settings import UserAgentSettings

BOTS = bots.Bots(UserAgentSettings())
NAMES = [field.name for field in user_agent.FIELDS]
CHROME = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 {}Safari/537.36"
WINDOWS = CHROME.format("Windows NT 10.0; Win64; x64", "")
MAC = CHROME.format("Macintosh; Intel Mac OS X 10_15_7", "")
ANDROID = CHROME.format("Linux; Android 10; K", "Mobile ")
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.4.1 Mobile/15E148 Safari/604.1"
)
BRANDS = '"Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"'
TEXT = st.one_of(
    st.none(), st.text(max_size=40), st.sampled_from(["?1", '"Windows"', '"99.1"', BRANDS, ANDROID])
)


def describe(agent, *hints):
    return dict(zip(NAMES, user_agent.describe(BOTS, agent, *hints), strict=True))


@pytest.mark.slow
@given(TEXT, TEXT, TEXT, TEXT, TEXT, TEXT)
def test_no_text_raises(agent, brands, platform, mobile, version, model):
    row = describe(agent, brands, platform, mobile, version, model)
    assert row["is_bot"] == (row["bot_reason"] is not None)
    assert (row["device_kind"] == "bot") == row["is_bot"]


def test_outputs_do_not_depend_on_the_rest_of_the_batch():
    agents = [WINDOWS, ANDROID, IPHONE, "curl/8", "", None, WINDOWS]
    hints = [(BRANDS, '"Windows"', None, "", "Pixel 9"), *[(None,) * 5] * 6]
    joined = [user_agent.join_hints(each) for each in hints]
    out = user_agent.memo(UserAgentSettings()).apply(
        pa.array(agents, pa.string()), pa.array(joined, pa.string())
    )
    for row, (agent, each) in enumerate(zip(agents, hints, strict=True)):
        assert {name: array[row].as_py() for name, array in out.items()} == describe(agent, *each)


def test_iphone_is_read_to_the_patch():
    row = describe(IPHONE)
    assert (row["ua_family"], row["ua_version"]) == ("Mobile Safari", "17.4.1")
    assert (row["os_family"], row["os_version"]) == ("iOS", "17.4.1")
    assert (row["device_brand"], row["device_model"], row["device_kind"]) == ("Apple", "iPhone", "mobile")


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        (WINDOWS, "desktop"),
        (MAC, "desktop"),
        (CHROME.format("X11; CrOS x86_64 14541.0.0", ""), "desktop"),
        (CHROME.format("X11; Ubuntu; Linux x86_64", ""), "desktop"),
        ("Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Tablet PC 2.0)", "desktop"),
        (ANDROID, "mobile"),
        ("Opera/9.80 (J2ME/MIDP; Opera Mini/7.1; U; en) Presto/2.8 Version/11.10", "mobile"),
        (CHROME.format("Linux; Android 13; SM-X900", ""), "tablet"),
        ("Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) AppleWebKit/605.1 Mobile/15E Safari/604", "tablet"),
        (CHROME.format("Linux; Android 9; AFTMM Build/NS6265", ""), "tv"),
        ("Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 Chrome/79.0.3945.79 Safari/537.36", "tv"),
        ("Mozilla/5.0 (PlayStation; PlayStation 5/2.26) AppleWebKit/605.1.15 Safari/605.1.15", "other"),
        ("something nobody knows", "other"),
    ],
)  # fmt: skip
def test_device_kind_follows_the_written_rules(agent, kind):
    assert describe(agent)["device_kind"] == kind


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "crawler:Googlebot/"),
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", "crawler:GPTBot"),
        (
            "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0.0.0 (compatible; bingbot/2.0)",
            "crawler:bingbot",
        ),
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/120.0.0.0 Safari/537.36",
            "headless",
        ),
        ("curl/8.5.0", "library"),
        ("python-requests/2.31.0", "library"),
        ("Python/3.11 aiohttp/3.9.1", "library"),
        ("Go-http-client/1.1", "library"),
        ("axios/1.6.2", "library"),
        ("", "empty_user_agent"),
        (" \t", "empty_user_agent"),
        (WINDOWS, None),
        (IPHONE, None),
        ("okhttp/4.9.3", None),
        (None, None),
    ],
)
def test_bot_reason_is_the_first_that_holds(agent, reason):
    assert BOTS.reason(agent) == reason


def test_patterns_of_the_settings_count_first_and_can_be_switched_off():
    own = bots.Bots(UserAgentSettings(bot_patterns=(r"Acme\.Check",), bot_patterns_off=(r"Googlebot\/",)))
    assert own.reason("Googlebot/2.1 Acme.Check/1") == "crawler:Acme.Check"
    assert own.reason("Googlebot/2.1") != "crawler:Googlebot/"
    assert own.reason("okhttp/4.9.3") == "crawler:okhttp"


@pytest.mark.parametrize(
    ("version", "windows"),
    [('"15.0.0"', "11"), ('"13.0.0"', "11"), ('"10.0.0"', "10"), ('"1.0.0"', "10"), ('"0.3.0"', "8.1"),
     ('"0.1.0"', "7"), ('"0"', "10"), ('"junk"', "10"), (None, "10")],
)  # fmt: skip
def test_windows_release_is_told_by_the_platform_version(version, windows):
    row = describe(WINDOWS, BRANDS, '"Windows"', "?0", version)
    assert (row["os_family"], row["os_version"]) == ("Windows", windows)


def test_macos_version_is_thawed():
    assert describe(MAC, BRANDS, '"macOS"', "?0", '"14.4.1"')["os_version"] == "14.4.1"


def test_android_model_and_version_come_from_hints():
    row = describe(ANDROID, BRANDS, '"Android"', "?1", '"14.0.0"', '"Pixel 8"')
    assert (row["os_version"], row["device_model"], row["device_brand"]) == ("14", "Pixel 8", "Google")
    assert row["device_kind"] == "mobile"
    assert describe(ANDROID)["device_model"] is None


def test_android_that_says_not_mobile_is_a_tablet():
    assert (
        describe(CHROME.format("Linux; Android 10; K", ""), BRANDS, '"Android"', "?0")["device_kind"]
        == "tablet"
    )


def test_brand_that_hides_behind_chrome_is_named():
    brands = '"Not/A)Brand";v="8", "Chromium";v="126", "Brave";v="126"'
    row = describe(WINDOWS, brands, '"Windows"', "?0")
    assert (row["ua_family"], row["ua_version"]) == ("Brave", "126")


def test_full_version_list_replaces_the_frozen_version():
    full = '"Chromium";v="124.0.6367.91", "Google Chrome";v="124.0.6367.91", "Not-A.Brand";v="99.0.0.0"'
    assert describe(WINDOWS, full, '"Windows"', "?0")["ua_version"] == "124.0.6367.91"


def test_headless_brand_is_a_bot():
    assert describe(WINDOWS, '"HeadlessChrome";v="124"', '"Linux"', "?0")["bot_reason"] == "headless"


def test_linux_hint_keeps_the_distribution():
    assert (
        describe(CHROME.format("X11; Ubuntu; Linux x86_64", ""), BRANDS, '"Linux"')["os_family"] == "Ubuntu"
    )


def test_longer_user_agent_than_the_cap_is_cut():
    memo = user_agent.memo(UserAgentSettings(chars_max=len(WINDOWS)))
    rows = memo.rows([(WINDOWS + " Googlebot/2.1", None)])
    assert rows[0] == user_agent.describe(BOTS, WINDOWS)


def test_libraries_that_the_pattern_package_knows_are_filed_as_libraries():
    known = [
        *("Wget/1.21", "Python-urllib/3.11", "python-httpx/0.27", "libwww-perl/6.7", "Apache-HttpClient/4.5"),
        *("node-fetch/1.0", "HTTPie/3.2", "Jetty/9.4", "AHC/2.1", "PHP-Curl-Class/9", "Mechanize/2.7"),
    ]
    assert {agent: BOTS.reason(agent) for agent in known} == dict.fromkeys(known, "library")
    driven = ["PhantomJS/2.1", "Playwright/1.40", "Puppeteer", "Selenium"]
    assert {agent: BOTS.reason(agent) for agent in driven} == dict.fromkeys(driven, "headless")
