-- A position that a client of unary Ingest (arrival_path 1) states is kept and shown, and decides nothing: only what a
-- ledger delivers or replays stands where it says. So places are those rows alone.
CREATE VIEW places AS
    SELECT ledger_id, segment_id, record_index, partition, segment_ordinal, signal_id
    FROM signals WHERE arrival_path <> 1;

-- Between them the two cover every count: by segment (is coverage right?) and by ledger and partition (CountSignals).
DROP INDEX signals_by_place;
CREATE INDEX signals_by_place ON signals (ledger_id, segment_id, record_index, partition) WHERE arrival_path <> 1;
CREATE INDEX signals_by_client ON signals (ledger_id, partition) WHERE arrival_path = 1;

-- ListSignals: in order of time, every other filter decided without reading a row, which costs next to nothing; and the
-- history of one question, whose keys come in no order: without it a fifth more rows per second would be stored.
CREATE INDEX signals_by_time ON signals (emitted_at, signal_id, category, partition, ledger_id);
CREATE INDEX signals_by_question ON signals (source_event_id, emitted_at);

-- A duplicate or a conflict counts only while a row has its id and is of the same event: ids are short, and may come to
-- belong to another one. Where that is not known any more, the record is fetched again.
ALTER TABLE settlements ADD COLUMN input_event_hash TEXT NOT NULL DEFAULT '';
UPDATE settlements SET input_event_hash = COALESCE(
    (SELECT s.input_event_hash FROM signals s WHERE s.signal_id = settlements.signal_id), '')
    WHERE outcome <> 'rejected';

-- When the coverage of the segment was last checked by counting; 0 for never.
ALTER TABLE coverage ADD COLUMN counted_at INTEGER NOT NULL DEFAULT 0;

-- The right to reconcile a ledger, or to keep the schedule, alone. The fence rises with every new lease of a name.
CREATE TABLE leases (
    name       TEXT    NOT NULL PRIMARY KEY,
    holder     TEXT    NOT NULL,
    fence      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How comparing a partition ended, run by run; the highest fence is the last. A whole ledger has the partition ''.
CREATE TABLE reconcile_history (
    ledger_id             TEXT    NOT NULL,
    partition             TEXT    NOT NULL,
    fence                 INTEGER NOT NULL,
    status                INTEGER NOT NULL,
    reason                TEXT    NOT NULL,
    ledger_record_count   INTEGER NOT NULL,
    highwater_sequence    INTEGER NOT NULL,
    manifest_revision     INTEGER NOT NULL,
    run_id                TEXT    NOT NULL,
    finished_at           INTEGER NOT NULL,
    missing_record_count  INTEGER NOT NULL,
    replayed_record_count INTEGER NOT NULL,
    failed_record_count   INTEGER NOT NULL,
    extra_record_count    INTEGER NOT NULL,
    PRIMARY KEY (ledger_id, partition, fence)
) STRICT, WITHOUT ROWID;

INSERT INTO reconcile_history SELECT ledger_id, partition, 0, status, reason, ledger_record_count, highwater_sequence,
    manifest_revision, run_id, finished_at, 0, 0, 0, 0 FROM reconcile_states;
DROP TABLE reconcile_states;

-- What the last run of a ledger found missing, so that it can be resumed: "1-500,502" by segment.
CREATE TABLE reconcile_missing (
    ledger_id  TEXT NOT NULL,
    run_id     TEXT NOT NULL,
    partition  TEXT NOT NULL,
    segment_id BLOB NOT NULL,
    intervals  TEXT NOT NULL,
    PRIMARY KEY (ledger_id, run_id, partition, segment_id)
) STRICT, WITHOUT ROWID;

-- Places beyond what a ledger has, which an operator knows of: the ledger was restored from an older copy, or forked.
CREATE TABLE accepted_divergences (
    ledger_id   TEXT    NOT NULL,
    segment_id  BLOB    NOT NULL,
    accepted_at INTEGER NOT NULL,
    partition   TEXT    NOT NULL,
    intervals   TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    PRIMARY KEY (ledger_id, segment_id, accepted_at)
) STRICT, WITHOUT ROWID;
