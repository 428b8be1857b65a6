"""What is seen of a sweep while it goes on."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from fairsweep.metrics import criteria
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import Status
from fairsweep.sweeps import board
from fairsweep.sweeps.board import Board
from fairsweep.sweeps.folder import ReportSummary, Row, SweepFolder

# The status of a run of 1,000 steps in training, with what a finished one says besides.
BEGUN = Status(
    name="running", trained_by="c1", objective_key="val_accuracy", steps=1000, seconds=1.0, epoch=1,
    code="c", data="d", device="cpu", precision="fp32", hostname="h",
)  # fmt: skip


BY_ACCURACY = criteria({"objective": "val_accuracy"})


def board_of(console: Console, sweep: Path, confirm: int = 0) -> Board:
    """The board of a sweep in this folder; its runs are beside it, in `runs`."""

    def status_of(signature: str) -> Status:
        return RunFolder(sweep.parent / "runs" / signature).status()

    return Board(console, SweepFolder(sweep, sweep.parent), status_of, BY_ACCURACY, "c1", confirm)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(board.time, "time", lambda: self.now)


def test_the_time_left_counts_the_parts_of_runs_that_are_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight runs, four at once, of 100 seconds each; they say how far they are when half of it is done."""
    clock = Clock(monkeypatch)
    rows = [Row(f"a{number:015x}", f"run{number}", "adam", number, "search", 0, {}) for number in range(8)]
    seen = board_of(Console(file=StringIO()), tmp_path / "sweep")

    def status(row: Row, **content: Any) -> None:
        folder = RunFolder(tmp_path / "runs" / row.signature)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_status(replace(BEGUN, signature=row.signature, **content))

    seen.plan(rows, more=0)
    seen.launch(rows)
    seen.look()
    assert seen.seconds_left() is None
    for row in rows[:4]:
        status(row)
    seen.look()
    assert seen.seconds_left() is None
    clock.now += 50
    for row in rows[:4]:
        status(row, step=500)
    seen.look()
    assert seen.seconds_left() == pytest.approx(150)
    clock.now += 20
    seen.look()
    assert seen.seconds_left() == pytest.approx(130)  # without news, it goes on so
    clock.now += 30
    for row in rows[:4]:
        status(row, name="finished", ended=clock.now)
    for row in rows[4:]:
        status(row, ended=None)
    seen.look()
    assert seen.seconds_left() == pytest.approx(100)
    clock.now += 50
    for row in rows[4:]:
        status(row, step=500)
    seen.look()
    assert seen.seconds_left() == pytest.approx(50)


def test_what_was_trained_before_is_no_part_of_the_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    row = Row("a" * 16, "run0", "adam", 0, "search", 0, {})
    seen = board_of(Console(file=StringIO()), tmp_path / "sweep")
    folder = RunFolder(tmp_path / "runs" / row.signature)
    folder.path.mkdir(parents=True)
    folder.write_status(replace(BEGUN, signature=row.signature, step=800))
    seen.plan([row], more=0)
    seen.launch([row])
    seen.look()
    assert seen.seconds_left() is None
    clock.now += 10
    folder.set_status(step=900)
    seen.look()
    assert seen.seconds_left() == pytest.approx(10)


def test_nothing_that_a_terminal_would_obey_is_printed(tmp_path: Path) -> None:
    """Arms, values, reasons and paths may hold escape codes: of a file's name, or of another's record."""
    evil = "\x1b[2Jred\x07"
    output = StringIO()
    seen = board_of(Console(file=output), tmp_path / evil)
    row = Row("a" * 16, f"{evil} lr={evil}", evil, 0, "search", 0, {"optimizer.lr": evil})
    seen.plan([row], more=0)
    seen.settle(row, replace(BEGUN, name="failed", reason=f"{evil}\nmore", ended=1.0))
    seen.note(f"note {evil}")
    cfg = OmegaConf.create({"tracking": {"uri": None}})
    seen.summary("failed", cfg, ReportSummary(evil, evil, [evil]), None)
    seen.listing([row], set(), 0, 1.0, (0, 0))
    assert not {"\x1b", "\x07"} & set(output.getvalue())
    assert output.getvalue().count(r"\x1b[2Jred\x07") > 10


@pytest.mark.parametrize("width", [80, 200])
def test_a_live_table_fits_its_terminal_adds_up_and_shows_no_test_figures(
    width: int, tmp_path: Path, kept: Path
) -> None:
    text = StringIO()
    console = Console(file=text, width=width, height=24, force_terminal=True, record=True)
    seen = board_of(console, tmp_path / "sweep", confirm=4)
    trials = [(arm, trial) for arm in ("adam", "sgd with momentum") for trial in range(2)]
    rows = [
        Row(f"a{place:015x}", f"{arm} lr=0.{trial} seed=0", arm, trial, "search", 0, {"lr": f"0.{trial}"})
        for place, (arm, trial) in enumerate(trials)
    ]
    seen.plan(rows, more=4)
    seen.launch(rows[3:])
    for row, objective in zip(rows[:2], (0.9, 0.95), strict=True):
        done = {"name": "finished", "ended": 1.0, "objective": objective, "test": {"accuracy": 0.1234}}
        seen.settle(row, replace(BEGUN, **done))
    seen.settle(rows[2], replace(BEGUN, name="failed", ended=1.0, reason="out of luck"))
    seen.standing.statuses[rows[3].signature] = BEGUN
    text.truncate(0)
    console.print(seen.table())
    console.save_svg(str(kept / f"board_{width}.svg"), clear=False)
    lines = console.export_text().splitlines()[-5:]
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "3/8 runs  search 3/4, confirm 0/4" in lines[0]
    assert lines[1].split() == [
        "arm",
        "best",
        "trial",
        "val_accuracy",
        "finished",
        "running",
        "failed",
        "waiting",
    ]
    assert lines[2].split() == ["adam", "lr=0.1", "95.00%", "2", "0", "0", "0"]
    assert lines[3].split() == ["sgd", "with", "momentum", "0", "1", "1", "0"]
    assert lines[4].rstrip() == "training sgd with momentum lr=0.1 seed=0"
    assert "12.34" not in "".join(lines)
