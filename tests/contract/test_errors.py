"""An error keeps its meaning from the server that raises it to the client that reads it."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from contract import errors
from contract.errors import ContractError, ErrorDetails, Violation, item_error
from contract.reasons import CODES, Reason
from omen.v1.signal_service_pb2 import FieldViolation, ItemError
from riskcast.v1.ingest_service_pb2 import DuplicateSignal
from tests.contract.samples import OBSERVED_AT, stamp

STATUS_BYTES_MAX = 4096
HUGE = [Violation(f"signal.evidence[{n}].{'é' * 5000}", "🚢" * 5000) for n in range(20)]


def read_back(error: ContractError, domain: str = "omen.v1") -> ErrorDetails:
    metadata: list[tuple[str, str | bytes]] = [("other", "text")]
    metadata += [("grpc-status-details-bin", error.status(domain).SerializeToString())]
    found = ErrorDetails.from_trailing_metadata(metadata)
    assert found
    return found


def test_every_reason_has_one_code() -> None:
    assert CODES.keys() == {*Reason}
    assert code_pb2.OK not in CODES.values()


@pytest.mark.parametrize("reason", Reason)
def test_a_client_reads_what_a_server_raised(reason: Reason) -> None:
    error = ContractError(
        reason,
        "one line",
        metadata={"b": "2", "a": "1"},
        violations=[Violation("signal.title", "required")],
        retry_delay_s=0.25,
    )
    found = read_back(error, "riskcast.v1")
    assert found == ErrorDetails(
        code=CODES[reason],
        reason=reason,
        domain="riskcast.v1",
        message="one line",
        metadata={"a": "1", "b": "2"},
        violations=(Violation("signal.title", "required"),),
        retry_delay_s=0.25,
        duplicate=None,
    )


def test_error_info_comes_first_then_retry_then_violations_then_details() -> None:
    detail = DuplicateSignal(ack_id="ack-1")
    error = ContractError(
        Reason.QUEUE_FULL, "full", violations=[Violation("a", "b")], retry_delay_s=1, details=[detail]
    )
    names = [one.type_url.rpartition(".")[2] for one in error.status("omen.v1").details]
    assert names == ["ErrorInfo", "RetryInfo", "BadRequest", "DuplicateSignal"]


def test_without_a_delay_there_is_no_retry_info() -> None:
    error = ContractError(Reason.SHUTTING_DOWN, "draining")
    assert read_back(error).retry_delay_s is None
    assert not item_error(error).HasField("retry_delay")


def test_a_delay_of_zero_is_a_delay() -> None:
    error = ContractError(Reason.QUEUE_FULL, "full", retry_delay_s=0)
    assert read_back(error).retry_delay_s == 0
    assert item_error(error).HasField("retry_delay")


def test_a_status_with_20_huge_violations_stays_below_4_kib_and_keeps_the_first() -> None:
    status = errors.invalid_signal(HUGE).status("omen.v1")
    assert status.ByteSize() <= STATUS_BYTES_MAX
    found = ErrorDetails.from_status(status)
    assert found.reason == Reason.INVALID_SIGNAL
    assert 5 <= len(found.violations) < 20
    assert found.violations[0].field.startswith("signal.evidence[0].é")
    assert found.violations[0].field.endswith("…")


def test_the_largest_status_without_violations_is_below_4_kib() -> None:
    error = ContractError(
        Reason.INTERNAL,
        "🚢" * 5000,
        metadata={f"key_{n:02}": "é" * 5000 for n in range(20)},
        retry_delay_s=1e9,
    )
    assert error.status("riskcast.v1").ByteSize() <= STATUS_BYTES_MAX
    assert read_back(error).reason == Reason.INTERNAL


def test_details_that_do_not_fit_are_left_out_after_the_violations() -> None:
    details = [DuplicateSignal(ack_id="x" * 3000), DuplicateSignal(ack_id="y" * 3000)]
    error = ContractError(Reason.DUPLICATE_SIGNAL, "stored", violations=HUGE, details=details)
    found = read_back(error)
    assert error.status("omen.v1").ByteSize() <= STATUS_BYTES_MAX
    assert found.violations == ()
    assert found.duplicate == details[0]


def test_trimming_is_the_same_every_time() -> None:
    first, second = (errors.invalid_signal(HUGE).status("omen.v1").SerializeToString(deterministic=True) for _ in "ab")
    assert first == second


def test_of_too_much_metadata_the_first_by_name_is_kept_however_it_was_given() -> None:
    names = [f"key_{n}" for n in range(9)]
    for given in (names, names[::-1]):
        found = read_back(ContractError(Reason.INTERNAL, "a bug", metadata=dict.fromkeys(given, "x")))
        assert sorted(found.metadata) == names[:8]


def test_at_most_20_violations_are_shown_and_the_message_counts_all() -> None:
    error = errors.invalid_signal([Violation(f"f{n}", "required") for n in range(25)])
    assert [one.field for one in read_back(error).violations] == [f"f{n}" for n in range(20)]
    assert len(item_error(error).violations) == 20
    assert error.message == "f0: required (and 24 more)"


@pytest.mark.parametrize(
    ("text", "shown"), [("a" * 8, "a" * 8), ("a" * 9, "aaaaa…"), ("é" * 5, "éé…"), ("🚢🚢🚢", "🚢…")]
)
def test_clipping_keeps_whole_characters(text: str, shown: str) -> None:
    assert errors.clipped(text, 8) == shown


def test_text_that_is_no_unicode_does_not_break_an_error() -> None:
    assert read_back(ContractError(Reason.INTERNAL, "bad \udc80 byte")).message == "bad ? byte"


def test_an_error_about_one_item_says_the_same() -> None:
    error = ContractError(
        Reason.QUEUE_FULL, "full", violations=[Violation("signal.title", "required")], retry_delay_s=1.5
    )
    assert item_error(error) == ItemError(
        code=code_pb2.RESOURCE_EXHAUSTED,
        reason="QUEUE_FULL",
        message="full",
        retry_delay=Duration(seconds=1, nanos=500_000_000),
        violations=[FieldViolation(field="signal.title", description="required")],
    )


def test_a_duplicate_carries_the_original_acknowledgement_in_every_form() -> None:
    error = errors.duplicate_signal("OMEN-0123456789AB", "ack-1", OBSERVED_AT, content_matches=True)
    found = read_back(error, "riskcast.v1")
    assert found.code == code_pb2.ALREADY_EXISTS
    assert found.metadata == {
        "signal_id": "OMEN-0123456789AB",
        "ack_id": "ack-1",
        "ingested_at": "2026-01-29T11:59:58.123456Z",
    }
    assert found.duplicate == DuplicateSignal(ack_id="ack-1", ingested_at=stamp(OBSERVED_AT), content_matches=True)
    assert error.trailers == (("original-ack-id", "ack-1"),)


def test_a_duplicate_stored_at_a_time_without_a_zone_is_refused() -> None:
    naive = OBSERVED_AT.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        errors.duplicate_signal("OMEN-0123456789AB", "ack-1", naive, content_matches=True)


def test_times_are_written_in_utc_whatever_their_zone() -> None:
    assert errors.timestamp(datetime(2026, 1, 1, tzinfo=UTC)) == errors.timestamp(
        datetime.fromisoformat("2026-01-01T02:00:00+02:00")
    )
    assert errors.duration(0.25).ToTimedelta() == timedelta(milliseconds=250)


def test_a_conflict_names_both_hashes() -> None:
    found = read_back(errors.signal_id_conflict("OMEN-0123456789AB", "sha256:aa", "sha256:bb"))
    assert found.reason == Reason.SIGNAL_ID_CONFLICT
    assert found.metadata == {
        "signal_id": "OMEN-0123456789AB",
        "stored_input_event_hash": "sha256:aa",
        "input_event_hash": "sha256:bb",
    }


def test_a_bug_shows_nothing_but_its_id() -> None:
    found = read_back(errors.internal("e-17"))
    assert (found.reason, found.metadata) == (Reason.INTERNAL, {"error_id": "e-17"})


def test_what_is_not_built_yet_says_so() -> None:
    assert read_back(errors.not_implemented("Replay")).code == code_pb2.UNIMPLEMENTED


def test_a_reason_of_a_newer_server_is_kept() -> None:
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MOON_PHASE", domain="omen.v1"))
    assert ErrorDetails.from_status(status).reason == "MOON_PHASE"


@pytest.mark.parametrize(
    "metadata",
    [None, [], [("other", "x")], [("grpc-status-details-bin", b"\xff\xff")], [("grpc-status-details-bin", "text")]],
)
def test_metadata_without_a_status_reads_as_none(metadata: list[tuple[str, str | bytes]] | None) -> None:
    assert ErrorDetails.from_trailing_metadata(metadata) is None


def test_a_detail_that_is_not_what_it_says_reads_as_none() -> None:
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE)
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    assert ErrorDetails.from_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())]) is None


def test_a_status_without_details_has_its_code_alone() -> None:
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="too large")
    found = ErrorDetails.from_status(status)
    assert (found.code, found.reason, found.domain, found.message) == (8, "", "", "too large")
