"""P8 and P10: what RiskCast does once its store and the ledger are large. Both are filled once for all of it.

Rows are written by the database's fastest way, as RiskCast itself would write them; coverage is left out: the first
run of Reconcile, which is not counted, finds that it is missing and makes it from the rows.
"""

import itertools
import shutil
from collections.abc import Iterator, Sequence

import serving
from bench import reconcile
from bench.counting_proxy import CountingProxy, counting_proxy
from bench.databases import Database, Technology, fill, technologies
from bench.feed import Feed
from bench.ingest import RECORDS, Streaming, riskcast
from bench.real_ledger import RealLedger, indexed, omen
from bench.rounds import Figure, Measured, Scale, measure
from riskcast.v1.ingest_service_pb2 import RECORD_OUTCOME_STORED

SMALL_ROWS_MAX = 100_000
RECORD_BYTES = 3 * 1400  # in the ledger and in each of two stores, indexes and write-ahead logs included
FREE_BYTES_KEPT = 4 << 30


def figures(scale: Scale) -> Sequence[Figure]:
    needed, free = scale.stored_rows * RECORD_BYTES + FREE_BYTES_KEPT, shutil.disk_usage(scale.folder).free
    if free < needed:
        words = f"need {needed / 1e9:.1f} GB of disk below {scale.folder}; {free / 1e9:.1f} are free"
        raise SystemExit(f"{scale.stored_rows:,} rows {words}")
    ledger = RealLedger(scale.folder / "full ledger", scale.stored_rows)
    with omen(ledger) as target, counting_proxy(target) as proxy, technologies(scale.folder) as all_of_them:
        full = [technology("full") for technology in all_of_them]
        serving.run(fill(full, ledger.rows(range(ledger.count))))
        serving.run(indexed(target, ledger))
        return [
            figure
            for database, technology in zip(full, all_of_them, strict=True)
            for figure in _of_technology(scale, technology, database, ledger, proxy)
        ]


def _of_technology(
    scale: Scale, technology: Technology, full: Database, ledger: RealLedger, proxy: CountingProxy
) -> Iterator[Figure]:
    with riskcast(scale.folder, full, RISKCAST_OMEN_TARGETS=proxy.target) as target:
        yield from reconcile.figures(reconcile.Reconciling(target, full, proxy), ledger, full, scale.rounds)
        small_rows = min(SMALL_ROWS_MAX, scale.stored_rows // 10)
        small = technology("small")
        serving.run(fill([small], ledger.rows(range(small_rows))))
        with riskcast(scale.folder, small) as small_target:
            rates = measure(
                streaming(target, ledger, ledger.count), scale.rounds, streaming(small_target, ledger, small_rows)
            )
    yield growth(scale, full, rates, small_rows)


def streaming(target: str, ledger: RealLedger, stored: int) -> Streaming:
    """New signals, of a ledger of their own."""
    return Streaming(target, Feed(ledger.events), itertools.count(stored), RECORD_OUTCOME_STORED)


def growth(scale: Scale, database: Database, rates: Measured, small_rows: int) -> Figure:
    added = RECORDS * (scale.rounds + 1)
    return Figure(
        f"IngestStream at {scale.stored_rows:,} rows, {database.name}",
        "records/s",
        f"{RECORDS:,} new signals a round, {added:,} added on both sides in the end; else as IngestStream, distinct",
        rates,
        compared_with=f"the same at {small_rows:,} rows",
        at_least=database.growth_share_min,
    )
