"""What is learned from a configuration's data, for defaults that follow from it; mostly without torch."""

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fairsweep.training.sources import text_of


def by_task(classes: Any, numbers: Any, *, _root_: DictConfig) -> Any:
    """`${by_task:<for classes>,<for numbers>}`: the one that suits the data of the configuration.

    Where a sweep's runs name the file and not the configuration that they have in common: the first.

    Raises:
        ConfigError: the data cannot be read.
    """
    data = _root_.get("data")
    if data is None or "_target_" not in data or OmegaConf.missing_keys(data):
        return classes
    return (
        numbers
        if task_of(cast(dict[str, Any], OmegaConf.to_container(data, resolve=True))) == "regression"
        else classes
    )


OmegaConf.register_new_resolver("by_task", by_task, replace=True)


def task_of(cfg: Mapping[str, Any]) -> str:
    """What is learned from a data set, `classification` or `regression`; it may call a user's function.

    Args:
        cfg: `data` of a configuration, resolved.
    """
    target = str(cfg["_target_"])
    if target == "fairsweep.data.arrays":
        from fairsweep.training import tables  # numpy

        return tables.task_of(cfg)
    if cfg.get("task", "auto") != "auto":
        return str(cfg["task"])
    if target.startswith("fairsweep."):
        return "classification"
    from fairsweep.training import build  # torch

    return build.task_of(text_of(cfg))
