"""The exact gradient through a training run, without keeping its graph.

A run w_{t+1} = step(t, w_t, inputs) is done twice: forward without a graph, storing each state; backward from the last
step to the first, each step done again with a graph of its own, through which the adjoint of its result is pulled.
This is reverse-mode differentiation (Maclaurin et al., ICML 2015, with stored states; Wang et al., arXiv 1811.10959,
appendix) and no approximation: second-order terms, step sizes, momentum and augmentation included. Memory: steps x
state, and the activations of one step.

The state is a tuple of tensors: flat weights [P], then whatever the optimiser keeps. The inputs are a tuple of tensors
that every step may read: images, targets, step sizes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = tuple[Tensor, ...]
# (t, state, inputs) -> next state; differentiable in state and inputs where gradients are enabled
Step = Callable[[int, State, State], State]


def run(step: Step, state: State, inputs: State, first: int, last: int) -> State:
    """The state after steps first .. last - 1, without a graph."""
    with torch.no_grad():
        for t in range(first, last):
            state = step(t, state, inputs)
    return state


def unroll(step: Step, state: State, inputs: State, first: int, last: int) -> State:
    """As `run`, differentiable in `state` and `inputs` by recomputation."""
    return _Unroll.apply(step, first, last, len(state), *state, *inputs)  # type: ignore[return-value]


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: Step, first: int, last: int, size: int, *tensors: Tensor) -> State:
        state, inputs = tensors[:size], tensors[size:]
        ctx.step, ctx.first, ctx.visited = step, first, []
        ctx.save_for_backward(*inputs)
        for t in range(first, last):
            ctx.visited.append(state)
            state = run(step, state, inputs, t, t + 1)
        return tuple(value.clone() if value is given else value for value, given in zip(state, tensors, strict=False))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *adjoints: Tensor) -> tuple[Tensor | None, ...]:
        # adjoints: gradient of the outer loss with respect to the state after the last step, moved backwards step by
        # step below; sums: gradients with respect to the inputs, to which every step adds its part
        inputs = tuple(value.detach() for value in ctx.saved_tensors)
        wanted = ctx.needs_input_grad[4:]
        reads = tuple(value.requires_grad_(wants) for value, wants in zip(inputs, wanted[len(adjoints) :], strict=True))
        sums: list[Tensor | None] = [None] * len(reads)
        learned = [i for i, value in enumerate(reads) if value.requires_grad]
        for t in range(ctx.first + len(ctx.visited) - 1, ctx.first - 1, -1):
            # the state before the first step is a constant for most callers
            pull = t > ctx.first or any(wanted[: len(adjoints)])
            with torch.enable_grad():  # the step once more, from the stored state, with a graph of this step alone
                state = tuple(v.detach().requires_grad_(pull) for v in ctx.visited[t - ctx.first])
                after = ctx.step(t, state, reads)
            sources = [*(state if pull else ()), *(reads[i] for i in learned)]
            # an entry that nothing learned has reached yet has no graph to pull through
            moved = [(a, g) for a, g in zip(after, adjoints, strict=True) if a.requires_grad]
            found = torch.autograd.grad([a for a, _ in moved], sources, [g for _, g in moved], allow_unused=True)
            if pull:
                adjoints = tuple(torch.zeros_like(v) if g is None else g for v, g in zip(state, found, strict=False))
            for i, gradient in zip(learned, found[len(sources) - len(learned) :], strict=True):
                if gradient is not None:
                    sums[i] = gradient if (so_far := sums[i]) is None else so_far + gradient
        starts = [a if wants else None for a, wants in zip(adjoints, wanted, strict=False)]
        return (None, None, None, None, *starts, *sums)
