"""What a sweep makes of its executor's results: no training here, so each case takes milliseconds."""

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeExecutor, Values, sweep_of

from fairsweep.runs import markers
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.life import CannotLaunch
from fairsweep.runs.status import Status
from fairsweep.sweeps import dry_run
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.phases import TrialRun
from fairsweep.sweeps.space import Dimension
from fairsweep.sweeps.sweep import Sweep

LR = Dimension("lr", low=1e-3, high=1.0, log=True)
MOMENTUM = Dimension("momentum", low=0.0, high=0.9)
SEARCHED = [Arm("adam", ("optimizer=adam",), (LR,)), Arm("sgd", ("optimizer=sgd",), (LR, MOMENTUM))]
TPE = {"sampler": "tpe", "trials": 6, "seeds": (0, 1), "confirm_seeds": (1000, 1001)}


def near(values: Values) -> float | None:
    return -abs(math.log10(float(values.get("lr", "0.1"))) + 2) + 0.01 * int(values["seed"])


def lists(*values: str) -> list[Arm]:
    return [Arm("", (), (Dimension("lr", values),))]


class Outputs:
    """An output folder, and what the runs in it are; commands share nothing else."""

    def __init__(self, path: Path) -> None:
        self.path, self.statuses = path, dict[str, Status]()
        self.executor = FakeExecutor(near, self.statuses)

    def sweep(self, arms: list[Arm], formula: Any = near, **more: Any) -> Sweep:
        allowed = more.pop("allowed", lambda values: True)
        self.executor = FakeExecutor(formula, self.statuses, allowed)
        return sweep_of(self.path, self.executor, arms, **more)

    def run(self, arms: list[Arm], formula: Any = near, **more: Any) -> Sweep:
        sweep = self.sweep(arms, formula, **more)
        sweep.run()
        return sweep


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path)


