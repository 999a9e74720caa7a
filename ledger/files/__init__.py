"""What lies in a ledger directory, byte by byte and file by file."""
