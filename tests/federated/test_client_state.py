"""Client states: what was kept comes back as it was stored; a session sees what its checkpoint knows, and no more."""

import pytest
import torch

from fedcl.core.errors import RunError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import Origin, Summary
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.federated.client_state import ClientStore, num_bytes
from fedcl.federated.payload import ClientState
from fedcl.memory.buffer import Budget, Buffer

UNITS = Normalization(mean=(0.5,), std=(0.25,))


def summary(*, real=False, step=0, soft=False):
    """Three images of two classes."""
    images = torch.linspace(-1.9, 1.7, 3 * 16).view(3, 1, 4, 4)
    if real:
        images = (40 * torch.arange(3 * 16)).to(torch.uint8).view(3, 1, 4, 4)
    targets = torch.tensor([[0.25, 0.75]]).expand(3, 2).contiguous() if soft else torch.tensor([0, 1, 1])
    return Summary(
        arrays={"images": images},
        targets=targets,
        num_classes=2,
        num_source_C=torch.tensor([5, 0]) if real else None,
        inputs=InputSpec(shape=(1, 4, 4), preprocess=UNITS),
        decoder=Pixels(),
        method="dm",
        origin=Origin(client=3, step=step, round=2 * step),
    )


def number(value):
    return ClientState(tensors={"n": torch.tensor(value)})


def value(store, client=3):
    return store.read(client).tensors.get("n", torch.tensor(-1)).item()


def versions(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize("shared", [True, False])
def test_what_was_kept_comes_back(tmp_path, shared):
    folder = tmp_path / "clients" if shared else None
    store = ClientStore(folder)
    assert store.read(3) == ClientState()
    state = ClientState(
        tensors={"z": torch.tensor([1.5, -2.0]), "a": torch.tensor([True]), "places": torch.tensor([2**40])},
        summaries=(summary(), summary(real=True, step=1), summary(soft=True)),
    )
    store.write(3, 0, state)
    for reader in (store, ClientStore(folder)) if shared else (store,):
        found = reader.read(3)
        assert list(found.tensors) == ["z", "a", "places"]
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in state.tensors.items())
        assert [s.sha256() for s in found.summaries] == [s.sha256() for s in state.summaries]
        assert [s.origin for s in found.summaries] == [s.origin for s in state.summaries]
        assert reader.read(4) == ClientState()


def test_coarse_storage_rounds_at_once_and_costs_what_a_buffer_costs(tmp_path):
    """The same numbers in memory and after reading, and again after keeping them once more."""
    state = ClientState(summaries=(summary(), summary(real=True)), storage="uint8")
    store = ClientStore(tmp_path)
    store.write(3, 0, state)
    kept = store.read(3)
    synthetic, real = (s.arrays["images"] for s in kept.summaries)
    assert not torch.equal(synthetic, state.summaries[0].arrays["images"])
    assert torch.equal(real, state.summaries[1].arrays["images"])  # pixels are exact
    again = ClientStore(tmp_path).read(3)
    assert [s.sha256() for s in again.summaries] == [s.sha256() for s in kept.summaries]
    store.write(3, 1, kept)
    assert [s.sha256() for s in store.read(3).summaries] == [s.sha256() for s in kept.summaries]
    buffer = Buffer(budget=Budget(images=9, storage="uint8")).add(state.summaries[0]).add(state.summaries[1])
    assert (
        num_bytes(kept) == buffer.num_bytes == 3 * (16 + 1) + 8 + 3 * (16 + 1)
    )  # pixels, labels, constants of a channel
    assert store.sizes() == {"client_bytes": buffer.num_bytes, "client_images": 6}


def test_workers_see_what_another_one_wrote(tmp_path):
    here, there = ClientStore(tmp_path), ClientStore(tmp_path)
    here.remote = there.remote = True
    here.write(3, 0, number(0))
    assert value(there) == 0
    there.write(3, 1, number(1))
    assert value(here) == 1
    here.write(3, 1, number(2))  # a second question of the same round
    assert value(there) == 2
    alone = ClientStore()
    alone.remote = True
    with pytest.raises(RunError, match="needs a folder"):
        alone.write(3, 0, number(0))


def test_a_session_begins_with_what_its_checkpoint_knows(tmp_path):
    store = ClientStore(tmp_path)
    for round in (0, 2, 5):
        store.write(3, round, number(round))
    (tmp_path / "0003" / ".000009.safetensors.abcdefgh").write_bytes(b"half")  # killed while writing
    store.write(4, 5, number(5))
    store.forget_from(5)
    assert (value(store), value(store, 4)) == (2, -1)
    assert [path.name for path in (tmp_path / "0003").iterdir()] == ["000002.safetensors"]
    store.forget_from(0)
    assert value(store) == -1
    assert not tmp_path.exists()


def test_versions_that_no_checkpoint_needs_are_removed(tmp_path):
    store = ClientStore(tmp_path)
    for round in (0, 2, 5):
        store.write(3, round, number(round))
        store.write(4, round, number(round))
    store.forget_before(4, [3])
    assert versions(tmp_path)[:2] == ["0003/000002.safetensors", "0003/000005.safetensors"]
    assert len(versions(tmp_path)) == 2 + 3
    store.forget_before(6, [3, 4, 8])
    assert versions(tmp_path) == ["0003/000005.safetensors", "0004/000005.safetensors"]
