import pytest
import torch
from torch import nn

from fedcl.core.errors import ConfigError, RunError
from fedcl.core.seeding import torch_rng
from fedcl.core.types import Normalization
from fedcl.training.augmentation import Siamese
from fedcl.training.loop import Training, batches

UNIT = Normalization(mean=(0.0,), std=(1.0,))


class Linear(nn.Module):
    """Two scores from one pixel: weight (2, 1), no bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 1))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def data(n=1):
    return torch.ones(n, 1, 1, 1), torch.zeros(n, dtype=torch.int64)


def test_one_step_by_hand():
    # scores (0, 0): probabilities (1/2, 1/2); gradient of the loss is (-1/2, 1/2) for class 0 and x = 1
    model = Training(updates=1, lr=0.1, weight_decay=0.0, schedule="constant").fit(Linear(), *data(), seed=0)
    assert torch.allclose(model.weight.detach().flatten(), torch.tensor([0.05, -0.05]))


def test_soft_labels_equal_hard_labels_where_they_say_the_same():
    images, labels = data(4)
    hard = Training(updates=5).fit(Linear(), images, labels, seed=0)
    soft = Training(updates=5).fit(Linear(), images, torch.tensor([[1.0, 0.0]] * 4), seed=0)
    assert torch.allclose(hard.weight, soft.weight)


def test_uint8_is_normalised_at_use():
    images = torch.full((4, 1, 1, 1), 255, dtype=torch.uint8)
    raw = Training(updates=3).fit(Linear(), images, data(4)[1], seed=0, normalization=UNIT)
    ready = Training(updates=3).fit(Linear(), *data(4), seed=0)
    assert torch.equal(raw.weight, ready.weight)


def test_the_proximal_term_pulls_to_its_anchor():
    # mu/2 |w - a|^2 with a = (1, 1): the gradient has -mu at w = 0
    training = Training(updates=1, lr=0.1, weight_decay=0.0, schedule="constant")
    model = training.fit(Linear(), *data(), seed=0, proximal=(2.0, {"weight": torch.ones(2, 1)}))
    assert torch.allclose(model.weight.detach().flatten(), torch.tensor([0.25, 0.15]))


def test_the_average_of_weights_by_hand():
    # a step halves what the average holds and adds half of the new weights; what is missing to a whole is divided out
    def after(updates, average):
        numbers = {"lr": 0.1, "weight_decay": 0.0, "schedule": "constant", "average": average}
        return Training(updates=updates, **numbers).fit(Linear(), *data(), seed=0).weight.detach()

    first, second = after(1, 0.0), after(2, 0.0)
    assert torch.allclose(after(1, 0.5), first)
    assert torch.allclose(after(2, 0.5), (0.5 * second + 0.25 * first) / 0.75)


def test_the_schedule():
    step, cosine = Training(updates=10, schedule="step"), Training(updates=10, schedule="cosine")
    assert [step.factor(t, 10) for t in (0, 4, 5, 9)] == [1.0, 1.0, 0.1, 0.1]
    assert cosine.factor(0, 10) == 1.0
    assert cosine.factor(5, 10) == pytest.approx(0.5)


def test_every_example_once_a_pass_and_exactly_so_many_updates():
    rows = list(batches(5, 2, 7, torch_rng(0, "x")))
    assert [len(r) for r in rows] == [2, 2, 1, 2, 2, 1, 2]
    assert sorted(torch.cat(rows[:3]).tolist()) == [0, 1, 2, 3, 4]
    assert sorted(torch.cat(rows[3:6]).tolist()) == [0, 1, 2, 3, 4]
    assert Training(epochs=3, batch_size=2).num_updates(5) == 9
    assert list(batches(0, 2, 7, torch_rng(0, "x"))) == []


def test_the_seed_alone_decides():
    images = torch.randn(20, 1, 4, 4, generator=torch_rng(0, "images"))
    labels = torch.arange(20) % 2

    def fit(seed):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.1)
        before = torch.get_rng_state()
        Training(updates=6, batch_size=4, augmentation=Siamese()).fit(model, images, labels, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return model[1].weight.detach()

    assert torch.equal(fit(0), fit(0))
    assert not torch.equal(fit(0), fit(1))


def test_divergence_is_said():
    images = torch.full((4, 1, 1, 1), torch.inf)
    with pytest.raises(RunError, match="lower the learning rate"):
        Training(updates=2).fit(Linear(), images, data(4)[1], seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"updates": 1, "epochs": 1},
        {"updates": -1},
        {"updates": 1, "lr": 0.0},
        {"updates": 1, "optimizer": "lamb"},
        {"updates": 1, "schedule": "wave"},
        {"epochs": 1, "batch_size": 0},
        {"updates": 1, "average": 1.0},
    ],
)
def test_numbers_that_cannot_work(wrong):
    with pytest.raises(ConfigError):
        Training(**wrong)
