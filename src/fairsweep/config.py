"""What a run's configuration may say, checked without torch, and the signature that names the run."""

import copy
import difflib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairsweep.metrics import ALIASES, KNOWN, SPLIT, Criteria, criteria
from fairsweep.wording import printable

ROOT = Path(__file__).resolve().parents[2]


def sqlite_uri(path: str) -> str:
    """The URI of a database file, in which these characters mean something else."""
    return "sqlite:///" + path.replace("%", "%25").replace("?", "%3F")


OmegaConf.register_new_resolver("project", lambda path: str(ROOT / path), replace=True)
OmegaConf.register_new_resolver("sqlite", sqlite_uri, replace=True)


class ConfigError(ValueError):
    """A mistake by the user, reported in one line: the key, the value, what is allowed."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))  # names of files are in it


class Rule(NamedTuple):
    allowed: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(allowed: str, holds: Callable[[float], bool] = math.isfinite) -> Rule:
    return Rule(allowed, lambda value: is_number(value) and holds(value))


def integer(least: int, most: int = 2**63 - 1) -> Rule:
    """A whole number; by default at most what torch takes as a seed."""
    span = f"{least} or more" if most == 2**63 - 1 else f"{least} to {most}"
    return Rule(f"a whole number, {span}", lambda value: is_integer(value) and least <= value <= most)


def one_of(*names: str) -> Rule:
    return Rule(" | ".join(names), lambda value: isinstance(value, str) and value in names)


def or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.allowed}, or null", lambda value: value is None or rule.holds(value))


def list_of(item: Rule, lengths: Iterable[int] | None = None) -> Rule:
    sizes = None if lengths is None else tuple(lengths)
    count = "" if sizes is None else f"{' or '.join(map(str, sizes))} "
    return Rule(
        f"a list of {count}values, each {item.allowed}",
        lambda value: (
            isinstance(value, list) and (sizes is None or len(value) in sizes) and all(map(item.holds, value))
        ),
    )


def either(first: Rule, second: Rule) -> Rule:
    return Rule(f"{first.allowed}, or {second.allowed}", lambda v: first.holds(v) or second.holds(v))


ABOVE_ZERO = number("a number above 0", lambda value: value > 0)
NOT_NEGATIVE = number("a number, 0 or more", lambda value: value >= 0)
BELOW_ONE = number("a number from 0 up to, but not including, 1", lambda value: 0 <= value < 1)
BOOLEAN = Rule("true | false", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str) and value != "")
FILE_NAME = Rule(
    "a name without slashes and control characters",
    lambda value: TEXT.holds(value) and not re.search(r"[/\\]", value) and printable(value) == value,
)
MODEL_NAME = Rule("a name without / and :", lambda v: TEXT.holds(v) and not re.search("[/:]", v))
FOLDER = Rule("a folder, or a new path in one", lambda value: TEXT.holds(value) and can_be_folder(value))
PIXEL_STATISTIC = number("a number")
SIZE = Rule(
    "a share of the images below 1 (0.1) or a whole number of them (5000); 0 for none",
    lambda v: is_number(v) and v >= 0 and (v < 1 or is_integer(v)),
)
CHANNEL_WIDTHS = list_of(integer(1))
DEVICE = Rule(
    "auto | cuda | cuda:N | mps | cpu",
    lambda v: isinstance(v, str) and re.fullmatch(r"auto|cuda(:\d+)?|mps|cpu", v) is not None,
)


def can_be_folder(path: str) -> bool:
    """Whether a path is a folder, or may become one, as no file is in its way."""
    paths = (Path(path).absolute(), *Path(path).absolute().parents)
    return next(filter(os.path.exists, paths)).is_dir()  # Path.exists raises where a folder is closed


TARGET = Rule(
    "the dotted name of a class or function: package.module.Name",
    lambda v: isinstance(v, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", v) is not None,
)
# The groups whose `_target_` makes a part of a run.
TARGET_GROUPS = ("data", "model", "loss", "optimizer", "scheduler")
# A record that comes from elsewhere may name no others.
FAMILIAR = {
    "data": ("fairsweep.data",),
    "model": ("fairsweep.models", "fairsweep.vision"),
    "loss": ("torch.nn", "fairsweep.losses"),
    "optimizer": ("torch.optim", "fairsweep.optimizers"),
    "scheduler": ("torch.optim.lr_scheduler",),
}


def metric_key(split: str) -> Rule:
    """The key of a metric; whether there is such a metric, `check_metrics` decides."""
    known = " | ".join(f"{split}_{name}" for name in KNOWN)
    return Rule(
        f"{known}, or {split}_ and a metric of your own",
        lambda v: isinstance(v, str) and re.fullmatch(rf"{split}_\w+", v) is not None,
    )


RULES: Mapping[str, Rule] = {
    "seed": integer(0),
    "objective": metric_key("val"),
    "judge": or_null(metric_key("test")),
    "rerun": BOOLEAN,
    "reuse": one_of("same", "any"),
    "record.dir": FOLDER,
    "record.pictures": one_of("auto", "all", "none"),
    "record.keep": one_of("auto", "weights", "all", "none"),
    "data._target_": TARGET,
    "data.name": FILE_NAME,
    "data.root": TEXT,
    "data.dataset": one_of("MNIST", "FashionMNIST", "KMNIST"),
    "data.split": one_of("byclass", "bymerge", "balanced", "letters", "digits", "mnist"),
    "data.channels": Rule("1 (grey) or 3 (RGB)", lambda value: is_integer(value) and value in (1, 3)),
    "data.size": integer(1),
    "data.val_size": SIZE,
    "data.test_size": SIZE,
    "data.val_seed": integer(0),
    "data.limit": or_null(integer(1)),
    "data.mean": or_null(either(PIXEL_STATISTIC, list_of(PIXEL_STATISTIC))),
    "data.std": or_null(either(ABOVE_ZERO, list_of(ABOVE_ZERO))),
    "data.file": TEXT,
    "data.targets_file": or_null(TEXT),
    "data.test_file": or_null(TEXT),
    "data.test_targets_file": or_null(TEXT),
    "data.inputs": or_null(either(TEXT, list_of(TEXT))),
    "data.target": or_null(either(TEXT, list_of(TEXT))),
    "data.task": one_of("auto", "classification", "regression"),
    "data.standardize": BOOLEAN,
    "data.augment.shift": integer(0),
    "data.augment.rotate": NOT_NEGATIVE,
    "data.augment.flip": BOOLEAN,
    "data.augment.crop": integer(0),
    "data.augment.cutout": integer(0),
    "model._target_": TARGET,
    "model.name": TEXT,
    "model.widths": CHANNEL_WIDTHS,
    "model.hidden": CHANNEL_WIDTHS,
    "model.kernel": integer(1),
    "model.padding": integer(0),
    "model.norm": one_of("none", "batch"),
    "model.activation": one_of("none", "relu", "tanh", "gelu"),
    "model.pool": one_of("each", "last"),
    "model.dropout": BELOW_ONE,
    "loss._target_": TARGET,
    "loss.label_smoothing": or_null(BELOW_ONE),
    "loss.reduction": one_of("mean"),
    "optimizer._target_": TARGET,
    "optimizer.lr": ABOVE_ZERO,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.nesterov": BOOLEAN,
    "optimizer.betas": list_of(BELOW_ONE, [2, 3]),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.alpha": BELOW_ONE,
    "optimizer.lr_decay": NOT_NEGATIVE,
    "optimizer.decay_norms_and_biases": BOOLEAN,
    "scheduler._target_": TARGET,
    "scheduler.warmup": NOT_NEGATIVE,
    "scheduler.factor": ABOVE_ZERO,
    "scheduler.total_iters": NOT_NEGATIVE,
    "scheduler.step_size": ABOVE_ZERO,
    "scheduler.gamma": ABOVE_ZERO,
    "scheduler.T_max": or_null(ABOVE_ZERO),
    "scheduler.eta_min": NOT_NEGATIVE,
    "scheduler.max_lr": ABOVE_ZERO,
    "scheduler.total_steps": or_null(ABOVE_ZERO),
    "scheduler.pct_start": BELOW_ONE,
    "scheduler.div_factor": ABOVE_ZERO,
    "scheduler.final_div_factor": ABOVE_ZERO,
    "scheduler.cycle_momentum": BOOLEAN,
    "trainer.epochs": integer(1),
    "trainer.batch_size": integer(1),
    "trainer.device": DEVICE,
    "trainer.precision": one_of("fp32", "bf16", "auto"),
    "trainer.threads": or_null(integer(1, 1024)),
    "trainer.deterministic": BOOLEAN,
    "trainer.cuda_graphs": BOOLEAN,
    "trainer.data_on": one_of("auto", "device", "host", "disk"),
    "trainer.clip_norm": or_null(ABOVE_ZERO),
    "trainer.patience": or_null(integer(1)),
    "trainer.max_seconds": or_null(ABOVE_ZERO),
    "trainer.log_every": integer(1),
    "trainer.weights": or_null(TEXT),
    "trainer.stop_epoch": or_null(integer(1)),
    "trainer.test_weights": one_of("best", "last"),
    "trainer.test_each_epoch": BOOLEAN,
    "tracking.uri": or_null(TEXT),
    "tracking.experiment": TEXT,
    "tracking.log_model": one_of("auto", "all", "none"),
    "tracking.register": or_null(MODEL_NAME),
    "tracking.tensorboard": BOOLEAN,
}

# Their further arguments are their class's own: they are checked against it when it is built.
OPEN_GROUPS = ("model", "loss", "optimizer", "scheduler")

# What a model's arguments may refer to, as in `num_classes: ${classes}`: known once the data are read.
OF_DATA = ("shape", "channels", "features", "classes")

# Our own data sets, whose keys are all known; one that a user adds may have others.
SOURCES = tuple(
    f"fairsweep.data.{name}"
    for name in ("digits", "mnist", "image_folder", "cifar10", "cifar100", "svhn", "emnist", "arrays")
)

# What is done to the data after they were read.
CUTS = ("name", "val_size", "val_seed", "test_size", "limit", "mean", "std", "standardize", "augment")

# Keys of a group that are not arguments of its target.
COMMON = (*CUTS, "task", "decay_norms_and_biases")

# What no run can do without; the other keys belong to one choice of their group or another.
REQUIRED = (
    *(key for key in RULES if key.split(".")[0] not in ("data", *OPEN_GROUPS)),
    *(key for key in RULES if key.endswith("._target_")),
    *(f"data.{name}" for name in ("name", "val_size", "val_seed", "test_size", "limit", "mean", "std")),
    *("data.augment.shift", "data.augment.rotate", "model.name", "optimizer.lr", "scheduler.warmup"),
)

# Keys whose value, if it is this one, changes nothing: then they are not part of the signature either.
NEUTRAL = {
    "optimizer.decay_norms_and_biases": True,
    "data.augment.flip": False,
    "data.augment.crop": 0,
    "data.augment.cutout": 0,
}

DATA_FILES = tuple(f"data.{name}" for name in ("file", "targets_file", "test_file", "test_targets_file"))

# Keys that cannot affect a run's result are not part of its signature.
NOT_IN_SIGNATURE = (
    "rerun",
    "reuse",
    "record",
    "tracking",
    "data.root",  # what lies there is, below
    *DATA_FILES,
    "trainer.device",
    "trainer.threads",
    "trainer.cuda_graphs",
    "trainer.data_on",
    "trainer.log_every",
    "trainer.stop_epoch",
    "trainer.weights",  # their content is, below
)


SCHEME = r"(?<![\w+.-])\w[\w+.-]*://"
# A parameter of a URL, and a variable of the environment, that by their names hold a secret.
SECRET_PARAMETER = (
    r"([?&;][\w.-]*(?:pass|pwd|token|secret|credential|api_?key|access_?key|signature|sig|auth)[\w.-]*=)"
    r"(?!\*\*\*[;:,.')]?\Z)[^&]*"  # what is hidden already may stand in a sentence or in quotes
)
SECRET_VARIABLE = r"\b([A-Z][A-Z0-9_]*(?:PASSWORD|TOKEN|SECRET|KEY)[A-Z0-9_]*=)[^\s'\",]+"


def without_credentials(text: str, uri: str = "") -> str:
    """The text without the user, the password and the secret parameters of any URL in it.

    A URL ends at white space; if the text starts with it, at the end of the text. The standard library cannot
    parse URLs with an unquoted password, so whatever may belong to one is removed, up to the last `@`.

    Args:
        uri: what failed with this text, which may quote any part of its password.
    """
    rest = ".*" if re.match(rf"['\"]?{SCHEME}", text) else r"\S*"
    text = re.sub(rf"(?s)({SCHEME})({rest})", lambda url: url[1] + public_part(url[2]), text)
    text = re.sub(SECRET_VARIABLE, r"\1***", text)
    for secret in secrets(uri):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


def public_part(url: str) -> str:
    """A URL, less its scheme, without what only its owner may know."""
    authority = re.split("[/?#]", url, maxsplit=1)[0]
    if url.startswith("<user>:<password>@"):  # of an error that shows how a URL looks
        return url
    if "@" in url and ("@" in authority or ":" in authority):
        url = url.rpartition("@")[2]
    return re.sub(f"(?i){SECRET_PARAMETER}", r"\1***", url)


def secrets(uri: str) -> set[str]:
    """The password of a URI and its secret parameters, as a whole and in the parts that a parser may see."""
    _, _, url = uri.partition("://")
    user, at, _ = url.rpartition("@") if public_part(url) != url else ("", "", "")
    whole = [user.partition(":")[2]] if at else []
    whole += [found[0].partition("=")[2] for found in re.finditer(f"(?i){SECRET_PARAMETER}", url)]
    parts = [part for text in whole for part in re.split("[:/?#@]", text)]
    return {text for known in (*whole, *parts) for text in (known, unquote(known)) if text}


def redacted(value: Any) -> Any:
    """A nested value with each of its texts, which may be overrides, without credentials."""
    if isinstance(value, Mapping):
        return {key: redacted(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(child) for child in value]
    if not isinstance(value, str):
        return value
    key, equals, rest = value.partition("=")
    is_override = equals and re.fullmatch(r"[\w.+~/@-]+", key)
    return f"{key}={without_credentials(rest)}" if is_override else without_credentials(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint `; did you mean 'x'?`, or nothing where no known name is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(key: str, known: Iterable[str], what: str = "unknown key") -> str:
    """The line for a key whose last name is none of the known ones."""
    names = sorted(known)
    if not names:
        return f"{key}: {what}; {key.rpartition('.')[0]} has no keys of its own"
    return f"{key}: {what}{nearest(key.rsplit('.')[-1], names)} (allowed: {', '.join(names)})"


def no_rule(key: str) -> str:
    """The line for a key that RULES does not know."""
    above = ""
    for name in key.split("."):
        rules = (*RULES, "metrics")
        known = {rule.removeprefix(above).split(".")[0] for rule in rules if rule.startswith(above)}
        if name not in known:
            return unknown(above + name, known)
        above += f"{name}."
    return f"{key}: must have keys of its own: {', '.join(sorted(r for r in RULES if r.startswith(above)))}"


def targets(node: Any) -> Iterator[Any]:
    """The `_target_` of every mapping in a nested value."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from targets(child)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a nested mapping by its dotted key; a list is a value, as is an empty mapping inside."""
    if not isinstance(node, dict) or (prefix and not node):
        return {prefix: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in leaves(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, every interpolation resolved.

    Raises:
        ConfigError: a value is missing (`???`) or an interpolation cannot be resolved.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error
    assert isinstance(values, dict)
    for name in OF_DATA:
        if (value := values.pop(name, f"${{{name}}}")) != f"${{{name}}}":
            raise ConfigError(f"{name}={json.dumps(value)}: cannot be set, it is the data's; omit it")
    return {str(key): value for key, value in values.items()}


def check_values(cfg: DictConfig, own: Mapping[str, Rule], typed: Mapping[str, str] | None = None) -> None:
    """Check the values of a command other than `train`.

    Args:
        own: rules of its own keys; other keys mean what they mean in a run's configuration.
        typed: what users type for a key, where that differs.

    Raises:
        ConfigError: the first that is missing or not allowed.
    """
    for key, value in leaves(resolved(cfg)).items():
        rule = own.get(key) or RULES.get(key)
        if rule is not None and not rule.holds(value):
            raise ConfigError(f"{(typed or {}).get(key, key)}={json.dumps(value)}: must be {rule.allowed}")


def check(cfg: DictConfig) -> dict[str, Any]:
    """Check every value of a run's configuration, without torch; returns them resolved.

    Raises:
        ConfigError: the first key that is unknown, or whose value is not allowed.
    """
    nested = resolved(cfg)
    values = leaves({key: value for key, value in nested.items() if key != "metrics"})
    open_groups = (*OPEN_GROUPS, *(() if values.get("data._target_") in SOURCES else ("data",)))
    for key, value in values.items():
        group, _, name = key.partition(".")
        above = key.rpartition(".")[0]
        if has_rule(key, nested):
            check_value(key, value)
        elif group not in open_groups or not name or name.startswith("_"):
            raise ConfigError(no_rule(key))
        elif has_rule(above, nested):
            raise ConfigError(f"{above}: must be {RULES[above].allowed}, has the key {name}")
    for group in open_groups:
        arguments = [value for name, value in nested.get(group, {}).items() if name != "_target_"]
        for found in targets(arguments):
            raise ConfigError(f"{group}: has an inner _target_={json.dumps(found)}: must have none inside")
    for key in REQUIRED:
        if key not in values:
            raise ConfigError(f"{key}: is missing: must be {RULES[key].allowed}")
    check_metrics(nested)
    if values.get("optimizer.nesterov") and not values.get("optimizer.momentum"):
        raise ConfigError("optimizer.nesterov=true: needs optimizer.momentum above 0")
    epochs = values["trainer.epochs"]
    if (stop := values["trainer.stop_epoch"]) is not None and stop > epochs:
        raise ConfigError(f"trainer.stop_epoch={stop}: must be at most trainer.epochs={epochs}")
    if values["scheduler.warmup"] >= epochs:
        raise ConfigError(
            f"scheduler.warmup={values['scheduler.warmup']}: must be below trainer.epochs={epochs}"
        )
    cycle, rest = values.get("scheduler.total_steps"), epochs - values["scheduler.warmup"]
    if cycle is not None and cycle < rest:
        raise ConfigError(
            f"scheduler.total_steps={cycle}: must be at least trainer.epochs - scheduler.warmup = {rest}, "
            "or null"
        )
    if values["data.val_size"] == 0 and values["trainer.patience"] is not None:
        raise ConfigError(
            f"trainer.patience={values['trainer.patience']}: early stopping needs validation; "
            "set data.val_size above 0"
        )
    return nested


def has_rule(key: str, values: Mapping[str, Any]) -> bool:
    """Whether a rule applies to a key of a resolved configuration.

    Those of a target's arguments apply to our targets and torch's: others may mean something else by a name.
    """
    group, _, name = key.partition(".")
    is_argument = group in TARGET_GROUPS and key not in REQUIRED and name.partition(".")[0] not in COMMON
    return key in RULES and not (is_argument and not is_familiar(group, values))


def is_familiar(group: str, values: Mapping[str, Any]) -> bool:
    """Whether a group's target is one of ours or torch's."""
    return str(values.get(group, {}).get("_target_")).rpartition(".")[0] in FAMILIAR[group]


def named_targets(values: Mapping[Any, Any]) -> dict[str, str]:
    """What a run's configuration names to be called, by key: of its groups, and the user's own metrics."""
    nodes = {group: values[group] for group in TARGET_GROUPS}
    nodes |= {f"metrics.{name}": node for name, node in (values.get("metrics") or {}).items()}
    return {f"{key}._target_": str(node["_target_"]) for key, node in nodes.items() if "_target_" in node}


def check_familiar(values: Mapping[str, Any], chosen: Iterable[str] = ()) -> None:
    """Check that a record from elsewhere names only our own and torch's classes: nobody has vouched for it.

    Args:
        chosen: keys that the user sets, or the groups that they are in.

    Raises:
        ConfigError: it names another.
    """
    for key, name in named_targets(values).items():
        group = key.partition(".")[0]
        modules, plus = FAMILIAR.get(group, ()), "" if group in FAMILIAR else "+"
        if name.rpartition(".")[0] not in modules and not {key, group} & {*chosen}:
            must = f"must be a class of {' or '.join(modules)}" if modules else "must not be named"
            raise ConfigError(
                f"{key}={name}: {must} in a record from elsewhere; if it is yours, add {plus}{key}={name}"
            )


def check_value(key: str, value: Any) -> None:
    """Check one value by its rule.

    Raises:
        ConfigError: it is not allowed.
    """
    if not RULES[key].holds(value):
        raise ConfigError(f"{key}={json.dumps(value)}: must be {RULES[key].allowed}")


def check_metrics(values: Mapping[str, Any]) -> None:
    """Check `metrics`, and that there are the metrics which `objective` and `judge` name.

    Raises:
        ConfigError: there is no such metric, or it has no such argument.
    """
    own = values.get("metrics")
    if not isinstance(own, dict):
        raise ConfigError(
            f"metrics={json.dumps(own)}: must be a mapping of metrics to their arguments, or {{}}"
        )
    for name, arguments in own.items():
        check_metric(str(name), arguments)
    names = [*KNOWN, *(str(name) for name in own if name not in KNOWN)]
    for key, split in (("objective", "val"), ("judge", "test")):
        value = values.get(key)
        allowed = [f"{split}_{name}" for name in names]
        if value not in allowed and not (key == "judge" and value is None):
            name = str(value).removeprefix(f"{split}_")
            hint = nearest(f"{split}_{ALIASES.get(name, name)}", allowed)
            raise ConfigError(
                f"{key}={json.dumps(value)}: there is no such metric{hint} "
                f"(allowed: {', '.join(allowed)}; your own: see metrics in conf/train.yaml)"
            )


def criteria_of(cfg: DictConfig) -> Criteria:
    """What selects and what judges runs of a configuration."""
    return criteria(judging(cfg))


def judging(cfg: DictConfig) -> dict[str, Any]:
    """What a configuration says of metrics, resolved; it may lack other values."""
    given = {key: cfg[key] for key in ("objective", "judge", "metrics") if key in cfg}
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in given.items()
    }


def check_metric(name: str, arguments: Any) -> None:
    """Check one entry of `metrics`."""
    key = f"metrics.{name}"
    if not isinstance(arguments, dict):
        raise ConfigError(f"{key}={json.dumps(arguments)}: must be a mapping of arguments, or {{}}")
    if "_target_" not in arguments:
        if name not in KNOWN:
            hint = nearest(ALIASES.get(name, name), KNOWN)
            raise ConfigError(
                f"{key}: there is no such metric{hint} (allowed: {', '.join(KNOWN)}; your own: with _target_)"
            )
        for argument in arguments.keys() - set(KNOWN[name].arguments):
            raise ConfigError(
                unknown(f"{key}.{argument}", KNOWN[name].arguments, "no argument of this metric")
            )
        return
    if name in KNOWN or SPLIT.match(name) or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"{key}: must have another name: small letters, digits and _, not beginning with val_ or test_, "
            f"and none of {', '.join(KNOWN)}"
        )
    for argument, rule in OWN_METRIC.items():
        if argument in arguments and not rule.holds(arguments[argument]):
            value = json.dumps(arguments[argument])
            raise ConfigError(f"{key}.{argument}={value}: must be {rule.allowed}")


