"""Models as users write them, for own_parts.py: `model._target_=own_model.TwoConv`."""

import torchvision
from torch import Tensor, nn


class TwoConv(nn.Module):
    """The layers of `model=two_conv`."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(shape[0], 24, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
            *(nn.Conv2d(24, 48, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
        )
        self.head = nn.Sequential(
            *(nn.Flatten(), nn.Linear(1200, 200), nn.ReLU(inplace=True), nn.Linear(200, classes)),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def resnet18(classes: int) -> nn.Module:
    """ResNet-18 for CIFAR, written by hand: a 3x3 stem, no pooling after it."""
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network
