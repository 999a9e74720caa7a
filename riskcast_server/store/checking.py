"""Coverage is a cache of what rows and settlements say: how it is checked by counting, whatever the technology."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from contract.coverage import Coverage
from riskcast_server.store.rows import (
    CachedCoverage,
    is_one_run,
    least_recently_counted,
    maybe_coverage,
    portions,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Counted:
    """What rows and settlements say of a segment, beside what is cached ("" for nothing). No ends where nothing is."""

    segment_id: bytes
    intervals: str | None
    count: int
    first: int | None
    last: int | None


class CoverageTables(Protocol):
    """What of a store coverage is checked with; each answer is of one moment."""

    async def cached(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[CachedCoverage]:
        """Those that have a cache."""

    async def counted(self, ledger_id: str, segment_ids: Sequence[bytes]) -> list[Counted]:
        """One for each."""

    async def holds(self, ledger_id: str, segment_id: bytes, settled: Coverage) -> bool:
        """Whether each of these records is settled, run by run."""

    async def rebuild(self, ledger_id: str, segment_id: bytes) -> Coverage:
        """The cache made anew, and what it holds."""

    async def note_counted(self, ledger_id: str, segment_ids: Sequence[bytes], turn: int) -> None:
        """Next time others come first."""


async def checked(
    tables: CoverageTables, ledger_id: str, segment_ids: Sequence[bytes], counted_max: int | None
) -> dict[bytes, Coverage]:
    """As `Store.coverage`."""
    cached = await tables.cached(ledger_id, segment_ids)
    settled: dict[bytes, Coverage] = {}
    to_count = list(segment_ids)
    if counted_max is not None:
        settled = {each.segment_id: found for each in cached if (found := each.maybe_settled())}
        to_count = least_recently_counted(segment_ids, cached, counted_max)
    for asked in portions(to_count, cached):
        for each in await tables.counted(ledger_id, asked):
            settled[each.segment_id] = await _settled(tables, ledger_id, each)
    if 0 < len(to_count) < len(segment_ids):  # it matters only where they take turns
        turn = 1 + max((each.counted_at for each in cached), default=0)
        await tables.note_counted(ledger_id, to_count, turn)
    return {segment_id: found for segment_id, found in settled.items() if found.intervals}


async def _settled(tables: CoverageTables, ledger_id: str, counted: Counted) -> Coverage:
    """As cached where that is what was counted: as many, and the same."""
    found = maybe_coverage(counted.intervals or "", counted.count)
    if found and (
        is_one_run(found, counted.first, counted.last) or await tables.holds(ledger_id, counted.segment_id, found)
    ):
        return found
    segment_id = counted.segment_id.hex()
    log.warning("coverage_rebuilt", ledger_id=ledger_id, segment_id=segment_id, counted=counted.count)
    return await tables.rebuild(ledger_id, counted.segment_id)
