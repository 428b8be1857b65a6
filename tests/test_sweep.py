"""Whole sweeps as a user starts them: repeated, stopped, killed, and side by side."""

import csv
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from commands import FORKS, Answer, Command, nothing, unhurried
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig
from test_cli import answers, assert_one_line, shell
from test_session import LONG, figures
from test_tracking import history, journalled

from fairsweep.compare import after
from fairsweep.config import ConfigError
from fairsweep.launch import jobs
from fairsweep.runs import markers, mlflow_run, session, store, uploader
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.schema import read_json
from fairsweep.sweeps import board
from fairsweep.training import build

QUICK = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=2", "trainer.threads=1")
# Four runs long enough to be hit in the middle.
FOUR = (*LONG, "trainer.epochs=15", "optimizer=sgd", "optimizer.lr=0.03,0.01", "seed=range(2)")

ARMS = (
    'arms={adam: {optimizer: adam, optimizer.lr: "tag(log, interval(1e-4, 1e-3))"}, '
    'sgd: {optimizer: sgd, optimizer.lr: "tag(log, interval(1e-2, 1))"}}'
)

# What is changed in a command before it starts


def eager() -> None:
    """Checkpoints, and uploads, at nearly every line of a journal."""
    session.CHECKPOINT_SECONDS = 0.1


def unlucky() -> None:
    """Seed 1 raises in training, seed 2 calls sys.exit."""
    from fairsweep.training.lane import Lane

    step = Lane.train_step

    def broken(lane: Lane, index: Any) -> None:
        if lane.step == 3 and lane.seed == 1:
            raise RuntimeError("out of luck")
        if lane.step == 3 and lane.seed == 2:
            sys.exit("enough")
        step(lane, index)

    Lane.train_step = broken  # type: ignore[method-assign]


def unlucky_in_the_third_epoch() -> None:
    from fairsweep.training.lane import Lane

    step = Lane.train_step

    def broken(lane: Lane, index: Any) -> None:
        if lane.epoch == 2:
            raise RuntimeError("out of luck")
        step(lane, index)

    Lane.train_step = broken  # type: ignore[method-assign]


def unwatched() -> None:
    """The folders of runs are looked at when that is needed, and not by the clock."""
    board.POLL_SECONDS = 1000


def stopped_at_start() -> None:
    stop_before_upload(1)


def stopped_as_a_run_begins() -> None:
    """Ctrl-C between the run's folder, which says `running` by then, and its first step."""
    begin = session.Job.begin

    def begin_and_stop(job: session.Job) -> None:
        begin(job)
        os.kill(os.getpid(), signal.SIGINT)

    session.Job.begin = begin_and_stop  # type: ignore[method-assign]


def killed_as_the_fifth_run_begins() -> None:
    begin, jobs_begun = session.Job.begin, []

    def begin_and_die(job: session.Job) -> None:
        begin(job)
        jobs_begun.append(job)
        if len(jobs_begun) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    session.Job.begin = begin_and_die  # type: ignore[method-assign]


def stopped_in_an_upload() -> None:
    """Ctrl-C while the uploader is in the middle of a transaction of MLflow's database."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    log_batch, calls = SqlAlchemyStore._log_metrics, []

    def stop_and_log(store: Any, *args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            os.kill(os.getppid(), signal.SIGINT)
        log_batch(store, *args)

    SqlAlchemyStore._log_metrics = stop_and_log


def stopped_at_end() -> None:
    stop_before_upload(2)


def stop_before_upload(number: int) -> None:
    """Ctrl-C before the sweep's own MLflow run is brought up to date for the first, second, ... time."""
    sync, calls = uploader.sync_sweep, []

    def stop_and_sync(*args: Any) -> None:
        calls.append(args)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
        sync(*args)

    uploader.sync_sweep = stop_and_sync


def without(report: bool, model: bool, before: Callable[[], None]) -> None:
    """No report and no MLflow model at the sweep's end: each takes seconds, and has tests of its own."""
    if report:
        after.write = lambda *_: after.ReportSummary("none in these tests")
    if model:
        mlflow_run.wants_model = lambda *_: False
    before()


class Outputs:
    """A `record.dir`, the sweeps that are carried out there, and its MLflow database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commands: list[Command] = []
        self.with_reports = self.with_models = False

    # Commands

    def start(
        self,
        *words: str,
        script: str = "src/train.py",
        before: Callable[[], None] = nothing,
        single: bool = False,
    ) -> Command:
        sweep = ("-m",) if script == "src/train.py" and not single else ()
        before = partial(without, not self.with_reports, not self.with_models, before)
        words = (*sweep, f"record.dir={self.path}", *words)
        self.commands.append(Command(self.path, words, before, script))
        return self.commands[-1]

    def sweep(self, *words: str, status: int = 0, **how: Any) -> Answer:
        """A sweep to its end, which must have this exit status."""
        answer = self.start(*words, **how).wait()
        assert answer.status == status, answer
        return answer

    def wait_for_lines(self, lines: int) -> None:
        """Wait until the journals of all runs have N lines together."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            journals = (self.path / "runs").glob("*/journal.jsonl")
            if sum(path.read_bytes().count(b"\n") for path in journals) >= lines:
                return
            assert self.commands[-1].process.is_alive(), self.commands[-1].wait()
            time.sleep(0.005)
        raise AssertionError("the sweep does not get on")

    # Folders

    @property
    def definition(self) -> dict[str, Any]:
        """The `sweep.json` of the sweep begun last."""
        sweeps = [read_json(path) for path in (self.path / "sweeps").glob("*/sweep.json")]
        return max(sweeps, key=lambda sweep: float(sweep["resumed"]))

    @property
    def table(self) -> list[dict[str, str]]:
        """The table of that sweep, less what is never the same twice."""
        with (Path(self.definition["directory"]) / "table.csv").open() as file:
            return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]

    @property
    def runs(self) -> dict[str, RunFolder]:
        return {path.name: RunFolder(path) for path in (self.path / "runs").glob("[0-9a-f]*")}

    @property
    def statuses(self) -> Counter[str]:
        return Counter(folder.status().name for folder in self.runs.values())

    @property
    def trained(self) -> dict[str, float]:
        """When each run began, or went on."""
        return {signature: folder.status().resumed for signature, folder in self.runs.items()}

    # MLflow

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.path}/mlflow.db")

    @property
    def tracked(self) -> dict[str, Run]:
        """The MLflow runs by signature, those of sweeps by the sweep's id; there is one of each."""
        found = self.client.search_runs(["1"])
        by_name = {run.data.tags.get("signature") or run.data.tags["fairsweep_sweep"]: run for run in found}
        assert len(by_name) == len(found)
        return by_name

    def assert_tracked(self) -> None:
        """MLflow has each run once, with the status and every line of its record, and nothing runs there."""
        tracked = self.tracked
        assert {run.info.status for run in tracked.values()} <= {"FINISHED", "FAILED", "KILLED"}
        for signature, folder in self.runs.items():
            run, status = tracked[signature], folder.status().name
            assert run.data.tags["status"] == status
            # What is not behind a checkpoint will be taken back.
            told = journalled(folder, durable=status == "interrupted")
            finite = {
                key: [point for point in points if point[2] is not None] for key, points in told.items()
            }
            assert history(self.client, run.info.run_id, folder) == finite
        assert not list(markers.pending(self.path).iterdir())


