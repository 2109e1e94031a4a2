"""Evaluation at clients, by hand: four test images of two classes, dealt as the training examples are."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet
from fedcl.data.digits import Digits
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.federated.contract import Strategy
from fedcl.federated.evaluation import ClientTests, at_clients, deal_like, spread
from fedcl.federated.payload import ClientState, ServerState
from fedcl.models.mlp import MLP
from fedcl.runs.federated import FederatedJob, run_federated
from fedcl.scenario.base import Labels, Scenario
from fedcl.training.recipe import Training
from scenarios.dirichlet import Dirichlet
from strategies.federated.fedcache import FedCache

TRAIN = np.array([0, 0, 0, 0, 1, 1, 1, 1])
TEST = np.array([0, 0, 0, 0, 1, 1, 1, 1])
LABELS = Labels(train_N=TRAIN, test_N=TEST, num_classes=2)


def scenario(*steps, transforms=()):
    return Scenario(
        name="by hand",
        seed=0,
        num_classes=2,
        shares=tuple(tuple(np.array(share, dtype=np.int64) for share in step) for step in steps),
        groups=(np.arange(len(TEST)),),
        group_names=("all",),
        transforms=transforms,
    )


def new_context():
    return Context(
        model=MLP(hidden=(4,)),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.5,)), invariances=("flip",)),
        num_classes=2,
    )


def images():
    pixels = torch.arange(8 * 4, dtype=torch.uint8).view(8, 1, 2, 2)
    return LabeledSet(inputs=pixels, labels_N=torch.from_numpy(TEST), num_classes=2)


class Says(nn.Module):
    """A network that gives every image one class."""

    def __init__(self, label):
        super().__init__()
        self.bias = nn.Parameter(torch.eye(2)[label])

    def forward(self, images_NCHW):
        return self.bias.expand(len(images_NCHW), 2)


@dataclass(frozen=True, kw_only=True)
class Global(Strategy):
    num_rounds = 1

    def init(self, ctx):
        return ServerState()

    def round(self, state, clients, ctx):
        return state

    def model(self, state, ctx):
        return Says(0)


class Personal(Global):
    def personal_model(self, state, mine, ctx):
        return Says(int(mine.tensors["says"]) if mine.tensors else ctx.client)


def classes(tests, step=0):
    """Of each client, how many test examples of class 0 and of class 1 it has."""
    return [
        [
            sum(int((data.labels_N == label).sum()) for data in tests.of_client(client, tests.shares(step)))
            for label in (0, 1)
        ]
        for client in range(tests.scenario.num_clients)
    ]


def test_shares_of_the_test_set_are_those_of_the_training_set():
    held = scenario(([0, 1, 2], [3, 4], [5, 6, 7], []))  # three quarters of class 0, a quarter of each, ..., nothing
    tests = ClientTests(test=images(), scenario=held, labels=LABELS)
    assert classes(tests) == [[3, 0], [1, 1], [0, 3], [0, 0]]
    rows = torch.cat(
        [data.inputs[:, 0, 0, 0] for client in range(4) for data in tests.of_client(client, tests.shares(0))]
    )
    assert sorted(rows.tolist()) == list(range(0, 32, 4))  # each image once


def test_numbers_of_a_class_are_exact_to_less_than_one():
    counts = np.array([[1, 5], [1, 0], [1, 2]])
    dealt = deal_like(counts, np.repeat([0, 1], [10, 4]), np.random.default_rng(0))
    labels = np.repeat([0, 1], [10, 4])
    assert [np.bincount(labels[rows], minlength=2).tolist() for rows in dealt] == [[3, 3], [4, 0], [3, 1]]


def test_a_client_is_tested_on_what_it_has_seen_so_far():
    stream = scenario(([0, 1], [2, 3]), ([4], [5, 6, 7]))
    tests = ClientTests(test=images(), scenario=stream, labels=LABELS)
    assert classes(tests, step=0) == [[2, 0], [2, 0]]
    assert classes(tests, step=1) == [[2, 1], [2, 3]]


def test_each_look_of_a_domain_stream_has_a_share_of_its_own():
    both = (0, 1, 4, 5), (2, 3, 6, 7)
    domains = scenario(both, both, both, transforms=("", "permute:3", ""))
    tests = ClientTests(test=images(), scenario=domains, labels=LABELS)
    plain, turned = tests.of_client(0, tests.shares(2))
    assert [len(plain), len(turned)] == [4, 4]  # the first look came back, and is no second set
    assert all(plain.inputs[i, 0].flatten().tolist() == sorted(plain.inputs[i, 0].flatten()) for i in range(4))
    assert not torch.equal(turned.inputs.flatten(1).sort(1).values, turned.inputs.flatten(1))


def test_accuracies_at_clients_by_hand():
    held = scenario(([0, 1, 2], [3, 4], [5, 6, 7], []))
    tests = ClientTests(test=images(), scenario=held, labels=LABELS)
    found = at_clients(tests, Global(), ServerState(), lambda client: ClientState(), new_context())
    assert found.pop("accuracies") == [
        {"client": 0, "accuracy": 1.0, "examples": 3},
        {"client": 1, "accuracy": 0.5, "examples": 2},
        {"client": 2, "accuracy": 0.0, "examples": 3},
    ]  # the last client holds nothing
    assert found == pytest.approx({"mean": 0.5, "std": (1 / 6) ** 0.5, "worst_tenth": 0.0, "worst": 0.0})


def test_networks_of_their_own_are_asked_with_what_a_client_keeps():
    held = scenario(([0, 1, 2, 3], [4, 5, 6, 7]))
    tests = ClientTests(test=images(), scenario=held, labels=LABELS)
    kept = {0: ClientState(tensors={"says": torch.tensor(1)})}
    for states, expected in (({}, [1.0, 1.0]), (kept, [0.0, 1.0])):  # a client says its number, or what it keeps
        found = at_clients(
            tests, Personal(), ServerState(), lambda client, s=states: s.get(client, ClientState()), new_context()
        )
        assert [row["accuracy"] for row in found["accuracies"]] == expected


def test_figures_of_twenty_one_clients():
    found = spread([1.0] * 18 + [0.6, 0.3, 0.0])
    assert found["worst_tenth"] == pytest.approx(0.3)  # of 21 clients the worst three
    assert found["mean"] == pytest.approx(18.9 / 21)
    assert found["worst"] == 0.0
    assert spread([]) == {"mean": 0.0, "std": 0.0, "worst_tenth": 0.0, "worst": 0.0}


@pytest.mark.usefixtures("blank_pictures")
def test_a_run_says_it_where_it_is_asked(tmp_path):
    job = {
        "device": "cpu",
        "source": Digits(horizontal_flip=False),
        "model": MLP(hidden=(8,)),
        "recipe": Dirichlet(num_clients=3, alpha=0.5),
        "strategy": FedCache(training=Training(epochs=2), server_training=Training(updates=2)),
        "distiller": Distiller(ipc=1, steps=1, real_batch=8),
        "num_rounds": 2,
    }
    plain = run_federated(FederatedJob(**job, out=tmp_path / "plain"))
    asked = run_federated(FederatedJob(**job, out=tmp_path / "asked", evaluate_clients=True))
    at = asked.pop("at_clients")
    assert json.loads((tmp_path / "asked" / "record.json").read_text())["at_clients"] == at
    assert [row["client"] for row in at["accuracies"]] == [0, 1, 2]
    assert sum(row["examples"] for row in at["accuracies"]) == 360  # all of the test set
    rounds = [row.pop("at_clients") for row in asked["rounds"]]
    assert rounds[1] == {name: at[name] for name in ("mean", "std", "worst_tenth", "worst")}
    assert rounds[0] != rounds[1]
    assert asked["communication"] == plain["communication"]  # nothing of it travels
    assert [row["accuracy"] for row in asked["rounds"]] == [row["accuracy"] for row in plain["rounds"]]
    assert "at_clients" not in plain
