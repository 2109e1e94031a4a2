import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from fedcl.core.errors import ConfigError, DataError
from fedcl.data.vision import Vision

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
NAMES = ["mnist", "fashion_mnist", "kmnist", "svhn", "cifar10", "cifar100"]
RGB = np.arange(20 * 3 * 32 * 32).reshape(20, 3, 32, 32).astype(np.uint8) // 2
LABELS = np.arange(20) % 10


def write_idx(root, name="MNIST", count=20):
    """The four files of the MNIST format: big-endian header, then bytes. Image i is filled with i."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    images = np.arange(count, dtype=np.uint8).repeat(28 * 28)
    for part in ("train", "t10k"):
        header = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = np.array([0x801, count], dtype=">i4").tobytes()
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


def load(name, root, **more):
    return Vision(name=name, root=str(root), horizontal_flip=False, **more).load()


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_files_of_the_mnist_format(tmp_path, name, folder):
    write_idx(tmp_path, folder)
    small = load(name, tmp_path, mean=[0.1307], std=[0.3081])
    assert small.name == name
    assert small.inputs.shape == (1, 28, 28)
    assert small.train.labels_N.tolist() == sorted([*range(10)] * 2)
    assert small.train.inputs[:4, 0, 27, 0].tolist() == [0, 10, 1, 11]
    assert small.num_classes == len(small.class_names) == 10
    assert small.inputs.preprocess.mean == (0.1307,)


def test_constants_are_measured_when_none_are_named(tmp_path):
    write_idx(tmp_path)
    measured = load("mnist", tmp_path).inputs.preprocess
    assert measured.mean == pytest.approx((9.5 / 255,), abs=1e-15)
    assert measured.std == pytest.approx((np.arange(20).std() / 255,), abs=1e-15)


def test_cifar_pickles_with_the_right_checksum(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(rows):
        return {"data": RGB[rows].reshape(-1, 3072), "labels": LABELS[rows].tolist()}

    train = [write(f"data_batch_{i + 1}", batch(slice(4 * i, 4 * i + 4))) for i in range(5)]
    name, checksum = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", batch(slice(0, 20)))])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})

    small = load("cifar10", tmp_path)
    assert small.class_names == tuple("abcdefghij")
    assert torch.equal(small.train.inputs[::2], torch.from_numpy(RGB[:10]))
    assert torch.equal(small.test.inputs, small.train.inputs)
    assert small.train.inputs.is_contiguous()


def test_other_pickles_are_not_opened(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trap = b"cbuiltins\nexec\n(S'raise SystemExit'\ntR."
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(trap)
    with pytest.raises(DataError, match="could not be read from"):
        load("cifar10", tmp_path)


def test_svhn_calls_the_digit_0_ten(tmp_path, monkeypatch):
    parts = {}
    for part in ("train", "test"):
        file = tmp_path / f"{part}_32x32.mat"
        labels = np.where(LABELS == 0, 10, LABELS).astype(np.uint8)
        savemat(file, {"X": RGB.transpose(2, 3, 1, 0), "y": labels[:, None]})
        parts[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", parts)
    small = load("svhn", tmp_path)
    assert small.class_names == tuple("0123456789")
    assert torch.equal(small.train.inputs[::2], torch.from_numpy(RGB[:10]))


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_say_where_we_looked_and_what_to_type(tmp_path, name):
    with pytest.raises(DataError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "dataset.root=FOLDER" in message
    assert "dataset.download=true" in message
    assert list(tmp_path.iterdir()) == []


def test_only_the_missing_file_is_named(tmp_path):
    (write_idx(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"MNIST/raw: t10k-labels-idx1-ubyte missing"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", b"<html>no such file</html>"])
def test_damaged_files_are_one_line(tmp_path, content):
    (write_idx(tmp_path) / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=r"mnist could not be read from .*MNIST/raw") as caught:
        load("mnist", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", [(tmp_path / "no mirror").as_uri() + "/"])
    with pytest.raises(DataError, match=r"mnist could not be fetched into .*train-images") as caught:
        load("mnist", tmp_path, download=True)
    assert "\n" not in str(caught.value)


def test_an_unknown_name():
    with pytest.raises(ConfigError, match="must be one of mnist, fashion_mnist"):
        Vision(name="minst", horizontal_flip=False)


@pytest.mark.parametrize(("mean", "std"), [([0.5], None), (None, [0.5]), ([0.5], [0.0]), (["a"], ["b"]), (0.5, 0.5)])
def test_constants_that_are_not(mean, std):
    with pytest.raises(ConfigError, match="or null for both to measure them"):
        Vision(name="mnist", horizontal_flip=False, mean=mean, std=std)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_old_pt_files_beside_the_originals_are_never_read(name, tmp_path):
    """torchvision prefers them: here they are other images, and then no images at all."""
    folder = datasets_folder(name)
    write_idx(tmp_path, folder)
    (tmp_path / folder / "processed").mkdir()
    for content in ((torch.zeros(30, 28, 28, dtype=torch.uint8), torch.arange(30) % 10), {"x": 1}):
        for part in ("training", "test"):
            torch.save(content, tmp_path / folder / "processed" / f"{part}.pt")
        data = load(name, tmp_path)
        assert len(data.train) == len(data.test) == 20
        assert data.train.inputs[:, 0, 0, 0].sum() == sum(range(20))


def datasets_folder(name):
    return {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}[name]


@pytest.mark.skipif(not (SHARED / "MNIST/raw/train-images-idx3-ubyte").is_file(), reason="MNIST is not here")
def test_the_original_mnist_files():
    mnist = load("mnist", SHARED)
    assert (len(mnist.train), len(mnist.test)) == (60000, 10000)
    assert mnist.train.counts_C.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.inputs.preprocess.mean == pytest.approx((0.1307,), abs=3e-4)
    assert mnist.inputs.preprocess.std == pytest.approx((0.3081,), abs=3e-4)
