"""Plans: what is to be done with every request that has this head, decided once.

A plan is either a fixed answer (files, preflights, refusals) or the way of a body into the log. Plans are found by what
decides, so heads that differ only in what does not (user agents, referrers, cookies, hops of proxies) share one;
bounded, and made anew after a reload. A request whose key stands in the body is *admitted* when the body has been
read; the admissions of a plan are remembered by key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from headwater.collect import cors, replies
from headwater.collect.admission import Admission, text
from headwater.collect.body import DECODERS
from headwater.collect.cors import Origins
from headwater.collect.keys import Key, KeyTable
from headwater.collect.parse import Head
from headwater.collect.routes import SETTINGS, Kind, Route, route_of
from headwater.collect.settings import CollectSettings
from headwater.collect.stats import Stats
from headwater.collect.tag import EVERYWHERE, TagFile
from headwater.dialects.envelope import Envelope
from headwater.dialects.pixel import without_key

PLANS_MAX = 4096
KEYS_PER_PLAN_MAX = 64
ROBOTS = b"User-agent: *\nDisallow: /\n"
HOST = re.compile(r"[A-Za-z0-9._\-\[\]:]{1,255}")


class Refused(Exception):
    """A request that is answered without being read further."""

    def __init__(self, status: int, code: str, reason: str, *, field: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.field = field


class Plan:
    """What is to be done. ``answer`` is set where nothing else is."""

    __slots__ = (
        "admission",
        "admissions",
        "answer",
        "chunked",
        "content_type",
        "dialect",
        "encoding",
        "envelope",
        "expect",
        "facts",
        "https",
        "keeping",
        "last",
        "lines",
        "method",
        "origin",
        "path",
        "pixel",
        "plain",
        "private",
        "query",
        "route",
        "tally",
    )

    def __init__(self, head: Head, route: Route, path: str, query: str) -> None:
        facts = head.facts
        connection = facts.get("connection", b"").lower()
        self.route = route
        self.method = head.method
        self.path = path
        self.query = query
        self.facts = facts
        self.https = head.https
        self.private = head.private
        self.origin = text(facts.get("origin", b""))
        self.last = b"close" in connection or (head.old and b"keep-alive" not in connection)
        self.keeping = head.old and not self.last
        self.chunked = "transfer-encoding" in facts
        self.expect = "expect" in facts and not head.old
        self.plain = not (self.last or self.keeping or self.chunked)
        self.encoding = text(facts.get("content-encoding", b"")).lower()
        self.dialect = route.dialect
        self.pixel = route.dialect == "pixel"
        self.content_type = text(facts.get("content-type", b""))
        self.lines = ""
        self.answer: bytes | None = None
        self.envelope: Envelope | None = None
        self.admission: Admission | None = None
        self.admissions: dict[str, Admission] = {}
        self.tally = [0]


class Planner:
    """Makes plans under one configuration."""

    def __init__(
        self,
        settings: CollectSettings,
        envelopes: Mapping[str, Envelope],
        files: Mapping[str, TagFile],
        stats: Stats,
    ) -> None:
        self.settings = settings
        self.envelopes = envelopes
        self.files = files
        self.stats = stats
        self.keys = KeyTable(b"")
        self.plans: dict[tuple[object, ...], Plan] = {}

    def use(self, keys: KeyTable) -> None:
        """Go on with these keys."""
        self.keys = keys
        self.plans = {}

    def plan(self, head: Head) -> tuple[Plan, bytes | None, bool]:
        """The plan of a head, the query where that is the body, and whether the head may be remembered."""
        target, _, query = head.target.partition(b"?")
        if target == b"/pixel.gif":
            secret, query = without_key(query)
            ident = (head.method, target, secret, head.old, head.private, head.https, *head.facts.items())
            return self.plans.get(ident) or self.make(ident, head, target, b"", secret), query, not query
        ident = (*head[:3], head.private, head.https, *head.facts.items())
        plan = self.plans.get(ident)
        if plan is None:
            secret, query = without_key(query)
            plan = self.make(ident, head, target, query, secret)
        return plan, None, True

    def make(self, ident: tuple[object, ...], head: Head, target: bytes, query: bytes, secret: bytes) -> Plan:
        path = target.decode("latin-1")
        if path.startswith(("http://", "https://")):
            path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"
        route, path = route_of(path)
        plan = Plan(head, route, path, query.decode("latin-1"))
        try:
            status, plan.answer = self.fill(plan, unquote(secret.decode("latin-1")))
        except Refused as refused:
            status = refused.status
            plan.answer = self.refusal(plan, refused)
        if plan.answer is not None and head.method == "HEAD":
            plan.answer = replies.without_body(plan.answer)
        plan.tally = self.stats.tally(route.name, status)
        if len(self.plans) >= PLANS_MAX:
            self.plans.clear()
        self.plans[ident] = plan
        return plan

    def refusal(self, plan: Plan, refused: Refused) -> bytes:
        lines = plan.lines
        if refused.status == 401:
            lines += 'WWW-Authenticate: Bearer realm="headwater"\r\n'
        if refused.status == 405:
            lines += f"Allow: {', '.join((*plan.route.methods, 'OPTIONS'))}\r\n"
        return replies.error(refused.status, refused.code, refused.reason, lines, field=refused.field)

    def fill(self, plan: Plan, secret: str) -> tuple[int, bytes | None]:
        """Decide; the status of the answer, and the answer where it is fixed."""
        route = plan.route
        if plan.expect and text(plan.facts["expect"]).lower() != "100-continue":
            raise Refused(417, "expectation", "expected Expect: 100-continue or none")
        if route.kind is Kind.NOTHING:
            raise Refused(404, "not_found", "no such path; events go to POST /v1/track, /v1/batch or /events")
        if plan.method == "OPTIONS":
            return self.preflight(plan, secret)
        if route.kind is not Kind.TAKE and plan.origin:
            plan.lines = EVERYWHERE
        if plan.method not in route.methods:
            raise Refused(
                405, "method_not_allowed", f"expected {' or '.join(route.methods)}, got {plan.method}"
            )
        if route.kind is Kind.TAKE:
            return self.taking(plan, secret)
        return self.fixed(plan)

    def fixed(self, plan: Plan) -> tuple[int, bytes | None]:
        kind = plan.route.kind
        if kind is Kind.TAG:
            return self.tag(plan)
        if kind is Kind.SETTINGS:
            return 200, self.segment_settings(plan)
        if kind is Kind.ROBOTS:
            return 200, replies.response(200, ROBOTS, plan.lines, "text/plain")
        if kind is Kind.METRICS:
            return 200, replies.response(200, b'{"ok":true,"success":true}', plan.lines)
        return 200, None  # /ping: what it says changes

    def tag(self, plan: Plan) -> tuple[int, bytes]:
        file = self.files.get(plan.path)
        if file is None:
            raise Refused(
                404, "not_found", "this version of the tag is not here; /headwater.js is the present one"
            )
        if file.packed is not None and "accept-encoding" in plan.facts:
            file = file.packed
        if file.etag.encode() in plan.facts.get("if-none-match", b""):
            return 304, replies.response(304, b"", file.lines)
        return 200, replies.response(200, file.body, file.lines, "text/javascript; charset=utf-8")

    def segment_settings(self, plan: Plan) -> bytes:
        """What @segment/analytics-next loads before it sends: where to send, and that there is nothing else."""
        match = SETTINGS.fullmatch(plan.path)
        assert match is not None
        secret = unquote(match[1])
        key = self.key(secret)
        lines = self.origin_lines(plan, key)
        host = text(plan.facts.get("host", b""))
        if not HOST.fullmatch(host):
            raise Refused(400, "bad_request", "expected the collector's address as Host", field="host")
        where = {"apiKey": secret, "apiHost": f"{host}/v1", "protocol": "https" if plan.https else "http"}
        said = {
            "integrations": {
                "Segment.io": {**where, "unbundledIntegrations": [], "addBundledMetadata": True}
            },
            "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
            "metrics": {"sampleRate": 0, "host": f"{host}/v1"},
            "analyticsNextEnabled": True,
            "legacyVideoPluginsEnabled": False,
            "remotePlugins": [],
        }
        return replies.response(
            200, msgspec.json.encode(said), lines + "Cache-Control: private, max-age=300\r\n"
        )

    def preflight(self, plan: Plan, secret: str) -> tuple[int, bytes]:
        """The answer to OPTIONS; a preflight does not name its key unless that stands in the query or the path."""
        allow = f"Allow: {', '.join((*plan.route.methods, 'OPTIONS'))}\r\n"
        if not plan.origin or "access-control-request-method" not in plan.facts:
            return 204, replies.response(204, b"", allow)
        plan.lines = "Vary: Origin\r\n"
        if plan.route.kind is not Kind.TAKE:
            rule: Origins | None = cors.EVERY_PAGE
        elif secret:
            key = self.key(secret)
            rule = key.origins if key.browser and key.origins.allow(plan.origin) else None
        else:
            rule = self.keys.allow_origin(plan.origin)
        if rule is None:
            raise Refused(403, "origin_not_allowed", f"no browser key allows the origin {plan.origin[:200]}")
        lines = cors.preflight_lines(rule, plan.origin, self.settings.preflight_max_age_s)
        return 204, replies.response(204, b"", lines)

    def taking(self, plan: Plan, secret: str) -> tuple[int, None]:
        """Prepare for events: reading, and the key when the head has one."""
        plan.envelope = self.envelopes[plan.route.dialect]
        if plan.origin:
            rule = self.keys.allow_origin(plan.origin)
            plan.lines = rule.lines(plan.origin) if rule is not None else "Vary: Origin\r\n"
        if plan.encoding in ("", "identity"):
            plan.encoding = ""
        elif plan.encoding not in DECODERS:
            wanted = ", ".join(DECODERS)
            raise Refused(415, "unsupported_encoding", f"expected Content-Encoding {wanted} or none")
        secret = key_in_head(plan.facts) or secret
        if secret:
            plan.admission = self.admit(plan, self.key(secret))
        return 200, None

    def key(self, secret: str) -> Key:
        found = self.keys.find(secret)
        if found is None:
            raise Refused(401, "unknown_key", "expected a write key of this collector, this one is not known")
        return found

    def origin_lines(self, plan: Plan, key: Key) -> str:
        """The CORS lines for a key; Refused where it may not be used from there."""
        if not key.browser:
            if plan.origin:
                plan.lines = "Vary: Origin\r\n"
                raise Refused(
                    403, "server_key_in_browser", "a server key must not be used in a browser (Origin header)"
                )
            return ""
        if not plan.origin:
            if key.require_origin:
                raise Refused(
                    403, "origin_required", "expected an Origin header with this key", field="origin"
                )
            return "Vary: Origin\r\n"
        if not key.origins.allow(plan.origin):
            plan.lines = "Vary: Origin\r\n"
            raise Refused(
                403,
                "origin_not_allowed",
                f"this key may not be used from {plan.origin[:200]}",
                field="origin",
            )
        return key.origins.lines(plan.origin)

    def admit(self, plan: Plan, key: Key) -> Admission:
        """Let a key in under this head. Refused: it may not be used from there."""
        found = plan.admissions.get(key.id)
        if found is None:
            found = Admission(plan, key, self.origin_lines(plan, key))
            if len(plan.admissions) < KEYS_PER_PLAN_MAX:
                plan.admissions[key.id] = found
        return found


def key_in_head(facts: Mapping[str, bytes]) -> str:
    """The key that the headers carry: Basic (user name), Bearer, or X-Write-Key; empty when there is none."""
    written = facts.get("x-write-key")
    authorization = facts.get("authorization")
    if authorization is None:
        return text(written or b"")
    scheme, _, value = authorization.partition(b" ")
    value = value.strip()
    if scheme.lower() == b"bearer":
        return text(value)
    if scheme.lower() != b"basic":
        raise Refused(401, "unknown_key", "expected Authorization Basic or Bearer with the write key")
    try:
        return text(base64.b64decode(value, validate=True)).partition(":")[0]
    except (binascii.Error, ValueError):
        raise Refused(401, "unknown_key", "expected base64 of `<write key>:` after Basic") from None
