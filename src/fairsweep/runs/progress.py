"""A run on the terminal: a live bar, a line per epoch, a summary."""

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fairsweep.config import ConfigError, without_credentials
from fairsweep.metrics import ACCURACY, LOSS, Metric, metric_of, ordered
from fairsweep.runs import checkpoint, tracking
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import Status
from fairsweep.wording import counted, printable

if TYPE_CHECKING:
    from fairsweep.training.lane import Lane
    from fairsweep.training.tally import Line


class Progress:
    """Shows lanes in training; a context, entered while they train.

    Args:
        quiet: only notes are shown; for one run of a sweep, which is shown as a whole.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.tasks: dict[Lane, TaskID] = {}
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        """Print a notice at once."""
        print_line(self.console, text, "yellow")

    def show(self, lane: "Lane", lines: "list[Line]") -> None:
        """Advance a lane's bar to the epoch in progress, and print a line for each finished epoch."""
        if self.quiet:
            return
        epochs: int = lane.trainer.epochs
        if lane not in self.tasks:
            self.tasks[lane] = self.bar.add_task("", total=lane.steps_per_epoch, figures="")
        for line in lines:
            if "train_loss" in line:
                epoch, step = divmod(lane.step, lane.steps_per_epoch)
                if epoch == epochs:  # the last one stays at 100%
                    epoch, step = epochs - 1, lane.steps_per_epoch
                self.bar.update(
                    self.tasks[lane],
                    completed=step,
                    description=f"epoch {epoch + 1}/{epochs}",
                    figures=interval(line),
                )
            if "epoch_seconds" in line:
                print_line(self.console, epoch_line(line, epochs, lane.metric, lane.task.data.noun))


def interval(line: "Line") -> str:
    """Loss and accuracy of the steps since the last line, where answers are counted."""
    text = f"loss {line['train_loss']:.4f}"
    return f"{text}  accuracy {line['train_accuracy']:.2%}" if "train_accuracy" in line else text


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line without markup, credentials or terminal control codes."""
    text = printable(without_credentials(text))
    console.print(text, highlight=False, markup=False, style=style, soft_wrap=True)


def print_rows(console: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print labelled texts. A table would wrap the commands in them, which users copy."""
    for name, text in rows:
        print_line(console, f"{name:<10} {text}")


def epoch_line(line: "Line", epochs: int, metric: Metric, examples: str) -> str:
    """One epoch's losses, aligned with the epoch before, and beside each the objective.

    The accuracy needs no name. It is also what stands beside the loss where that is the objective.

    Args:
        examples: what the inputs are: images, rows.
    """
    parts = [f"epoch {line['epoch']:>{len(str(epochs))}.0f}/{epochs}"]
    for name, split in (("train", "epoch_train"), ("val", "val"), ("test", "epoch_test")):
        if f"{split}_loss" not in line:
            continue
        loss = line[f"{split}_loss"]
        parts.append(f"{name} {f'{loss:.4f}' if abs(loss) < 10 else f'{loss:.4g}':>6}")
        if metric not in (ACCURACY, LOSS) and f"{split}_{metric.name}" in line:
            parts[-1] += f" {metric.words} {metric.text(line[f'{split}_{metric.name}'])}"
        elif f"{split}_accuracy" in line:
            parts[-1] += f" {line[f'{split}_accuracy']:7.2%}"
    if len(parts) < 4:  # three splits leave no room
        parts += [f"{line['epoch_seconds']:.1f} s", f"{line['images_per_second']:,.0f} {examples}/s"]
    return "  ".join(parts)


def tested(status: Status) -> str:
    """A run's test figures: `accuracy 97.92%, loss 0.0834`, what judges it first."""
    texts = []
    for name in ordered(status.test, status.tested.name):
        if name in status.test:
            metric = metric_of(name, status.metrics)
            texts.append(f"{metric.words} {metric.text(status.test[name])}")
    return ", ".join(texts)


def weights_file(folder: RunFolder) -> str:
    """Where the tested weights are, or why there are none."""
    try:
        return str(checkpoint.tested_file(folder))
    except ConfigError as error:
        return f"none: {str(error).removeprefix(f'{folder.path}: ')}"


def summary(console: Console, folder: RunFolder, status: Status, reused: bool, cfg: DictConfig) -> None:
    """Print how a run ended, its results, and where its files are."""
    rows: list[tuple[str, str]] = []
    ending = status.name + (" before; reused" if reused else "")
    rows.append(("status", ending + (f": {status.reason}" if status.reason else "")))
    if status.objective is not None:
        rows.append(
            (
                "objective",
                f"{status.objective_key} {status.objective:.4f} (epoch {status.best_epoch})",
            )
        )
    if status.test:
        rows.append(("test", tested(status)))
    epochs = counted(status.epoch, "epoch")
    rows.append(("trained", f"{epochs}, {status.seconds:.1f} s, on {status.device}"))
    rows.append(("files", str(folder.path)))
    if status.name == "finished":
        rows.append(("weights", weights_file(folder)))
    if cfg.tracking.uri is not None:
        rows += tracking.summary(cfg, folder)
    console.print()
    print_rows(console, rows)
