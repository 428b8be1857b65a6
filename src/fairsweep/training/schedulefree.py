"""Schedule-free optimizers evaluate the average of the weights that they train (Defazio et al. 2024)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer


@runtime_checkable
class ScheduleFree(Protocol):
    """An optimizer that swaps the weights of its model for their averages, and back."""

    def eval(self) -> None: ...
    def train(self) -> None: ...


@contextmanager
def averaged(optimizer: Optimizer, model: nn.Module) -> Iterator[None]:
    """Inside, the model has the averages of a schedule-free optimizer; other optimizers have none.

    Afterwards it has the weights in training again, to the bit. The optimizer's own `train` computes them
    anew, with rounding errors: a run would depend on how often it was evaluated.
    """
    if not isinstance(optimizer, ScheduleFree):
        yield
        return
    weights = list(model.parameters())
    in_training = [weight.detach().clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for weight, value in zip(weights, in_training, strict=True):
                weight.copy_(value)


def caution(optimizer: Optimizer, model: nn.Module) -> str:
    """What the user should know of this optimizer with this model; often empty."""
    if isinstance(optimizer, ScheduleFree) and any(isinstance(one, _BatchNorm) for one in model.modules()):
        return (
            f"{type(optimizer).__name__} evaluates averaged weights, but batch normalisation keeps "
            "statistics of those in training; prefer a model without it"
        )
    return ""
