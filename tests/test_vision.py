"""torchvision's models for images of any size and number of channels."""

import pytest
import torch
from torch import nn

from fairsweep import vision
from fairsweep.config import ConfigError


def stem(network: nn.Module) -> nn.Conv2d:
    return next(one for one in network.modules() if isinstance(one, nn.Conv2d))


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "densenet121"])
def test_small_images_keep_their_size_in_the_stem_and_large_ones_get_torchvisions(architecture: str) -> None:
    small = vision.classifier((1, 32, 32), 7, architecture=architecture)
    assert (stem(small).in_channels, stem(small).stride) == (1, (1, 1))
    sizes: list[torch.Size] = []
    hook = stem(small).register_forward_hook(lambda _, __, output: sizes.append(output.shape[2:]))
    assert small.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert sizes == [(32, 32)]
    hook.remove()
    large = vision.classifier((3, 96, 96), 7, architecture=architecture)
    assert stem(large).stride == (2, 2)
    assert large.eval()(torch.zeros(2, 3, 96, 96)).shape == (2, 7)


def test_resnets_do_not_pool_small_images_after_the_stem() -> None:
    def pools(side: int) -> int:
        network = vision.classifier((3, side, side), 10, architecture="resnet18")
        return sum(isinstance(one, nn.MaxPool2d) for one in network.modules())

    assert (pools(32), pools(64)) == (0, 1)


def test_a_vision_transformer_takes_square_images_that_its_patches_fill() -> None:
    tiny = vision.vit((1, 28, 28), 10, patch=4, depth=2, heads=3, width=48, dropout=0.0)
    assert tiny.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    for shape, patch in (((1, 28, 28), 5), ((1, 28, 32), 4)):
        with pytest.raises(ConfigError, match=rf"model.patch={patch}: images of 28x\d+ cannot be cut"):
            vision.vit(shape, 10, patch=patch, depth=2, heads=3, width=48, dropout=0.0)


def test_a_misspelt_architecture_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"model.architecture=resnet19: .*did you mean 'resnet18'\?"):
        vision.classifier((3, 32, 32), 10, architecture="resnet19")
