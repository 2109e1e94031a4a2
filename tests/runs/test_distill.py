"""`fedcl distill` on tiny data: the record, going on after a kill, refusals, and what the evaluation holds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from fedcl.core.errors import ConfigError, DistillError, FedclError, RunError
from fedcl.core.inputs import InputSpec
from fedcl.core.progress import Progress
from fedcl.core.seeding import derive
from fedcl.data.base import DataSource, make_dataset
from fedcl.distill.context import Context
from fedcl.distill.distiller import Distiller
from fedcl.distill.files import load_summary
from fedcl.distill.initializers import Noise, Real
from fedcl.distill.labels import Hard, Kernel
from fedcl.distill.networks import Fresh
from fedcl.distill.objectives.base import NoObjective
from fedcl.distill.objectives.distribution import Distribution
from fedcl.distill.objectives.unrolled import Unrolled
from fedcl.distill.parameterizations.pixels import Pixels
from fedcl.models.alexnet import AlexNet
from fedcl.models.convnet import ConvNet
from fedcl.models.mlp import MLP
from fedcl.protocol.evaluation import Evaluation
from fedcl.report.schema import known_parts
from fedcl.runs.checkpoint import NAME, read_checkpoint, write_checkpoint
from fedcl.runs.distill import DistillJob, run_distill
from fedcl.training.augmentation import NoAugmentation, Siamese
from fedcl.training.recipe import Training

pytestmark = pytest.mark.usefixtures("blank_pictures")

TORCH = {"adam": partial(torch.optim.Adam, lr=0.1), "sgd": partial(torch.optim.SGD, lr=1.0, momentum=0.5)}


class Tiny(DataSource):
    """Three classes of 8x8 images that differ in the row that is bright."""

    def __init__(self, counts=(8, 8, 8)):
        super().__init__(horizontal_flip=False)
        object.__setattr__(self, "counts", counts)

    def load(self):
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(self.counts))
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 60, (len(labels), 1, 8, 8), generator=generator, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            image[0, 2 * label] = 200
        return make_dataset(name="tiny", train=(images, labels), test=(images, labels), horizontal_flip=False)


def distiller(**changes):
    standard = {
        "name": "dm",
        "objective": Distribution(),
        "parameterization": Pixels(),
        "initializer": Noise(),
        "augmentation": Siamese(),
        "labels": Hard(),
        "networks": Fresh(),
        "ipc": 2,
        "steps": 12,
        "optimizer": TORCH["sgd"],
        "real_batch": 8,
    }
    return Distiller(**(standard | changes))


@pytest.fixture
def job(tmp_path):
    training = Training(updates=8, batch_size=16, lr=0.05, augmentation=Siamese())
    return DistillJob(
        seed=0,
        device="cpu",
        source=Tiny(),
        model=ConvNet(width=4),
        distiller=distiller(),
        evaluation=Evaluation(training=training, nets=2, controls=(), plain=False),
        architectures={"mlp": MLP(hidden=(8,)), "alexnet": AlexNet(width=2)},
        checkpoint_every=4,
        out=tmp_path / "run",
        command=["fedcl", "distill"],
    )


@dataclass(frozen=True, kw_only=True)
class WithTargets(Distribution):
    """Distribution matching that also pulls learned targets to zero."""

    reads_targets = True

    def loss(self, synthetic, target, step):
        return super().loss(synthetic, target, step) + synthetic.targets.square().sum()


class Killed(BaseException):
    """What ends the process, as SIGKILL would."""


class KillAt(Progress):
    """Ends the run as soon as so many steps are reported."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, task, amount=1, **figures):
        if task == "distilling":
            self.left -= amount
            if self.left < 0:
                raise Killed


def test_learned_step_sizes_are_judged_beside_the_training_of_all(job):
    objective = Unrolled(inner_steps=3, step_size=0.1)
    dd = distiller(objective=objective, augmentation=NoAugmentation(), steps=3, optimizer=TORCH["adam"])
    part = run_distill(replace(job, distiller=dd))["distillation"]
    assert part["training"] == {"lr": 0.05, "loss": "cross_entropy"}  # of `accuracy`: the evaluation's own
    assert part["unrolled"]["accuracy"]["nets"] == 2
    raw = summary_of(replace(job, distiller=dd)).arrays["raw_step_sizes"]
    assert part["unrolled"]["step_sizes"] == pytest.approx(torch.nn.functional.softplus(raw).tolist())
    assert "unrolled" not in run_distill(replace(job, out=job.out / "other"))["distillation"]


def summary_of(job):
    return load_summary(job.out / "summaries" / "summary.safetensors")


