from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fedcl.models.convnet import AveragePool2


@pytest.mark.parametrize("side", [(8, 8), (7, 5), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_average_pooling_to_the_last_rounding(side, dtype):
    x = torch.randn(3, 4, *side, generator=torch.Generator().manual_seed(0)).to(dtype)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(AveragePool2()(x), F.avg_pool2d(x.double(), 2).to(dtype), rtol=step, atol=step)


def test_its_gradient_is_a_quarter_wherever_a_pixel_counts():
    x = torch.zeros(1, 2, 5, 4, requires_grad=True)
    AveragePool2()(x).sum().backward()
    expected = torch.full((1, 2, 5, 4), 0.25)
    expected[:, :, 4] = 0  # the odd last row is left out
    assert torch.equal(x.grad, expected)


def test_an_empty_batch_stays_empty():
    assert AveragePool2()(torch.zeros(0, 3, 4, 4)).shape == (0, 3, 2, 2)


def test_it_can_be_trained_after_a_first_use_in_inference_mode():
    pool, x = AveragePool2(), torch.zeros(1, 1, 22, 22)
    with torch.inference_mode():
        pool(x)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(pool(x).square().sum() + pool(x).sum(), x, create_graph=True)
    assert gradient.requires_grad
    assert float(gradient.detach().mean()) == 0.25
