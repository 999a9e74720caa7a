"""What a hello is told of rejected records, whatever the technology, and what that costs."""

import asyncio

from riskcast_server.settlement import Position, Refused
from riskcast_server.store import NO_PLACE, open_store
from riskcast_server.store.postgres import store as postgres
from riskcast_server.store.sqlite import store as sqlite
from tests.riskcast_server.databases import Database, SqliteDatabase
from tests.riskcast_server.events import DAY, LEDGER, OTHER_LEDGER
from tests.riskcast_server.store.test_contract import BAD, SEGMENTS, standing


def test_what_was_rejected_is_told_by_segment_the_first_ones_by_an_index_of_their_own(database: Database) -> None:
    async def scenario() -> None:
        async with open_store(database.url) as store:
            assert await store.rejected(LEDGER, NO_PLACE, 10) == []
            bad = [
                Refused(Position(LEDGER, DAY, segment_id, 1 << 32 | index), "", BAD, b"bad")
                for segment_id, index in ((SEGMENTS[1], 1), (SEGMENTS[0], 3), (SEGMENTS[0], 4))
            ]
            await store.settle([standing("a", SEGMENTS[0], 1), standing("a", SEGMENTS[0], 2), *bad], 7)
            held = sorted([(SEGMENTS[0], 3), (SEGMENTS[0], 4), (SEGMENTS[1], 1)])
            assert await store.rejected(LEDGER, NO_PLACE, 10) == held
            assert await store.rejected(LEDGER, NO_PLACE, 1) == held[:1]
            assert await store.rejected(LEDGER, held[0], 1) == held[1:2]
            assert await store.rejected(LEDGER, held[1], 10) == held[2:]
            assert await store.rejected(OTHER_LEDGER, NO_PLACE, 10) == []
            repeats = "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
            await database.sql(
                f"{repeats} INSERT INTO settlements (ledger_id, partition, segment_id, segment_ordinal, record_index,"
                " outcome, signal_id, input_event_hash, reason) SELECT ledger_id, partition, segment_id, 1, n.i,"
                " 'duplicate', 'a', 'h', '' FROM n, (SELECT * FROM settlements WHERE record_index = 2) t"
            )
            assert await store.rejected(LEDGER, NO_PLACE, 10) == held
            await database.sql("ANALYZE")
            assert "settlements_rejected" in str(await database.sql(planned(database)))

    asyncio.run(scenario())


def planned(database: Database) -> str:
    if isinstance(database, SqliteDatabase):
        asked = sqlite.REJECTED.replace("?", f"'{LEDGER}'", 1).replace("?", "x'00'", 1).replace("?", "10")
        return f"EXPLAIN QUERY PLAN {asked}"
    asked = postgres.REJECTED.replace("$1", f"'{LEDGER}'").replace("$2", r"'\x00'").replace("$3", "0")
    return f"EXPLAIN {asked}".replace("$4", "10")
