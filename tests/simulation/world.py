"""What all actors of a simulation share: one source of chance, one clock, one list of what happened."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Any

import structlog

from tests.riskcast_server.events import NOON


class Fault(StrEnum):
    """Every named point at which something can go wrong."""

    # the disk under RiskCast's database
    LOCKED = "another process has the database"
    FULL = "the disk is full"
    UNREADABLE = "a read fails"
    MALFORMED = "the database seems corrupt"
    COMMIT_FAILED = "a commit fails"
    COMMIT_UNKNOWN = "a commit fails after it took effect"
    NOT_OPENED = "the database cannot be opened"
    # the network
    REQUEST_LOST = "a request is lost"
    RESPONSE_LOST = "a response is lost after the work was done"
    REQUEST_LATE = "a request is delivered after its retry was answered"
    CLIENT_LEFT = "a client leaves in the middle of its call"
    STREAM_CUT = "a stream breaks between two messages"
    RECONCILE_CUT = "a run of Reconcile is cut between two messages"
    SILENT = "a stream of delivery goes silent"
    OUTAGE = "nothing gets through to RiskCast for a while"
    KEY_REFUSED = "RiskCast refuses OMEN's key"
    UNBEARABLE = "a record meets a bug of RiskCast, which ends each stream that brings it"
    EMITTER_LEFT = "whoever emits leaves before the answer"
    # the disk under a ledger
    SYNC_FAILED = "a sync of the ledger fails, and what it was to keep is lost"
    WRITE_FAILED = "a write of the ledger fails"
    WRITE_SHORT = "the ledger's disk takes half of a write"
    NO_SPACE = "the ledger's disk is full"
    READ_FAILED = "a read of the ledger fails"
    DIED_BEFORE_SYNC = "OMEN dies between a write and its sync"
    DIED_BEFORE_ANSWER = "OMEN dies between a sync and the answers"
    # a ledger, as Reconcile sees it
    LEDGER_UNREACHABLE = "a ledger cannot be reached"
    LEDGER_SILENT = "a ledger does not answer about a partition"
    REPLAY_BROKEN = "a replay breaks off"
    # the machines, and people who mean well
    CRASH = "RiskCast dies"
    OMEN_KILLED = "OMEN dies"
    POWER_CUT = "OMEN's machine loses power"
    BOTH_DIED = "OMEN's machine loses power and RiskCast dies"
    OMEN_STOPPED = "OMEN is stopped and started"
    PAUSED = "an operator pauses delivery for a while"
    ROWS_DELETED = "rows are deleted behind RiskCast's back"
    SETTLEMENTS_DELETED = "settlements are deleted behind its back"
    COVERAGE_DELETED = "coverage is deleted behind its back"
    COVERAGE_GARBLED = "coverage claims what is not settled"
    RESTORED_STOPPED = "an older copy of the database is put in its place, with RiskCast stopped"
    RESTORED_RUNNING = "an older copy of the database is put in its place while RiskCast runs"
    RECORD_DAMAGED = "a record of a ledger becomes unreadable"
    LEDGER_REGRESSED = "a ledger is restored from an older copy"


class Sight(StrEnum):
    """What must be seen sometimes, or the simulation proves less than it seems to."""

    STORED = "answered: stored"
    DUPLICATE = "answered: duplicate"
    CONFLICT = "answered: conflict"
    REJECTED = "answered: rejected"
    EMITTED_DELIVERED = "an emit was answered: delivered"
    EMITTED_DUPLICATE = "an emit was answered: duplicate"
    EMITTED_LEDGER_ONLY = "an emit was answered: in the ledger alone"
    EMITTED_REFUSED = "an emit was refused"
    EMITTED_UNKNOWN = "an emit was answered: outcome unknown"
    EMITTED_WIDE = "an emit was answered under a wider id"
    EMITTED_AGAIN = "a signal that met a conflict was emitted again"
    DEAD_LETTER = "a record was rejected and listed"
    REDRIVEN = "a dead letter was redriven"
    PAUSED_ITSELF = "delivery paused by itself"
    BREAKER_OPENED = "the breaker opened"
    BREAKER_CLOSED = "the breaker closed again"
    HELD = "delivery was held until people mend something"
    KEPT_APART = "a record that ends every stream was found"
    TAIL_TORN = "a torn tail was cut off"
    SEALED = "a partition was sealed"
    QUEUE_FULL = "answered: the queue is full"
    STORE_UNAVAILABLE = "answered: the store is unavailable"
    COMPLETED = "a partition was compared: completed"
    PARTIAL = "a partition was compared: partial"
    FAILED = "a partition was compared: failed"
    SKIPPED = "a partition was left out: it still takes records"
    HEALED = "a run of Reconcile stored what was missing"
    RUNNING = "a run of Reconcile was refused: another one is on"
    RESUMED = "a run of Reconcile went on after a cut"
    LATE_ANSWER = "a request was carried out that nobody waited for any more"
    REBUILT = "coverage was built again"
    OPENED_ANEW = "the database was opened anew without a restart"


LOGGED = {
    "coverage_rebuilt": Sight.REBUILT,
    "store_opened_anew": Sight.OPENED_ANEW,
    "signal_id_conflict": Sight.EMITTED_AGAIN,
    "record_rejected": Sight.DEAD_LETTER,
    "delivery_paused": Sight.PAUSED_ITSELF,
    "riskcast_breaker_opened": Sight.BREAKER_OPENED,
    "riskcast_breaker_closed": Sight.BREAKER_CLOSED,
    "record_failing": Sight.KEPT_APART,
    "ledger_tail_torn": Sight.TAIL_TORN,
}

# How often, where there is an occasion. A seed raises some of them and leaves others out, so that a rare fault can meet
# itself, and a run can get far enough to be hit late.
ODDS = {
    Fault.LOCKED: 0.02,
    Fault.FULL: 0.008,
    Fault.UNREADABLE: 0.02,
    Fault.MALFORMED: 0.005,
    Fault.COMMIT_FAILED: 0.02,
    Fault.COMMIT_UNKNOWN: 0.02,
    Fault.NOT_OPENED: 0.1,
    Fault.REQUEST_LOST: 0.04,
    Fault.RESPONSE_LOST: 0.06,
    Fault.REQUEST_LATE: 0.06,
    Fault.CLIENT_LEFT: 0.06,
    Fault.STREAM_CUT: 0.03,
    Fault.RECONCILE_CUT: 0.02,
    Fault.SILENT: 0.03,
    Fault.OUTAGE: 0.01,
    Fault.KEY_REFUSED: 0.03,
    Fault.UNBEARABLE: 0.02,
    Fault.EMITTER_LEFT: 0.04,
    Fault.SYNC_FAILED: 0.002,
    Fault.WRITE_FAILED: 0.002,
    Fault.WRITE_SHORT: 0.01,
    Fault.NO_SPACE: 0.02,
    Fault.READ_FAILED: 0.01,
    Fault.DIED_BEFORE_SYNC: 0.003,
    Fault.DIED_BEFORE_ANSWER: 0.003,
    Fault.LEDGER_UNREACHABLE: 0.06,
    Fault.LEDGER_SILENT: 0.04,
    Fault.REPLAY_BROKEN: 0.06,
}
SWARM = (0, 0, 0, 1, 3)

OPERATIONS_MIN = 200
FAULTS_MIN = 3
FOLDER = "its folder"  # as a trace calls it


@dataclass
class World:
    """`flaws` holds every broken promise; a seed passes when it stays empty."""

    chance: Random
    folder: str = ""  # of all files, which has another name each time
    trace: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    faults: Counter[Fault] = field(default_factory=Counter)
    seen: Counter[Sight] = field(default_factory=Counter)
    operation_count: int = 0
    tampering_count: int = 0  # how often somebody changed the database but RiskCast
    is_cache_spoilt: bool = False  # by such a change: coverage may be wrong until it is counted
    fault_count: int = 0
    has_begun: bool = False  # nothing goes wrong before
    is_healed: bool = False  # enough was done, and enough went wrong: nothing does any more
    is_broken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._odds = {fault: odds * self.chance.choice(SWARM) for fault, odds in ODDS.items()}

    def now(self) -> datetime:
        return NOON + timedelta(seconds=asyncio.get_running_loop().time())

    def tell(self, what: str) -> None:
        self.trace.append(f"{asyncio.get_running_loop().time():9.4f} {what}".replace(self.folder, FOLDER))

    def flaw(self, what: str) -> None:
        """A broken promise. Nothing that comes after the first can be trusted, so the simulation is to end."""
        self.tell(f"FLAW {what}")
        self.flaws.append(what)
        self.is_broken.set()

    def see(self, sight: Sight) -> None:
        self.seen[sight] += 1

    def operate(self, what: str) -> None:
        """Somebody does something that counts."""
        self.operation_count += 1
        self._heal_maybe()
        self.tell(what)

    def happens(self, fault: Fault) -> bool:
        """Whether it does, here and now; if so, it is told."""
        if self.is_healed or not self.has_begun or self.chance.random() >= self._odds[fault]:
            return False
        self.strike(fault)
        return True

    def strike(self, fault: Fault) -> None:
        self.faults[fault] += 1
        self.fault_count += 1
        self._heal_maybe()
        self.tell(f"FAULT {fault}")

    def _heal_maybe(self) -> None:
        self.is_healed = self.operation_count >= OPERATIONS_MIN and self.fault_count >= FAULTS_MIN

    async def pause(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self.chance.uniform(least_s, most_s))

    async def travel(self) -> None:
        """One message, one way."""
        if self.chance.random() < 0.6:
            await self.pause(0.001, 0.02)

    def hear(self, logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """RiskCast's log, as a processor of structlog: part of what happened, and printed nowhere."""
        self.tell(f"log: {entry['event']} {entry.get('error', '')}")
        if entry.get("held"):
            self.see(Sight.HELD)
        if sight := LOGGED.get(entry["event"]):
            self.see(sight)
        raise structlog.DropEvent

    def digest(self) -> str:
        """Two runs in which the same happened at the same times have the same."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()
