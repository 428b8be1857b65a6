"""`from=RUN`: the overrides that compose the configuration of a recorded run again."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fairsweep.cli import arguments
from fairsweep.config import ROOT, ConfigError, check_familiar, escaped, leaves
from fairsweep.runs import lookup, tracking
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.inputs import RUNS
from fairsweep.runs.schema import read_config

# Where and how a run is recorded: not taken from the record.
OWN = ("record", "tracking", "rerun", "reuse", "trainer.stop_epoch")

# Overrides that name where recorded runs are.
PLACES = ("record.dir=", "tracking=", "tracking.uri=")


def expanded(typed: list[str]) -> list[str]:
    """A command line in which the recorded run's overrides replace `from=RUN`."""
    sources = [word for word in typed if word.startswith("from=")]
    if not sources:
        return typed
    others = [word for word in typed if word not in sources]
    given = [arguments.as_text(word, is_sweep=False) for word in others]
    return [*words(sources[-1].removeprefix("from="), given), *others]


def words(which: str, given: Sequence[str]) -> list[str]:
    """Overrides that make the configuration of a recorded run.

    Args:
        which: the run's signature or its beginning, `latest`, `best`, its folder, or an MLflow run's id or
            address.
        given: the other overrides of the command line. They come last, and win.

    Raises:
        ConfigError: there is no such run, or its configuration is damaged; or it comes from elsewhere and
            names what is neither ours nor torch's.
    """
    chosen = {word.lstrip("+").partition("=")[0] for word in given}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        place = compose("train", [word for word in given if word.startswith(PLACES)])
        with found(which, place) as folder:
            recorded = read_config(folder.path / "config.yaml")
            if folder.path.parent != Path(place.record.dir).absolute() / "runs":
                check_familiar(recorded, chosen)
        choices = {
            group: choice
            for group, node in recorded.items()
            if group not in chosen and (choice := choice_of(group, node)) is not None
        }
        groups = [f"{group}={choice}" for group, choice in choices.items()]
        base = leaves(OmegaConf.to_container(compose("train", groups), resolve=True))
    values = {
        key: value
        for key, value in leaves(recorded).items()
        if not is_of(key, OWN) and not is_of(key, chosen) and (key not in base or base[key] != value)
    }
    return [*groups, *(f"++{key}={grammatical(escaped(value))}" for key, value in values.items())]


@contextmanager
def found(which: str, place: DictConfig) -> Iterator[RunFolder]:
    """The recorded run, here or in MLflow."""
    if not which:
        raise ConfigError(f"from=: must be a run's folder, {RUNS}")
    address = re.search(r"(?:^|/runs/)([0-9a-f]{32})/?$", which)
    path = Path(which).expanduser().absolute()
    named: AbstractContextManager[RunFolder]
    try:
        if address and place.tracking.uri is not None:
            named = tracking.find_run(address[1], place.tracking.uri, place.record.dir)
        elif (path / "config.yaml").is_file():
            named = nullcontext(RunFolder(path))
        else:
            named = nullcontext(lookup.find(place.record.dir, which, needs_weights=False))
        with named as folder:
            yield folder
    except ConfigError as error:
        raise ConfigError(f"from={which}: {re.sub('^run=[^:]*: ', '', str(error))}") from error


def choice_of(group: str, node: Any) -> str | None:
    """The file of `conf/<group>/` that a part of a configuration was made with; `other`, if it is none."""
    folder = ROOT / "conf" / group
    if not folder.is_dir() or not isinstance(node, Mapping):
        return None
    for key in ("name", "_target_"):
        for path in sorted(folder.glob("[!_]*.yaml")):
            content = OmegaConf.load(path)
            if isinstance(content, DictConfig) and key in content and content[key] == node.get(key):
                return path.stem
    return "other" if (folder / "other.yaml").exists() else None


def is_of(key: str, names: Iterable[str]) -> bool:
    """Whether a key is one of these, or inside one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def grammatical(value: Any) -> str:
    """A value in Hydra's grammar, whose mappings have keys without quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}:{grammatical(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(grammatical, value))}]"
    return arguments.quoted(value, '"') if isinstance(value, str) else json.dumps(value)
