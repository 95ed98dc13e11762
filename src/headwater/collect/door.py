"""The door: takes whole requests from connections, appends records, and answers when the log says so.

Per request that is good: the envelope is read, one record is appended, and one answer waits with its connection until
the block is durable. Nothing else is made. What is wrong goes the slow way, where every reason is spelled out.

What is refused with a valid key is appended too, as a record flagged DEAD, without waiting: dead letters are for
operators, and the client knows already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from headwater.collect import body as encodings
from headwater.collect import replies
from headwater.collect.address import Address, Proxies
from headwater.collect.address_hash import AddressHashes
from headwater.collect.admission import Admission
from headwater.collect.arrived import Arrivals
from headwater.collect.copied import Copied
from headwater.collect.heads import Entry, Heads
from headwater.collect.keys import KeyTable
from headwater.collect.owed import ANYWHERE, Further, Owed, Promise
from headwater.collect.plan import Plan, Planner, Refused
from headwater.collect.replies import Template
from headwater.collect.routes import READY
from headwater.collect.settings import CollectSettings
from headwater.collect.stats import Stats
from headwater.collect.tag import TagFile
from headwater.config.control import NOT_HELD, Held
from headwater.dialects.envelope import Limits, Refusal, Verdict
from headwater.dialects.registry import DIALECTS
from headwater.event.record import DEAD, SINGLE
from headwater.event.slots import NO_SLOT, PARTITIONS_DEFAULT
from headwater.kit.errors import Busy, HeadwaterError, Rejected

REFUSAL_TEXT_MAX = 200


class Waiter(Protocol):
    """A connection, as the door sees it."""

    at_ns: int
    """Boot time at which the last bytes of the request in hand came."""

    def answer(self, reply: bytes) -> None:
        """Send this now, or after the answers that are still owed."""

    def promise(self, reply: bytes, lines: str) -> None:
        """Send this when the log releases the connection; ``lines`` are for the refusal if it fails."""

    def released(self, error: HeadwaterError | None) -> None:
        """The oldest promise is kept, or broken by ``error``. Must not raise."""

    def address(self, policy: str, entry: Entry[Plan]) -> Address:
        """The client's address under a policy."""


class Log(Protocol):
    """What the door needs of the log (log/group.py)."""

    receipt_prefix: str
    pending_bytes: int
    pending_bytes_half: int

    def full(self) -> HeadwaterError | None: ...
    def append(
        self,
        received_ns: int,
        address: bytes,
        body: bytes,
        head: bytes,
        *,
        stream: str,
        events: int = 1,
        refused: Sequence[int] = (),
        slot: int = NO_SLOT,
        flags: int = 0,
        waiter: Waiter | Promise | None = None,
    ) -> int: ...


NO_COPIES = Busy("this node makes no copies", retry_after_s=2.0, code="not_enough_copies")
STOPPED = Busy("the node is stopping", retry_after_s=2.0, code="draining")
HELD_RETRY_S = 2.0