# What an own metric says of itself; the rest are its function's arguments.
OWN_METRIC: Mapping[str, Rule] = {
    "_target_": Rule(
        "the dotted name of a function",
        lambda v: isinstance(v, str) and re.fullmatch(r"\w+(\.\w+)+", v) is not None,
    ),
    "better": one_of("higher", "lower"),
    "unit": one_of("", "%"),
}


def check_common(cfg: DictConfig) -> None:
    """Check what holds for all runs of a sweep, in the configuration that they have in common.

    Raises:
        ConfigError: the first key whose value is not allowed.
    """
    for key in RULES:
        if key.split(".")[0] not in ("data", *OPEN_GROUPS):
            try:
                value = OmegaConf.select(cfg, key, throw_on_missing=True)
            except OmegaConfBaseException as error:
                raise unresolved(error) from error
            is_node = OmegaConf.is_config(value)
            check_value(key, OmegaConf.to_container(value) if is_node else value)
    check_metrics(judging(cfg))


def unresolved(error: OmegaConfBaseException) -> ConfigError:
    """The line for a value that is missing, an interpolation of nothing, or what a resolver complains of."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}; give it a value")


def literal(values: Mapping[str, Any]) -> DictConfig:
    """A configuration of exactly these values: `${` in a text stays text."""
    cfg: DictConfig = OmegaConf.create(escaped(values))
    return cfg


def escaped(node: Any) -> Any:
    """A nested value in whose texts OmegaConf finds no interpolation."""
    if isinstance(node, Mapping):
        return {key: escaped(value) for key, value in node.items()}
    if isinstance(node, list):
        return [escaped(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def file_hash(path: str) -> str:
    """The SHA-256 of a file, which is read again when its size or time has changed."""
    stat = Path(path).stat()
    return hash_of_version(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def hash_of_version(path: str, _size: int, _time: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def signature(values: dict[str, Any], content: str) -> str:
    """The name of a run: 16 hex digits of the hash of all that can change its result, a letter first.

    Args:
        values: the resolved configuration; `trainer.weights` is a path, which counts by the file's content.
        content: the hash of the data's content, which counts instead of its path.
    """
    values = copy.deepcopy(values)
    weights = values["trainer"]["weights"]
    for key in NOT_IN_SIGNATURE:
        *parents, name = key.split(".")
        node = values
        for parent in parents:
            node = node[parent]
        node.pop(name, None)
    if weights is not None:
        values["trainer"]["weights"] = file_hash(weights)
    values["data"]["content"] = content
    for key in ("metrics", "judge"):  # as runs from before these keys have none
        if not values.get(key):
            values.pop(key, None)
    # 1 and 1.0 are the same learning rate.
    flat = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in leaves(values).items()
        if key not in NEUTRAL or value != NEUTRAL[key]
    }
    digest = hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()
    # On a command line, a name like 12e5 would be read as a number.
    return "abcdef"[int(digest[0], 16) % 6] + digest[1:16]
