"""One message of ledger records, and how it is told: in one line and one span, never in one per signal."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import structlog

from contract.errors import ContractError
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.signal_service_pb2 import ARRIVAL_PATH_DELIVERY, ARRIVAL_PATH_REPLAY, ArrivalPath
from riskcast_server.settlement import Entry, Outcome, Verdict
from serving.telemetry.traces import PARENT, BatchSpan, Spans, TraceParent, maybe_parent

PATHS = {ARRIVAL_PATH_DELIVERY: "delivery", ARRIVAL_PATH_REPLAY: "replay"}

Outcomes = asyncio.Future[list[Outcome]]

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Batch:
    """Records of one ledger. `origins` are the spans in which their signals were emitted, each once."""

    ledger_id: str
    path: ArrivalPath.ValueType
    run_id: str
    entries: list[Entry] = field(default_factory=list)
    deterministic_trace_ids: list[str] = field(default_factory=list)
    origins: dict[TraceParent, None] = field(default_factory=dict)

    def add(self, entry: Entry, maybe_event: SignalEvent | None) -> None:
        """`maybe_event` is what the entry was made of, if it is valid."""
        self.entries.append(entry)
        if maybe_event is not None:
            self.deterministic_trace_ids.append(maybe_event.deterministic_trace_id)
            if origin := maybe_parent(maybe_event.traceparent):
                self.origins[origin] = None

    def follow(self, outcomes: Outcomes, maybe_spans: Spans | None) -> None:
        """Tells what becomes of it, also when nobody waits for that any more."""
        maybe_span = None
        if maybe_spans is not None:
            # A stream goes on for minutes: each of its messages is a trace of its own. A replay belongs to its run.
            maybe_run = PARENT.get() if self.path == ARRIVAL_PATH_REPLAY else None
            maybe_span = maybe_spans.batch("records_ingested", maybe_run, self.origins, self._described())
        outcomes.add_done_callback(partial(self._tell, maybe_span))

    def _tell(self, maybe_span: BatchSpan | None, outcomes: Outcomes) -> None:
        failure = outcomes.exception()
        if failure is None:
            counts = self._tell_settled(outcomes.result())
        else:
            counts = {}
            log.warning("records_not_ingested", reason=reason_of(failure), **self._described(), **self._names())
        if maybe_span is not None:
            maybe_span.ended(reason_of(failure) if failure else "", counts)

    def _tell_settled(self, outcomes: list[Outcome]) -> dict[str, int]:
        found = Counter(outcome.verdict for outcome in outcomes)
        counts = {verdict.value: found[verdict] for verdict in Verdict}
        others = {
            entry.signal_id: outcome.verdict.value
            for entry, outcome in zip(self.entries, outcomes, strict=True)
            if outcome.verdict is not Verdict.STORED and entry.signal_id
        }
        fields = {**self._described(), **counts, **self._names(), **({"not_stored": others} if others else {})}
        tell = log.warning if found[Verdict.REJECTED] else log.info
        tell("records_ingested", **fields)
        return counts

    def _described(self) -> dict[str, str]:
        described = {"ledger_id": self.ledger_id, "path": PATHS[self.path]}
        return {**described, "run_id": self.run_id} if self.run_id else described

    def _names(self) -> dict[str, list[str]]:
        """A record that could not be read has no name."""
        return {
            "signal_ids": [entry.signal_id for entry in self.entries if entry.signal_id],
            "deterministic_trace_ids": self.deterministic_trace_ids,
            "trace_ids": list(dict.fromkeys(origin.trace_id for origin in self.origins)),
        }


def reason_of(failure: BaseException) -> str:
    return failure.reason if isinstance(failure, ContractError) else type(failure).__name__
