"""What OMEN does for its ledger in its own time: seal days, re-read them, remove those that are asked to go."""
