"""The browser tag in a real Chromium, against a fake of the collector (fake_collector.py) that answers as told.

Pages come from one origin and the collector is another, so everything here also shows that no CORS preflight
is needed. A fake, because the promises are about replies that a healthy collector does not give on request.
"""

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.journeys.fake_collector import FakeCollector, Reply

pytestmark = [pytest.mark.slow, pytest.mark.real("chromium")]
KEY = "web-key"
SNIPPET = """
(function (w, names) {
  if (w.headwater && w.headwater.version) return
  var queue = w.headwater = w.headwater || []
  names.forEach(function (name) {
    queue[name] = function () {
      var args = [].slice.call(arguments)
      return new Promise(function (resolve) { queue.push([name, args, resolve, Date.now()]) })
    }
  })
})(window, ['load', 'track', 'page', 'screen', 'identify', 'group', 'alias', 'reset', 'ready', 'consent', 'flush',
  'on'])
"""

Collectors = tuple[FakeCollector, FakeCollector]


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    made = chromium.new_context(locale="de-DE", timezone_id="Europe/Berlin")
    made.set_default_timeout(15_000)
    yield made
    made.close()


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    made = FakeCollector()
    yield made
    made.close()


@pytest.fixture
def shop() -> Iterator[FakeCollector]:
    """The origin of the pages; a batch must never go there."""
    made = FakeCollector()
    yield made
    assert not made.batches
    made.close()


@pytest.fixture
def site(shop: FakeCollector, collector: FakeCollector) -> Callable[..., str]:
    """Makes a page with the tag, and gives its address."""

    def make(path: str = "/", body: str = "", attributes: str = f'data-key="{KEY}"', **headers: str) -> str:
        return shop.page(
            path, body, f'<script src="{collector.url}/headwater.js" {attributes}></script>', **headers
        )

    return make


def waiting(page: Page) -> int:
    return int(page.evaluate("headwater.stats().waiting"))


def emptied(page: Page) -> None:
    page.wait_for_function("headwater.stats().waiting === 0")


def track(page: Page, name: str, properties: dict[str, Any] | None = None) -> None:
    page.evaluate("([n, p]) => { headwater.track(n, p) }", [name, properties])


# ---- an event and its acknowledgement


def test_call_resolves_with_the_receipt_of_the_collector(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site("/shop?utm_source=news&utm_campaign=spring"))
    result = page.evaluate("headwater.track('Added', {price: 9.5})")
    (batch,) = collector.batches
    assert result.pop("ms") < 5000
    assert result == {"ok": True, "messageId": batch.ids[0], "receipt": "fake-1", "ack": "disk"}
    assert page.evaluate("headwater.stats()") == {
        "waiting": 0, "consent": "granted", "queued": 1, "acknowledged": 1, "refused": 0, "dropped": 0,
        "retries": 0, "beacons": 0,
    }  # fmt: skip


