-- Times are microseconds since the Unix epoch, UTC. A position is (ledger_id, partition, segment_id, segment_ordinal,
-- record_index), the record index counted from 1; all five are NULL for a signal that came from no ledger.

CREATE TABLE signals (
    signal_id        TEXT    NOT NULL UNIQUE,
    input_event_hash TEXT    NOT NULL,
    ack_id           TEXT    NOT NULL,
    ingested_at      INTEGER NOT NULL,
    emitted_at       INTEGER NOT NULL,
    category         INTEGER NOT NULL,
    source_event_id  TEXT    NOT NULL,
    ledger_id        TEXT,
    partition        TEXT,
    segment_id       BLOB,
    segment_ordinal  INTEGER,
    record_index     INTEGER CHECK (record_index >= 1),
    arrival_path     INTEGER NOT NULL,
    arrival_run_id   TEXT    NOT NULL,
    event            BLOB    NOT NULL,
    CHECK ((ledger_id IS NULL) = (record_index IS NULL))
) STRICT;

-- Covers every count: by segment (is coverage right?) and by ledger and partition (CountSignals).
CREATE INDEX signals_by_place ON signals (ledger_id, segment_id, record_index, partition);

-- Records that made no row. With the places of rows these are the settled records; a duplicate or a conflict only while
-- its signal_id has a row. A conflict's is the wide one, under which OMEN emits its event again.
CREATE TABLE settlements (
    ledger_id       TEXT    NOT NULL,
    partition       TEXT    NOT NULL,
    segment_id      BLOB    NOT NULL,
    segment_ordinal INTEGER NOT NULL,
    record_index    INTEGER NOT NULL CHECK (record_index >= 1),
    outcome         TEXT    NOT NULL CHECK (outcome IN ('duplicate', 'conflict', 'rejected')),
    signal_id       TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    PRIMARY KEY (ledger_id, segment_id, record_index)
) STRICT, WITHOUT ROWID;

-- A cache of what signals and settlements say, written in their transactions: "1-500,502" and how many that is.
CREATE TABLE coverage (
    ledger_id       TEXT    NOT NULL,
    segment_id      BLOB    NOT NULL,
    partition       TEXT    NOT NULL,
    segment_ordinal INTEGER NOT NULL,
    intervals       TEXT    NOT NULL,
    settled_count   INTEGER NOT NULL,
    PRIMARY KEY (ledger_id, segment_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE reconcile_states (
    ledger_id           TEXT    NOT NULL,
    partition           TEXT    NOT NULL,
    status              INTEGER NOT NULL,
    reason              TEXT    NOT NULL,
    ledger_record_count INTEGER NOT NULL,
    highwater_sequence  INTEGER NOT NULL,
    manifest_revision   INTEGER NOT NULL,
    run_id              TEXT    NOT NULL,
    finished_at         INTEGER NOT NULL,
    PRIMARY KEY (ledger_id, partition)
) STRICT, WITHOUT ROWID;
