"""What a caller can be told instead of an answer: a reason, its gRPC code, and what is needed to act upon it.

Both servers raise `ContractError`; `serving` turns it into a status with google.rpc details; `ErrorDetails` reads it
back. docs/errors.md tells callers what to do about each reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from contract.limits import STATUS_BYTES_MAX, VIOLATIONS_MAX
from contract.reasons import CODES as CODES
from contract.reasons import Reason as Reason
from contract.versions import SCHEMA_MAJOR_MAX
from omen.v1.signal_service_pb2 import FieldViolation, ItemError
from riskcast.v1.ingest_service_pb2 import DuplicateSignal

EPOCH = datetime.fromtimestamp(0, UTC)

STATUS_DETAILS_KEY = "grpc-status-details-bin"
ORIGINAL_ACK_KEY = "original-ack-id"

# Bounds of single texts in a status, in bytes. With them every status but one full of violations is below 4 KiB.
MESSAGE_TEXT_MAX = 512
METADATA_TEXT_MAX = 256
METADATA_ITEMS_MAX = 8
VIOLATION_TEXT_MAX = 256


class Violation(NamedTuple):
    """What is wrong with one field; `field` is its path from the item, such as "signal.evidence[3].url"."""

    field: str
    description: str


class ContractError(Exception):
    """An error a caller may see. The message is one line for people and holds nothing the caller may not know.

    `retry_delay_s` is given exactly when repeating the call can help. `trailers` are sent as trailing metadata.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_delay_s: float | None = None,
        details: Sequence[Message] = (),
        trailers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = CODES[reason]
        self.message = clipped(message, MESSAGE_TEXT_MAX)
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_delay_s = retry_delay_s
        self.details = tuple(details)
        self.trailers = tuple(trailers)

    def status(self, domain: str) -> status_pb2.Status:
        """google.rpc.Status, at most 4 KiB: the last violations are left out first, then the last details.

        `domain` is the package of the service that answers, "omen.v1" or "riskcast.v1".
        """
        violations, details = shown(self.violations), list(self.details)
        while True:
            status = self._status(domain, violations, details)
            if status.ByteSize() <= STATUS_BYTES_MAX or not (violations or details):
                return status
            (violations or details).pop()

    def _status(self, domain: str, violations: list[Violation], details: list[Message]) -> status_pb2.Status:
        items = sorted(self.metadata.items())[:METADATA_ITEMS_MAX]
        metadata = {key: clipped(value, METADATA_TEXT_MAX) for key, value in items}
        parts: list[Message] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=domain, metadata=metadata)]
        if self.retry_delay_s is not None:
            parts.append(error_details_pb2.RetryInfo(retry_delay=duration(self.retry_delay_s)))
        if violations:
            fields = [error_details_pb2.BadRequest.FieldViolation(**each._asdict()) for each in violations]
            parts.append(error_details_pb2.BadRequest(field_violations=fields))
        status = status_pb2.Status(code=self.code, message=self.message)
        for part in (*parts, *details):
            status.details.add().Pack(part)
        return status


