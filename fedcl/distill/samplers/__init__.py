"""Real images of each step: one file a kind. `base.py` holds the contract."""
