"""Memory under a budget: never over it, bytes exact, balanced, and what is replayed came out of storage."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from fedcl.core.errors import ConfigError, DataError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.tensor_files import write_tensors
from fedcl.core.types import Origin, Summary
from fedcl.distill.parameterizations.frequency import Frequency
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.parameterizations.zoom import Zoom
from fedcl.memory.budget import Budget, positions
from fedcl.memory.buffer import Buffer
from fedcl.memory.files import FORMAT, load_buffer, pack_buffer, save_buffer

UNITS = Normalization(mean=(0.5,), std=(0.25,))
SHAPE = (1, 4, 4)
CLASSES = 6


def summary(labels, *, real=False, step=0, soft=False, decoder=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.as_tensor(labels, dtype=torch.int64)
    if real:
        arrays = {"images": torch.randint(256, (len(labels), *SHAPE), generator=generator, dtype=torch.uint8)}
    elif isinstance(decoder, Frequency):
        start = torch.randn(len(labels), *SHAPE, generator=generator)
        arrays = decoder.encode(start, torch.randint(256, (9, *SHAPE), generator=generator, dtype=torch.uint8))
    else:
        arrays = {"images": torch.randn(len(labels), *SHAPE, generator=generator)}
    targets = torch.nn.functional.one_hot(labels, CLASSES).float() if soft else labels
    return Summary(
        arrays=arrays,
        targets=targets,
        num_source_C=torch.bincount(labels, minlength=CLASSES),
        inputs=InputSpec(shape=SHAPE, preprocess=UNITS),
        decoder=decoder or Pixels(),
        method="test",
        origin=Origin(step=step),
    )


def saved_bytes(buffer):
    """What the counted tensors of a buffer weigh in a file, without names and bookkeeping."""
    tensors, _ = pack_buffer(buffer)
    kept = [t for name, t in tensors.items() if not name.endswith(("label_N", "step_N", "rank_N"))]
    return sum(len(save({"x": t})) - len(save({"x": t[:0] if t.ndim else t})) for t in kept) if kept else 0


@pytest.mark.parametrize("seed", range(6))
def test_never_over_budget_whatever_comes(seed):
    rng = random.Random(seed)
    for _ in range(12):
        unit = rng.choice(["ipc", "images", "bytes"])
        size = {"ipc": rng.randint(0, 5), "images": rng.randint(0, 30), "bytes": rng.randint(0, 3000)}[unit]
        balance = rng.choice(["classes", "none"] if unit == "ipc" else ["classes", "steps", "none"])
        storage = rng.choice(["float32", "float16", "uint8"])
        budget = Budget(**{unit: size}, balance=balance, storage=storage)
        buffer = Buffer(budget=budget)
        for step in range(rng.randint(1, 7)):
            labels = [rng.randrange(CLASSES) for _ in range(rng.randint(0, 15))]
            kind = {"real": rng.random() < 0.4, "soft": rng.random() < 0.3}
            buffer = buffer.add(summary(labels, step=step, seed=rng.randrange(99), **kind))
            if unit == "ipc" and balance == "none":
                assert len(buffer) <= size * CLASSES
            elif unit == "ipc":
                assert buffer.labels_N.bincount(minlength=CLASSES).max() <= size
            else:
                assert (len(buffer) if unit == "images" else buffer.num_bytes) <= size
            assert buffer.num_bytes == sum(
                t.nbytes
                for name, t in pack_buffer(buffer)[0].items()
                if not name.endswith(("label_N", "step_N", "rank_N"))
            )
            assert buffer.num_images == (len(buffer.replay()[1]) if len(buffer) else 0)


def test_bytes_by_hand():
    """Two classes, three images of 16 pixels each."""
    labels = [0, 0, 0, 1, 1, 1]
    size = {}
    for storage in ("float32", "float16", "uint8"):
        buffer = Buffer(budget=Budget(images=100, storage=storage)).add(summary(labels))
        size[storage] = buffer.num_bytes
        assert saved_bytes(buffer) == buffer.num_bytes
    assert size == {"float32": 6 * (64 + 1), "float16": 6 * (32 + 1), "uint8": 6 * (16 + 1) + 8}
    real = Buffer(budget=Budget(images=100)).add(summary(labels, real=True))
    assert real.num_bytes == 6 * (16 + 1)
    soft = Buffer(budget=Budget(images=100)).add(summary(labels, soft=True))
    assert soft.num_bytes == 6 * (64 + 4 * CLASSES)


def test_decoded_images_and_shared_arrays_count():
    zoom = Buffer(budget=Budget(images=100)).add(summary([0, 1], decoder=Zoom(factor=2)))
    assert zoom.memory == {"bytes": 2 * 65, "images": 8, "stored_images": 2}
    frequency = Frequency(kept=4, multiple=2)
    buffer = Buffer(budget=Budget(bytes=1000)).add(summary([0, 0, 1, 1], decoder=frequency))
    assert buffer.num_bytes == 4 * (4 * 4 + 1) + 2 * 4 * 4  # coefficients and labels; places once
    images, _ = buffer.replay()
    torch.testing.assert_close(images, summary([0, 0, 1, 1], decoder=frequency).decode()[0])
    smaller = Buffer(budget=Budget(bytes=70)).add(summary([0, 0, 1, 1], decoder=frequency))
    assert len(smaller) == 2
    assert smaller.num_bytes == 2 * 17 + 32


def test_ipc_counts_images_of_a_decoder_that_stores_several_rows_an_image():
    buffer = Buffer(budget=Budget(ipc=1)).add(summary([0] * 4 + [1] * 4, decoder=Frequency(kept=4, multiple=2)))
    assert buffer.labels_N.bincount().tolist() == [2, 2]


def test_real_images_come_back_exactly_and_coarse_ones_as_stored():
    real = summary([0, 1, 2], real=True)
    images, labels = Buffer(budget=Budget(images=9)).add(real).replay()
    assert torch.equal(images, UNITS.apply(real.arrays["images"]))
    assert torch.equal(labels, real.targets)
    synthetic = summary([0, 1, 2])
    buffer = Buffer(budget=Budget(images=9, storage="uint8")).add(synthetic)
    images, _ = buffer.replay()
    span = synthetic.arrays["images"].amax() - synthetic.arrays["images"].amin()  # of the one channel
    error = (images - synthetic.arrays["images"]).abs()
    assert error.max() <= span / 255 / 2 * 1.001
    assert error.max() > 0  # what is trained on went through storage


def test_it_shrinks_evenly_when_classes_arrive():
    buffer = Buffer(budget=Budget(images=10))
    counts = []
    for step in range(4):
        buffer = buffer.add(summary([step] * 12, step=step))
        counts.append(buffer.labels_N.bincount().tolist())
    assert counts == [[10], [5, 5], [4, 3, 3], [3, 3, 2, 2]]
    by_step = Buffer(budget=Budget(images=8, balance="steps"))
    for step, labels in enumerate([[0] * 6 + [1] * 6, [2] * 12]):
        by_step = by_step.add(summary(labels, step=step))
    assert by_step.labels_N.bincount().tolist() == [2, 2, 4]


def test_room_that_a_small_class_leaves_goes_to_the_others():
    buffer = Buffer(budget=Budget(images=10)).add(summary([0] * 2 + [1] * 20 + [2] * 20))
    assert buffer.labels_N.bincount().tolist() == [2, 4, 4]


def test_ranks_decide_who_stays():
    labels = [0, 0, 0, 0]
    first = summary(labels, real=True)
    buffer = Buffer(budget=Budget(images=2)).add(first, torch.tensor([0.9, 0.1, 0.5, 0.3]))
    assert torch.equal(buffer.replay()[0], first.decode()[0][[1, 3]])
    second = summary(labels, real=True, step=1, seed=5)
    buffer = buffer.add(second, torch.tensor([0.8, 0.2, 0.7, 0.6]))
    expected = torch.stack([first.decode()[0][1], second.decode()[0][1]])
    assert torch.equal(buffer.replay()[0], expected)


def test_random_ranks_make_a_uniform_sample_of_the_stream():
    """Each of 40 images, met in four parts, stays with probability 1/4; 400 streams."""
    kept = torch.zeros(40)
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        buffer = Buffer(budget=Budget(images=10, balance="none"))
        for step in range(4):
            part = torch.arange(10 * step, 10 * step + 10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, *SHAPE)
            held = replace(summary([0] * 10, step=step), arrays={"images": part.contiguous()})
            buffer = buffer.add(held, torch.rand(10, generator=generator, dtype=torch.float64))
        met = UNITS.invert(buffer.replay()[0]).mul(255).round()[:, 0, 0, 0].long()
        kept[met] += 1
    assert kept.sum() == 4000
    assert (kept - 100).abs().max() < 5 * (400 * 0.25 * 0.75) ** 0.5


def test_adding_does_not_change_what_was(tmp_path):
    empty = Buffer(budget=Budget(images=4))
    one = empty.add(summary([0, 1]))
    two = one.add(summary([2, 3], step=1))
    assert (len(empty), len(one), len(two)) == (0, 2, 4)
    assert one.add(summary([])) is one


@pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])
def test_a_file_gives_the_buffer_back_bit_for_bit(tmp_path, storage):
    buffer = Buffer(budget=Budget(bytes=4000, storage=storage))
    for step in range(3):
        buffer = buffer.add(summary([step, step], step=step, soft=step == 1, real=step == 2))
    buffer = buffer.add(summary([0, 0, 1, 1], decoder=Frequency(kept=4, multiple=2)))
    save_buffer(buffer, tmp_path / "b.safetensors")
    again = load_buffer(tmp_path / "b.safetensors")
    for x, y in zip(buffer.replay(), again.replay(), strict=True):
        assert torch.equal(x, y)
    assert again.memory == buffer.memory
    later = summary([4, 5, 4], step=9)
    assert torch.equal(again.add(later).replay()[0], buffer.add(later).replay()[0])


def test_no_buffer_files_are_named(tmp_path):
    (tmp_path / "text").write_text("no")
    for name in ("text", "missing"):
        with pytest.raises(DataError, match=name):
            load_buffer(tmp_path / name)


def test_columns_of_a_buffer_that_contradict_each_other_are_refused(tmp_path):
    [block] = Buffer(budget=Budget(images=9)).add(summary([0, 0, 1, 2])).blocks
    images, targets, label_N = block.tensors["array.images"], block.tensors["targets"], block.tensors["row.label_N"]
    for changes, said in [
        ({"row.label_N": label_N[:3]}, r"label_N must be torch\.int64 \[4\]"),
        ({"targets": targets[:3]}, "for 3 labels"),
        ({"targets": targets + 4}, r"labels must lie in \[0, 6\)"),
        ({"row.label_N": label_N - 1}, r"labels must lie in \[0, 6\)"),
        ({"row.step_N": block.tensors["row.step_N"].int()}, r"step_N must be torch\.int64"),
        ({"row.rank_N": block.tensors["row.rank_N"] / 0}, "rank_N holds NaN"),
        ({"row.rank_N": None}, "KeyError"),
        ({"array.images": images[:3]}, "for 4 labels"),
        ({"array.images": images.double()}, r"expected torch\.float32"),
        ({"array.images": images / 0}, "NaN or infinity"),
        ({"array.images": None}, "KeyError"),
        ({"pixels.images": images.byte()}, "belongs to nothing"),
        ({"targets": None}, "'targets' is missing"),
    ]:
        tensors = {name: tensor for name, tensor in {**block.tensors, **changes}.items() if tensor is not None}
        damaged = Buffer(budget=Budget(images=9), blocks=(replace(block, tensors=tensors),))
        tensors, about = {f"0/{name}": t for name, t in tensors.items()}, pack_buffer(damaged)[1]
        write_tensors(tmp_path / "b", FORMAT, tensors, {"buffer": about})
        with pytest.raises(DataError, match=rf"b: the buffer is damaged.*{said}"):
            load_buffer(tmp_path / "b")


def test_what_rows_share_is_paid_by_whoever_keeps_one():
    """uint8: 17 bytes a row and 8 of constants a summary. The second summary brings its constants or stays out."""
    budget = Budget(bytes=3 * 17 + 8 + 7, storage="uint8", balance="none")
    first = Buffer(budget=budget).add(summary([0, 0]), torch.tensor([0.0, 1.0]))
    assert (len(first), first.num_bytes) == (2, 2 * 17 + 8)
    worse = first.add(summary([1, 1], seed=1), torch.tensor([2.0, 3.0]))
    assert (worse.labels_N.tolist(), worse.num_bytes) == ([0, 0], 2 * 17 + 8)
    better = first.add(summary([1, 1], seed=1), torch.tensor([-2.0, -1.0]))
    assert (better.labels_N.tolist(), better.num_bytes) == ([1, 1], 2 * 17 + 8)
    room = replace(first, budget=replace(budget, bytes=3 * 17 + 16)).add(
        summary([1, 1], seed=1), torch.tensor([2.0, 3])
    )
    assert (room.labels_N.tolist(), room.num_bytes) == ([0, 0, 1], 3 * 17 + 16)


def test_rows_that_are_stored_alike_are_one_block():
    buffer = Buffer(budget=Budget(images=99))
    for seed, kind in enumerate([{}, {"real": True}, {}, {"real": True}, {"soft": True}]):
        buffer = buffer.add(summary([0, 1], seed=seed, **kind))
    assert [len(block) for block in buffer.blocks] == [4, 4, 2]
    coarse = Buffer(budget=Budget(images=99, storage="uint8"))
    for seed, kind in enumerate([{}, {"real": True}, {}, {"real": True}]):
        coarse = coarse.add(summary([0, 1], seed=seed, **kind))
    assert [len(block) for block in coarse.blocks] == [2, 4, 2]  # each has constants of its own


def test_bad_budgets_say_what_to_type():
    for values, said in [
        ({}, "one budget"),
        ({"ipc": 1, "bytes": 2}, "one budget"),
        ({"images": -1}, "buffer.images=-1 must be a whole number >= 0"),
        ({"images": 1, "balance": "tasks"}, "buffer.balance=tasks"),
        ({"images": 1, "storage": "int4"}, "buffer.storage=int4"),
        ({"ipc": 1, "balance": "steps"}, "buffer.balance=steps would change nothing"),
    ]:
        with pytest.raises(ConfigError, match=said):
            Budget(**values)
    with pytest.raises(ConfigError, match=r"buffer\.bytes=17"):
        Budget(bytes=0).require(17, "replay")
    with pytest.raises(ConfigError, match="empty"):
        Buffer(budget=Budget(images=0)).add(summary([0])).replay()


def test_positions():
    assert positions(torch.tensor([5, 2, 5, 5, 2])).tolist() == [0, 0, 1, 2, 1]
    assert positions(torch.zeros(0, dtype=torch.int64)).tolist() == []
