"""Which run a configuration is: resolved and hashed once, so that what trains is what was planned."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from fairsweep import config
from fairsweep.config import ConfigError
from fairsweep.runs import checkpoint, lookup, provenance, store
from fairsweep.runs.folder import Place
from fairsweep.training import targets


class RunSpec(NamedTuple):
    """A requested run.

    Attributes:
        place: its place in its sweep.
        single: it was requested on its own. It gets pictures and an MLflow model, and if it cannot be built,
            that is the user's mistake; one of many just fails.
        signature, content: its name and the hash of its data; empty until `identify` has resolved `cfg`.
        overrides: those that compose `cfg`. Hydra's own launchers compose it again.
    """

    cfg: DictConfig
    place: Place | None = None
    single: bool = True
    signature: str = ""
    content: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def trained_by(self) -> str | None:
        """The id of the sweep command that trains this run; None for a single run."""
        return self.place.command if self.place is not None else None


class PlannedRun(NamedTuple):
    """A run that a sweep has planned; a sweep may plan thousands.

    Attributes:
        cfg: the resolved configuration, as JSON: a `DictConfig` takes a hundred times the memory.
    """

    signature: str
    content: str
    overrides: tuple[str, ...]
    cfg: str

    def spec(self, place: Place) -> RunSpec:
        """The run at its place in a sweep."""
        cfg = config.literal(json.loads(self.cfg))
        return RunSpec(cfg, place, False, self.signature, self.content, self.overrides)


def identify(spec: RunSpec) -> RunSpec:
    """The run with its configuration checked and resolved, its starting weights a file, and its signature.

    Raises:
        ConfigError: a key or a value is not allowed; the data or the weights are missing.
    """
    if spec.signature:
        return spec
    values, content = identified(spec.cfg)
    cfg = config.literal(values)
    return spec._replace(cfg=cfg, signature=config.signature(values, content), content=content)


def plan(cfg: DictConfig, overrides: Sequence[str], checked: bool = True) -> PlannedRun:
    """The run of a configuration that a sweep has composed.

    Args:
        checked: False: whatever its values are; it will fail by this name.

    Raises:
        ConfigError: as `identify`.
    """
    values, content = identified(cfg, checked)
    return PlannedRun(config.signature(values, content), content, tuple(overrides), json.dumps(values))


def identified(cfg: DictConfig, checked: bool = True) -> tuple[dict[str, Any], str]:
    """The resolved values of a configuration, and the hash of its data."""
    if checked:
        store.check(cfg.tracking.uri)
    values = config.check(cfg) if checked else config.resolved(cfg)
    for key, target in config.named_targets(values).items():
        targets.check(key, target)
    values["trainer"]["weights"] = weights_file(values)
    return values, provenance.content(values)


def weights_file(values: dict[str, Any]) -> str | None:
    """The path of the file that `trainer.weights` names, itself or by a run."""
    which = values["trainer"]["weights"]
    if which is None:
        return None
    path = Path(which)
    if not path.is_file():
        # `best` is looked for among runs on the same data, by the same objective.
        among = (provenance.content(values), values["objective"]) if which == "best" else ()
        try:
            path = checkpoint.tested_file(lookup.find(values["record"]["dir"], which, *among))
        except ConfigError as error:
            raise ConfigError(
                f"trainer.weights={which}: neither a file nor a run with weights ({error})"
            ) from error
    return str(path.absolute())
