"""What was written by every released version is read by today's code; what a newer peer adds survives it."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from contract.identity import canonical_observation
from contract.validation import check_event, check_observation
from omen.v1.ledger_record_pb2 import LedgerRecord
from omen.v1.observation_pb2 import Observation
from omen.v1.signal_event_pb2 import SignalEvent
from tests.contract.samples import NOW, full_event, full_observation, full_record

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())
# Field 1000, length-delimited, of three bytes; field 1001, varint.
FROM_A_NEWER_PEER = b"\xc2\x3e\x03new" + b"\xc8\x3e\x2a"

each_version = pytest.mark.parametrize("folder", GOLDEN, ids=lambda folder: folder.name)
each_message = pytest.mark.parametrize(
    ("name", "kind"),
    [("signal_event", SignalEvent), ("observation", Observation), ("ledger_record", LedgerRecord)],
)


def golden(folder: Path, name: str, kind: type[Message]) -> Message:
    return kind.FromString((folder / f"{name}.binpb").read_bytes())


@each_message
@each_version
def test_golden_bytes_read_as_their_readable_twin(folder: Path, name: str, kind: type[Message]) -> None:
    twin = text_format.Parse((folder / f"{name}.txtpb").read_text("utf-8"), kind())
    assert golden(folder, name, kind) == twin


@each_message
@each_version
def test_golden_bytes_hold_nothing_that_today_does_not_know(folder: Path, name: str, kind: type[Message]) -> None:
    message = golden(folder, name, kind)
    size = message.ByteSize()
    message.DiscardUnknownFields()
    assert message.ByteSize() == size


@each_version
def test_golden_events_are_still_taken_and_observations_still_have_their_hash(folder: Path) -> None:
    event = SignalEvent.FromString((folder / "signal_event.binpb").read_bytes())
    observation = Observation.FromString((folder / "observation.binpb").read_bytes())
    check_event(event, now=NOW)
    check_observation(observation)
    assert canonical_observation(observation) == event.canonical_observation


@each_version
def test_the_golden_record_holds_the_golden_event_byte_for_byte(folder: Path) -> None:
    record = LedgerRecord.FromString((folder / "ledger_record.binpb").read_bytes())
    assert record.event == (folder / "signal_event.binpb").read_bytes()


@pytest.mark.parametrize(
    "sample", [full_event(), full_observation(), full_record()], ids=lambda one: type(one).__name__
)
def test_the_samples_set_every_field_of_today(sample: Message) -> None:
    """So a new field reaches the golden files of the version that adds it."""
    assert unset(sample) == []


def unset(message: Message, prefix: str = "") -> list[str]:
    set_fields = {field.name: value for field, value in message.ListFields()}
    missing = [f"{prefix}{field.name}" for field in message.DESCRIPTOR.fields if field.name not in set_fields]
    for field, value in message.ListFields():
        if field.message_type and field.message_type.file.package != "google.protobuf":
            for one in value if field.is_repeated else [value]:
                missing += unset(one, f"{prefix}{field.name}.")
    return missing


def test_the_samples_are_the_golden_messages_of_the_newest_version() -> None:
    newest = max(GOLDEN, key=lambda folder: [int(part) for part in folder.name.split(".")])
    assert golden(newest, "signal_event", SignalEvent) == full_event()
    assert golden(newest, "observation", Observation) == full_observation()
    assert golden(newest, "ledger_record", LedgerRecord) == full_record()


@pytest.mark.parametrize(
    "sample", [full_event(), full_observation(), full_record()], ids=lambda one: type(one).__name__
)
def test_fields_of_a_newer_peer_survive_reading_and_writing(sample: Message) -> None:
    future = type(sample).FromString(sample.SerializeToString() + FROM_A_NEWER_PEER)
    again = type(sample).FromString(future.SerializeToString())
    assert FROM_A_NEWER_PEER in again.SerializeToString()
    assert again == future


def test_unknown_fields_and_enum_values_inside_a_signal_survive_and_are_taken() -> None:
    event = full_event()
    event.schema_version = "1.7.0"
    event.signal.MergeFromString(FROM_A_NEWER_PEER)
    for field in ("signal_type", "status", "category", "price_basis", "confidence_level", "source_class"):
        setattr(event.signal, field, 4711)
    event.signal.validation_scores[0].outcome = 4711  # type: ignore[assignment]  # a value of a newer enum
    check_event(event, now=NOW)

    again = SignalEvent.FromString(event.SerializeToString())
    check_event(again, now=NOW)
    assert again == event
    assert FROM_A_NEWER_PEER in again.signal.SerializeToString()
    assert again.signal.signal_type == 4711


def test_a_field_of_a_newer_peer_is_not_content_that_this_version_can_hash() -> None:
    """A newer OMEN hashes its own canonical form and sends it along; an older one never sees such an observation."""
    future = Observation.FromString(full_observation().SerializeToString() + FROM_A_NEWER_PEER)
    assert canonical_observation(future) == canonical_observation(full_observation())
