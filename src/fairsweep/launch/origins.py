"""What a sweep trains on and starts from: found once, and the same each time it is continued."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from fairsweep.config import ConfigError, file_hash, resolved
from fairsweep.runs import provenance
from fairsweep.runs.identity import weights_file
from fairsweep.training import sources

# Names of weights that mean another file each time a run ends.
PASSING = ("latest", "best")


class Pinned(NamedTuple):
    """The file that a name of weights stood for, and its SHA-256."""

    path: str
    hash: str


def of(cfg: DictConfig) -> list[str]:
    """Hashes of a run's data and of its starting weights, or the name that stands for those.

    Raises:
        ConfigError: data or weights are missing.
    """
    name = cfg.trainer.weights
    if name is not None and name not in PASSING:
        name = file_hash(str(weights_file(resolved(cfg))))
    return [provenance.content(resolved(cfg)), str(name)]


def notes(configurations: Iterable[str]) -> list[str]:
    """What the user should know of the data's files, once for each folder; configurations are JSON."""
    roots = {data.get("root"): data for data in (json.loads(text)["data"] for text in configurations)}
    return [note for note in map(sources.note, roots.values()) if note]


def word(cfg: DictConfig) -> str | None:
    """The word for weights that means another file each time a run ends; `best` with the data it is of."""
    name: str | None = cfg.trainer.weights
    if name == "best":
        return f"best {provenance.content(resolved(cfg))}"
    return name if name in PASSING else None


def pin(configurations: Iterable[DictConfig], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Pinned]:
    """What `latest` and `best` stand for in these configurations, by `word`.

    Args:
        known: what they stood for when the sweep was first begun.

    Raises:
        ConfigError: there is no such run, or its file is not what it was then.
    """
    pinned: dict[str, Pinned] = {}
    for cfg in configurations:
        name = word(cfg)
        if name is None or name in pinned:
            continue
        if name in known:
            pinned[name] = Pinned(**known[name])
        else:
            path = str(weights_file(resolved(cfg)))
            pinned[name] = Pinned(path, file_hash(path))
        path, then = pinned[name]
        if not Path(path).is_file() or file_hash(path) != then:
            raise ConfigError(
                f"trainer.weights={cfg.trainer.weights}: this sweep started from {path}, which is missing or "
                "has changed; name a file, or start the sweep again with rerun=true"
            )
    return pinned
