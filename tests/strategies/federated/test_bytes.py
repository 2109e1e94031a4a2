"""What the ledger says of strategies that send weights and keep the rest at home."""

import pytest

from fedcl.federated.transforms.base import NoTransform
from fedcl.models.mlp import MLP
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.testing import ToyData, ToyGrid
from fedcl.training.recipe import Training
from strategies.federated.feddyn import FedDyn
from strategies.federated.fednova import FedNova
from strategies.federated.moon import Moon

pytestmark = pytest.mark.usefixtures("blank_pictures")

BRIEF = Training(updates=2, batch_size=8)
PARAMETERS = (64 * 16 + 16) + (16 * 4 + 4)  # of MLP(hidden=(16,)) on 8x8 images of four classes


@pytest.mark.parametrize(
    "strategy",
    [FedNova(training=BRIEF), FedDyn(training=BRIEF), Moon(training=BRIEF)],
    ids=lambda strategy: type(strategy).__name__,
)
def test_one_network_down_and_one_up(tmp_path, strategy):
    """Three clients that hold images answer with a network, the fourth with nothing: of two rounds 8 down and 6 up."""
    job = FederatedJob(
        source=ToyData(),
        model=MLP(hidden=(16,)),
        recipe=ToyGrid(num_clients=4, num_steps=1),
        strategy=strategy,
        compress=NoTransform(),
        num_rounds=2,
        device="cpu",
        out=tmp_path / "run",
    )
    communication = run_federated(job)["communication"]
    kinds = communication["by_kind"]
    assert {*kinds} == {"weights", "scalars", "framing"}
    assert kinds["weights"] == (8 + 6) * 4 * PARAMETERS
    heads = {"down": 8 * 30, "up": 8 * 8}  # what every question and every answer says of itself
    assert kinds["scalars"] == sum(heads.values())
    assert communication["down"]["payload_bytes"] == 8 * 4 * PARAMETERS + heads["down"]
    assert communication["up"]["payload_bytes"] == 6 * 4 * PARAMETERS + heads["up"]
