"""What is learned from a configuration's data, for defaults that follow from it; mostly without torch."""

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from fairsweep.config import TARGET
from fairsweep.training import targets
from fairsweep.training.sources import text_of

ARRAYS = "fairsweep.data.arrays"


def by_task(classes: Any, numbers: Any, *, _root_: DictConfig) -> Any:
    """`${by_task:<for classes>,<for numbers>}`: the one that suits the data of the configuration.

    The first where data are not named yet, as in what the runs of a sweep over data have in common.

    Raises:
        ConfigError: the data cannot be read.
    """
    data = _root_.get("data")
    if data is None or OmegaConf.is_missing(data, "_target_") or "_target_" not in data:
        return classes
    declared = data.get("task", "auto")
    if declared != "auto":
        return numbers if declared == "regression" else classes
    target = str(data["_target_"])
    is_of_classes = target.startswith("fairsweep.") and target != ARRAYS
    if is_of_classes or OmegaConf.missing_keys(data) or not TARGET.holds(target):
        return classes
    values = cast(dict[str, Any], OmegaConf.to_container(data, resolve=True))
    return numbers if task_of(target, values) == "regression" else classes


OmegaConf.register_new_resolver("by_task", by_task, replace=True)


def task_of(target: str, values: Mapping[str, Any]) -> str:
    """`classification` or `regression`, by the targets in a file, or by what a user's function returns."""
    if target == ARRAYS:
        from fairsweep.training import tables  # numpy

        return tables.task_of(values)
    targets.check("data._target_", target)  # a mistake is answered without torch
    from fairsweep.training import build

    return build.task_of(text_of(values))
