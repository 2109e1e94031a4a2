"""Instance norm is the library's; its second derivative is written out, and exact."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from fedcl.models.norms import InstanceNorm


def layers(dtype=torch.float32, width=3):
    ours = InstanceNorm(width).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(width, generator=generator))
    theirs = nn.GroupNorm(width, width).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def images(dtype=torch.float32, n=2, width=3):
    return torch.randn(n, width, 4, 5, generator=torch.Generator().manual_seed(1)).to(dtype)


def second_derivatives(layer, x):
    """Of a number made of all three gradients: at the input, the weight and the bias."""
    x = x.clone().requires_grad_()
    inputs = [x, layer.weight, layer.bias]
    value = (layer(x).square() * torch.linspace(0.1, 1, x[0].numel()).view(x[0].shape).to(x)).sum()
    found = torch.autograd.grad(value, inputs, create_graph=True)
    return torch.autograd.grad(sum(g.sin().sum() for g in found), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_output_and_the_first_derivative_are_the_librarys_to_the_last_bit(dtype):
    ours, theirs = layers()
    found = []
    for layer in (ours, theirs):
        x = images(dtype).requires_grad_()
        y = layer(x)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, layer.weight, layer.bias])))
    for mine, other in zip(*found, strict=True):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def test_the_second_derivative_is_that_of_the_definition():
    ours, _ = layers(torch.float64)
    x = images(torch.float64).requires_grad_()
    inputs = (x, ours.weight, ours.bias)

    def through(x, weight, bias):
        return functional_call(ours, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(through, inputs)
    assert torch.autograd.gradgradcheck(through, inputs)


def test_the_second_derivative_is_the_librarys():
    mine, other = (second_derivatives(layer, images(torch.float64)) for layer in layers(torch.float64))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_second_derivative_of_half_precision_images_is_as_close_as_the_librarys():
    ours, theirs = layers()
    x = images().to(torch.bfloat16)
    exact = second_derivatives(theirs, x.float())[0]
    mine, other = (second_derivatives(layer, x)[0] for layer in (ours, theirs))
    assert mine.dtype == torch.bfloat16
    assert (mine.float() - exact).norm() <= 1.05 * (other.float() - exact).norm()


def gradients_an_image(layer, x):
    """Of a number made of the output, at the parameters: by vmap for all images, and one after the other."""
    weights = dict(layer.named_parameters())

    def loss(weights, image):
        return functional_call(layer, weights, (image[None],)).to(layer.weight.dtype).pow(3).sum()

    together = vmap(grad(loss), in_dims=(None, 0))({n: w.detach() for n, w in weights.items()}, x)
    for row in range(len(x)):
        alone = torch.autograd.grad(loss(weights, x[row]), list(weights.values()))
        for name, one in zip(weights, alone, strict=True):
            yield together[name][row], one


def test_a_gradient_an_image_is_what_a_loop_gives():
    ours, _ = layers(torch.float64)
    for together, alone in gradients_an_image(ours, images(torch.float64, n=3)):
        torch.testing.assert_close(together, alone)


def test_a_gradient_an_image_works_where_images_are_bfloat16_and_weights_are_not():
    """As under autocast; vmap's own rule rounds the statistics to bfloat16."""
    ours, _ = layers()
    for together, alone in gradients_an_image(ours, images(torch.bfloat16, n=3)):
        assert (together - alone).norm() <= 0.05 * alone.norm()


def test_it_can_be_copied_and_used_without_gradients():
    ours, theirs = layers()
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(ours)(images()), theirs(images()), rtol=0, atol=0)
