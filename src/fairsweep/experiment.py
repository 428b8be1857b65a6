"""Runs, from configurations to outcomes: what is finished is taken over, what is not goes on where it was."""

import dataclasses
import hashlib
import json
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
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import Timeout
from omegaconf import DictConfig

from fairsweep import config, record, tensorboard, tracking
from fairsweep.config import OBJECTIVES, ROOT, ConfigError
from fairsweep.progress import Progress
from fairsweep.record import FINAL, Place, RunFolder
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


class RunFailed(Exception):
    """A run of a sweep has failed; its record has the traceback."""


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


def run(
    configs: Sequence[DictConfig], progress: Progress, places: Sequence[Place] | None = None
) -> list[Outcome]:
    """Take over, resume or train each run; each ends with a status, whatever happens.

    Ctrl-C or SIGTERM ends the runs in progress as `interrupted`, with a checkpoint each; a second one does
    so at once, without.

    Args:
        places: what each run is in its sweep. Without, they are single runs: these get pictures and an MLflow
            model, and one that cannot be built is a mistake of the user's, where one of many just fails.

    Raises:
        ConfigError: a configuration is not good, or the outputs cannot be written; nothing is trained then.
        KeyboardInterrupt: the user stopped, by a second Ctrl-C or after all runs had ended.
    """
    names, wanted = [], {}
    for given, place in zip(configs, places or repeat(None), strict=False):
        cfg, name = identify(given)
        names.append(name)
        wanted[name] = cfg, place
    with ExitStack() as stack:
        # In one order everywhere, so that two processes never wait for each other.
        opened = {name: open_run(*wanted[name], name, progress, stack) for name in sorted(wanted)}
        jobs = [entry for name in wanted if isinstance(entry := opened[name], Job)]
        if jobs:
            train(jobs, progress)
    outcomes = {
        name: Outcome(entry.folder, entry.folder.status()) if isinstance(entry, Job) else entry
        for name, entry in opened.items()
    }
    return [outcomes[name] for name in names]


def identify(cfg: DictConfig) -> tuple[DictConfig, str]:
    """The checked configuration, its starting weights as a file, and the run's signature.

    Raises:
        ConfigError: a key or a value is not allowed, or there are no such weights.
    """
    config.check(cfg)
    cfg = with_weights_file(cfg)
    return cfg, config.signature(cfg)


def is_done(cfg: DictConfig, status: dict[str, Any]) -> bool:
    """Whether the run of this status is not to be trained: it ended for good, with today's code and data."""
    return not cfg.rerun and status.get("status") in FINAL and not stale_reason(cfg, status)


def open_run(
    cfg: DictConfig, place: Place | None, signature: str, progress: Progress, stack: ExitStack
) -> "Outcome | Job":
    """The outcome of a finished run, or the job to train one. Its folder is locked as long as the stack."""
    folder = record.folder_of(cfg.record.dir, signature)
    check_writable(folder.path.parents[1])
    if cfg.tracking.tensorboard:
        tensorboard.check_installed()
    try:
        stack.enter_context(folder.lock().acquire(timeout=0))
    except Timeout:
        progress.note(f"run {signature} is being trained by another process; waiting for it")
        stack.enter_context(folder.lock().acquire())
    status = folder.status()
    if is_done(cfg, status):
        if place is not None:
            folder.join(place)
        made = illustrate(folder, cfg, progress, single=place is None)
        tracking.sync(folder, cfg, progress.note, again=made)
        return Outcome(folder, status, reused=True)
    stale = "rerun=true" if cfg.rerun else stale_reason(cfg, status)
    try:
        return Job(cfg, place, folder, progress, stale)
    except (Exception, SystemExit) as error:
        if place is None:
            raise
        # Of many runs, this one cannot be: its model is too large, its batch larger than the data.
        return failed_at_once(cfg, place, folder, error, progress)


def failed_at_once(
    cfg: DictConfig, place: Place, folder: RunFolder, error: BaseException, progress: Progress
) -> Outcome:
    """Record a run that failed before its first step."""
    if folder.status():
        folder.set_status(resumed=time.time())
    else:
        folder.create(cfg, {}, **provenance(cfg, place))
    fail(folder, f"{type(error).__name__}: {error}", error)
    folder.join(place)
    tracking.sync(folder, cfg, progress.note)
    return Outcome(folder, folder.status())


def fail(folder: RunFolder, reason: str, error: BaseException | None = None) -> None:
    """End a run as failed; an error goes to its log."""
    folder.log("".join(traceback.format_exception(error)) if error is not None else f"failed. {reason}")
    folder.set_status(status="failed", reason=reason, ended=time.time())