def assert_same_sweep(one: Outputs, other: Outputs) -> None:
    """The same table, and the same bits in every journal."""
    assert one.table == other.table
    assert one.runs.keys() == other.runs.keys()
    for signature, folder in one.runs.items():
        assert figures(folder) == figures(other.runs[signature])


def assert_trained_once(outputs: Outputs) -> None:
    for folder in outputs.runs.values():
        status = folder.status()
        assert status.started == status.resumed, "it was interrupted"
        assert (folder.path / "run.log").read_text().count("finished after step") == 1
    assert not (outputs.path / "runs" / ".history").exists()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking database without runs: to make one takes seconds, to copy one does not."""
    folder = tmp_path_factory.mktemp("store")
    MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@contextmanager
def outputs_in(folder: Path, empty_store: Path) -> Iterator[Outputs]:
    """An output folder with an empty tracking database; no process outlives the block."""
    outputs = Outputs(folder)
    folder.mkdir()
    shutil.copy(empty_store, folder)
    try:
        yield outputs
    finally:
        for command in outputs.commands:
            command.kill()


@pytest.fixture
def outputs(tmp_path: Path, empty_store: Path) -> Iterator[Outputs]:
    with outputs_in(tmp_path / "outputs", empty_store) as made:
        yield made


@pytest.fixture
def others(tmp_path: Path, empty_store: Path) -> Iterator[Outputs]:
    """Outputs to compare with."""
    with outputs_in(tmp_path / "others", empty_store) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Outputs]:
    """The sweep FOUR as it ends when nothing stops it."""
    with outputs_in(tmp_path_factory.mktemp("undisturbed") / "outputs", empty_store) as made:
        made.sweep(*FOUR)
        yield made


# What a sweep leaves


def test_a_grid_is_one_mlflow_run_with_a_child_for_each_combination(outputs: Outputs) -> None:
    answer = outputs.sweep(*QUICK, "optimizer=adam,sgd", "optimizer.lr=0.1,0.01", "seed=range(2)")
    expected = [
        (arm, trial, seed, lr) for arm in ("adam", "sgd") for trial, lr in ((0, "0.1"), (1, "0.01"))
        for seed in (0, 1)
    ]  # fmt: skip
    assert [
        (row["arm"], int(row["trial"]), int(row["seed"]), row["optimizer.lr"]) for row in outputs.table
    ] == expected
    assert {(row["phase"], row["status"]) for row in outputs.table} == {("search", "finished")}
    lines = [line for line in answer.stdout.splitlines() if line.startswith("[")]
    for number, (line, (arm, _, seed, lr)) in enumerate(zip(lines, expected, strict=True), 1):
        assert line.startswith(f"[{number}/8] search {arm} lr={lr} seed={seed}: finished  val_accuracy 0.")

    definition, tracked = outputs.definition, outputs.tracked
    assert (definition["status"], definition["counts"], definition["reused"]) == (
        "finished",
        {"finished": 8},
        0,
    )
    parent = tracked.pop(definition["id"])
    assert (parent.info.status, parent.data.tags["status"]) == ("FINISHED", "finished")
    assert parent.data.tags["command"].startswith("src/train.py -m record.dir=")
    assert parent.data.metrics["runs_finished"] == 8
    means = [
        math.fsum(float(row["objective"]) for row in outputs.table[place : place + 2]) / 2
        for place in range(0, 8, 2)
    ]
    assert parent.data.metrics["best_objective"] == pytest.approx(max(means))
    files = {item.path for item in outputs.client.list_artifacts(parent.info.run_id)}
    assert files == {"sweep.json", "table.csv", "plan.jsonl"}
    held = outputs.client.download_artifacts(
        parent.info.run_id, "table.csv", str(outputs.path.parent / "stdout").removesuffix("stdout")
    )
    assert Path(held).read_bytes() == (Path(definition["directory"]) / "table.csv").read_bytes()

    assert len(tracked) == 8
    for row in outputs.table:
        run, values = tracked[row["signature"]], {"optimizer.lr": row["optimizer.lr"]}
        name = f"{row['arm']} lr={row['optimizer.lr']} seed={row['seed']}"
        assert run.info.run_name == name
        tags = {key: row[key] for key in ("arm", "trial", "seed", "phase", "status")}
        tags |= {"sweep": definition["id"], "mlflow.parentRunId": parent.info.run_id}
        assert tags.items() <= run.data.tags.items()
        (member,) = json.loads(run.data.tags[f"sweep.{definition['id']}"])
        place = {key: int(row[key]) for key in ("trial", "seed")}
        assert member == {"name": name, "arm": row["arm"], "phase": "search", "values": values, **place}
    outputs.assert_tracked()


def test_what_is_finished_is_taken_over_by_the_same_an_overlapping_and_a_larger_sweep(
    outputs: Outputs,
) -> None:
    grid = (*QUICK, "optimizer=sgd", "optimizer.lr=0.1,0.01")
    outputs.sweep(*grid, "seed=range(2)")
    first, before = outputs.definition, outputs.trained

    answer = outputs.sweep(*grid, "seed=range(2)", "trainer.log_every=7")
    assert outputs.trained == before
    assert outputs.definition["id"] == first["id"]
    assert (outputs.definition["reused"], outputs.definition["started"]) == (4, first["started"])
    assert "4 finished; 4 reused" in answer.stdout
    assert answer.stdout.count("  reused\n") == 4

    answer = outputs.sweep(*grid, "seed=range(3)")
    assert outputs.definition["id"] == first["id"], "the same sweep grown"
    assert outputs.definition["seeds"] == [0, 1, 2]
    assert "6 finished; 4 reused" in answer.stdout
    assert before.items() <= outputs.trained.items()

    answer = outputs.sweep(*QUICK, "optimizer=sgd", "optimizer.lr=0.3,0.1")
    other = outputs.definition["id"]
    assert other != first["id"]
    assert "2 finished; 1 reused" in answer.stdout
    tracked = outputs.tracked
    parents = {name: tracked.pop(name).info.run_id for name in (first["id"], other)}
    assert len(tracked) == 7
    places = Counter(
        (run.data.tags["sweep"], run.data.tags["mlflow.parentRunId"], *sweeps)
        for run in tracked.values()
        for sweeps in [sorted(key[6:] for key in run.data.tags if key.startswith("sweep."))]
    )
    assert places == {
        (first["id"], parents[first["id"]], first["id"]): 5,
        (first["id"], parents[first["id"]], *sorted((first["id"], other))): 1,
        (other, parents[other], other): 1,
    }
    outputs.assert_tracked()


def test_runs_are_trained_again_where_that_is_asked_for(outputs: Outputs) -> None:
    grid = (*QUICK, "tracking=none", "optimizer=sgd", "optimizer.lr=0.1,0.01")
    outputs.sweep(*grid)
    before = outputs.trained
    answer = outputs.sweep(*grid, "rerun=true")
    assert answer.stdout.count("rerun=true: training again; the old run is in ") == 2
    assert all(outputs.trained[signature] > before[signature] for signature in before)


def test_a_sweep_that_pauses_says_how_it_goes_on(outputs: Outputs) -> None:
    words = (*QUICK, "seed=0,1")
    answer = outputs.sweep(*words, "trainer.stop_epoch=1")
    assert "paused by trainer.stop_epoch; repeat the command without it to continue" in answer.stdout
    assert outputs.statuses == {"paused": 2}
    assert "paused" not in outputs.sweep(*words).stdout
    assert outputs.statuses == {"finished": 2}


def test_runs_that_are_equal_train_and_count_once(outputs: Outputs) -> None:
    words = (*QUICK[:-1], "optimizer.lr=0.01,1e-2", "trainer.threads=1,2", "tracking=mlflow,none")
    answer = outputs.sweep(*words)
    assert "8 runs, 1 distinct: duplicates train once" in answer.stdout
    assert answer.stdout.count("1 finished") == 1
    assert "8 finished" not in answer.stdout
    (folder,) = outputs.runs.values()
    table = outputs.table
    assert [int(row["trial"]) for row in table] == list(range(8))
    assert {row["objective"] for row in table} == {str(folder.status().objective)}
    (place,) = folder.sweeps().values()
    assert [member["trial"] for member in place["members"]] == list(range(8))
    began = outputs.trained
    outputs.sweep(*words)
    assert (outputs.table, outputs.trained) == (table, began)
    assert (outputs.definition["counts"], outputs.definition["reused"]) == ({"finished": 1}, 1)
    outputs.assert_tracked()


def test_a_run_that_is_no_longer_planned_leaves_the_sweep(outputs: Outputs) -> None:
    space = (*QUICK, "optimizer=sgd", "optimizer.lr=interval(0.01, 0.1)")
    outputs.sweep(*space, "trials=3")
    sweep = outputs.definition["id"]
    (middle,) = (row["signature"] for row in outputs.table if row["optimizer.lr"] == "0.055")
    with outputs.runs[middle].lock():  # as if another process trained it: nobody else writes there
        answer = outputs.sweep(*space, "trials=4")
    assert "earlier command" not in answer.stdout
    assert outputs.runs[middle].sweeps().keys() == {sweep}
    answer = outputs.sweep(*space, "trials=4")
    assert "kept on disk: 1 run that only an earlier command asked for" in answer.stdout
    assert outputs.definition["id"] == sweep
    assert [row["optimizer.lr"] for row in outputs.table] == ["0.01", "0.04", "0.07", "0.1"]
    members = {row["signature"] for row in outputs.table}
    assert len(outputs.runs) == 5
    assert {name for name, folder in outputs.runs.items() if folder.sweeps()} == members
    tagged = {name for name, run in outputs.tracked.items() if f"sweep.{sweep}" in run.data.tags}
    assert tagged == members


def test_arms_are_searched_extended_at_an_edge_and_confirmed_on_fresh_seeds(outputs: Outputs) -> None:
    words = (
        *QUICK,
        "tracking=none",
        ARMS,
        "trials=3",
        "seeds=2",
        "extend=true",
        "extend_steps=1",
        "confirm=3",
    )
    outputs.sweep(*words)
    runs = Counter((row["arm"], row["phase"], int(row["trial"])) for row in outputs.table)
    means = {
        arm: [
            math.fsum(float(row["objective"]) for row in outputs.table if key(row) == (arm, "search", trial))
            for trial in range(4)
        ]
        for arm in ("adam", "sgd")
    }
    best = {arm: values.index(max(values)) for arm, values in means.items()}
    search = {(arm, "search", trial): 2 for arm in best for trial in range(4)}
    assert runs == search | {(arm, "confirm", trial): 3 for arm, trial in best.items()}
    seeds = {
        phase: {int(r["seed"]) for r in outputs.table if r["phase"] == phase}
        for phase in ("search", "confirm")
    }
    assert seeds == {"search": {0, 1}, "confirm": {1000, 1001, 1002}}
    lrs = {arm: [r["optimizer.lr"] for r in outputs.table if key(r)[:2] == (arm, "search")] for arm in best}
    # The more the better, up to 1e-3 and beyond.
    assert lrs["adam"][::2] == ["0.0001", "0.0003162", "0.001", "0.003162"]
    assert best["adam"] == 3
    assert lrs["sgd"][:6:2] == ["0.01", "0.1", "1.0"]

    before = outputs.trained
    answer = outputs.sweep(*words)
    assert outputs.trained == before
    assert f"{len(before)} finished; {len(before)} reused" in answer.stdout


def key(row: dict[str, str]) -> tuple[str, str, int]:
    return row["arm"], row["phase"], int(row["trial"])


def test_halving_prunes_what_another_sweep_may_finish_with_the_same_bits(
    outputs: Outputs, others: Outputs
) -> None:
    words = (*QUICK, "record.keep=weights", "trainer.epochs=4", "optimizer=sgd")
    space = (*words, "optimizer.lr=0.3,0.1,0.03,0.01")
    answer = outputs.sweep(*space, "halving=2")
    assert Counter(row["status"] for row in outputs.table) == {"pruned": 3, "finished": 1}
    epochs = sorted(folder.status().epoch for folder in outputs.runs.values())
    assert epochs == [1, 1, 2, 4]
    assert "1 finished" in answer.stdout
    assert "3 pruned" in answer.stdout
    tracked = outputs.tracked
    for row in outputs.table:
        run = tracked[row["signature"]]
        assert run.info.status == ("FINISHED" if row["status"] == "finished" else "KILLED")
        assert run.data.tags["status"] == row["status"]
    assert tracked[outputs.definition["id"]].data.metrics["runs_pruned"] == 3
    before = outputs.trained
    outputs.sweep(*space, "halving=2")
    assert outputs.trained == before

    others.sweep(*space[:-1], "optimizer.lr=0.01,0.03,0.1,0.3", "tracking=none")
    outputs.sweep(*space[:-1], "optimizer.lr=0.01,0.03,0.1,0.3")
    assert outputs.statuses == {"finished": 4}
    assert_same_sweep(outputs, others)
    outputs.assert_tracked()


def test_a_run_that_failed_after_a_rung_is_trained_again_by_the_same_command(
    outputs: Outputs, others: Outputs
) -> None:
    words = (*QUICK, "tracking=none", "trainer.epochs=4", "optimizer=sgd", "optimizer.lr=0.1,0.0001")
    outputs.sweep(*words, "halving=2", status=1, before=unlucky_in_the_third_epoch)
    outputs.sweep(*words, "halving=2")
    others.sweep(*words, "halving=2")
    (best,) = [row for row in others.table if row["status"] == "finished"]
    assert best["optimizer.lr"] == "0.1"
    assert best in outputs.table


def test_a_repeated_sweep_completes_the_pictures_and_event_files_of_its_runs(outputs: Outputs) -> None:
    words = (*QUICK, "tracking=none", "seed=range(2)")
    outputs.sweep(*words)
    assert not any(folder.pictures.exists() for folder in outputs.runs.values())
    outputs.sweep(*words, "record.pictures=all", "tracking.tensorboard=true")
    for folder in outputs.runs.values():
        assert (folder.pictures / "curves.png").exists()
        assert any((folder.path / "tensorboard").iterdir())


# Failures


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_what_fails_costs_the_others_nothing_and_is_run_again_by_the_same_command(
    outputs: Outputs, launcher: str
) -> None:
    words = (*QUICK, "optimizer=sgd", "trainer.batch_size=32,100000", "seed=range(3)")
    grid = (*words, f"hydra/launcher={launcher}")
    answer = outputs.sweep(*grid, status=1, before=unlucky)
    too_large = "trainer.batch_size=100000: must be at most the number of training images, 200"
    reasons = {
        ("32", "0"): ("finished", ""),
        ("32", "1"): ("failed", "RuntimeError: out of luck"),
        ("32", "2"): ("failed", "SystemExit: enough"),
        **{("100000", str(seed)): ("failed", f"ConfigError: {too_large}") for seed in range(3)},
    }
    ended = {
        (row["trainer.batch_size"], row["seed"]): (row["status"], row["reason"]) for row in outputs.table
    }
    assert ended == reasons
    table = [" ".join(line.split()) for line in answer.stdout.partition("\n\nfailed ")[2].splitlines()]
    assert any(line.startswith("batch_size=32 seed=1 RuntimeError: out of luck ") for line in table)
    assert any(line.startswith("batch_size=32 seed=2 SystemExit: enough ") for line in table)
    tracked = outputs.tracked
    assert tracked[outputs.definition["id"]].info.status == "FAILED"
    assert tracked[outputs.definition["id"]].data.metrics["runs_failed"] == 5
    for row in outputs.table:
        if row["status"] == "failed":
            log = (outputs.runs[row["signature"]].path / "run.log").read_text()
            assert "Traceback" in log
            assert row["reason"].partition(": ")[2] in log
            run = tracked[row["signature"]]
            assert (run.info.status, run.data.tags["reason"]) == ("FAILED", row["reason"])
            held = {item.path for item in outputs.client.list_artifacts(run.info.run_id, "record")}
            assert "record/run.log" in held

    before = outputs.trained
    answer = outputs.sweep(*grid, status=1)
    assert outputs.statuses == {"finished": 3, "failed": 3}
    good = next(
        row["signature"] for row in outputs.table if row["seed"] == "0" and row["status"] == "finished"
    )
    assert outputs.trained[good] == before[good]
    outputs.assert_tracked()
    assert "3 finished, 3 failed; 1 reused" in answer.stdout


# As launchers with workers do: when one dies, all that the launcher was about is lost.
FORKING = """
import os
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus

