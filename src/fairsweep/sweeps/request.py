"""What a multirun command asks for: arms and their spaces, budget and seeds."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from fairsweep.cli import explain
from fairsweep.config import NOT_IN_SIGNATURE, OBJECTIVES, ConfigError
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.compose import Composer
from fairsweep.sweeps.phases import Settings
from fairsweep.sweeps.space import dimension

ARMS = "hydra.sweeper.arms"

# Fresh seeds of the confirm phase begin here, far from those of the search, which may become more later.
FIRST_CONFIRM_SEED = 1000


# Paths whose content counts.
BY_CONTENT = ("data.root", "trainer.weights")


class Request(NamedTuple):
    """A sweep as it was asked for.

    common: the overrides of all runs. named_arms: the user named the arms; else they are inferred.
    """

    common: tuple[str, ...]
    arms: tuple[Arm, ...]
    settings: Settings
    named_arms: bool

    def id(self, sources: Mapping[str, Sequence[str]]) -> str:
        """A hash of the arms, their spaces and the overrides. Budget and seeds are not part of it: with more
        of them, it is the same sweep grown.

        Args:
            sources: by arm, hashes of what its runs train on and start from, instead of the paths.
        """

        def kept(overrides: Iterable[str]) -> list[str]:
            return sorted(text for text in overrides if text.split("=")[0].lstrip("+") not in BY_CONTENT)

        arms = [
            [arm.name, kept(arm.fixed), kept(map(str, arm.space)), *sources[arm.name]] for arm in self.arms
        ]
        common = sorted(text for text in self.common if not changes_nothing(text.split("=")[0]))
        content = json.dumps([common, arms, self.settings.sampler, self.settings.sign])
        return "s" + hashlib.sha256(content.encode()).hexdigest()[:11]


def changes_nothing(key: str) -> bool:
    """Whether an override's key can change no run's result."""
    name = key.lstrip("+~")
    return any(name == known or name.startswith(f"{known}.") for known in (*NOT_IN_SIGNATURE, "seed"))


def read(master: DictConfig, arguments: list[str], composer: Composer) -> Request:
    """What the command line and `hydra.sweeper` ask for.

    Args:
        master: the configuration as the command line gives it, without what is swept.
        arguments: the command line's overrides, but for Hydra's own.

    Raises:
        ConfigError: an arm, a space or a seed that cannot be.
    """
    wanted = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
    assert isinstance(wanted, dict)
    params = [override_text(key, value) for key, value in (wanted["params"] or {}).items()]
    # Later ones win, as in Hydra.
    user = {o.get_key_element(): o for o in composer.parse([*params, *arguments])}
    seeds = read_seeds(user.pop("seed", None), wanted["seeds"], int(master.seed))
    named = wanted["arms"] or {}
    if named:
        arms = [read_arm(name, content, user, composer) for name, content in named.items()]
        common = [o for o in user.values() if not o.is_sweep_override()]
    else:
        arms, common = infer_arms(user)
    confirm = wanted["confirm"]
    if confirm is None:
        confirm = 10 if named else 0
    if confirm < 0:
        raise ConfigError(f"hydra.sweeper.confirm={confirm}: must be a whole number, 0 or more")
    first = int(master.seed) + FIRST_CONFIRM_SEED
    settings = Settings(
        sampler=wanted["sampler"],
        trials=wanted["trials"],
        seeds=seeds,
        confirm_seeds=tuple(range(first, first + confirm)),
        extend=wanted["extend"],
        extend_steps=wanted["extend_steps"],
        halving=wanted["halving"],
        batch=wanted["batch"],
        equal_budget=wanted["equal_budget"],
        epochs=int(master.trainer.epochs),
        sign=OBJECTIVES[str(master.objective)],
    )
    return Request(tuple(map(text_of, common)), tuple(arms), settings, bool(named))


def read_seeds(override: Override | None, wanted: Any, base: int) -> tuple[int, ...]:
    """The seeds of each trial: `seed=0,1,2` or `seeds=3`, which counts from `seed`; or a list of them."""
    if override is not None and override.is_sweep_override():
        if wanted != 1:
            raise ConfigError(
                f"{override.input_line}: hydra.sweeper.seeds={json.dumps(wanted)} says something else; "
                "give one of the two"
            )
        wanted = [int(seed) if seed.isdecimal() else seed for seed in override.sweep_string_iterator()]
    seeds = list(range(base, base + wanted)) if isinstance(wanted, int) else wanted
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
        raise ConfigError(
            f"hydra.sweeper.seeds={json.dumps(wanted)}: must be a number of seeds, 1 or more, or a list of "
            "whole numbers"
        )
    return tuple(seeds)


def read_arm(name: str, content: Any, user: Mapping[str, Override], composer: Composer) -> Arm:
    """An arm: its fixed overrides, its own space, and what the user sweeps in all arms alike.

    What the command line says of a key that the arm searches holds for all arms.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"{ARMS}.{name}: is empty: must say what makes it an arm, as {{optimizer: sgd, "
            '"optimizer.lr": "tag(log, interval(1e-3, 1))"}'
        )
    try:
        overrides = composer.parse([override_text(key, value) for key, value in content.items()])
        own = {override.get_key_element(): override for override in overrides}
        for key, override in own.items():
            if key in user and not override.is_sweep_override():
                raise ConfigError(
                    f"{user[key].input_line}: the arms decide this (here {override.input_line}); "
                    f"leave it away, or change {ARMS}"
                )
        space = {key: o for key, o in (own | dict(user)).items() if o.is_sweep_override()}
        fixed = [text_of(o) for o in own.values() if not o.is_sweep_override()]
        return Arm(name, tuple(fixed), tuple(dimension(override) for override in space.values()))
    except ConfigError as error:
        raise ConfigError(f"{ARMS}.{name}: {error}") from error
    except Exception as error:  # Hydra's own, of its grammar
        raise ConfigError(f"{ARMS}.{name}: {explain(error)}") from error


def infer_arms(user: Mapping[str, Override]) -> tuple[list[Arm], list[Override]]:
    """The arms of a plain grid: the optimizers, where those vary; else all is one arm without a name."""
    common = [override for override in user.values() if not override.is_sweep_override()]
    space = {key: dimension(override) for key, override in user.items() if override.is_sweep_override()}
    optimizer = space.pop("optimizer", None)
    if optimizer is None:
        return [Arm("", (), tuple(space.values()))], common
    return [Arm(name, (f"optimizer={name}",), tuple(space.values())) for name in optimizer.choices], common


def override_text(key: Any, value: Any) -> str:
    """An entry of a YAML mapping as an override."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = json.dumps(value).replace(": ", ":")
    return f"{key}={'null' if value is None else value}"


def text_of(override: Override) -> str:
    """An override as it was written."""
    return str(override.input_line)
