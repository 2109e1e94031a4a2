"""The verbs of the command line as a table that names its modules and imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One command that runs something. Its configuration is `configs/<verb>.yaml`."""

    summary: str  # one line of help
    module: str  # where its job and its runner are
    job: str  # frozen dataclass: what to run
    run: str  # function (job, progress) -> record
    parts: Mapping[str, str]  # field of the job -> group of the configuration that fills it


VERBS = {
    "federated": Verb(
        summary="clients that send summaries (or weights) to a server",
        module="fedcl.runs.federated",
        job="FederatedJob",
        run="run_federated",
        parts={
            "source": "dataset",
            "model": "model",
            "recipe": "scenario",
            "distiller": "distiller",
            "strategy": "strategy",
            "runtime": "runtime",
            "wire": "wire",
            "compress": "compress",
            "stop": "stop",
            "limits": "limits",
        },
    ),
    "continual": Verb(
        summary="a stream of classes or domains, and a learner with a distilled buffer",
        module="fedcl.runs.continual",
        job="ContinualJob",
        run="run_continual",
        parts={
            "source": "dataset",
            "model": "model",
            "recipe": "scenario",
            "distiller": "distiller",
            "strategy": "strategy",
            "budget": "buffer",
        },
    ),
    "distill": Verb(
        summary="one summary of a training set, judged beside real images of equal bytes",
        module="fedcl.runs.distill",
        job="DistillJob",
        run="run_distill",
        parts={
            "source": "dataset",
            "model": "model",
            "distiller": "distiller",
            "evaluation": "evaluation",
            "architectures": "architectures",
        },
    ),
}
