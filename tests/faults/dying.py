"""A server that kills itself with SIGKILL at a named point: `python -m tests.faults.dying POINT COUNT serve`.

COUNT says how often the point is passed before. Segments are small, so that one rolls over soon.
"""

import inspect
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from threading import Thread
from typing import Any

from ledger import Ledger

REACHED = "killed at: "
SEGMENT_RECORDS_MAX = 64
AHEAD = timedelta(days=3)  # by then today is over, and its partition is to be sealed
POLL_S = 0.0002

Function = Callable[..., Any]


@dataclass
class Fuse:
    name: str
    left: int

    def burn(self) -> None:
        """Once more here; the last time ends the process."""
        if self.is_last():
            self.blow()

    def is_last(self) -> bool:
        self.left -= 1
        return self.left < 0

    def blow(self) -> None:
        os.write(sys.stderr.fileno(), f"{REACHED}{self.name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def before(original: Function, fuse: Fuse) -> Function:
    if not inspect.iscoroutinefunction(original):

        def called(*arguments: Any, **named: Any) -> Any:
            fuse.burn()
            return original(*arguments, **named)

        return called

    async def awaited(*arguments: Any, **named: Any) -> Any:
        fuse.burn()
        return await original(*arguments, **named)

    return awaited


def after(original: Function, fuse: Fuse) -> Function:
    if not inspect.iscoroutinefunction(original):

        def called(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            fuse.burn()
            return result

        return called

    async def awaited(*arguments: Any, **named: Any) -> Any:
        result = await original(*arguments, **named)
        fuse.burn()
        return result

    return awaited


def halfway(original: Function, fuse: Fuse) -> Function:
    """Of Disk.write."""

    def write(disk: object, fd: int, data: bytes) -> Any:
        if fuse.is_last():
            original(disk, fd, data[: len(data) // 2])
            fuse.blow()
        return original(disk, fd, data)

    return write


def in_a_checkpoint(original: Function, fuse: Fuse) -> Function:
    """Of any method that writes: with a write-ahead log the database itself is written to in a checkpoint alone."""
    database = Path(os.environ["RISKCAST_DATABASE_URL"].removeprefix("sqlite:///"))

    def written_at() -> int:
        return database.stat().st_mtime_ns

    def watch(before: int) -> None:
        while written_at() == before:
            time.sleep(POLL_S)
        fuse.blow()

    async def watched(*arguments: Any, **named: Any) -> Any:
        if fuse.is_last() and fuse.left == -1:
            Thread(target=watch, args=(written_at(),), daemon=True).start()
        return await original(*arguments, **named)

    return watched


@dataclass(frozen=True)
class Point:
    """`place`: module:function, replaced by what `dies` makes of it; passed at most `passed_max` times before."""

    module: str
    place: str
    dies: Callable[[Function, Fuse], Function]
    passed_max: int = 30
    is_ahead: bool = False  # by its clock today is over


OMEN, RISKCAST = "omen_server", "riskcast_server"
STREAM = "grpc.aio._call:StreamStreamCall"  # OMEN opens one alone, to RiskCast
STORE = "riskcast_server.store.sqlite.store"

POINTS: dict[str, Point] = {
    "half of a batch is written": Point(OMEN, "ledger.disk:Disk.write", halfway),
    "the torn tail is set aside and nobody is served": Point(OMEN, "ledger.writer:open_house", after, passed_max=0),
    "a batch is written and not synced": Point(OMEN, "ledger.files.segment:LiveSegment.sync", before),
    "a batch is synced and nobody knows": Point(OMEN, "ledger.writing.commit:Committer.commit", after),
    "a batch is durable and nobody is answered": Point(OMEN, "omen_server.journal:Journal._resolve", before),
    "records are sent and not answered": Point(OMEN, f"{STREAM}.write", after),
    "an answer is there and not noted": Point(OMEN, f"{STREAM}.read", after),
    "a segment is finished and the next not begun": Point(
        OMEN, "ledger.writing.commit:Committer._create", before, passed_max=2
    ),
    "a segment is begun and empty": Point(OMEN, "ledger.writing.commit:Committer._create", after, passed_max=2),
    "the index is written": Point(OMEN, "ledger.index.ledger_index:LedgerIndex._write", after, passed_max=5),
    "a day is finished and not sealed": Point(OMEN, "ledger.writing.sealing:publish", before, 0, is_ahead=True),
    "a day is sealed and nobody knows": Point(OMEN, "ledger.writing.sealing:publish", after, 0, is_ahead=True),
    "a pause is written": Point(OMEN, "omen_server.pause:PauseSwitch._write", after, passed_max=0),
    "the hello is there and not answered": Point(
        RISKCAST, "riskcast_server.services.ingest:IngestService._greet", before, passed_max=0
    ),
    "the hello is worked out and not sent": Point(
        RISKCAST, "riskcast_server.services.ingest:IngestService._greet", after, passed_max=0
    ),
    "rows are written and not covered": Point(RISKCAST, f"{STORE}:_cover", before),
    "all is written and not committed": Point(RISKCAST, "aiosqlite:Connection.commit", before),
    "a batch is committed and nobody is answered": Point(RISKCAST, f"{STORE}:SqliteStore.settle", after),
    "the log is on its way into the database": Point(RISKCAST, f"{STORE}:SqliteStore.settle", in_a_checkpoint),
    "the database is recovered and nobody is served": Point(
        RISKCAST, "riskcast_server.store.sqlite.database:Database._open", after, passed_max=0
    ),
    "records are fetched and not settled": Point(
        RISKCAST, "riskcast_server.reconcile:Reconciler._admitted", before, passed_max=0
    ),
    "records are fetched and on their way into the store": Point(
        RISKCAST, "riskcast_server.reconcile:Reconciler._admitted", after, passed_max=0
    ),
}


def arm(name: str, count: int) -> None:
    point = POINTS[name]
    module, _, path = point.place.partition(":")
    *owners, attribute = path.split(".")
    owner = resolve_name(f"{module}:{'.'.join(owners)}") if owners else import_module(module)
    setattr(owner, attribute, point.dies(getattr(owner, attribute), Fuse(name, count)))


def roll_over_soon() -> None:
    original = Ledger.open

    def opened(directory: Path, **named: Any) -> Ledger:
        named["settings"] = replace(named["settings"], segment_records_max=SEGMENT_RECORDS_MAX)
        return original(directory, **named)

    setattr(Ledger, "open", opened)  # noqa: B010 - mypy knows it as a classmethod


def go_ahead() -> None:
    """The server's clock, and its ledger's."""

    def now() -> datetime:
        return datetime.now(UTC) + AHEAD

    setattr(import_module("omen_server.app"), "utc_now", now)  # noqa: B010 - as above
    original = Ledger.open
    setattr(Ledger, "open", lambda directory, **named: original(directory, now=now, **named))  # noqa: B010


def main(name: str, count: str, *arguments: str) -> None:
    roll_over_soon()
    if POINTS[name].is_ahead:
        go_ahead()
    arm(name, int(count))
    module = POINTS[name].module
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
