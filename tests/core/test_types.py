from dataclasses import replace

import pytest
import torch

from fedcl.core.errors import DataError
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet, Origin, Summary, label_dtype, union
from fedcl.distill.parameterizations.pixels import Pixels

UNIT = Normalization(mean=(0.0,), std=(1.0,))


def labeled(labels, num_classes=3):
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return LabeledSet(inputs=images, labels_N=torch.tensor(labels), num_classes=num_classes)


def summary(targets, fill=1.0, num_classes=3):
    n = len(targets)
    return Summary(
        arrays={"images": torch.full((n, 1, 2, 2), fill)},
        targets=targets,
        num_source_C=torch.full((num_classes,), 5),
        inputs=InputSpec(shape=(1, 2, 2), preprocess=UNIT),
        decoder=Pixels(),
        method="test",
    )


def test_normalization_maps_to_unit_variance_and_back():
    norm = Normalization(mean=(0.5, 0.25), std=(0.5, 0.25))
    pixels = torch.tensor([[0, 255], [255, 255]], dtype=torch.uint8).view(1, 2, 1, 2)
    x = norm.apply(pixels)
    assert x.flatten().tolist() == [-1.0, 1.0, 3.0, 3.0]
    assert torch.allclose(norm.invert(x) * 255, pixels.float())
    assert pixels.flatten().tolist() == [0, 255, 255, 255]  # untouched


def test_normalization_refuses_zero_deviation():
    with pytest.raises(DataError, match="positive std"):
        Normalization(mean=(0.0,), std=(0.0,))


def test_class_order_is_stable_and_selection_keeps_rows_together():
    data = labeled([2, 0, 2, 1, 0])
    ordered = data.by_class()
    assert ordered.labels_N.tolist() == [0, 0, 1, 2, 2]
    assert ordered.inputs[:, 0, 0, 0].tolist() == [1, 4, 3, 0, 2]
    assert data.counts_C.tolist() == [2, 1, 2]
    part = data.select([3, 0], Origin(client=7))
    assert part.labels_N.tolist() == [1, 2]
    assert part.origin.client == 7
    assert data.origin.client == 0


@pytest.mark.parametrize(
    ("images", "labels", "what"),
    [
        (torch.zeros(2, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1]), "uint8"),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), "uint8"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2]), "int64"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0.0, 1.0]), "int64"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 3]), r"\[0, 3\)"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([-1, 2]), r"\[0, 3\)"),
    ],
)
def test_a_set_is_checked(images, labels, what):
    with pytest.raises(DataError, match=what):
        LabeledSet(inputs=images, labels_N=labels, num_classes=3)


def test_a_summary_need_not_tell_how_many_examples_it_stands_for():
    told = summary(torch.tensor([0, 1, 2, 2]))
    untold = replace(told, num_source_C=None)
    assert (told.num_classes, untold.num_classes) == (3, 3)
    assert untold.to("cpu").num_source_C is None
    assert untold.sha256() == untold.to("cpu").sha256() != told.sha256()
    for one, other in zip(union([untold, told]), union([told, told]), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(DataError, match="a summary of 0 classes counts examples of 0; give num_classes"):
        replace(untold, num_classes=0)
    with pytest.raises(DataError, match="a summary of 4 classes counts examples of 3"):
        replace(told, num_classes=4)
    with pytest.raises(DataError, match=r"must lie in \[0, 2\)"):
        replace(untold, num_classes=2)


def test_label_dtype_is_the_smallest_that_fits():
    assert [label_dtype(n) for n in (2, 256, 257, 2**15, 2**15 + 1)] == [
        torch.uint8,
        torch.uint8,
        torch.int16,
        torch.int16,
        torch.int32,
    ]
    for n in (256, 2**15):
        assert int(torch.tensor(n - 1).to(label_dtype(n))) == n - 1


def test_union_is_associative_and_keeps_order():
    a, b, c = (summary(torch.tensor([i]), fill=float(i)) for i in range(3))
    images, targets = union([a, b, c])
    assert images[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]
    first, _ = union([a, b])
    rest, _ = union([c])
    assert torch.equal(torch.cat([first, rest]), images)
    assert targets.tolist() == [0, 1, 2]


def test_union_of_hard_and_soft_is_soft():
    _, targets = union([summary(torch.tensor([2])), summary(torch.tensor([[0.5, 0.5, 0.0]]))])
    assert targets.tolist() == [[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]


def test_union_of_nothing_is_refused():
    with pytest.raises(DataError, match="no summaries"):
        union([])


def test_hash_sees_every_part():
    base = summary(torch.tensor([0, 1]))
    others = [
        summary(torch.tensor([0, 2])),
        summary(torch.tensor([0, 1]), fill=1.0000001),
        summary(torch.tensor([0])),
    ]
    hashes = {base.sha256(), *(other.sha256() for other in others)}
    assert len(hashes) == 4
    assert base.sha256() == summary(torch.tensor([0, 1])).sha256()


@pytest.mark.parametrize(
    "targets",
    [torch.tensor([0, 3]), torch.tensor([-1]), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int32)],
)
def test_a_summary_is_checked(targets):
    with pytest.raises(DataError):
        summary(targets)
