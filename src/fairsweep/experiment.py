"""Runs, from configurations to outcomes: what is finished is taken over, what is not goes on where it was."""

import dataclasses
import hashlib
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import Timeout
from omegaconf import DictConfig

from fairsweep import config, record, tensorboard, tracking
from fairsweep.config import OBJECTIVES, ROOT, ConfigError
from fairsweep.progress import Progress
from fairsweep.record import FINAL, RunFolder
from fairsweep.sources import fingerprint

if TYPE_CHECKING:
    from fairsweep.training import Event, Lane

# A kill costs at most so much training; writing a checkpoint takes a few hundredths of a second.
CHECKPOINT_SECONDS = 10.0

# Free room on the disk without which no run is begun.
LEAST_FREE_BYTES = 50_000_000

# The files that decide how a configuration trains.
CODE = ("build.py", "data.py", "losses.py", "models.py", "sources.py", "training.py")

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "mlflow", "numpy")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run; `reused` where it had been finished before."""

    folder: RunFolder
    status: dict[str, Any]
    reused: bool = False

    @property
    def objective(self) -> float | None:
        """The objective: the worst there is where the run diverged, None where none is defined."""
        if self.status["status"] == "diverged":
            return -math.inf * OBJECTIVES[self.status["objective_key"]]
        objective: float | None = self.status["objective"]
        return objective


def run(configs: Sequence[DictConfig], progress: Progress, single: bool = True) -> list[Outcome]:
    """Take over, resume or train each run; each ends with a status, whatever happens.

    Ctrl-C or SIGTERM ends the runs in progress as `interrupted`, with a checkpoint each; a second one does
    so at once, without.

    Args:
        single: the run is not one of many: it gets pictures and an MLflow model.

    Raises:
        ConfigError: a configuration is not good, or the outputs cannot be written; nothing is trained then.
    """
    with ExitStack() as stack:
        opened = [open_run(cfg, progress, single, stack) for cfg in configs]
        jobs = {job.lane: job for job in opened if isinstance(job, Job)}
        if jobs:
            train(jobs, progress)
        return [
            entry if isinstance(entry, Outcome) else Outcome(entry.folder, entry.folder.status())
            for entry in opened
        ]


def open_run(cfg: DictConfig, progress: Progress, single: bool, stack: ExitStack) -> "Outcome | Job":
    """The outcome of a finished run, or the job to train one. Its folder is locked as long as the stack."""
    config.check(cfg)
    cfg = with_weights_file(cfg)
    folder = record.folder_of(cfg.record.dir, config.signature(cfg))
    check_writable(folder)
    if cfg.tracking.tensorboard:
        tensorboard.check_installed()
    try:
        stack.enter_context(folder.lock().acquire(timeout=0))
    except Timeout:
        progress.note(f"run {folder.signature} is being trained by another process; waiting for it")
        stack.enter_context(folder.lock().acquire())
    status = folder.status()
    stale = cfg.rerun or stale_reason(cfg, status)
    if status.get("status") in FINAL and not stale:
        tracking.sync(folder, cfg, progress.note)
        return Outcome(folder, status, reused=True)
    return open_job(cfg, folder, progress, single, stale)


def open_job(
    cfg: DictConfig, folder: RunFolder, progress: Progress, single: bool, stale: bool | str
) -> "Job":
    """Build the run's lane, and only when all fits, its folder; or go on from its last checkpoint."""
    from fairsweep.training import Lane

    state, complaints = (None, []) if stale else folder.load_checkpoint()
    prepare_process(cfg, state["threads"] if state else cfg.trainer.threads)
    lane = Lane(cfg)
    if state is not None:
        lane.load_state_dict(state)
    elif cfg.trainer.weights is not None:
        lane.load_weights(starting_weights(cfg.trainer.weights), cfg.trainer.weights)
    if stale and folder.path.exists():
        old = folder.archive()
        tracking.supersede(RunFolder(old), cfg, progress.note)
        if isinstance(stale, str):
            progress.note(f"{stale}: training again; the old run is in {old}")
    if state is not None:
        folder.truncate_journal(state["journal_bytes"])
        folder.set_status(status="running", ended=None, pid=os.getpid())
        resumed = f"going on after step {lane.step} of {lane.total_steps}"
        progress.note(f"run {folder.signature}: {resumed}")
        folder.log(resumed)
    else:
        new = not folder.path.exists()
        try:
            folder.create(cfg, lane.data.facts(), **provenance(cfg, lane, single))
        except OSError as error:
            if new:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise ConfigError(
                f"record.dir={cfg.record.dir}: cannot write to {folder.path}: {error.strerror}"
            ) from error
    for complaint in complaints:
        progress.note(complaint)
        folder.log(complaint)
    if cfg.trainer.stop_epoch is not None and lane.epoch >= cfg.trainer.stop_epoch:
        lane.end("paused", f"trainer.stop_epoch={cfg.trainer.stop_epoch} reached")
    return Job(cfg, folder, lane, progress)


