"""RiskCast, one process after another on the same file: all of it is real but its sockets."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from contract.errors import ContractError
from riskcast_server.committer import committing
from riskcast_server.ingest import Door
from riskcast_server.ledger_client import LedgerClient
from riskcast_server.reconcile import Reconciler
from riskcast_server.services.ingest import IngestService
from riskcast_server.store import StoreRefused
from riskcast_server.store.sqlite import open_sqlite
from tests.simulation.disk import Disk
from tests.simulation.world import World

T = TypeVar("T")


class Riskcast:
    """`ingest` and `reconciler` are those of the process that runs; ask only while `is_up`."""

    def __init__(self, world: World, disk: Disk, ledgers: Sequence[LedgerClient]) -> None:
        self.world = world
        self.disk = disk
        self._ledgers = ledgers
        self._calls: dict[asyncio.Task[Any], None] = {}  # in order: a set's differs from run to run
        self._process: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self.ingest: IngestService
        self.reconciler: Reconciler

    async def supervise(self) -> None:
        """Starts it again whenever it has ended; runs until cancelled."""
        while True:
            self._process = asyncio.create_task(self._serve())
            await asyncio.wait([self._process])
            if not self._process.cancelled():
                self._process.result()  # raises what must not end it
            self._up.clear()
            self.world.tell("RiskCast is down")
            await self.world.pause(0.01, 0.2)

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def up(self) -> None:
        await self._up.wait()

    def handle(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A call that this process answers, and that dies with it."""
        task = asyncio.create_task(call)
        self._calls[task] = None
        task.add_done_callback(lambda _: self._calls.pop(task, None))
        return task

    async def crash(self) -> None:
        """As by kill -9: nothing it had in mind reaches the file or a client any more.

        What is cancelled cleans up, into a file that is cut off and to clients that have heard of the end.
        """
        self._up.clear()
        dying = [*self._calls, *([self._process] if self._process else [])]
        with self.disk.cut_off():
            while left := [task for task in dying if not task.done()]:
                for task in left:
                    task.cancel()
                await asyncio.wait(left, timeout=0.01)

    async def _serve(self) -> None:
        try:
            async with (
                open_sqlite(str(self.disk.path), busy_timeout_s=0) as store,
                committing(store, self.world.now) as committer,
            ):
                door = Door(committer, self.world.now)
                self.ingest = IngestService(door, store)
                self.reconciler = Reconciler(store, door, self._ledgers, self.world.now)
                self.world.tell("RiskCast is up")
                self._up.set()
                await committer.ended.wait()
        except (StoreRefused, ContractError) as refused:
            self.world.tell(f"RiskCast does not start: {refused}")
