"""An authority of one's own: for a trial, a test, or two servers that trust nobody else."""
