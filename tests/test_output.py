"""What a command does where its output cannot be written as it is."""

import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Answer, Command
from test_session import the_run

QUICK = ("tracking=none", "model=mlp", "model.widths=[4]", "data.limit=100", "trainer.epochs=1")


def full() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def closed_terminal() -> None:
    """The window of the terminal is closed as the first line is printed: EIO."""
    terminal, ours = pty.openpty()
    os.dup2(ours, 1)
    os.close(ours)
    os.close(terminal)
    sys.stdout = os.fdopen(1, "w")


def unread_pipe() -> None:
    reader, writer = os.pipe()
    os.dup2(writer, 1)
    os.close(reader)


def closed() -> None:
    """As by `<&- >&-`: the next files that are opened get these numbers."""
    os.close(0)
    os.close(1)


def ascii_only() -> None:
    sys.stdout.reconfigure(encoding="ascii", errors="strict")  # type: ignore[attr-defined]


BROKEN = [full, closed_terminal, unread_pipe, closed]


def train(tmp_path: Path, before: Callable[[], None], *words: str) -> Answer:
    return Command(tmp_path / "outputs", (*words, *QUICK, f"record.dir='{tmp_path}/outputs'"), before).wait()


@pytest.mark.parametrize("broken", BROKEN)
def test_output_that_cannot_be_written_ends_no_run(tmp_path: Path, broken: Callable[[], None]) -> None:
    answer = train(tmp_path, broken)
    assert (answer.status, answer.stderr) == (0, "")
    assert the_run(tmp_path / "outputs").status().name == "finished"


def test_output_that_cannot_be_written_ends_no_sweep(tmp_path: Path) -> None:
    answer = train(tmp_path, closed_terminal, "-m", "seed=0,1")
    assert (answer.status, answer.stderr) == (0, "")


def test_characters_that_the_output_lacks_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "größe"
    folder.mkdir()
    answer = train(folder, ascii_only, "-m", "seed=0")
    assert (answer.status, answer.stderr) == (0, "")
    assert "gr??e/outputs" in answer.stdout
