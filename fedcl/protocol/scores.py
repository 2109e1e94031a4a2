"""The part of the record that says what a summary is worth: cells, controls, other networks, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedcl.core.types import LabeledSet, Summary
from fedcl.models.base import Model
from fedcl.protocol.controls import Control, with_labels_of
from fedcl.protocol.evaluation import Evaluation, Evaluator, Score, TrainSet, unrolled_training
from fedcl.protocol.ranking import augmentation_robust, label_robust
from fedcl.training.loop import Training

ScoreTable = dict[
    str, dict[str, Score]
]  # kind of labels ("hard", "soft") -> kind of training ("augmented", "plain") -> score

STEP_SIZE = "step_size"  # array of a summary that holds its learned learning rate, float32 [1]


def judge_summary(
    summary: Summary,
    controls: Sequence[Control],
    judge: Evaluator,
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
    own = {kind: lot_of(summary)}
    if summary.is_soft:
        own["hard"] = hardened(summary)
    # what suits the labels is used for both sides, the summary's own step size only with its images
    trainings = {labels: suited(evaluation.trainings(), summary, labels) for labels in own}
    first = next(iter(trainings[kind]))
    cells: ScoreTable = {
        labels: {
            name: judge.score([lot], with_step_size(training, summary), evaluation.nets)
            for name, training in trainings[labels].items()
        }
        for labels, lot in own.items()
    }
    training = with_step_size(trainings[kind][first], summary)
    yield {
        "labels": kind,
        "accuracy": cells[kind][first].part(),
        "cells": parts(cells),
        "training": {"lr": training.lr, "loss": training.loss},
    }
    unrolled = unrolled_training(trainings[kind][first], summary)
    if unrolled is not None:  # beside the training that every set gets: the one that made the images
        score = judge.score([own[kind]], unrolled, evaluation.nets)
        yield {"unrolled": {"accuracy": score.part(), "step_sizes": list(unrolled.rates)}}
    found: dict[str, ScoreTable] = {}
    lots: dict[str, tuple[TrainSet, ...]] = {}
    record: dict[str, Any] = {}
    for control in controls:
        lots[control.kind] = control.lots
        theirs = {"hard": control.lots}
        if summary.is_soft:
            theirs["soft"] = tuple(with_labels_of(lot, summary) for lot in control.lots)
        found[control.kind] = {
            labels: {name: judge.score(some, t, evaluation.nets) for name, t in trainings[labels].items()}
            for labels, some in theirs.items()
        }
        record[control.kind] = {
            "accuracy": found[control.kind]["hard"][first].part(),
            "images": sum(control.count_C),
            "bytes": control.bytes,
            "cells": parts(found[control.kind]),
        }
        yield {"controls": dict(record)}
    yield from elsewhere(own[kind], lots, judge, evaluation, training, models)
    full = None
    if train is not None:
        lot = TrainSet(make=lambda: (train.images_NCHW, train.labels_N))
        full = judge.score([lot], evaluation.trainings()[first], evaluation.nets)
        yield {"full": full.part()}
    ranking = scores(cells, found.get("random"), full)
    if ranking:
        yield {"ranking": ranking}


def elsewhere(
    lot: TrainSet,
    controls: Mapping[str, Sequence[TrainSet]],
    judge: Evaluator,
    evaluation: Evaluation,
    training: Training,
    models: Mapping[str, Model],
) -> Iterator[dict[str, Any]]:
    """NetworkStream that the distillation has not seen."""
    record: dict[str, Any] = {}
    plain = next(iter(evaluation.trainings().values()))
    for name, model in models.items():
        record[name] = {
            "accuracy": judge.score([lot], training, evaluation.nets, model).part(),
            "controls": {
                kind: {"accuracy": judge.score(lots, plain, evaluation.nets, model).part()}
                for kind, lots in controls.items()
            },
        }
        yield {"architectures": dict(record)}


def suited(trainings: Mapping[str, Training], summary: Summary, labels: str) -> dict[str, Training]:
    """The trainings with the loss that labels of this kind need: scores that are no probabilities are regressed on."""
    targets = summary.targets
    scores = labels == "soft" and bool((targets < -1e-6).any() or ((targets.sum(1) - 1).abs() > 1e-3).any())
    return {name: replace(t, loss="mse" if scores else t.loss) for name, t in trainings.items()}


def with_step_size(training: Training, summary: Summary) -> Training:
    """The training at the learning rate that was learned with the images, where there is a single one (MTT)."""
    learned = summary.arrays.get(STEP_SIZE)
    if learned is None or learned.numel() != 1 or training.optimizer != "sgd" or not 0 < float(learned) < 10:
        return training
    return replace(training, lr=float(learned))


def lot_of(summary: Summary) -> TrainSet:
    """A summary with the labels that it has."""
    return TrainSet(make=summary.decode)


def hardened(summary: Summary) -> TrainSet:
    """A summary of soft labels with the likeliest class in place of each."""
    return lot_of(replace(summary, targets=summary.targets.argmax(1)))


def parts(cells: ScoreTable) -> dict[str, dict[str, Any]]:
    return {labels: {name: score.part() for name, score in row.items()} for labels, row in cells.items()}


def scores(own: ScoreTable, random: ScoreTable | None, full: Score | None) -> dict[str, float]:
    """DD-Ranking's scores, as far as what was measured allows; "random" is the control of equal bytes."""
    if random is None:
        return {}
    found: dict[str, float] = {}
    first = next(iter(own["hard"]))
    if full is not None:
        found["label_robust"] = label_robust(
            full_hard=full.mean,
            synthetic_hard=own["hard"][first].mean,
            synthetic_any=best(own),
            random_any=best(random),
        )
    if {"augmented", "plain"} <= set(own["hard"]):
        kind = "soft" if "soft" in own else "hard"
        found["augmentation_robust"] = augmentation_robust(
            synthetic=own[kind]["augmented"].mean,
            random=random[kind]["augmented"].mean,
            synthetic_plain=own[kind]["plain"].mean,
            random_plain=random[kind]["plain"].mean,
        )
    return found


def best(cells: ScoreTable) -> float:
    return max(score.mean for row in cells.values() for score in row.values())
