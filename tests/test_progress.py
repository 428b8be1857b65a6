"""What the terminal shows of a run in training."""

from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from fairsweep.metrics import ACCURACY, KNOWN
from fairsweep.runs.progress import Progress, epoch_line, interval

FIGURES = {
    "epoch": 100.0,
    "epoch_train_loss": 0.0218,
    "epoch_train_accuracy": 1.0,
    "val_loss": 2302.5851,
    "val_accuracy": 0.9722,
    "epoch_seconds": 12.4,
    "images_per_second": 12788.0,
}


@pytest.mark.parametrize("more", [{}, {"epoch_test_loss": 0.0815, "epoch_test_accuracy": 0.5}])
def test_the_line_of_an_epoch_fits_80_columns(more: dict[str, float]) -> None:
    line = epoch_line({**FIGURES, **more}, 100, ACCURACY, "images")
    assert len(line) <= 80
    assert line.startswith("epoch 100/100  train 0.0218 100.00%  val   2303  97.22%")


def test_the_objective_stands_beside_the_loss_by_its_name() -> None:
    line = epoch_line({**FIGURES, "val_f1": 0.9581}, 100, KNOWN["f1"], "images")
    assert line.startswith("epoch 100/100  train 0.0218 100.00%  val   2303 F1 95.81%  12.4 s")


def test_where_no_answers_are_counted_no_accuracy_is_shown() -> None:
    numbers = {key: value for key, value in FIGURES.items() if "accuracy" not in key}
    line = epoch_line({**numbers, "val_r2": 0.9}, 100, KNOWN["r2"], "rows")
    assert line.startswith("epoch 100/100  train 0.0218  val   2303 R² 0.9000  12.4 s")
    assert interval({"train_loss": 0.5}) == "loss 0.5000"


class Position:
    """As much of a lane as the bar reads."""

    steps_per_epoch, trainer = 10, SimpleNamespace(epochs=2)

    def __init__(self, step: int) -> None:
        self.step = step


@pytest.mark.parametrize(("step", "shown", "completed"), [(4, 1, 4), (10, 2, 0), (14, 2, 4), (20, 2, 10)])
def test_the_bar_shows_the_epoch_in_progress(step: int, shown: int, completed: int) -> None:
    lane: Any = Position(step)
    progress = Progress(Console(quiet=True))
    progress.show(lane, [{"train_loss": 0.5, "train_accuracy": 0.9}])
    (task,) = progress.bar.tasks
    assert (task.description, task.completed) == (f"epoch {shown}/2", completed)
