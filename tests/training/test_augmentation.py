"""Laws of Siamese augmentation: one draw, many images; by hand; vectorised equals one by one."""

from __future__ import annotations

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.training.augmentation import TRANSFORMS, NoAugmentation, Siamese, cut_and_mix
from fedcl.training.loop import train
from fedcl.training.recipe import Training

GROUPS = tuple(TRANSFORMS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(count, channels=3, side=8, seed=0):
    return torch.randn(count, channels, side, side, generator=rng(seed))


def draw_of(group, uniform, count=1):
    codes = torch.full((count,), list(TRANSFORMS).index(group))
    return {"group": codes, "uniform": torch.tensor(uniform).expand(count, 4).clone()}


@pytest.mark.parametrize("channels", [1, 3])
def test_parameters_of_the_identity_change_nothing(channels):
    images = images_of(3, channels)
    still = Siamese(scale=1.0)
    identity = {
        "color": (0.5, 0.5, 0.5, 0.0),  # no brightness, saturation 2 * .5, contrast .5 + .5
        "crop": (0.5, 0.5, 0.0, 0.0),  # the middle of -1, 0, 1
        "flip": (0.9, 0.0, 0.0, 0.0),
        "scale": (0.3, 0.7, 0.0, 0.0),
        "rotate": (0.5, 0.0, 0.0, 0.0),
    }
    for group, uniform in identity.items():
        torch.testing.assert_close(still.apply(images, draw_of(group, uniform, 3)), images, atol=2e-6, rtol=1e-5)
    gone = Siamese(cutout=0.0)
    assert torch.equal(gone.apply(images, draw_of("cutout", (0.5, 0.5, 0, 0), 3)), images)


def test_a_crop_by_hand():
    """4x4, reach 1: u = 0 shows row y - 1 at y, zeros above; u near 1 shows column x + 1 at x, zeros on the right."""
    image = torch.arange(1.0, 17).view(1, 1, 4, 4)
    out = Siamese(crop=0.25).apply(image, draw_of("crop", (0.0, 0.99, 0, 0)))[0, 0]
    assert out.tolist() == [[0, 0, 0, 0], [2, 3, 4, 0], [6, 7, 8, 0], [10, 11, 12, 0]]


@pytest.mark.parametrize(
    ("u", "rows", "columns"),
    [
        ((0.0, 0.0), (0, 1), (0, 1)),  # centre 0: half of the square lies outside
        ((0.5, 0.99), (1, 3), (3, 4)),  # centres 0..4, 2 and 4
    ],
)
def test_a_cutout_by_hand(u, rows, columns):
    image = torch.ones(1, 2, 4, 4)
    out = Siamese(cutout=0.5).apply(image, draw_of("cutout", (*u, 0, 0)))
    expected = torch.ones(1, 2, 4, 4)
    expected[:, :, slice(*rows), slice(*columns)] = 0
    assert torch.equal(out, expected)


def test_a_flip_by_hand():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    assert Siamese().apply(image, draw_of("flip", (0.2, 0, 0, 0)))[0, 0].tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_quarter_turn_and_a_zoom_by_hand():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    quarter = Siamese(rotate=90.0).apply(image, draw_of("rotate", (1.0, 0, 0, 0)))[0, 0]
    # the view turns against the image: the pixel shown at (x, y) is taken from (-y, x)
    assert quarter.round().tolist() == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]
    ramp = torch.linspace(-1, 1, 9).expand(1, 1, 9, 9)
    half = Siamese(scale=2.0).apply(ramp, draw_of("scale", (0.0, 1 / 3, 0, 0)))[0, 0]  # factors 1/2 and 1
    torch.testing.assert_close(half[4], torch.linspace(-0.5, 0.5, 9), atol=1e-5, rtol=1e-5)


