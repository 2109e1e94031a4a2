import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fedcl.core.errors import ConfigError, DataError
from fedcl.data.folder import Folder

RED, GREEN = (200, 10, 0), (10, 200, 0)


def save(root, name, color, size=(6, 4), mode="RGB"):
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(file)
    return file


@pytest.fixture
def root(tmp_path):
    """Two classes of 6x4 pixels (width x height): red apples, green pears."""
    for part, count in (("train", 2), ("test", 1)):
        for index in range(count):
            save(tmp_path, f"{part}/pear/{index}.png", GREEN)
            save(tmp_path, f"{part}/apple/{index}.png", RED)
    return tmp_path


def load(root, size=None):
    return Folder(root=str(root), size=size, horizontal_flip=True).load()


def test_folders_become_classes_in_sorted_order(root):
    fruit = load(root)
    assert fruit.class_names == ("apple", "pear")
    assert fruit.inputs.shape == (3, 4, 6)
    assert fruit.train.labels_N.tolist() == [0, 0, 1, 1]
    assert fruit.train.inputs[:, :, 2, 3].tolist() == [[*RED], [*RED], [*GREEN], [*GREEN]]
    assert fruit.test.inputs.is_contiguous()
    assert fruit.inputs.flips


def test_rows_and_columns_stay_where_they_are(root):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(root / "test/apple/0.png")
    assert np.array_equal(load(root).test.inputs[0].permute(1, 2, 0), pixels)


def test_grayscale_stays_one_channel_until_one_file_has_colours(tmp_path):
    for part in ("train", "test"):
        for level, label in ((0, "dark"), (255, "light")):
            save(tmp_path, f"{part}/{label}/a.png", level, mode="L")
    gray = load(tmp_path)
    assert gray.inputs.shape == (1, 4, 6)
    assert gray.train.inputs[:, 0, 0, 0].tolist() == [0, 255]
    save(tmp_path, "test/dark/b.png", RED)
    assert load(tmp_path).inputs.shape == (3, 4, 6)


def test_differing_sizes_name_two_files_unless_a_size_is_typed(root):
    odd = save(root, "test/pear/1.png", GREEN, size=(8, 8))
    with pytest.raises(DataError, match=r"0\.png is 6x4 and .*test/pear/1\.png is 8x8; .*dataset\.size=") as caught:
        load(root)
    assert str(odd) in str(caught.value)
    assert load(root, size=5).inputs.shape == (3, 5, 5)
    assert load(root, size=5).test.inputs[-1, :, 0, 0].tolist() == [*GREEN]


def test_resizing_averages_rather_than_picks_pixels(root):
    halves = np.zeros((4, 6, 3), dtype=np.uint8)
    halves[:, 3:] = 255
    Image.fromarray(halves).save(root / "test/apple/0.png")
    assert load(root, size=1).test.inputs[0].flatten().tolist() == pytest.approx([127.5] * 3, abs=1)


def test_classes_must_agree(root):
    save(root, "test/plum/0.png", RED)
    with pytest.raises(DataError, match=r"different classes in train/ and test/: plum"):
        load(root)


def test_root_is_needed():
    with pytest.raises(DataError, match=r"type dataset\.root=FOLDER"):
        Folder(horizontal_flip=False).load()


def test_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no image folders at .*train .*dataset\.root=FOLDER"):
        load(tmp_path)


def test_a_class_folder_without_images(root):
    (root / "train/plum").mkdir()
    with pytest.raises(DataError, match=r"no image folders at .*plum"):
        load(root)


def test_a_file_that_is_not_an_image(root):
    (root / "train/apple/0.png").write_text("not an image")
    with pytest.raises(DataError, match=r"apple/0\.png cannot be read as an image"):
        load(root)


def test_a_truncated_image(root):
    file = root / "train/apple/0.png"
    Image.fromarray((np.arange(4 * 6 * 3) * 37 % 251).astype(np.uint8).reshape(4, 6, 3)).save(file)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"apple/0\.png cannot be read as an image"):
        load(root)


