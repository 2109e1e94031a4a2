from dataclasses import dataclass, field

import pytest
import torch

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import InputSpec, Normalization, check_parts
from fedcl.distill.distiller import Distiller
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.training.augmentation import NoAugmentation, Siamese
from fedcl.training.loop import Training

IMAGES = InputSpec(shape=(1, 2, 2), preprocess=Normalization(mean=(0.5,), std=(0.25,)), invariances=("flip",))
ROWS = InputSpec(shape=(2,), preprocess=Normalization(mean=(10.0, 0.0), std=(5.0, 1.0)), dtype="float32")


def test_pixels_are_normalised_and_floats_are_what_a_network_reads():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    normalised = IMAGES.apply(pixels)
    assert normalised.flatten().tolist() == pytest.approx([-2.0, (51 / 255 - 0.5) / 0.25, 2.0])
    assert IMAGES.apply(normalised) is normalised
    assert IMAGES.invert(normalised).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_rows_of_a_table_come_back_in_their_own_units():
    rows = torch.tensor([[1.0, 0.0], [-2.0, 1.0]])
    assert ROWS.apply(rows) is rows
    assert ROWS.invert(rows).tolist() == [[15, 0], [0, 1]]


def test_what_one_input_is_and_costs():
    assert IMAGES.is_image
    assert IMAGES.flips
    assert IMAGES.nbytes == 4
    assert not ROWS.is_image
    assert not ROWS.flips
    assert ROWS.nbytes == 8


@pytest.mark.parametrize("spec", [IMAGES, ROWS])
def test_plain_values_and_back(spec):
    assert InputSpec.from_json(spec.to_json()) == spec


def test_files_of_the_first_version_are_of_images():
    about = {"shape": [1, 2, 2], "normalization": {"mean": [0.5], "std": [0.25]}}
    assert InputSpec.from_json(about) == InputSpec(shape=(1, 2, 2), preprocess=IMAGES.preprocess)


def test_inputs_rest_as_bytes_or_floats():
    with pytest.raises(DataError, match="uint8 or float32, got 'int64'"):
        InputSpec(shape=(2,), preprocess=ROWS.preprocess, dtype="int64")


@dataclass(frozen=True)
class Judge:
    training: Training = field(default_factory=lambda: Training(updates=1, augmentation=Siamese()))


def test_all_that_is_about_images_is_said_at_once_with_what_to_type():
    parts = {"model": ConvNet(), "distiller": Distiller(), "evaluation": Judge()}
    check_parts(parts, IMAGES)
    with pytest.raises(ConfigError) as caught:
        check_parts(parts, ROWS)
    assert str(caught.value) == (
        "these parts are about images, and the inputs are rows of 2 numbers: model (ConvNet), distiller.augmentation "
        "(Siamese), evaluation.training.augmentation (Siamese); type model=mlp augmentation=none "
        "augmentation@evaluation.training.augmentation=none"
    )
    check_parts({"model": MLP(), "distiller": Distiller(augmentation=NoAugmentation())}, ROWS)


def test_what_decides_nothing_is_not_looked_at():
    check_parts({"distiller": Distiller()}, ROWS, {"distiller.augmentation"})
    check_parts({"distiller": Distiller()}, ROWS, {"distiller"})
    with pytest.raises(ConfigError, match="augmentation=none"):
        check_parts({"distiller": Distiller()}, ROWS, {"distiller.aug"})


def test_numbers_of_a_table_have_no_range_to_be_clamped_to():
    distiller = Distiller(augmentation=NoAugmentation(), parameterization=Pixels(clamp=True))
    with pytest.raises(ConfigError, match=r"type parameterization\.clamp=false"):
        check_parts({"distiller": distiller}, ROWS)


def test_a_network_for_images_refuses_rows():
    assert MLP().build(ROWS.shape, 2, 0)(torch.zeros(3, 2)).shape == (3, 2)
    with pytest.raises(
        ConfigError, match=r"ConvNet reads images \[C, H, W\], and the inputs are \[2\]; type model=mlp"
    ):
        ConvNet().build(ROWS.shape, 2, 0)