def train(jobs: dict["Lane", "Job"], progress: Progress) -> None:
    """Train the jobs' lanes and record what they tell."""
    from fairsweep.training import fit

    try:
        with progress, stopping_on_signals() as stop:
            for event in fit(jobs, stop):
                jobs[event.lane].record(event)
    except BaseException as error:
        # A second Ctrl-C, or a fault of ours: no run stays behind as `running`.
        for job in jobs.values():
            if job.folder.status()["status"] == "running":
                reason = f"{type(error).__name__} after step {job.lane.step}"
                job.folder.set_status(status="interrupted", reason=reason, ended=time.time())
                tracking.sync(job.folder, job.cfg, progress.note)
        raise


class Job:
    """A run in progress: its lane, its folder, and what was written of it last."""

    def __init__(self, cfg: DictConfig, folder: RunFolder, lane: "Lane", progress: Progress) -> None:
        self.cfg, self.folder, self.lane, self.progress = cfg, folder, lane, progress
        self.checkpointed = time.monotonic()
        self.best_epoch = -1  # the epoch that best.pt is of

    def record(self, event: "Event") -> None:
        """Write down what the lane tells. A disk that refuses ends the lane as failed."""
        try:
            for line in event.lines:
                self.folder.append(line)
            self.progress.show(self.lane, event.lines)
            if self.cfg.record.keep == "all" and any("epoch_seconds" in line for line in event.lines):
                self.folder.save(f"epoch_{self.lane.epoch:04}.pt", self.lane.snapshot())
            if self.lane.ending is not None:
                self.close()
            elif time.monotonic() - self.checkpointed >= CHECKPOINT_SECONDS:
                self.checkpoint()
                tracking.sync(self.folder, self.cfg, self.progress.note)
                self.checkpointed = time.monotonic()
        except OSError as error:
            reason = f"cannot write to {self.folder.path}: {error.strerror}"
            self.lane.end("failed", reason, error)
            self.folder.set_status(**self.ending_status())

    def checkpoint(self) -> None:
        best = self.lane.best
        improved = best is not None and best["epoch"] != self.best_epoch
        self.folder.save_checkpoint(self.lane.state_dict(), best if improved else None)
        self.best_epoch = best["epoch"] if best is not None else -1

    def close(self) -> None:
        """Write how the run ended, keep of it what that calls for, and make its pictures."""
        status = self.ending_status()
        self.folder.log(f"{status['status']} after step {self.lane.step}. {status['reason']}")
        if status["status"] in FINAL:
            self.folder.finish(self.lane.kept(self.cfg.record.keep), status)
        else:
            if status["status"] != "failed":
                self.checkpoint()
            self.folder.set_status(**status)
        try:
            self.illustrate(status["status"])
        except (OSError, ConfigError) as error:  # the record is complete; these can be made of it later
            self.folder.log(f"pictures: {error}")
            self.progress.note(f"pictures: {error}")
        tracking.sync(self.folder, self.cfg, self.progress.note)

    def illustrate(self, status: str) -> None:
        """Pictures and event files, where they are wanted."""
        choice = self.cfg.record.pictures
        wanted = choice == "all" or (choice == "auto" and bool(self.folder.status()["single"]))
        if status == "finished" and wanted:
            from fairsweep import pictures

            pictures.draw(self.folder)
        if self.cfg.tracking.tensorboard:
            tensorboard.write(self.folder)

    def ending_status(self) -> dict[str, Any]:
        ending, lane = self.lane.ending, self.lane
        assert ending is not None
        if ending.error is not None:
            self.folder.log("".join(traceback.format_exception(ending.error)))
        figures = self.folder.journal()[-1] if ending.status == "finished" else {}
        return {
            "status": ending.status,
            "reason": ending.reason,
            "ended": time.time(),
            "step": lane.step,
            "epoch": lane.epoch,
            "seconds": lane.seconds,
            "best_epoch": lane.best["epoch"] if lane.best else None,
            **{key: figures.get(key) for key in ("objective", "test_loss", "test_accuracy")},
        }


