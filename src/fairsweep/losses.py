"""Losses that torch does not have."""

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
