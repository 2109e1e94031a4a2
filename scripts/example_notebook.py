# ---
# fedcl from Python, without the command line. `# %%` is a cell of a notebook (VS Code, Jupytext); or run the file:
#   python scripts/example_notebook.py           (where fedcl is not installed: PYTHONPATH=. python ...)
# It takes a few seconds: three small federated runs and one continual run on the embedded digits, then an answer.
# ---

# %% Everything is a frozen dataclass. A part without values is what configs/ say of it: OneShot() is strategy=one_shot.
# Only a Training of one's own begins at Training's defaults; replace(OneShot().training, lr=0.05) changes one number.
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # leave this out in a notebook
import matplotlib.pyplot as plt
from flwr.serverapp.strategy import FedAvg

from fedcl.core.coding import Wire
from fedcl.data.digits import Digits
from fedcl.distill.distiller import Distiller
from fedcl.flower.bridge import FlowerStrategy
from fedcl.memory.budget import Budget
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.report import compare, comparison_markdown, load_runs, statements, write_report
from fedcl.runs.continual import ContinualJob, run_continual
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.runs.stopping import Stop
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.dirichlet import Dirichlet
from strategies.continual.distilled_replay import DistilledReplay
from strategies.federated.one_shot import OneShot

OUT = Path("runs/example")
shutil.rmtree(OUT, ignore_errors=True)  # a run's folder is used once

# %% Who takes part, and what they do. The same recipe and seed give every method the same clients.
DISTILLER = Distiller(ipc=2, steps=5, real_batch=32)  # distribution matching, far from converged
METHODS = {
    "one_shot": OneShot(training=Training(updates=100, batch_size=64, lr=0.05)),
    "fedavg": FlowerStrategy(algorithm=FedAvg(), training=Training(epochs=2, batch_size=64), num_rounds=3),
}


def job(method: str, **changes) -> FederatedJob:
    return FederatedJob(
        **{
            "source": Digits(),
            "model": ConvNet(width=8),
            "recipe": Dirichlet(num_clients=4, alpha=0.5),
            "distiller": DISTILLER,
            "strategy": METHODS[method],
            "out": OUT / method,
        }
        | changes
    )


# %% Federated: a job is run, a record comes back, and lies in the job's folder, too.
record = run_federated(job("one_shot"))
run_federated(job("one_shot", wire=Wire(dtype="uint8"), out=OUT / "one_shot_uint8"))
cut = run_federated(job("fedavg", stop=Stop(total_wire_bytes=50_000)))
print(f"one-shot: {record['accuracy']['last']:.3f} for {record['communication']['total_wire_bytes']:,} bytes")
print(f"fedavg ended after {len(cut['rounds'])} rounds, by {cut['stopped']['by']}: {cut['stopped']['value']:,} bytes")

# %% Continual: two classes at a time, and a memory of two distilled images of each class.
continual = run_continual(
    ContinualJob(
        source=Digits(),
        model=MLP(hidden=(32,)),
        recipe=ClassIncremental(num_steps=5),
        distiller=DISTILLER,
        budget=Budget(ipc=2),
        strategy=DistilledReplay(training=Training(epochs=3, batch_size=64, optimizer="adam", lr=0.003)),
        out=OUT / "continual",
    )
)
for row in continual["matrix"]:
    print("  ".join(f"{value:.2f}" for value in row))

# %% From records to an answer: any folder of runs, made here or on the command line.
runs, skipped = load_runs(OUT)
print(comparison_markdown(runs))
for sentence in statements(compare(runs)):
    print(sentence)

# %% A plot of your own: a run is its record and its curve.
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for group in compare(runs).groups:
    for method in group.methods:
        for run in method.runs:
            if run.curve:
                axes.plot([p.wire_bytes for p in run.curve], [p.accuracy for p in run.curve], "o-", label=method.name)
axes.set(xscale="log", xlabel="bytes on the wire", ylabel="test accuracy")
axes.legend()
figure.savefig(OUT / "mine.png")

# %% Or the whole page.
print(write_report(OUT, OUT))
