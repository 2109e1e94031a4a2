"""Networks that are matched: one file a kind. `base.py` holds the contract."""

from fedcl.distill.networks.around_global import AroundGlobal
from fedcl.distill.networks.base import Networks, NetworkSource, NetworkStream, Weights
from fedcl.distill.networks.fresh import Fresh

__all__ = ["AroundGlobal", "Fresh", "NetworkSource", "NetworkStream", "Networks", "Weights"]
