"""fedcl: federated and continual learning with distilled data.

The names below are what programs and plug-ins type: `fedcl.run_federated`, `fedcl.Objective`. Each is imported from
its room when it is first asked for, so that `import fedcl` costs nothing. Importing fedcl has one effect: Flower's
telemetry and Ray's usage statistics are off unless the environment says otherwise.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.2.0.dev0"
DISTRIBUTION = "fedcl-sim"  # as pip knows it: "fedcl" on the package index is another project

PUBLIC = {  # name -> where it is; a module alone where it is called the same there
    # runs: a job says what, a runner does it and gives the record
    "FederatedJob": "fedcl.runs.federated",
    "run_federated": "fedcl.runs.federated",
    "ContinualJob": "fedcl.runs.continual",
    "run_continual": "fedcl.runs.continual",
    "DistillJob": "fedcl.runs.distill",
    "run_distill": "fedcl.runs.distill",
    "compose_job": "fedcl.cli.build",
    # results
    "load_run": "fedcl.runs.results",
    "load_runs": "fedcl.report.records",
    "write_report": "fedcl.report.page",
    "load_summary": "fedcl.distill.files",
    "save_summary": "fedcl.distill.files",
    "export_summary": "fedcl.runs.export",
    "torch_dataset": "fedcl.runs.export",
    # values
    "LabeledSet": "fedcl.core.types",
    "Summary": "fedcl.core.types",
    "union": "fedcl.core.types",
    "InputSpec": "fedcl.core.inputs",
    "Normalization": "fedcl.core.inputs",
    "Context": "fedcl.distill.context",
    "Training": "fedcl.training.recipe",
    "train": "fedcl.training.loop",
    "Wire": "fedcl.core.coding",
    "Budget": "fedcl.memory.budget",
    "derive": "fedcl.core.seeding",
    "FedclError": "fedcl.core.errors",
    # contracts: what a plug-in derives from, and what its methods take and give
    "FederatedStrategy": "fedcl.federated.contract:Strategy",
    "Clients": "fedcl.federated.contract",
    "client_work": "fedcl.federated.contract",
    "Payload": "fedcl.federated.payload",
    "Reply": "fedcl.federated.payload",
    "ClientState": "fedcl.federated.payload",
    "ServerState": "fedcl.federated.payload",
    "ContinualStrategy": "fedcl.continual.contract:Strategy",
    "LearnerContext": "fedcl.continual.contract",
    "State": "fedcl.continual.contract",
    "Step": "fedcl.continual.contract",
    "Distiller": "fedcl.distill.distiller",
    "Objective": "fedcl.distill.objectives.base",
    "MatchBatch": "fedcl.distill.batch",
    "Scenario": "fedcl.scenario.base",
    "Recipe": "fedcl.scenario.base",
    "Partition": "fedcl.scenario.base",
    "Labels": "fedcl.scenario.base",
    "Model": "fedcl.models.base",
    "DataSource": "fedcl.data.base",
    "Dataset": "fedcl.data.base",
    "make_dataset": "fedcl.data.base",
}

if TYPE_CHECKING:  # the same names for type checkers and editors
    from fedcl.cli.build import compose_job as compose_job
    from fedcl.continual.contract import LearnerContext as LearnerContext
    from fedcl.continual.contract import State as State
    from fedcl.continual.contract import Step as Step
    from fedcl.continual.contract import Strategy as ContinualStrategy  # noqa: F401
    from fedcl.core.coding import Wire as Wire
    from fedcl.core.errors import FedclError as FedclError
    from fedcl.core.inputs import InputSpec as InputSpec
    from fedcl.core.inputs import Normalization as Normalization
    from fedcl.core.seeding import derive as derive
    from fedcl.core.types import LabeledSet as LabeledSet
    from fedcl.core.types import Summary as Summary
    from fedcl.core.types import union as union
    from fedcl.data.base import Dataset as Dataset
    from fedcl.data.base import DataSource as DataSource
    from fedcl.data.base import make_dataset as make_dataset
    from fedcl.distill.batch import MatchBatch as MatchBatch
    from fedcl.distill.context import Context as Context
    from fedcl.distill.distiller import Distiller as Distiller
    from fedcl.distill.files import load_summary as load_summary
    from fedcl.distill.files import save_summary as save_summary
    from fedcl.distill.objectives.base import Objective as Objective
    from fedcl.federated.contract import Clients as Clients
    from fedcl.federated.contract import Strategy as FederatedStrategy  # noqa: F401
    from fedcl.federated.contract import client_work as client_work
    from fedcl.federated.payload import ClientState as ClientState
    from fedcl.federated.payload import Payload as Payload
    from fedcl.federated.payload import Reply as Reply
    from fedcl.federated.payload import ServerState as ServerState
    from fedcl.memory.budget import Budget as Budget
    from fedcl.models.base import Model as Model
    from fedcl.report.page import write_report as write_report
    from fedcl.report.records import load_runs as load_runs
    from fedcl.runs.continual import ContinualJob as ContinualJob
    from fedcl.runs.continual import run_continual as run_continual
    from fedcl.runs.distill import DistillJob as DistillJob
    from fedcl.runs.distill import run_distill as run_distill
    from fedcl.runs.export import export_summary as export_summary
    from fedcl.runs.export import torch_dataset as torch_dataset
    from fedcl.runs.federated import FederatedJob as FederatedJob
    from fedcl.runs.federated import run_federated as run_federated
    from fedcl.runs.results import load_run as load_run
    from fedcl.scenario.base import Labels as Labels
    from fedcl.scenario.base import Partition as Partition
    from fedcl.scenario.base import Recipe as Recipe
    from fedcl.scenario.base import Scenario as Scenario
    from fedcl.training.loop import train as train
    from fedcl.training.recipe import Training as Training


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"fedcl has no '{name}'; it has {', '.join(sorted(PUBLIC))}")
    module, _, own = PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), own or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
