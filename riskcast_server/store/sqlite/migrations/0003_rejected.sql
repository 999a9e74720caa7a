-- Every hello asks what was rejected: mostly nothing, among as many settlements as there were repeats.
CREATE INDEX settlements_rejected ON settlements (ledger_id, segment_id, record_index) WHERE outcome = 'rejected';
