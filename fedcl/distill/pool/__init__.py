"""Which networks are matched: one file a pool. `base.py` holds the contract."""

from fedcl.distill.pool.base import Networks, Pool, PoolSource, Weights
from fedcl.distill.pool.fresh import Fresh
from fedcl.distill.pool.given import Given

__all__ = ["Fresh", "Given", "Networks", "Pool", "PoolSource", "Weights"]
