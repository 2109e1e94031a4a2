# ruff: noqa: F401  (the imports for type checkers are what is offered)
"""fedcl: federated and continual learning with distilled data.

The names below are what programs and plug-ins type: `fedcl.run_federated`, `fedcl.Objective`. Each is imported from
its room when it is first asked for, so that `import fedcl` costs nothing. Importing fedcl has one effect: Flower's
telemetry and Ray's usage statistics are off unless the environment says otherwise.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0.dev0"
DISTRIBUTION = "fedcl-sim"  # as pip knows it: "fedcl" on the package index is another project

_PLACES = {  # module -> the names that it gives
    # runs: a job says what, a runner does it and gives the record
    "fedcl.runs.federated": ("FederatedJob", "run_federated"),
    "fedcl.runs.continual": ("ContinualJob", "run_continual"),
    "fedcl.runs.distill": ("DistillJob", "run_distill"),
    "fedcl.cli.build": ("compose_job",),
    # results
    "fedcl.runs.results": ("load_run",),
    "fedcl.report.records": ("load_runs",),
    "fedcl.report.page": ("write_report",),
    "fedcl.distill.files": ("load_summary", "save_summary"),
    "fedcl.runs.export": ("export_summary", "torch_dataset"),
    # values
    "fedcl.core.types": ("LabeledSet", "Summary", "union"),
    "fedcl.core.inputs": ("InputSpec", "Normalization"),
    "fedcl.distill.context": ("Context",),
    "fedcl.training.recipe": ("Training",),
    "fedcl.training.loop": ("train",),
    "fedcl.core.coding": ("Wire",),
    "fedcl.memory.budget": ("Budget",),
    "fedcl.core.seeding": ("derive",),
    "fedcl.core.errors": ("FedclError",),
    # contracts: what a plug-in derives from, and what its methods take and give
    "fedcl.federated.contract": ("Clients", "client_work"),
    "fedcl.federated.payload": ("Payload", "Reply", "ClientState", "ServerState"),
    "fedcl.continual.contract": ("LearnerContext", "State", "Step"),
    "fedcl.distill.distiller": ("Distiller",),
    "fedcl.distill.objectives.base": ("Objective",),
    "fedcl.distill.batch": ("MatchBatch",),
    "fedcl.scenario.base": ("Scenario", "Recipe", "Partition", "Labels"),
    "fedcl.models.base": ("Model",),
    "fedcl.data.base": ("DataSource", "Dataset", "make_dataset"),
}
PUBLIC = {  # name -> where it is; with the name that it has there, where that is another
    "FederatedStrategy": "fedcl.federated.contract:Strategy",
    "ContinualStrategy": "fedcl.continual.contract:Strategy",
    **{name: module for module, names in _PLACES.items() for name in names},
}

if TYPE_CHECKING:  # the same names for type checkers and editors
    from fedcl.cli.build import compose_job
    from fedcl.continual.contract import LearnerContext, State, Step
    from fedcl.continual.contract import Strategy as ContinualStrategy
    from fedcl.core.coding import Wire
    from fedcl.core.errors import FedclError
    from fedcl.core.inputs import InputSpec, Normalization
    from fedcl.core.seeding import derive
    from fedcl.core.types import LabeledSet, Summary, union
    from fedcl.data.base import Dataset, DataSource, make_dataset
    from fedcl.distill.batch import MatchBatch
    from fedcl.distill.context import Context
    from fedcl.distill.distiller import Distiller
    from fedcl.distill.files import load_summary, save_summary
    from fedcl.distill.objectives.base import Objective
    from fedcl.federated.contract import Clients, client_work
    from fedcl.federated.contract import Strategy as FederatedStrategy
    from fedcl.federated.payload import ClientState, Payload, Reply, ServerState
    from fedcl.memory.budget import Budget
    from fedcl.models.base import Model
    from fedcl.report.page import write_report
    from fedcl.report.records import load_runs
    from fedcl.runs.continual import ContinualJob, run_continual
    from fedcl.runs.distill import DistillJob, run_distill
    from fedcl.runs.export import export_summary, torch_dataset
    from fedcl.runs.federated import FederatedJob, run_federated
    from fedcl.runs.results import load_run
    from fedcl.scenario.base import Labels, Partition, Recipe, Scenario
    from fedcl.training.loop import train
    from fedcl.training.recipe import Training


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"fedcl has no '{name}'; it has {', '.join(sorted(PUBLIC))}")
    module, _, own = PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), own or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
