"""The load tests that the audit of the earlier HTTP system proposed. A wrong count is an error, not a figure."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc

import serving
from bench.counting_proxy import counting_proxy
from bench.databases import Technology, fill, technologies
from bench.events import Events, ids_of
from bench.ingest import riskcast
from bench.ledger_append import IN_FLIGHT, Appender, payloads
from bench.real_ledger import RealLedger, omen
from bench.reconcile import Reconciling
from bench.rounds import Figure, Measured, Scale, alternated, measure
from ledger import Ledger, LedgerSettings
from ledger.positions import sequence_of
from omen.v1.signal_event_pb2 import SignalEvent
from riskcast.v1.ingest_service_pb2 import IngestRequest
from riskcast.v1.ingest_service_pb2_grpc import IngestServiceStub

WRITES = 10_000
SEGMENT_RECORDS = 1_000
DISTINCT, OF_ONE = 100, 50
LEDGER_SIGNALS, PROCESSED = 1_000, 100
CALL_TIMEOUT_S = 30.0


def figures(scale: Scale) -> list[Figure]:
    with technologies(scale.folder) as all_of_them:
        ledger = RealLedger(scale.folder / "audited ledger", LEDGER_SIGNALS)
        stores = [figure for each in all_of_them for figure in (*ingests(scale, each), replay(scale, each, ledger))]
    return [*writes_and_scan(scale), *stores]


def writes_and_scan(scale: Scale) -> list[Figure]:
    directories = (scale.folder / f"audited-{number}" for number in itertools.count())
    rounds = alternated(scale.rounds, lambda: written_and_scanned(next(directories)))
    written, scanned = zip(*rounds[0], strict=True)
    settings = (
        f"{WRITES:,} payloads of 1 KiB, {IN_FLIGHT} in flight, 1 process, one fdatasync a batch, a new segment every "
        f"{SEGMENT_RECORDS:,}; the earlier HTTP system: "
    )
    return [
        Figure("audit: ledger writes and rollover", "records/s", settings + "1,652", Measured(list(written))),
        Figure("audit: full scan by the reader", "records/s", settings + "27,500", Measured(list(scanned))),
    ]


def written_and_scanned(directory: Path) -> tuple[float, float]:
    appender = Appender(directory, IN_FLIGHT, LedgerSettings(segment_records_max=SEGMENT_RECORDS))
    with appender.ledger as ledger:
        began = time.perf_counter()
        appender.append(payloads(WRITES), datetime.now(UTC))
        took_s = time.perf_counter() - began
        return WRITES / took_s, scanned_per_s(ledger)


def scanned_per_s(ledger: Ledger) -> float:
    """RuntimeError unless every segment was rolled over when it was full, and every record is read, in order."""
    began = time.perf_counter()
    (info,) = ledger.partitions()
    sequences = [record.position.sequence for record in ledger.reader().records(info.name)]
    took_s = time.perf_counter() - began
    ordinals, indexes = range(1, WRITES // SEGMENT_RECORDS + 1), range(1, SEGMENT_RECORDS + 1)
    if sequences != [sequence_of(ordinal, index) for ordinal in ordinals for index in indexes]:
        raise RuntimeError(f"{len(sequences)} of {WRITES} records were read, up to {sequences[-1:]}")
    return len(sequences) / took_s


def ingests(scale: Scale, technology: Technology) -> list[Figure]:
    database = technology("audited")
    events, numbers = Events(datetime.now(UTC)), itertools.count()
    all_new = {grpc.StatusCode.OK: DISTINCT}
    one_new = {grpc.StatusCode.OK: 1, grpc.StatusCode.ALREADY_EXISTS: OF_ONE - 1}
    with riskcast(scale.folder, database) as target:
        distinct, of_one = alternated(
            scale.rounds,
            lambda: serving.run(at_once_ms(target, [events.event(next(numbers)) for _ in range(DISTINCT)], all_new)),
            lambda: serving.run(at_once_ms(target, [events.event(next(numbers))] * OF_ONE, one_new)),
        )
    settings = (
        f"unary Ingest, 2 processes, sent at once over one channel, {database.synced}; time until the last answer"
    )
    return [
        Figure(f"audit: {DISTINCT} signals at once, {database.name}", "ms", settings, Measured(distinct)),
        Figure(
            f"audit: one signal {OF_ONE} times at once, {database.name}",
            "ms",
            f"{settings}; exactly 1 OK and {OF_ONE - 1} ALREADY_EXISTS each time",
            Measured(of_one),
        ),
    ]


async def at_once_ms(target: str, events: Sequence[SignalEvent], expected: dict[grpc.StatusCode, int]) -> float:
    """RuntimeError unless the statuses are the expected ones."""
    async with serving.connected(target) as channel:
        stub = IngestServiceStub(channel)

        async def status(event: SignalEvent) -> grpc.StatusCode:
            return await stub.Ingest(IngestRequest(event=event), timeout=CALL_TIMEOUT_S).code()

        began = time.perf_counter()
        statuses = Counter(await asyncio.gather(*map(status, events)))
        took_ms = (time.perf_counter() - began) * 1e3
    if statuses != expected:
        raise RuntimeError(f"{len(events)} Ingests at once were answered {statuses}")
    return took_ms


def replay(scale: Scale, technology: Technology, ledger: RealLedger) -> Figure:
    database = technology("replayed")
    serving.run(fill([database], ledger.rows(range(PROCESSED))))
    missing = [ids_of(number).signal_id for number in range(PROCESSED, LEDGER_SIGNALS)]
    with (
        omen(ledger) as omen_target,
        counting_proxy(omen_target) as proxy,
        riskcast(scale.folder, database, RISKCAST_OMEN_TARGETS=proxy.target) as target,
    ):
        reconciling = Reconciling(target, database, proxy)
        measured = measure(lambda: reconciling.without(missing).ms, scale.rounds)
    return Figure(
        f"audit: Reconcile, {len(missing)} of {LEDGER_SIGNALS:,} missing, {database.name}",
        "ms",
        f"{PROCESSED} of {LEDGER_SIGNALS:,} signals stored, exactly {len(missing)} replayed each time, 3 processes, "
        f"{database.synced}; the earlier HTTP system took 52,000 ms",
        measured,
    )
