from __future__ import annotations

import shutil

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP

SHAPE = (1, 28, 28)


def images():
    return torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_bfloat16_is_the_same_network_to_its_rounding():
    exact, fast = (ConvNet(width=8, precision=p).build(SHAPE, 3, seed=0) for p in ("float32", "bfloat16"))
    assert all(torch.equal(a, b) for a, b in zip(exact.parameters(), fast.parameters(), strict=True))
    a, b = exact.embed(images()), fast.embed(images())
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    assert (a - b).norm() < 0.02 * a.norm()  # a rounding is 2^-9 of a number


def test_weights_and_their_gradients_stay_float32_in_bfloat16():
    network = ConvNet(width=4, precision="bfloat16").build(SHAPE, 3, seed=0)
    with torch.no_grad():
        network(images())  # nothing of a pass without gradients may be kept for one with them
    network(images()).square().sum().backward()
    for parameter in network.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert parameter.ndim == 1 or parameter.grad.abs().max() > 0


def test_the_two_precisions_are_told_apart_in_print():
    texts = {str(ConvNet(width=4, precision=p).build(SHAPE, 3, seed=0)) for p in ("float32", "bfloat16")}
    assert len(texts) == 2  # a folder of experts is named by it


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_are_the_same_network():
    """Forwards and the images' gradient; a second network shares what was compiled for the first."""
    for precision, close in (("float32", 1e-5), ("bfloat16", 0.02)):
        for seed in (0, 1):
            pictures, found = images().requires_grad_(), []
            for compile in (False, True):
                network = ConvNet(width=4, precision=precision, compile=compile).build(SHAPE, 3, seed)
                features = network.embed(pictures)
                (gradient,) = torch.autograd.grad(features.mean(0).square().sum(), pictures)
                found.append((features, gradient))
            for a, b in zip(*found, strict=True):
                assert (a - b).norm() < close * a.norm()


def test_growth_multiplies_the_channels_of_each_block():
    network = ConvNet(width=4, growth=2).build(SHAPE, 3, seed=0)
    assert [p.shape[0] for p in network.blocks.parameters() if p.ndim == 4] == [4, 8, 16]
    assert network.classifier.in_features == 16 * 4 * 4


def test_norm_before_the_convolution_leaves_the_first_block_alone():
    kinds = [
        type(layer).__name__ for layer in ConvNet(width=4, norm="batch", norm_first=True).build(SHAPE, 3, 0).blocks
    ]
    block = ["BatchNorm2d", "Conv2d", "ReLU", "AveragePool2"]
    assert kinds == block[1:] + block + block
    bare = [ConvNet(width=4, norm="none", norm_first=first).build(SHAPE, 3, 0).embed(images()) for first in (0, 1)]
    assert torch.equal(*bare)


def test_another_norm_is_the_same_architecture():
    assert ConvNet(width=4).varied(norm="batch") == ConvNet(width=4, norm="batch")
    assert ConvNet(width=4).varied(norm=None) == ConvNet(width=4)
    assert MLP(hidden=(4,)).varied(norm="batch") == MLP(hidden=(4,))  # it has none to choose


def test_lecun_weights_have_variance_one_over_fan_in_and_biases_are_zero():
    network = ConvNet(width=64, norm="none", initialization="lecun").build(SHAPE, 10, seed=0)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            assert not parameter.any()
        elif parameter.numel() > 5000:  # a standard error of 1 % or less
            std = parameter[0].numel() ** -0.5
            assert parameter.std().item() == pytest.approx(std, rel=0.05)
            assert parameter.abs().max() <= 2 / 0.8796 * std
    usual = ConvNet(width=64, norm="none").build(SHAPE, 10, seed=0)
    assert network.embed(images()).norm() > 3 * usual.embed(images()).norm()
    with pytest.raises(ConfigError, match="torch, lecun"):
        ConvNet(initialization="he")


def test_compilation_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.compile=false"):
        ConvNet(compile=True)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        ConvNet(precision="float8")