def prune(folder: RunFolder, cfg: DictConfig, reason: str, progress: Progress) -> None:
    """End a paused run as dropped by its sweep. Another sweep may take it up again, from its checkpoint."""
    with folder.lock():
        if folder.status()["status"] == "paused":
            folder.log(f"pruned. {reason}")
            folder.set_status(status="pruned", reason=reason, ended=time.time())
            tracking.sync(folder, cfg, progress.note)


def train(jobs: Sequence["Job"], progress: Progress) -> None:
    """Begin the jobs, train their lanes, and record what these tell."""
    from fairsweep.training import fit

    by_lane = {job.lane: job for job in jobs}
    try:
        with progress, stopping_on_signals() as stop:
            for job in jobs:
                job.begin()
            for event in fit(by_lane, stop):
                by_lane[event.lane].record(event)
        if stop() and not any(job.folder.status()["status"] == "interrupted" for job in jobs):
            raise KeyboardInterrupt  # it came when the last run had ended, and is meant for what follows
    except BaseException as error:
        # A second Ctrl-C, or a fault of ours: no run stays behind as `running`.
        ending = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        for job in jobs:
            if job.folder.status().get("status") == "running":
                reason = f"{type(error).__name__} after step {job.lane.step}"
                job.folder.set_status(status=ending, reason=reason, ended=time.time())
                tracking.sync(job.folder, job.cfg, progress.note)
        raise


class Job:
    """A run to train: its lane, its folder, and what was written of it last.

    Raises:
        ConfigError: data, model, device, starting weights do not fit each other. Nothing is written then.
    """

    def __init__(
        self, cfg: DictConfig, place: Place | None, folder: RunFolder, progress: Progress, stale: str
    ) -> None:
        from fairsweep.training import Lane

        self.cfg, self.place, self.folder, self.progress = cfg, place, folder, progress
        self.stale = stale
        self.state, self.complaints = (None, []) if stale else folder.load_checkpoint()
        prepare_process(cfg, self.state["threads"] if self.state else cfg.trainer.threads)
        self.lane = Lane(cfg)
        if self.state is None and cfg.trainer.weights is not None:
            self.lane.load_weights(starting_weights(cfg.trainer.weights), cfg.trainer.weights)
        self.checkpointed = time.monotonic()
        self.best_epoch = -1  # the epoch that best.pt is of

    def begin(self) -> None:
        """Go on from the last checkpoint; or make the run's folder, after what is stale was put away.

        Raises:
            ConfigError: the folder cannot be written.
        """
        folder, lane, state = self.folder, self.lane, self.state
        if self.stale and folder.path.exists():
            tracking.supersede(folder, self.cfg, self.progress.note)
            old = folder.archive()
            self.progress.note(f"{self.stale}: training again; the old run is in {old}")
        if state is not None:
            lane.load_state_dict(state)
            folder.truncate_journal(state["journal_bytes"])
            folder.set_status(
                status="running", resumed=time.time(), ended=None, journal_bytes=state["journal_bytes"]
            )
            self.tell(f"run {folder.signature}: going on after step {lane.step} of {lane.total_steps}")
            if state["device"] != lane.device.type:
                self.tell(f"its checkpoint was made on {state['device']}, it goes on on {lane.device.type}")
        else:
            self.create_folder()
        if self.place is not None:
            folder.join(self.place)
        for complaint in self.complaints:
            self.tell(complaint)
        if self.cfg.trainer.stop_epoch is not None and lane.epoch >= self.cfg.trainer.stop_epoch:
            lane.end("paused", f"trainer.stop_epoch={self.cfg.trainer.stop_epoch} reached")

    def create_folder(self) -> None:
        """Begin the run's record."""
        new = not self.folder.path.exists()
        try:
            origin = provenance(self.cfg, self.place, self.lane)
            self.folder.create(self.cfg, self.lane.data.facts(), **origin)
        except OSError as error:
            if new:
                shutil.rmtree(self.folder.path, ignore_errors=True)
            raise ConfigError(
                f"record.dir={self.cfg.record.dir}: cannot write to {self.folder.path}: {error.strerror}"
            ) from error

    def tell(self, text: str) -> None:
        """To the user, and to the run's log."""
        self.progress.note(text)
        self.folder.log(text)

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
            try:
                self.folder.set_status(**self.ending_status())
            except OSError:  # then its last checkpoint and the lock that it leaves tell the next command
                self.progress.note(reason)

    def checkpoint(self) -> None:
        """Write the lane's state, and its best weights if they are new."""
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
        illustrate(self.folder, self.cfg, self.progress, single=self.place is None)
        tracking.sync(self.folder, self.cfg, self.progress.note)

    def ending_status(self) -> dict[str, Any]:
        """What the status says of a run that has ended; an error goes to the run's log."""
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


