"""Figures of each client of a stream, by hand: clients that meet the classes in another order have other figures."""

import numpy as np
import pytest
import torch

from fedcl.data.base import make_dataset
from fedcl.data.digits import Digits
from fedcl.models.mlp import MLP
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.runs.matrix import Columns
from fedcl.scenario.base import Scenario
from fedcl.scenario.metrics import continual_part
from fedcl.training.augmentation import NoAugmentation
from fedcl.training.recipe import Training
from scenarios.class_incremental import ClassIncremental
from scenarios.grid import Grid
from scenarios.iid import IID
from strategies.federated.fedavg_replay import FedAvgReplay


def test_a_client_s_figures_begin_where_the_client_first_saw_a_group():
    labels = torch.tensor([0, 0, 1, 1])
    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    data = make_dataset(name="tiny", train=(images, labels), test=(images, labels), horizontal_flip=False)
    scenario = Scenario(
        name="crossed",
        seed=0,
        num_classes=2,
        # client 0 holds class 0, then class 1; client 1 the other way round
        shares=((np.array([0]), np.array([2])), (np.array([3]), np.array([1]))),
        groups=(np.array([0, 1]), np.array([2, 3])),
        group_names=("class 0", "class 1"),
    )
    columns = Columns(data, data.test, scenario)
    assert columns.first_G.tolist() == [0, 0]  # somebody has each class at the first step
    first, second = columns.by_client([[0.8, 0.4], [0.6, 0.9]])
    assert first == {
        "client": 0,
        "average_accuracy": pytest.approx(0.75),  # (0.6 + 0.9) / 2
        "average_incremental_accuracy": pytest.approx(0.775),  # (0.8 + 0.75) / 2
        "forgetting": pytest.approx(0.2),  # class 0, which it had before the last step: 0.8 - 0.6
        "backward_transfer": pytest.approx(-0.2),
    }
    assert second == {
        "client": 1,
        "average_accuracy": pytest.approx(0.75),
        "average_incremental_accuracy": pytest.approx(0.575),  # (0.4 + 0.75) / 2
        "forgetting": pytest.approx(-0.5),  # class 1: 0.4 - 0.9
        "backward_transfer": pytest.approx(0.5),
    }


@pytest.mark.usefixtures("blank_pictures")
def test_the_record_of_clients_that_arrive_in_their_own_order(tmp_path):
    recipe = Grid(stream=ClassIncremental(num_steps=3), partition=IID(num_clients=3), arrival="asynchronous")
    job = FederatedJob(
        device="cpu",
        source=Digits(),
        model=MLP(hidden=(16,)),
        recipe=recipe,
        strategy=FedAvgReplay(
            training=Training(epochs=1, lr=0.05, batch_size=32, augmentation=NoAugmentation()), replay=False
        ),
        num_rounds=1,
        out=tmp_path,
    )
    record = run_federated(job)
    data, scenario = job.load()
    firsts = [scenario.first_steps(data.labels, client=client).tolist() for client in range(3)]
    assert len({tuple(first) for first in [*firsts, record["scenario"]["first_steps"]]}) > 2, "the orders differ"
    assert len(record["continual_clients"]) == 3
    for first, found in zip(firsts, record["continual_clients"], strict=True):
        part = continual_part(record["matrix"], first_step_of_group=first)
        assert {name: part[name] for name in found if name != "client"} == {
            name: value for name, value in found.items() if name != "client"
        }
    assert len({found["forgetting"] for found in record["continual_clients"]}) > 1
