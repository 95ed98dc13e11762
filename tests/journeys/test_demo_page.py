"""The demo page in a real Chromium, under its strict policy: each click is an event whose journey is shown.

The servers are fakes (fake_collector.py, fake_ops.py); the whole road with the real ones is another journey's test.
"""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.journeys.fake_collector import FakeCollector, Reply
from tests.journeys.fake_ops import FakeOps

pytestmark = [pytest.mark.slow, pytest.mark.real("chromium")]


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    made = FakeCollector()
    yield made
    made.close()


@pytest.fixture
def ops(collector: FakeCollector) -> Iterator[FakeOps]:
    made = FakeOps(collector, "demo-key")
    yield made
    made.close()


@pytest.fixture
def page(chromium: Browser, ops: FakeOps) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(ops.url + "/demo")
    yield page
    context.close()
    assert [
        p for p in problems if not p.startswith("Failed to load resource")
    ] == []  # nor did the policy forbid anything


def card(page: Page, name: str):
    return page.locator(".card").filter(has=page.get_by_role("heading", name=name, exact=True))


def test_click_travels_to_the_row_which_is_shown(page: Page, collector: FakeCollector) -> None:
    page.get_by_role("button", name="Add Ash paddle to the cart").click()
    added = card(page, "Product Added")
    expect(added.locator(".steps li.done")).to_have_count(4)
    expect(added.locator(".steps li").nth(1)).to_have_text(re.compile(r"acknowledged\+\d+ ms"))
    expect(added.locator(".receipt code")).to_have_text(re.compile(r"fake-\d"))
    expect(added.locator("tr").filter(has_text="product_id")).to_contain_text("paddle")
    expect(added.locator("tr").filter(has_text=re.compile("^price"))).to_contain_text("74.5")
    expect(added.locator("tr").filter(has_text=re.compile("^ip"))).to_have_count(
        0
    )  # empty columns are left out
    (event,) = [e for e in collector.events if e.get("event") == "Product Added"]
    assert event["properties"]["price"] == 74.5
    expect(page.locator("#total-events")).to_have_text("2")
    expect(page.locator("#total-landed")).to_have_text("2")
    expect(page.locator("#total-median")).to_have_text(re.compile(r"\d+ ms"))
    expect(page.locator("#said")).to_contain_text("in the warehouse after")


def test_commands_name_the_program_and_its_data_folder(page: Page) -> None:
    commands = page.locator(".command")
    start = ".venv/bin/headwater"
    expect(commands.first).to_have_text(
        re.compile(f"^{re.escape(start)} sql --data '/srv/a folder' \"select")
    )
    expect(commands.nth(1)).to_have_text(
        re.compile(f"^{re.escape(start)} sql --data '/srv/a folder' --json ")
    )
    expect(page.locator("#where")).to_have_text(
        re.compile(f"^{re.escape(start)} where --data '/srv/a folder' fake-")
    )


def test_shopping_trip_makes_the_events_of_a_shop(page: Page, collector: FakeCollector) -> None:
    page.get_by_role("button", name="Log in").click()
    page.locator("#login").get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="View Heron 14 canoe").click()
    page.locator("#product-dialog").get_by_role("button", name="Add Heron 14 canoe").click()
    page.keyboard.press("Escape")
    page.get_by_label("Search the shop").fill("tents")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Add Night Heath tent to the cart").click()
    page.get_by_role("button", name="Cart, 2 items").click()
    page.get_by_role("button", name="Remove Night Heath tent").click()
    page.get_by_role("button", name="Check out").click()
    page.get_by_role("button", name="Log out Ada").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    page.get_by_role("button", name="Add Night Heath tent to the cart").click()
    expect(page.locator("#total-landed")).to_have_text("13")
    names = [event.get("event") or event["type"] for event in collector.events]
    assert names == [
        "page", "identify", "Signed In", "Product Viewed", "Product Added", "Products Searched", "Product Added",
        "Product Removed", "Checkout Started", "Order Completed", "Signed Out", "reset", "Product Added",
    ]  # fmt: skip
    users = [event.get("userId") for event in collector.events]
    assert users == [None] + ["ada@riverside.example"] * 11 + [None]
    assert collector.events[-1]["anonymousId"] != collector.events[0]["anonymousId"]


def test_refusal_is_shown_plainly(page: Page, collector: FakeCollector) -> None:
    expect(page.locator("#total-landed")).to_have_text("1")
    collector.plan = [Reply(status=400, refused={0: "price must be a number"})]
    page.get_by_role("button", name="Add Ash paddle to the cart").click()
    expect(card(page, "Product Added").locator(".error")).to_have_text(
        "Refused: price must be a number (event)"
    )


def test_collector_that_is_away_is_said_and_the_event_arrives_later(
    page: Page, collector: FakeCollector
) -> None:
    expect(page.locator("#total-landed")).to_have_text("1")
    collector.default = Reply(status=503)
    page.get_by_role("button", name="Add Ash paddle to the cart").click()
    expect(page.locator("#state")).to_contain_text("1 waiting")
    collector.default = Reply()
    expect(card(page, "Product Added").locator(".took")).to_have_text(re.compile("s$"), timeout=15_000)


def test_privacy_signal_is_explained_and_can_be_overridden(
    chromium: Browser, ops: FakeOps, collector: FakeCollector
) -> None:
    context = chromium.new_context()
    context.add_init_script(
        "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})"
    )
    page = context.new_page()
    page.goto(ops.url + "/demo")
    expect(page.locator("#notice")).to_contain_text("Global Privacy Control")
    assert collector.batches == []
    page.get_by_role("button", name="Allow on this page").click()
    expect(page.locator("#total-landed")).to_have_text("1")
    expect(page.locator("#notice")).to_be_hidden()
    context.close()


@pytest.mark.parametrize("width", [320, 768, 1360])
def test_page_fits_its_window(width: int, page: Page) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    wide = """[...document.querySelectorAll('body *')].filter(n => n.getBoundingClientRect().right > innerWidth + 1)
      .map(n => n.outerHTML.slice(0, 80))"""
    assert page.evaluate("document.documentElement.scrollWidth") <= width, page.evaluate(wide)
