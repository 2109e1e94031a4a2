"""Data sets: uint8 at rest, in class order, normalised at use. Start with `base.py`."""
