"""Re-reading every byte against everything that speaks of it."""
