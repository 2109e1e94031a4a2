"""Laws of every continual strategy, and what tells each from the others."""

from dataclasses import replace

import pytest
import torch

from fedcl.continual.learner import SEEN, mix_with_memory, network
from fedcl.continual.remember import stored_bytes
from fedcl.core.errors import ConfigError
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer
from fedcl.runs.checkpoint import Checkpoint, pack_state, read_checkpoint, unpack_state, write_checkpoint
from fedcl.training.augmentation import CutMix, Siamese
from fedcl.training.moments import load_moments, save_moments
from strategies.continual.compress_recall import CompressRecall
from strategies.continual.der import DERPlusPlus
from strategies.continual.distilled_replay import DistilledReplay
from strategies.continual.eeil import EEIL
from strategies.continual.ewc import EWC
from strategies.continual.finetune import Finetune
from strategies.continual.gdumb import GDUMB_TRAINING, BlackCrop, GDumb
from strategies.continual.icarl import ICaRL
from strategies.continual.joint import Joint
from strategies.continual.lwf import LwF
from strategies.continual.replay import Replay

MAKERS = {
    "finetune": lambda t: Finetune(training=t, keep_optimizer=True),
    "joint": lambda t: Joint(training=t),
    "replay": lambda t: Replay(training=t, keep_optimizer=True),
    "reservoir": lambda t: Replay(training=t, select="reservoir"),
    "herding": lambda t: Replay(training=t, select="herding"),
    "gdumb": lambda t: GDumb(
        training=replace(GDUMB_TRAINING, epochs=20, batch_size=4, augmentation=CutMix(cutmix=0.3)), crop=0.0
    ),
    "ewc": lambda t: EWC(training=t, fisher_examples=10),
    "lwf": lambda t: LwF(training=t),
    "icarl": lambda t: ICaRL(training=t),
    "der": lambda t: DERPlusPlus(training=t),
    "distilled_replay": lambda t: DistilledReplay(training=t),
    "compress_recall": lambda t: CompressRecall(training=replace(t, epochs=None, updates=100)),
    "eeil": lambda t: EEIL(training=t, balanced=replace(t, epochs=2)),
}
REMEMBER = set(MAKERS) - {"finetune", "ewc", "lwf"}


