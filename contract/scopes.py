"""What a key must be allowed, for each RPC of both servers. The comments of the .proto files state the same."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Scope(StrEnum):
    """What a key may be allowed."""

    SIGNALS_EMIT = "signals.emit"
    SIGNALS_READ = "signals.read"
    PIPELINE_PROCESS = "pipeline.process"
    LEDGER_READ = "ledger.read"
    LEDGER_ADMIN = "ledger.admin"
    DELIVERY_ADMIN = "delivery.admin"
    INGEST = "ingest"
    RECONCILE = "reconcile"
    STATS_READ = "stats.read"


# By full method name. A method that is not here is open to nobody (see serving.access.gate).
SCOPES: Mapping[str, Scope] = MappingProxyType(
    {
        "/omen.v1.SignalService/Emit": Scope.SIGNALS_EMIT,
        "/omen.v1.SignalService/EmitStream": Scope.SIGNALS_EMIT,
        "/omen.v1.SignalService/GetSignal": Scope.SIGNALS_READ,
        "/omen.v1.SignalService/ListSignals": Scope.SIGNALS_READ,
        "/omen.v1.SignalService/WatchSignals": Scope.SIGNALS_READ,
        "/omen.v1.PipelineService/Process": Scope.PIPELINE_PROCESS,
        "/omen.v1.PipelineService/ProcessStream": Scope.PIPELINE_PROCESS,
        "/omen.v1.PipelineService/ListRejections": Scope.SIGNALS_READ,
        "/omen.v1.PipelineService/GetMethodology": Scope.SIGNALS_READ,
        "/omen.v1.LedgerService/ListPartitions": Scope.LEDGER_READ,
        "/omen.v1.LedgerService/GetPartition": Scope.LEDGER_READ,
        "/omen.v1.LedgerService/Replay": Scope.LEDGER_READ,
        "/omen.v1.LedgerService/SealPartition": Scope.LEDGER_ADMIN,
        "/omen.v1.LedgerService/VerifyPartition": Scope.LEDGER_ADMIN,  # re-reads everything: not for every reader
        "/omen.v1.LedgerService/PrunePartition": Scope.LEDGER_ADMIN,
        "/omen.v1.DeliveryService/GetDeliveryState": Scope.STATS_READ,
        "/omen.v1.DeliveryService/PauseDelivery": Scope.DELIVERY_ADMIN,
        "/omen.v1.DeliveryService/ResumeDelivery": Scope.DELIVERY_ADMIN,
        "/omen.v1.DeliveryService/ListDeadLetters": Scope.DELIVERY_ADMIN,
        "/omen.v1.DeliveryService/RedriveDeadLetters": Scope.DELIVERY_ADMIN,
        "/omen.v1.DeliveryService/DropDeadLetters": Scope.DELIVERY_ADMIN,
        "/omen.v1.StatsService/GetStats": Scope.STATS_READ,
        "/omen.v1.StatsService/ListActivity": Scope.STATS_READ,
        "/riskcast.v1.IngestService/Ingest": Scope.INGEST,
        "/riskcast.v1.IngestService/IngestStream": Scope.INGEST,
        "/riskcast.v1.SignalService/GetSignal": Scope.SIGNALS_READ,
        "/riskcast.v1.SignalService/ListSignals": Scope.SIGNALS_READ,
        "/riskcast.v1.SignalService/CountSignals": Scope.STATS_READ,
        "/riskcast.v1.ReconcileService/Reconcile": Scope.RECONCILE,
        "/riskcast.v1.ReconcileService/AcceptDivergence": Scope.RECONCILE,
        "/riskcast.v1.ReconcileService/ListReconcileStates": Scope.STATS_READ,
    }
)