def table(sweep: Sweep) -> list[dict[str, str]]:
    with (sweep.folder.path / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_is_finished_is_reused_by_the_same_sweep_and_by_a_larger_one(outputs: Outputs) -> None:
    first = outputs.run(lists("0.1", "0.01"))
    assert len(outputs.executor.executed) == 2
    assert first.folder.read()["status"] == "finished"
    again = outputs.run(lists("0.1", "0.01"))
    assert outputs.executor.executed == []
    assert (again.id, again.folder.read()["reused"]) == (first.id, 2)
    assert table(again) == table(first)
    larger = outputs.run(lists("0.1", "0.01"), seeds=(0, 1))
    assert [outputs.executor.values[one]["seed"] for one in outputs.executor.executed] == ["1", "1"]
    assert larger.id == first.id


def test_equal_runs_are_executed_and_counted_once(
    outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = outputs.run(lists("0.1", "0.1", "0.01"))
    assert len(outputs.executor.executed) == 2
    assert sweep.folder.read()["counts"] == {"finished": 2}
    assert len(table(sweep)) == 3
    assert "3 runs, 2 distinct: duplicates train once" in capsys.readouterr().out


def test_a_failed_run_costs_the_others_nothing_and_is_executed_again_by_the_next_command(
    outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    def unlucky(values: Values) -> float | None:
        return None if values["lr"] == "0.1" else near(values)

    with pytest.raises(SystemExit) as ended:
        outputs.run(lists("0.1", "0.01", "1"), unlucky)
    assert ended.value.code == 1
    assert Counter(status.name for status in outputs.statuses.values()) == {"finished": 2, "failed": 1}
    assert "out of luck" in capsys.readouterr().out
    sweep = outputs.run(lists("0.1", "0.01", "1"))
    assert [outputs.executor.values[one]["lr"] for one in outputs.executor.executed] == ["0.1"]
    assert sweep.folder.read()["status"] == "finished"


def test_a_run_that_failed_is_not_executed_again_for_another_trial(outputs: Outputs) -> None:
    arm = Arm("", (), (Dimension("n", low=1, high=2, integer=True),))
    with pytest.raises(SystemExit):
        outputs.run([arm], lambda values: None if values["n"] == "1" else 1.0, sampler="tpe", trials=8)
    assert Counter(outputs.executor.values[one]["n"] for one in outputs.executor.executed) == {"1": 1, "2": 1}


def test_sampled_values_that_do_not_go_together_are_a_failed_trial(outputs: Outputs) -> None:
    def allowed(
        values: Values,
    ) -> bool:  # at the corners, which are checked before anything is trained, it is
        return not 0.2 < float(values["momentum"]) < 0.8

    arm = Arm("", (), (LR, MOMENTUM))
    with pytest.raises(SystemExit):
        outputs.run([arm], allowed=allowed, sampler="random", trials=8)
    counts = Counter(status.name for status in outputs.statuses.values())
    assert counts["failed"] == 8 - len(outputs.executor.executed) > 0
    assert all("not allowed" in s.reason for s in outputs.statuses.values() if s.name == "failed")


def test_fail_fast_stops_at_the_first_failure(outputs: Outputs) -> None:
    with pytest.raises(SystemExit):
        outputs.run(lists("1", "0.1", "0.01"), lambda values: None, fail_fast=True)
    assert len(outputs.executor.executed) == 1


def test_a_launcher_that_cannot_work_fails_no_run(
    outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(values: Values) -> float | None:
        raise CannotLaunch("no workers")

    sweep = outputs.sweep(lists("1", "0.1"), broken)
    with pytest.raises(CannotLaunch):
        sweep.run()
    assert not outputs.statuses
    assert sweep.folder.read()["status"] == "failed"
    assert "report" not in capsys.readouterr().out


@pytest.mark.parametrize("runs", [0, 1, 5, 13, 20, 25])
def test_a_stopped_search_goes_on_as_if_it_had_not_been(tmp_path: Path, runs: int) -> None:
    whole, stopped = Outputs(tmp_path / "whole"), Outputs(tmp_path / "stopped")
    expected = whole.run(SEARCHED, extend=True, extend_steps=1, **TPE)

    def until(values: Values) -> float | None:
        if len(stopped.executor.executed) > runs:
            raise KeyboardInterrupt
        return near(values)

    sweep = stopped.sweep(SEARCHED, until, extend=True, extend_steps=1, **TPE)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    assert sweep.folder.read()["status"] == "interrupted"
    sweep = stopped.run(SEARCHED, extend=True, extend_steps=1, **TPE)
    assert table(sweep) == table(expected)
    assert len(stopped.executor.executed) == len(whole.executor.executed) - runs


def test_an_old_plan_without_bases_gives_the_same_search(outputs: Outputs) -> None:
    """As that of a version which kept searches in a database."""
    sweep = outputs.run(SEARCHED, **TPE)
    expected, plan = table(sweep), sweep.folder.path / "plan.jsonl"
    lines = [json.loads(line) for line in plan.read_text().splitlines()]
    for line in lines:
        line.pop("basis", None)
    plan.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert table(outputs.run(SEARCHED, **TPE)) == expected
    assert outputs.executor.executed == []


def test_a_line_of_the_plan_that_is_cut_short_is_passed_over(outputs: Outputs) -> None:
    sweep = outputs.run(lists("1", "0.1"))
    plan = sweep.folder.path / "plan.jsonl"
    expected, whole = table(sweep), plan.read_bytes()
    plan.write_bytes(whole + whole.splitlines(keepends=True)[-1][:20])
    assert table(outputs.run(lists("1", "0.1"))) == expected


def test_halving_continues_the_better_share_and_prunes_the_rest(outputs: Outputs) -> None:
    sweep = outputs.run(lists("1", "0.1", "0.01", "0.001"), halving=2, epochs=4)
    assert Counter(row["status"] for row in table(sweep)) == {"pruned": 3, "finished": 1}
    rungs = Counter(epoch for _, epoch in outputs.executor.reached)
    assert rungs == {1: 4, 2: 2}
    (winner,) = [row["lr"] for row in table(sweep) if row["status"] == "finished"]
    assert winner == "0.01"


def test_a_paused_run_that_another_process_finishes_between_two_rungs_counts_as_finished(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = outputs.sweep(lists("0.01", "0.001"), halving=2, epochs=2)
    prune = sweep.prune

    def finish_the_other(runs: Sequence[TrialRun]) -> None:
        prune(runs)
        for signature, status in outputs.statuses.items():
            if status.name == "paused":
                outputs.statuses[signature] = replace(status, name="finished", objective=0.9)

    monkeypatch.setattr(sweep, "prune", finish_the_other)
    sweep.run()
    assert sweep.folder.read()["counts"] == {"finished": 1, "pruned": 1}
    assert sweep.folder.read()["best_objective"] == 0.9
    assert {row["lr"]: row["status"] for row in table(sweep)} == {"0.01": "finished", "0.001": "pruned"}


def test_a_command_that_is_stopped_before_it_has_planned_anything_leaves_the_table(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table(outputs.run(lists("1", "0.1")))
    sweep = outputs.sweep(lists("1", "0.1"))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep.run()
    assert sweep.folder.read()["status"] == "interrupted"
    assert table(sweep) == before


def test_a_dry_run_counts_what_is_missing_and_executes_nothing(
    outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs.run(lists("1", "0.1"))
    capsys.readouterr()
    dry_run.show(outputs.sweep(lists("1", "0.1"), seeds=(0, 1)))
    assert outputs.executor.executed == []
    said = capsys.readouterr().out
    assert "4 runs, 2 to train; about 4 s of training, 2.0 kB of weights" in said
    assert said.count("exists") == 2


def test_what_dead_processes_left_is_ended_before_the_first_run(outputs: Outputs) -> None:
    dead = RunFolder(outputs.path / "runs" / f"a{'0' * 15}")
    dead.path.mkdir(parents=True)
    known = {"code": "c", "device": "cpu", "precision": "fp32", "objective_key": "val_loss"}
    dead.write_status(Status(name="running", signature=dead.signature, **known))
    markers.write(markers.pending(outputs.path) / dead.signature, "sqlite:////tmp/x.db", print)
    seen = []

    def look(values: Values) -> float:
        seen.append(dead.status().name)
        return 1.0

    outputs.run(lists("1"), look)
    assert seen == ["interrupted"]
