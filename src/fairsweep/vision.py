"""Models of torchvision with random weights, for images of any size and number of channels."""

from typing import Any

import torchvision  # type: ignore[import-untyped]
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer  # type: ignore[import-untyped]

from fairsweep.config import ConfigError, nearest
from fairsweep.models import Shape

# Below this side, a stem that halves the image twice leaves too little of it.
SMALL = 64


def classifier(shape: Shape, classes: int, *, architecture: str, **arguments: Any) -> nn.Module:
    """A classifier of torchvision by its name, such as `resnet18`.

    Images below 64 pixels get the stem that is usual for CIFAR: a 3x3 convolution that keeps their size, and
    no pooling after it (He et al. 2016, section 4.2).

    Args:
        shape: (C, H, W) of the images.
        arguments: of torchvision's function.

    Raises:
        ConfigError: torchvision has no classifier of this name.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"model: {architecture} needs images, and these are {shape[0]} features; use model=mlp"
        )
    names = torchvision.models.list_models(module=torchvision.models)
    if architecture not in names:
        raise ConfigError(
            f"model.architecture={architecture}: torchvision has no such classifier "
            f"(torchvision.models.list_models() lists them){nearest(architecture, names)}"
        )
    network: nn.Module = torchvision.models.get_model(
        architecture, weights=None, num_classes=classes, **arguments
    )
    adapt_stem(network, channels=shape[0], keeps_size=min(shape[1:]) < SMALL)
    return network


def vit(
    shape: Shape, classes: int, *, patch: int, depth: int, heads: int, width: int, dropout: float
) -> nn.Module:
    """A vision transformer; the tiny one has depth 12, 3 heads and width 192 (Touvron et al. 2021).

    Args:
        shape: (C, H, W) of the images, which must be square.
        patch: side of a patch, in pixels; must divide the images' side.

    Raises:
        ConfigError: the images cannot be cut into such patches.
    """
    channels, height, side = shape
    if height != side or side % patch:
        raise ConfigError(
            f"model.patch={patch}: images of {height}x{side} cannot be cut into squares of this side; use a "
            "divisor of both, which must be equal"
        )
    network: nn.Module = VisionTransformer(
        side, patch, depth, heads, width, 4 * width, dropout=dropout, num_classes=classes
    )
    adapt_stem(network, channels, keeps_size=False)
    return network


def adapt_stem(network: nn.Module, channels: int, keeps_size: bool) -> None:
    """Replace the first convolution, and the pooling after it, if they do not fit the images."""
    name, first = next((name, one) for name, one in network.named_modules() if isinstance(one, nn.Conv2d))
    shrinks = keeps_size and first.stride[0] > 1
    if channels == first.in_channels and not shrinks:
        return
    size: dict[str, Any] = {name: getattr(first, name) for name in ("kernel_size", "stride", "padding")}
    if shrinks:
        size = {"kernel_size": 3, "stride": 1, "padding": 1}
    stem = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **size)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    if stem.bias is not None:
        nn.init.zeros_(stem.bias)
    network.set_submodule(name, stem)
    if shrinks:
        pools = [name for name, one in network.named_modules() if isinstance(one, nn.MaxPool2d)]
        for pool in pools[:1]:
            network.set_submodule(pool, nn.Identity())
