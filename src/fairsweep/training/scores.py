"""Metrics of outputs and targets: scikit-learn's by name, and functions of the user's own."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from fairsweep.config import ConfigError, criteria_of, unknown
from fairsweep.metrics import KNOWN, Metric, metric_of
from fairsweep.training import build

Function = Callable[[Tensor, Tensor], Any]

# What an entry of `metrics` says besides its function's arguments.
ABOUT = ("_target_", "better", "unit")

# Those of ranked probabilities, which are undefined where a class has no example.
RANKED = ("roc_auc", "average_precision")


class Scores:
    """The figures of a run that are computed from all outputs of a split at once, on the CPU.

    Args:
        task: `classification` or `regression`.
        size: outputs of the model for each example: classes, or regression targets.
        defaults: the names of the task's metrics that nobody has to ask for.
        counted: the names of those that the task computes itself.

    Attributes:
        notes: which metrics are undefined, and why, once they were checked.

    Raises:
        ConfigError: a metric is of another task, or its function is not there or does not take its arguments.
    """

    def __init__(
        self, cfg: DictConfig, task: str, size: int, defaults: Iterable[str], counted: Iterable[str]
    ) -> None:
        self.criteria = criteria_of(cfg)
        self.task, self.size, self.notes = task, size, list[str]()
        own = self.criteria.own
        asked = {
            **{name: f"metrics.{name}" for name in own},
            self.criteria.tested.name: f"judge={self.criteria.judge}",
            self.criteria.metric.name: f"objective={self.criteria.objective}",
        }
        names = [name for name in dict.fromkeys([*defaults, *asked]) if name not in {*counted}]
        self.metrics: dict[str, Metric] = {name: metric_of(name, own) for name in names}
        self.functions = {
            name: self.function(metric, own.get(name) or {}, asked.get(name, name))
            for name, metric in self.metrics.items()
        }

    def function(self, metric: Metric, arguments: Mapping[str, Any], key: str) -> Function:
        """The function of a metric, with its arguments."""
        if metric.task not in ("", self.task):
            possible = [known.name for known in KNOWN.values() if known.task in ("", self.task)]
            raise ConfigError(
                f"{key}: {metric.name} is a metric of {metric.task}, but this is a {self.task} task; "
                f"choose {', '.join(possible)}, or one of your own"
            )
        if "_target_" in arguments:
            return own_function(metric.name, arguments)
        makers = {"classification": of_classes, "regression": of_numbers}
        return makers[self.task](metric.name, dict(arguments), self.size)

    def __call__(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The figures by name; NaN where one is undefined.

        Args:
            outputs: float32 (N, classes), logits, or (N, T). targets: int64 (N,), or float32 (N, T).
        """
        values = outputs.softmax(1) if self.task == "classification" else outputs
        if not values.isfinite().all():  # the run diverges: that is to be said, not scikit-learn's complaint
            return dict.fromkeys(self.functions, math.nan)
        return {name: self.value(name, outputs, targets) for name in self.functions}

    def value(self, name: str, outputs: Tensor, targets: Tensor) -> float:
        """One figure.

        Raises:
            ConfigError: the function gives no number, or a share that is none.
        """
        if self.undefined(name, targets) is not None:
            return math.nan
        # A copy, for no function to change what the next one sees.
        result = self.functions[name](outputs.clone(), targets.clone())
        try:
            value = float(result)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"metrics.{name}: must give a number, gives {result!r:.60}") from error
        low, high = self.metrics[name].low, self.metrics[name].high
        if name not in KNOWN and not math.isnan(value) and not low <= value <= high:
            raise ConfigError(f"metrics.{name}.unit=%: must give a share, from 0 to 1, gives {value:g}")
        return value

    def undefined(self, name: str, targets: Tensor) -> tuple[str, int] | None:
        """Why a metric has no value for these targets, and which output that is of; None if it has one."""
        arguments = self.criteria.own.get(name) or {}
        if name in RANKED and arguments.get("average") != "micro":
            counts = targets.bincount(minlength=self.size)
            if not counts.all():
                return f"there is no example among {len(targets)} of class", int(counts.argmin())
        if name == "r2" and "force_finite" not in arguments:  # scikit-learn would give 0
            same = (targets == targets[0]).all(0)
            if same.any():
                return f"all {len(targets)} values are the same of target", int(same.int().argmax())
        return None

    def check(self, split: str, targets: Tensor, names: Sequence[str] = ()) -> None:
        """Try each metric with random outputs for these targets, so that what does not fit is said at once.

        Args:
            split: `validation` or `test`. targets: on the CPU.
            names: of the outputs: the classes, or the regression targets.

        Raises:
            ConfigError: a function raises an error or gives no number, or the objective or the judge is
                undefined for these targets.
        """
        if not self.functions or not len(targets):
            return
        generator = torch.Generator().manual_seed(0)
        outputs = torch.randn(len(targets), self.size, generator=generator)
        given = self.criteria
        decides, key = {
            "validation": (given.metric, f"objective={given.objective}"),
            "test": (given.tested, f"judge={given.judge}"),
        }[split]
        for name, metric in self.metrics.items():
            try:
                value = self.value(name, outputs, targets)
            except ConfigError:
                raise
            except Exception as error:  # whatever scikit-learn or the user's function raises
                text = " ".join(str(error).split()) or type(error).__name__
                raise ConfigError(f"metrics.{name}: fails on the {split} data: {text}") from error
            why = f"it is {value} for random outputs"
            if (lack := self.undefined(name, targets)) is not None:
                why = f"{lack[0]} {repr(names[lack[1]]) if names else lack[1]}"
            if metric == decides and not math.isfinite(value):
                raise ConfigError(
                    f"{key}: is undefined in {split}: {why}; choose another metric, or a larger split"
                )
            if math.isnan(value):
                self.notes.append(f"{metric.words} is undefined in {split}: {why}")


