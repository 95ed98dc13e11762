"""Who is not a person: the reason for which a user agent counts as a bot.

Reasons, the first that holds:

1. `empty_user_agent`: sent, but empty or blank.
2. `crawler:<pattern>`: a pattern of crawler-user-agents (1,500 names, kept by its own project), or of the
   settings. The first of the list that matches, with regex backslashes taken out: `crawler:Googlebot/`.
3. `headless`: a browser that a program drives (HeadlessChrome, PhantomJS, Playwright …).
4. `library`: an HTTP client or a language's default agent (curl, python-requests, Go-http-client …).

Patterns of the package that mean a headless browser or a library are filed under 3 and 4, so that a crawler
which runs on HeadlessChrome keeps its own name.  All patterns are one google-re2 Set: linear time, one pass,
whatever the user agent holds.

A user agent that is *unknown* (null) is no bot: a server event need not carry one.  A caller that knows that
a browser should have sent one gives the empty string.  For server keys judge `context.userAgent` (the
visitor), not the header of the library that sent it.
"""

from __future__ import annotations

import re

import re2

from headwater.process.enrich.settings import UserAgentSettings

HEADLESS = (
    "HeadlessChrome",
    "Headless",
    "PhantomJS",
    "SlimerJS",
    "Playwright",
    "Puppeteer",
    "Selenium",
    "Cypress/",
    "jsdom/",
    "HtmlUnit",
    "Splash",
    "Nightmare",
)
"""Texts in the user agent of a browser driven by a program."""

LIBRARIES = (
    "^curl",
    "[wW]get",
    "^PHP-Curl-Class",
    "^PHP/",
    "GuzzleHttp",
    "Python-urllib",
    "python-requests",
    "python-httpx",
    "^Python/",
    "aiohttp",
    "httpx",
    "libwww-perl",
    "^lwp-",
    "^Java/",
    "^Java-http-client",
    "Apache-HttpClient",
    "Apache-HttpAsyncClient",
    "HttpUrlConnection",
    "CustomAsyncHttpClient",
    "^AHC/",
    "Jetty",
    "Go-http-client",
    "^go-resty",
    "^fasthttp",
    "axios",
    "node-fetch",
    "^node-superagent",
    "^node$",
    "^undici",
    "^got ",
    "^Deno/",
    "^Bun/",
    "^Ruby",
    "^Faraday",
    "^rest-client",
    "^HTTPie/",
    "^PostmanRuntime",
    "^insomnia/",
    "^reqwest",
    "^hyper/",
    "^Dart/",
    "^WinHttp",
    "WindowsPowerShell",
    "^Microsoft URL Control",
    "Indy Library",
    "[mM]echanize",
    "^ApacheBench",
    "^k6/",
    "^hey/",
    "^Apache-JMeter",
    "^Gatling",
    "^Vegeta",
)
"""RE2 patterns of HTTP clients."""


class Bots:
    """Compiled patterns; `reason` is a pure function of the user agent."""

    def __init__(self, settings: UserAgentSettings) -> None:
        """Raises re2.error where a pattern of the settings is no RE2 expression (Misconfigured to the
        caller)."""
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        self._set = re2.Set.SearchSet(options)
        self._reasons: list[str] = []
        filed_elsewhere = {_bare(pattern) for pattern in (*HEADLESS, *LIBRARIES)}
        for pattern in settings.bot_patterns:
            self._add(pattern, f"crawler:{_unescaped(pattern)}")
        for pattern in crawler_patterns():
            if pattern not in settings.bot_patterns_off and _bare(pattern) not in filed_elsewhere:
                self._add(pattern, f"crawler:{_unescaped(pattern)}")
        for pattern in HEADLESS:
            self._add(pattern, "headless")
        for pattern in LIBRARIES:
            self._add(pattern, "library")
        self._set.Compile()

    def reason(self, user_agent: str | None) -> str | None:
        """Why this is a bot, or None."""
        if user_agent is None:
            return None
        if not user_agent.strip():
            return "empty_user_agent"
        matches: list[int] | None = self._set.Match(user_agent.encode("utf-8", "replace"))
        if not matches:
            return None
        return self._reasons[min(matches)]  # added in the order in which they count

    def _add(self, pattern: str, reason: str) -> None:
        self._set.Add(pattern)
        self._reasons.append(reason)


def crawler_patterns() -> tuple[str, ...]:
    """The patterns of crawler-user-agents, in its order."""
    from crawleruseragents import CRAWLER_USER_AGENTS_DATA

    return tuple(entry["pattern"] for entry in CRAWLER_USER_AGENTS_DATA)


def _unescaped(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern)


def _bare(pattern: str) -> str:
    return _unescaped(pattern).lstrip("^")
