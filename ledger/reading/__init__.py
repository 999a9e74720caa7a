"""From durable bytes to records, beside the writer or from another process."""
