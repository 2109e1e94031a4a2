"""Federated algorithms: both halves on one page. The contract is `fedcl/federated/contract.py`."""
