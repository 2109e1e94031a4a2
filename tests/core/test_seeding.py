import numpy as np
import torch

from fedcl.core.seeding import derive, numpy_rng, torch_rng


def test_a_stream_is_its_name():
    assert derive(0, "a", client=1) == derive(0, "a", client=1)
    cells = [{}, {"client": 1}, {"step": 1}, {"round": 1}, {"client": 1, "step": 1}]
    seeds = [derive(seed, purpose, **cell) for seed in (0, 1, 11) for purpose in ("a", "b") for cell in cells]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_stream_never_changes():
    # results that were published with a seed must stay reproducible with it
    assert derive(0, "client sampling", round=3) == 7624145810599588916


def test_generators_leave_the_global_ones_alone():
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.rand(3, generator=torch_rng(0, "x"))
    numpy_rng(0, "x").random(3)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
