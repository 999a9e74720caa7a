"""The comments of the .proto files state the numbers of contract.limits."""

import re
from datetime import UTC, datetime

import pytest

from contract import limits
from contract.versions import CONTRACT_VERSION, SCHEMA_MAJOR_MAX, SCHEMA_VERSION
from tests.contract.image import comment_of, elements

ID = f"1 to {limits.ID_CHARS_MAX} printable ASCII characters"
LABELS = f"At most {limits.REPEATED_ITEMS_MAX} of at most {limits.LABEL_CHARS_MAX} characters"
URL = f"At most {limits.URL_CHARS_MAX} characters"
NAME = f"At most {limits.NAME_CHARS_MAX} printable ASCII characters"
DESCRIPTION = f"At most {limits.DESCRIPTION_CHARS_MAX} characters"
CRITERIA = f"At most {limits.RESOLUTION_CRITERIA_CHARS_MAX} characters"
PLACE = f"At most {limits.PLACE_CHARS_MAX} characters"
ITEMS = f"t most {limits.REPEATED_ITEMS_MAX}"
OPERATOR_REASON = f"1 to {limits.OPERATOR_REASON_CHARS_MAX} characters"
SIGNAL_ID = f"{limits.SIGNAL_ID_DIGITS_MIN} to {limits.SIGNAL_ID_DIGITS_MAX} upper-case hex digits"
EVENT_BYTES = f"At most {limits.EVENT_BYTES_MAX // limits.KIB} KiB"
BATCH = f"1 to {limits.BATCH_ITEMS_MAX}, at most {limits.BATCH_BYTES_MAX // limits.MIB} MiB"
TIMEOUT = f"{limits.DELIVERY_TIMEOUT_DEFAULT.seconds} s by default. 0 to {limits.DELIVERY_TIMEOUT_MAX.seconds} s"
PAGE_SIZE = (
    f"0 means {limits.PAGE_SIZE_DEFAULT}. At most {limits.PAGE_SIZE_MAX}. "
    f"A page also ends at {limits.PAGE_BYTES_MAX // limits.MIB} MiB"
)
FILTER = f"At most {limits.PAGE_FILTER_ITEMS_MAX}"
DEGREES = {"latitude": f"-{limits.LATITUDE_MAX:g} to {limits.LATITUDE_MAX:g} inclusive"}
DEGREES["longitude"] = f"-{limits.LONGITUDE_MAX:g} to {limits.LONGITUDE_MAX:g} inclusive"

