"""What a client can get out of PostgreSQL: what its callers hand in meanwhile goes into one INSERT … ON CONFLICT."""

import asyncio
import time
from collections import deque

import asyncpg

import serving
from bench.emit import IN_FLIGHT, new_events
from contract.identity import identity_of_event

TABLE = "CREATE TABLE IF NOT EXISTS emitted (signal_id TEXT PRIMARY KEY, event BYTEA NOT NULL)"
INSERT = """INSERT INTO emitted SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING
    RETURNING signal_id"""

Waiting = deque[tuple[str, bytes, "asyncio.Future[None]"]]


class Coalescing:
    """Rows a second, IN_FLIGHT callers of one event each, over one connection; each is answered after its commit."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._count = count

    def __call__(self) -> float:
        return self._count / serving.run(self._took_s())

    async def _took_s(self) -> float:
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute(TABLE)
            return await self._inserted_s(connection)
        finally:
            await connection.close()

    async def _inserted_s(self, connection: asyncpg.Connection) -> float:
        waiting: Waiting = deque()
        encoded = iter(
            [(identity_of_event(each).signal_id, each.SerializeToString()) for each in new_events(self._count)]
        )

        async def caller() -> None:
            for signal_id, event in encoded:
                answered = asyncio.get_running_loop().create_future()
                waiting.append((signal_id, event, answered))
                await answered

        began = time.perf_counter()
        callers = [asyncio.create_task(caller()) for _ in range(IN_FLIGHT)]
        left = self._count
        while left:
            await asyncio.sleep(0)  # those just answered hand in their next
            left -= await self._insert(connection, waiting)
        await asyncio.gather(*callers)
        return time.perf_counter() - began

    async def _insert(self, connection: asyncpg.Connection, waiting: Waiting) -> int:
        ids, events, answers = zip(*(waiting.popleft() for _ in range(len(waiting))), strict=True)
        new = await connection.fetch(INSERT, ids, events)
        if len(new) != len(ids):
            raise RuntimeError(f"{len(ids) - len(new)} of {len(ids)} rows were there")
        for answered in answers:
            answered.set_result(None)
        return len(ids)
