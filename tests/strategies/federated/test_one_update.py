"""Every federated strategy, as its YAML has it: two tiny rounds against the paper's formula, written out here.

Nothing below the line "by hand" is fedcl's: a network of one hidden layer in float64, SGD with momentum and
weight decay, and what each paper does with the results. Where Flower departs from the paper the formula is
Flower's, a second test shows that the paper's gives other weights, and the YAML says so.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import instantiate

from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.seeding import derive, torch_rng
from fedcl.core.types import LabeledSet, Origin
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.objectives.base import NoObjective
from fedcl.federated.payload import Reply, ServerState
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "strategy" / "federated"
CLASSES, UNITS, CLIENTS = 3, 4, 7
MEAN, STD = 0.5, 0.25
ALL = Distiller(
    name="random", objective=NoObjective(), augmentation=NoAugmentation(), ipc=99, steps=0
)  # keeps every image


def from_yaml(name, **changes):
    """The strategy of configs/, without augmentation; `changes` are keys of `algorithm` or of the strategy."""
    node = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    node.pop("defaults", None)
    node["training"]["augmentation"] = {"_target_": "fedcl.training.augmentation.NoAugmentation"}
    node.get("algorithm", node).update(changes)
    return instantiate(node)


def new_context(distiller=ALL):
    return Context(
        seed=0,
        distiller=distiller,
        model=MLP(hidden=(UNITS,)),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(MEAN,), std=(STD,))),
        num_classes=CLASSES,
    )


def shard(client, step=0, classes=(0, 1, 2)):
    """client + 3 images: clients weigh differently."""
    draw = np.random.default_rng([client, step])
    return LabeledSet(
        inputs=torch.from_numpy(draw.integers(0, 256, (client + 3, 1, 2, 2), dtype=np.uint8)),
        labels_N=torch.tensor([classes[i % len(classes)] for i in range(client + 3)]),
        num_classes=CLASSES,
        origin=Origin(client=client, step=step),
    )


@pytest.fixture
def rounds(run_rounds):
    def run(strategy, ctx, shards_of_round):
        """The server's weights before and after all rounds, as vectors, and the replies of each round."""
        state, seen = run_rounds(strategy, ctx, shards_of_round)
        return flat(strategy.init(ctx).weights), flat(state.weights), [clients.replies for clients in seen]

    return run


def flat(weights):
    return np.concatenate([tensor.double().numpy().ravel() for tensor in weights.values()])


# ---- by hand -----------------------------------------------------------------------------------------------------


def pixels(data):
    """[N, 4] network inputs and [N] labels."""
    return (data.inputs.flatten(1).double() / 255 - MEAN) / STD, data.labels_N


def unflatten(w):
    """Hidden weights [4, 4] and biases [4], the classifier's [3, 4] and [3]."""
    shapes, parts, at = [(UNITS, 4), (UNITS,), (CLASSES, UNITS), (CLASSES,)], [], 0
    for shape in shapes:
        parts.append(w[at : at + int(np.prod(shape))].reshape(shape))
        at += int(np.prod(shape))
    return parts


def hidden_and_scores(w, x):
    w1, b1, w2, b2 = unflatten(w)
    h = torch.relu(x @ w1.T + b1)
    return h, h @ w2.T + b2


