"""No option of a continual strategy is accepted and ignored: each changes the result, or is refused in one line."""

from dataclasses import fields, replace

import pytest
import torch

from fedcl.core.errors import ConfigError
from fedcl.memory.budget import Budget
from fedcl.training.augmentation import Siamese
from fedcl.training.recipe import Training
from strategies.continual.compress_recall import CompressRecall
from strategies.continual.der import DERPlusPlus
from strategies.continual.distilled_replay import DistilledReplay
from strategies.continual.eeil import EEIL
from strategies.continual.ewc import EWC
from strategies.continual.finetune import Finetune
from strategies.continual.gdumb import GDumb
from strategies.continual.icarl import ICaRL
from strategies.continual.joint import Joint
from strategies.continual.lwf import LwF
from strategies.continual.replay import Replay

BASE = Training(updates=4, batch_size=8, lr=0.05, schedule="step")
EPOCHS = replace(BASE, updates=None, epochs=1)
# field of Training -> (a training, the same with another value of that field alone)
TRAININGS = {
    "updates": (BASE, replace(BASE, updates=3)),
    "epochs": (EPOCHS, replace(EPOCHS, epochs=2)),
    "batch_size": (BASE, replace(BASE, batch_size=5)),
    "optimizer": (BASE, replace(BASE, optimizer="adam")),
    "min_batch": (replace(EPOCHS, batch_size=5), replace(EPOCHS, batch_size=5, min_batch=5)),
    "lr": (BASE, replace(BASE, lr=0.06)),
    "momentum": (BASE, replace(BASE, momentum=0.5)),
    "weight_decay": (BASE, replace(BASE, weight_decay=0.1)),
    "clip": (BASE, replace(BASE, clip=0.01)),
    "schedule": (BASE, replace(BASE, schedule="cosine")),
    "lr_min": (replace(BASE, schedule="cosine"), replace(BASE, schedule="cosine", lr_min=0.02)),
    "milestones": (BASE, replace(BASE, milestones=(0.25,))),
    "decay": (BASE, replace(BASE, decay=0.5)),
    "rates": (BASE, replace(BASE, rates=(1.0, 0.5, 0.2, 0.1))),
    "average": (BASE, replace(BASE, average=0.9)),
    "loss": (BASE, replace(BASE, loss="mse")),
    "augmentation": (BASE, replace(BASE, augmentation=Siamese())),
}
MIXED = (replace(BASE, augmentation=Siamese()), replace(BASE, augmentation=Siamese(cutmix=1.0)))

MAKERS = {
    "finetune": lambda t: Finetune(training=t),
    "joint": lambda t: Joint(training=t),
    "replay": lambda t: Replay(training=t),
    "ewc": lambda t: EWC(training=t, fisher_examples=10),
    "lwf": lambda t: LwF(training=t),
    "icarl": lambda t: ICaRL(training=t),
    "der": lambda t: DERPlusPlus(training=t),
    "distilled_replay": lambda t: DistilledReplay(training=t),
    "compress_recall": lambda t: CompressRecall(training=t),
    "gdumb": lambda t: GDumb(training=t),
    "eeil": lambda t: EEIL(training=t),
    "eeil, balanced": lambda t: EEIL(training=BASE, balanced=t),
}
REFUSED = {  # (strategy, option): what makes no sense in its loss
    ("icarl", "loss"): "training.loss=mse has no meaning",
    ("ewc", "loss"): "training.loss=mse has no meaning",
    ("der", "CutMix"): "type strategy.training.augmentation.cutmix=0",
}
# fields of the strategies themselves -> (values that are passed, one other value)
OWN = {
    Finetune: {"keep_optimizer": False},
    Joint: {"every_step": False},
    Replay: {"select": "herding", "keep_optimizer": False},
    EWC: {"strength": 5000.0, "fisher_examples": 3, "keep_optimizer": False},
    LwF: {"temperature": 5.0, "strength": 0.3},
    ICaRL: {},
    DERPlusPlus: {"alpha": 0.1, "beta": 0.1},
    DistilledReplay: {"keep_optimizer": False},
    CompressRecall: {"every_step": False},
    EEIL: {"balanced": BASE, "temperature": 5.0, "strength": 0.3},
    GDumb: {"crop": 0.25, "every_step": False},
}


def learned(strategy, ctx, stream, steps=2):
    """Whatever a strategy has after some steps, as one vector."""
    states = stream.learn(strategy, ctx, steps=steps)[1:]
    return torch.cat([value.flatten() for state in states for value in state.weights.values()])


@pytest.fixture(scope="module")
def baseline(ctx, stream):
    """(name, training) -> what the strategy learns by it, once for all tests."""
    found = {}

    def of(name, training):
        key = (name, repr(training))
        if key not in found:
            found[key] = learned(MAKERS[name](training), ctx, stream)
        return found[key]

    return of


def test_no_field_of_training_is_forgotten_here():
    assert set(TRAININGS) == {field.name for field in fields(Training)}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("option", [*TRAININGS, "CutMix"])
def test_an_option_of_training_counts_or_is_refused(name, option, ctx, stream, baseline):
    before, after = MIXED if option == "CutMix" else TRAININGS[option]
    said = REFUSED.get((name, option))
    if said is None:
        assert not torch.equal(baseline(name, before), learned(MAKERS[name](after), ctx, stream))
    else:
        with pytest.raises(ConfigError, match=said) as error:
            MAKERS[name](after)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("strategy", OWN, ids=lambda kind: kind.__name__)
def test_an_option_of_a_strategy_counts(strategy, ctx, stream):
    options = {field.name for field in fields(strategy)} - {"training"}
    assert set(OWN[strategy]) == options
    given = {"training": replace(BASE, optimizer="adam")}
    before = learned(strategy(**given), ctx, stream, steps=3)
    for name, value in OWN[strategy].items():
        after = learned(strategy(**given | {name: value}), ctx, stream, steps=3)
        assert len(before) != len(after) or not torch.equal(before, after), name


@pytest.mark.parametrize(
    ("strategy", "refused"),
    [
        (ICaRL(training=BASE), ("steps", "none")),
        (GDumb(training=BASE), ("steps", "none")),
        (DERPlusPlus(training=BASE), ("steps",)),
        (Replay(training=BASE, select="reservoir"), ("steps",)),
        (Replay(training=BASE), ()),
        (DistilledReplay(training=BASE), ()),
    ],
    ids=["icarl", "gdumb", "der", "reservoir", "replay", "distilled_replay"],
)
def test_a_rule_of_its_own_refuses_another_balance(strategy, refused, ctx):
    for balance in ("classes", "steps", "none"):
        here = replace(ctx, budget=Budget(images=12, balance=balance))
        if balance in refused:
            with pytest.raises(
                ConfigError, match=f"buffer.balance={balance} would change nothing; type buffer.balance="
            ):
                strategy.init(here)
        else:
            strategy.init(here)
