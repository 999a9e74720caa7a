"""What the messages may never become."""

import re

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, MethodOptions

from tests.contract.image import fields, files, messages, methods

FORBIDDEN = re.compile(
    r"severity|urgency|priority|actionable|delay|exposure|costs?|impacts?|recommend(ation|ed)?s?|advi[cs]e"
)
WELL_KNOWN = {"google/protobuf/timestamp.proto", "google/protobuf/duration.proto"}

UNARY, SERVER_STREAM, BIDI = (False, False), (False, True), (True, True)
KIND = {
    "omen.v1.SignalService": {
        "Emit": UNARY,
        "EmitStream": BIDI,
        "GetSignal": UNARY,
        "ListSignals": UNARY,
        "WatchSignals": SERVER_STREAM,
    },
    "omen.v1.PipelineService": {
        "Process": UNARY,
        "ProcessStream": BIDI,
        "ListRejections": UNARY,
        "GetMethodology": UNARY,
    },
    "omen.v1.LedgerService": {
        "ListPartitions": UNARY,
        "GetPartition": UNARY,
        "Replay": SERVER_STREAM,
        "SealPartition": UNARY,
        "VerifyPartition": SERVER_STREAM,
        "PrunePartition": UNARY,
    },
    "omen.v1.DeliveryService": {
        "GetDeliveryState": UNARY,
        "PauseDelivery": UNARY,
        "ResumeDelivery": UNARY,
        "ListDeadLetters": UNARY,
        "RedriveDeadLetters": UNARY,
        "DropDeadLetters": UNARY,
    },
    "omen.v1.StatsService": {"GetStats": UNARY, "ListActivity": UNARY},
    "riskcast.v1.IngestService": {"Ingest": UNARY, "IngestStream": BIDI},
    "riskcast.v1.SignalService": {"GetSignal": UNARY, "ListSignals": UNARY, "CountSignals": UNARY},
    "riskcast.v1.ReconcileService": {
        "Reconcile": SERVER_STREAM,
        "ListReconcileStates": UNARY,
        "AcceptDivergence": UNARY,
    },
}
IDEMPOTENT = {
    "omen.v1.LedgerService.SealPartition",
    "omen.v1.LedgerService.PrunePartition",
    "omen.v1.DeliveryService.PauseDelivery",
    "omen.v1.DeliveryService.ResumeDelivery",
    "omen.v1.DeliveryService.RedriveDeadLetters",
    "omen.v1.DeliveryService.DropDeadLetters",
    "riskcast.v1.IngestService.Ingest",
    "riskcast.v1.ReconcileService.AcceptDivergence",
}


def reachable(root: str) -> set[str]:
    """Names of messages that a message can hold, itself included."""
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in messages():
            continue
        seen.add(name)
        waiting += [field.type_name for field in messages()[name].field]
    return seen


def test_signals_state_facts_and_never_consequences_or_counsel() -> None:
    held = reachable(".omen.v1.SignalEvent")
    assert {".omen.v1.Signal", ".omen.v1.Evidence", ".omen.v1.RoutingHints"} <= held
    names = [f"{name}.{field.name}" for name in held for field in messages()[name].field]
    words = {(name, word) for name in names for word in name.rpartition(".")[2].split("_")}
    assert sorted(name for name, word in words if FORBIDDEN.fullmatch(word)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("severity", "urgency", "priority", "is_actionable", "delay_days", "risk_exposure", "cost_usd"),
        *("impact_score", "impacts", "recommendation", "recommended_action", "advice"),
    ],
)
def test_the_rule_against_consequences_and_counsel_catches(name: str) -> None:
    assert any(FORBIDDEN.fullmatch(word) for word in name.split("_"))


def test_there_is_no_map_because_its_order_is_not_stable() -> None:
    entries = [name for name, field in fields() if field.type_name.endswith("Entry")]
    assert entries == []
    assert [
        name for name, message in messages().items() if any(one.options.map_entry for one in message.nested_type)
    ] == []


def test_nothing_is_imported_but_timestamp_duration_and_our_own() -> None:
    own = {file.name for file in files()}
    imported = {name for file in files() for name in file.dependency}
    assert imported - own == WELL_KNOWN


def test_omen_does_not_know_riskcast() -> None:
    imported = {name for file in files() if file.package == "omen.v1" for name in file.dependency}
    assert [name for name in imported if name.startswith("riskcast/")] == []


def test_every_enum_begins_with_unspecified() -> None:
    zeros = {enum.name: (enum.value[0].name, enum.value[0].number) for file in files() for enum in file.enum_type}
    assert zeros
    prefixes = {name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper() for name in zeros}
    assert zeros == {name: (f"{prefixes[name]}_UNSPECIFIED", 0) for name in zeros}


def test_every_file_names_its_packages_for_go_and_java() -> None:
    options = {
        file.name: (bool(file.options.go_package), bool(file.options.java_package), file.options.java_multiple_files)
        for file in files()
    }
    assert options == dict.fromkeys(options, (True, True, True))


def test_services_and_methods_are_those_of_the_table_with_its_kinds_of_stream() -> None:
    found: dict[str, dict[str, tuple[bool, bool]]] = {}
    for name, method in methods().items():
        service, _, short = name.rpartition(".")
        found.setdefault(service, {})[short] = (method.client_streaming, method.server_streaming)
    assert found == KIND
    assert [service for service in found if not service.endswith("Service")] == []


def test_every_method_has_a_request_and_a_response_of_its_own() -> None:
    types = {name: (method.input_type, method.output_type) for name, method in methods().items()}
    expected = {}
    for name in types:
        package, short = name.rsplit(".", 2)[0], name.rpartition(".")[2]
        expected[name] = (f".{package}.{short}Request", f".{package}.{short}Response")
    assert types == expected


def test_methods_that_may_be_repeated_say_so() -> None:
    """Unary reads have no side effects; of the writes those are idempotent that a proxy may repeat by itself."""
    levels = {name: method.options.idempotency_level for name, method in methods().items()}
    idempotent = {name for name, level in levels.items() if level == MethodOptions.IDEMPOTENT}
    reads = {name for name, level in levels.items() if level == MethodOptions.NO_SIDE_EFFECTS}
    unary_reads = {
        name
        for name, method in methods().items()
        if name.rpartition(".")[2].startswith(("Get", "List", "Count")) and not method.server_streaming
    }
    assert idempotent == IDEMPOTENT
    assert reads == unary_reads


def test_optional_is_used_for_numbers_and_truths_alone_since_messages_tell_unset_by_themselves() -> None:
    kinds = {name: field.type for name, field in fields() if field.proto3_optional}
    odd = {FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_ENUM}
    assert kinds
    assert [name for name, kind in kinds.items() if kind in odd] == []
