"""The models. Each takes the shape of an input, and how many logits or numbers to return for each.

The shape is (C, H, W) of images, or (F,) of features.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from fairsweep.config import ConfigError

Shape = tuple[int, ...]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "none": nn.Identity,
}
# Max-pooling commutes with these: pooling first leaves them a quarter of the values, with the same result
# and gradient.
MONOTONE = ("relu", "tanh", "none")


class CNN(nn.Sequential):
    """Blocks of convolution, norm, activation and 2x2 max-pooling, then linear layers."""

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        widths: Sequence[int],
        kernel: int,
        padding: int,
        norm: str,
        activation: str,
        pool: str,
        dropout: float,
        hidden: Sequence[int],
    ) -> None:
        if not widths:
            raise ConfigError("model.widths=[]: a cnn needs at least one block")
        if len(shape) != 3:
            raise ConfigError(f"model: a cnn needs images, and these are {shape[0]} features; use model=mlp")
        channels, height, width = shape
        layers: list[nn.Module] = []
        for block, (fan_in, fan_out) in enumerate(pairwise([channels, *widths]), start=1):
            layers.append(nn.Conv2d(fan_in, fan_out, kernel, padding=padding, bias=norm == "none"))
            height, width = (side + 2 * padding - kernel + 1 for side in (height, width))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(fan_out))
            tail = [ACTIVATIONS[activation]()]
            if pool == "each" or block == len(widths):
                tail.insert(0 if activation in MONOTONE else 1, nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            layers += tail
            if min(height, width) < 1:
                raise ConfigError(
                    f"model.widths={list(widths)}: images of {shape[1]}x{shape[2]} are too small "
                    f"for block {block} (kernel {kernel}, padding {padding}); use fewer blocks"
                )
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        layers.append(nn.Flatten())
        super().__init__(*layers, *linear(widths[-1] * height * width, hidden, classes, activation))


class MLP(nn.Sequential):
    """Linear layers over the features or the flattened image, each with norm, activation and dropout."""

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        widths: Sequence[int],
        norm: str,
        activation: str,
        dropout: float,
    ) -> None:
        super().__init__(nn.Flatten(), *linear(math.prod(shape), widths, classes, activation, norm, dropout))


def linear(
    inputs: int,
    widths: Sequence[int],
    classes: int,
    activation: str,
    norm: str = "none",
    dropout: float = 0.0,
) -> list[nn.Module]:
    """Hidden layers of the given widths, then the linear layer that gives the logits."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([inputs, *widths]):
        layers.append(nn.Linear(fan_in, fan_out, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm1d(fan_out))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
    return [*layers, nn.Linear([inputs, *widths][-1], classes)]


class Predictor(nn.Module):
    """A trained model from inputs as they are stored: what `predict` uses and MLflow stores.

    Args:
        mean, std: per channel or feature, of inputs / unit.
        unit: 255 of pixel values; else 1.
        is_image: whether inputs are images, (N, C, H, W), or features, (N, F).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        unit: int = 255,
        is_image: bool = True,
    ) -> None:
        super().__init__()
        self.model, self.unit = model, unit
        axes = (1, -1, 1, 1) if is_image else (1, -1)
        self.register_buffer("mean", torch.tensor(mean).view(axes))
        self.register_buffer("std", torch.tensor(std).view(axes))

    def outputs(self, inputs: Tensor) -> Tensor:
        """What the model gives, float (N, classes or targets)."""
        scaled = inputs / self.unit if self.unit != 1 else inputs
        outputs: Tensor = self.model((scaled - self.mean) / self.std)
        return outputs


class Classifier(Predictor):
    """From pixel values, 0 to 255, or other inputs to probabilities."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Probabilities (N, classes) of inputs, float."""
        return self.outputs(inputs).softmax(1)


class Regressor(Predictor):
    """From inputs to numbers in the unit of the targets.

    Args:
        scale: mean and deviation of each target, by which the model was trained.
    """

    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        unit: int,
        is_image: bool,
        scale: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        super().__init__(model, mean, std, unit, is_image)
        self.register_buffer("target_mean", torch.tensor(scale[0]))
        self.register_buffer("target_std", torch.tensor(scale[1]))

    def forward(self, inputs: Tensor) -> Tensor:
        """Numbers (N, targets) of inputs, float."""
        return self.outputs(inputs) * self.target_std + self.target_mean