def test_the_record_holds_what_a_report_needs(job, rendered):
    job = replace(job, evaluation=replace(job.evaluation, controls=("random", "kmeans"), plain=True))
    record = run_distill(job)
    known_parts(record)
    assert record == json.loads((job.out / "record.json").read_text())
    part = record["distillation"]
    # 6 images of 64 float32 pixels, 6 labels of a byte
    assert part["bytes"] == 6 * 64 * 4 + 6
    assert (part["ipc"], part["decoded_images"], part["labels"]) == (2, 6, "hard")
    assert part["accuracy"]["nets"] == 2
    assert part["accuracy"] == part["cells"]["hard"]["augmented"]
    assert set(part["cells"]["hard"]) == {"augmented", "plain"}
    for kind in ("random", "kmeans"):
        control = part["controls"][kind]
        assert (control["images"], control["bytes"]) == (6, 6 * 64 * 4 + 6)
        assert control["accuracy"] == control["cells"]["hard"]["augmented"]
    assert set(part["ranking"]) == {"augmentation_robust"}  # the other needs evaluation.full=true
    assert [step for step, _ in part["loss"]] == [1, 12]
    assert part["sha256"] == summary_of(job).sha256()
    for name in ("summaries.png", "loss.png"):
        assert (job.out / name).stat().st_size > 1000
    assert not (job.out / NAME).exists()


@pytest.mark.parametrize(("optimizer", "reuse"), [("sgd", 1), ("adam", 3)])
def test_a_killed_run_goes_on_to_the_same_bits(job, tmp_path, optimizer, reuse):
    job = replace(job, distiller=distiller(optimizer=TORCH[optimizer], reuse=reuse))
    whole = replace(job, out=tmp_path / "whole")
    record = run_distill(whole)
    with pytest.raises(Killed):
        run_distill(job, KillAt(7))
    done = read_checkpoint(job.out).done
    assert 0 < done < 12
    assert not json.loads((job.out / "record.json").read_text())["finished"]
    said = []
    listener = Progress()
    listener.say = said.append
    again = run_distill(job, listener)
    assert said[0] == f"going on from step {done} of 12"
    assert summary_of(job).sha256() == summary_of(whole).sha256()
    assert again["distillation"]["loss"] == record["distillation"]["loss"]
    assert again["distillation"]["accuracy"] == record["distillation"]["accuracy"]


def test_the_estimate_changes_nothing(job):
    before = replace(job, out=job.out.with_name("before"))
    [direct] = job.distiller.distill([Tiny().load().train], *key_and_bench(job))
    run_distill(before)
    assert summary_of(before).sha256() == direct.sha256()


def key_and_bench(job):
    data = Tiny().load()
    ctx = Context(
        model=job.model,
        inputs=InputSpec(shape=data.inputs.shape, preprocess=data.inputs.preprocess),
        num_classes=data.num_classes,
    )
    return derive(job.seed, "distill"), ctx


def test_a_checkpoint_of_other_settings_is_refused_and_kept(job):
    with pytest.raises(Killed):
        run_distill(job, KillAt(7))
    kept = (job.out / NAME).read_bytes()
    longer = replace(job, distiller=distiller(steps=20))
    with pytest.raises(RunError, match=r"distiller\.steps was 12, is 20.*out="):
        run_distill(longer)
    with pytest.raises(RunError, match="seed was 0, is 1"):
        run_distill(replace(job, seed=1))
    with pytest.raises(RunError, match="data was"):
        run_distill(replace(job, source=Tiny((9, 8, 8))))
    assert (job.out / NAME).read_bytes() == kept
    nets = replace(job, evaluation=replace(job.evaluation, nets=1))  # what does not decide the summary may change
    assert run_distill(nets)["finished"]


def test_what_a_damaged_checkpoint_says_of_the_run_is_refused(job):
    with pytest.raises(Killed):
        run_distill(job, KillAt(7))
    state = read_checkpoint(job.out)
    for changed, said in [
        ({"losses": 5}, "TypeError"),
        ({"losses": [[1, "x"]]}, "ValueError"),
        ({"losses": [[1]]}, "ValueError"),
        ({"losses": [], "seconds": None}, "TypeError"),
        ({}, "KeyError: 'losses'"),
    ]:
        write_checkpoint(job.out, replace(state, about={**state.about, "notes": changed}))
        with pytest.raises(FedclError, match=rf"checkpoint\.safetensors is damaged; remove it.*{said}"):
            run_distill(job)
    write_checkpoint(job.out, replace(state, done=13, tensors={**state.tensors, "step": torch.tensor(13)}))
    with pytest.raises(FedclError, match="says 13 of 12 steps"):
        run_distill(job)
    write_checkpoint(job.out, state)
    assert run_distill(job)["finished"]


def test_a_finished_run_and_a_damaged_checkpoint_are_refused(job):
    job.out.mkdir()
    (job.out / NAME).write_bytes(b"no tensors")
    with pytest.raises(RunError, match="checkpoint"):
        run_distill(job)
    (job.out / NAME).unlink()
    run_distill(job)
    with pytest.raises(RunError, match="finished"):
        run_distill(job)


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(job):
    wild = replace(job, distiller=distiller(optimizer=partial(torch.optim.SGD, lr=1e37), steps=60), checkpoint_every=1)
    with pytest.raises(DistillError, match=r"lower distiller\.optimizer\.lr"):
        run_distill(wild)
    record = json.loads((job.out / "record.json").read_text())
    assert not record["finished"]
    assert "lower distiller.optimizer.lr" in record["failure"]
    kept = read_checkpoint(job.out)
    assert 1 <= kept.done < 60
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in kept.tensors.values())


