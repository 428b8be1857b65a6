"""Arms: the alternatives that a sweep compares."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import NamedTuple

from fairsweep.config import ConfigError
from fairsweep.sweeps.space import Dimension

# Groups, and the keys within them, that decide which data a run reads and which weights it starts from.
GROUPS = ("data", "recipe", "trainer")


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


def variants(arm: Arm) -> Iterator[list[str]]:
    """Overrides that between them have all that an arm's runs may train on or start from.

    All combinations of the values that choose data or weights, with one value of each other dimension.
    """
    chooses = [bool(dim.choices) and dim.key.lstrip("+").split(".")[0] in GROUPS for dim in arm.space]
    columns = [d.choices if many else (d.ends[0],) for d, many in zip(arm.space, chooses, strict=True)]
    for texts in product(*columns):
        values = [f"{dim.key}={text}" for dim, text in zip(arm.space, texts, strict=True)]
        yield [*arm.fixed, *values]


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
