"""Arrays of anyone's own, checked and brought to the form of a `Source`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairsweep.config import ConfigError
from fairsweep.training import storage
from fairsweep.training.source import Source, Split, check_finite
from fairsweep.training.tables import Content, decide

# An axis of this length holds the channels of images.
CHANNELS = (1, 3, 4)


def source_of(
    train: Content, test: Content | None, task: str = "auto", classes: Sequence[str] | None = None
) -> Source:
    """A data set of arrays.

    Args:
        task: `classification`, `regression`, or `auto`: by the type of the targets.
        classes: names of the classes 0, 1, ...; None: the targets are the names.

    Raises:
        ConfigError: arrays of types, shapes or lengths that do not fit.
    """
    task = decide(task, train.targets)
    parts = [("training", train), *([("test", test)] if test is not None else [])]
    inputs = [as_inputs(name, part) for name, part in parts]
    notes: list[str] = []
    if task == "regression":
        targets = [as_numbers(name, part.targets) for name, part in parts]
        count = targets[0].shape[1]
        names = train.names or tuple(f"target_{index}" for index in range(count))
        names = ("target",) if count == 1 and not train.names else names
        if train.targets.dtype.kind == "f" and bool((targets[0] == targets[0].round()).all()):
            notes.append(
                "data: the targets are floats, but all whole numbers; they are learned as numbers: for "
                "classes, set data.task=classification"
            )
        classes = ()
    else:
        labels = [as_labels(name, part.targets) for name, part in parts]
        values = np.arange(len(classes)) if classes else np.unique(labels[0])
        targets = [numbered(name, label, values) for (name, _), label in zip(parts, labels, strict=True)]
        classes, names = tuple(classes or map(str, values)), ()
    splits = [Split(*pair) for pair in zip(inputs, targets, strict=True)]
    features = train.features
    if test is not None and test.features != features:
        raise ConfigError("data: the test table has other columns than the one for training")
    return Source(
        splits[0],
        splits[1] if test is not None else None,
        tuple(classes),
        target_names=names,
        feature_names=features,
        notes=tuple(notes),
    )


def as_inputs(name: str, part: Content) -> Tensor:
    """Images, uint8 or float32 (N, C, H, W), or features, float32 (N, F)."""
    array, targets = part.inputs, part.targets
    if len(array.shape) == 0 or len(targets.shape) == 0 or len(array) != len(targets):
        raise ConfigError(
            f"data: {name} has inputs of shape {array.shape} and targets of shape {targets.shape}; must have "
            "as many targets as inputs"
        )
    if not len(array) or 0 in array.shape:
        raise ConfigError(f"data: {name} inputs are empty, of shape {array.shape}")
    if array.dtype.kind not in "iubf":
        raise ConfigError(f"data: {name} inputs of type {array.dtype}; must be numbers")
    if array.ndim > 4:
        raise ConfigError(
            f"data: {name} inputs of shape {array.shape}; must be features (N, F), or images (N, H, W), "
            "(N, C, H, W) or (N, H, W, C)"
        )
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    kind = np.uint8 if array.dtype == np.uint8 and array.ndim == 4 else np.float32
    return torch.from_numpy(storage.copied(array, kind))


def as_numbers(name: str, targets: NDArray[Any]) -> Tensor:
    """Targets of regression, float32 (N, T)."""
    if targets.ndim > 2 or 0 in targets.shape or targets.dtype.kind not in "iubf":
        raise ConfigError(
            f"data: {name} targets of {targets.dtype} {targets.shape}; must be numbers, (N,) or (N, T)"
        )
    return torch.from_numpy(storage.copied(targets.reshape(len(targets), -1), np.float32))


def as_labels(name: str, targets: NDArray[Any]) -> NDArray[Any]:
    """Targets of classification, (N,): integers or texts."""
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise ConfigError(
            f"data: {name} targets of shape {targets.shape}; must be (N,), one class for each example"
        )
    if targets.dtype.kind == "f":
        check_finite(f"data: {name} targets", torch.from_numpy(targets.astype(np.float64)), ())
        if (odd := np.flatnonzero(targets != np.round(targets))).size:
            raise ConfigError(
                f"data.task=classification: {name} target {odd[0]} is {targets[odd[0]]:g}; classes must be "
                "whole numbers or texts"
            )
        targets = targets.astype(np.int64)
    return targets


def numbered(name: str, labels: NDArray[Any], values: NDArray[Any]) -> Tensor:
    """The indices of labels among the values that there are, int64 (N,)."""
    if values.dtype.kind != labels.dtype.kind and "U" in (values.dtype.kind, labels.dtype.kind):
        raise ConfigError(f"data: {name} targets of type {labels.dtype}; must be of type {values.dtype}")
    if (strange := np.flatnonzero(~np.isin(labels, values))).size:
        row = strange[0]
        known = ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
        raise ConfigError(
            f"data: {name} target {row} is {str(labels[row])!r}, no class of those for training ({known})"
        )
    return torch.from_numpy(np.searchsorted(values, labels).astype(np.int64))
