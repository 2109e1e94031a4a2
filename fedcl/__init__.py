"""fedcl: federated and continual learning with distilled data.

Importing fedcl has one effect: Flower's telemetry and Ray's usage statistics are off
unless the environment says otherwise.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0.dev0"
DISTRIBUTION = "fedcl-sim"  # as pip knows it: "fedcl" on the package index is another project
