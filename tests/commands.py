"""Commands of ours in processes of their own, forked from one that has imported what is slow to import."""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fairsweep.config import ROOT
from fairsweep.runs import uploader

FORKS = multiprocessing.get_context("forkserver")


class Answer(NamedTuple):
    """How a command ended and what it said; `slow`: which of the slow modules it had imported by then."""

    status: int
    stdout: str
    stderr: str
    slow: tuple[str, ...] = ()


def start_server() -> None:
    """Start the process that commands are forked from, before any test changes the environment.

    The first fork would start it, too, but without what is slow to import: then each command imports it anew.
    """
    slow = ("torch._dynamo", "sklearn.datasets", "mlflow.store.tracking.sqlalchemy_store", "mlflow.pytorch")
    ours = ("fairsweep.training.loop", "fairsweep.sweeps.sweep", "fairsweep.compare.report", "test_sweep")
    FORKS.set_forkserver_preload(["sqlalchemy.dialects.sqlite", "optuna", *slow, *ours])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()


def nothing() -> None:
    pass


def in_environment(changes: dict[str, str]) -> None:
    """Variables that a command finds, with one thread and errors in one line."""
    os.environ.pop("HYDRA_FULL_ERROR", None)
    os.environ.update({"OMP_NUM_THREADS": "1", **changes})


class ForkedUploader:
    """The process that uploads, forked instead of started: MLflow is imported there already."""

    def __init__(self) -> None:
        requests, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(requests[0], 0)
            os.dup2(answers[1], 1)
            os.closerange(3, 256)
            uploader.main()
        os.close(requests[0])
        os.close(answers[1])
        self.stdin, self.stdout = os.fdopen(requests[1], "w"), os.fdopen(answers[0])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> None:
        os.waitpid(self.pid, 0)


def unhurried(change: Callable[[], None] = nothing) -> None:
    """Another change, and slower steps, so that a quick machine is hit in the middle, too."""
    from fairsweep.training.lane import Lane

    change()
    step = Lane.train_step

    def train_step(lane: Lane, index: Any) -> None:
        time.sleep(0.005)
        step(lane, index)

    Lane.train_step = train_step  # type: ignore[method-assign]


class Command:
    """A command; what it prints goes to files beside its outputs.

    Args:
        before: is called in its process before it starts, to change something there.
    """

    def __init__(
        self,
        outputs: Path,
        words: tuple[str, ...],
        before: Callable[[], None] = nothing,
        script: str = "src/train.py",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{outputs.name}-", dir=outputs.parent))
        (self.folder / "stdout").touch()
        self.process = FORKS.Process(target=run, args=(self.folder, script, words, before))
        self.process.start()

    def wait(self) -> Answer:
        self.process.join(180)
        assert self.process.exitcode is not None, f"still running after three minutes\n{self.stdout}"
        return Answer(self.process.exitcode, self.stdout, (self.folder / "stderr").read_text())

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def run(folder: Path, script: str, words: tuple[str, ...], before: Callable[[], None]) -> None:
    """The body of a command's process."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.chdir(ROOT)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # bits are compared
    sys.argv = [script, *words]
    uploader.launch = ForkedUploader  # type: ignore[assignment]
    try:
        before()
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