def with_weights_file(cfg: DictConfig) -> DictConfig:
    """The configuration with `trainer.weights` as a file's path, where it names a run."""
    which = cfg.trainer.weights
    if which is None:
        return cfg
    path = Path(which)
    if not path.is_file():
        try:
            path = record.find(cfg.record.dir, which).tested_weights_file()
        except ConfigError as error:
            raise ConfigError(f"trainer.weights={which}: neither a file nor a run ({error})") from error
    cfg = cfg.copy()
    cfg.trainer.weights = str(path.absolute())
    return cfg


def starting_weights(file: str) -> dict[str, Any]:
    try:
        return record.read_weights(Path(file))
    except ConfigError as error:
        raise ConfigError(f"trainer.weights={error}") from error


def check_writable(folder: RunFolder) -> None:
    """
    Raises:
        ConfigError: the output folder cannot be written, or its disk is full.
    """
    outputs = folder.path.parents[1]
    try:
        outputs.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(outputs).free
    except OSError as error:
        raise ConfigError(f"record.dir={outputs}: cannot be made: {error.strerror}") from error
    if not os.access(outputs, os.W_OK | os.X_OK):
        raise ConfigError(f"record.dir={outputs}: is not writable; choose another folder")
    if free < LEAST_FREE_BYTES:
        raise ConfigError(
            f"record.dir={outputs}: its disk is full ({free / 1e6:.1f} MB free, "
            f"{LEAST_FREE_BYTES / 1e6:.0f} MB needed); make room or choose another folder"
        )


def stale_reason(cfg: DictConfig, status: dict[str, Any]) -> str:
    """Why what is recorded is not this run any more; empty where it still is."""
    if not status or cfg.reuse == "any":
        return ""
    if status["code"] != code_hash():
        return "the training code has changed since"
    data = fingerprint(config.resolved(cfg)["data"])
    if data is not None and status["data"] != data:
        return "the data have changed since"
    return ""


@cache
def code_hash() -> str:
    content = b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)
    return hashlib.sha256(content).hexdigest()[:16]


def prepare_process(cfg: DictConfig, threads: int | None) -> None:
    """Set what torch only knows per process: threads, and determinism, which the CPU has anyway."""
    # cuBLAS reads this once, before its first call.
    if cfg.trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from fairsweep import build

    if threads is not None:
        torch.set_num_threads(threads)
    if build.device(cfg).type == "cuda":
        torch.use_deterministic_algorithms(cfg.trainer.deterministic)
        torch.backends.cudnn.benchmark = not cfg.trainer.deterministic


def provenance(cfg: DictConfig, lane: "Lane", single: bool) -> dict[str, Any]:
    """What a run's status says of where it comes from."""
    import torch

    return {
        "single": single,
        "objective_key": str(cfg.objective),
        "objective": None,
        "code": code_hash(),
        "data": lane.data.fingerprint,
        "device": device_name(lane.device),
        "precision": lane.precision,
        "threads": torch.get_num_threads(),
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "command": config.without_credentials(" ".join(sys.argv)),
        "git": git_state(),
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name) for name in PACKAGES},
        },
    }


def device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@cache
def git_state() -> dict[str, str]:
    """The commit of the project and whether files differ from it; empty outside a git checkout."""
    if not (ROOT / ".git").exists():
        return {}
    commit, changes = (
        subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    )
    return {"commit": commit.stdout.strip(), "dirty": str(bool(changes.stdout.strip())).lower()}


@contextmanager
def stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """A function that turns true after the first Ctrl-C or SIGTERM; the second raises KeyboardInterrupt."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
