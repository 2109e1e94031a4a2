"""Continual algorithms, one page each."""
