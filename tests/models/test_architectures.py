"""Laws of every architecture in configs/model: the contract of models/base.py, on the shapes that data sets have."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from fedcl.core.errors import ConfigError
from fedcl.models.alexnet import AlexNet
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.models.norms import norm_layer
from fedcl.models.resnet import ResNet
from fedcl.models.vgg import VGG

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar": (3, 32, 32), "wide": (3, 20, 33)}
SMALL = {
    "convnet": ConvNet(width=8),
    "mlp": MLP(hidden=(8,)),
    "resnet": ResNet(width=8),
    "alexnet": AlexNet(width=4),
    "vgg": VGG(width=16),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("model", SMALL.values(), ids=list(SMALL))
def test_forward_is_the_classifier_of_the_embedding(model, shape):
    network = model.build(shape, 5, seed=0).eval()
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    features = network.embed(images)
    assert features.shape == (3, network.classifier.in_features)
    assert torch.equal(network(images), network.classifier(features))
    assert network(images).shape == (3, 5)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("model", SMALL.values(), ids=list(SMALL))
def test_the_last_inner_feature_is_what_is_embedded(model, shape):
    network = model.build(shape, 5, seed=0).eval()
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    inner, embedded = network.features(images), network.embed(images)
    blocks = 2 if min(shape[1:]) < 16 else 3
    counts = {ConvNet: blocks, MLP: 1, ResNet: 9, AlexNet: 8}  # ReLUs and poolings of a stack; stem and blocks
    assert len(inner) == counts.get(type(model), len(inner))
    assert all(len(values) == 3 and values.dtype == images.dtype for values in inner)
    last = inner[-1] if isinstance(model, MLP | ConvNet | AlexNet | VGG) else inner[-1].mean((2, 3))
    torch.testing.assert_close(last.flatten(1), embedded)
    assert all(torch.equal(a, b) for a, b in zip(inner, network.features(images), strict=True))


def test_inner_features_by_hand():
    """Two hidden layers of an MLP: relu(W x + b) of each."""
    network = MLP(hidden=(6, 4)).build((1, 8, 8), 3, seed=0)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first = torch.relu(x.flatten(1) @ network.hidden[0].weight.T + network.hidden[0].bias)
    second = torch.relu(first @ network.hidden[2].weight.T + network.hidden[2].bias)
    for found, wanted in zip(network.features(x), (first, second), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("model", SMALL.values(), ids=list(SMALL))
def test_weights_follow_from_the_seed_and_outputs_tell_images_apart(model):
    state = {seed: model.build((1, 8, 8), 4, seed).state_dict() for seed in (0, 1)}
    again = model.build((1, 8, 8), 4, 0)
    assert all(torch.equal(value, state[0][name]) for name, value in again.state_dict().items())
    assert any(not torch.equal(state[0][name], state[1][name]) for name in state[0])
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = again.embed(images)
    assert (first - second).abs().max() > 1e-4  # a norm over a single value would make them equal


@pytest.mark.parametrize("model", SMALL.values(), ids=list(SMALL))
def test_every_weight_gets_a_gradient(model):
    network = model.build((1, 8, 8), 4, 0)
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 1e-5 for p in network.parameters() if p.ndim > 1)


def num_parameters(model, shape=(3, 32, 32)):
    with torch.device("meta"):
        return sum(p.numel() for p in model.architecture(shape, 10).parameters())


def test_sizes_are_those_of_the_literature():
    # ResNet-18, CIFAR stem, 10 classes: 11,173,962 in every public implementation
    assert num_parameters(ResNet()) == 11_173_962
    # VGG-11: 9,220,480 in convolutions, 5,504 in norms, 5,130 in the classifier
    assert num_parameters(VGG()) == 9_220_480 + 5_504 + 5_130
    # AlexNet: by hand, (5*5*3+1)*128, (5*5*128+1)*192, (9*192+1)*256, (9*256+1)*192, (9*192+1)*192, (192*16+1)*10
    assert num_parameters(AlexNet()) == 9_728 + 614_592 + 442_624 + 442_560 + 331_968 + 30_730


def test_configs_are_the_defaults_of_the_classes(root: Path):
    for name, model in (("resnet18", ResNet()), ("alexnet", AlexNet()), ("vgg11", VGG())):
        values = yaml.safe_load((root / "configs/model" / f"{name}.yaml").read_text())
        values.pop("_target_")
        assert replace(model, **values) == model


@pytest.mark.parametrize(
    ("model", "shape", "word"),
    [
        (AlexNet(), (1, 7, 7), "too small"),
        (VGG(norm="instance"), (1, 8, 8), "one pixel"),
        (ResNet(width=8, blocks=(1, 1, 1, 1), norm="instance"), (1, 8, 8), "always zero"),
    ],
)
def test_what_does_not_fit_is_said(model, shape, word):
    with pytest.raises(ConfigError, match=word):
        model.build(shape, 10, 0)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: ResNet(width=0), "model.width=0 must be a whole number >= 1; type model.width=64"),
        (lambda: ResNet(blocks=()), "model.blocks=[] must be a list [...] of at least one, of which each is a whole"),
        (lambda: AlexNet(width=-1), "model.width=-1"),
        (lambda: VGG(norm="layer"), "model.norm=layer must be one of instance, group, batch, none; type model.norm="),
    ],
)
def test_values_that_break_a_rule_are_refused(make, key):
    with pytest.raises(ConfigError, match=re.escape(key)):
        make()


def test_group_norm_has_32_groups_where_the_width_allows():
    assert norm_layer("group", 64).num_groups == 32
    assert norm_layer("group", 48).num_groups == 16
    assert norm_layer("instance", 48).num_groups == 48
