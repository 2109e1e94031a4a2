"""Time of one distillation step: fedcl's engine beside a plain loop over classes, at the same work, in one run.

    python scripts/benchmark_engine.py [--width 128] [--ipc 10] [--steps 3] [--repeats 3] [--methods dm dsa]

The plain loops are written for this purpose from the published descriptions of DM (Zhao & Bilen, WACV 2023,
algorithm 1) and DSA (Zhao & Bilen, ICML 2021, algorithm 1): a new network every step, for each class 256 real
images and `ipc` synthetic ones, one augmentation for both. Images are random uint8 of MNIST's shape; what is
timed does not depend on their content. `ratio` is ours / plain: at the same work (reuse=1), and DM with reuse=10.
The plain loop runs first, with the C library's own allocation; ours after `keep_large_blocks()`. The last
column has both with it.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from fedcl.augmentation import Siamese
from fedcl.compute import keep_large_blocks
from fedcl.distill.distiller import Distiller
from fedcl.distill.initial import Real
from fedcl.distill.labels import Hard
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.objectives.gradient import Gradient
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.distill.pool.fresh import Fresh
from fedcl.models.convnet import ConvNet
from fedcl.types import LabeledSet, Normalization
from fedcl.workbench import Workbench

REAL, CLASSES, PER_CLASS = 256, 10, 1000
MNIST = Normalization(mean=(0.1307,), std=(0.3081,))


def plain(method: str, data: LabeledSet, bench: Workbench, ipc: int, steps: int) -> torch.Tensor:
    """The published loop, one class after the other."""
    images = MNIST.apply(data.images_NCHW)
    rows_of = [np.flatnonzero(data.labels_N.numpy() == c) for c in range(CLASSES)]
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    synthetic = torch.cat([images[rows[:ipc]] for rows in rows_of]).requires_grad_()
    optimizer = torch.optim.SGD([synthetic], lr=1.0, momentum=0.5)
    siamese = Siamese()
    for step in range(steps):
        network = bench.model.build(bench.shape_CHW, CLASSES, step)
        loss = torch.zeros(())
        for c in range(CLASSES):
            draw = siamese.draw(1, generator, flip=False)
            real = images[torch.from_numpy(rng.permutation(rows_of[c])[:REAL])]
            real = siamese.apply(real, draw, torch.zeros(REAL, dtype=torch.int64))
            fake = synthetic[c * ipc : (c + 1) * ipc]
            fake = siamese.apply(fake, draw, torch.zeros(ipc, dtype=torch.int64))
            if method == "dm":
                mean = network.embed(real).detach().mean(0)
                loss = loss + (mean - network.embed(fake).mean(0)).square().sum()
                continue
            parameters = list(network.parameters())
            wanted = torch.autograd.grad(F.cross_entropy(network(real), torch.full((REAL,), c)), parameters)
            got = torch.autograd.grad(
                F.cross_entropy(network(fake), torch.full((ipc,), c)), parameters, create_graph=True
            )
            for a, b in zip(wanted, got, strict=True):
                if a.ndim > 1:
                    a, b = a.detach().flatten(1), b.flatten(1)
                    loss = loss + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return synthetic.detach()


def ours(method: str, data: LabeledSet, bench: Workbench, ipc: int, steps: int, reuse: int = 1) -> torch.Tensor:
    """The same work by the engine."""
    distiller = Distiller(
        name=method,
        objective=Distribution() if method == "dm" else Gradient(vectorize=False),
        parameterization=Pixels(),
        initializer=Real(),
        augmentation=Siamese(),
        labels=Hard(),
        pool=Fresh(),
        ipc=ipc,
        steps=steps,
        optimizer=partial(torch.optim.SGD, lr=1.0, momentum=0.5),
        real_batch=REAL,
        reuse=reuse,
    )
    return distiller.distill([data], 0, bench)[0].arrays["images"]


def seconds_a_step(work, steps: int, repeats: int) -> float:
    """Least wall time of `repeats` runs of `steps` steps, after one step to warm up."""
    work(steps=1)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work(steps=steps)
        best = min(best, time.perf_counter() - start)
    return best / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("width", 128), ("ipc", 10), ("steps", 3), ("repeats", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", default=["dm", "dsa"], choices=["dm", "dsa"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CLASSES * PER_CLASS, 1, 28, 28), generator=generator).to(torch.uint8)
    data = LabeledSet(
        images_NCHW=images, labels_N=torch.arange(CLASSES).repeat_interleave(PER_CLASS), num_classes=CLASSES
    )
    bench = Workbench(
        model=ConvNet(width=options.width),
        normalization=MNIST,
        shape_CHW=(1, 28, 28),
        num_classes=CLASSES,
        horizontal_flip=False,
    )
    world = {"data": data, "bench": bench, "ipc": options.ipc}
    timed = partial(seconds_a_step, steps=options.steps, repeats=options.repeats)
    before = {m: timed(partial(plain, m, **world)) for m in options.methods}
    print(f"ConvNet-3 width {options.width}, ipc {options.ipc}, {options.threads} threads; seconds a step")
    if not keep_large_blocks():
        print("the C library takes no hint on allocation here")
    print(f"{'':8}{'plain':>9}{'ours':>9}{'ratio':>8}{'plain, blocks kept':>20}{'ratio':>8}")
    for method, old in before.items():
        mine, tuned = timed(partial(ours, method, **world)), timed(partial(plain, method, **world))
        print(f"{method:8}{old:9.3f}{mine:9.3f}{mine / old:8.2f}{tuned:20.3f}{mine / tuned:8.2f}")
    if "dm" not in before:
        return
    often = seconds_a_step(partial(ours, "dm", reuse=10, **world), 10, options.repeats)
    print(f"dm, reuse=10 (not the published method): {often:.3f} s, ratio {often / before['dm']:.2f}")


if __name__ == "__main__":
    main()