class Door:
    """All of a worker that is not a connection."""

    def __init__(
        self,
        settings: CollectSettings,
        keys: KeyTable,
        *,
        boot_ns: Callable[[], int],
        files: Mapping[str, TagFile],
        partitions: int = PARTITIONS_DEFAULT,
    ) -> None:
        self.settings = settings
        self.boot_ns = boot_ns
        self.partitions = partitions
        self.stats = Stats()
        limits = Limits(settings.batch_events_max, settings.event_bytes_max, settings.id_length_max)
        envelopes = {name: dialect.envelope(limits) for name, dialect in DIALECTS.items()}
        self.planner = Planner(settings, envelopes, files, self.stats)
        self.planner.use(keys)
        self.heads: Heads[Plan] = Heads(self.planner.plan, bytes_max=settings.head_cache_bytes_max)
        self.proxies = Proxies(settings.trusted_proxies, settings.forwarded_headers)
        self.hashes = AddressHashes(None)
        self.header_bytes_max = settings.header_bytes_max
        self.body_bytes_max = settings.body_bytes_max
        self.header_deadline_ns = int(settings.header_deadline_s * 1e9)
        self.body_deadline_ns = int(settings.body_deadline_s * 1e9)
        self.idle_deadline_ns = int(settings.idle_deadline_s * 1e9)
        self.held_bytes = 0
        """Bytes of incomplete requests over all connections."""
        self.offset_ns = 0
        self.leaving = False
        """Draining: /ping says so, answers end their connections, everything else is served."""
        self.stopped = False
        """Nothing is accepted any more."""
        self.held: HeadwaterError | None = None
        """Why nothing is accepted for now (too few nodes of the cluster see each other)."""
        self.held_as = NOT_HELD
        self.copied: Copied | None = None
        """Who waits for other nodes; None on a node that has none."""
        self.arrivals = Arrivals(
            boot_ns,
            partitions=partitions,
            timeout_s=settings.delivered_timeout_s,
            waiting_max=settings.connections_max,
        )
        self.owed = Owed()
        self.owing = self.owed.by_waiter
        self.log: Log
        self.receipt_prefix = ""

    def open(self, log: Log) -> None:
        """Append to this log from now on."""
        self.log = log
        self.receipt_prefix = log.receipt_prefix

    def use(self, keys: KeyTable) -> None:
        """Go on with other keys; requests that have begun keep the old ones."""
        self.planner.use(keys)
        self.heads.clear()

    def hash_with(self, salt: bytes | None) -> None:
        """Hash addresses with this salt from now on; None: keep none where a hash is wanted."""
        if salt != self.hashes.salt:
            self.hashes = AddressHashes(salt)

    def release(self, waiters: Iterable[Waiter | Promise], error: HeadwaterError | None) -> None:
        """The log's word on a block. Connections guard their own writes, so that the commit goes on."""
        for waiter in waiters:
            waiter.released(error)

    def handle(self, waiter: Waiter, entry: Entry[Plan], body: bytes) -> None:
        """A whole request: append and promise an answer, or answer."""
        plan = entry.plan
        if plan.answer is not None:
            plan.tally[0] += 1
            waiter.answer(plan.answer)
        elif plan.envelope is not None:
            self.take(waiter, entry, plan, body)
        else:
            self.answer_ping(waiter, plan)

    def answer_ping(self, waiter: Waiter, plan: Plan) -> None:
        """`/ping` says whether it is to be used; `/ready` also whether events would be taken at this moment."""
        busy: HeadwaterError | None = STOPPED if self.leaving or self.stopped else None
        if busy is None and plan.path == READY:
            busy = self.held or self.log.full()
        lines = plan.lines + "Cache-Control: no-store\r\n"
        if busy is not None:
            reply = replies.unavailable(busy, lines)
        else:
            reply = replies.response(200, b'{"ok":true}', lines)
        self.stats.count(plan.route.name, 200 if busy is None else 503)
        waiter.answer(replies.without_body(reply) if plan.method == "HEAD" else reply)

    def hold(self, held: Held) -> None:
        """Take nothing while ``held`` says why; asked every 50 ms."""
        if held != self.held_as:
            self.held_as = held
            self.held = (
                Busy(held.text, retry_after_s=HELD_RETRY_S, code="not_enough_nodes") if held.text else None
            )

    def take(self, waiter: Waiter, entry: Entry[Plan], plan: Plan, body: bytes) -> None:
        """A request with events."""
        log = self.log
        busy = STOPPED if self.stopped else self.held or log.full()
        if busy is not None or plan.method == "HEAD":
            return self.not_taken(waiter, plan, busy)
        if entry.query is not None:
            body = entry.query
        elif plan.encoding:
            try:
                body = encodings.decode(plan.encoding, body, self.settings.decompressed_bytes_max)
            except Rejected as rejected:
                return self.refuse_encoding(waiter, entry, plan, rejected)
        self.stats.body_bytes += len(body)
        assert plan.envelope is not None
        verdict = plan.envelope(body, plan.path)
        admission = plan.admission
        if admission is None:
            try:
                admission = self.admit(plan, verdict)
            except Refused as refused:
                return self.refuse(waiter, plan, refused)
        if admission.beyond and (short := self.short(admission)) is not None:
            return self.not_taken(waiter, plan, short)
        now = waiter.at_ns
        if admission.quota is not None:
            wait_s = admission.quota.wait_s(now)
            if wait_s:
                return self.over_quota(waiter, plan, admission, wait_s)
            admission.quota.spend(verdict.events)
        if verdict.refused or admission.drop:
            return self.take_part(waiter, entry, plan, admission, verdict, now)
        packed, flags = waiter.address(admission.policy, entry)
        waits = admission.waits or log.pending_bytes > log.pending_bytes_half
        promise = None
        if admission.beyond or self.owing:
            promise = self.promise(waiter, admission, waits)
        seq = log.append(
            now + self.offset_ns,
            packed,
            verdict.body,
            entry.record if entry.record_of is admission else admission.record(entry),
            stream=admission.stream,
            events=verdict.events,
            slot=verdict.slot,
            flags=flags | admission.flags | SINGLE if verdict.single else flags | admission.flags,
            waiter=promise or (waiter if waits else None),
        )
        if promise is not None:
            promise.seq = seq
            promise.partition = self.partition(verdict)
        stats = self.stats
        stats.accepted_events += verdict.events
        plan.tally[0] += 1
        template = admission.template
        if verdict.events != 1:
            receipt = f"{self.receipt_prefix}{seq}"
            reply = replies.accepted(
                verdict.events, admission.ack, receipt, admission.lines, success=plan.route.success
            )
        else:
            if template is None or seq >= template.limit:
                template = self.template(plan, admission, seq)
            reply = template.before + b"%d" % seq + template.after
        if waits:
            waiter.promise(reply, admission.lines)
        else:
            waiter.answer(reply)

    def further(self, admission: Admission) -> Further | None:
        """What a key waits for beyond this disk; None where there is no such thing."""
        return self.copied if admission.ack == "replicated" else self.arrivals.of(admission.key.destination)

    def short(self, admission: Admission) -> HeadwaterError | None:
        """Why nothing can be acknowledged at the level of this key now."""
        further = self.further(admission)
        return further.short() if further is not None else NO_COPIES

    def promise(self, waiter: Waiter, admission: Admission, waits: bool) -> Promise | None:
        """Who waits in place of the connection, where its answer waits for more than this disk, or stands behind one
        that does."""
        if admission.beyond:
            return self.owed.promise(waiter, self.further(admission))
        return self.owed.promise(waiter, None) if waits and waiter in self.owing else None

    def partition(self, verdict: Verdict) -> int:
        """The partition of an event; ANYWHERE for several, or where its slot is only known later."""
        alone = verdict.single and verdict.slot != NO_SLOT
        return verdict.slot % self.partitions if alone else ANYWHERE

    def template(self, plan: Plan, admission: Admission, seq: int) -> Template:
        """The answer to one event, made anew each time that its number has one digit more."""
        receipt = f"{self.receipt_prefix}{seq}"
        if plan.pixel:
            sample = replies.pixel(receipt, admission.lines)
        else:
            sample = replies.accepted(1, admission.ack, receipt, admission.lines, success=plan.route.success)
        admission.template = Template(sample, receipt)
        return admission.template

    def admit(self, plan: Plan, verdict: Verdict) -> Admission:
        """By the key in the body."""
        secret = verdict.write_key
        if secret is None:
            if verdict.refused and verdict.events == len(verdict.refused):
                first = verdict.refused[0]
                raise Refused(
                    400, "bad_events", f"no write key could be read: {first.reason}", field=first.field
                )
            raise Refused(401, "no_key", KEY_EXPECTED)
        return self.planner.admit(plan, self.planner.key(secret))

    def take_part(
        self,
        waiter: Waiter,
        entry: Entry[Plan],
        plan: Plan,
        admission: Admission,
        verdict: Verdict,
        now: int,
    ) -> None:
        """A request of which only some events are good, or none, or whose visitor wants nothing to be kept."""
        refused = verdict.refused
        good = verdict.events - len(refused)
        for refusal in refused:
            self.stats.refuse(refusal.field or "body")
        self.stats.refused_events += len(refused)
        if admission.drop:
            self.stats.dropped_events += good
            return self.reply(waiter, plan, admission, 0, "", refused)
        if not good:
            self.bury(waiter, entry, plan, admission, verdict.body, refused, now)
            self.stats.count(plan.route.name, 400)
            reason = refused[0].reason if len(refused) == 1 else f"all {len(refused)} events were refused"
            reply = replies.error(
                400, "bad_events", reason, admission.lines, field=refused[0].field, refused=refused
            )
            return waiter.answer(reply)
        packed, flags = waiter.address(admission.policy, entry)
        waits = admission.waits or self.log.pending_bytes > self.log.pending_bytes_half
        promise = self.promise(waiter, admission, waits)
        seq = self.log.append(
            now + self.offset_ns,
            packed,
            verdict.body,
            admission.record(entry),
            stream=admission.stream,
            events=verdict.events,
            refused=[refusal.index for refusal in refused],
            flags=flags | admission.flags,
            waiter=promise or (waiter if waits else None),
        )
        if promise is not None:
            promise.seq = seq
        self.stats.accepted_events += good
        self.reply(waiter, plan, admission, good, f"{self.receipt_prefix}{seq}", refused, waits=waits)

    def reply(
        self,
        waiter: Waiter,
        plan: Plan,
        admission: Admission,
        good: int,
        receipt: str,
        refused: Sequence[Refusal],
        *,
        waits: bool = False,
    ) -> None:
        """Acknowledge ``good`` events; at once when nothing was appended that anybody waits for."""
        self.stats.count(plan.route.name, 200)
        if plan.pixel:
            reply = replies.pixel(receipt, admission.lines)
        else:
            reply = replies.accepted(
                good, admission.ack, receipt, admission.lines, success=plan.route.success, refused=refused
            )
        if waits:
            waiter.promise(reply, admission.lines)
        else:
            waiter.answer(reply)

    def bury(
        self,
        waiter: Waiter,
        entry: Entry[Plan],
        plan: Plan,
        admission: Admission,
        body: bytes,
        refused: Sequence[Refusal],
        now: int,
    ) -> None:
        """Keep what was refused whole as dead letters."""
        packed, flags = waiter.address(admission.policy, entry)
        first = refused[0]
        reason = f"{first.reason[:REFUSAL_TEXT_MAX].replace('|', '/')}|{first.field}"
        self.log.append(
            now + self.offset_ns,
            packed,
            body,
            admission.encode(entry.kept, reason),
            stream=admission.stream,
            events=len(refused),
            flags=flags | admission.flags | DEAD,
        )

    def not_taken(self, waiter: Waiter, plan: Plan, busy: HeadwaterError | None) -> None:
        """HEAD of the pixel, or no room."""
        if busy is None:
            self.stats.count(plan.route.name, 200)
            return waiter.answer(replies.without_body(replies.pixel("", plan.lines)))
        self.stats.count(plan.route.name, 503)
        self.stats.refuse(busy.code)
        reply = replies.unavailable(busy, plan.lines)
        waiter.answer(replies.without_body(reply) if plan.method == "HEAD" else reply)

    def refuse(self, waiter: Waiter, plan: Plan, refused: Refused) -> None:
        self.stats.count(plan.route.name, refused.status)
        self.stats.refuse(refused.code)
        waiter.answer(self.planner.refusal(plan, refused))

    def refuse_encoding(self, waiter: Waiter, entry: Entry[Plan], plan: Plan, rejected: Rejected) -> None:
        """The body could not be decoded; a dead letter when the key is known."""
        status = 413 if rejected.code == "body_too_large" else 400
        if plan.admission is not None:
            refusal = (Refusal(0, rejected.message),)
            self.bury(waiter, entry, plan, plan.admission, b"", refusal, waiter.at_ns)
        self.refuse(waiter, plan, Refused(status, rejected.code, rejected.message))

    def over_quota(self, waiter: Waiter, plan: Plan, admission: Admission, wait_s: int) -> None:
        self.stats.count(plan.route.name, 429)
        self.stats.refuse("quota")
        reason = f"the key {admission.stream} has used up its events per second; try again in {wait_s} s"
        waiter.answer(replies.error(429, "quota", reason, admission.lines, retry_after_s=wait_s))


KEY_EXPECTED = (
    "expected a write key: Authorization Basic or Bearer, X-Write-Key, `writeKey` in the body, "
    "or `key` in the query"
)