def test_sixteen_bits_are_refused_rather_than_clipped(root):
    Image.fromarray(np.full((4, 6), 40000, dtype=np.uint16)).save(root / "train/apple/0.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        load(root)


@pytest.mark.parametrize("size", [0, -1, 2.5, "big"])
def test_a_size_that_is_not_one(size):
    with pytest.raises(ConfigError, match=rf"dataset\.size={size}"):
        Folder(size=size, horizontal_flip=False)


@pytest.mark.parametrize("link_to", ["train/apple", "train", "train/pear", "train/apple/deeper"])
def test_a_link_back_adds_no_image(root, link_to):
    before = load(root)
    (root / "train/apple/deeper").mkdir()
    (root / "train/apple/deeper/link").symlink_to(root / link_to)
    assert load(root).train.inputs.shape == before.train.inputs.shape


def test_a_link_to_images_elsewhere_is_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere, "inside/9.png", RED)
    (root / "train/apple/more").symlink_to(elsewhere)
    assert load(root).train.labels_N.tolist() == [0, 0, 0, 1, 1]


def test_images_are_read_in_the_order_of_their_names_also_below_class_folders(root):
    for index, name in enumerate(("b/1", "a/2", "a/1", "c")):
        save(root, f"test/pear/{name}.png", (index, 0, 0))
    reds = load(root).test.inputs[1:, 0, 0, 0].tolist()
    assert reds == [GREEN[0], 3, 2, 1, 0], "0, c, a/1, a/2, b/1"


def test_two_classes_are_not_one_folder(root):
    (root / "train/plum").symlink_to(root / "train/apple")
    with pytest.raises(DataError, match=r"two of apple, pear, plum are one folder"):
        load(root)


@pytest.mark.parametrize("link", ["test", "test/pear"])
def test_the_test_set_cannot_be_a_link_to_the_training_set(root, link):
    shutil.rmtree(root / link)
    (root / link).symlink_to(root / link.replace("test", "train"))
    with pytest.raises(DataError, match=r"(train|pear|apple) is reached from train/ and from test/"):
        load(root)


def test_a_pipe_is_named_before_anything_waits_for_it(root):
    os.mkfifo(root / "train/apple/q.png")
    with pytest.raises(DataError, match=r"q\.png is no file but a pipe or a device"):
        load(root)


def test_images_larger_than_the_memory(root):
    with pytest.raises(DataError, match=r"6 of 1000000x1000000 pixels take 18000 GB.*smaller dataset\.size"):
        load(root, size=1_000_000)


@pytest.fixture
def flat(tmp_path):
    """ROOT/CLASS/*.png: ten apples whose red counts up from 0, five pears from 100."""
    for name, count, start in (("apple", 10, 0), ("pear", 5, 100)):
        for index in range(count):
            save(tmp_path, f"flat/{name}/{index}.png", (start + index, 0, 0))
    return tmp_path / "flat"


def test_without_a_test_folder_a_part_of_each_class_is_the_test(flat):
    fruit, again, other = (
        Folder(root=str(flat), test_fraction=0.2, split_seed=seed, horizontal_flip=False).load() for seed in (0, 0, 1)
    )
    assert fruit.class_names == ("apple", "pear")
    assert (fruit.train.counts_C.tolist(), fruit.test.counts_C.tolist()) == ([8, 4], [2, 1])
    reds = [part.inputs[:, 0, 0, 0].tolist() for part in (fruit.train, fruit.test)]
    assert sorted(reds[0] + reds[1]) == [*range(10), *range(100, 105)]
    assert torch.equal(fruit.test.inputs, again.test.inputs)
    assert not torch.equal(fruit.test.inputs, other.test.inputs)


def test_a_train_folder_alone_may_be_split(flat):
    whole = Folder(root=str(flat), test_fraction=0.2, horizontal_flip=False).load()
    (flat / "train").mkdir()
    for name in ("apple", "pear"):
        (flat / name).rename(flat / "train" / name)
    assert torch.equal(
        Folder(root=str(flat), test_fraction=0.2, horizontal_flip=False).load().test.inputs, whole.test.inputs
    )


def test_folders_that_need_a_fraction_or_have_no_use_for_one(flat, root):
    with pytest.raises(DataError, match=r"type dataset\.test_fraction=0\.2"):
        load(flat)
    with pytest.raises(DataError, match=r"has a test folder; type dataset\.test_fraction=null"):
        Folder(root=str(root), test_fraction=0.2, horizontal_flip=False).load()
    with pytest.raises(ConfigError, match=r"dataset\.test_fraction=1\.5 must be a number in \(0, 1\)"):
        Folder(test_fraction=1.5, horizontal_flip=False)
