"""Compiled networks in objectives that take gradients of gradients: compiled where these are not taken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch

from fedcl.distill.objectives.gradient import Gradient
from fedcl.distill.objectives.unrolled import Unrolled
from fedcl.models import convnet
from fedcl.models.convnet import ConvNet, uncompiled

OBJECTIVES = [Gradient(), Gradient(vectorize=True), Unrolled(inner_steps=3)]


@pytest.fixture
def compiled_bench(ctx, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)  # whether or not this machine has a compiler
    return replace(ctx, model=ConvNet(width=4, compile=True))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["looped", "vectorized", "unrolled"])
def test_what_is_compiled_is_never_differentiated_twice(
    objective, new_set, new_distiller, ctx, compiled_bench, monkeypatch
):
    """The stand-in counts its calls and, as compiled code does, has no gradients of gradients."""
    calls = []

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, features):
            return features.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return gradient

    def through(blocks, images):
        calls.append(len(images))
        return Once.apply(convnet.through(blocks, images))

    monkeypatch.setattr(convnet, "compiled", lambda: through)
    distiller = new_distiller(objective=objective, optimizer=partial(torch.optim.SGD, lr=0.1))
    sets = [new_set({0: 6, 1: 6})]
    fast, plain = (distiller.distill(sets, 0, where)[0].arrays for where in (compiled_bench, ctx))
    assert calls
    for name, array in plain.items():
        assert torch.equal(fast[name], array)


def test_compilation_is_back_after_an_error(compiled_bench):
    network, seen = compiled_bench.new_model(0), []

    def fail():
        with uncompiled(network):
            seen.append(network.compiled)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (seen, network.compiled) == ([False], True)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("objective", OBJECTIVES, ids=["looped", "vectorized", "unrolled"])
def test_the_compiled_engine_agrees(objective, new_set, new_distiller, ctx):
    distiller = new_distiller(objective=objective, optimizer=partial(torch.optim.SGD, lr=0.1))
    compiled = replace(ctx, model=ConvNet(width=4, compile=True))
    sets = [new_set({0: 6, 1: 6})]
    plain, fast = (distiller.distill(sets, 0, where)[0].arrays for where in (ctx, compiled))
    for name, array in plain.items():
        torch.testing.assert_close(fast[name], array, atol=1e-4, rtol=0)
