"""Bugs that RiskCast could have (tests/mutation.py lets them in)."""

from tests.mutation import Mutants

DATABASE = "riskcast_server.store.sqlite.database"
FILE = "riskcast_server.store.sqlite.file"
CHECKING = "riskcast_server.store.checking"
STORE = "riskcast_server.store.sqlite.store"
POSTGRES = "riskcast_server.store.postgres.store"
POSTGRES_DATABASE = "riskcast_server.store.postgres.database"

MUTANTS: Mutants = {
    "synchronous=NORMAL": (  # and what reads it back believes in it
        (FILE, "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"),
        (FILE, "SYNCHRONOUS_FULL = 2", "SYNCHRONOUS_FULL = 1"),
    ),
    "journal_mode=DELETE": (  # with synchronous=FULL
        (FILE, "PRAGMA journal_mode = WAL", "PRAGMA journal_mode = DELETE"),
        (FILE, '("wal", SYNCHRONOUS_FULL)', '("delete", SYNCHRONOUS_FULL)'),
    ),
    "log of a killed process taken for synced": (
        (FILE, "            await _sync_log(writer)\n", ""),
    ),
    "acknowledged before the commit": (  # which the next transaction makes up for
        (DATABASE, '                    await self.writer.execute("BEGIN IMMEDIATE")\n',
                   "                    await self.writer.commit()\n"
                   '                    await self.writer.execute("BEGIN IMMEDIATE")\n'),
        (DATABASE, "                    yield self.writer\n                    await self.writer.commit()\n",
                   "                    yield self.writer\n"),
    ),
    "covered outside the transaction": (
        (STORE, "            await _cover(writer, entries, plan.outcomes)\n",
                "        async with self._database.transaction() as writer:\n"
                "            await _cover(writer, entries, plan.outcomes)\n"),
    ),
    "conflict counted as duplicate": (
        ("riskcast_server.settlement", "    if row.signal.input_event_hash != candidate.input_event_hash:\n",
                                       "    if False:\n"),
    ),
    "coverage trusted without counting": (
        (CHECKING, '    found = maybe_coverage(counted.intervals or "", counted.count)\n',
                   '    found = Coverage.decode(counted.intervals or "")\n'),
        (CHECKING, "    if found and (\n"
                   "        is_one_run(found, counted.first, counted.last)"
                   " or await tables.holds(ledger_id, counted.segment_id, found)\n"
                   "    ):\n",
                   "    if True:\n"),
    ),
    "coverage trusted when the count is right": (
        (CHECKING, "    if found and (\n"
                   "        is_one_run(found, counted.first, counted.last)"
                   " or await tables.holds(ledger_id, counted.segment_id, found)\n"
                   "    ):\n",
                   "    if found:\n"),
    ),
    "PostgreSQL: places given out without holding the segment": (
        (POSTGRES, "ORDER BY ledger_id, segment_id FOR UPDATE", "ORDER BY ledger_id, segment_id"),
    ),
    "PostgreSQL: nothing in order": (
        (POSTGRES, "ORDER BY ledger_id, segment_id FOR UPDATE", "ORDER BY segment_id DESC FOR UPDATE"),
        (POSTGRES, "sorted(segments.items(), key=_segment)", "segments.items()"),
        (POSTGRES, "sorted(values_of(row) for row in plan.rows)", "[values_of(row) for row in plan.rows]"),
    ),
    "PostgreSQL: another replica's signal taken for its own": (
        (POSTGRES, "        raise Outrun\n", "        pass\n"),
    ),
    "PostgreSQL: synchronous_commit as it comes": (
        (POSTGRES_DATABASE, "'remote_apply' ELSE 'on' END",
                            "'remote_apply' ELSE current_setting('synchronous_commit') END"),
    ),
}  # fmt: skip
