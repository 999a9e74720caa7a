"""Machines that die, disks that are replaced, and people who mean well."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.simulation.omen import Omen
from tests.simulation.riskcast import Riskcast
from tests.simulation.truth import Truth
from tests.simulation.witness import Witness
from tests.simulation.world import Fault, World

SUSPECTS_MAX = 5  # kinds of misfortune that one seed knows, beside those that come over machines
SPOILT_PARTITION = "2026-01-28-late"  # the only one with records that cannot be read: the others can be COMPLETED
OF_MACHINES = (Fault.CRASH, Fault.OMEN_KILLED, Fault.POWER_CUT, Fault.BOTH_DIED, Fault.OMEN_STOPPED)


class Misfortune:
    def __init__(self, world: World, riskcast: Riskcast, truth: Truth, witness: Witness, omens: Sequence[Omen]) -> None:
        self._world = world
        self._riskcast = riskcast
        self._truth = truth
        self._witness = witness
        self._omens = omens
        self._copy = riskcast.disk.path.with_suffix(".copy")
        changes: dict[Fault, Callable[[sqlite3.Connection], bool]] = {
            Fault.ROWS_DELETED: self._delete_rows,
            Fault.SETTLEMENTS_DELETED: self._delete_settlements,
            Fault.COVERAGE_DELETED: self._delete_coverage,
            Fault.COVERAGE_GARBLED: self._garble_coverage,
        }
        self._changes = changes
        kinds = [*changes, Fault.RESTORED_STOPPED, Fault.RESTORED_RUNNING, Fault.RECORD_DAMAGED, Fault.LEDGER_REGRESSED]
        self._suspects = world.chance.sample(kinds, world.chance.randint(0, SUSPECTS_MAX))
        if Fault.LEDGER_REGRESSED in self._suspects:  # what it no longer has RiskCast knows by its coverage alone
            self._suspects = [each for each in self._suspects if each is not Fault.COVERAGE_DELETED]

    async def befall_until_healed(self) -> None:
        await self._world.pause(0.15, 0.7)
        while not self._world.is_healed:
            await self._befall(self._world.chance.choice([*OF_MACHINES, *self._suspects]))
            self._prepare()
            await self._world.pause(0.15, 0.7)

    def _prepare(self) -> None:
        """Copies are taken while all is well, and used later."""
        if self._world.chance.random() < 0.3 and Fault.LEDGER_REGRESSED in self._suspects:
            self._world.chance.choice(self._omens).copy()
        if self._world.chance.random() < 0.5 and not self._copy.exists():
            self._world.tell("a copy of the database is taken")
            self._truth.copy_to(self._copy)

    async def _befall(self, fault: Fault) -> None:
        omen = self._world.chance.choice(self._omens)
        match fault:
            case Fault.CRASH:
                await self._crash()
            case Fault.OMEN_STOPPED if omen.is_up:
                self._world.strike(fault)
                await omen.stop()
            case Fault.OMEN_KILLED | Fault.POWER_CUT | Fault.BOTH_DIED:
                await self._kill(omen, fault)
            case Fault.RESTORED_STOPPED if self._copy.exists():
                await self._crash()
                self._restore(fault)
            case Fault.RESTORED_RUNNING if self._copy.exists():
                self._restore(fault)
            case Fault.RECORD_DAMAGED if omen.damage(SPOILT_PARTITION):
                self._world.strike(fault)
            case Fault.LEDGER_REGRESSED if await omen.set_back():
                self._world.strike(fault)
            case _ if fault in self._changes:
                self._tamper(fault)

    async def _kill(self, omen: Omen, fault: Fault) -> None:
        self._world.strike(fault)
        await omen.die(loses_power=fault is not Fault.OMEN_KILLED)
        if fault is Fault.BOTH_DIED:
            await self._crash()

    async def _crash(self) -> None:
        self._world.strike(Fault.CRASH)
        await self._riskcast.crash()
        self._witness.kept()

    def _restore(self, fault: Fault) -> None:
        """By the book: the log of the file that was there is of no use to the one that comes."""
        self._world.strike(fault)
        path = self._riskcast.disk.path
        self._copy.replace(path)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        self._witness.tampered()

    def _tamper(self, fault: Fault) -> None:
        """Not while RiskCast writes: then the file is locked, and it does not happen."""
        try:
            with self._truth.changing() as connection:
                has_changed = self._changes[fault](connection)
        except sqlite3.OperationalError:
            return
        if has_changed:
            self._world.strike(fault)
            self._world.is_cache_spoilt = True
            self._witness.tampered()

    def _delete_rows(self, connection: sqlite3.Connection) -> bool:
        return self._delete_some(connection, "signals", "signal_id")

    def _delete_settlements(self, connection: sqlite3.Connection) -> bool:
        return self._delete_some(connection, "settlements", "signal_id")

    def _delete_some(self, connection: sqlite3.Connection, table: str, key: str) -> bool:
        keys = sorted(connection.execute(f"SELECT DISTINCT {key} FROM {table}"))
        for victim in self._world.chance.sample(keys, min(len(keys), 3)):
            connection.execute(f"DELETE FROM {table} WHERE {key} = ?", victim)
        return bool(keys)

    def _delete_coverage(self, connection: sqlite3.Connection) -> bool:
        return self._delete_some(connection, "coverage", "segment_id")

    def _garble_coverage(self, connection: sqlite3.Connection) -> bool:
        """One segment is said to be settled from its first record on, and beyond its last."""
        segments = sorted(connection.execute("SELECT segment_id FROM coverage"))
        if segments:
            values = ("1-99", 99, *self._world.chance.choice(segments))
            connection.execute("UPDATE coverage SET intervals = ?, settled_count = ? WHERE segment_id = ?", values)
        return bool(segments)
