"""P8: Reconcile of a full store with a full ledger, from the call until run_finished, and what passes on the wire.

Rows are deleted behind RiskCast's back, so that it has to find out by counting. Between it and OMEN stands a proxy that
counts bytes.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import serving
from bench.counting_proxy import CountingProxy
from bench.databases import Database
from bench.real_ledger import RealLedger
from bench.rounds import Figure, Measured, alternated
from riskcast.v1 import reconcile_service_pb2 as pb
from riskcast.v1.reconcile_service_pb2_grpc import ReconcileServiceStub
from riskcast_server.comparison import COUNTED_PER_RUN

TIMEOUT_S = 600.0
SEVERAL = 100


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run; the bytes between RiskCast and OMEN, both ways together."""

    ms: float
    bytes_passed: int


class Reconciling:
    """Deletes rows, and reconciles. RuntimeError unless exactly those come back."""

    def __init__(self, target: str, database: Database, proxy: CountingProxy) -> None:
        """`target` is a RiskCast that stores in `database` and reaches its OMEN through `proxy`."""
        self._target = target
        self._database = database
        self._proxy = proxy

    def without(self, signal_ids: Sequence[str]) -> Cost:
        return serving.run(self._without(signal_ids))

    async def _without(self, signal_ids: Sequence[str]) -> Cost:
        async with self._database.connected() as connection:
            await connection.delete(signal_ids)
        async with serving.connected(self._target) as channel:
            passed_before, began = self._proxy.bytes_passed, time.perf_counter()
            call = ReconcileServiceStub(channel).Reconcile(pb.ReconcileRequest(include_open=True), timeout=TIMEOUT_S)
            run = [message async for message in call][-1].run_finished
            cost = Cost((time.perf_counter() - began) * 1e3, self._proxy.bytes_passed - passed_before)
        if run.status != pb.RECONCILE_STATUS_COMPLETED or run.replayed_record_count != len(signal_ids):
            raise RuntimeError(f"{len(signal_ids)} rows were missing, and the run ended with {run}")
        return cost


def figures(reconciling: Reconciling, ledger: RealLedger, database: Database, rounds: int) -> list[Figure]:
    """With none, one and a hundred missing; with none alone where a run counts but a share: a later one finds them."""
    counts = (0, 1, SEVERAL) if ledger.count <= COUNTED_PER_RUN else (0,)
    costs = alternated(rounds, *(partial(reconciling.without, ledger.spread_ids(count)) for count in counts))
    name = f"Reconcile of {ledger.count:,}, {database.name}"
    settings = (
        f"{ledger.count:,} records of about 800 bytes in the ledger and as many rows, include_open, 3 processes, "
        f"{database.synced}, the channel to OMEN open"
    )
    none, *some = costs
    found = [
        Figure(f"{name}, 0 missing", "ms", settings, Measured(_ms(none)), at_most=300),
        Figure(
            f"{name}, 0 missing", "KiB", settings, Measured([cost.bytes_passed / 1024 for cost in none]), at_most=10
        ),
    ]
    return found + [
        figure
        for count, costs_of_count in zip(counts[1:], some, strict=True)
        for figure in _with_missing(f"{name}, {count} missing", settings, count, costs_of_count, none, ledger)
    ]


def _with_missing(
    name: str, settings: str, count: int, costs: Sequence[Cost], none: Sequence[Cost], ledger: RealLedger
) -> list[Figure]:
    added = [(each.bytes_passed - least.bytes_passed) / count for each, least in zip(costs, none, strict=True)]
    return [
        Figure(name, "ms", settings, Measured(_ms(costs)), at_most=500),
        Figure(name, "ms", settings, Measured(_ms(costs), _ms(none)), compared_with="the same, 0 missing"),
        Figure(
            f"{name}, each adds",
            "bytes",
            settings,
            Measured(added, [float(ledger.message_bytes)]),
            compared_with="its record as a message",
            at_most=1.5 if count == SEVERAL else None,  # the call that fetches one costs as much as that for all
        ),
    ]


def _ms(costs: Sequence[Cost]) -> list[float]:
    return [cost.ms for cost in costs]
