"""What others ask of the ledger: replay, signals by id and in lists, what comes in from now on."""
