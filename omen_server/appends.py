"""Events on their way into the ledger and on to RiskCast, and the request that waits for what becomes of them.

A request has one future and one timer, however many events it carries.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from contract.errors import ContractError
from ledger import Position
from omen.v1 import signal_service_pb2 as pb
from omen_server.outcome import Outcome

TWINS_MANY = 256  # of one record: more than a client's calls at once

Place = tuple[bytes, int]  # segment_id, record index
Answer = Outcome | ContractError


class Request:
    """Events that were emitted together. `answers` tells what became of each, in order, once `answered` returns."""

    def __init__(self, count: int, *, waits_for_riskcast: bool) -> None:
        self.answers: list[Answer | None] = [None] * count
        self.waits_for_riskcast = waits_for_riskcast
        self._left = count
        self._all_answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._durable: list[Append] = []
        self._maybe_gave_up: str | None = None

    async def answered(self, maybe_timeout_s: float | None) -> list[Answer]:
        """Every answer, in order. After the time those that are durable are LEDGER_ONLY; the others still take what
        the ledger takes. Cancelling it changes nothing for the records."""
        loop = asyncio.get_running_loop()
        timer = (
            loop.call_later(maybe_timeout_s, self._give_up, maybe_timeout_s) if maybe_timeout_s is not None else None
        )
        try:
            await self._all_answered
        finally:
            if timer:
                timer.cancel()
        return [answer for answer in self.answers if answer is not None]

    def answer(self, index: int, answer: Answer) -> None:
        """The first answer for an event stands."""
        if self.answers[index] is None:
            self.answers[index] = answer
            self._left -= 1
            if not self._left and not self._all_answered.done():
                self._all_answered.set_result(None)

    def became_durable(self, append: "Append") -> None:
        if self._maybe_gave_up is None and self.waits_for_riskcast:
            self._durable.append(append)
        else:
            self.answer(append.index, append.ledger_only(self._maybe_gave_up or ""))

    def _give_up(self, timeout_s: float) -> None:
        self._maybe_gave_up = f"RiskCast did not answer within {timeout_s:g} s"
        for append in self._durable:
            self.answer(append.index, append.ledger_only(self._maybe_gave_up))


@dataclass(slots=True, eq=False)
class Append:
    """One event of a request. `position` is set once it is durable.

    `twins` are repeats of it that were emitted meanwhile; whoever waited for `maybe_stands_for`, which met a conflict,
    waits for this one. All of them are answered with it.
    """

    payload: bytes
    emitted_at: datetime
    signal_id: str
    input_event_hash: str
    request: Request
    index: int = 0
    position: Position | None = None
    maybe_stands_for: "Append | None" = None
    twins: "list[Append]" = field(default_factory=list)

    @property
    def waits_for_riskcast(self) -> bool:
        return self.request.waits_for_riskcast or self.maybe_stands_for is not None

    @property
    def is_answered(self) -> bool:
        """Whether nobody waits any more."""
        others = (*self.twins, self.maybe_stands_for) if self.maybe_stands_for else self.twins
        return self.request.answers[self.index] is not None and all(other.is_answered for other in others)

    def became_durable(self, position: Position) -> None:
        self.position = position
        self.request.became_durable(self)

    def add_twin(self, twin: "Append") -> None:
        """Those whose callers have gone are forgotten when there are many."""
        if len(self.twins) >= TWINS_MANY:
            self.twins = [each for each in self.twins if not each.is_answered]
        self.twins.append(twin)

    def answer(self, answer: Answer) -> None:
        self.request.answer(self.index, answer)
        if self.maybe_stands_for is not None:
            self.maybe_stands_for.answer(self.maybe_stands_for.told_by(answer))
        for twin in self.twins:
            twin.answer(repeated(answer))

    def told_by(self, answer: Answer) -> Answer:
        """What becomes of one that is durable when the one that stands for it is answered so: it is in the ledger, also
        when the ledger did not take the other."""
        if isinstance(answer, ContractError):
            return self.ledger_only(f"another signal has its id, and it is to be emitted again: {answer.reason}")
        return answer

    def ledger_only(self, reason: str) -> Outcome:
        """Of one that is durable."""
        assert self.position is not None
        return Outcome(pb.EMISSION_STATUS_LEDGER_ONLY, self.position, self.signal_id, ledger_only_reason=reason)


def repeated(answer: Answer) -> Answer:
    """What a repeat is told of the same record: of all emits of a signal one is DELIVERED."""
    if isinstance(answer, Outcome) and answer.status == pb.EMISSION_STATUS_DELIVERED:
        return answer._replace(status=pb.EMISSION_STATUS_DUPLICATE)
    return answer


def place_of(position: Position) -> Place:
    return position.segment_id, position.record_index
