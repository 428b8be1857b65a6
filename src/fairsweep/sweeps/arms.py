"""Arms: the alternatives that a sweep compares."""

from collections.abc import Mapping
from typing import NamedTuple

from fairsweep.config import ConfigError
from fairsweep.sweeps.space import Dimension


class Arm(NamedTuple):
    """One alternative, with the search space that is its own.

    Attributes:
        name: unique in the sweep; empty for the one arm of a plain grid.
        fixed: the overrides that make it what it is.
        space: what is searched.
    """

    name: str
    fixed: tuple[str, ...]
    space: tuple[Dimension, ...]


def check_equal(trials: Mapping[str, int]) -> None:
    """Check that every arm, by name, has as many trials.

    Raises:
        ConfigError: they differ.
    """
    if len(set(trials.values())) > 1:
        numbers = ", ".join(f"{name} has {number}" for name, number in trials.items())
        raise ConfigError(
            f"hydra.sweeper.arms: must have the same number of trials, but {numbers}; make their spaces "
            "equally large, use intervals and hydra.sweeper.trials, or override this with "
            "hydra.sweeper.equal_budget=false"
        )


def check_keys(arm: Arm) -> None:
    """Check that an arm's space has each key once.

    Raises:
        ConfigError: a key comes twice.
    """
    keys = [dim.key.lstrip("+") for dim in arm.space]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"hydra.sweeper.arms.{arm.name}: has {key} twice; give it one space")
