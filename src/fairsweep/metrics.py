"""Metrics: which way is better, how values are written, what they are called in journals and in MLflow."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MINUS = "\N{MINUS SIGN}"


class Metric(NamedTuple):
    """A figure that runs are selected or judged by.

    Attributes:
        name: in the journal behind the split: `val_accuracy`.
        sign: 1 if higher is better, -1 if lower is.
        unit: "%" for a share, which is written in percent; else empty.
        low, high: the least and the largest value there can be.
        title: in a sentence, behind "test"; empty: the name.
        task: "classification" or "regression", if it makes sense for that alone.
        arguments: of scikit-learn's function, those that `metrics` may set.
    """

    name: str
    sign: int
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    title: str = ""
    task: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The metric in a sentence: `test F1`."""
        return self.title or self.name.replace("_", " ")

    @property
    def worst(self) -> float:
        """What a diverged run counts as."""
        return -math.inf * self.sign

    @property
    def best(self) -> float:
        """The best value there can be, as a score, of which higher are better."""
        return self.high if self.sign > 0 else -self.low

    @property
    def width(self) -> float:
        """The largest difference there can be."""
        return self.high - self.low

    @property
    def relevant(self) -> float | None:
        """The smallest difference that matters, by default: a thousandth; None without bounds."""
        return 0.001 if math.isfinite(self.width) else None

    def text(self, value: float) -> str:
        """`97.92%`, `0.0834`; `none` for NaN."""
        if math.isnan(value):
            return "none"
        return signed(f"{value:.2%}" if self.unit == "%" else in_digits(value, value))

    def spread(self, mean: float, deviation: float | None) -> str:
        """`97.92 ± 0.13%`: a mean and a standard deviation, if there is one."""
        if deviation is None:
            return self.text(mean)
        if self.unit == "%":
            return signed(f"{100 * mean:.2f} ± {100 * deviation:.2f}%")
        return signed(f"{in_digits(mean, mean)} ± {in_digits(deviation, mean)}")

    def difference(self, value: float, units: bool = True, like: float | None = None) -> str:
        """`5.04 points` (of percent), `0.0123`: a difference of two values.

        Args:
            like: one of the two, whose decimals it gets.
        """
        text = f"{100 * value:.2f}" if self.unit == "%" else in_digits(value, value if like is None else like)
        text = signed(text)
        return f"{text} points" if units and self.unit == "%" else text


def signed(text: str) -> str:
    """A number's text with a minus sign for a hyphen; an exponent keeps its own."""
    return MINUS + text[1:] if text.startswith("-") else text


def in_digits(value: float, like: float) -> str:
    """A number with four decimals; with fewer, to five digits, where `like` is large, and more where tiny."""
    size = abs(like)
    if not math.isfinite(size) or 0.0001 <= size < 10 or size == 0:
        return f"{value:.4f}"
    if size < 0.0001:
        return f"{value:.2g}"
    return f"{value:.{max(0, 4 - math.floor(math.log10(size)))}f}"


AVERAGED = ("average", "labels", "pos_label", "zero_division")
ACCURACY = Metric("accuracy", 1, "%", 0.0, 1.0, task="classification")
LOSS = Metric("loss", -1)
KNOWN = {
    metric.name: metric
    for metric in (
        ACCURACY,
        LOSS,
        Metric("balanced_accuracy", 1, "%", 0.0, 1.0, "", "classification", ("adjusted",)),
        Metric("f1", 1, "%", 0.0, 1.0, "F1", "classification", AVERAGED),
        Metric("precision", 1, "%", 0.0, 1.0, "", "classification", AVERAGED),
        Metric("recall", 1, "%", 0.0, 1.0, "", "classification", AVERAGED),
        Metric(
            "roc_auc", 1, "", 0.0, 1.0, "ROC AUC", "classification", ("average", "multi_class", "max_fpr")
        ),
        Metric("average_precision", 1, "", 0.0, 1.0, "", "classification", ("average",)),
        Metric("mcc", 1, "", -1.0, 1.0, "MCC", "classification"),
        Metric("log_loss", -1, "", 0.0, math.inf, "", "classification"),
        Metric("r2", 1, "", -math.inf, 1.0, "R²", "regression", ("multioutput", "force_finite")),
        Metric("mae", -1, "", 0.0, math.inf, "MAE", "regression", ("multioutput",)),
        Metric("rmse", -1, "", 0.0, math.inf, "RMSE", "regression", ("multioutput",)),
        Metric("mse", -1, "", 0.0, math.inf, "MSE", "regression", ("multioutput",)),
    )
}

