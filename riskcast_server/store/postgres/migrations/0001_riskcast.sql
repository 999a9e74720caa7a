-- Times are microseconds since the Unix epoch, UTC. A position is (ledger_id, partition, segment_id, segment_ordinal,
-- record_index), the record index counted from 1; all five are NULL for a signal that came from no ledger. Ordinals and
-- indexes have 32 bits without a sign, so both are BIGINT. Text is compared byte by byte, whatever the database's
-- language: pages, locks and leases go by that order.

CREATE TABLE signals (
    signal_id        TEXT    COLLATE "C" NOT NULL PRIMARY KEY,
    input_event_hash TEXT    COLLATE "C" NOT NULL,
    ack_id           TEXT    COLLATE "C" NOT NULL,
    ingested_at      BIGINT  NOT NULL,
    emitted_at       BIGINT  NOT NULL,
    category         INTEGER NOT NULL,
    source_event_id  TEXT    COLLATE "C" NOT NULL,
    ledger_id        TEXT    COLLATE "C",
    partition        TEXT    COLLATE "C",
    segment_id       BYTEA,
    segment_ordinal  BIGINT,
    record_index     BIGINT  CHECK (record_index >= 1),
    arrival_path     INTEGER NOT NULL,
    arrival_run_id   TEXT    COLLATE "C" NOT NULL,
    event            BYTEA   NOT NULL,
    CHECK ((ledger_id IS NULL) = (record_index IS NULL))
);

-- A position that a client of unary Ingest (arrival_path 1) states is kept and shown, and decides nothing: only what a
-- ledger delivers or replays stands where it says. So places are those rows alone.
CREATE VIEW places AS
    SELECT ledger_id, segment_id, record_index, partition, segment_ordinal, signal_id
    FROM signals WHERE arrival_path <> 1;

-- Between them the two cover every count: by segment (is coverage right?) and by ledger and partition (CountSignals).
CREATE INDEX signals_by_place ON signals (ledger_id, segment_id, record_index, partition) WHERE arrival_path <> 1;
CREATE INDEX signals_by_client ON signals (ledger_id, partition) WHERE arrival_path = 1;

-- ListSignals: in order of time, every other filter decided without reading a row; and the history of one question.
CREATE INDEX signals_by_time ON signals (emitted_at, signal_id, category, partition, ledger_id);
CREATE INDEX signals_by_question ON signals (source_event_id, emitted_at);

-- Records that made no row. With the places of rows these are the settled records; a duplicate or a conflict only while
-- a row has its signal_id and is of the same event. A conflict's id is the wide one, under which OMEN emits it again.
CREATE TABLE settlements (
    ledger_id        TEXT   COLLATE "C" NOT NULL,
    partition        TEXT   COLLATE "C" NOT NULL,
    segment_id       BYTEA  NOT NULL,
    segment_ordinal  BIGINT NOT NULL,
    record_index     BIGINT NOT NULL CHECK (record_index >= 1),
    outcome          TEXT   NOT NULL CHECK (outcome IN ('duplicate', 'conflict', 'rejected')),
    signal_id        TEXT   COLLATE "C" NOT NULL,
    input_event_hash TEXT   NOT NULL,
    reason           TEXT   NOT NULL,
    PRIMARY KEY (ledger_id, segment_id, record_index)
);

-- A cache of what signals and settlements say, written in their transactions: "1-500,502" and how many that is. Its row
-- is also the lock of the segment: whoever settles records of it holds the row first, so one with nothing settled
-- (settled_count 0) may be there. counted_at says when it was last checked by counting; 0 for never.
CREATE TABLE coverage (
    ledger_id       TEXT   COLLATE "C" NOT NULL,
    segment_id      BYTEA  NOT NULL,
    partition       TEXT   COLLATE "C" NOT NULL,
    segment_ordinal BIGINT NOT NULL,
    intervals       TEXT   NOT NULL,
    settled_count   BIGINT NOT NULL,
    counted_at      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (ledger_id, segment_id)
);

-- The right to reconcile a ledger, or to keep the schedule, alone. The fence rises with every new lease of a name.
CREATE TABLE leases (
    name       TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    holder     TEXT   COLLATE "C" NOT NULL,
    fence      BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- How comparing a partition ended, run by run; the highest fence is the last. A whole ledger has the partition ''.
CREATE TABLE reconcile_history (
    ledger_id             TEXT    COLLATE "C" NOT NULL,
    partition             TEXT    COLLATE "C" NOT NULL,
    fence                 BIGINT  NOT NULL,
    status                INTEGER NOT NULL,
    reason                TEXT    NOT NULL,
    ledger_record_count   BIGINT  NOT NULL,
    highwater_sequence    BIGINT  NOT NULL,
    manifest_revision     BIGINT  NOT NULL,
    run_id                TEXT    COLLATE "C" NOT NULL,
    finished_at           BIGINT  NOT NULL,
    missing_record_count  BIGINT  NOT NULL,
    replayed_record_count BIGINT  NOT NULL,
    failed_record_count   BIGINT  NOT NULL,
    extra_record_count    BIGINT  NOT NULL,
    PRIMARY KEY (ledger_id, partition, fence)
);

-- What the last run of a ledger found missing, so that it can be resumed: "1-500,502" by segment.
CREATE TABLE reconcile_missing (
    ledger_id  TEXT  COLLATE "C" NOT NULL,
    run_id     TEXT  COLLATE "C" NOT NULL,
    partition  TEXT  COLLATE "C" NOT NULL,
    segment_id BYTEA NOT NULL,
    intervals  TEXT  NOT NULL,
    PRIMARY KEY (ledger_id, run_id, partition, segment_id)
);

-- Places beyond what a ledger has, which an operator knows of: the ledger was restored from an older copy, or forked.
CREATE TABLE accepted_divergences (
    ledger_id   TEXT   COLLATE "C" NOT NULL,
    segment_id  BYTEA  NOT NULL,
    accepted_at BIGINT NOT NULL,
    partition   TEXT   COLLATE "C" NOT NULL,
    intervals   TEXT   NOT NULL,
    reason      TEXT   NOT NULL,
    PRIMARY KEY (ledger_id, segment_id, accepted_at)
);
