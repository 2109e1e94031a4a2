import pytest
import torch
from torch import nn

from fedcl.core.errors import ConfigError, RunError
from fedcl.core.inputs import Normalization
from fedcl.core.seeding import torch_rng
from fedcl.training.augmentation import Siamese
from fedcl.training.loop import batches, train
from fedcl.training.losses import proximal
from fedcl.training.recipe import Training

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
    model = train(Linear(), *data(), Training(updates=1, lr=0.1, weight_decay=0.0, schedule="constant"), seed=0)
    assert torch.allclose(model.weight.detach().flatten(), torch.tensor([0.05, -0.05]))


def test_soft_labels_equal_hard_labels_where_they_say_the_same():
    images, labels = data(4)
    hard = train(Linear(), images, labels, Training(updates=5), seed=0)
    soft = train(Linear(), images, torch.tensor([[1.0, 0.0]] * 4), Training(updates=5), seed=0)
    assert torch.allclose(hard.weight, soft.weight)


def test_uint8_is_normalised_at_use():
    images = torch.full((4, 1, 1, 1), 255, dtype=torch.uint8)
    raw = train(Linear(), images, data(4)[1], Training(updates=3), seed=0, spec=UNIT)
    ready = train(Linear(), *data(4), Training(updates=3), seed=0)
    assert torch.equal(raw.weight, ready.weight)


def test_the_proximal_term_pulls_to_its_anchor():
    # mu/2 |w - a|^2 with a = (1, 1): the gradient has -mu at w = 0
    training = Training(updates=1, lr=0.1, weight_decay=0.0, schedule="constant")
    model = Linear()
    train(model, *data(), training, seed=0, penalty=proximal(model, 2.0, {"weight": torch.ones(2, 1)}))
    assert torch.allclose(model.weight.detach().flatten(), torch.tensor([0.25, 0.15]))


def test_the_average_of_weights_by_hand():
    # a step halves what the average holds and adds half of the new weights; what is missing to a whole is divided out
    def after(updates, average):
        numbers = {"lr": 0.1, "weight_decay": 0.0, "schedule": "constant", "average": average}
        return train(Linear(), *data(), Training(updates=updates, **numbers), seed=0).weight.detach()

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
        train(model, images, labels, Training(updates=6, batch_size=4, augmentation=Siamese()), seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        return model[1].weight.detach()

    assert torch.equal(fit(0), fit(0))
    assert not torch.equal(fit(0), fit(1))


def test_divergence_is_said():
    images = torch.full((4, 1, 1, 1), torch.inf)
    with pytest.raises(RunError, match="lower the learning rate"):
        train(Linear(), images, data(4)[1], Training(updates=2), seed=0)


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
        {"updates": 1, "clip": -1.0},
        {"updates": 1, "min_batch": 0},
        {"updates": 1, "batch_size": 4, "min_batch": 5},
        {"updates": 1, "schedule": "cosine", "lr_min": 1.5},
        {"updates": 1, "schedule": "step", "lr_min": 0.001},
    ],
)
def test_numbers_that_cannot_work(wrong):
    with pytest.raises(ConfigError):
        Training(**wrong)


def hundredth(model, images, labels, **numbers):
    """The network after a training whose length is `numbers`, at a constant rate of 0.01."""
    training = Training(**{"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"} | numbers)
    return train(model, images, labels, training, seed=0)


class Normed(nn.Module):
    """A batch norm over features, or over pixels, and a linear layer."""

    def __init__(self, pixels):
        super().__init__()
        norm = [nn.BatchNorm2d(1), nn.Flatten()] if pixels else [nn.Flatten(), nn.BatchNorm1d(4)]
        self.layers = nn.Sequential(*norm, nn.Linear(4, 2))

    def forward(self, x):
        return self.layers(x)


def pictures(count):
    return torch.randn(count, 1, 2, 2, generator=torch_rng(0, "pictures")), torch.arange(count) % 2


def test_a_last_batch_of_one_under_batch_norm_is_refused_or_left_out():
    """Five images in twos: the third batch of a pass has no deviation to divide by, unless it has several pixels."""
    with pytest.raises(RunError, match=r"5 images in batches of 2 .*type another batch_size.*min_batch=2") as error:
        hundredth(Normed(pixels=False), *pictures(5), epochs=1, batch_size=2)
    assert "\n" not in str(error.value)
    for network, numbers in [
        (Normed(pixels=False), {"epochs": 1, "batch_size": 3}),
        (Normed(pixels=True), {"epochs": 1, "batch_size": 2}),
        (Normed(pixels=False), {"updates": 2, "batch_size": 2}),
    ]:
        hundredth(network, *pictures(5), **numbers)
    seen = []
    whole = Normed(pixels=False)
    whole.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    hundredth(whole, *pictures(5), epochs=2, batch_size=2, min_batch=2)
    assert seen == [2, 2, 2, 2]
    assert Training(epochs=2, batch_size=2, min_batch=2).num_updates(5) == 4
    assert Training(epochs=2, batch_size=2, min_batch=2).num_updates(6) == 6


