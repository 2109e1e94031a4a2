"""Runs: from a job to its record, one file a verb."""