# What scikit-learn's users may type.
ALIASES = {"matthews_corrcoef": "mcc"}

# What precedes a metric's name in a journal.
SPLIT = re.compile("(val|epoch_test|test)_")


def metric_of(key: str, own: Mapping[str, Any]) -> Metric:
    """The metric of a key such as `val_f1` or `test_f1`.

    Args:
        own: `metrics` of the configuration, which defines the user's own.

    Raises:
        KeyError: there is no such metric.
    """
    name = SPLIT.sub("", key, count=1)
    about = own.get(name) or {}
    if name in KNOWN:
        # Adjusted for chance, it is below 0 where it is worse than that.
        return KNOWN[name]._replace(low=-1.0) if about.get("adjusted") else KNOWN[name]
    if "_target_" not in about:
        raise KeyError(key)
    is_share = about.get("unit") == "%"
    bounds = (0.0, 1.0) if is_share else (-math.inf, math.inf)
    return Metric(name, -1 if about.get("better") == "lower" else 1, "%" if is_share else "", *bounds)


def is_known(key: str, own: Mapping[str, Any]) -> bool:
    """Whether there is such a metric: a later version's record may have others."""
    try:
        metric_of(key, own)
    except KeyError:
        return False
    return True


class Criteria(NamedTuple):
    """What selects weights, trials and arms, and what judges them.

    Attributes:
        objective: a figure of validation: `val_accuracy`.
        judge: a figure of test: `test_accuracy`.
        own: `metrics` of the configuration.
    """

    objective: str
    judge: str
    own: Mapping[str, Any]

    @property
    def metric(self) -> Metric:
        """What selects."""
        return metric_of(self.objective, self.own)

    @property
    def tested(self) -> Metric:
        """What judges."""
        return metric_of(self.judge, self.own)

    @property
    def is_known(self) -> bool:
        """Whether there are such metrics."""
        return is_known(self.objective, self.own) and is_known(self.judge, self.own)


def criteria(values: Mapping[str, Any]) -> Criteria:
    """The criteria of a run's configuration, or of a sweep's record.

    Without a judge, the objective's counterpart on test. Records from before judges lack the entry: accuracy
    judged then.
    """
    objective = str(values["objective"])
    judge = values.get("judge", "test_accuracy") or f"test_{SPLIT.sub('', objective)}"
    return Criteria(objective, str(judge), values.get("metrics") or {})


def ordered(names: Iterable[str], first: str) -> list[str]:
    """Names of metrics, each once, as tables have them: what judges first, the loss last."""
    middle = [name for name in dict.fromkeys(names) if name not in (first, LOSS.name)]
    return [*([] if first == LOSS.name else [first]), *middle, LOSS.name]


# In MLflow and TensorBoard, which group charts by what precedes the slash. Journals have short keys, as do
# the MLflow runs of earlier versions.
TRACKED = {
    "lr": "train/lr",
    "epoch_seconds": "time/epoch_seconds",
    "images_per_second": "time/images_per_second",
    "training_seconds": "time/training_seconds",
}
GROUPED = re.compile("(epoch_)?(train|val|test)_(.+)")


def tracked(key: str) -> str:
    """The name under which MLflow and TensorBoard show a figure of the journal: `val/f1`."""
    if match := GROUPED.fullmatch(key):
        return f"{match[2]}/{match[1] or ''}{match[3]}"
    return TRACKED.get(key, key)


def untracked(name: str) -> str:
    """The key in the journal of a figure that MLflow shows, of this version or an earlier one."""
    group, slash, rest = name.partition("/")
    if not slash or group not in ("train", "val", "test", "time"):
        return name
    is_mean = rest.startswith("epoch_") and group != "time"
    key = f"epoch_{group}_{rest.removeprefix('epoch_')}" if is_mean else f"{group}_{rest}"
    return next((known for known, shown in TRACKED.items() if shown == name), key)


def figure(values: Mapping[str, float], key: str) -> float:
    """A figure of an MLflow run of this version or an earlier one; NaN if it has none."""
    return values.get(tracked(key), values.get(key, math.nan))