def test_one_image_under_batch_norm_has_no_batch_size_that_helps():
    for numbers in ({"updates": 1}, {"updates": 1, "batch_size": 1}):
        with pytest.raises(RunError, match=r"choose a model without it"):
            hundredth(Normed(pixels=False), *pictures(1 if len(numbers) == 1 else 3), **numbers)
    with pytest.raises(RunError, match=r"min_batch=2 leaves nothing of a set of 1"):
        hundredth(Normed(pixels=False), *pictures(1), updates=1, min_batch=2)


def test_another_error_of_a_network_on_one_image_stays_what_it_is():
    class Broken(Linear):
        def forward(self, x):
            raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        hundredth(Broken(), *data(1), updates=1)


def test_an_empty_set_changes_nothing():
    images, labels = pictures(0)
    for numbers in ({"updates": 3, "average": 0.9}, {"epochs": 3, "average": 0.9}):
        model = Normed(pixels=False)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        hundredth(model, images, labels, **numbers)
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_penalty_and_a_loss_of_the_caller_by_hand():
    """w = 0: the loss sum(w) has gradient 1, the penalty 3 sum(w) has gradient 3."""
    model = Linear()
    training = Training(updates=1, lr=0.1, weight_decay=0.0, schedule="constant")
    seen = []

    def loss(model, batch):
        seen.append((batch.inputs.shape, [(share, sorted(rows.tolist())) for share, rows in batch.parts]))
        return model.weight.sum()

    train(model, *data(3), training, seed=0, loss=loss, penalty=lambda model: 3 * model.weight.sum())
    assert torch.allclose(model.weight.detach().flatten(), torch.tensor([-0.4, -0.4]))
    assert seen == [((3, 1, 1, 1), [(1.0, [0, 1, 2])])]


def test_a_clipped_gradient_by_hand():
    """The gradient (-1/2, 1/2) of length 0.707 becomes (-1, 1) / sqrt(2) * 0.1; what is shorter stays."""
    clipped = hundredth(Linear(), *data(), updates=1, lr=1.0, clip=0.1)
    torch.testing.assert_close(clipped.weight.detach().flatten(), torch.tensor([0.1, -0.1]) / 2**0.5, atol=1e-6, rtol=0)
    free = hundredth(Linear(), *data(), updates=1, lr=1.0, clip=0.8)
    assert torch.allclose(free.weight.detach().flatten(), torch.tensor([0.5, -0.5]))


def test_restarts_by_hand():
    """Epochs of 2 updates, down to a fifth: a tenth; 1; 1 and 0.6; 1, 0.883, 0.6, 0.317."""
    restarts = Training(epochs=8, schedule="restarts", lr=0.5, lr_min=0.1)
    factors = [restarts.factor(update, 16, per_epoch=2) for update in range(16)]
    assert factors[::2] == factors[1::2]
    quarter = 0.2 + 0.4 * (1 + 0.5**0.5)
    assert factors[::2] == pytest.approx([0.1, 1, 1, 0.6, 1, quarter, 0.6, 1.2 - quarter])
    cosine = Training(updates=4, schedule="cosine", lr=0.5, lr_min=0.1)
    assert [cosine.factor(t, 4) for t in range(4)] == pytest.approx([1, quarter, 0.6, 1.2 - quarter])


def test_after_each_whole_pass_somebody_may_look():
    weights = []
    training = Training(updates=5, batch_size=2, lr=0.1, weight_decay=0.0)
    train(Linear(), *data(3), training, seed=0, after_epoch=lambda model: weights.append(model.weight.detach().clone()))
    assert len(weights) == 2  # 5 updates are two passes of two, and one more
    assert not torch.equal(*weights)


def test_a_generator_gives_order_and_augmentation_and_moves_on():
    """One generator, two trainings: together they are one training that draws on."""
    images, labels = pictures(6)
    numbers = {"lr": 0.1, "momentum": 0.0, "schedule": "constant", "batch_size": 6, "augmentation": Siamese()}

    def learn(*updates):
        model, generator = Normed(pixels=True), torch_rng(0, "one")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.3)
        for count in updates:
            train(model, images, labels, Training(updates=count, **numbers), seed=generator)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(learn(2), learn(1, 1))
    assert not torch.equal(learn(1), learn(2))