def own_function(name: str, node: Mapping[str, Any]) -> Function:
    """The user's function of (outputs, targets), with the other entries as its arguments.

    Raises:
        ConfigError: there is none, or it does not take them.
    """
    target, key = str(node["_target_"]), f"metrics.{name}"
    function = build.located(f"{key}._target_", target)
    if not inspect.isfunction(function):
        raise ConfigError(f"{key}._target_={target}: must be a Python function of (outputs, targets)")
    arguments = {argument: value for argument, value in node.items() if argument not in ABOUT}
    parameters = inspect.signature(function).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        for argument in arguments.keys() - parameters.keys():
            raise ConfigError(
                unknown(f"{key}.{argument}", [*parameters][2:], f"{target} has no such argument")
            )
    try:
        inspect.signature(function).bind(None, None, **arguments)
    except TypeError as error:
        raise ConfigError(
            f"{key}._target_={target}: must take (outputs, targets) and {key}'s arguments: {error}"
        ) from error
    return lambda outputs, targets: function(outputs, targets, **arguments)


def of_classes(name: str, arguments: dict[str, Any], classes: int) -> Function:
    """scikit-learn's metric of classification, from logits.

    With two classes, F1, precision and recall are those of the second, as are ROC AUC and average precision;
    with more, means over the classes (`average: macro`), of one class against the rest.
    """
    from sklearn import metrics

    is_binary, every = classes == 2, list(range(classes))

    def predicted(function: Callable[..., Any], **defaults: Any) -> Function:
        return lambda outputs, targets: function(
            targets.numpy(), outputs.argmax(1).numpy(), **(defaults | arguments)
        )

    def ranked(function: Callable[..., Any], **defaults: Any) -> Function:
        def score(outputs: Tensor, targets: Tensor) -> Any:
            shares, labels = outputs.double().softmax(1), targets
            if is_binary:  # by logits, as shares of almost 1 are equal
                margins = (outputs[:, 1].double() - outputs[:, 0].double()).nan_to_num()
                return function(labels.numpy(), margins.numpy(), **arguments)
            if name == "average_precision":
                labels = torch.nn.functional.one_hot(targets, classes)
            return function(labels.numpy(), shares.numpy(), **(defaults | arguments))

        return score

    averaged = {"average": "binary" if is_binary else "macro", "zero_division": 0}
    makers: dict[str, Callable[[], Function]] = {
        "balanced_accuracy": lambda: quiet(predicted(metrics.balanced_accuracy_score)),
        "f1": lambda: predicted(metrics.f1_score, **averaged),
        "precision": lambda: predicted(metrics.precision_score, **averaged),
        "recall": lambda: predicted(metrics.recall_score, **averaged),
        "mcc": lambda: predicted(metrics.matthews_corrcoef),
        "roc_auc": lambda: ranked(metrics.roc_auc_score, average="macro", multi_class="ovr", labels=every),
        "average_precision": lambda: ranked(metrics.average_precision_score, average="macro"),
        "log_loss": lambda: (
            lambda outputs, targets: metrics.log_loss(
                targets.numpy(), outputs.double().softmax(1).numpy(), labels=every
            )
        ),
    }
    return makers[name]()


def of_numbers(name: str, arguments: dict[str, Any], _: int) -> Function:
    """scikit-learn's metric of regression; of several targets, the mean over these."""
    from sklearn import metrics

    functions: dict[str, Callable[..., Any]] = {
        "r2": quiet(metrics.r2_score),
        "mae": metrics.mean_absolute_error,
        "rmse": metrics.root_mean_squared_error,
        "mse": metrics.mean_squared_error,
    }
    return lambda outputs, targets: functions[name](
        targets.double().numpy(), outputs.double().numpy(), **arguments
    )


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its warnings: that of a single example, or of classes that are only predicted."""

    def called(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    return called
