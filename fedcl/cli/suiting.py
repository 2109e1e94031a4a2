"""Defaults that suit a data set: where inputs are no images, a model and augmentations that take any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from fedcl.cli.typed import key_of
from fedcl.core.paths import config_dir
from fedcl.core.targets import TARGET, locate

OPTIONS = {"model": "mlp", "augmentation": "none"}  # of each group, one for inputs of any kind


def suit_inputs(config: DictConfig, choices: Mapping[str, str | None], typed: Sequence[str]) -> dict[str, str | None]:
    """Put other options in place of defaults that only images have a use for; the choices with them.

    What was typed stays: if it does not suit, the run says so.

    Args:
        config: as Hydra composed it; changed in place.
        choices: group, as "model" or "augmentation@evaluation.training.augmentation", to option.
        typed: overrides, as typed.
    """
    chosen = dict(choices)
    if getattr(_class_at(config, "dataset"), "images", True):
        return chosen
    keys = [key_of(text) for text in typed]
    for key in choices:
        group, _, place = key.partition("@")
        place = place or group
        if key != "model" and group != "augmentation":  # model@architectures.convnet was named for what it is
            continue
        if any(one == key or f"{one}.".startswith(f"{place}.") for one in keys):
            continue
        if getattr(_class_at(config, place), "only_images", None) is not None:  # a text, or a property of its numbers
            chosen[key] = OPTIONS[group]
            with open_dict(config):
                option = OmegaConf.load(config_dir() / group / f"{chosen[key]}.yaml")
                OmegaConf.update(config, place, option, merge=False)
    return chosen


def _class_at(config: DictConfig, place: str) -> object:
    """The class that a part of the configuration names, if it names one."""
    node = OmegaConf.select(config, place)
    return locate(node[TARGET], f"{place}.{TARGET}") if isinstance(node, DictConfig) and TARGET in node else None
