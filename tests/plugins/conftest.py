"""A package outside the tree: a strategy, an objective, a scenario and a data set with configurations of its own."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

FILES = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "sample-lab"
        version = "1.2"

        [project.entry-points."fedcl.plugins"]
        lab = "sample_lab"
        """,
    "sample_lab/__init__.py": "",
    "sample_lab/methods.py": '''
        """Counted: clients say how many they hold, then distil; the server learns from what came."""

        from dataclasses import dataclass, replace

        from fedcl import FederatedStrategy, Payload, Reply, ServerState, Training, client_work, derive, train, union


        @dataclass(frozen=True, kw_only=True)
        class Mine(FederatedStrategy):
            training: Training = Training(updates=5)
            num_rounds: int = 1
            broken: bool = False

            def init(self, ctx):
                return ServerState(weights=self.fresh(ctx).cpu().state_dict())

            def fresh(self, ctx):
                return ctx.new_model(derive(ctx.seed, "counted"))

            def round(self, state, clients, ctx):
                total = sum(reply.tensors["counts"] for reply in clients.ask(self.count, Payload()))
                if self.broken:
                    raise KeyError("my own bug")
                replies = clients.ask(self.distill, Payload(tensors={"total": total}))
                images, targets = union([summary for reply in replies for summary in reply.summaries])
                model = self.fresh(ctx)
                seed = derive(ctx.seed, "counted server", round=ctx.round)
                train(model, images, targets, self.training, seed=seed, flip=ctx.inputs.flips)
                return ServerState(weights=model.cpu().state_dict(), tensors={"total": total})

            @client_work(sends=["tensors.counts"])
            def count(self, ask, data, mine, ctx):
                return Reply(client=ctx.client, num_examples=len(data), tensors={"counts": data.counts_C})

            @client_work(sends=["summaries"])
            def distill(self, ask, data, mine, ctx):
                (summary,) = ctx.distiller.distill([data], derive(ctx.seed, "distill", round=ctx.round), ctx)
                summary = replace(summary, origin=replace(data.origin, round=ctx.round))
                return Reply(client=ctx.client, num_examples=len(data), summaries=(summary,))

            def model(self, state, ctx):
                model = self.fresh(ctx)
                model.load_state_dict(state.weights)
                return model


        def make_mine():
            return Mine()
        ''',
    "sample_lab/objectives.py": '''
        """Energy: the mean image of each class."""

        from dataclasses import dataclass

        from fedcl import Objective


        @dataclass(frozen=True, kw_only=True)
        class Energy(Objective):
            weight: float = 1.0
            broken: bool = False

            needs = frozenset({"network"})  # of any kind
            batched = True

            def target(self, real, step):
                return real.mean(real.inputs.flatten(1))

            def loss(self, synthetic, target, step):
                if self.broken:
                    return synthetic.no_such_thing
                return self.weight * (synthetic.mean(synthetic.inputs.flatten(1)) - target).square().sum()
        ''',
    "sample_lab/data.py": '''
        """Stripes and rows: who could confuse them?"""

        from dataclasses import dataclass

        import numpy as np
        import torch

        from fedcl import DataSource, Partition, make_dataset


        @dataclass(frozen=True, kw_only=True)
        class Stripes(DataSource):
            """Two classes of 8x8 images, bright in every other column or row."""

            horizontal_flip: bool = True

            def load(self):
                labels = torch.arange(2).repeat_interleave(20)
                images = torch.full((40, 1, 8, 8), 20, dtype=torch.uint8)
                images[:20, :, :, ::2] = images[20:, :, ::2, :] = 200
                images += torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1)
                both = (images, labels)
                return make_dataset(name="stripes", train=both, test=both, horizontal_flip=self.horizontal_flip)


        @dataclass(frozen=True, kw_only=True)
        class EveryOther(Partition):
            """Client k holds every example whose number leaves the rest k."""

            num_clients: int

            @property
            def name(self):
                return "every other"

            def split(self, labels_N, num_classes, rng):
                return [np.arange(client, len(labels_N), self.num_clients) for client in range(self.num_clients)]
        ''',
    "sample_lab/configs/strategy/federated/mine.yaml": """
        # A careful server
        defaults:
          - /augmentation@training.augmentation: none
          - _self_
        _target_: sample_lab.methods.Mine
        broken: false
        training:
          _target_: fedcl.training.loop.Training
          updates: 5
        """,
    "sample_lab/configs/objective/energy.yaml": "_target_: sample_lab.objectives.Energy\nweight: 1.0\nbroken: false\n",
    "sample_lab/configs/scenario/every_other.yaml": "_target_: sample_lab.data.EveryOther\nnum_clients: 2\n",
    "sample_lab/configs/dataset/stripes.yaml": "_target_: sample_lab.data.Stripes\nhorizontal_flip: true\n",
    "conf/strategy/federated/typed.yaml": """
        # source: made here
        defaults:
          - federated/mine@_here_
          - _self_
        broken: false
        """,
}
TYPED = (
    *("dataset=stripes", "scenario=every_other", "objective=energy", "augmentation=none", "device=cpu"),
    *("model=mlp", "model.hidden=[8]", "distiller.ipc=1", "distiller.steps=2"),
)


@pytest.fixture
def write():
    """Write the sample package into a folder."""

    def write(folder):
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip("\n"))
        return folder

    return write


@pytest.fixture
def typed():
    """Choices of a tiny run in which everything but the strategy is the package's own."""
    return TYPED


@pytest.fixture
def lab(tmp_path_factory, write, monkeypatch):
    """The folder of the sample package, which can be imported until the test ends, and is named by nobody."""
    folder = write(tmp_path_factory.mktemp("lab"))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "sample_lab"]:
        del sys.modules[name]


@pytest.fixture
def installed(lab):
    """The same, as an installed distribution: its entry point names it."""
    about = lab / "sample_lab-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-lab\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[fedcl.plugins]\nlab = sample_lab\n")
    (about / "RECORD").write_text("sample_lab/__init__.py,,\n")
    return lab
