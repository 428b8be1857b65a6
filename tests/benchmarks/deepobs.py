"""The model of DeepOBS's problem `fmnist_2c2d`, as a user's own model: `model._target_=deepobs.Net2c2d`."""

from torch import Tensor, nn


class Net2c2d(nn.Sequential):
    """Two convolutions and two dense layers, with the initial weights of the original.

    Weights are normal, cut at two standard deviations of 0.05; biases are 0.05. Max-pooling comes before
    ReLU, which gives the same in less time.

    See Schneider, Balles and Hennig 2019, and `deepobs/tensorflow/testproblems/_2c2d.py` in their repository.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(
            *(nn.Conv2d(1, 32, 5, padding="same"), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
            *(nn.Conv2d(32, 64, 5, padding="same"), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
            *(nn.Flatten(), nn.Linear(64 * 7 * 7, 1024), nn.ReLU(inplace=True)),
            nn.Linear(1024, classes),
        )
        for module in self:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.05, a=-0.1, b=0.1)
                assert isinstance(module.bias, Tensor)
                nn.init.constant_(module.bias, 0.05)
