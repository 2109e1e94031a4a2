"""Objectives, which are what is matched: one file a family. `base.py` holds the contract."""
