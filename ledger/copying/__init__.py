"""A backup of a live ledger."""
