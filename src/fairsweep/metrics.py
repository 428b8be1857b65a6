"""The names of a run's figures in MLflow and TensorBoard, which group charts by what precedes the slash.

A run's own journal has short keys; MLflow runs of earlier versions have those, too.
"""

import math
from collections.abc import Mapping

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
