"""Losses that torch lacks, and a check of how a loss averages over a batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MSEOneHot(nn.Module):
    """Mean squared error of the softmax of the logits against the one-hot label."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over batch and classes; logits (N, classes) float, labels (N,) int64."""
        probabilities = logits.float().softmax(1)
        target = F.one_hot(labels, probabilities.shape[1]).to(torch.float32)
        return F.mse_loss(probabilities, target)


@torch.no_grad()
def is_mean_of_images(loss: nn.Module, classes: int, device: torch.device) -> bool:
    """Whether a batch's loss is the mean of its images' losses, which it is not with class weights.

    Raises:
        ValueError: it is not a mean: it grows with the batch, or is not one number.
    """
    logits = torch.arange(2 * classes, device=device).sin().view(2, classes)
    labels = torch.tensor([0, classes - 1], device=device)
    check_mean(loss(logits, labels), loss(logits.repeat(2, 1), labels.repeat(2)))
    for label in range(classes):
        labels[1] = label
        singles = torch.stack([loss(logits[:1], labels[:1]), loss(logits[1:], labels[1:])])
        if not torch.isclose(loss(logits, labels), singles.mean(), rtol=1e-5):
            return False
    return True


@torch.no_grad()
def is_mean_of_numbers(loss: nn.Module, count: int, device: torch.device) -> bool:
    """Whether a batch's loss is the mean of its examples' losses, where targets are `count` numbers.

    Raises:
        ValueError: it is not a mean, or not least where outputs equal targets, as that of logits and classes.
    """
    targets = torch.arange(2.0 * count, device=device).add(1).sin().view(2, count)
    outputs = targets.flip(0) + 0.5
    once, exact = loss(outputs, targets), loss(targets, targets)
    check_mean(once, loss(outputs.repeat(2, 1), targets.repeat(2, 1)))
    others = [outputs, targets + 1, targets - 1, targets / 2, targets * 2]
    if not all(exact < loss(other, targets) for other in others):
        raise ValueError(
            "is not minimal where outputs equal targets, but the targets are continuous; use loss=auto (mean "
            "squared error) or another regression loss, or data.task=classification if they are classes"
        )
    singles = torch.stack([loss(outputs[:1], targets[:1]), loss(outputs[1:], targets[1:])])
    return bool(torch.isclose(once, singles.mean(), rtol=1e-5))


def check_mean(once: Tensor, twice: Tensor) -> None:
    """
    Raises:
        ValueError: the loss of a batch is no number, or grows with the batch.
    """
    if once.shape != ():
        raise ValueError(f"must return one number for a batch, but returns the shape {tuple(once.shape)}")
    if not torch.isclose(once, twice, rtol=1e-3, equal_nan=True):
        raise ValueError(
            f"must be a mean over the batch, but is {once:.4g} for a batch and {twice:.4g} for the batch "
            "repeated twice"
        )
