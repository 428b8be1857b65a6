"""Figures of a run: which way is better, how they are written, and what they are called in MLflow."""

import math
from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """A figure that runs are judged by.

    Attributes:
        name: in the journal behind the split: `val_accuracy`.
        sign: 1 if higher is better, -1 if lower is.
        unit: "%" for a share, which is written in percent; else empty.
        low, high: the least and the largest value there can be.
    """

    name: str
    sign: int
    unit: str
    low: float
    high: float

    @property
    def worst(self) -> float:
        """What a diverged run counts as."""
        return -math.inf * self.sign

    def text(self, value: float) -> str:
        """`97.92%`, `0.0834`; `none` for NaN."""
        if math.isnan(value):
            return "none"
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f}"

    def spread(self, mean: float, deviation: float | None) -> str:
        """`97.92 ± 0.13%`: a mean and a standard deviation, if there is one."""
        if deviation is None:
            return self.text(mean)
        if self.unit == "%":
            return f"{100 * mean:.2f} ± {100 * deviation:.2f}%"
        return f"{mean:.4f} ± {deviation:.4f}"


ACCURACY = Metric("accuracy", 1, "%", 0.0, 1.0)
LOSS = Metric("loss", -1, "", -math.inf, math.inf)

# What can select weights, trials and arms, by its key.
OBJECTIVES = {f"val_{metric.name}": metric for metric in (ACCURACY, LOSS)}

# In MLflow and TensorBoard, which group charts by what precedes the slash. Journals have short keys, as do
# the MLflow runs of earlier versions.
TRACKED = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "epoch_train_loss": "train/epoch_loss",
    "epoch_train_accuracy": "train/epoch_accuracy",
    "lr": "train/lr",
    "val_loss": "val/loss",
    "val_accuracy": "val/accuracy",
    "epoch_test_loss": "test/epoch_loss",
    "epoch_test_accuracy": "test/epoch_accuracy",
    "test_loss": "test/loss",
    "test_accuracy": "test/accuracy",
    "epoch_seconds": "time/epoch_seconds",
    "images_per_second": "time/images_per_second",
    "training_seconds": "time/training_seconds",
}


def tracked(key: str) -> str:
    """The name under which MLflow and TensorBoard show a figure of the journal."""
    return TRACKED.get(key, key)


def figure(values: Mapping[str, float], key: str) -> float:
    """A figure of an MLflow run of this version or an earlier one; NaN if it has none."""
    return values.get(tracked(key), values.get(key, math.nan))