class ForkingLauncher(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        returns = []
        for overrides in job_overrides:
            worker = os.fork()
            if not worker:
                (done,) = super().launch([overrides], initial_job_idx)
                os._exit(done.status != JobStatus.COMPLETED)
            status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
            if status < 0:
                raise RuntimeError("a worker died")
            returns.append(JobReturn(status=JobStatus.FAILED if status else JobStatus.COMPLETED))
            returns[-1].return_value = RuntimeError("a job failed") if status else None
        return returns

node = {"_target_": "hydra_plugins.forking.ForkingLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="forking", node=node, provider="test")
"""


def test_sampled_values_that_do_not_go_together_are_a_failed_trial(outputs: Outputs) -> None:
    """Too many combinations to check beforehand; every sixth has a warm-up longer than its run."""
    words = (
        *QUICK[:3], "trainer.threads=1", "sampler=random", "trials=8", "confirm=1",
        "arms={a: {optimizer: adam, trainer.epochs: '4,2', scheduler.warmup: '0,2,3', "
        "optimizer.lr: '0.01,0.02', model.dropout: '0,0.1', loss.label_smoothing: '0,0.1'}}",
    )  # fmt: skip
    answer = outputs.sweep(*words, status=1)
    table = outputs.table
    assert [row["phase"] for row in table] == 8 * ["search"] + ["confirm"]
    for row in table:
        epochs, warmup = row["trainer.epochs"], row["scheduler.warmup"]
        fits = int(warmup) < int(epochs)
        assert row["status"] == ("finished" if fits else "failed")
        reason = f"hydra.sweeper.arms.a: scheduler.warmup={warmup}: must be below trainer.epochs={epochs}"
        assert row["reason"] == ("" if fits else reason)
        assert fits or reason in answer.stdout
    assert {row["status"] for row in table} == {"finished", "failed"}
    outputs.assert_tracked()
    finished = {
        s: began for s, began in outputs.trained.items() if outputs.runs[s].status().name == "finished"
    }
    outputs.sweep(*words, status=1)
    assert outputs.table == table
    assert finished.items() <= outputs.trained.items()


def test_a_run_that_failed_is_not_run_again_for_another_trial(outputs: Outputs) -> None:
    """A sampler chooses few values again and again; each trial has the run's result, in table and run."""
    words = (*QUICK, "tracking=none", "sampler=bruteforce", "trials=3", "seed=1", "trainer.threads=1,2,3")
    outputs.sweep(*words, status=1, before=unlucky)
    assert [(row["trial"], row["status"]) for row in outputs.table] == [(n, "failed") for n in "012"]
    (folder,) = outputs.runs.values()
    assert (folder.path / "run.log").read_text().count("failed after step 3") == 1
    (place,) = folder.sweeps().values()
    assert [member["trial"] for member in place["members"]] == [0, 1, 2]
    assert outputs.definition["counts"] == {"failed": 1}
    outputs.sweep(*words)
    assert [(row["trial"], row["status"]) for row in outputs.table] == [(n, "finished") for n in "012"]
    assert outputs.definition["counts"] == {"finished": 1}


def test_a_worker_that_is_killed_costs_its_own_run_and_no_other(outputs: Outputs) -> None:
    plugins = outputs.path / "plugins" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "forking.py").write_text(FORKING)
    grid = (*QUICK, "seed=range(4)", "hydra/launcher=forking")
    outputs.sweep(*grid, status=1, before=partial(with_workers, plugins.parent, deadly=True))
    states = {row["seed"]: (row["status"], row["reason"]) for row in outputs.table}
    died = ("failed", "its process died (killed, or out of memory)")
    assert states == {"0": ("finished", ""), "1": died, "2": ("finished", ""), "3": ("finished", "")}
    outputs.assert_tracked()
    before = outputs.trained
    outputs.sweep(*grid, before=partial(with_workers, plugins.parent, deadly=False))
    assert outputs.statuses == {"finished": 4}
    assert sum(outputs.trained[signature] != before[signature] for signature in before) == 1
    outputs.assert_tracked()


def with_workers(plugins: Path, deadly: bool) -> None:
    """Hydra finds the launcher in this folder; seed 1 kills its worker."""
    from fairsweep.training.lane import Lane

    sys.path.append(str(plugins))
    step = Lane.train_step

    def kill(lane: Lane, index: Any) -> None:
        if deadly and lane.step == 3 and lane.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        step(lane, index)

    Lane.train_step = kill  # type: ignore[method-assign]


def test_a_job_that_is_lost_before_it_begins_is_a_failed_run_like_any_other(outputs: Outputs) -> None:
    grid = (*QUICK, "seed=range(2)", "hydra/launcher=basic")
    answer = outputs.sweep(*grid, status=1, before=lossy)
    assert outputs.statuses == {"finished": 1, "failed": 1}
    assert [row["reason"] for row in outputs.table] == ["the machine is gone", ""]
    assert "seed=0  the machine is gone" in answer.stdout
    outputs.assert_tracked()
    answer = outputs.sweep(*grid)
    assert "it failed before it began: training again" in answer.stdout
    assert outputs.statuses == {"finished": 2}

    before = [figures(folder) for folder in outputs.runs.values()]
    answer = outputs.sweep(*grid, "rerun=true", "seed=0", status=1, before=lossy)
    assert "seed=0  the machine is gone" in answer.stdout
    assert [figures(folder) for folder in outputs.runs.values()] == before
    assert outputs.statuses == {"finished": 2}


def lossy() -> None:
    """The first job fails before it begins a run."""
    train, lost = jobs.run, list[bool]()

    def lose_one(cfg: DictConfig) -> float | None:
        if not lost:
            lost.append(True)
            raise ConnectionError("the machine is gone")
        return train(cfg)

    jobs.run = lose_one


@pytest.mark.parametrize("launcher", ["hydra/launcher=fused", "hydra/launcher=basic"])
def test_fail_fast_stops_at_the_first_failure(outputs: Outputs, launcher: str) -> None:
    grid = (*QUICK, "tracking=none", "seed=range(4)", launcher)
    outputs.sweep(*grid, "fail_fast=true", status=1, before=unlucky)
    assert outputs.statuses == {"finished": 1, "failed": 1}
    assert outputs.definition["status"] == "failed"
    outputs.sweep(*grid, "fail_fast=true")
    assert outputs.statuses == {"finished": 4}


def test_fail_fast_leaves_what_has_not_begun_as_it_is(outputs: Outputs) -> None:
    grid = (*QUICK, "tracking=none")
    outputs.sweep(*grid, "seed=0,1")
    before = outputs.trained
    answer = outputs.sweep(
        *grid, "seed=range(4)", "rerun=true", "fail_fast=true", status=1, before=without_losses
    )
    assert "ConfigError: no such loss" in answer.stdout
    assert "1 finished, 1 failed, 2 waiting" in answer.stdout
    assert outputs.trained == before


def without_losses() -> None:
    """No run can be built."""

    def refuse(cfg: DictConfig) -> NoReturn:
        raise ConfigError("no such loss")

    build.loss = refuse


def test_a_device_that_is_not_there_is_told_once(outputs: Outputs) -> None:
    answer = outputs.sweep(*QUICK, "tracking=none", "seed=range(4)", "trainer.device=mps", status=2)
    assert_one_line(answer, "trainer.device=mps: not available on this machine")
    assert not (outputs.path / "runs").exists()


def test_credentials_of_a_tracking_uri_are_written_nowhere(outputs: Outputs) -> None:
    uri = "tracking.uri=http://admin:hunter2@127.0.0.1:1"
    outputs.sweep(*QUICK, "trainer.epochs=1", uri, "seed=0,1")
    files = [path for path in outputs.path.rglob("*") if path.is_file()]
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []


def test_a_diverged_run_is_the_worst_and_no_failure(outputs: Outputs) -> None:
    words = (*QUICK, "tracking=none", "optimizer=sgd", "optimizer.lr=1e12,0.1", "confirm=1")
    answer = outputs.sweep(*words, "objective=val_loss")
    search, confirm = outputs.table[:2], outputs.table[2:]
    assert [row["status"] for row in search] == ["diverged", "finished"]
    assert [(row["optimizer.lr"], row["status"]) for row in confirm] == [("0.1", "finished")]
    assert "1 diverged" in answer.stdout
    assert outputs.definition["best_objective"] == float(search[1]["objective"])


# Stopped and killed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_ends_in_order_and_goes_on_by_the_same_command(
    outputs: Outputs, undisturbed: Outputs, number: signal.Signals
) -> None:
    command = outputs.start(*FOUR, before=partial(unhurried, unwatched))
    lines = len(next(iter(undisturbed.runs.values())).journal())
    outputs.wait_for_lines(lines + 20)
    command.send(number)
    answer = command.wait()
    assert (answer.status, answer.stderr) == (130, "interrupted\n")
    assert outputs.statuses == {"finished": 1, "interrupted": 1}
    (stopped,) = [run for run in outputs.runs.values() if run.status().name == "interrupted"]
    assert (stopped.path / "last.pt").exists()
    assert outputs.definition["status"] == "interrupted"
    assert "status     interrupted; repeat the command to continue" in answer.stdout
    outputs.assert_tracked()
    parent = outputs.tracked[outputs.definition["id"]]
    assert (parent.info.status, parent.data.tags["status"]) == ("KILLED", "interrupted")
    assert counts(parent) == {"finished": 1, "interrupted": 1, "waiting": 2}

    outputs.sweep(*FOUR)
    assert_same_sweep(outputs, undisturbed)
    outputs.assert_tracked()
    assert counts(outputs.tracked[outputs.definition["id"]]) == {"finished": 4}


