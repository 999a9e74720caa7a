"""Which signal stands where: derived from the ledger, in SQLite, expendable."""
