"""The part of the record that says what a summary is worth: cells, controls, other networks, scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedcl.core.types import LabeledSet, Summary
from fedcl.models.base import Model
from fedcl.protocol.controls import Control, with_labels_of
from fedcl.protocol.evaluation import Evaluation, Evaluator, Score, TrainSet, teacher_of, unrolled_training
from fedcl.protocol.ranking import augmentation_robust, label_robust
from fedcl.training.recipe import Training

ScoreTable = dict[str, dict[str, Score]]  # "hard" or "soft" labels -> "augmented" or "plain" training -> score

STEP_SIZE = "step_size"  # array of a summary that holds its learned learning rate, float32 [1]


def evaluate_summary(
    summary: Summary,
    controls: Sequence[Control],
    evaluator: Evaluator,
    evaluation: Evaluation,
    models: Mapping[str, Model],
    train: LabeledSet | None,
) -> Iterator[dict[str, Any]]:
    """Parts of the record, each as soon as it is known.

    Args:
        models: other networks, which the summary and its controls train as well.
        train: all real images, where the accuracy on them is asked for.
    """
    kind = "soft" if summary.is_soft else "hard"
    own = {kind: train_set_of(summary)}
    if summary.is_soft:  # with the likeliest class in place of each label
        own["hard"] = TrainSet(make=replace(summary, targets=summary.targets.argmax(1)).decode)

    def scored(train_sets: Sequence[TrainSet], trainings: Mapping[str, Training]) -> dict[str, Score]:
        return {name: evaluator.score(train_sets, training, evaluation.nets) for name, training in trainings.items()}

    # what suits the labels is used for both sides, the summary's own step size only with its images
    trainings = {labels: suited(evaluation.trainings(), summary, labels) for labels in own}
    paced = {labels: {name: with_step_size(t, summary) for name, t in row.items()} for labels, row in trainings.items()}
    first = next(iter(trainings[kind]))
    table: ScoreTable = {labels: scored([train_set], paced[labels]) for labels, train_set in own.items()}
    training = paced[kind][first]
    yield {
        "labels": kind,
        "accuracy": table[kind][first].part(),
        "cells": parts(table),
        "training": {"lr": training.lr, "loss": training.loss},
    }
    unrolled = unrolled_training(trainings[kind][first], summary)
    if unrolled is not None:  # beside the training that every set gets: the one that made the images
        score = evaluator.score([own[kind]], unrolled, evaluation.nets)
        yield {"unrolled": {"accuracy": score.part(), "step_sizes": list(unrolled.rates)}}
    found: dict[str, ScoreTable] = {}
    record: dict[str, Any] = {}
    for control in controls:
        theirs = {"hard": control.train_sets}
        if summary.is_soft:
            theirs["soft"] = tuple(with_labels_of(train_set, summary) for train_set in control.train_sets)
        found[control.kind] = {labels: scored(some, trainings[labels]) for labels, some in theirs.items()}
        record[control.kind] = {
            "accuracy": found[control.kind]["hard"][first].part(),
            "images": sum(control.count_C),
            "bytes": control.bytes,
            "cells": parts(found[control.kind]),
        }
        yield {"controls": dict(record)}
    plain, elsewhere = evaluation.trainings()[first], {}
    for name, model in models.items():  # networks that the distillation has not seen
        elsewhere[name] = {
            "accuracy": evaluator.score([own[kind]], training, evaluation.nets, model).part(),
            "controls": {
                control.kind: {"accuracy": evaluator.score(control.train_sets, plain, evaluation.nets, model).part()}
                for control in controls
            },
        }
        yield {"architectures": dict(elsewhere)}
    full = None
    if train is not None:
        full = evaluator.score([TrainSet(make=lambda: (train.inputs, train.labels_N))], plain, evaluation.nets)
        yield {"full": full.part()}
    ranking = scores(table, found.get("random"), full)
    if ranking:
        yield {"ranking": ranking}


def suited(trainings: Mapping[str, Training], summary: Summary, labels: str) -> dict[str, Training]:
    """The trainings with the loss that labels of this kind need: scores that are no probabilities are regressed on."""
    sums_N = summary.targets.sum(-1)
    scores = labels == "soft" and bool((summary.targets < -1e-6).any() or ((sums_N - 1).abs() > 1e-3).any())
    return {name: replace(t, loss="mse" if scores else t.loss) for name, t in trainings.items()}


def with_step_size(training: Training, summary: Summary) -> Training:
    """The training at the learning rate that was learned with the images, where there is a single one (MTT)."""
    learned = summary.arrays.get(STEP_SIZE)
    if learned is None or learned.numel() != 1 or training.optimizer != "sgd" or not 0 < float(learned) < 10:
        return training
    return replace(training, lr=float(learned))


def train_set_of(summary: Summary) -> TrainSet:
    """A summary with the labels that it has, or that its teacher gives."""
    return TrainSet(make=summary.decode, teacher=teacher_of(summary))


def parts(table: ScoreTable) -> dict[str, dict[str, Any]]:
    return {labels: {name: score.part() for name, score in row.items()} for labels, row in table.items()}


def scores(own: ScoreTable, random: ScoreTable | None, full: Score | None) -> dict[str, float]:
    """DD-Ranking's scores, as far as what was measured allows; "random" is the control of equal bytes."""
    if random is None:
        return {}
    found: dict[str, float] = {}
    kind = "soft" if "soft" in own else "hard"
    if full is not None:
        hard = next(iter(own["hard"].values())).mean
        ours, theirs = (max(score.mean for row in table.values() for score in row.values()) for table in (own, random))
        found["label_robust"] = label_robust(
            full_hard=full.mean, synthetic_hard=hard, synthetic_any=ours, random_any=theirs
        )
    if {"augmented", "plain"} <= set(own["hard"]):
        augmented, plain = ((own[kind][name].mean, random[kind][name].mean) for name in ("augmented", "plain"))
        found["augmentation_robust"] = augmentation_robust(
            synthetic=augmented[0], random=augmented[1], synthetic_plain=plain[0], random_plain=plain[1]
        )
    return found