def test_colour_by_hand():
    """One pixel, channels 1 and 3; brightness +.5, saturation 0, contrast 1: both become 2.5."""
    image = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    out = Siamese().apply(image, draw_of("color", (1.0, 0.0, 0.5, 0)))
    assert out.flatten().tolist() == [2.5, 2.5]
    grey = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)  # saturation has no meaning; contrast 1.5 around 2
    assert Siamese().apply(grey, draw_of("color", (0.5, 0.0, 1.0, 0))).flatten().tolist() == [0.5, 3.5]


def test_the_same_row_is_the_same_transform():
    images = images_of(4)
    siamese = Siamese()
    draw = siamese.draw(2, rng(), flip=True)
    both = siamese.apply(torch.cat([images, images]), draw, torch.tensor([0, 1, 0, 1] * 2))
    assert torch.equal(both[:4], both[4:])


def test_vectorised_is_one_by_one():
    images, siamese = images_of(24), Siamese()
    draw = siamese.draw(24, rng(3), flip=True)
    assert len(set(draw["group"].tolist())) == len(GROUPS)
    together = siamese.apply(images, draw)
    for n in range(24):
        one = siamese.apply(images[n : n + 1], draw, torch.tensor([n]))
        torch.testing.assert_close(together[n : n + 1], one, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
def test_gradients_flow(group):
    images = images_of(3).requires_grad_()
    siamese = Siamese(groups=(group,))
    out = siamese.apply(images, siamese.draw(3, rng(1), flip=True))
    gradient = torch.autograd.grad(out.square().sum(), images)[0]
    assert gradient.isfinite().all()
    assert (gradient.flatten(1) != 0).float().mean() > 0.3


def test_all_randomness_is_in_the_generator():
    siamese = Siamese()
    before = torch.get_rng_state()
    a, b = (siamese.draw(5, rng(7), flip=True) for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["uniform"], siamese.draw(5, rng(8), flip=True)["uniform"])
    siamese.apply(images_of(5), a)
    assert torch.equal(torch.get_rng_state(), before)


def test_groups_are_equally_likely_and_flip_can_be_forbidden():
    codes = Siamese().draw(6000, rng(), flip=True)["group"]
    # 1000 each, standard deviation 29; five of them
    assert (torch.bincount(codes, minlength=6) - 1000).abs().max() < 145
    codes = Siamese().draw(600, rng(), flip=False)["group"]
    assert torch.bincount(codes, minlength=6)[GROUPS.index("flip")] == 0
    assert Siamese(groups=("flip",)).draw(5, rng(), flip=False) is None


def test_nothing_to_do():
    images = images_of(2)
    assert NoAugmentation().draw(2, rng(), flip=True) is None
    assert NoAugmentation().apply(images, None) is images
    siamese = Siamese()
    assert siamese.apply(images, None) is images
    assert len(siamese.apply(images[:0], siamese.draw(4, rng(), flip=True), torch.zeros(0).long())) == 0


def test_strengths_stay_within_their_bounds():
    """Cropping never moves an image by more than an eighth: the middle 6x6 of 8x8 stays inside the frame."""
    image = torch.zeros(500, 1, 8, 8)
    image[:, :, 1:7, 1:7] = 1
    siamese = Siamese(groups=("crop",))
    assert (siamese.apply(image, siamese.draw(500, rng(), flip=True)).sum((1, 2, 3)) == 36).all()


def test_what_is_always_done_comes_around_what_is_chosen():
    """Flip, then the chosen crop, then cutout: by one transformation after the other with the same numbers."""
    images = images_of(5)
    siamese = Siamese(groups=("crop",), always=("cutout", "flip"))
    draw = siamese.draw(5, rng(2), flip=True)
    expected = images
    for name in ("flip", "crop", "cutout"):
        uniform = draw["uniform"] if name == "crop" else draw[f"always {name}"]
        expected = TRANSFORMS[name](siamese, expected, uniform)
    assert torch.equal(siamese.apply(images, draw), expected)
    still = siamese.draw(5, rng(2), flip=False)
    assert set(still) == {"group", "uniform", "always cutout"}
    only = Siamese(groups=("flip",), always=("cutout",)).draw(5, rng(2), flip=False)
    assert set(only) == {"always cutout"}
    row_N = torch.tensor([4, 4, 0, 1, 2])
    rows = torch.stack([siamese.apply(images[n : n + 1], draw, row_N[n : n + 1])[0] for n in range(5)])
    torch.testing.assert_close(siamese.apply(images, draw, row_N), rows)


def test_a_mixture_by_hand():
    """4x4, a quarter of the area around (2, 1): rows 1-2 and columns 0-1 of the partner; 12 of 16 pixels are kept."""
    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    mixed, share = cut_and_mix(images, torch.tensor([1, 0]), 0.25, 0.5, 0.25)
    expected = torch.zeros(1, 4, 4)
    expected[:, 1:3, 0:2] = 1
    assert torch.equal(mixed, torch.stack([expected, 1 - expected]))
    assert share == 0.75
    corner, share = cut_and_mix(images, torch.tensor([1, 0]), 0.25, 0.0, 0.0)  # half of each side sticks out
    assert float(corner[0].sum()) == 1
    assert share == 15 / 16


def test_mixing_keeps_every_pixel_and_shares_are_the_area():
    images, labels = images_of(6, channels=1), torch.arange(6)
    siamese = Siamese(cutmix=1.0)
    generator = rng(5)
    for _ in range(20):
        mixed, ((own, mine), (other, theirs)) = siamese.mix(images, labels, generator)
        assert torch.equal(mine, labels)
        assert sorted(theirs.tolist()) == list(range(6))
        assert own + other == pytest.approx(1)
        strange = [n for n in range(6) if theirs[n] != n]
        kept = (mixed == images).flatten(1).float().mean(1)[strange]
        torch.testing.assert_close(kept, torch.full_like(kept, own), atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed.sort(0).values, images.sort(0).values)  # partners are a permutation


def test_mixing_happens_as_often_as_it_says_and_otherwise_not_at_all():
    images, labels = images_of(2, channels=1), torch.arange(2)
    generator = rng(1)
    often = sum(len(Siamese(cutmix=0.3).mix(images, labels, generator)[1]) - 1 for _ in range(2000))
    assert abs(often - 600) < 5 * 20.5  # standard deviation 20.5
    before = generator.get_state()
    for plain in (Siamese(), NoAugmentation()):
        same, parts = plain.mix(images, labels, generator)
        assert same is images
        assert parts == ((1.0, labels),)
    assert torch.equal(generator.get_state(), before)


def test_a_mixed_batch_is_learned_by_its_shares():
    """One step from zero scores on images of one colour: what is learned is the two targets in their shares."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
    model[1].weight.data.zero_()
    images, labels = torch.ones(2, 1, 4, 4), torch.tensor([0, 0])
    training = Training(updates=1, lr=1.0, weight_decay=0, schedule="constant", augmentation=Still(cutmix=1.0))
    train(model, images, labels, training, seed=0)
    # every target is class 0, whatever is mixed: softmax (1/2, 1/2) minus (1, 0), descended
    torch.testing.assert_close(model[1].weight.data, torch.tensor([[0.5], [-0.5]]).expand(2, 16))
    again = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2, bias=False))
    again[1].weight.data.zero_()
    train(again, images, torch.tensor([0, 1]), training, seed=0)
    # both images see own + other = one of each class: nothing is left to learn from equal images
    torch.testing.assert_close(again[1].weight.data, torch.zeros(2, 16), atol=1e-7, rtol=0)


class Still(Siamese):
    """Draws nothing."""

    def draw(self, count, generator, *, flip):
        return None


@pytest.mark.parametrize(
    "wrong",
    [{"groups": ("blur",)}, {"groups": ()}, {"scale": 0.5}, {"always": ("blur",)}, {"cutmix": 1.5}, {"cutmix": -0.1}],
)
def test_wrong_numbers_are_named(wrong):
    with pytest.raises(ConfigError, match=r"augmentation\."):
        Siamese(**wrong)
