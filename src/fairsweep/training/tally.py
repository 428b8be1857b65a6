"""What a lane has seen: losses since the last line of its journal, sums of its epoch, its best weights."""

from typing import Any

import torch
from torch import Tensor, nn

Line = dict[str, float]


class Tally:
    """Losses and correct answers of the steps since the last line, and of the epoch so far.

    Nothing is waited for until `collected` is set: losses stay on the device.

    Args:
        counts_correct: whether accuracy is told; else nothing is ever counted as correct.
    """

    def __init__(self, device: torch.device, counts_correct: bool = True) -> None:
        self.device, self.counts_correct = device, counts_correct
        self.losses: list[Tensor] = []  # of the steps since the last line, in pieces
        self.sizes: list[int] = []  # of each batch since the last line
        self.correct = torch.zeros((), dtype=torch.int64, device=device)  # since the last line
        self.collected = torch.zeros(0)  # losses since the last line, and `correct`, on the host
        self.epoch_loss, self.epoch_correct, self.epoch_images = 0.0, 0, 0  # sums of this epoch
        self.epoch_seconds = 0.0

    def pending(self) -> Tensor:
        """What `collected` will hold, on the device."""
        return torch.cat([*self.losses, self.correct.view(1)]).double()

    def close_interval(self) -> tuple[Line, int | None]:
        """Means over the steps since the last line, from what was collected.

        Gives also which of these steps, from 0, was the first with a loss that is not finite.
        """
        losses, correct = self.collected[:-1], int(self.collected[-1])
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        images = sum(self.sizes)
        loss = float((losses * sizes).sum()) / images
        is_finite = losses.isfinite()
        first = None if bool(is_finite.all()) else int((~is_finite).nonzero()[0])
        self.epoch_loss += loss * images
        self.epoch_correct += correct
        self.epoch_images += images
        self.losses, self.sizes = [], []
        self.correct.zero_()
        accuracy = {"train_accuracy": correct / images} if self.counts_correct else {}
        return {"train_loss": loss, **accuracy}, first

    def close_epoch(self) -> Line:
        """Means over the epoch, and its speed."""
        line = {
            "epoch_train_loss": self.epoch_loss / self.epoch_images,
            **(
                {"epoch_train_accuracy": self.epoch_correct / self.epoch_images}
                if self.counts_correct
                else {}
            ),
            "images_per_second": self.epoch_images / self.epoch_seconds,
            "epoch_seconds": self.epoch_seconds,
        }
        self.epoch_loss, self.epoch_correct, self.epoch_images = 0.0, 0, 0
        self.epoch_seconds = 0.0
        return line

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": torch.cat(self.losses).cpu() if self.losses else torch.zeros(0),
            "correct": self.correct.cpu(),
            **{name: getattr(self, name) for name in SUMS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = [state["losses"].to(self.device)] if len(state["losses"]) else []
        self.correct.copy_(state["correct"])
        for name in SUMS:
            setattr(self, name, state[name])


SUMS = ("sizes", "epoch_loss", "epoch_correct", "epoch_images", "epoch_seconds")


class Selection:
    """The best epoch so far, by the objective.

    Args:
        sign: 1 if a higher objective is better, -1 if a lower one is.
    """

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.objective: float | None = None  # of the last validation
        self.best: dict[str, Any] | None = None  # objective, epoch, step and weights of the best epoch
        self.epochs_without_gain = 0

    def see(self, objective: float, model: nn.Module, epoch: int, step: int) -> None:
        """Keep the weights if their objective is the best so far."""
        self.objective = objective
        if self.best is None or self.sign * objective > self.sign * self.best["objective"]:
            weights = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
            self.best = {"objective": objective, "epoch": epoch, "step": step, "model": weights}
            self.epochs_without_gain = 0
        else:
            self.epochs_without_gain += 1

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("objective", "epochs_without_gain", "best")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])