def sgd(start, x, y, *, lr, momentum, decay, mu=0.0):
    """One full-batch update a learning rate in `lr`: g + decay w + mu (w - w_global), gathered by momentum."""
    w = torch.tensor(start, requires_grad=True)
    gathered = torch.zeros_like(w)
    for rate in lr:
        loss = F.cross_entropy(hidden_and_scores(w, x)[1], y)
        (gradient,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            gathered = momentum * gathered + gradient + decay * w + mu * (w - torch.tensor(start))
            w -= rate * gathered
    return w.detach().numpy()


def client(start, data, mu=0.0):
    """What every weight strategy's YAML says of a client: 10 epochs, here of one batch each."""
    return sgd(start, *pixels(data), lr=[0.01] * 10, momentum=0.9, decay=1e-5, mu=mu)


def by_examples(n, w):
    return np.average(w, axis=0, weights=n)


class FedAvg:
    """McMahan et al., algorithm 1: w = sum n_k / n w_k."""

    def server(self, x, n, w):
        return by_examples(n, w)


class Adaptive:
    """Reddi et al., algorithm 2; `paper` is the algorithm as printed, else Flower's."""

    v = m = 0.0
    round = 0

    def __init__(self, kind, paper=False):
        self.kind, self.paper = kind, paper
        self.v = 1e-3**2 if paper else 0.0  # the paper: v_{-1} >= tau^2

    def server(self, x, n, w):
        delta = (np.mean(w, axis=0) if self.paper else by_examples(n, w)) - x
        beta_1, beta_2 = (0.0, 0.0) if self.kind == "adagrad" else (0.9, 0.99)
        self.m = beta_1 * self.m + (1 - beta_1) * delta
        square = delta**2
        self.v = {
            "adagrad": self.v + square,
            "yogi": self.v - (1 - beta_2) * square * np.sign(self.v - square),
            "adam": beta_2 * self.v + (1 - beta_2) * square,
        }[self.kind]
        self.round += 1
        eta = 0.01
        if self.kind == "adam" and not self.paper:  # Flower: Adam's correction of bias, one round ahead
            eta *= np.sqrt(1 - beta_2 ** (self.round + 1)) / (1 - beta_1 ** (self.round + 1))
        return x + eta * self.m / (np.sqrt(self.v) + 1e-3)


class Momentum:
    """Hsu et al., section 4.3: v = beta v + dw, w = w - rate v, with dw = w - sum n_k / n w_k."""

    v = 0.0

    def __init__(self, rate=1.0):
        self.rate = rate

    def server(self, x, n, w):
        self.v = 0.9 * self.v + x - by_examples(n, w)
        return x - self.rate * self.v


class Median:
    """Yin et al., definition 1: the median of each coordinate; nobody weighs more."""

    def server(self, x, n, w):
        return np.median(w, axis=0)


class Trimmed:
    """Yin et al., definition 2: the mean without the `cut` lowest and highest of each coordinate."""

    def __init__(self, cut):
        self.cut = cut

    def server(self, x, n, w):
        return np.sort(w, axis=0)[self.cut : len(w) - self.cut].mean(0)


def krum_scores(w, f):
    """Blanchard et al., section 4: squared distances to the n - f - 2 closest others, summed."""
    scores = []
    for i in range(len(w)):
        others = sorted(float(np.sum((w[i] - w[j]) ** 2)) for j in range(len(w)) if j != i)
        scores.append(sum(others[: len(w) - f - 2]))
    return np.array(scores)


class Krum:
    """The reply of the lowest score; MultiKrum: the mean of the m lowest, by examples in Flower."""

    def __init__(self, f, m=1, paper=False):
        self.f, self.m, self.paper = f, m, paper

    def server(self, x, n, w):
        best = np.argsort(krum_scores(w, self.f))[: self.m]
        return w[best].mean(0) if self.paper else by_examples(n[best], w[best])


class Bulyan:
    """El Mhamdi et al., section 4: choose n - 2 f, then of each coordinate the mean of the n - 4 f closest to
    the median. The paper chooses by Krum again and again among those left; Flower by one MultiKrum."""

    def __init__(self, f, paper=False):
        self.f, self.paper = f, paper

    def chosen(self, w):
        if not self.paper:
            return np.argsort(krum_scores(w, self.f))[: len(w) - 2 * self.f]
        left, taken = list(range(len(w))), []
        while len(taken) < len(w) - 2 * self.f:
            taken.append(left.pop(int(np.argmin(krum_scores(w[left], self.f)))))
        return np.array(taken)

    def server(self, x, n, w):
        kept = w[self.chosen(w)]
        closest = np.argsort(np.abs(kept - np.median(kept, axis=0)), axis=0)[: len(w) - 4 * self.f]
        return np.take_along_axis(kept, closest, axis=0).mean(0)


WEIGHTS = [  # YAML, keys changed, the formula, mu of the client
    ("fedavg", {}, FedAvg, 0.0),
    ("fedprox", {}, FedAvg, 0.01),
    ("fedprox", {"proximal_mu": 2.0}, FedAvg, 2.0),
    ("fedadam", {}, lambda: Adaptive("adam"), 0.0),
    ("fedyogi", {}, lambda: Adaptive("yogi"), 0.0),
    ("fedadagrad", {}, lambda: Adaptive("adagrad"), 0.0),
    ("fedavgm", {}, Momentum, 0.0),
    ("fedavgm", {"server_learning_rate": 0.5}, lambda: Momentum(0.5), 0.0),
    ("fedmedian", {}, Median, 0.0),
    ("fedtrimmedavg", {}, lambda: Trimmed(1), 0.0),  # beta 0.2 of 7
    ("fedtrimmedavg", {"beta": 0.4}, lambda: Trimmed(2), 0.0),
    ("krum", {}, lambda: Krum(0), 0.0),
    ("krum", {"num_malicious_nodes": 2}, lambda: Krum(2), 0.0),
    ("multikrum", {}, lambda: Krum(0, 5), 0.0),
    ("multikrum", {"num_malicious_nodes": 2, "num_nodes_to_select": 3}, lambda: Krum(2, 3), 0.0),
    ("bulyan", {}, lambda: Bulyan(0), 0.0),
    ("bulyan", {"num_malicious_nodes": 1}, lambda: Bulyan(1), 0.0),
]
SHARDS = [shard(number) for number in range(CLIENTS)]


def by_hand(formula, start, mu, shards=SHARDS):
    x, n = start, np.array([len(data) for data in shards])
    for _ in range(2):
        x = formula.server(x, n, np.stack([client(x, data, mu) for data in shards]))
    return x


@pytest.mark.parametrize(("name", "changes", "formula", "mu"), WEIGHTS, ids=[f"{n} {c}" for n, c, _, _ in WEIGHTS])
def test_two_rounds_of_weights(name, changes, formula, mu, rounds):
    start, after, _ = rounds(from_yaml(name, **changes), new_context(), [SHARDS, SHARDS])
    np.testing.assert_allclose(after, by_hand(formula(), start, mu), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "changes", "formula"),
    [
        ("krum", {"num_malicious_nodes": 2}, Krum(2)),
        ("multikrum", {"num_malicious_nodes": 2, "num_nodes_to_select": 2}, Krum(2, 2)),
        ("bulyan", {"num_malicious_nodes": 1}, Bulyan(1)),
    ],
    ids=["krum", "multikrum", "bulyan"],
)
def test_how_many_neighbours_count(name, changes, formula, given):
    """Three replies lie close together and four less close: with two neighbours Krum takes one of the three, with
    three 10.6, with four 10.0."""
    values = np.array([[0.0], [0.1], [0.2], [10.0], [10.3], [10.6], [11.0]])
    assert [values[np.argmin(krum_scores(values, 5 - count))][0] for count in (2, 3, 4)] == [0.1, 10.6, 10.0]
    state = ServerState(weights={"w": torch.zeros(1)})
    replies = [
        Reply(client=i, num_examples=i + 1, weights={"w": torch.tensor(w).float()}) for i, w in enumerate(values)
    ]
    found = from_yaml(name, **changes).round(state, given(*replies), new_context()).weights
    np.testing.assert_allclose(flat(found), formula.server(None, np.arange(1, 8), values), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "paper"),
    [
        ("fedadam", {}, lambda: Adaptive("adam", paper=True)),
        ("fedyogi", {}, lambda: Adaptive("yogi", paper=True)),
        ("fedadagrad", {}, lambda: Adaptive("adagrad", paper=True)),
        ("multikrum", {}, lambda: Krum(0, 5, paper=True)),
        ("bulyan", {"num_malicious_nodes": 1}, lambda: Bulyan(1, paper=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_flower_is_not_the_paper_the_yaml_says_so(name, changes, paper, rounds):
    start, after, _ = rounds(from_yaml(name, **changes), new_context(), [SHARDS, SHARDS])
    assert np.abs(after - by_hand(paper(), start, 0.0)).max() > 1e-4
    assert "(the paper: " in " ".join((CONFIGS / f"{name}.yaml").read_text().replace("#", "").split())


def test_fedavg_replay_trains_on_its_memory_too(rounds):
    """Two steps: a client has all images of class 0 of the first beside those of class 2 of the second."""
    old = [shard(number, 0, (0,)) for number in (1, 3)]
    new = [shard(number, 1, (2,)) for number in (1, 3)]
    start, after, answers = rounds(from_yaml("fedavg_replay"), new_context(), [old, new])
    assert [reply.num_examples for reply in answers[1]] == [4 + 4, 6 + 6]  # the memory counts
    x = by_examples([4, 6], [client(start, data) for data in old])
    both = [
        LabeledSet(
            inputs=torch.cat([a.inputs, b.inputs]),
            labels_N=torch.cat([a.labels_N, b.labels_N]),
            num_classes=CLASSES,
        )
        for a, b in zip(new, old, strict=True)
    ]
    x = by_examples([8, 12], [client(x, data) for data in both])
    np.testing.assert_allclose(after, x, rtol=0, atol=2e-6)


def union(images_and_labels):
    return [torch.cat(parts) for parts in zip(*images_and_labels, strict=True)]


def test_one_shot_trains_a_fresh_network_on_all_that_came_so_far(rounds):
    """The second round trains on both rounds' images, from the start again; the rate falls to a tenth half-way."""
    shards = [shard(1), shard(2)]
    short = replace(from_yaml("one_shot").training, updates=4)
    strategy = replace(from_yaml("one_shot"), training=short)
    start, after, _ = rounds(strategy, new_context(), [shards, [shard(4)]])
    x, y = union([pixels(data) for data in [*shards, shard(4)]])
    expected = sgd(start, x, y, lr=[0.01, 0.01, 0.001, 0.001], momentum=0.9, decay=5e-4)
    np.testing.assert_allclose(after, expected, rtol=0, atol=2e-6)


def near(w, key, step, radius):
    """Section 3.3: a point of the sphere of this radius around w, in a Gaussian direction."""
    generator = torch_rng(derive(key, "networks"), "perturbation", round=step)
    direction = torch.cat([torch.randn(p.shape, generator=generator).flatten() for p in unflatten(w)]).double()
    return torch.tensor(w) + radius * direction / direction.norm()


def matched(w, key, start, data, steps):
    """FedDM's client: images moved by equation 8, by SGD of rate 1 and momentum 0.5 (the ctx's distiller)."""
    x, y = pixels(data)
    images = start.flatten(1).double().requires_grad_()
    labels = torch.arange(len(images))  # one image a class
    gathered = torch.zeros_like(images)
    for step in range(steps):
        around = near(w, key, step, 5.0)
        loss = 0.0
        for label in labels:  # equation 8: || mean h(real) - mean h(synthetic) ||^2, and the same of logits
            real, synthetic = (
                hidden_and_scores(around, x[y == label]),
                hidden_and_scores(around, images[labels == label]),
            )
            loss = loss + sum(((a.mean(0) - b.mean(0)) ** 2).sum() for a, b in zip(real, synthetic, strict=True))
        (gradient,) = torch.autograd.grad(loss, images)
        with torch.no_grad():
            gathered = 0.5 * gathered + gradient
            images -= gathered
    return images.detach(), labels


def test_feddm_matches_in_a_ball_and_goes_on_training(rounds):
    ctx = new_context(Distiller(augmentation=NoAugmentation(), ipc=1))
    strategy = replace(from_yaml("feddm", steps=2), training=replace(from_yaml("feddm").training, updates=3))
    shards = [shard(1), shard(5)]
    x, after, answers = rounds(strategy, ctx, [shards, shards])
    for round, replies in enumerate(answers):
        key = derive(0, "distill", round=round)
        begin = Distiller(augmentation=NoAugmentation(), ipc=1, steps=0).distill(shards, key, ctx)
        made = [matched(x, key, first.decode()[0], data, steps=2) for first, data in zip(begin, shards, strict=True)]
        for reply, (images, labels) in zip(replies, made, strict=True):
            found, targets = reply.summaries[0].decode()
            torch.testing.assert_close(found.flatten(1).double(), images, rtol=2e-5, atol=2e-5)
            assert torch.equal(targets, labels)
        x = sgd(x, *union(made), lr=[0.01] * 3, momentum=0.9, decay=5e-4)  # goes on; only this round's images
    np.testing.assert_allclose(after, x, rtol=0, atol=2e-6)


def test_every_yaml_has_its_update_by_hand():
    covered = {name for name, *_ in WEIGHTS} | {"fedavg_replay", "one_shot", "feddm"}
    covered |= {
        path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")
    }  # a file of its own
    assert covered >= {path.stem for path in CONFIGS.glob("*.yaml")}
