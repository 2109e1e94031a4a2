"""Time of distillation: fedcl's engine beside plain loops over classes (`plain_loops.py`), in one run.

    python scripts/benchmark_engine.py [--width 128] [--ipc 10] [--steps 3] [--repeats 3]
    python scripts/benchmark_engine.py --until 0.97 --root FOLDER [--first 100] [--only engine]

The first times a step of DM, DSA and MTT at the same work: a new network every step, for each class 256 real and `ipc`
synthetic images, one augmentation for both; MTT with 10 inner steps on all images. Images are random uint8 of MNIST's
shape, since what is timed does not depend on their content. The plain loop runs first, with the C library's own
allocation; then with ours (`keep_large_blocks`); then the engine in float32 and in bfloat16, without and with
`model.compile`, whose compiling is not timed. A ratio is engine / plain.

The second runs DM on MNIST (the original files in FOLDER) until networks trained on the images reach that accuracy on
the test images, on average, and says after how many seconds of distillation. They are trained (1000 updates, as
published) and tested outside of that time, after FIRST, 2 FIRST, 4 FIRST, ... updates of the images; where the first of
them is half a percent short, the others are spared. The plain loop does one update a real batch, of 256 images a class;
the engine five (`reuse=5`), of 128, in bfloat16. Both start from the same images, at a rate of 10; the engine's
falls to 0 by a cosine, since five updates share the noise of a batch. Its looks, each a run of its own, come after
ENGINE_FIRST, 2 ENGINE_FIRST, ... updates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from plain_loops import REAL, new_network, plain, starting_images, trajectory
from torch import Tensor

from fedcl.core.compute import keep_large_blocks
from fedcl.core.inputs import InputSpec, Normalization
from fedcl.core.types import LabeledSet
from fedcl.data.base import Dataset, hold_out
from fedcl.data.vision import Vision
from fedcl.distill.batch import MatchBatch, MatchStep
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.inner import flatten
from fedcl.distill.objectives.gradient import Gradient
from fedcl.distill.objectives.trajectory import Trajectory
from fedcl.distill.optimizers import CosineSGD
from fedcl.models.convnet import ConvNet
from fedcl.training.augmentation import Siamese
from fedcl.training.evaluation import accuracy
from fedcl.training.loop import train
from fedcl.training.recipe import Training

CLASSES, PER_CLASS, INNER = 10, 1000, 10
UNITS = Normalization(mean=(0.1307,), std=(0.3081,))
LABELS = torch.arange(CLASSES)


def make_data() -> LabeledSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CLASSES * PER_CLASS, 1, 28, 28), generator=generator).to(torch.uint8)
    return LabeledSet(inputs=images, labels_N=LABELS.repeat_interleave(PER_CLASS), num_classes=CLASSES)


def make_bench(width: int, precision: str, compiled: bool = False) -> Context:
    return Context(
        model=ConvNet(width=width, precision=precision, compile=compiled),
        inputs=InputSpec(shape=(1, 28, 28), preprocess=UNITS),
        num_classes=CLASSES,
    )


def by_class(data: LabeledSet) -> list[Tensor]:
    images = UNITS.apply(data.inputs)
    return [images[data.labels_N == c] for c in range(CLASSES)]


def engine(method: str, ipc: int) -> Distiller:
    """DM or DSA with a new network every step, as the plain loop has it."""
    chosen = Distiller(name=method, ipc=ipc, real_batch=REAL)
    return chosen if method == "dm" else replace(chosen, objective=Gradient())


def engine_work(method: str, data: LabeledSet, ctx: Context, ipc: int) -> Callable[[int], object]:
    if method != "mtt":
        return lambda steps: replace(engine(method, ipc), steps=steps).distill([data], 0, ctx)
    images = torch.cat([part[:ipc] for part in by_class(data)]).requires_grad_()
    rate = torch.tensor([0.01], requires_grad=True)
    labels = LABELS.repeat_interleave(ipc)
    side = MatchBatch(inputs=images, targets=labels, segment_N=labels, num_segments=CLASSES)
    step = MatchStep(
        network=ctx.new_model(0).requires_grad_(False),
        start_P=flatten(ctx.new_model(1)),
        goal_P=flatten(ctx.new_model(2)),
        scalars={"step_size": rate},
        augmentation=Siamese(),
        flip=False,
    )

    def work(steps: int) -> None:
        for _ in range(steps):
            torch.autograd.grad(Trajectory(inner_steps=INNER).loss(side, None, step), [images, rate])

    return work


def plain_work(method: str, data: LabeledSet, width: int, ipc: int) -> Callable[[int], object]:
    real = by_class(data)
    if method != "mtt":
        return lambda steps: list(islice(plain(method, real, width, ipc), steps))
    images = torch.cat([part[:ipc] for part in real])
    start, goal = ([p.detach() for p in new_network(images, width).parameters()] for _ in range(2))
    labels = LABELS.repeat_interleave(ipc)
    return lambda steps: [trajectory(images, labels, start, goal, INNER, width) for _ in range(steps)]


def seconds_a_step(work: Callable[[int], object], steps: int, repeats: int) -> float:
    """Least wall time of `repeats` runs of `steps` steps, after one step to warm up."""
    work(1)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work(steps)
        best = min(best, time.perf_counter() - start)
    return best / steps


def same_work(options: argparse.Namespace) -> None:
    data, timed = make_data(), partial(seconds_a_step, steps=options.steps, repeats=options.repeats)
    before = {m: timed(plain_work(m, data, options.width, options.ipc)) for m in options.methods}
    print(f"ConvNet-3 width {options.width}, ipc {options.ipc}, {options.threads} threads; seconds a step")
    if not keep_large_blocks():
        print("the C library takes no hint on allocation here")
    names = (
        "plain",
        "blocks kept",
        "engine",
        "ratio",
        "bfloat16",
        "ratio",
        "compiled",
        "ratio",
        "and bfloat16",
        "ratio",
    )
    print(" " * 6 + "".join(f"{name:>13}" for name in names))
    for method, old in before.items():
        kept = timed(plain_work(method, data, options.width, options.ipc))
        row = [old, kept]
        for compiled in (False, True):
            for precision in ("float32", "bfloat16"):
                ctx = make_bench(options.width, precision, compiled)
                new = timed(engine_work(method, data, ctx, options.ipc))
                row += [new, new / old]
        print(f"{method:6}" + "".join(f"{value:13.3f}" for value in row), flush=True)


def plain_images(data: LabeledSet, options: argparse.Namespace) -> Iterator[Tensor]:
    return plain("dm", by_class(data), options.width, options.ipc, options.lr)


def engine_images(data: LabeledSet, ctx: Context, options: argparse.Namespace, steps: int) -> Tensor:
    """The images after so many updates (a run of its own: the engine has no loop to look into)."""
    fast = replace(
        engine("dm", options.ipc),
        steps=steps,
        reuse=options.reuse,
        real_batch=options.real_batch,
        optimizer=partial(CosineSGD, total=steps, lr=options.lr, momentum=0.5),
    )
    images = starting_images(by_class(data), options.ipc, torch.Generator().manual_seed(0))
    (start,) = replace(fast, steps=0).distill([data], 0, ctx)
    start = replace(start, arrays=fast.parameterization.encode(images, images))  # where the plain loop starts
    return fast.distill([data], 0, ctx, start=[start])[0].decode()[0]


def reached(images: Tensor, data: Dataset, options: argparse.Namespace) -> list[float]:
    """Test accuracy of each network trained on the images (bfloat16, DSA augmentation)."""
    ctx, labels = make_bench(options.width, "bfloat16"), LABELS.repeat_interleave(options.ipc)
    training, values = Training(updates=1000, augmentation=Siamese()), []
    for seed in range(options.nets):
        network = train(ctx.new_model(seed), images, labels, training, seed=seed, flip=False)
        values.append(accuracy(network, data.test, UNITS))
        if values[0] < options.until - 0.005:
            break
    return values


def seconds_until(
    name: str, images_after: Callable[[int], Tensor], data: Dataset, options: argparse.Namespace
) -> float:
    """Of distillation, until the accuracy is reached; infinity if it was not. `images_after` is timed."""
    updates, spent = options.first if name == "plain" else options.engine_first, 0.0
    while updates <= options.most:
        start = time.perf_counter()
        images = images_after(updates)
        spent = time.perf_counter() - start + (spent if name == "plain" else 0.0)  # the plain loop goes on
        values = reached(images, data, options)
        mean = sum(values) / len(values)
        print(f"{name:8}{updates:6} updates {spent:8.1f} s  accuracy {mean:.4f} ({len(values)} networks)", flush=True)
        if mean >= options.until:
            return spent
        updates *= 2
    return float("inf")


def until(options: argparse.Namespace) -> None:
    vision = Vision(name="mnist", root=options.root, mean=UNITS.mean, std=UNITS.std, horizontal_flip=False)
    data = vision.load()
    if options.held_out:
        data = hold_out(data, options.held_out, seed=0)
    print(f"DM on MNIST, ConvNet-3 width {options.width}, ipc {options.ipc}, {options.threads} threads")
    seconds = {}
    if options.only != "engine":
        stream, done = plain_images(data.train, options), 0

        def go_on(updates: int) -> Tensor:
            nonlocal done
            *_, images = islice(stream, updates - done)
            done = updates
            return images

        seconds["plain"] = seconds_until("plain", go_on, data, options)
    keep_large_blocks()
    if options.only != "plain":
        ctx = make_bench(options.width, "bfloat16")
        seconds["engine"] = seconds_until("engine", lambda n: engine_images(data.train, ctx, options, n), data, options)
    if len(seconds) == 2:
        print(f"ratio {seconds['engine'] / seconds['plain']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 128), ("ipc", 10), ("steps", 3), ("repeats", 3), ("threads", 2), ("most", 5120)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", default=["dm", "dsa", "mtt"], choices=["dm", "dsa", "mtt"])
    parser.add_argument("--until", type=float)
    parser.add_argument("--first", type=int, default=100, help="updates of the plain loop before the first look")
    parser.add_argument("--engine-first", type=int, default=250, help="the same for the engine")
    parser.add_argument("--nets", type=int, default=3, help="networks a look")
    parser.add_argument("--only", choices=["plain", "engine"])
    parser.add_argument("--lr", type=float, default=10.0, help="of the images; the engine's falls from it by a cosine")
    parser.add_argument("--reuse", type=int, default=5, help="updates a real batch, in the engine")
    parser.add_argument("--real-batch", type=int, default=REAL // 2, help="real images a class, in the engine")
    parser.add_argument("--held-out", type=float, help="judge on this part of the training images, to choose rates by")
    parser.add_argument("--root", default="~/.cache/fedcl")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    until(options) if options.until else same_work(options)


if __name__ == "__main__":
    main()
