"""Bugs that OMEN's delivery could have (tests/mutation.py lets them in)."""

from tests.mutation import Mutants

BACKLOG = "omen_server.delivery.backlog"
BREAKER = "omen_server.delivery.breaker"
CONTACT = "omen_server.delivery.contact"
EMISSION = "omen_server.emission"
FOLLOW = "omen_server.delivery.follow"
NEWEST = "omen_server.delivery.newest"
SENDING = "omen_server.delivery.sending"
SETTLING = "omen_server.delivery.settling"
STREAM = "omen_server.delivery.stream"
APPENDS = "omen_server.appends"

MUTANTS: Mutants = {
    "settled as soon as it is sent": (
        (BACKLOG, "        self._sent.append(([run for _, run in self._composed], self._composed_bytes))\n", ""),
        (BACKLOG, "        self._sent.popleft()\n", "        pass\n"),
    ),
    "repeats answered before the fsync": (  # with the place that comes to mind
        (EMISSION, "        return append if recent is None or not self._repeats(append, recent) else None\n",
                   "        if recent is None:\n"
                   "            self._recent.enter(append, Position('2026-01-29', bytes(16), 1 << 32 | 1))\n"
                   "        return append if recent is None or not self._repeats(append, recent) else None\n"),
        (EMISSION, "from ledger import Position\n", "from ledger import Position as Position\n"),
    ),
    "nothing of an older process sent": (  # what the ledger holds is taken for settled
        (FOLLOW, "        backlog = Backlog(self._segments.values(), settled, ",
                 "        settled = {s.segment_id: Coverage.up_to(s.record_count) for s in self._segments.values()}\n"
                 "        backlog = Backlog(self._segments.values(), settled, "),
    ),
    "sent again from memory alone": (
        (SENDING, "            records = await self._stream.read(run, room_bytes)\n", ""),
    ),
    "in-flight records forgotten on a break": (  # what was sent is taken for settled in the next hello
        (FOLLOW, "        backlog = Backlog(self._segments.values(), settled, ",
                 "        for run in self._maybe_backlog._under_way() if self._maybe_backlog else ():\n"
                 "            known = settled.get(run.segment.segment_id, NOTHING)\n"
                 "            settled[run.segment.segment_id] = known | Coverage.spanning([(run.first, run.last)])\n"
                 "        backlog = Backlog(self._segments.values(), settled, "),
    ),
    "delivered without an ack_id": (
        (SETTLING, "            append.answer(Outcome(status, record.position, append.signal_id, ack_id))\n",
                   "            append.answer(Outcome(status, record.position, append.signal_id, ''))\n"),
    ),
    "every repeat delivered": (
        (APPENDS, "            twin.answer(repeated(answer))\n", "            twin.answer(answer)\n"),
    ),
    "conflict swallowed": (  # neither emitted again nor told
        (SETTLING, "        requests = [self._emit_again(*each) for each in again"
                   " if not await self._is_emitted_again(*each)]\n",
                   "        requests: list[Request] = []\n"),
    ),
    "old records starve new ones": (
        (BACKLOG, "        self._turns = deque([self._new, self._old])\n",
                  "        self._turns = deque([self._old, self._new])\n"),
        (BACKLOG, "        self._turns.rotate()\n", ""),
    ),
    "breaker never half open": (
        (CONTACT, "            await first_of(self._ready_again(),"
                  " asyncio.sleep(self._breaker.remaining_s(self._clock())))\n",
                  "            await asyncio.sleep(3600)\n"),
    ),
    "breaker never open": (
        (BREAKER, "    (State.CLOSED, Event.FAILED_TOO_OFTEN): State.OPEN,\n",
                  "    (State.CLOSED, Event.FAILED_TOO_OFTEN): State.CLOSED,\n"),
        (CONTACT, "        await asyncio.sleep(self._policy.delay_s(self.failures, self._jitter,"
                  " max(delay_s, asked_for_s)))\n",
                  "        await asyncio.sleep(max(0.1, delay_s))\n"),
    ),
    "newest records taken for others": (  # of a segment, the next one's
        (NEWEST, "            place = run.segment.segment_id, index\n",
                 "            place = next(iter(self._records), (b'', 0)) if self._records else (b'', 0)\n"),
    ),
    "dead letter not written": (
        (SETTLING, "        await self._letters.record(Rejected(record.position, result.error, at)"
                   " for record, result in rejected)\n", "        del at\n"),
    ),
    "answers taken for those of another message": (
        (STREAM, "        records = self._in_flight.popleft()\n", "        records = self._in_flight.pop()\n"),
    ),
    "what cannot be read taken again for ever": (
        (BACKLOG, "        queue, run = self._composed.pop()\n        queue.left(run.segment, run.count, 0)\n",
                  "        queue, run = self._composed.pop()\n        queue.give_back(run)\n"),
    ),
    "silence waited out": (
        (STREAM, "self._waiting_since_s + ANSWER_TIMEOUT_S - ", "self._waiting_since_s + 3600 - "),
    ),
}  # fmt: skip
