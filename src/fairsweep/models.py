"""The models. Each takes the shape (C, H, W) of the images and the number of classes, and returns logits."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from fairsweep.config import ConfigError

Shape = tuple[int, int, int]

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
    """Linear layers over the flattened image, each with norm, activation and dropout."""

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
        inputs = shape[0] * shape[1] * shape[2]
        super().__init__(nn.Flatten(), *linear(inputs, widths, classes, activation, norm, dropout))


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


class Classifier(nn.Module):
    """A trained model from pixel values to probabilities: what `predict` uses and MLflow stores."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities (N, classes) of images (N, C, H, W), float, pixel values from 0 to 255."""
        logits: Tensor = self.model((pixels / 255 - self.mean) / self.std)
        return logits.softmax(1)
