"""Laws of decoders: exact bytes, exact inverses, gradients, wires and files."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from fedcl.core.coding import Wire
from fedcl.core.errors import ConfigError, DataError, DistillError, WireError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.distill.blobs import decode, encode
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.initializers import Noise
from fedcl.distill.journal import CheckpointStore
from fedcl.distill.labels import Kernel
from fedcl.distill.objectives.kernel import FeatureRegression
from fedcl.distill.parameterizations import load_decoder
from fedcl.distill.parameterizations.frequency import Frequency, energy, transform
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.parameterizations.zoom import Zoom

KINDS = [
    Pixels(),
    Pixels(clamp=True),
    Zoom(factor=2),
    Zoom(factor=3, clamp=False),
    Frequency(kept=10, multiple=3),
    Frequency(kept=0.25, multiple=4),
]
NAMES = [f"{kind.name}-{index}" for index, kind in enumerate(KINDS)]


def noise(count, side=8, channels=2):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def real(count=5, side=8, channels=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
class TestLaws:
    def test_entries_targets_and_images_agree(self, kind):
        arrays = kind.encode(noise(4), real())
        images = kind.decode(arrays, (2, 8, 8))
        targets = kind.expand(torch.arange(4))
        assert images.shape == (len(targets), 2, 8, 8)
        assert set(arrays) == set(kind.arrays)  # all are declared
        assert all(len(arrays[name]) == 4 for name in kind.named("row"))
        assert kind.rowwise == (set(arrays) == set(kind.named("row")))

    def test_rows_decode_alone(self, kind):
        arrays = kind.encode(noise(4), real())
        images, owner = kind.decode(arrays, (2, 8, 8)), kind.expand(torch.arange(4))
        one = {name: array[2:3] if name in kind.named("row") else array for name, array in arrays.items()}
        torch.testing.assert_close(kind.decode(one, (2, 8, 8)), images[owner == 2], atol=1e-5, rtol=1e-5)

    def test_no_entries(self, kind):
        arrays = kind.encode(noise(0), real())
        assert kind.decode(arrays, (2, 8, 8)).shape == (0, 2, 8, 8)
        assert kind.decode(kind.encode(noise(0), real(0)), (2, 8, 8)).shape == (0, 2, 8, 8)

    def test_gradients_flow_to_every_number(self, kind):
        arrays = kind.encode(noise(2), real())
        learned = [arrays[n].requires_grad_() for n in arrays if n not in kind.named("fixed")]
        weight = noise(len(kind.expand(torch.arange(2))))
        for gradient in torch.autograd.grad((kind.decode(arrays, (2, 8, 8)) * weight).sum(), learned):
            assert (gradient != 0).float().mean() > 0.99

    def test_the_decoder_is_found_again(self, kind):
        assert load_decoder(kind.spec()) == kind

    def test_a_summary_survives_its_file(self, kind, new_set, new_distiller, ctx, tmp_path):
        summary = new_distiller(parameterization=kind).distill([new_set({0: 9, 2: 9})], 0, ctx)[0]
        save_summary(summary, tmp_path / "summary.safetensors")
        loaded = load_summary(tmp_path / "summary.safetensors")
        assert loaded.sha256() == summary.sha256()
        assert torch.equal(loaded.decode()[0], summary.decode()[0])

    def test_every_wire_keeps_the_places(self, kind, new_set, new_distiller, ctx):
        """Decoding after quantisation stays near: no number of an array is an index that quantisation breaks."""
        summary = new_distiller(parameterization=kind).distill([new_set({0: 9, 2: 9})], 0, ctx)[0]
        images = summary.decode()[0]
        for dtype in ("float32", "float16", "uint8"):
            decoded = decode(encode(summary, Wire(dtype=dtype))).decode()[0]
            assert float((decoded - images).abs().max()) < 0.05 * float(images.max() - images.min())


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (Pixels(), 4 * 64),  # two classes of two entries
        (Frequency(), 16 * 16 + 2 * 16),  # a quarter of 64, four times the entries: pixels and the places
        (Zoom(factor=2), 4 * 64),
        (Frequency(kept=10, multiple=3), 12 * 10 + 2 * 10),  # three times the entries, and where they are
    ],
)
def test_bytes_are_counted_to_the_last(kind, numbers, new_set, new_distiller, ctx):
    summary = new_distiller(parameterization=kind, initializer=Noise()).distill([new_set({0: 9, 2: 9})], 0, ctx)[0]
    assert encode(summary).parts == {"images": 4 * numbers, "labels": len(summary.targets)}  # a byte a label


@pytest.mark.parametrize("kind", [Pixels(clamp=True), Zoom(clamp=True)])
def test_clamped_pixels_stay_between_black_and_white(kind, new_set, new_distiller, ctx):
    """Normalised by (0.5, 0.25): between -2 and 2, channel by channel; what is inside does not move."""
    images = torch.tensor([-9.0, -2, 0.5, 2, 9]).view(5, 1, 1, 1).repeat(1, 2, 2, 2).requires_grad_()
    units = Normalization(mean=(0.5, 0.0), std=(0.25, 0.5))
    kind.project({"images": images}, InputSpec(shape=(2, 4, 4), preprocess=units))
    assert images[:, 0, 0, 0].tolist() == [-2, -2, 0.5, 2, 2]
    assert images[:, 1, 0, 0].tolist() == [0, 0, 0.5, 2, 2]
    free, kept = (
        new_distiller(parameterization=p, optimizer=partial(torch.optim.SGD, lr=1e4)).distill([new_set({0: 9})], 0, ctx)
        for p in (replace(kind, clamp=False), kind)
    )
    assert float(free[0].arrays["images"].abs().max()) > 2
    assert float(kept[0].arrays["images"].abs().max()) == 2


def test_clamping_is_of_every_update_and_of_nothing_else(new_set, new_distiller, ctx):
    """Two steps by hand: the second begins where the first was clamped; the receiver is not told."""
    data = new_set({0: 9})
    kind = Pixels(clamp=True)
    whole = new_distiller(parameterization=kind, steps=2, optimizer=partial(torch.optim.SGD, lr=50.0))
    shelf = []

    class Keep(CheckpointStore):
        every = 1

        def load(self, run):
            return None

        def save(self, run, state):
            shelf.append(state["learned.images"])

    summary = whole.distill([data], 0, ctx, store=Keep())[0]
    assert [float(images.abs().max()) for images in shelf] == [2, 2]
    assert kind.spec() == Pixels().spec() == {"name": "pixels"}
    assert replace(summary, decoder=Pixels()).sha256() == summary.sha256()
    still = new_distiller(
        parameterization=kind, steps=2, optimise_images=False, labels=Kernel(), objective=FeatureRegression()
    )
    noise = replace(still, initializer=Noise(std=9.0)).distill([data], 0, ctx)[0]
    assert float(noise.arrays["images"].abs().max()) > 2


def test_a_part_of_the_coefficients_follows_the_size():
    assert [Frequency(kept=0.25).count(side, side) for side in (8, 28, 32)] == [16, 196, 256]
    assert Frequency(kept=0.001).count(8, 8) == 1
    assert Frequency(kept=16).count(28, 28) == 16
    old = load_decoder({"name": "frequency", "kept": 16, "multiple": 4})  # as summaries were written before
    arrays = Frequency(kept=0.25).encode(noise(2), real())
    assert torch.equal(old.decode(arrays, (2, 8, 8)), Frequency(kept=0.25).decode(arrays, (2, 8, 8)))


def test_zoom_by_hand():
    """Bilinear from 1 pixel is constant; from 2 to 4 pixels it is (a, .75a + .25b, .25a + .75b, b)."""
    entry = torch.tensor([[0.0, 4.0, 1.0, 1.0]] * 4).view(1, 1, 4, 4)
    first, second, third, _ = Zoom(factor=2).decode({"images": entry}, (1, 4, 4))
    assert first[0, 0].tolist() == third[0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]
    assert (second == 1).all()


def inverse(spectrum):
    """Images of all their coefficients, as the decoder makes them."""
    _, channels, *sides = spectrum.shape
    kept = torch.cartesian_prod(*(torch.arange(side) for side in sides)).T
    return Frequency(kept=kept.shape[1]).decode({"coefficients": spectrum.flatten(1), "kept": kept}, (channels, *sides))


def test_the_transform_is_orthonormal():
    images = noise(3, side=7)
    torch.testing.assert_close(inverse(transform(images)), images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(transform(images).square().sum(), images.square().sum())
    flat = transform(torch.ones(1, 1, 4, 4))
    assert float(flat[0, 0, 0, 0]) == pytest.approx(4.0)  # 16 pixels of 1, divided by 4
    assert float(flat.flatten()[1:].abs().max()) < 1e-6


def test_all_coefficients_are_the_image():
    kind = Frequency(kept=64, multiple=1)
    images = noise(3)
    torch.testing.assert_close(kind.decode(kind.encode(images, real()), (2, 8, 8)), images, atol=1e-5, rtol=1e-5)


def test_the_coefficients_of_most_energy_are_kept():
    """Real images that are one cosine plus a little of another."""
    spectrum = torch.zeros(6, 1, 8, 8)
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1]).view(6, 1, 1)
    spectrum[:, :, 2, 5], spectrum[:, :, 0, 3] = 400 * signs[:, 0], 100 * signs[:, 0]
    spectrum[:, :, 0, 0] = 8 * 128
    pixels = inverse(spectrum).round().clamp(0, 255).to(torch.uint8)
    arrays = Frequency(kept=2, multiple=1).encode(noise(1, channels=1), pixels)
    assert sorted(map(tuple, arrays["kept"].T.int().tolist())) == [(0, 3), (2, 5)]
    assert energy(pixels).argmax() == 2 * 8 + 5


def test_fixed_arrays_are_not_optimised(new_set, new_distiller, ctx):
    data = new_set({0: 9, 2: 9})
    distiller = new_distiller(parameterization=Frequency(kept=10), optimizer=partial(torch.optim.SGD, lr=1.0))
    start = new_distiller(parameterization=Frequency(kept=10), steps=0).distill([data], 0, ctx)[0]
    end = distiller.distill([data], 0, ctx)[0]
    assert torch.equal(start.arrays["kept"], end.arrays["kept"])
    assert not torch.equal(start.arrays["coefficients"], end.arrays["coefficients"])


def test_what_is_not_in_rows_runs_set_by_set(new_set, new_distiller, ctx):
    distiller = new_distiller(parameterization=Frequency(kept=10), batching="together")
    assert not distiller.together(ctx.device)
    sets = [new_set({0: 9}), new_set({2: 9}, client=1), new_set({}, client=2)]
    batch = distiller.distill(sets, 0, ctx)
    assert [s.sha256() for s in batch] == [distiller.distill([d], 0, ctx)[0].sha256() for d in sets]


def test_chosen_pixels_teach_labels_as_the_same_numbers_do(new_set, new_distiller, ctx):
    """Images that are not learned stay bytes; networks see them normalised, as they see all their coefficients."""
    data, labels = new_set({0: 9, 2: 9}), {"labels": Kernel(), "objective": FeatureRegression()}
    kinds = (Pixels(), Frequency(kept=64, multiple=1))
    bytes_, numbers = (
        new_distiller(parameterization=kind, optimise_images=False, **labels).distill([data], 0, ctx)[0]
        for kind in kinds
    )
    assert (bytes_.arrays["images"].dtype, numbers.arrays["coefficients"].dtype) == (torch.uint8, torch.float32)
    assert len(bytes_.targets.unique()) > 2  # something was learned
    for one, other in zip(bytes_.decode(), numbers.decode(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_selection_is_a_start(new_set, new_distiller, ctx):
    """The same chosen images, as bytes of an earlier call or fresh, are the same start; numbers start a selection."""
    data, distiller = new_set({0: 9, 2: 9}), new_distiller(steps=2)
    chosen = replace(distiller, steps=0).distill([data], 0, ctx)
    assert chosen[0].arrays["images"].dtype == torch.uint8
    learned = distiller.distill([data], 0, ctx)
    assert distiller.distill([data], 0, ctx, start=chosen)[0].sha256() == learned[0].sha256()
    again = replace(distiller, steps=0).distill([data], 0, ctx, start=learned)[0]
    assert again.sha256() == learned[0].sha256()


def test_foreign_arrays_and_numbers_are_refused():
    kind = Frequency(kept=4)
    arrays = kind.encode(noise(1), real())
    with pytest.raises(DataError, match="kept"):
        kind.decode({**arrays, "kept": arrays["kept"][:, :3]}, (2, 8, 8))
    with pytest.raises(DataError, match="outside"):
        kind.decode({**arrays, "kept": arrays["kept"] + 8}, (2, 8, 8))
    with pytest.raises(DistillError, match=r"parameterization\.kept=65"):
        Frequency(kept=65).encode(noise(1), real())
    with pytest.raises(DistillError, match=r"parameterization\.factor"):
        Zoom(factor=9).encode(noise(1), real())
    for wrong in (lambda: Frequency(kept=0), lambda: Frequency(kept=1.5), lambda: Zoom(factor=0)):
        with pytest.raises(ConfigError, match="parameterization"):
            wrong()
    with pytest.raises(WireError, match="no decoder"):
        load_decoder({"name": "base"})
