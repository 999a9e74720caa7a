"""What a request for a list may ask, checked before anything is looked up."""

from google.protobuf.message import Message

from contract.checks import (
    MessageRules,
    Presence,
    Rule,
    anything,
    ascii_text,
    instant,
    nested,
    optional,
    pattern,
    repeated,
    text,
)
from contract.errors import Violation, invalid_signal
from contract.limits import (
    ID_CHARS_MAX,
    NAME_CHARS_MAX,
    OPERATOR_REASON_CHARS_MAX,
    PAGE_FILTER_ITEMS_MAX,
    TRACE_ID_DIGITS,
)
from contract.validation import ledger_id, partition, segment_id, sequence
from omen.v1.delivery_service_pb2 import DropDeadLettersRequest, ListDeadLettersRequest, RedriveDeadLettersRequest
from omen.v1.signal_service_pb2 import ListSignalsRequest
from riskcast.v1.signal_service_pb2 import CountSignalsRequest
from riskcast.v1.signal_service_pb2 import ListSignalsRequest as ListStoredSignalsRequest


def check_list_signals(request: ListSignalsRequest) -> None:
    """Of OMEN's filters alone; `pages` checks the rest. Raises ContractError: INVALID_SIGNAL with violations."""
    _check(request, LIST_SIGNALS)


def check_list_stored_signals(request: ListStoredSignalsRequest) -> None:
    """Of RiskCast's filters alone, as `check_list_signals`."""
    _check(request, LIST_STORED_SIGNALS)


def check_count_signals(request: CountSignalsRequest) -> None:
    """Raises ContractError: INVALID_SIGNAL with violations."""
    _check(request, COUNT_SIGNALS)


def check_dead_letters(request: ListDeadLettersRequest) -> None:
    """Of its filter alone, as `check_list_signals`."""
    _check(request, LIST_DEAD_LETTERS)


def check_redrive(request: RedriveDeadLettersRequest) -> None:
    """Raises ContractError: INVALID_SIGNAL with violations."""
    _check(request, REDRIVE_DEAD_LETTERS)


def check_drop(request: DropDeadLettersRequest) -> None:
    """Raises ContractError: INVALID_SIGNAL with violations."""
    _check(request, DROP_DEAD_LETTERS)


def _check(request: Message, rules: MessageRules) -> None:
    if violations := rules.violations(request):
        raise invalid_signal(violations)


def range_is_not_empty(request: ListSignalsRequest | ListStoredSignalsRequest) -> list[Violation]:
    if not (request.HasField("emitted_from") and request.HasField("emitted_before")):
        return []
    if request.emitted_from.ToNanoseconds() < request.emitted_before.ToNanoseconds():
        return []
    return [Violation("emitted_before", "must be after emitted_from")]


def picks_something(request: RedriveDeadLettersRequest | DropDeadLettersRequest) -> list[Violation]:
    if request.filter.positions or request.filter.reason or request.filter.partition:
        return []
    return [Violation("filter", "must not be empty")]


LIST_SIGNALS = MessageRules(
    Rule("emitted_from", instant, Presence.OPTIONAL),
    Rule("emitted_before", instant, Presence.OPTIONAL),
    Rule(
        "deterministic_trace_ids",
        repeated(
            pattern(f"[0-9a-f]{{{TRACE_ID_DIGITS}}}", "must be 16 lower-case hex digits"), most=PAGE_FILTER_ITEMS_MAX
        ),
    ),
    Rule("category", anything),
    Rule("source_event_id", ascii_text(ID_CHARS_MAX)),
    relations=(range_is_not_empty,),
)
LIST_STORED_SIGNALS = MessageRules(
    Rule("emitted_from", instant, Presence.OPTIONAL),
    Rule("emitted_before", instant, Presence.OPTIONAL),
    Rule("category", anything),
    Rule("source_event_id", ascii_text(ID_CHARS_MAX)),
    Rule("ledger_id", optional(ledger_id)),
    Rule("partition", optional(partition)),
    relations=(range_is_not_empty,),
)
# A page of ListDeadLetters gives all four; a person has a partition and a sequence.
LETTER_POSITION = MessageRules(
    Rule("ledger_id", optional(ledger_id)),
    Rule("partition", partition),
    Rule("segment_id", optional(segment_id)),
    Rule("sequence", sequence),
)
DEAD_LETTER_FILTER = MessageRules(
    Rule("positions", repeated(nested(LETTER_POSITION), most=PAGE_FILTER_ITEMS_MAX)),
    Rule("reason", ascii_text(NAME_CHARS_MAX)),
    Rule("partition", optional(partition)),
)
LIST_DEAD_LETTERS = MessageRules(Rule("filter", nested(DEAD_LETTER_FILTER)))
REDRIVE_DEAD_LETTERS = MessageRules(Rule("filter", nested(DEAD_LETTER_FILTER)), relations=(picks_something,))
DROP_DEAD_LETTERS = MessageRules(
    Rule("filter", nested(DEAD_LETTER_FILTER)),
    Rule("reason", text(OPERATOR_REASON_CHARS_MAX, least=1)),
    relations=(picks_something,),
)
COUNT_SIGNALS = MessageRules(Rule("ledger_id", optional(ledger_id)), Rule("partition", optional(partition)))
