"""What is matched: one file a family. `base.py` holds the contract."""
