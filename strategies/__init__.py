"""Algorithms, one page each: `federated/` and `continual/`. The library never imports them."""