def illustrate(folder: RunFolder, cfg: DictConfig, progress: Progress, single: bool) -> bool:
    """Make the pictures and event files of a finished run that are wanted and not there; whether any was."""
    wanted = cfg.record.pictures == "all" or (cfg.record.pictures == "auto" and single)
    draw = wanted and not (folder.pictures / "curves.png").exists()
    write_events = cfg.tracking.tensorboard and not (folder.path / "tensorboard").exists()
    if folder.status()["status"] != "finished" or not (draw or write_events):
        return False
    try:
        if draw:
            from fairsweep import pictures

            pictures.draw(folder)
        if write_events:
            tensorboard.write(folder)
    except Exception as error:  # the record is complete, and these can be made of it later
        folder.log("".join(traceback.format_exception(error)))
        progress.note(f"no pictures: {error}")
        return False
    return True


def estimate(cfg: DictConfig) -> float:
    """Seconds that a run takes, by the first second of it and one validation; nothing is kept.

    Raises:
        ConfigError: data, model, device do not fit each other.
    """
    from fairsweep.training import Lane

    prepare_process(cfg, cfg.trainer.threads)
    lane = Lane(cfg)
    with lane.own_random_state():
        lane.advance(1, lambda: False)  # the first one loads libraries
        started = time.perf_counter()
        while time.perf_counter() < started + 1 and lane.step % lane.steps_per_epoch:
            lane.advance(1, lambda: False)
        per_step = (time.perf_counter() - started) / max(lane.step - 1, 1)
        started = time.perf_counter()
        if len(lane.data.val):
            lane.evaluate(lane.data.val)
        per_epoch = time.perf_counter() - started
    seconds: float = lane.total_steps * per_step + cfg.trainer.epochs * per_epoch
    return seconds


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
    """The weights that `trainer.weights` names.

    Raises:
        ConfigError: the file is damaged or no checkpoint.
    """
    try:
        return record.read_weights(Path(file))
    except ConfigError as error:
        raise ConfigError(f"trainer.weights={error}") from error


def check_writable(outputs: Path) -> None:
    """
    Raises:
        ConfigError: the output folder cannot be written, or its disk is full.
    """
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
    data = known_fingerprint(json.dumps(config.resolved(cfg)["data"], sort_keys=True))
    if data is not None and status["data"] != data:
        return "the data have changed since"
    return ""


@cache
def known_fingerprint(data: str) -> str | None:
    """The fingerprint of a data configuration, given as JSON; read once for all runs of a process."""
    return fingerprint(json.loads(data))


@cache
def code_hash() -> str:
    """A hash (16 hex digits) of the code that decides how a configuration trains."""
    content = b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)
    return hashlib.sha256(content).hexdigest()[:16]


def prepare_process(cfg: DictConfig, threads: int | None) -> None:
    """Set what torch only knows per process: threads, and determinism, which the CPU has anyway."""
    # cuBLAS reads this once, before its first call.
    if cfg.trainer.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    from fairsweep import build

    default = default_threads()
    torch.set_num_threads(threads or default)
    if build.device(cfg).type == "cuda":
        torch.use_deterministic_algorithms(cfg.trainer.deterministic)
        torch.backends.cudnn.benchmark = not cfg.trainer.deterministic


@cache
def default_threads() -> int:
    """Torch's own choice, as it was before the first run of this process set another."""
    import torch

    return torch.get_num_threads()


def provenance(cfg: DictConfig, place: Place | None, lane: "Lane | None" = None) -> dict[str, Any]:
    """What a run's status says of where it comes from; without a lane, of one that could not be built."""
    import torch

    return {
        "single": place is None,
        "sweep": place.sweep if place else None,
        "objective_key": str(cfg.objective),
        "objective": None,
        "code": code_hash(),
        "data": lane.data.fingerprint if lane else "unknown",
        "device": device_name(lane.device) if lane else str(cfg.trainer.device),
        "precision": lane.precision if lane else str(cfg.trainer.precision),
        "threads": torch.get_num_threads(),
        "hostname": socket.gethostname(),
        "command": config.without_credentials(" ".join(sys.argv)),
        "git": git_state(),
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what comes out."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{name: version(name) for name in PACKAGES}}


def device_name(device: Any) -> str:
    """A GPU's name; cpu or mps."""
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