@pytest.fixture(params=MAKERS, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def strategy(name, training):
    return MAKERS[name](training)


@pytest.fixture(scope="module")
def states(strategy, ctx, stream):
    """The strategy's states before and after each step: learned once, read by several tests."""
    torch.manual_seed(1)
    return stream.learn(strategy, ctx)


def same(one, two):
    for a, b in ((one.weights, two.weights), (one.tensors, two.tensors)):
        assert set(a) == set(b)
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert one.buffer.memory == two.buffer.memory
    if len(one.buffer):
        assert all(torch.equal(x, y) for x, y in zip(one.buffer.replay(), two.buffer.replay(), strict=True))


def test_every_strategy_is_pure_and_resumes_exactly(strategy, states, ctx, stream, tmp_path):
    kept, about = pack_state(states[1])
    write_checkpoint(tmp_path, Checkpoint(done=1, record={}, tensors=kept, about=about))
    torch.manual_seed(2)  # a global generator plays no part
    state = unpack_state(read_checkpoint(tmp_path))
    same(state, states[1])
    for index in (1, 2):
        state = strategy.learn(state, stream.step(index), ctx)
    same(state, states[3])


def test_memory_is_within_budget_and_needed_where_it_is_said(name, strategy, states):
    assert strategy.needs_memory == bool(len(states[-1].buffer))
    for index, state in enumerate(states):
        assert state.buffer.labels_N.bincount(minlength=6).sum() <= 3 * (
            2 * index if name not in ("der", "reservoir") else 6
        )
    assert states[-1].tensors[SEEN].all()


def test_what_learns_and_what_forgets(name, strategy, states, ctx, stream):
    assert stream.row(strategy, states[1], ctx)[0] > 0.9
    row = stream.row(strategy, states[-1], ctx)
    if name in REMEMBER:
        assert min(row) > 0.6, row
    else:  # new outputs push old ones down: what Hsu et al. (2018) say of learners without memory
        assert row[0] < 0.1 < 0.9 < row[2], row
    if name == "joint":
        assert min(row) > 0.85, row


@pytest.mark.parametrize("name", sorted(REMEMBER - {"joint", "gdumb"} | {"finetune"}))
def test_classes_that_come_back_are_learned_again(name, ctx, stream, training):
    """Two steps of the same classes, with other pixels: chance is one in four."""
    ctx = replace(ctx, budget=Budget(images=36, balance="steps" if name in ("replay", "eeil") else "classes"))
    strategy = MAKERS[name](training)
    states = stream.learn(strategy, ctx, steps=2, step=stream.domain)
    assert stream.domains(strategy, states[1], ctx)[1] < 0.25
    first, second = stream.domains(strategy, states[2], ctx)
    assert second > 0.85
    assert first < 0.75 if name == "finetune" else first > 0.85


def test_unseen_classes_are_never_answered(strategy, states, ctx, stream):
    model = strategy.model(states[1], ctx).eval()
    with torch.no_grad():
        scores = model(ctx.inputs.apply(stream.set([4, 5], 3).inputs))
    assert (scores.argmax(1) < 2).all()


def test_more_seeds_are_other_networks(ctx):
    a, b = (Finetune(training=None).init(replace(ctx, seed=seed)).weights for seed in (0, 1))
    assert any(not torch.equal(a[key], b[key]) for key in a)


def test_beside_balances_new_and_old(ctx, stream):
    step = stream.step(1)  # 24 images
    buffer = stream.learn(MAKERS["distilled_replay"](replace_training()), ctx, steps=1)[-1].buffer  # 6 images
    images, targets = mix_with_memory(step, buffer, ctx)
    assert targets.bincount(minlength=6).tolist() == [12, 12, 12, 12, 0, 0]
    small = replace(step, data=step.data.select([0, 12, 13]))
    images, targets = mix_with_memory(small, buffer, ctx)
    assert len(images) == len(targets) == 6
    images, targets = mix_with_memory(step, Buffer(budget=ctx.budget), ctx)
    assert images is step.data.inputs


def replace_training():
    from fedcl.training.recipe import Training

    return Training(updates=2, batch_size=8)


def test_ewc_penalty_is_the_sum_over_steps(ctx, stream, training):
    """A = sum F_k and B = sum F_k w_k: one more step adds F and F w."""
    ewc = EWC(training=training, fisher_examples=6)
    first, second = stream.learn(ewc, ctx, steps=2)[1:]
    for name, w in second.weights.items():
        fisher = second.tensors[f"fisher/{name}"] - first.tensors[f"fisher/{name}"]
        assert (fisher >= -1e-6).all()
        added = second.tensors[f"anchor/{name}"] - first.tensors[f"anchor/{name}"]
        torch.testing.assert_close(added, fisher * w, atol=1e-5, rtol=1e-3)


def test_ewc_holds_weights_back(ctx, stream, training):
    short = replace(training, epochs=2)  # far from certain, so that the Fisher information is not zero

    def moved(strength):
        first, second = stream.learn(EWC(training=short, strength=strength), ctx, steps=2)[1:]
        fisher = torch.cat([first.tensors[f"fisher/{n}"].flatten() for n in first.weights])
        gap = torch.cat([(second.weights[n] - first.weights[n]).flatten() for n in first.weights])
        return float((fisher * gap.square()).sum())

    assert moved(1000.0) < 0.5 * moved(0.0)


def test_fisher_of_one_example_by_hand(ctx, stream, training):
    """With one example the estimate is its own squared gradient of log p(y | x)."""
    ewc = EWC(training=training, fisher_examples=1)
    step = stream.step(0)
    state = ewc.init(ctx)
    fisher = ewc.fisher(network(state, ctx), step, ctx)
    one = []
    for row in range(len(step.data)):
        for label in (0, 1):
            model = network(state, ctx)
            scores = model(ctx.inputs.apply(step.data.inputs[row : row + 1]))[:, :2]
            scores.log_softmax(1)[0, label].backward()
            one.append({n: p.grad.square() for n, p in model.named_parameters()})
    assert any(all(torch.allclose(fisher[n], found[n], atol=1e-7) for n in fisher) for found in one)


def test_der_keeps_the_logits_of_the_moment(ctx, stream, training):
    state = stream.learn(MAKERS["der"](training), ctx, steps=2)[-1]
    logits = state.buffer.column("logits")
    assert logits.shape == (len(state.buffer), 6)
    assert (logits.abs().sum(1) > 0).all()
    assert state.buffer.blocks[0].row_bytes == 16 + 1 + 4 * 6


def test_icarl_is_the_nearest_mean(ctx, stream, training):
    icarl = ICaRL(training=training)
    state = stream.learn(icarl, ctx, steps=1)[-1]
    model = icarl.model(state, ctx)
    images, labels = state.buffer.replay()
    with torch.no_grad():
        features = torch.nn.functional.normalize(network(state, ctx).embed(images))
        means = torch.stack([torch.nn.functional.normalize(features[labels == c].mean(0), dim=0) for c in (0, 1)])
        nearest = torch.cdist(features, means).argmin(1)
        assert torch.equal(model(images).argmax(1), nearest)


def test_gdumb_rates_and_memory(ctx, stream):
    half = 0.0005 + 0.5 * 0.0495
    rates = [GDUMB_TRAINING.lr * GDUMB_TRAINING.factor(3 * epoch + 2, 27, per_epoch=3) for epoch in range(9)]
    assert rates[:5] == pytest.approx([0.005, 0.05, 0.05, half, 0.05])
    assert rates[6] == pytest.approx(half)  # restarts before epochs 1, 2, 4, 8, ...
    assert rates[8] == pytest.approx(0.05)
    budget = Budget(images=13)
    state = stream.learn(GDumb(training=replace(GDUMB_TRAINING, epochs=1)), replace(ctx, budget=budget))[-1]
    assert state.buffer.labels_N.bincount().tolist() == [3, 2, 2, 2, 2, 2]  # 13 in all, whoever came later
    seen = []
    watching = replace(ctx, watch=lambda model: seen.append(model))
    stream.learn(GDumb(training=replace(GDUMB_TRAINING, epochs=3), crop=0.25), watching)
    assert len(seen) == 3  # the epochs of the last step


def test_a_black_crop_by_hand():
    """2x2, reach 1: moved down and to the left, black (-2) comes in; the flip is of what was moved."""
    images, black = torch.tensor([[[[1.0, 2], [3, 4]]]]), torch.full((1, 1, 1, 1), -2.0)
    crop = BlackCrop(reach=1, black=black, of=Siamese(groups=("flip",), cutmix=0.5))
    moved = {"shift": torch.tensor([[-1, 1]])}
    assert crop.apply(images, moved)[0, 0].tolist() == [[-2, -2], [2, -2]]
    flipped = moved | {"group": torch.tensor([3]), "uniform": torch.zeros(1, 4)}
    assert crop.apply(images, flipped)[0, 0].tolist() == [[-2, -2], [-2, 2]]
    draw = crop.draw(500, torch.Generator().manual_seed(0), flip=False)
    assert draw["shift"].unique(dim=0).tolist() == [[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    assert crop.mixes


def test_a_budget_too_small_for_its_classes_says_so(ctx, stream, training):
    for strategy in (MAKERS["distilled_replay"](training), MAKERS["compress_recall"](training)):
        small = replace(ctx, budget=Budget(images=3))
        with pytest.raises(ConfigError, match=r"buffer.images=3 holds less than one image"):
            stream.learn(strategy, small)


def test_stored_bytes_foretell_what_a_buffer_weighs(ctx, stream, training):
    for storage in ("float32", "float16", "uint8"):
        budget = Budget(bytes=5000, storage=storage)
        here = replace(ctx, budget=budget)
        image, shared = stored_bytes(here.distiller, here)
        buffer = stream.learn(MAKERS["distilled_replay"](training), here, steps=1)[-1].buffer
        assert buffer.num_bytes == len(buffer) * image + shared
        chosen = replace(here, distiller=replace(here.distiller, steps=0))
        assert stored_bytes(chosen.distiller, chosen) == (17, 0)


def test_moments_come_back():
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    moments = save_moments(optimizer)
    other = torch.optim.Adam(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    load_moments(other, {**moments, "fisher/weight": torch.ones(1)})
    again = save_moments(other)
    assert {k: v.tolist() for k, v in moments.items()} == {k: v.tolist() for k, v in again.items()}