def counts(parent: Run) -> dict[str, int]:
    """The numbers of runs by status that a sweep's MLflow run tells."""
    return {
        key[5:]: int(n)
        for key, n in parent.data.metrics.items()
        if key != "runs_reused" and n and key[:5] == "runs_"
    }


@pytest.mark.parametrize(
    "moment",
    [
        stopped_at_start,
        stopped_in_an_upload,
        stopped_as_a_run_begins,
        stopped_at_end,
    ],
)
def test_wherever_a_sweep_is_stopped_nothing_is_left_running(
    outputs: Outputs, moment: Callable[[], None]
) -> None:
    grid = (*QUICK, "seed=range(2)")
    answer = outputs.sweep(*grid, status=130, before=moment)
    assert answer.stderr == "interrupted\n"
    assert outputs.definition["status"] in ("interrupted", "finished")
    assert "running" not in outputs.statuses
    outputs.assert_tracked()
    outputs.sweep(*grid)
    assert outputs.definition["status"] == "finished"
    outputs.assert_tracked()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_a_sweep_killed_at_random_moments_ends_as_one_that_was_not(
    tmp_path: Path, empty_store: Path, undisturbed: Outputs, kills: int
) -> None:
    """A sweep is killed, and started again, until it comes to its end; then the next one begins."""
    chance = random.Random(kills)
    seconds = 0.5 + undisturbed.definition["ended"] - undisturbed.definition["started"]
    killed = number = 0
    while killed < kills:
        number += 1
        with outputs_in(tmp_path / str(number), empty_store) as outputs:
            command = outputs.start(*FOUR, before=eager)
            while killed < kills:
                command.process.join(chance.random() * seconds)
                if not command.process.is_alive():
                    break
                command.process.kill()
                command.process.join()
                killed += 1
                command = outputs.start(*FOUR, before=eager)
            assert command.wait().status == 0
            assert_same_sweep(outputs, undisturbed)
            outputs.assert_tracked()
            assert outputs.definition["counts"] == {"finished": 4}


