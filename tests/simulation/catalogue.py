"""The events that simulations are about: made once, and read once, for all seeds."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from random import Random

from google.protobuf.message import DecodeError, Message

from contract.errors import ContractError, timestamp
from contract.identity import identity_of_event
from contract.limits import SIGNAL_ID_DIGITS_RETRY
from contract.validation import EVENT, Violation, check_fields, check_ids
from omen.v1.signal_event_pb2 import SignalEvent
from tests.riskcast_server.events import NOON, event, with_long_id

# Numbers whose events differ and share the first 48 bits of their digests. Found by trying 100,000,000.
COLLIDING = (
    (10148970, 26116960),
    (73914400, 90661688),
    (42164491, 84717379),
    (69300342, 81686357),
    (928597, 25453565),
    (30881494, 62181678),
    (904425, 57577554),
    (25749360, 92989553),
    (21360389, 47334691),
    (9929766, 57940237),
    (8212847, 26239618),
    (51778789, 96071050),
)

GARBAGE = b"\xff not an event"
DAYS_AGO = (0, 0, 0, 1, 2)  # of emission
CLOSED_DAYS_AGO = 20
TITLES = ("Will the strait be closed?", "Will the strait stay closed?")


@dataclass(frozen=True, slots=True)
class Said:
    """What the bytes of a record say. `signal_id` is "" where they are no valid event."""

    signal_id: str
    wide_id: str
    input_event_hash: str

    @property
    def ids(self) -> tuple[str, ...]:
        """Under which the event may be stored."""
        return tuple(dict.fromkeys([self.signal_id, self.wide_id])) if self.signal_id else ()

    @property
    def name(self) -> str:
        """Tells events with the same id apart; "" where there is none."""
        return f"{self.signal_id} {self.input_event_hash[-8:]}".strip()


@cache
def said(payload: bytes) -> Said:
    parsed = SignalEvent()
    try:
        parsed.ParseFromString(payload)
        check_fields(parsed, len(payload))
        check_ids(parsed)
    except (DecodeError, ContractError):
        return Said("", "", "")
    wide_id = identity_of_event(parsed).signal_id_of(SIGNAL_ID_DIGITS_RETRY)
    return Said(parsed.signal_id, wide_id, parsed.input_event_hash)


ANY_VIOLATIONS = EVENT.violations


@cache
def _violations(payload: bytes) -> list[Violation]:
    return ANY_VIOLATIONS(SignalEvent.FromString(payload))


def violations(event: Message) -> list[Violation]:
    """What is wrong with an event, found out once: there are a few hundred, and each goes through many doors."""
    return [*_violations(event.SerializeToString(deterministic=True))]


@cache
def payload_of(number: int, title: str = TITLES[0], days_ago: int = 0) -> bytes:
    made = event(number, title=title)
    made.emitted_at.CopyFrom(timestamp(NOON - timedelta(days=days_ago)))
    return made.SerializeToString()


@cache
def widened(payload: bytes) -> bytes:
    """The same event under 32 digits, as OMEN emits it after a conflict."""
    return with_long_id(SignalEvent.FromString(payload), SIGNAL_ID_DIGITS_RETRY).SerializeToString()


@cache
def impossible(number: int) -> bytes:
    """A record that no door lets in."""
    made = event(number)
    made.signal.probability = 7.0
    return made.SerializeToString()


class Catalogue:
    """Chooses what is emitted next: something new, something again, something that looks like something else."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._count = 0
        self._colliding = [number for pair in chance.sample(COLLIDING, 4) for number in pair]

    def valid(self) -> bytes:
        match self._chance.randrange(10):
            case 0:
                return payload_of(self._old(), days_ago=self._days_ago())
            case 1:
                return payload_of(self._old(), TITLES[1])
            case 2:
                return payload_of(self._chance.choice(self._colliding))
            case _:
                return self.fresh()

    def fresh(self) -> bytes:
        self._count += 1
        return payload_of(self._count, days_ago=self._days_ago())

    def invalid(self) -> bytes:
        return self._chance.choice([GARBAGE, impossible(self._old())])

    def closed(self) -> bytes:
        """Of a day that takes nothing any more."""
        return payload_of(self._old(), days_ago=CLOSED_DAYS_AGO)

    def _days_ago(self) -> int:
        return self._chance.choice(DAYS_AGO)

    def _old(self) -> int:
        return self._chance.randint(1, max(1, self._count))
