"""Files of tensors: equal content is equal bytes, and what was damaged is one line or still usable."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors import safe_open

from fedcl.core.errors import DataError, FedclError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.tensor_files import read_tensors, split, write_tensors
from fedcl.core.types import LabeledSet, Origin, Summary
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.files import load_summary, save_summary
from fedcl.distill.networks.experts import path_of, read_weights, save_expert
from fedcl.distill.parameterizations.frequency import Frequency
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.federated.client_state import ClientStore
from fedcl.federated.payload import ClientState
from fedcl.memory.budget import Budget
from fedcl.memory.buffer import Buffer
from fedcl.memory.files import load_buffer, save_buffer
from fedcl.models.mlp import MLP
from fedcl.runs.checkpoint import FORMAT, NAME
from fedcl.runs.distill_checkpoint import FileKeeper

UNITS, SHAPE, CLASSES = Normalization(mean=(0.5,), std=(0.25,)), (1, 4, 4), 3


def summary(decoder=None, soft=False, real=False):
    """Four entries of classes 0, 0, 1, 2."""
    generator, labels = torch.Generator().manual_seed(0), torch.tensor([0, 0, 1, 2])
    images = torch.randn(4, *SHAPE, generator=generator)
    pixels = torch.randint(256, (4, *SHAPE), generator=generator, dtype=torch.uint8)
    if isinstance(decoder, Frequency):
        arrays = decoder.encode(images, pixels)
    else:
        arrays = {"images": pixels if real else images}
    return Summary(
        arrays=arrays,
        targets=torch.nn.functional.one_hot(labels, CLASSES).float() if soft else labels,
        num_source_C=torch.tensor([5, 0, 7]),
        inputs=InputSpec(shape=SHAPE, preprocess=UNITS),
        decoder=decoder or Pixels(),
        method="test",
        origin=Origin(client=1, step=2),
    )


SUMMARIES = {
    "pixels": summary(),
    "soft": summary(soft=True),
    "zoom": summary(Zoom(factor=2)),
    "frequency": summary(Frequency(kept=4, multiple=2)),
}


def buffer(storage):
    found = Buffer(budget=Budget(images=40, storage=storage))
    for part in (*SUMMARIES.values(), summary(real=True)):
        found = found.add(part)
    return found


def learner():
    """(a distiller, its state before the first step), each time the same."""
    images = torch.arange(2 * 64, dtype=torch.uint8).view(2, 1, 8, 8)
    data = LabeledSet(inputs=images, labels_N=torch.tensor([0, 1]), num_classes=3)
    units = Normalization(mean=(0.5,), std=(0.25,))
    ctx = Context(
        model=MLP(hidden=(4,)),
        inputs=InputSpec(shape=(1, 8, 8), preprocess=units, invariances=("flip",)),
        num_classes=3,
    )
    distiller = Distiller(ipc=1, steps=3, optimizer=partial(torch.optim.Adam, lr=0.1))
    return distiller, distiller.begin([data], 0, ctx)


def store(folder):
    return FileKeeper(out=folder, settings={"seed": 0}, notes=lambda: {"losses": [[0, 1.5]], "seconds": 2.0})


def write_summaries(folder):
    for name, one in SUMMARIES.items():
        save_summary(one, folder / name, {"updates": 100, "lr": 0.01})
    return {name: folder / name for name in SUMMARIES}


def write_buffers(folder):
    for storage in ("float32", "float16", "uint8"):
        save_buffer(buffer(storage), folder / storage)
    return {name: folder / name for name in ("float32", "uint8")}


def write_client_state(folder):
    state = ClientState(tensors={"control": torch.ones(3)}, summaries=(summary(), summary(real=True)), storage="uint8")
    ClientStore(folder).write(7, 3, state)
    return {"client state": folder / "0007" / "000003.safetensors"}


def write_state(folder):
    distiller, state = learner()
    store(folder).save(0, distiller.step(state).tensors())
    return {"checkpoint": folder / NAME}


def write_expert(folder):
    save_expert(folder, 0, torch.arange(12.0).view(3, 4))
    return {"expert": path_of(folder, 0)}


WRITERS = (write_summaries, write_buffers, write_client_state, write_state, write_expert)


def use_summary(path):
    images, targets = load_summary(path).decode()
    assert images.shape == (len(targets), *images.shape[1:])
    assert torch.isfinite(images).all()


def use_buffer(path):
    found = load_buffer(path)
    images, targets = found.replay()
    assert len(images) == len(targets) == found.num_images
    assert torch.isfinite(images).all()
    found.add(summary()).replay()


def use_client_state(path):
    found = ClientStore(path.parent.parent).read(7)
    assert found.tensors["control"].shape == (3,)
    for held in found.summaries:
        held.check()


def use_state(path):
    distiller, state = learner()
    state.restore(store(path.parent).load(0))
    assert state.step == 1
    assert torch.isfinite(state.arrays["images"]).all()
    distiller.step(state)


def use_expert(path):
    assert torch.isfinite(read_weights(path.parent, 0, (0, 2), 4)).all()


USES = {
    write_summaries: use_summary,
    write_buffers: use_buffer,
    write_client_state: use_client_state,
    write_state: use_state,
    write_expert: use_expert,
}


def digests(folder):
    """SHA-256 of the files of every kind, written once more."""
    paths = [path for write in WRITERS for path in write(folder).values()]
    return [f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]


def test_equal_content_is_equal_bytes(tmp_path, root):
    """Four saves of each kind of file here, and four in a process whose hashes are others."""
    (tmp_path / "there").mkdir()
    code = "import sys; from pathlib import Path; from test_tensor_files import digests; folder = Path(sys.argv[1])"
    command = [sys.executable, "-c", f"{code}; [print(*digests(folder)) for _ in range(4)]", str(tmp_path / "there")]
    paths = os.pathsep.join([str(root), str(root / "tests/core")])
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    here = [" ".join(digests(tmp_path)) for _ in range(4)]
    assert len(here[0].split()) == 9
    assert len(there) == 4
    assert {*here, *there} == {here[0]}


def test_a_tensor_file_is_safetensors_and_comes_back(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.tensor(7, dtype=torch.uint8), "ä": torch.zeros(0)}
    write_tensors(tmp_path / "f", "kind 1", tensors, {"z": [1, "ü"], "a": {"x": None}})
    found, about = read_tensors(tmp_path / "f", "kind 1")
    assert about == {"z": [1, "ü"], "a": {"x": None}}
    assert {name: tensor.tolist() for name, tensor in found.items()} == {n: t.tolist() for n, t in tensors.items()}
    with safe_open(tmp_path / "f", "pt") as file:
        assert file.metadata()["format"] == "kind 1"
        assert file.get_slice("b").get_shape() == [3, 2]


def test_what_is_no_such_file_is_said(tmp_path):
    write_tensors(tmp_path / "f", "kind 1", {}, {})
    for path, kind, said in [
        (tmp_path / "f", "kind 2", "no readable 'kind 2' file: its format says 'kind 1'"),
        (tmp_path / "none", "kind 1", "there is none"),
        (tmp_path, "kind 1", "no readable"),
    ]:
        with pytest.raises(DataError, match=said):
            read_tensors(path, kind)


def unsealed(data):
    """(header, tensors' bytes) of a file, without the checksum that would give every change away."""
    header, body = split(data)
    header["__metadata__"].pop("sha256", None)
    return header, bytes(body)


def joined(header, body):
    return len(text := json.dumps(header).encode()).to_bytes(8, "little") + text + body


def rewrite(path, change):
    """Let `change` edit the metadata's values in place."""
    header, body = unsealed(path.read_bytes())
    values = {name: json.loads(text) for name, text in header["__metadata__"].items() if name != "format"}
    change(values)
    header["__metadata__"] |= {name: json.dumps(value) for name, value in values.items()}
    path.write_bytes(joined(header, body))


def test_a_flipped_bit_is_seen(tmp_path):
    """Any bit of a file, its checksum included, wherever all of a file is read."""
    rng = random.Random(0)
    for write, use in list(USES.items())[:-1]:  # of an expert, rows are read
        for path in write(tmp_path).values():
            whole = path.read_bytes()
            for _ in range(15):
                place = rng.randrange(len(whole))
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
                with pytest.raises(FedclError):
                    use(path)


def set_at(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(values):
        for key in keys:
            values = values[key]
        values[last] = value

    return change


ABSURD = {  # what a damaged value must not do: fill the memory, run for ever, or come out as Python's own error
    "zoom": [
        set_at("decoder", "factor", 10**9),
        set_at("decoder", "factor", 2.5),
        set_at("decoder", "factor", "2"),
        set_at("shape", [1, 10**6, 10**6]),
    ],
    "frequency": [
        set_at("decoder", "kept", 1e300),
        set_at("decoder", "kept", 1e999),
        set_at("shape", [1, 10**6, 10**6]),
        set_at("decoder", "name", "base"),
    ],
    "pixels": [
        set_at("shape", [0, 4, 4]),
        set_at("shape", [1, 4]),
        set_at("shape", 7),
        set_at("normalization", "std", [float("nan")]),
        set_at("normalization", "mean", [1e999]),
        set_at("normalization", {"mean": [0.5] * 3, "std": [1.0] * 3}),
        set_at("origin", {"client": "x"}),
        set_at("origin", "planet", 3),
        set_at("method", None),
    ],
    "uint8": [
        set_at("buffer", "blobs", 0, "decoder", {"name": "zoom", "factor": 10**9}),
        set_at("buffer", "blobs", 0, "num_classes", 2),
        set_at("buffer", "blobs", 0, "num_classes", 10**9),
        set_at("buffer", "blobs", 0, "extra_rows", "images"),
        set_at("buffer", "blobs", 0, "extra_rows", [{}]),
        set_at("buffer", "blobs", 0, "coding", "int4"),
        set_at("buffer", "blobs", 0, "coding", "float32"),
        set_at("buffer", "blobs", 0, "shape", [3, 4, 4]),
        set_at("buffer", "budget", "images", None),
        set_at("buffer", "budget", "images", "many"),
        set_at("buffer", "blobs", 3),
        set_at("buffer", {}),
    ],
    "checkpoint": [
        set_at("run", "order", []),
        set_at("run", "order", None),
        set_at("run", "done", "1"),
        set_at("run", "done", 2),
        set_at("run", "about", []),
        set_at("run", "about", "settings", 5),
        set_at("run", "about", "notes", 5),
        set_at("run", 3),
    ],
}


@pytest.fixture
def impatient():
    """Fails where a file keeps its reader busy for a quarter of a minute."""

    def give_up(*_):
        raise TimeoutError("a damaged file keeps its reader busy")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(15)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_values_are_refused(name, tmp_path, impatient):
    for change in ABSURD[name]:
        [(write, path)] = [(w, f[name]) for w in WRITERS if name in (f := w(tmp_path))]
        USES[write](path)
        rewrite(path, change)
        with pytest.raises(FedclError):
            USES[write](path)


def test_a_state_that_no_distillation_keeps_is_refused(tmp_path):
    distiller, begun = learner()
    state, path = distiller.step(begun).tensors(), tmp_path / NAME
    for changes, said in [
        ({"learned.images": state["learned.images"] / 0}, "'learned.images' is not finite"),
        ({"learned.images": state["learned.images"][:1]}, r"holds .*\[1, 1, 8, 8\].* needs .*\[2, 1, 8, 8\]"),
        ({"optimizer.images.exp_avg": torch.zeros(2, 1, 8, 9)}, "RuntimeError"),
        ({"optimizer.images.exp_avg": torch.zeros(2, 1, 8, 8).int()}, r"'optimizer.images.exp_avg' is torch\.int32"),
        ({"step": torch.tensor(2)}, "says 1 steps and holds 2"),
        ({"step": torch.tensor([1, 1])}, "damaged"),
    ]:
        store(tmp_path).save(0, state)
        about = read_tensors(path, FORMAT)[1]
        write_tensors(path, FORMAT, state | changes, about)
        with pytest.raises(FedclError, match=said):
            use_state(path)


NASTY = (None, -1, 0, 10**9, 1e308, 2.5, True, "", "x", [], {}, [[]], float("nan"), 1e999, 10**400)
TEXTS = ("", "{", "[" * 100_000, '{"a":' * 50_000, "nul", '"\\ud800"', "1" * 5000)


def a_leaf(rng, value):
    """A random (holder, key) inside nested lists and dictionaries."""
    holder, key = {"": value}, ""
    while isinstance(holder[key], dict | list) and len(holder[key]) and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    return holder, key


def damage(rng, data):
    """One of the ways in which a file comes to harm, or is edited by hand."""
    kind = rng.randrange(8)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        found = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)
    header, body = unsealed(data)
    if kind == 2 and len(body) >= 4:  # a float becomes NaN, infinity, or all ones
        place = 4 * rng.randrange(len(body) // 4)
        worst = rng.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff", b"\xff\xff\x7f\x7f"])
        return joined(header, body[:place] + worst + body[place + 4 :])
    metadata = header["__metadata__"]
    name = rng.choice(sorted(metadata))
    if kind == 3:
        metadata[name] = rng.choice(TEXTS)
    elif kind == 4:
        del metadata[name]
    elif kind == 5:  # a tensor changes its name, type or shape
        tensor = rng.choice(sorted(set(header) - {"__metadata__"}))
        about = header.pop(tensor)
        change = rng.randrange(3)
        shape = about["shape"]
        if change == 1:
            about["dtype"] = rng.choice(["F32", "I32", "F16", "U8", "BF16", "I64", "F8_E4M3", "BOOL"])
        if change == 2:
            about["shape"] = rng.choice([shape[::-1], [*shape, 1], [0], [1 << 62, 4]])
        header[tensor if change else f"{tensor}x"] = about
    elif name != "format":
        value = json.loads(metadata[name])
        holder, key = a_leaf(rng, value)
        if isinstance(holder, dict) and key and kind == 6:
            del holder[key]
        elif key != "":
            holder[key] = rng.choice(NASTY)
        metadata[name] = json.dumps(value)
    return joined(header, body)


@pytest.mark.parametrize("write", WRITERS)
def test_a_damaged_file_is_one_line_or_usable(write, tmp_path, impatient):
    rng = random.Random(0)
    refused = used = 0
    for path in write(tmp_path).values():
        whole = joined(*unsealed(path.read_bytes()))
        for _ in range(50):
            path.write_bytes(damage(rng, whole))
            try:
                USES[write](path)
                used += 1
            except FedclError:
                refused += 1
        path.write_bytes(whole)
    assert refused > used > 0
