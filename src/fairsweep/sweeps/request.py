"""What a multirun command asks for: arms and their spaces, budget and seeds."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from omegaconf import DictConfig, OmegaConf

from fairsweep.cli import overrides
from fairsweep.cli.arguments import ARM_EDIT
from fairsweep.cli.entry import explain
from fairsweep.config import (
    DATA_FILES,
    NOT_IN_SIGNATURE,
    ConfigError,
    check_common,
    criteria_of,
    either,
    integer,
    leaves,
    list_of,
    nearest,
)
from fairsweep.runs.reproduce import grammatical
from fairsweep.sweeper import SHORT
from fairsweep.sweeps import words
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.compose import Composer
from fairsweep.sweeps.phases import MOST_RUNS, SweepSettings, TrialRun
from fairsweep.sweeps.space import dimension
from fairsweep.sweeps.words import Word

ARMS = "hydra.sweeper.arms"

# Fresh seeds of the confirm phase begin here, far from those of the search, which may become more later.
FIRST_CONFIRM_SEED = 1000


# What a sweep takes from `hydra.sweeper` as it is.
AS_GIVEN = {one.name for one in fields(SweepSettings)} & SHORT.keys() - {"seeds"}

# Paths whose content counts.
BY_CONTENT = ("data.root", *DATA_FILES, "trainer.weights")


class Request(NamedTuple):
    """A sweep as requested.

    common: the overrides of all runs. named_arms: the user named the arms; else they are inferred.
    """

    common: tuple[str, ...]
    arms: tuple[Arm, ...]
    settings: SweepSettings
    named_arms: bool

    def id(self, sources: Mapping[str, Sequence[str]]) -> str:
        """A hash of the arms, their spaces and the overrides. Budget and seeds are not part of it: with more
        of them, it is the same sweep grown.

        Args:
            sources: by arm, hashes of what its runs train on and start from, instead of the paths.
        """

        def kept(overrides: Iterable[str]) -> list[str]:
            texts = chain.from_iterable(map(settings_of, overrides))
            return sorted((text for text in texts if key_of(text).lstrip("+") not in BY_CONTENT), key=key_of)

        arms = [
            [arm.name, kept(arm.fixed), kept(map(str, arm.space)), *sources[arm.name]] for arm in self.arms
        ]
        # Of those with the same key, the order counts.
        texts = chain.from_iterable(map(settings_of, self.common))
        common = sorted((text for text in texts if not changes_nothing(key_of(text))), key=key_of)
        content = json.dumps([common, arms, self.settings.sampler, self.settings.sign])
        return "s" + hashlib.sha256(content.encode()).hexdigest()[:11]

    def overrides(self, run: TrialRun) -> list[str]:
        """All that makes a run out of the base configuration."""
        (fixed,) = (arm.fixed for arm in self.arms if arm.name == run.trial.arm)
        values = [f"{key}={value}" for key, value in run.trial.values.items()]
        pause = [] if run.stop_epoch is None else [f"trainer.stop_epoch={run.stop_epoch}"]
        return [*self.common, *fixed, *values, f"seed={run.seed}", *pause]


def settings_of(text: str) -> list[str]:
    """An override, or several that say the same: a mapping becomes one for each key inside it."""
    parser = OverridesParser.create()
    override = parser.parse_override(text)
    key, value = override.get_key_element(), override.value()
    if isinstance(value, dict):
        return [f"{name}={json.dumps(inner)}" for name, inner in leaves(value, key).items()]
    if isinstance(value, ChoiceSweep) and any(isinstance(choice, dict) for choice in value.list):
        texts = override.sweep_string_iterator()
        choices = [leaves(parser.parse_override(f"{key}={text}").value(), key) for text in texts]
        names = dict.fromkeys(chain.from_iterable(choices))
        return [f"{name}={json.dumps([choice.get(name) for choice in choices])}" for name in names]
    return [text]


def key_of(text: str) -> str:
    return text.split("=")[0]


def changes_nothing(key: str) -> bool:
    """Whether an override's key can change no run's result."""
    name = key.lstrip("+~")
    return any(name == known or name.startswith(f"{known}.") for known in (*NOT_IN_SIGNATURE, "seed"))


def read(master: DictConfig, arguments: list[str], composer: Composer) -> Request:
    """What the command line and `hydra.sweeper` ask for.

    Args:
        master: the configuration as the command line gives it, without what is swept. It gets the overrides
            that Hydra left to the jobs, where it has their keys.
        arguments: the command line's overrides, but for Hydra's own.

    Raises:
        ConfigError: an arm, a space or a seed that cannot be.
    """
    typed = words.read(arguments, composer)
    words.check_braces(typed)
    wanted = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
    assert isinstance(wanted, dict)
    preset = words.read([override_text(key, value) for key, value in wanted["params"].items()], composer)
    fixed, swept = words.in_order([*preset, *typed], composer)
    composer.apply([word.override for word in fixed], master)
    check_common(master)
    seeds = read_seeds(swept.pop("seed", None), wanted["seeds"], master.seed)
    named = wanted["arms"]
    if named:
        arms = [read_arm(name, content, fixed, swept, composer) for name, content in named.items()]
        check_edits(arms, named)
    else:
        arms = infer_arms(swept)
    confirm = wanted["confirm"]
    if confirm is None:
        confirm = 10 if named else 0
    if not 0 <= confirm <= MOST_RUNS:
        raise ConfigError(f"hydra.sweeper.confirm={confirm}: must be {integer(0, MOST_RUNS).allowed}")
    first = master.seed + FIRST_CONFIRM_SEED
    settings = SweepSettings(
        **{key: wanted[key] for key in AS_GIVEN},
        seeds=seeds,
        confirm_seeds=tuple(range(first, first + confirm)),
        epochs=master.trainer.epochs,
        sign=criteria_of(master).metric.sign,
    )
    common = [word.text for word in fixed if word.name != "seed"]
    return Request(tuple(common), tuple(arms), settings, bool(named))


def read_seeds(word: Word | None, wanted: Any, base: int) -> tuple[int, ...]:
    """The seeds of each trial: `seed=0,1,2` or `seeds=3`, which counts from `seed`; or a list of them."""
    if word is not None:
        if wanted != 1:
            raise ConfigError(
                f"{word.text}: hydra.sweeper.seeds={json.dumps(wanted)} contradicts it; give one of the two"
            )
        points = dimension(word.override).points
        if not points:
            raise ConfigError(f"{word.text}: must be a list of seeds, or range(...)")
        wanted = [int(seed) if seed.isdecimal() else seed for seed in points]
    rule = either(integer(1, MOST_RUNS), list_of(integer(0)))
    if not rule.holds(wanted) or wanted == []:
        given = word.text if word is not None else f"hydra.sweeper.seeds={json.dumps(wanted)}"
        raise ConfigError(f"{given}: must be a number of seeds, 1 to {MOST_RUNS}, or a list of whole numbers")
    return tuple(wanted) if isinstance(wanted, list) else tuple(range(base, base + wanted))


def read_arm(
    name: str, content: Any, fixed: Sequence[Word], swept: Mapping[str, Word], composer: Composer
) -> Arm:
    """An arm: its fixed overrides, its own space, and what the user sweeps in all arms alike.

    What the command line says of a key that the arm searches holds for all arms.
    """
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"{ARMS}.{name}: is empty; say what makes it an arm, for example "
            f"arms.{name}.optimizer=sgd 'arms.{name}.optimizer.lr=tag(log, interval(1e-3, 1))'"
        )
    try:
        texts = [override_text(key, value) for key, value in content.items()]
        own, space = words.in_order(words.read(texts, composer), composer)
        for word in (*own, *space.values()):
            check_arms_word(word, (*fixed, *swept.values()))
        space = {
            key: swept.get(key, word)
            for key, word in space.items()
            if not any(given.name == key for given in fixed)
        } | dict(swept)
        dimensions = tuple(dimension(word.override) for word in space.values())
        return Arm(name, tuple(word.text for word in own), dimensions)
    except ConfigError as error:
        raise ConfigError(f"{ARMS}.{name}: {error}") from error
    except Exception as error:  # Hydra's own, of its grammar
        raise ConfigError(f"{ARMS}.{name}: {explain(error)}") from error


def check_edits(arms: Sequence[Arm], contents: Mapping[str, Any]) -> None:
    """Check that `arms.NAME.KEY=VALUE` does not invent an arm by a mistyped name.

    Raises:
        ConfigError: all that an arm has is a search space from the command line.
    """
    edits = [edit.groups() for word in overrides.typed if (edit := ARM_EDIT.fullmatch(word))]
    for arm in arms:
        typed = {key for name, key, _ in edits if name == arm.name}
        if not arm.fixed and typed >= contents[arm.name].keys():
            others = [other.name for other in arms if other.name != arm.name]
            raise ConfigError(
                f"arms.{arm.name}: no such arm{nearest(arm.name, others)} (arms: {', '.join(others)}); a new "
                f"one needs what makes it different, for example arms.{arm.name}.optimizer=sgd"
            )


def check_arms_word(word: Word, given: Iterable[Word]) -> None:
    """Check that an arm leaves the seeds to the sweep, and that no other word says what the arm says.

    Raises:
        ConfigError: the arm has a seed; or a word of the command line changes what the arm fixes, or a part
            of what it searches.
    """
    if word.name == "seed":
        raise ConfigError(
            f"{word.text}: all arms have the same seeds; give them for the whole sweep, by seeds or seed"
        )
    for other in given:
        if word.overlaps(other) and not (word.is_sweep and other.replaces(word)):
            raise ConfigError(
                f"{other.text}: the arms decide this (here {word.text}); omit it, or change {ARMS}"
            )


def infer_arms(swept: Mapping[str, Word]) -> list[Arm]:
    """The arms of a plain grid: the optimizers, where those vary; else all is one arm without a name."""
    space = {key: dimension(word.override) for key, word in swept.items()}
    optimizer = space.pop("/optimizer", None)
    if optimizer is None:
        return [Arm("", (), tuple(space.values()))]
    names = dict.fromkeys(optimizer.choices)
    return [Arm(name, (f"optimizer={name}",), tuple(space.values())) for name in names]


def override_text(key: Any, value: Any) -> str:
    """An entry of a YAML mapping as an override."""
    return f"{key}={value if isinstance(value, str) else grammatical(value)}"