def test_an_ipc_larger_than_a_class_is_refused_before_anything_is_written(job):
    with pytest.raises(ConfigError, match=r"distiller\.ipc=5 is more than class '1' has \(3 images\)"):
        run_distill(replace(job, source=Tiny((8, 3, 8)), distiller=distiller(ipc=5)))
    assert not job.out.exists()


def test_selection_needs_no_steps_and_has_no_curve(job):
    chosen = distiller(
        objective=NoObjective(), initializer=Real(select="random"), steps=0, augmentation=NoAugmentation()
    )
    record = run_distill(replace(job, distiller=chosen))
    assert record["distillation"]["loss"] == []
    assert not (job.out / "loss.png").exists()
    known_parts(record)


def test_soft_labels_are_judged_apart_from_hard_ones(job):
    evaluation = replace(job.evaluation, controls=("random",))
    soft = distiller(labels=Kernel(), objective=WithTargets())
    record = run_distill(replace(job, distiller=soft, evaluation=evaluation))
    part = record["distillation"]
    assert part["labels"] == "soft"
    assert part["accuracy"] == part["cells"]["soft"]["augmented"]
    assert set(part["cells"]) == {"soft", "hard"}
    # 6 * (256 + 12) = 1608 bytes buy 6 images of 257
    assert part["controls"]["random"]["images"] == 6
    assert set(part["controls"]["random"]["cells"]) == {"soft", "hard"}
    assert part["training"] == {"lr": 0.05, "loss": "mse"}  # scores pulled to zero are no probabilities


def test_other_architectures_and_the_whole_data(job):
    evaluation = replace(job.evaluation, architectures=("alexnet", "mlp"), full=True, plain=True, controls=("random",))
    part = run_distill(replace(job, evaluation=evaluation))["distillation"]
    assert list(part["architectures"]) == ["alexnet", "mlp"]
    for found in part["architectures"].values():
        assert found["accuracy"]["nets"] == 2
        assert set(found["controls"]) == {"random"}
    assert part["full"]["nets"] == 2
    assert set(part["ranking"]) == {"label_robust", "augmentation_robust"}
    assert all(0 <= score <= 1 for score in part["ranking"].values())


def test_hyper_parameters_are_chosen_on_a_part_of_the_training_set(job):
    record = run_distill(replace(job, evaluation=replace(job.evaluation, held_out=0.25)))
    # a quarter of 8 images a class is held out, so that accuracies are multiples of 1/6
    for value in record["distillation"]["accuracy"]["values"]:
        assert value * 6 == pytest.approx(round(value * 6))
    assert summary_of(job).num_source_C.tolist() == [6, 6, 6]


def test_unknown_names_are_refused(job):
    with pytest.raises(ConfigError, match="choose among mlp, alexnet"):
        replace(job, evaluation=replace(job.evaluation, architectures=("vit",)))
    with pytest.raises(ConfigError, match=r"evaluation\.controls=.*each is one of random"):
        replace(job, evaluation=replace(job.evaluation, controls=("best",)))
    with pytest.raises(ConfigError, match="checkpoint_every"):
        replace(job, checkpoint_every=0)


def test_an_architecture_that_does_not_fit_says_so_before_the_run(job, tmp_path):
    class Small(Tiny):
        def load(self):
            data = super().load()
            cut = [replace(part, inputs=part.inputs[..., :6, :6]) for part in (data.train, data.test)]
            return replace(data, train=cut[0], test=cut[1], inputs=replace(data.inputs, shape=(1, 6, 6)))

    with pytest.raises(FedclError, match="too small"):
        run_distill(replace(job, source=Small(), evaluation=replace(job.evaluation, architectures=("alexnet",))))
    assert not job.out.exists()


def test_the_command(command, tmp_path):
    status, out, err = command(
        "distill", "distiller.ipc=1", "distiller.steps=3", "model.width=4", "evaluation.training.updates=2",
        "evaluation.nets=1", "evaluation.cache=cache", "out=run",
    )  # fmt: skip
    assert status == 0, err
    assert "estimate: about" in err
    assert "kmeans 0." in out
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    known_parts(record)
    assert record["finished"]
    assert record["config"]["distiller"]["ipc"] == 1
    protocol = record["config"]["distiller"]["published_protocol"]  # DM's, at this data set and ipc
    assert protocol["distiller.steps"] == 20000
    assert "evaluation.training.updates" not in protocol  # nobody published digits
    assert not any(isinstance(value, dict) for value in protocol.values())
    assert len(list((tmp_path / "cache").iterdir())) == 6  # 1 network, 3 sets, 2 kinds of training
    status, _, err = command("distill", "distiller.ipc=1000", "out=other")
    assert status == 2
    assert "type distiller.ipc=" in err
    assert not (tmp_path / "other").exists()