def test_a_search_that_is_killed_goes_on_where_it_was(outputs: Outputs, others: Outputs) -> None:
    search = (
        *QUICK, "tracking=none", "optimizer=sgd", "optimizer.lr=tag(log, interval(1e-3, 1))",
        "optimizer.momentum=interval(0, 0.9)", "sampler=tpe", "trials=4", "seeds=2",
    )  # fmt: skip
    others.sweep(*search)
    assert len({row["optimizer.lr"] for row in others.table}) == 4
    outputs.sweep(*search, status=-signal.SIGKILL, before=killed_as_the_fifth_run_begins)
    assert len(outputs.runs) == 5
    outputs.sweep(*search)
    assert_same_sweep(outputs, others)
    outputs.sweep(*search)  # and once more, from the record alone
    assert_same_sweep(outputs, others)


@pytest.mark.parametrize("other", [FOUR, (*FOUR[:-2], "optimizer.lr=0.01,0.3", FOUR[-1])])
def test_two_sweeps_at_once_train_each_run_once(
    outputs: Outputs, undisturbed: Outputs, other: tuple[str, ...]
) -> None:
    commands = [outputs.start(*words) for words in (FOUR, other)]
    answers = [command.wait() for command in commands]
    assert [answer.status for answer in answers] == [0, 0], answers
    shared = undisturbed.runs.keys() & outputs.runs.keys()
    assert len(shared) == 4
    for signature in shared:
        assert figures(outputs.runs[signature]) == figures(undisturbed.runs[signature])
    assert_trained_once(outputs)
    outputs.assert_tracked()
    reused = [read_json(path)["reused"] for path in (outputs.path / "sweeps").glob("*/sweep.json")]
    assert sum(reused) == (4 if other == FOUR else 2)
    if other == FOUR:
        assert sum("is running in another process; waiting for it" in a.stdout for a in answers) == 1


