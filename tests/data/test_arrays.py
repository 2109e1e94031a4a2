import zipfile

import numpy as np
import pytest
import torch

from fedcl.core.errors import ConfigError, DataError
from fedcl.data.arrays import Arrays

# Three training and two test images of 5x6 pixels with every grey level from 0 up, labels of two classes.
X_TRAIN = (np.arange(3 * 5 * 6) * 255 // 89).astype(np.uint8).reshape(3, 5, 6)
X_TEST = 255 - X_TRAIN[:2]
GOOD = {"x_train": X_TRAIN, "y_train": np.array([1, 0, 1]), "x_test": X_TEST, "y_test": np.array([0, 1])}


def load(path, layout="auto", **changes):
    np.savez(path, **{**GOOD, **changes})
    return Arrays(path=str(path), layout=layout, horizontal_flip=False).load()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def test_class_order_and_name(path):
    mine = load(path)
    assert mine.name == "mine"
    assert mine.train.labels_N.tolist() == [0, 1, 1]
    assert torch.equal(mine.train.inputs[:, 0], torch.from_numpy(X_TRAIN[[1, 0, 2]]))
    assert torch.equal(mine.test.inputs[:, 0], torch.from_numpy(X_TEST))
    assert not mine.inputs.flips


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_0_1_become_the_bytes_that_they_came_from(path, dtype):
    every_byte = np.tile(np.arange(256, dtype=np.uint8), 2).reshape(2, 16, 16)
    mine = load(
        path,
        x_train=(every_byte / 255).astype(dtype),
        y_train=np.array([0, 1]),
        x_test=(every_byte / 255).astype(dtype),
    )
    assert torch.equal(mine.train.inputs[:, 0], torch.from_numpy(every_byte))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_layouts_give_the_same_images(path, channels):
    def wide(images):
        return np.stack([images // (c + 1) for c in range(channels)], axis=-1)

    nhwc = load(path, x_train=wide(X_TRAIN), x_test=wide(X_TEST))
    nchw = load(path, x_train=wide(X_TRAIN).transpose(0, 3, 1, 2), x_test=wide(X_TEST).transpose(0, 3, 1, 2))
    assert nhwc.inputs.shape == nchw.inputs.shape == (channels, 5, 6)
    assert torch.equal(nhwc.train.inputs, nchw.train.inputs)
    assert nhwc.train.inputs[1, -1, 0, 3].item() == X_TRAIN[0, 0, 3] // channels


def test_a_layout_that_is_open_must_be_typed(path):
    x_train, x_test = np.zeros((3, 13, 9, 13), np.uint8), np.zeros((2, 13, 9, 13), np.uint8)
    with pytest.raises(DataError, match=r"type dataset\.layout=NHWC or dataset\.layout=NCHW"):
        load(path, x_train=x_train, x_test=x_test)
    assert load(path, "NHWC", x_train=x_train, x_test=x_test).inputs.shape == (13, 13, 9)
    assert load(path, "NCHW", x_train=x_train, x_test=x_test).inputs.shape == (13, 9, 13)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint64])
def test_labels_of_any_integer_type(path, dtype):
    mine = load(path, y_train=GOOD["y_train"].astype(dtype), y_test=GOOD["y_test"][:, None].astype(dtype))
    assert mine.train.labels_N.tolist() == [0, 1, 1]
    assert mine.test.labels_N.tolist() == [0, 1]


def test_as_many_classes_as_there_are(path):
    labels = np.arange(300)
    images = np.zeros((300, 2, 2), np.uint8)
    assert load(path, x_train=images, y_train=labels, x_test=images, y_test=labels).num_classes == 300


def test_a_relative_path_starts_at_root(path):
    load(path)
    assert len(Arrays(root=str(path.parent), path=path.name, horizontal_flip=True).load().train) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.array([X_TRAIN[0], None, 3], dtype=object)}, "x_train .* object arrays are refused"),
        ({"y_test": np.array([0, "1"], dtype=object)}, "y_test .* object arrays are refused"),
        ({"y_train": np.array([0, 1])}, "3 images in x_train but 2 labels in y_train"),
        ({"y_train": np.array([0, -1, 1])}, r"labels -1\.\.1"),
        ({"y_train": np.array([0, 2**63, 1], dtype=np.uint64)}, r"labels 0\.\.9223372036854775808"),
        ({"y_test": np.array([0, 2])}, "labels 0..2, but there are 2 classes"),
        ({"y_train": np.array([1, 2, 1]), "y_test": np.array([1, 2])}, "no image of class 0 of 3"),
        ({"y_train": np.eye(3, dtype=np.int64)}, r"\.argmax\(1\)"),
        ({"y_train": np.array([0.0, 1.0, 1.0])}, r"\.astype\('int64'\)"),
        ({"x_train": X_TRAIN.astype(np.float32)}, r"floats must lie in \[0, 1\]: divide by 255"),
        ({"x_train": X_TRAIN / 255 - 0.5}, "undo the normalisation"),
        ({"x_test": np.full((2, 5, 6), np.nan)}, r"nan\.\.nan"),
        ({"x_train": X_TRAIN.astype(np.int64)}, r"x_train .* is int64; save uint8"),
        ({"x_train": X_TRAIN.reshape(3, 30)}, r"reshape it to \[N, H, W\]"),
        ({"x_test": X_TEST[:, :4]}, "bring them to one shape"),
        (
            {"x_train": X_TRAIN[:0], "y_train": np.array([], dtype=np.int64)},
            "training set of 'mine' is empty",
        ),
    ],
)
def test_malformed_arrays(path, changes, message):
    with pytest.raises(DataError, match=message):
        load(path, **changes)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_a_missing_key_is_named(path, key):
    np.savez(path, **{other: array for other, array in GOOD.items() if other != key})
    with pytest.raises(DataError, match=rf"dataset\.path=.*mine\.npz has no {key} "):
        Arrays(path=str(path), horizontal_flip=False).load()


def test_path_is_needed():
    with pytest.raises(DataError, match=r"type dataset\.path=FILE\.npz"):
        Arrays(horizontal_flip=False).load()


def test_a_missing_file_is_named(path):
    with pytest.raises(DataError, match=r"no file at dataset\.path=.*mine\.npz"):
        Arrays(path=str(path), horizontal_flip=False).load()


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short", b"\x80\x04K\x01."])
def test_a_file_that_is_not_an_npz(path, content):
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.path=.* is not an npz file"):
        Arrays(path=str(path), horizontal_flip=False).load()


def test_a_single_array_is_not_an_npz(path):
    with path.open("wb") as file:
        np.save(file, X_TRAIN)
    with pytest.raises(DataError, match="holds a single array"):
        Arrays(path=str(path), horizontal_flip=False).load()


def test_a_damaged_member(path):
    np.savez(path, **GOOD)
    content = bytearray(path.read_bytes())
    content[content.find(X_TRAIN.tobytes())] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x_train of dataset\.path=.* cannot be read"):
        Arrays(path=str(path), horizontal_flip=False).load()


def test_a_member_that_is_no_array(path):
    np.savez(path, **{key: array for key, array in GOOD.items() if key != "x_train"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train", b"not an array")
    with pytest.raises(DataError, match=r"x_train of dataset\.path=.* has shape \(\)"):
        Arrays(path=str(path), horizontal_flip=False).load()


def test_an_unknown_layout():
    with pytest.raises(ConfigError, match="must be one of auto, NHWC, NCHW"):
        Arrays(layout="HWCN", horizontal_flip=False)
