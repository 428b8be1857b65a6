"""What is seen of a run: a live bar on a terminal, a line per epoch, and a summary."""

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from fairsweep import tracking
from fairsweep.config import without_credentials
from fairsweep.wording import counted, printable

if TYPE_CHECKING:
    from fairsweep.experiment import Outcome
    from fairsweep.training import Lane, Line


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
            TextColumn("{task.percentage:>3.0f} %"),
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
        """A line that is to be read now."""
        print_line(self.console, text, "yellow")

    def show(self, lane: "Lane", lines: "list[Line]") -> None:
        """Move a lane's bar, and print a line for each epoch that ended."""
        if self.quiet:
            return
        epochs: int = lane.trainer.epochs
        if lane not in self.tasks:
            self.tasks[lane] = self.bar.add_task("", total=lane.steps_per_epoch, figures="")
        for line in lines:
            if "train_loss" in line:
                done = (lane.step - 1) % lane.steps_per_epoch + 1
                self.bar.update(
                    self.tasks[lane],
                    completed=done,
                    description=f"epoch {(lane.step - 1) // lane.steps_per_epoch + 1}/{epochs}",
                    figures=f"loss {line['train_loss']:.4f}  accuracy {line['train_accuracy']:.2%}",
                )
            if "epoch_seconds" in line:
                print_line(self.console, epoch_line(line, epochs))


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a line as it is, without passwords and without what a terminal would obey."""
    text = printable(without_credentials(text))
    console.print(text, highlight=False, markup=False, style=style, soft_wrap=True)


def print_rows(console: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print texts, each behind its name; a table would break the commands in them, which users copy."""
    for name, text in rows:
        print_line(console, f"{name:<10} {text}")


def epoch_line(line: "Line", epochs: int) -> str:
    """One epoch's figures, aligned below those of the epoch before."""
    parts = [
        f"epoch {line['epoch']:>{len(str(epochs))}.0f}/{epochs}",
        f"train loss {line['epoch_train_loss']:.4f}  accuracy {line['epoch_train_accuracy']:6.2%}",
    ]
    for split, name in (("val", "val"), ("epoch_test", "test")):
        if f"{split}_loss" in line:
            accuracy = line[f"{split}_accuracy"]
            parts.append(f"{name} loss {line[f'{split}_loss']:.4f}  accuracy {accuracy:6.2%}")
    parts.append(f"{line['epoch_seconds']:.1f} s ({line['images_per_second']:,.0f} images/s)")
    return "   ".join(parts)


def summary(console: Console, outcome: "Outcome", cfg: DictConfig) -> None:
    """How a run ended, its figures, and where everything is."""
    status = outcome.status
    rows: list[tuple[str, str]] = []
    ending = status["status"] + (" before; reused" if outcome.reused else "")
    rows.append(("status", ending + (f": {status['reason']}" if status["reason"] else "")))
    if status["objective"] is not None:
        rows.append(
            (
                "objective",
                f"{status['objective_key']} {status['objective']:.4f} (epoch {status['best_epoch']})",
            )
        )
    if status["test_accuracy"] is not None:
        rows.append(("test", f"accuracy {status['test_accuracy']:.2%}, loss {status['test_loss']:.4f}"))
    epochs = counted(status["epoch"], "epoch")
    rows.append(("trained", f"{epochs}, {status['seconds']:.1f} s, on {status['device']}"))
    rows.append(("files", str(outcome.folder.path)))
    if cfg.tracking.uri is not None:
        rows += tracking.summary(cfg)
    console.print()
    print_rows(console, rows)
