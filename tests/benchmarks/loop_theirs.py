"""The loops that ours is compared with, for speed.py, which runs this in a process of its own each time.

    python tests/benchmarks/loop_theirs.py SIDE CASE IMAGES DATA EPOCHS THREADS

SIDE is `tutorial`: a DataLoader over PIL images, `.item()` each step; or `tensors` (case mlp): a plain loop
over normalised float tensors in memory. Prints JSON: seconds per epoch, seconds to read the data before it,
steps, mean training loss of the last epoch. Not timed: reading, building the model, a warm-up of 20 steps.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import compose, overrides
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

WARM_UP = 20
Step = Callable[[Tensor, Tensor], Tensor]

# Each as its tutorial writes it: plain NCHW, ReLU before pooling; what comes out is what its loss takes.
MODELS: dict[str, Callable[[], list[nn.Module]]] = {
    "two_conv": lambda: [
        *(nn.Conv2d(1, 24, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(24, 48, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1200, 200), nn.ReLU(), nn.Linear(200, 10), nn.LogSoftmax(1)),
    ],
    "lenet_no_relu": lambda: [
        *(nn.Conv2d(1, 16, 5, padding=2), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(576, 64), nn.Linear(64, 10)),
    ],
    "bn_convnet": lambda: [
        *(nn.Conv2d(3, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1568, 10), nn.LogSoftmax(1)),
    ],
    "dropout_convnet": lambda: [
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Dropout2d(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10)),
        nn.LogSoftmax(1),
    ],
    "fc_net": lambda: [
        *(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU()),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10), nn.Softmax(1)),
    ],
    "mlp": lambda: [
        *(nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU()),
        *(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU()),
        *(nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)),
    ],
}
LOSSES: dict[str, Step] = {
    "lenet_no_relu": F.cross_entropy,
    "fc_net": lambda output, labels: F.mse_loss(output, F.one_hot(labels, 10).float()),
    "mlp": F.cross_entropy,
}


def optimizer_of(case: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if case in ("two_conv", "fc_net", "mlp") else torch.optim.SGD
    return kind(model.parameters(), lr=lr)


def loader_of(case: str, images: int, data: str, batch_size: int) -> Iterable[Any]:
    """What a tutorial iterates over: PIL images, transformed one by one, each epoch anew."""
    from torchvision import datasets, transforms

    normalise = [transforms.Normalize(0.5, 0.5)] if case == "two_conv" else []
    transform = transforms.Compose([transforms.ToTensor(), *normalise])
    if case == "bn_convnet":
        dataset = datasets.ImageFolder(str(Path(data) / "training"), transform)
    else:
        dataset = datasets.MNIST(data, transform=transform)
        dataset.data, dataset.targets = dataset.data[:images], dataset.targets[:images]
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0)


class Tensors:
    """The same images, normalised beforehand, in memory: batches are indexed."""

    def __init__(self, images: int, data: str, batch_size: int) -> None:
        from torchvision import datasets

        dataset = datasets.MNIST(data)
        pixels = dataset.data[:images].flatten(1).float() / 255
        self.pixels, self.labels = (pixels - pixels.mean()) / pixels.std(), dataset.targets[:images]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(len(self.labels)).split(self.batch_size):
            yield self.pixels[index], self.labels[index]


def baseline(side: str, case: str, images: int, data: str, epochs: int) -> dict[str, Any]:
    cfg = compose(*overrides(case, images, data))
    started = time.perf_counter()
    kind = Tensors if side == "tensors" else lambda *rest: loader_of(case, *rest)
    batches = kind(images, data, int(cfg.trainer.batch_size))
    reading = time.perf_counter() - started
    loss_of = LOSSES.get(case, F.nll_loss)

    def train(batches: Iterable[Any], model: nn.Module) -> tuple[int, float]:
        optimizer, steps = optimizer_of(case, model, cfg.optimizer.lr), 0
        total: float | Tensor = 0.0
        for pixels, labels in batches:
            optimizer.zero_grad()
            loss = loss_of(model(pixels), labels)
            loss.backward()
            optimizer.step()
            steps += 1
            total += loss.item() if side == "tutorial" else loss.detach()
        return steps, float(total) / steps

    train(islice(batches, WARM_UP), nn.Sequential(*MODELS[case]()))
    model = nn.Sequential(*MODELS[case]())
    started = time.perf_counter()
    for _ in range(epochs):
        steps, loss = train(batches, model)
    seconds = (time.perf_counter() - started) / epochs
    return {"seconds": seconds, "reading": reading, "steps": steps, "loss": loss, "precision": "fp32"}


if __name__ == "__main__":
    side, case, images, data, epochs, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps(baseline(side, case, int(images), data, int(epochs))))