STATED = {
    "omen.v1.Signal": {
        "title": f"1 to {limits.TITLE_CHARS_MAX} characters",
        "description": DESCRIPTION,
        "probability_source": f"At most {limits.ID_CHARS_MAX} printable ASCII characters",
        "confidence_method": f"At most {limits.ID_CHARS_MAX} printable ASCII characters",
        "confidence_factors": ITEMS,
        "tags": LABELS,
        "keywords_matched": LABELS,
        "evidence": ITEMS,
        "validation_scores": ITEMS,
        "source_url": URL,
        "resolution_criteria": CRITERIA,
        "explanation": f"At most {limits.EXPLANATION_CHARS_MAX} characters",
    },
    "omen.v1.ProbabilityInterval": {"method": NAME},
    "omen.v1.ConfidenceFactor": {"name": NAME},
    "omen.v1.GeographicContext": {"regions": LABELS, "chokepoints": LABELS, "ports": LABELS, "coordinates": ITEMS},
    "omen.v1.Coordinates": DEGREES,
    "omen.v1.Evidence": {
        "source": f"At most {limits.ID_CHARS_MAX} printable ASCII characters",
        "value": f"1 to {limits.VALUE_CHARS_MAX} characters",
        "url": URL,
    },
    "omen.v1.ValidationScore": {
        "rule_name": NAME,
        "rule_version": NAME,
        "reasoning": f"At most {limits.REASONING_CHARS_MAX} characters",
    },
    "omen.v1.RoutingHints": {"domains": LABELS, "asset_types": LABELS, "keywords": LABELS},
    "omen.v1.SignalEvent": {
        "signal_id": SIGNAL_ID,
        "deterministic_trace_id": f"first {limits.TRACE_ID_DIGITS} lower-case hex digits",
        "source": ID,
        "source_event_id": ID,
        "ruleset_version": ID,
        "emitted_at": f"at most {limits.EMITTED_AHEAD_MAX.seconds // 60} minutes ahead",
        "canonical_observation": f"At most {limits.CANONICAL_OBSERVATION_BYTES_MAX // limits.KIB} KiB",
        "traceparent": f"At most {limits.ID_CHARS_MAX} printable ASCII characters",
        "schema_version": f'"{SCHEMA_VERSION}" today',
    },
    "omen.v1.Observation": {
        "source": ID,
        "source_event_id": ID,
        "source_revision": f"At most {limits.ID_CHARS_MAX} printable ASCII characters",
        "title": f"1 to {limits.TITLE_CHARS_MAX} characters",
        "description": DESCRIPTION,
        "outcome_label": PLACE,
        "keywords": LABELS,
        "locations": ITEMS,
        "url": URL,
        "resolution_criteria": CRITERIA,
        "metrics": ITEMS,
    },
    "omen.v1.Location": {**DEGREES, "name": PLACE},
    "omen.v1.Metric": {
        "name": f"1 to {limits.NAME_CHARS_MAX} printable ASCII characters",
        "unit": f"At most {limits.LABEL_CHARS_MAX} characters",
    },
    "omen.v1.LedgerPosition": {"segment_id": f"{limits.SEGMENT_ID_BYTES} random bytes"},
    "omen.v1.LedgerRecord": {"event": EVENT_BYTES},
    "omen.v1.SegmentRanges": {"segment_id": f"{limits.SEGMENT_ID_BYTES} bytes"},
    "omen.v1.EmitRequest": {"event": EVENT_BYTES, "delivery_timeout": TIMEOUT},
    "omen.v1.EmitStreamRequest": {"events": BATCH, "delivery_timeout": TIMEOUT},
    "omen.v1.ItemError": {"violations": f"At most {limits.VIOLATIONS_MAX}"},
    "omen.v1.GetSignalRequest": {"signal_id": SIGNAL_ID},
    "omen.v1.ListSignalsRequest": {
        "deterministic_trace_ids": FILTER,
        "source_event_id": f"At most {limits.ID_CHARS_MAX} printable ASCII characters",
    },
    "omen.v1.ProcessRequest": {"delivery_timeout": TIMEOUT},
    "omen.v1.ProcessStreamRequest": {"observations": BATCH, "delivery_timeout": TIMEOUT},
    "omen.v1.ReplayRequest": {"ranges": f"At most {limits.REPLAY_RANGES_BYTES_MAX // limits.KIB} KiB"},
    "omen.v1.ReplayResponse": {"records": BATCH},
    "omen.v1.WatchSignalsRequest": {"cursor": f"At most {limits.WATCH_CURSOR_BYTES_MAX // limits.KIB} KiB"},
    "omen.v1.PrunePartitionRequest": {"unsettled_reason": f"t most {limits.OPERATOR_REASON_CHARS_MAX} characters"},
    "omen.v1.PauseDeliveryRequest": {"reason": OPERATOR_REASON},
    "omen.v1.DropDeadLettersRequest": {"reason": OPERATOR_REASON},
    "omen.v1.DeadLetterFilter": {
        "positions": FILTER,
        "reason": f"At most {limits.NAME_CHARS_MAX} printable ASCII characters",
    },
    "riskcast.v1.IngestRequest": {"event": EVENT_BYTES},
    "riskcast.v1.IngestHelloResult": {
        "settled": f"At most {limits.HELLO_RANGES_MAX} ranges",
        "rejected": f"At most {limits.HELLO_REJECTED_MAX} records",
    },
    "riskcast.v1.IngestHello": {"segments": f"At most {limits.HELLO_SEGMENTS_MAX}"},
    "omen.v1.Segment": {"segment_id": f"{limits.SEGMENT_ID_BYTES} random bytes"},
    "riskcast.v1.PartitionFinished": {"problems": f"At most {limits.RECONCILE_PROBLEMS_MAX}"},
    "riskcast.v1.SegmentCount": {"segment_id": f"{limits.SEGMENT_ID_BYTES} bytes"},
    "riskcast.v1.IngestBatch": {"records": BATCH},
    "riskcast.v1.GetSignalRequest": {"signal_id": SIGNAL_ID},
    "riskcast.v1.ListSignalsRequest": {"source_event_id": f"At most {limits.ID_CHARS_MAX} printable ASCII characters"},
    "riskcast.v1.AcceptDivergenceRequest": {"reason": OPERATOR_REASON},
    "riskcast.v1.ReconcileRequest": {
        "ledger_ids": f"At most {limits.LEDGER_FILTER_ITEMS_MAX}",
        "partitions": FILTER,
        "since_days": f"At most {limits.SINCE_DAYS_MAX}",
    },
}
ROWS = [(f"{message}.{field}", words) for message, fields in STATED.items() for field, words in fields.items()]
TIME = re.compile(r"\b(\d{4}-01-01)(?: included)? to (?:before )?(\d{4}-01-01)")


@pytest.mark.parametrize(("name", "words"), ROWS, ids=[name for name, _ in ROWS])
def test_a_comment_states_the_limit_that_is_checked(name: str, words: str) -> None:
    assert words in comment_of(name)


def test_every_field_whose_comment_states_a_number_of_things_has_a_row_above() -> None:
    bounded = re.compile(r"\b[Aa]t most \d|\d to \d+,? (?:characters|printable|upper|s\b)|\d+ (?:random )?bytes\b")
    stating = {element.name for element in elements() if element.kind == "field" and bounded.search(element.comment)}
    ours = {name for name in stating if not name.endswith(".page_size")}
    assert ours - {name for name, _ in ROWS} == set()


def test_every_page_is_limited_alike() -> None:
    sizes = [element.name for element in elements() if element.name.endswith(".page_size")]
    assert len(sizes) >= 6
    assert [name for name in sizes if PAGE_SIZE not in comment_of(name)] == []


def test_every_time_that_states_a_range_states_the_one_that_is_checked() -> None:
    low, before = (datetime.fromtimestamp(at, UTC).date() for at in (limits.TIME_MIN_S, limits.TIME_BEFORE_S))
    ranges = {found for element in elements() for found in TIME.findall(element.comment)}
    assert ranges == {(str(low), str(before))}


def test_limits_that_follow_from_others_do() -> None:
    assert limits.BATCH_BYTES_MAX + limits.EVENT_BYTES_MAX < limits.MESSAGE_BYTES_MAX
    assert limits.CANONICAL_OBSERVATION_BYTES_MAX < limits.EVENT_BYTES_MAX
    assert 24 * limits.HELLO_SEGMENTS_MAX < limits.MESSAGE_BYTES_MAX
    days = (limits.TIME_BEFORE_S - limits.TIME_MIN_S) // 86_400
    assert 0 <= days - limits.SINCE_DAYS_MAX < 366


def test_the_schema_is_one_that_this_contract_understands() -> None:
    assert int(SCHEMA_VERSION.partition(".")[0]) == int(CONTRACT_VERSION.partition(".")[0]) == SCHEMA_MAJOR_MAX
