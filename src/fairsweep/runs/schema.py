"""What the files of a record hold, checked as they are read: what is damaged is named, and never trusted."""

import json
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from fairsweep.config import (
    BOOLEAN,
    RULES,
    TEXT,
    ConfigError,
    Rule,
    integer,
    leaves,
    list_of,
    number,
    one_of,
    or_null,
)  # fmt: skip
from fairsweep.metrics import criteria
from fairsweep.wording import printable

# Names that become paths.
RUN, SWEEP = re.compile("[a-z][0-9a-f]{15}"), re.compile("s[0-9a-f]{11}")

NUMBER, COUNT, ANY_TEXT = number("a number"), integer(0), Rule("a text", lambda value: isinstance(value, str))
MAPPING = Rule("a mapping", lambda value: isinstance(value, dict))
SCALES = Rule(
    "a mapping of numbers, 1 or more",
    lambda value: isinstance(value, dict) and all(map(integer(1).holds, value.values())),
)
TEXTS = list_of(ANY_TEXT)
SIGNATURE = Rule("a run's signature", lambda value: isinstance(value, str) and bool(RUN.fullmatch(value)))

FACTS: Mapping[str, Rule] = {
    "name": TEXT,
    "shape": list_of(integer(1), [1, 3]),
    "classes": list_of(ANY_TEXT),
    "mean": list_of(NUMBER),
    "std": list_of(NUMBER),
    "full_scales": or_null(SCALES),  # records from before lack it
    "fingerprint": ANY_TEXT,
}

# How the content of images lies in them; data that are not of pixels have none.
OF_IMAGES: Mapping[str, Rule] = {"background": TEXT, "extent": NUMBER, "centre": MAPPING}
# How the targets of regression were scaled.
OF_NUMBERS: Mapping[str, Rule] = {
    "targets": TEXTS,
    "target_mean": list_of(NUMBER),
    "target_std": list_of(NUMBER),
}

# A line of a run's journal.
LINE: Mapping[str, Rule] = {"step": COUNT, "epoch": NUMBER, "time": NUMBER}

# The keys of a run's configuration that are read from its record.
USED = (
    "seed", "objective", "record.keep", "data._target_", "data.name", "model._target_", "model.name",
    "optimizer._target_", "optimizer.lr", "trainer.test_weights", "tracking.experiment", "tracking.log_model",
)  # fmt: skip

PINNED: Mapping[str, Rule] = {"path": TEXT, "hash": TEXT}

DEFINITION: Mapping[str, Rule] = {
    "id": TEXT,
    "name": ANY_TEXT,
    "command": ANY_TEXT,
    "overrides": TEXTS,
    "objective": RULES["objective"],
    "named_arms": BOOLEAN,
    "arms": Rule(
        "arms, each with `fixed`, `space` and `default`",
        lambda arms: (
            isinstance(arms, dict)
            and all(
                isinstance(arm, dict)
                and TEXTS.holds(arm.get("fixed"))
                and all(MAPPING.holds(arm.get(key)) for key in ("space", "default"))
                for arm in arms.values()
            )
        ),
    ),
    "directory": TEXT,
    "started": NUMBER,
    "resumed": NUMBER,
    "ended": or_null(NUMBER),
    "status": one_of("running", "finished", "failed", "interrupted"),
    "counts": Rule("numbers of runs", lambda v: isinstance(v, dict) and all(map(COUNT.holds, v.values()))),
    "weights": or_null(MAPPING),  # older sweeps have none
    "reused": COUNT,
    "best_objective": or_null(NUMBER),
    **dict.fromkeys(("data", "model"), or_null(TEXTS)),  # older sweeps have none
    **dict.fromkeys(("seeds", "confirm_seeds"), list_of(COUNT)),
}

# What older sweeps have not.
JUDGING: Mapping[str, Rule] = {
    "judge": RULES["judge"],
    "metrics": Rule(
        "a mapping of mappings", lambda v: isinstance(v, dict) and all(map(MAPPING.holds, v.values()))
    ),
}

ROW: Mapping[str, Rule] = {
    "signature": SIGNATURE,
    **dict.fromkeys(("name", "arm"), ANY_TEXT),
    "phase": one_of("search", "confirm"),
    **dict.fromkeys(("trial", "seed"), COUNT),
    "values": MAPPING,
}

MEMBERSHIP: Mapping[str, Rule] = {"directory": TEXT, "members": list_of(MAPPING)}


def facts_rules(facts: Mapping[str, Any]) -> dict[str, Rule]:
    """What the facts of a run's data must have, by what they are."""
    of_images = OF_IMAGES if "dtype" not in facts else {}
    return {**FACTS, **of_images, **(OF_NUMBERS if "targets" in facts else {})}


class Damaged(ConfigError):
    """A file of a record cannot be used; the text names the file and says why."""


@cache
def warn(text: str) -> None:
    """Tell the user, once in a process."""
    print(printable(text), file=sys.stderr)


def read_json(path: Path, rules: Mapping[str, Rule] = MappingProxyType({})) -> dict[str, Any]:
    """A file that holds one JSON object with these entries.

    Raises:
        Damaged: it cannot be read, or holds something else.
        FileNotFoundError: there is no such file.
    """
    return parsed(path, content_of(path), rules)


def content_of(path: Path) -> bytes:
    """The content of a file.

    Raises:
        Damaged: it cannot be read.
        FileNotFoundError: there is no such file.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(f"{path}: cannot be read: {error.strerror}") from error


def parsed(path: Path, text: bytes, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """A JSON object with these entries, in a file.

    Raises:
        Damaged: it is something else.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: is damaged: not JSON") from error
    check(path, content, rules)
    assert isinstance(content, dict)
    return content


def check(path: Path, content: object, rules: Mapping[str, Rule]) -> None:
    """
    Raises:
        Damaged: the content of this file is not an object with these entries.
    """
    if not isinstance(content, dict):
        raise Damaged(f"{path}: is damaged: not a mapping")
    for key, rule in rules.items():
        if not rule.holds(content.get(key)):
            raise Damaged(f"{path}: is damaged: {key} must be {rule.allowed}")


def read_sweep(directory: Path) -> dict[str, Any]:
    """The `sweep.json` of a sweep's folder.

    Raises:
        Damaged: it cannot be read, or lacks something.
        FileNotFoundError: there is no such file.
    """
    path = directory / "sweep.json"
    content = read_json(path, DEFINITION)
    check(path, content, {key: rule for key, rule in JUDGING.items() if key in content})
    if not (given := criteria(content)).is_known:
        raise Damaged(f"{path}: is damaged: {given.objective} or {given.judge} is of no metric")
    for pinned in (content.get("weights") or {}).values():
        check(path, pinned, PINNED)
    known = content["id"] == directory.name and re.fullmatch(r"\w+", directory.name)
    if not (known or SWEEP.fullmatch(content["id"])):  # the id becomes a file's name
        raise Damaged(f"{path}: is damaged: id must be a sweep's id")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """A run's `config.yaml`, as plain values.

    Raises:
        Damaged: it cannot be read, or lacks something.
        FileNotFoundError: there is no such file.
    """
    try:
        values = yaml.load(content_of(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Damaged(f"{path}: is damaged: not YAML") from error
    check(path, values, {})
    flat = leaves(values)
    check(path, flat, {key: RULES[key] for key in USED})
    if "???" in map(str, flat.values()):
        raise Damaged(f"{path}: is damaged: a value is ???")
    assert isinstance(values, dict)
    return values
