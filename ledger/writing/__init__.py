"""From the queue to durable positions, and the SEAL that ends a partition."""