def test_event_has_the_shape_of_the_segment_spec(site, shop, collector, context) -> None:
    page = context.new_page()
    page.goto(site("/shop?utm_source=news&utm_campaign=spring"))
    page.evaluate("headwater.identify('u-1', {plan: 'pro'}); headwater.group('g-1', {name: 'Acme'})")
    page.evaluate("headwater.track('Added', {price: 9.5}, {context: {app: {name: 'x'}}})")
    (event,) = [e for e in collector.events if e["type"] == "track"]
    uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    assert re.fullmatch(uuid, event["messageId"])
    assert re.fullmatch(uuid, event["anonymousId"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"])
    assert event["userId"] == "u-1"
    assert event["event"] == "Added"
    assert event["properties"] == {"price": 9.5}
    context_of = event["context"]
    assert context_of["page"] == {
        "url": shop.url + "/shop?utm_source=news&utm_campaign=spring",
        "path": "/shop",
        "referrer": "",
        "title": "/shop",
        "search": "?utm_source=news&utm_campaign=spring",
    }
    assert context_of["campaign"] == {"source": "news", "name": "spring"}
    assert context_of["library"] == {"name": "headwater.js", "version": "0.1.0"}
    assert (context_of["locale"], context_of["timezone"]) == ("de-DE", "Europe/Berlin")
    assert context_of["screen"]["width"] > 0
    assert set(context_of["userAgentData"]) == {"brands", "mobile", "platform"}
    assert context_of["groupId"] == "g-1"
    assert context_of["app"] == {"name": "x"}
    assert "Chrome" in context_of["userAgent"]
    body = collector.batches[0].body
    assert body["writeKey"] == KEY
    assert set(body) == {"batch", "sentAt", "writeKey"}


def test_every_kind_of_call_makes_its_event(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate(
        """Promise.all([headwater.page('Docs', 'Home', {x: 1}), headwater.page(), headwater.screen('Main'),
        headwater.identify('u-1', {plan: 'pro'}), headwater.identify({seats: 2}), headwater.group('g-1', {size: 3}),
        headwater.alias('u-2')])"""
    )
    by_type: dict[str, list[dict]] = {}
    for event in collector.events:
        by_type.setdefault(event["type"], []).append(event)
    first, second = by_type["page"]
    assert (first["name"], first["category"], first["properties"]["x"], first["properties"]["path"]) == (
        "Home",
        "Docs",
        1,
        "/",
    )
    assert "name" not in second
    assert by_type["screen"][0]["name"] == "Main"
    assert by_type["screen"][0]["properties"] == {"name": "Main"}
    assert [(e["userId"], e["traits"]) for e in by_type["identify"]] == [
        ("u-1", {"plan": "pro"}),
        ("u-1", {"plan": "pro", "seats": 2}),
    ]
    assert (by_type["group"][0]["groupId"], by_type["group"][0]["traits"]) == ("g-1", {"size": 3})
    assert (by_type["alias"][0]["userId"], by_type["alias"][0]["previousId"]) == ("u-2", "u-1")
    assert "event" not in by_type["alias"][0]


def test_no_preflight_is_needed_and_the_key_is_in_the_body(site, shop, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate("headwater.track('One')")
    assert collector.preflights == 0
    assert collector.batches[0].content_type == "text/plain;charset=UTF-8"
    assert collector.batches[0].origin == shop.url
    assert collector.batches[0].method == "/v1/batch"


def test_calls_of_one_task_go_in_one_batch_in_order(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate("Promise.all([1, 2, 3].map(n => headwater.track('e' + n)))")
    assert [batch.names for batch in collector.batches] == [["e1", "e2", "e3"]]


def test_batches_are_capped_by_count_and_bytes(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate("Promise.all(Array.from({length: 120}, (_, n) => headwater.track('e' + n)))")
    page.evaluate(
        "Promise.all(Array.from({length: 9}, (_, n) => headwater.track('big' + n, {text: 'ä'.repeat(10000)})))"
    )
    assert max(len(batch.events) for batch in collector.batches) == 50
    assert max(batch.size for batch in collector.batches) <= 60_000
    assert [e["event"] for e in collector.events] == [f"e{n}" for n in range(120)] + [
        f"big{n}" for n in range(9)
    ]


def test_event_larger_than_a_keepalive_request_goes_alone(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    assert page.evaluate("headwater.track('Huge', {text: 'x'.repeat(100000)})")["ok"]
    refused = page.evaluate("headwater.track('Too large', {text: 'x'.repeat(300000)})")
    assert (refused["ok"], refused["reason"]) == (False, "too_large")
    assert collector.received == {"Huge": 1}


def test_value_that_is_not_json_is_dropped_with_a_reason(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    result = page.evaluate("(() => { const a = {}; a.a = a; return headwater.track('Loop', a) })()")
    assert (result["ok"], result["reason"]) == (False, "unserializable")
    assert page.evaluate("headwater.stats().dropped") == 1


# ---- the queue is emptied only after a 2xx


def test_queue_is_kept_over_a_reload_until_a_2xx(site, collector, context) -> None:
    page = context.new_page()
    collector.default = Reply(status=503)
    page.goto(site())
    track(page, "Kept")
    page.wait_for_function("headwater.stats().retries === 1")  # from here on no beacon: the pause holds
    page.reload()
    assert waiting(page) == 1
    collector.default = Reply()
    collector.wait_for(lambda: collector.accepted["Kept"] == 1)
    emptied(page)
    assert len({e["messageId"] for e in collector.events}) == 1


def test_lost_reply_is_repeated_with_the_same_message_id(site, collector, context) -> None:
    page = context.new_page()
    collector.plan = [Reply(cut=True)]
    page.goto(site())
    assert page.evaluate("headwater.track('Once')")["ok"]
    assert collector.received == {"Once": 2}
    assert len({e["messageId"] for e in collector.events}) == 1


def test_answer_of_somebody_else_is_no_acknowledgement(site, collector, context) -> None:
    """A hotel's login page answers 200 with HTML."""
    page = context.new_page()
    collector.plan = [Reply(text="<html>please log in</html>")]
    page.goto(site())
    assert page.evaluate("headwater.track('Once')")["receipt"] == "fake-2"


def test_events_of_an_offline_browser_wait_and_go_when_it_is_back(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    context.set_offline(True)
    track(page, "Offline")
    page.wait_for_function("headwater.stats().retries > 0")
    assert collector.received == {}
    context.set_offline(False)
    collector.wait_for(lambda: collector.accepted["Offline"] == 1)


def test_queue_is_bounded_and_says_what_it_dropped(site, collector, context) -> None:
    page = context.new_page()
    collector.default = Reply(status=503)
    page.goto(site(attributes=f'data-key="{KEY}" data-queue-events-max="5"'))
    results = page.evaluate(
        """new Promise(resolve => {
          const dropped = []
          headwater.on('dropped', r => { dropped.push(r.reason); if (dropped.length === 3) resolve(dropped) })
          for (let n = 0; n < 8; n++) headwater.track('e' + n)
        })"""
    )
    assert results == ["queue_full"] * 3
    assert page.evaluate("headwater.stats().dropped") == 3
    assert waiting(page) == 5
    collector.default = Reply()
    collector.wait_for(lambda: set(collector.accepted) == {f"e{n}" for n in range(3, 8)})


def test_works_where_local_storage_is_forbidden(site, collector, context) -> None:
    context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no') }})"
    )
    page = context.new_page()
    page.goto(site())
    assert page.evaluate("headwater.track('One')")["ok"]
    assert page.evaluate("headwater.track('Two')")["ok"]
    one, two = collector.events
    assert one["anonymousId"] == two["anonymousId"]


def test_full_local_storage_loses_nothing_while_the_page_lives(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate(
        "try { for (let n = 0, s = 'x'.repeat(100000); ; n++) localStorage.setItem('junk' + n, s) } catch (e) {}"
    )
    page.evaluate("try { for (let n = 0; ; n++) localStorage.setItem('j' + n, 'xxxxxxxxx') } catch (e) {}")
    assert page.evaluate("headwater.track('One')")["ok"]


# ---- retries


def test_retry_after_is_honoured_also_by_the_next_page(site, collector, context) -> None:
    page = context.new_page()
    collector.plan = [Reply(status=429, headers={"Retry-After": "3"})]
    page.goto(site())
    track(page, "Later")
    collector.wait_for(lambda: len(collector.batches) == 1)
    page.wait_for_function("headwater.stats().retries === 1")
    page.reload()
    collector.wait_for(lambda: collector.accepted["Later"] == 1)
    assert len(collector.batches) == 2
    assert 3 <= collector.batches[1].at - collector.batches[0].at < 6


def test_server_error_is_retried_with_growing_pauses(site, collector, context) -> None:
    page = context.new_page()
    collector.plan = [
        Reply(status=500),
        Reply(status=502, text="<html>bad gateway</html>"),
        Reply(status=503),
    ]
    page.goto(site())
    assert page.evaluate("headwater.track('Again')")["ok"]
    at = [batch.at for batch in collector.batches]
    gaps = [b - a for a, b in itertools.pairwise(at)]
    assert len(gaps) == 3
    for gap, least in zip(gaps, (0.5, 1, 2), strict=True):
        assert least <= gap < least * 2 + 2


def test_one_attempt_at_a_time(site, collector, context) -> None:
    page = context.new_page()
    hold = threading.Event()
    collector.plan = [Reply(wait=hold)]
    page.goto(site())
    track(page, "One")
    collector.wait_for(lambda: len(collector.batches) == 1)
    for n in range(5):
        track(page, f"e{n}")
    page.wait_for_timeout(500)
    assert len(collector.batches) == 1
    hold.set()
    emptied(page)
    assert [batch.names for batch in collector.batches] == [["One"], [f"e{n}" for n in range(5)]]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_client_error_drops_the_batch_and_says_so_once(status: int, site, collector, context) -> None:
    page = context.new_page()
    said: list[str] = []
    page.on(
        "console", lambda message: said.append(message.text) if message.text.startswith("headwater") else None
    )
    collector.default = Reply(status=status)
    page.goto(site())
    for _ in range(2):
        result = page.evaluate("headwater.track('Bad')")
        assert (result["ok"], result["reason"]) == (False, f"status {status}")
    assert page.evaluate("headwater.stats().dropped") == 2
    assert waiting(page) == 0
    assert collector.received == {"Bad": 2}
    assert len(said) == 1


@pytest.mark.parametrize("status", [200, 400])
def test_refused_events_leave_and_the_others_are_delivered(status: int, site, collector, context) -> None:
    page = context.new_page()
    collector.plan = [Reply(status=status, refused={1: "event is missing"})]
    page.goto(site())
    results = page.evaluate("Promise.all(['a', 'b', 'c'].map(n => headwater.track(n)))")
    assert [r["ok"] for r in results] == [True, False, True]
    assert (results[1]["reason"], results[1]["field"]) == ("event is missing", "event")
    stats = page.evaluate("headwater.stats()")
    assert (stats["acknowledged"], stats["refused"], stats["waiting"]) == (2, 1, 0)
    assert collector.accepted == {"a": 1, "c": 1}


def test_hooks_tell_what_became_of_each_event(site, collector, context) -> None:
    page = context.new_page()
    collector.plan = [Reply(refused={0: "no"})]
    page.goto(site())
    seen = page.evaluate(
        """new Promise(async resolve => {
          const seen = []
          for (const what of ['queued', 'acknowledged', 'refused', 'dropped'])
            headwater.on(what, r => { seen.push(what); if (seen.length === 4) resolve(seen) })
          headwater.on('queued', () => { throw new Error('a hook that fails harms nothing') })
          headwater.track('a')
          headwater.track('b')
        })"""
    )
    assert sorted(seen) == ["acknowledged", "queued", "queued", "refused"]


# ---- tabs


def test_two_tabs_neither_double_nor_lose(site, collector, context) -> None:
    one, two = context.new_page(), context.new_page()
    address = site()
    one.goto(address)
    two.goto(address)
    for page, letter in ((one, "a"), (two, "b")):
        page.evaluate(
            """letter => { window.made = (async () => {
              const results = []
              for (let n = 0; n < 100; n++) {
                results.push(headwater.track(letter + n))
                if (n % 3 === 0) await new Promise(r => setTimeout(r, 7))
              }
              return (await Promise.all(results)).every(r => r.ok && r.receipt)
            })() }""",
            letter,
        )
    assert one.evaluate("made")
    assert two.evaluate("made")
    assert collector.received == {f"{letter}{n}": 1 for letter in "ab" for n in range(100)}
    for letter in "ab":  # and in order
        names = [e["event"] for e in collector.events if e["event"].startswith(letter)]
        assert names == [f"{letter}{n}" for n in range(100)]
    assert len({e["anonymousId"] for e in collector.events}) == 1


def test_tabs_share_one_attempt_and_one_pause(site, collector, context) -> None:
    one, two = context.new_page(), context.new_page()
    address = site()
    one.goto(address)
    two.goto(address)
    collector.plan = [Reply(status=429, headers={"Retry-After": "2"})]
    track(one, "one")
    collector.wait_for(lambda: len(collector.batches) == 1)
    one.wait_for_function("headwater.stats().retries === 1")
    two.wait_for_timeout(300)  # the pause is seen by the other tab
    track(two, "two")
    collector.wait_for(lambda: set(collector.accepted) == {"one", "two"})
    assert min(batch.at for batch in collector.batches[1:]) - collector.batches[0].at >= 2
    assert collector.received["two"] == 1


def test_tab_does_not_send_what_another_one_is_sending(site, collector, context) -> None:
    """However long the reply takes: the event grows old enough to be taken over, but its tab still holds the lock."""
    one, two = context.new_page(), context.new_page()
    address = site()
    one.goto(address)
    two.goto(address)
    hold = threading.Event()
    collector.plan = [Reply(wait=hold)]
    track(one, "Slow")
    collector.wait_for(lambda: len(collector.batches) == 1)
    one.wait_for_timeout(2500)
    track(two, "Waits")
    two.wait_for_timeout(500)
    assert collector.received == {"Slow": 1}
    hold.set()
    collector.wait_for(lambda: collector.accepted == {"Slow": 1, "Waits": 1})


def test_next_page_delivers_what_a_closed_tab_left(site, collector, context) -> None:
    first = context.new_page()
    collector.default = Reply(status=503)
    address = site()
    first.goto(address)
    track(first, "Left 1")
    track(first, "Left 2")
    first.wait_for_function("headwater.stats().retries === 1")  # from here on no beacon: the pause holds
    first.close()
    collector.default = Reply()
    second = context.new_page()
    second.goto(address)
    collector.wait_for(lambda: collector.accepted == {"Left 1": 1, "Left 2": 1})
    emptied(second)


def test_open_tab_delivers_what_a_closed_one_left(site, collector, context) -> None:
    """No new page is needed: the storage event has told the other tab that something was queued."""
    first, second = context.new_page(), context.new_page()
    address = site()
    first.goto(address)
    second.goto(address)
    collector.default = Reply(status=503)
    track(first, "Left")
    first.wait_for_function("headwater.stats().retries === 1")  # from here on no beacon: the pause holds
    first.close()
    collector.default = Reply()
    collector.wait_for(lambda: collector.accepted == {"Left": 1})


def test_tab_learns_what_another_tab_delivered_for_it(site, collector, context) -> None:
    first, second = context.new_page(), context.new_page()
    address = site()
    first.goto(address)
    collector.default = Reply(status=503)
    first.evaluate("window.made = headwater.track('Mine'); 0")
    first.wait_for_function("headwater.stats().retries === 1")
    # The first tab's clock stands still, as in a background tab: another one takes over.
    first.evaluate("window.setTimeout = () => 0; for (let n = 0; n < 100; n++) clearTimeout(n)")
    collector.default = Reply()
    second.goto(address)
    collector.wait_for(lambda: collector.accepted["Mine"] == 1)
    assert first.evaluate("made")["receipt"]


def test_without_web_locks_a_lease_keeps_tabs_apart(site, collector, context) -> None:
    context.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', {get: () => undefined})")
    one, two = context.new_page(), context.new_page()
    address = site()
    one.goto(address)
    two.goto(address)
    script = """letter => Promise.all(Array.from({length: 60}, (_, n) => headwater.track(letter + n)))
      .then(results => results.every(result => result.ok))"""
    one.evaluate("window.made = (" + script + ")('a'); 0")
    assert two.evaluate(script, "b")
    assert one.evaluate("made")
    assert set(collector.accepted) == {f"{letter}{n}" for letter in "ab" for n in range(60)}


# ---- leaving


def test_leaving_the_page_sends_a_beacon_and_keeps_the_events(site, collector, context) -> None:
    page = context.new_page()
    hold = threading.Event()
    collector.plan = [Reply(wait=hold)]
    address = site()
    page.goto(address)
    track(page, "In flight")
    collector.wait_for(lambda: len(collector.batches) == 1)
    track(page, "Last words")
    assert collector.received == {"In flight": 1}
    page.goto("about:blank")
    collector.wait_for(lambda: collector.received["Last words"] == 1)
    assert collector.batches[1].names == ["Last words"]  # what is in flight is not repeated
    assert collector.preflights == 0
    hold.set()
    page.goto(address)
    emptied(page)  # a beacon has no answer, so they go once more, with the same ids
    assert len({e["messageId"] for e in collector.events}) == 2


def test_pagehide_alone_is_enough_for_the_beacon(site, collector, context) -> None:
    """Not every browser says that a page is hidden before it goes; and two signs make one beacon."""
    page = context.new_page()
    hold = threading.Event()
    collector.plan = [Reply(wait=hold)]
    page.goto(site())
    track(page, "In flight")
    collector.wait_for(lambda: len(collector.batches) == 1)
    page.evaluate(
        """headwater.track('Last words')
        for (let n = 0; n < 2; n++) dispatchEvent(new PageTransitionEvent('pagehide'))"""
    )
    collector.wait_for(lambda: collector.received["Last words"] == 1)
    assert page.evaluate("headwater.stats().beacons") == 1
    hold.set()


def test_event_of_a_click_that_leaves_the_page_is_delivered(site, shop, collector, context) -> None:
    shop.page("/next", "next")
    page = context.new_page()
    page.goto(
        site(body='<a href="/next" data-hw-event="Left">next</a>', attributes=f'data-key="{KEY}" data-clicks')
    )
    page.click("a")
    page.wait_for_url("**/next")
    collector.wait_for(lambda: collector.received["Left"] >= 1)


# ---- who


def test_anonymous_id_survives_reload_and_loss_of_either_store(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    first = page.evaluate("headwater.user().anonymousId")
    page.evaluate("localStorage.clear()")
    page.reload()
    assert page.evaluate("headwater.user().anonymousId") == first
    context.clear_cookies()
    page.reload()
    page.evaluate("headwater.track('x')")
    assert collector.events[0]["anonymousId"] == first
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["value"], cookie["sameSite"]) == ("hw_anon", first, "Lax")


def test_reset_forgets_the_user_and_makes_a_new_visitor(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate("headwater.identify('u-1', {plan: 'pro'}).then(() => headwater.group('g-1'))")
    page.evaluate("headwater.reset()")
    page.evaluate("headwater.track('After')")
    page.reload()
    page.evaluate("headwater.track('Reloaded')")
    first, _, reset, after, reloaded = collector.events
    assert first["userId"] == "u-1"
    assert (reset["type"], reset["userId"], reset["anonymousId"]) == ("reset", "u-1", first["anonymousId"])
    assert "userId" not in after
    assert "groupId" not in after["context"]
    assert after["anonymousId"] == reloaded["anonymousId"] != first["anonymousId"]
    assert page.evaluate("headwater.identify({a: 1})")["ok"]
    assert collector.events[-1]["traits"] == {"a": 1}


def test_other_user_does_not_inherit_traits(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate("headwater.identify('u-1', {plan: 'pro'})")
    page.evaluate("headwater.identify('u-2', {seats: 1})")
    assert collector.events[-1]["traits"] == {"seats": 1}


# ---- privacy

SIGNALS = {
    "GPC": "Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', {get: () => true})",
    "DNT": "Object.defineProperty(Navigator.prototype, 'doNotTrack', {get: () => '1'})",
}


@pytest.fixture
def nothing_stored(context: BrowserContext) -> Callable[[Page], bool]:
    return lambda page: page.evaluate("localStorage.length") == 0 and not context.cookies()


@pytest.mark.parametrize("signal", SIGNALS)
def test_privacy_signal_means_nothing_is_stored_or_sent(
    signal: str, site, collector, context, nothing_stored
) -> None:
    context.add_init_script(SIGNALS[signal])
    page = context.new_page()
    page.goto(site(attributes=f'data-key="{KEY}" data-auto-page'))
    result = page.evaluate("headwater.track('x')")
    assert (result["ok"], result["reason"]) == (False, "privacy")
    assert page.evaluate("headwater.identify('u-1')")["ok"] is False
    page.wait_for_timeout(300)
    page.goto("about:blank")
    page.goto(site())
    assert nothing_stored(page)
    assert collector.batches == []
    assert page.evaluate("headwater.stats().consent") == "denied"


def test_signal_is_overridden_by_configuration_or_by_the_visitor(site, collector, context) -> None:
    context.add_init_script(SIGNALS["GPC"])
    page = context.new_page()
    page.goto(site("/ignore", attributes=f'data-key="{KEY}" data-privacy="ignore"'))
    assert page.evaluate("headwater.track('Ignored')")["ok"]
    page.goto(site("/ask", attributes=f'data-key="{KEY}" data-auto-page'))
    assert page.evaluate("headwater.track('Before')")["ok"] is False
    page.evaluate("headwater.consent(true)")
    assert page.evaluate("headwater.track('After')")["ok"]
    page.reload()
    assert page.evaluate("headwater.track('Remembered')")["ok"]
    assert collector.received == {"Ignored": 1, "page": 2, "After": 1, "Remembered": 1}


def test_turning_the_signal_on_removes_what_was_kept(site, collector, context, nothing_stored) -> None:
    page = context.new_page()
    page.goto(site())
    page.evaluate("headwater.identify('u-1')")
    assert not nothing_stored(page)
    context.add_init_script(SIGNALS["GPC"])
    page.reload()
    assert nothing_stored(page)


def test_required_consent_queues_in_memory_only(site, collector, context, nothing_stored) -> None:
    page = context.new_page()
    attributes = f'data-key="{KEY}" data-consent="required" data-auto-page'
    page.goto(site(attributes=attributes))
    track(page, "Early")
    page.wait_for_timeout(300)
    assert collector.batches == []
    assert nothing_stored(page)
    assert waiting(page) == 2
    page.evaluate("headwater.consent(true)")
    collector.wait_for(lambda: collector.accepted == {"page": 1, "Early": 1})
    assert page.evaluate("localStorage.getItem('hw_anon')") == collector.events[0]["anonymousId"]


def test_required_consent_that_never_comes_leaves_no_trace(site, collector, context, nothing_stored) -> None:
    page = context.new_page()
    page.goto(site(attributes=f'data-key="{KEY}" data-consent="required"'))
    track(page, "Early")
    page.reload()
    page.wait_for_timeout(300)
    assert nothing_stored(page)
    assert collector.batches == []


def test_withdrawn_consent_wipes_queue_and_ids_in_every_tab(site, collector, context) -> None:
    one, two = context.new_page(), context.new_page()
    address = site()
    collector.default = Reply(status=503)
    one.goto(address)
    two.goto(address)
    one.evaluate("window.made = headwater.track('One'); 0")
    two.evaluate("window.made = headwater.track('Two'); 0")
    collector.wait_for(lambda: len(collector.batches) >= 1)
    one.evaluate("headwater.consent(false)")
    assert one.evaluate("made")["reason"] == "privacy"
    assert two.evaluate("made")["reason"] == "privacy"
    two.wait_for_function("headwater.stats().consent === 'denied'")
    assert two.evaluate("headwater.track('x')")["reason"] == "privacy"
    collector.default = Reply()
    two.wait_for_timeout(2500)
    assert collector.accepted == {}
    assert one.evaluate("Object.keys(localStorage)") == ["hw_consent"]
    assert context.cookies() == []


# ---- automatic events


def test_single_page_application_makes_a_page_per_path(site, shop, collector, context) -> None:
    page = context.new_page()
    page.goto(site("/start", attributes=f'data-key="{KEY}" data-auto-page data-spa'))
    page.evaluate("history.pushState({}, '', '/one'); document.title = 'One'")
    collector.wait_for(lambda: collector.received["page"] == 2)
    page.evaluate("history.replaceState({}, '', '/one?sort=price')")  # the same path
    page.evaluate("history.pushState({}, '', '/two'); history.replaceState({}, '', '/three')")  # one step
    collector.wait_for(lambda: collector.received["page"] == 3)
    page.evaluate("history.back()")
    collector.wait_for(lambda: collector.received["page"] == 4)
    page.evaluate("location.hash = '#/four'")
    collector.wait_for(lambda: collector.received["page"] == 5)
    pages = [event["context"]["page"] for event in collector.events]
    assert [(p["path"], p["title"]) for p in pages[:3]] == [
        ("/start", "/start"),
        ("/one", "One"),
        ("/three", "One"),
    ]
    assert [p["referrer"] for p in pages[:3]] == ["", shop.url + "/start", shop.url + "/one?sort=price"]
    assert pages[3]["path"] == "/one"
    assert pages[4]["url"].endswith("#/four")


def test_page_is_counted_again_when_it_comes_back_from_the_cache(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site(attributes=f'data-key="{KEY}" data-auto-page'))
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    collector.wait_for(lambda: collector.received["page"] == 2)


def test_data_attributes_make_events_of_clicks(site, collector, context) -> None:
    page = context.new_page()
    body = """<button data-hw-event="Added" data-hw-prop-price="9.50" data-hw-prop-product-id="007"
      data-hw-prop-count="2" data-hw-prop-gift="true" data-hw-prop-note=""><b>add</b></button>
      <button id="plain">plain</button>"""
    page.goto(site(body=body, attributes=f'data-key="{KEY}" data-clicks'))
    page.click("b")
    page.click("#plain")
    collector.wait_for(lambda: collector.received["Added"] == 1)
    assert collector.events[0]["properties"] == {
        "price": 9.5,
        "product_id": "007",
        "count": 2,
        "gift": True,
        "note": "",
    }
    assert len(collector.events) == 1


# ---- ways to install


def test_works_on_a_page_with_a_strict_policy_and_a_nonce(shop, collector, context) -> None:
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    policy = (
        "default-src 'none'; img-src 'self'; script-src 'nonce-abc123' 'strict-dynamic'; "
        f"connect-src {collector.url}; require-trusted-types-for 'script'"
    )
    body = f"""<script nonce="abc123">{SNIPPET}
        headwater.load({{key: '{KEY}', autoPage: true}})
        headwater.track('Early')
      </script>
      <script nonce="abc123" async src="{collector.url}/headwater.js"></script>"""
    page.goto(shop.page("/", body, Content_Security_Policy=policy))
    collector.wait_for(lambda: collector.accepted == {"Early": 1, "page": 1})
    page.goto("about:blank")
    assert problems == []


def test_snippet_keeps_calls_made_before_the_tag_is_there(shop, collector, context) -> None:
    page = context.new_page()
    page.goto(
        shop.page("/", f"<script>{SNIPPET}; headwater.load({{key: '{KEY}', host: '{collector.url}'}});"
        "headwater.on('acknowledged', function (r) { (window.seen = window.seen || []).push(r.messageId) });"
        "headwater.identify('u-1'); window.made = headwater.track('Early'); window.at = Date.now();"
        "headwater.ready(function (h) { window.version = h.version })</script>")
    )  # fmt: skip
    page.wait_for_timeout(300)
    page.evaluate(
        "url => { const s = document.createElement('script'); s.src = url; document.head.append(s) }",
        collector.url + "/headwater.js",
    )
    result = page.evaluate("made")
    assert result["ok"]
    assert result["ms"] >= 300
    identify, early = collector.events
    assert (identify["userId"], early["userId"], early["event"]) == ("u-1", "u-1", "Early")
    made_at = page.evaluate("t => Math.abs(new Date(t) - window.at)", early["timestamp"])
    assert made_at < 100  # when it was called, not when the tag came
    assert page.evaluate("[version, seen.length]") == ["0.1.0", 2]


def test_calls_before_load_wait_for_it(site, collector, context) -> None:
    page = context.new_page()
    page.goto(site(attributes=""))
    page.evaluate("window.made = headwater.track('Early'); 0")
    assert page.evaluate("headwater.stats().waiting") == 1
    page.evaluate(f"headwater.load({{key: '{KEY}'}}); 0")
    assert page.evaluate("made")["ok"]


def test_script_that_is_loaded_twice_is_one_tag(shop, collector, context) -> None:
    page = context.new_page()
    tag = f'<script src="{collector.url}/headwater.js" data-key="{KEY}" data-auto-page></script>'
    page.goto(shop.page("/", tag + tag))
    page.evaluate("headwater.flush()")
    assert collector.received == {"page": 1}


def test_module_is_the_same_tag(shop, collector, context) -> None:
    page = context.new_page()
    page.goto(shop.page("/", ""))
    ok = page.evaluate(
        """async ([url, key]) => {
          const { load, track, stats, default: all } = await import(url + '/headwater.mjs')
          load({ key })
          const result = await track('From module')
          return result.ok && stats().acknowledged === 1 && all.user().anonymousId === headwater.user().anonymousId
        }""",
        [collector.url, KEY],
    )
    assert ok
    assert collector.accepted == {"From module": 1}


def test_element_with_the_id_headwater_does_no_harm(shop, collector, context) -> None:
    page = context.new_page()
    page.goto(
        shop.page(
            "/",
            f'<div id="headwater"></div><script src="{collector.url}/headwater.js" data-key="{KEY}"></script>',
        )
    )
    assert page.evaluate("headwater.track('x')")["ok"]


def test_snippet_of_the_guide_is_the_one_that_is_tested() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "browser-tag.md").read_text()
    assert " ".join(SNIPPET.split()) in " ".join(guide.split())
