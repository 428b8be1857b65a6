"""A data set as it was read, and what it must be."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairsweep.config import ConfigError
from fairsweep.training import storage


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples; N may be 0.

    inputs: images, uint8 or float32 (N, C, H, W), or features, float32 (N, F).
    targets: classes, int64 (N,), or numbers, float32 (N, T).
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.inputs.to(device), self.targets.to(device))

    def on_disk(self) -> "Split":
        """The same, with inputs in a mapped file."""
        return Split(torch.from_numpy(storage.on_disk(self.inputs.numpy())), self.targets)

    def pick(self, indices: Tensor) -> "Split":
        """These examples, in the order that they have here."""
        indices = indices.sort().values
        inputs = storage.picked(self.inputs.numpy(), indices.numpy())
        return Split(torch.from_numpy(inputs), self.targets[indices])


class Source(NamedTuple):
    """A data set as it was read; `test` is None if there is no official one.

    classes: their names; none in regression.
    full_scales: of images deeper than 8 bits, the value that became 255, by their kind (see `images.Stored`).
    target_names: in regression, one for each number; else none.
    feature_names: of a table's columns.
    notes: what the user should know.
    """

    train: Split
    test: Split | None
    classes: tuple[str, ...]
    full_scales: Mapping[str, int] = MappingProxyType({})
    target_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """`classification` or `regression`."""
        return "regression" if self.target_names else "classification"

    def check(self) -> None:
        """
        Raises:
            ConfigError: a user's function did not return splits of one form, or values are not finite.
        """
        form = self.train.inputs
        for split in (self.train, self.test):
            if split is None:
                continue
            self.check_inputs(split.inputs)
            if split.inputs.shape[1:] != form.shape[1:] or split.inputs.dtype != form.dtype:
                raise ConfigError(
                    f"data: test inputs of {described(split.inputs)}; must be as those for training, "
                    f"of {described(form)}"
                )
            self.check_targets(split)
            where = "training" if split is self.train else "test"
            check_finite(f"data: {where} inputs", split.inputs, self.feature_names)
            check_finite(f"data: {where} targets", split.targets, self.target_names)
        if not self.target_names and len(self.classes) < 2:
            names = ", ".join(self.classes)
            raise ConfigError(f"data: has {len(self.classes)} class ({names}); must have two or more")

    def check_inputs(self, inputs: Tensor) -> None:
        """Check the type and the shape of inputs."""
        is_tensor = isinstance(inputs, Tensor)
        forms = {torch.uint8: (4,), torch.float32: (2, 4)}
        if not is_tensor or inputs.ndim not in forms.get(inputs.dtype, ()) or 0 in inputs.shape:
            raise ConfigError(
                f"data: inputs of {described(inputs)}; must be one or more torch.uint8, 0 to 255, or "
                "torch.float32 (N, C, H, W), or torch.float32 (N, F)"
            )

    def check_targets(self, split: Split) -> None:
        """Check the type, the shape and the range of a split's targets."""
        targets, count = split.targets, len(split.inputs)
        kind, shape = torch.int64, torch.Size([count])
        if self.target_names:
            kind, shape = torch.float32, torch.Size([count, len(self.target_names)])
        if not isinstance(targets, Tensor) or targets.dtype != kind or targets.shape != shape:
            raise ConfigError(f"data: targets of {described(targets)}; must be {kind} {tuple(shape)}")
        if self.target_names:
            return
        low, high, last = int(targets.min()), int(targets.max()), len(self.classes) - 1
        if not 0 <= low <= high <= last:
            raise ConfigError(f"data: labels from {low} to {high}; must be 0 to {last}, one for each class")

    def hash(self) -> str:
        """32 hex digits that depend on every input, target and name."""
        named = self.classes
        if self.target_names or self.feature_names:
            named = (*self.classes, "|", *self.target_names, "|", *self.feature_names)
        digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=16)
        for split in (self.train, self.test):
            for tensor in (split.inputs, split.targets) if split is not None else ():
                digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                for piece in torch.split(tensor, storage.PIECE):
                    digest.update(piece.numpy().tobytes())
        return digest.hexdigest()


def check_finite(what: str, values: Tensor, names: Sequence[str]) -> None:
    """
    Args:
        names: of the columns, if they have names.

    Raises:
        ConfigError: values are NaN or infinite.
    """
    if not values.is_floating_point():
        return
    count, first = 0, None
    for number, piece in enumerate(torch.split(values, storage.PIECE)):
        if len(places := (~piece.isfinite()).nonzero()):
            count += len(places)
            first = first or [number * storage.PIECE + int(places[0][0]), *places[0][1:].tolist()]
    if first is None:
        return
    row, *rest = first
    column = f", column {names[rest[0]]!r}" if names else f", at {rest}" if rest else ""
    raise ConfigError(
        f"{what}: {count:,} of {values.numel():,} values are NaN or infinite, the first in row "
        f"{row}{column} (counted from 0); remove those rows, or fill them in"
    )


def described(array: Any) -> str:
    """The type and shape of a tensor, or of any other value."""
    return f"{getattr(array, 'dtype', type(array).__name__)} {tuple(getattr(array, 'shape', ()))}"
