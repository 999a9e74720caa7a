"""A good request of every RPC, made for a pair of servers that holds something: what hostile ones begin from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from contract.errors import timestamp
from contract.identity import fill_identity, input_event_hash
from omen.v1 import delivery_service_pb2 as delivery
from omen.v1 import ledger_service_pb2 as ledger
from omen.v1 import pipeline_service_pb2 as pipeline
from omen.v1 import signal_service_pb2 as signals
from omen.v1.ledger_record_pb2 import IndexRange, LedgerPosition, LedgerRecord, SegmentRanges
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1 import ingest_service_pb2 as ingest
from riskcast.v1 import reconcile_service_pb2 as reconcile
from riskcast.v1 import signal_service_pb2 as stored
from tests.contract.samples import EMITTED_AT, full_event, full_observation
from tests.hostile.servers import METHODS, Both
from tests.omen_server.domain.observations import MARKET, made
from tests.riskcast_server.events import LEDGER, SEGMENT, position

EMIT = "/omen.v1.SignalService/Emit"
PROCESS = "/omen.v1.PipelineService/Process"
INGEST = "/riskcast.v1.IngestService/Ingest"
INGEST_STREAM = "/riskcast.v1.IngestService/IngestStream"

END = EMITTED_AT.replace(year=2030)


@dataclass(frozen=True)
class Known:
    """What the servers held before anybody was hostile."""

    signal_id: str
    position: LedgerPosition


def known(servers: Both) -> Known:
    """Emits one signal."""
    emission = servers.ask(EMIT, signals.EmitRequest(event=event(0))).emission
    return Known(emission.signal_id, emission.position)


def event(number: int) -> SignalEvent:
    """Every field is set but those that OMEN derives."""
    good = full_event()
    good.source_event_id = f"hostile:{number}"
    good.canonical_observation = str(number).encode()
    good.input_event_hash = input_event_hash(good.canonical_observation)
    for derived in ("signal_id", "deterministic_trace_id", "emitted_at"):
        good.ClearField(derived)
    return good


def whole_event(number: int) -> SignalEvent:
    """As a ledger holds it."""
    good = event(number)
    good.emitted_at.CopyFrom(timestamp(EMITTED_AT))
    fill_identity(good)
    return good


def good_requests(known: Known) -> Mapping[str, Callable[[], list[Message]]]:
    """By path: the requests of one call, new ones at each call."""
    numbers = count(1)
    held = known.position
    asked = SegmentRanges(segment_id=held.segment_id, ranges=[IndexRange(first=1, last=1)])
    span: dict[str, Any] = {"emitted_from": timestamp(EMITTED_AT), "emitted_before": timestamp(END)}
    found: dict[str, Callable[[], list[Message]]] = {
        EMIT: lambda: [signals.EmitRequest(event=event(next(numbers)), delivery_timeout=Duration(seconds=5))],
        PROCESS: lambda: [pipeline.ProcessRequest(observation=observation(next(numbers)))],
        INGEST: lambda: [ingest.IngestRequest(event=whole_event(next(numbers)), position=position(1))],
        INGEST_STREAM: lambda: stream(next(numbers)),
        "/omen.v1.SignalService/GetSignal": lambda: [signals.GetSignalRequest(signal_id=known.signal_id)],
        "/omen.v1.SignalService/ListSignals": lambda: [signals.ListSignalsRequest(page_size=2, **span)],
        "/omen.v1.LedgerService/GetPartition": lambda: [ledger.GetPartitionRequest(partition=held.partition)],
        "/omen.v1.LedgerService/Replay": lambda: [ledger.ReplayRequest(partition=held.partition, ranges=[asked])],
        "/omen.v1.LedgerService/SealPartition": lambda: [ledger.SealPartitionRequest(partition=held.partition)],
        "/omen.v1.LedgerService/VerifyPartition": lambda: [ledger.VerifyPartitionRequest(partition=held.partition)],
        "/omen.v1.DeliveryService/PauseDelivery": lambda: [delivery.PauseDeliveryRequest(reason="a test")],
        "/riskcast.v1.SignalService/GetSignal": lambda: [stored.GetSignalRequest(signal_id=known.signal_id)],
        "/riskcast.v1.SignalService/ListSignals": lambda: [
            stored.ListSignalsRequest(ledger_id=held.ledger_id, partition=held.partition, page_size=2, **span)
        ],
        "/riskcast.v1.SignalService/CountSignals": lambda: [
            stored.CountSignalsRequest(ledger_id=held.ledger_id, partition=held.partition)
        ],
        "/riskcast.v1.ReconcileService/Reconcile": lambda: [
            reconcile.ReconcileRequest(ledger_ids=[held.ledger_id], partitions=[held.partition])
        ],
        "/riskcast.v1.ReconcileService/ListReconcileStates": lambda: [
            reconcile.ListReconcileStatesRequest(ledger_id=held.ledger_id, partition=held.partition)
        ],
        "/riskcast.v1.ReconcileService/AcceptDivergence": lambda: [
            reconcile.AcceptDivergenceRequest(ledger_id=held.ledger_id, reason="a test")
        ],
    }
    return {path: found.get(path, partial(empty, path)) for path in METHODS}


def empty(path: str) -> list[Message]:
    return [GetMessageClass(METHODS[path].input_type)()]


def observation(number: int) -> Any:
    """Every other has every field set; the rest pass the rules."""
    if number % 2:
        good = full_observation()
        good.source_event_id = f"hostile:{number}"
        return good
    return made(MARKET, source_event_id=f"hostile:{number}")


def stream(number: int) -> list[Message]:
    """A hello and a batch of one record, of a ledger that is not OMEN's."""
    hello = ingest.IngestHello(ledger_id=LEDGER, segments=[ingest.SegmentCount(segment_id=SEGMENT, record_count=1)])
    record = LedgerRecord(
        position=position(number), written_at=timestamp(EMITTED_AT), event=whole_event(number).SerializeToString()
    )
    return [
        ingest.IngestStreamRequest(hello=hello),
        ingest.IngestStreamRequest(batch=ingest.IngestBatch(records=[record])),
    ]