def test_a_server_that_is_away_is_told_once(outputs: Outputs) -> None:
    answer = outputs.sweep(*QUICK, "seed=range(3)", "tracking.uri=http://127.0.0.1:1")
    assert answer.stdout.count("Nothing is lost") == 1
    assert "to upload  4 records" in answer.stdout
    assert outputs.statuses == {"finished": 3}


def test_jobs_of_hydras_own_sweeper_are_no_single_runs(outputs: Outputs) -> None:
    words = (*QUICK, "seed=range(3)", "hydra/sweeper=basic")
    outputs.sweep(*words, status=1, before=unlucky)
    assert outputs.statuses == {"finished": 1, "failed": 2}
    outputs.sweep(*words)
    assert outputs.statuses == {"finished": 3}
    assert not list(outputs.path.glob("runs/*/pictures"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_eight_processes_at_once_open_a_database_that_does_not_exist_yet_20_times(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        processes = [FORKS.Process(target=open_store, args=(folder,)) for _ in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 8
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        assert len(client.search_experiments()) == 2
        assert len(client.search_runs(["1"])) == 8


def open_store(folder: Path, settings: str = "") -> None:
    uri = f"sqlite:///{folder}/mlflow.db{settings}"
    made = store.Store(uri, folder)
    made.client.create_run(made.experiment("fairsweep", print))


def test_a_database_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    for action, status in ((open_store_and_die, -signal.SIGKILL), (open_store, 0)):
        process = FORKS.Process(target=action, args=(tmp_path / "outputs",))
        process.start()
        process.join()
        assert process.exitcode == status


def test_the_uri_of_a_database_that_does_not_exist_yet_may_have_settings(tmp_path: Path) -> None:
    process = FORKS.Process(target=open_store, args=(tmp_path, "?timeout=30"))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "mlflow.db").exists()


def open_store_and_die(folder: Path) -> None:
    from alembic.ddl.impl import DefaultImpl

    add = DefaultImpl.add_column

    def add_and_die(*args: Any, **kwargs: Any) -> None:
        add(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    DefaultImpl.add_column = add_and_die  # type: ignore[method-assign]
    open_store(folder)


# Mistakes


def arms(adam: str, sgd: str = 'optimizer: sgd, optimizer.lr: "0.1,0.01"') -> str:
    return f"arms={{adam: {{{adam}}}, sgd: {{{sgd}}}}}"


REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a space after a comma": (
        ("optimizer.lr=0.1,", "0.01"),
        ("optimizer.lr=0.1,: ends with a comma", "remove the space"),
    ),
    "a list without brackets": (("seeds=0,1,2",), ("seeds=0,1,2: a setting of the sweep", "'seeds=[0,1,2]'")),
    "an empty arm": ((arms(""),), ("hydra.sweeper.arms.adam: is empty",)),
    "an unknown key in an arm": (
        (arms('optimizer: adam, optimizer.lrr: "1,2"'),),
        ("hydra.sweeper.arms.adam: optimizer.lrr: unknown key", "did you mean 'lr'"),
    ),
    "an unknown choice in an arm": (
        (arms('optimizer: adm, optimizer.lr: "1,2"'),),
        ("hydra.sweeper.arms.adam: optimizer=adm: no such choice", "did you mean 'adam'"),
    ),
    "no job at once": (
        ("hydra.sweeper.max_batch_size=-1",),
        ("error: hydra.sweeper.max_batch_size=-1: must be null or a whole number, 1 or more",),
    ),
    "a value of an arm out of range": (
        (arms('optimizer: adam, optimizer.lr: "0.1,-1"'),),
        ("hydra.sweeper.arms.adam: optimizer.lr=-1: must be a number above 0",),
    ),
    "an interval with an end that is not allowed": (
        (arms('optimizer: adam, scheduler.warmup: "interval(0,10)"'), "sampler=random", "trials=2"),
        ("hydra.sweeper.arms.adam: scheduler.warmup=10.0: must be below trainer.epochs=10",),
    ),
    "ends that do not go together": (
        ("trainer.epochs=range(5,9)", "scheduler.warmup=interval(0,5)", "sampler=tpe", "trials=2"),
        ("scheduler.warmup=5.0: must be below trainer.epochs=5",),
    ),
    "a value of a list that is not allowed, with a sampler": (
        ("optimizer.lr=0.1,0.2,-1", "sampler=tpe", "trials=2"),
        ("optimizer.lr=-1: must be a number above 0",),
    ),
    "an interval of an arm that cannot be": (
        (arms('optimizer: adam, optimizer.lr: "interval(1, 0)"'), "trials=2"),
        ("hydra.sweeper.arms.adam: optimizer.lr=interval(1, 0): must go from",),
    ),
    "arms of unequal budget": (
        (arms('optimizer: adam, optimizer.lr: "1,2,3"'),),
        ("arms: must have the same number of trials, but adam has 3, sgd has 2", "equal_budget=false"),
    ),
    "a key that the arms decide": (
        (arms('optimizer: adam, optimizer.lr: "1,2"'), "optimizer=adam"),
        ("optimizer=adam: the arms decide this (here optimizer=adam)",),
    ),
    "an objective of an arm": (
        (arms('optimizer: adam, objective: val_loss, optimizer.lr: "1,2"'),),
        ("arms.adam: objective=val_loss: must be val_accuracy in all runs",),
    ),
    "objectives in a grid": (
        ("objective=val_accuracy,val_loss",),
        ("objective=val_loss: must be val_accuracy in all runs",),
    ),
    "arms without validation": (
        (arms('optimizer: adam, optimizer.lr: "1,2"'), "data.val_size=0"),
        ("data.val_size=0", "set it above 0"),
    ),
    "a sampler without validation": (
        ("optimizer.lr=interval(0.1,1)", "sampler=random", "trials=2", "data.val_size=0"),
        ("data.val_size=0", "set it above 0"),
    ),
    "cmaes over a list": (
        ("optimizer=adam,sgd", "optimizer.lr=0.1,0.01", "sampler=cmaes", "trials=2"),
        ("hydra.sweeper.sampler=cmaes: searches numbers only, and optimizer.lr is a list",),
    ),
    "an unknown sampler": (
        ("optimizer.lr=interval(0.1,1)", "sampler=tpee", "trials=2"),
        ("hydra.sweeper.sampler=tpee: no such sampler", "did you mean 'tpe'"),
    ),
    "a sampler without trials": (
        ("optimizer.lr=interval(0.1,1)", "sampler=tpe"),
        ("hydra.sweeper.trials: is missing",),
    ),
    "an interval in a grid without trials": (
        ("optimizer.lr=interval(0.1,1)",),
        ("hydra.sweeper.trials: is missing",),
    ),
    "trials that are no number": (
        ("optimizer.lr=interval(0.1,1)", "trials=many"),
        ("hydra.sweeper.trials=many: not allowed: Value 'many'", "could not be converted to Integer"),
    ),
    "a batch that is no number": (("batch=true",), ("hydra.sweeper.batch=true: not allowed",)),
    "halving that is no whole number": (("halving=1.5",), ("hydra.sweeper.halving=1.5: not allowed",)),
    "seeds that are no number": (("seeds=true",), ("hydra.sweeper.seeds=true: must be a number of seeds",)),
    "a seed that is no whole number": (("seed=1.5",), ("seed=1.5: must be a whole number, 0 or more",)),
    "a seed that is a truth value": (("seed=true",), ("seed=true: must be a whole number",)),
    "a seed that is a text": (("seed=abc",), ('seed="abc": must be a whole number',)),
    "a seed that is a list": (("seed=[0,1,2]",), ("seed=[0, 1, 2]: must be a whole number",)),
    "no seed": (("~seed",), ("seed",)),
    "seeds of an interval": (("seed=interval(0,3)",), ("seed=interval(0,3): must be a list of seeds",)),
    "seeds of an endless range": (("seed=range(1,3,0)",), ("seed=range(1,3,0): contains no value",)),
    "another objective": (
        ("objective=test_accuracy",),
        ('objective="test_accuracy": must be val_accuracy | val_loss',),
    ),
    "no epochs": (("trainer.epochs=null",), ("trainer.epochs=null: must be a whole number",)),
    "no folder": (("seed=1", "record.dir=null"), ("record.dir=null: must be a folder",)),
    "no settings of the record": (("record=3",), ("record.dir",)),
    "epochs that lead nowhere": (
        ("trainer.epochs=${nowhere}",),
        ("trainer.epochs: Interpolation key 'nowhere'",),
    ),
    "too many seeds": (
        ("seeds=100000",),
        ("hydra.sweeper.seeds=100000: must be a number of seeds, 1 to 10000",),
    ),
    "too many confirm runs": (
        ("confirm=100000",),
        ("hydra.sweeper.confirm=100000: must be a whole number, 0 to",),
    ),
    "too many trials": (
        ("optimizer.lr=interval(0.1,1)", "trials=1000000000000"),
        ("hydra.sweeper.trials=1000000000000: must be at most 10,000",),
    ),
    "too many runs": (
        ("trainer.epochs=range(1,1001)", "seeds=100"),
        ("hydra.sweeper: 100,000 runs, by 1000 trials and 100 seeds: must be at most 10,000 in one sweep",),
    ),
    "too many runs of a sampler": (
        ("optimizer.lr=interval(0.1,1)", "sampler=random", "trials=9000", "extend=true", "confirm=999"),
        ("10,001 runs, by 9002 trials, 1 seed and 999 confirm runs in each arm",),
    ),
    "seeds that repeat": (("seed=1,1",), ("seeds=[1, 1]: has 1 twice",)),
    "listed seeds that repeat": (("seeds=[3,3]",), ("seeds=[3, 3]: has 3 twice",)),
    "seeds said twice": (("seeds=2", "seed=1,2"), ("seed=1,2", "give one of the two")),
    "a seed below 0": (("seed=-1,0",), ("seeds", "whole numbers")),
    "no seeds": (("seeds=0",), ("seeds=0: must be a number of seeds, 1 to 10000",)),
    "a confirm seed in the search": (
        ("seeds=[0,1000]", "confirm=2"),
        ("has 1000, a seed of the confirm phase",),
    ),
    "confirm below 0": (("confirm=-1",), ("hydra.sweeper.confirm=-1: must be",)),
    "extend on a list": (
        ("optimizer.lr=0.1,0.01", "extend=true"),
        ("hydra.sweeper.extend=true: needs", "no order"),
    ),
    "halving by 1": (
        ("optimizer.lr=0.1,0.01", "halving=1"),
        ("hydra.sweeper.halving=1: must be", "2 or more"),
    ),
    "halving of too few": (("optimizer.lr=0.1", "halving=3"), ("hydra.sweeper.halving=3: needs",)),
    "halving of what learns": (
        ("optimizer.lr=interval(0.1,1)", "sampler=tpe", "trials=4", "halving=2"),
        ("hydra.sweeper.halving=2: needs all trials at once",),
    ),
    "a value of a grid out of range": (
        ("optimizer.lr=0.1,-1",),
        ("optimizer.lr=-1: must be a number above 0",),
    ),
    "an unknown choice in a grid": (
        ("optimizer=adam,sdg",),
        ("optimizer=sdg: no such choice", "did you mean 'sgd'"),
    ),
    "an unknown key in a grid": (
        ("optimizer.lrr=1,2",),
        ("optimizer.lrr: unknown key", "did you mean 'lr'"),
    ),
    "pauses that differ": (
        ("trainer.stop_epoch=1,2",),
        ("trainer.stop_epoch=1: must be the same for the whole sweep",),
    ),
    "a pause beside halving": (
        ("optimizer.lr=0.1,0.2", "halving=2", "trainer.stop_epoch=1"),
        ("trainer.stop_epoch=1: halving decides where runs pause",),
    ),
    "an unknown setting": (("hydra.sweeper.trails=2",), ("trails: unknown key", "did you mean 'trials'")),
    "an unknown preset": (
        ("+sweep=adam_vs_sdg",),
        ("sweep=adam_vs_sdg: no such choice", "did you mean 'adam_vs_sgd'"),
    ),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """The answer to each of REFUSED; nothing was written."""
    folder = tmp_path_factory.mktemp("refusals") / "outputs"
    lines = [["-m", f"record.dir={folder}", *words] for words, _ in REFUSED.values()]
    found = answers(lines)
    assert not folder.exists()
    return dict(zip(REFUSED, found, strict=True))


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_gets_one_line_before_anything_is_trained(
    mistake: str, refusals: dict[str, Answer]
) -> None:
    assert_one_line(refusals[mistake], *REFUSED[mistake][1])
    assert refusals[mistake].stdout == ""
    assert refusals[mistake].slow == []


def test_settings_of_sweeps_mean_nothing_without_m(tmp_path: Path) -> None:
    answer = shell(f"record.dir={tmp_path}/outputs", "dry_run=true")
    assert_one_line(answer, "dry_run")
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_folder_that_is_not_this_commands_is_refused(outputs: Outputs) -> None:
    place = f"hydra.sweep.dir={outputs.path}/mine"
    words = (*QUICK, "tracking=none", "optimizer=sgd")
    outputs.sweep(*words, "optimizer.lr=0.1", place)
    assert (outputs.path / "mine" / "table.csv").exists()
    before, trained = snapshot(outputs.path), outputs.trained
    answer = outputs.sweep(*words, "optimizer.lr=0.1,0.2", place, status=2)
    assert_one_line(answer, place, "belongs to another command (src/train.py -m ")
    (outputs.path / "notes").mkdir()
    (outputs.path / "notes" / "mine.txt").write_text("mine")
    before = snapshot(outputs.path)
    answer = outputs.sweep(*words, "optimizer.lr=0.1", f"hydra.sweep.dir={outputs.path}/notes", status=2)
    assert_one_line(answer, f"hydra.sweep.dir={outputs.path}/notes: is not a sweep's folder")
    assert snapshot(outputs.path) == before
    outputs.sweep(*words, "optimizer.lr=0.1", "seed=range(2)", place)
    assert trained.items() <= outputs.trained.items()


def test_an_output_folder_that_is_a_file_is_refused(outputs: Outputs) -> None:
    (outputs.path / "file").write_text("x")
    answer = outputs.sweep(*QUICK, "seed=1,2", f"record.dir={outputs.path}/file", status=2)
    assert_one_line(answer, f'record.dir="{outputs.path}/file": must be a folder, or a new path in one')


def snapshot(folder: Path) -> dict[str, bytes]:
    """What all files of a folder hold."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Looked at


def test_dry_run_lists_the_runs_and_writes_nothing(outputs: Outputs) -> None:
    words = (*QUICK, "optimizer=sgd", "confirm=2")
    outputs.sweep(*words, "optimizer.lr=0.1", "confirm=0")
    before = snapshot(outputs.path)
    answer = outputs.sweep(*words, "optimizer.lr=0.1,0.2,0.3", "dry_run=true")
    *lines, blank, last = answer.stdout.splitlines()
    assert [line.split()[1:] for line in lines] == [
        ["exists", "lr=0.1", "seed=0"],
        ["to", "train", "lr=0.2", "seed=0"],
        ["to", "train", "lr=0.3", "seed=0"],
    ]
    assert blank == ""
    assert last.startswith("3 runs, 2 to train; then up to 2 more, chosen by what these give; about 0 s")
    assert re.search(r"of training, \d+ kB of weights, of which \d+ kB stay$", last)
    assert snapshot(outputs.path) == before


def test_dry_run_makes_no_folder(tmp_path: Path, outputs: Outputs) -> None:
    answer = outputs.sweep("optimizer=adam,sgd", f"record.dir={tmp_path}/new", "dry_run=true")
    assert "2 runs, 2 to train" in answer.stdout
    assert not (tmp_path / "new").exists()


def test_compare_shows_a_sweep_in_progress_killed_and_finished(
    outputs: Outputs, undisturbed: Outputs
) -> None:
    def compare(*words: str, status: int = 0) -> Answer:
        return outputs.sweep(*words, script="src/compare.py", status=status)

    assert_one_line(compare(status=2), "sweep=latest: no sweep")
    words = (*FOUR, "tracking=none")
    lines = len(next(iter(undisturbed.runs.values())).journal())
    sweep = outputs.start(*words, before=partial(unhurried, eager))
    outputs.wait_for_lines(lines + 20)
    sweep.send(signal.SIGSTOP)
    answer = compare()
    assert "in progress" in answer.stdout
    assert "1 finished, 1 running" in answer.stdout
    sweep.process.kill()
    sweep.process.join()
    answer = compare()
    assert "its process died; repeat the command to continue" in answer.stdout
    outputs.sweep(*words)
    answer = compare(f"sweep={outputs.definition['id']}")
    assert "finished" in answer.stdout
    assert "4 finished" in answer.stdout
    assert_one_line(compare("sweep=s0123", status=2), "sweep=s0123", "latest")


# Presets


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        (("+sweep=adam_vs_sgd", "trials=3", "confirm=2"), {"adam": 5, "sgd": 5}),
        (("+sweep=lr_range", "optimizer=sgd"), {"": 7}),
        (("+sweep=tpe", "trials=2", "confirm=1"), {"adam": 3, "sgd": 3}),
    ],
)
def test_the_presets_work(outputs: Outputs, words: tuple[str, ...], counts: dict[str, int]) -> None:
    outputs.sweep(*QUICK, "trainer.epochs=1", "tracking=none", *words)
    assert Counter(row["arm"] for row in outputs.table) == counts
    assert outputs.statuses.keys() <= {"finished", "diverged"}


def test_adam_against_sgd_on_real_mnist(real_mnist: str, outputs: Outputs) -> None:
    outputs.sweep(
        "+sweep=adam_vs_sgd", "data=mnist", f"data.root={real_mnist}", "data.limit=200",
        "trainer.epochs=1", "trainer.threads=1", "trials=2", "confirm=1",
    )  # fmt: skip
    assert Counter(row["arm"] for row in outputs.table) == {"adam": 3, "sgd": 3}
    assert outputs.statuses.keys() <= {"finished", "diverged"}
    outputs.assert_tracked()