def item_error(error: ContractError) -> ItemError:
    """The same error about one item of a batch."""
    violations = [FieldViolation(**each._asdict()) for each in shown(error.violations)]
    item = ItemError(code=error.code, reason=error.reason, message=error.message, violations=violations)
    if error.retry_delay_s is not None:
        item.retry_delay.CopyFrom(duration(error.retry_delay_s))
    return item


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What a failed call said. A reason unknown here, of a newer server, is kept as it came; none at all is ""."""

    code: int
    reason: str
    domain: str
    message: str
    metadata: Mapping[str, str]
    violations: tuple[Violation, ...]
    retry_delay_s: float | None
    duplicate: DuplicateSignal | None

    @classmethod
    def from_trailing_metadata(cls, metadata: Iterable[tuple[str, str | bytes]] | None) -> "ErrorDetails | None":
        """None if there is no status in the metadata, or nothing that can be read as one."""
        encoded = next((value for key, value in metadata or () if key == STATUS_DETAILS_KEY), None)
        if not isinstance(encoded, bytes):
            return None
        try:
            return cls.from_status(status_pb2.Status.FromString(encoded))
        except DecodeError:
            return None

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> "ErrorDetails":
        """Raises DecodeError if a detail is not what its type says."""
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        bad, duplicate = error_details_pb2.BadRequest(), DuplicateSignal()
        found = {
            part.DESCRIPTOR.name for part in (info, retry, bad, duplicate) for one in status.details if one.Unpack(part)
        }
        return cls(
            code=status.code,
            reason=info.reason,
            domain=info.domain,
            message=status.message,
            metadata=dict(info.metadata),
            violations=tuple(Violation(each.field, each.description) for each in bad.field_violations),
            retry_delay_s=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if "RetryInfo" in found else None,
            duplicate=duplicate if "DuplicateSignal" in found else None,
        )


def invalid_signal(violations: Sequence[Violation]) -> ContractError:
    return ContractError(Reason.INVALID_SIGNAL, summary(violations), violations=violations)


def invalid_observation(violations: Sequence[Violation]) -> ContractError:
    return ContractError(Reason.INVALID_OBSERVATION, summary(violations), violations=violations)


def signal_id_mismatch(expected: str, got: str, *, field: str = "signal_id") -> ContractError:
    """`field` is the id that is wrong: signal_id or deterministic_trace_id."""
    metadata = {"field": field, "expected": expected, "got": got}
    return ContractError(Reason.SIGNAL_ID_MISMATCH, f"{field} is not the one that the formula gives", metadata=metadata)


def schema_version_unsupported(got: str) -> ContractError:
    highest = f"{SCHEMA_MAJOR_MAX}.x"
    metadata = {"got": got, "max": highest}
    message = f"schema_version {clipped(got, METADATA_TEXT_MAX)} is newer than {highest}: upgrade this server"
    return ContractError(Reason.SCHEMA_VERSION_UNSUPPORTED, message, metadata=metadata)


def duplicate_signal(signal_id: str, ack_id: str, ingested_at: datetime, *, content_matches: bool) -> ContractError:
    """`ingested_at` is when the original was stored; raises ValueError if it has no time zone."""
    stored_at = timestamp(ingested_at)
    return ContractError(
        Reason.DUPLICATE_SIGNAL,
        "stored before",
        metadata={"signal_id": signal_id, "ack_id": ack_id, "ingested_at": stored_at.ToJsonString()},
        details=[DuplicateSignal(ack_id=ack_id, ingested_at=stored_at, content_matches=content_matches)],
        trailers=[(ORIGINAL_ACK_KEY, ack_id)],
    )


def signal_id_conflict(signal_id: str, stored_hash: str, got_hash: str) -> ContractError:
    metadata = {"signal_id": signal_id, "stored_input_event_hash": stored_hash, "input_event_hash": got_hash}
    return ContractError(Reason.SIGNAL_ID_CONFLICT, "another event has this signal_id", metadata=metadata)


def not_implemented(what: str) -> ContractError:
    return ContractError(Reason.NOT_IMPLEMENTED, f"{what} is not built yet")


def internal(error_id: str) -> ContractError:
    """A bug. What went wrong is in the log under `error_id`, never in the answer."""
    message = f"internal error {error_id}: please report this id"
    return ContractError(Reason.INTERNAL, message, metadata={"error_id": error_id})


def summary(violations: Sequence[Violation]) -> str:
    first = f"{violations[0].field}: {violations[0].description}" if violations else "no field is named"
    return first if len(violations) <= 1 else f"{first} (and {len(violations) - 1} more)"


def shown(violations: Sequence[Violation]) -> list[Violation]:
    """The first 20 violations, each short enough to be sent."""
    return [
        Violation(clipped(each.field, VIOLATION_TEXT_MAX), clipped(each.description, VIOLATION_TEXT_MAX))
        for each in violations[:VIOLATIONS_MAX]
    ]


def clipped(text: str, bytes_max: int) -> str:
    """The text, or as many whole characters of it as fit with an ellipsis into so many UTF-8 bytes."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[: bytes_max - len("…".encode())].decode(errors="ignore") + "…"


def duration(seconds: float) -> Duration:
    span = Duration()
    span.FromTimedelta(timedelta(seconds=seconds))
    return span


def timestamp(at: datetime) -> Timestamp:
    """Raises ValueError for a time without a zone: protobuf would take it for UTC in silence."""
    if at.tzinfo is None:
        raise ValueError("a time needs a time zone")
    since = at - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)
