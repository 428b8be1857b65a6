"""The life of a run: claimed, begun or resumed, ended, uploaded, released. Nothing else sets its status."""

import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import BaseFileLock, FileLock, Timeout
from omegaconf import DictConfig

from fairsweep.config import ConfigError, criteria_of
from fairsweep.files import write_atomically
from fairsweep.runs import checkpoint, markers, provenance, tensorboard, uploader
from fairsweep.runs.folder import RunFolder, folder_of
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.schema import read_sweep
from fairsweep.runs.status import Name, Status
from fairsweep.runs.store import Note

# Free room on the disk without which no run is begun.
LEAST_FREE_BYTES = 50_000_000

DEAD = "its process died"


@dataclass(frozen=True)
class Outcome:
    """What came of a run; `reused` if it had been finished before."""

    folder: RunFolder
    status: Status
    reused: bool = False


class RunFailed(Exception):
    """A run of a sweep has failed; its record has the traceback."""


class FirstFailure(Exception):
    """A run has failed, with fail_fast; holds the outcomes of the runs that had started."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        self.outcomes = outcomes


class CannotLaunch(ConfigError):
    """The launcher cannot work at all, which is not any run's failure."""


class Run:
    """A run whose lock we hold: nobody else writes to its folder until we release it.

    Attributes:
        stale: why the record in its folder cannot be used, so that the run starts from the beginning.
    """

    def __init__(self, spec: RunSpec, note: Note, lock: BaseFileLock | None = None) -> None:
        self.spec, self.note, self.lock = spec, note, lock
        self.folder = folder_of(spec.cfg.record.dir, spec.signature)
        self.stale = ""

    @classmethod
    def claim(cls, spec: RunSpec, note: Note) -> Self | None:
        """The run, or None if another process holds it."""
        lock = folder_of(spec.cfg.record.dir, spec.signature).lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return cls(spec, note, lock)

    def release(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def plan(self) -> bool:
        """Whether the run needs training. Archives a damaged record, and sets `stale`."""
        cfg = self.spec.cfg
        if damage := self.folder.damage():
            self.renew(damage)
        status = self.folder.status()
        if not cfg.rerun and is_done(cfg, status):
            return False
        self.stale = "rerun=true" if cfg.rerun else provenance.stale_reason(cfg, status)
        return True

    def reuse(self) -> Outcome:
        """The outcome of a finished run; completes its pictures and its upload."""
        self.join()
        made = illustrate(self.folder, self.spec, self.note)
        self.upload(again=made)
        return Outcome(self.folder, self.folder.status(), reused=True)

    # Beginnings

    def begin(self, facts: dict[str, Any], steps: int | None = None, **origin: Any) -> None:
        """Create its folder; a stale record is archived.

        Args:
            facts: of its data. steps: of the whole run. origin: `provenance.of` it.

        Raises:
            ConfigError: the folder cannot be written.
        """
        if self.stale and self.folder.path.exists():
            self.renew(self.stale)
        is_new = not self.folder.path.exists()
        try:
            known = first_status(self.spec) | origin
            self.folder.create(self.spec.cfg, facts, steps=steps, **known)
            if patch := provenance.uncommitted():
                write_atomically(self.folder.path / "code.patch", patch.encode())
        except OSError as error:
            if is_new:
                shutil.rmtree(self.folder.path, ignore_errors=True)
            raise ConfigError(
                f"record.dir={self.spec.cfg.record.dir}: cannot write to {self.folder.path}: {error.strerror}"
            ) from error
        self.join()

    def resume(self, journal_bytes: int) -> None:
        """Continue from a checkpoint; later lines of the journal are removed."""
        self.folder.truncate_journal(journal_bytes)
        now, trained_by = time.time(), self.spec.trained_by
        self.folder.set_status(
            name="running", resumed=now, ended=None, trained_by=trained_by, journal_bytes=journal_bytes
        )
        self.join()

    def renew(self, why: str) -> None:
        """Archive its record, because it is trained again."""
        self.interrupt(DEAD)
        old = self.folder.archive()
        uploader.supersede(RunFolder(old), self.spec.cfg, self.note)
        self.note(f"{why}: training again; the old run is in {old}")

    def join(self) -> None:
        """Record its membership in its sweep."""
        if self.spec.place is not None:
            self.folder.join(self.spec.place)

    # Endings

    def end(self, name: Name, reason: str, **figures: Any) -> None:
        """Record how it ended. If it may continue later, call `checkpoint.save` first."""
        self.folder.set_status(name=name, reason=reason, ended=time.time(), **figures)

    def finish(self, name: Name, reason: str, kept: dict[str, dict[str, Any]], **figures: Any) -> None:
        """End it for good, keeping only these checkpoints (contents by file name)."""
        checkpoint.finish(self.folder, kept, name=name, reason=reason, ended=time.time(), **figures)

    def interrupt(self, reason: str) -> None:
        """End it as interrupted if it is running; the next command resumes from its last checkpoint."""
        if self.folder.status().name == "running":
            self.end("interrupted", reason)

    def prune(self, reason: str) -> None:
        """End a paused run that its sweep dropped. Another sweep may resume it from its checkpoint."""
        if self.folder.status().name == "paused":
            self.folder.log(f"pruned. {reason}")
            self.end("pruned", reason)
            self.upload()

    def fail(self, reason: str, error: BaseException | None = None) -> Status:
        """End it as failed, whether it had begun or not; returns its status.

        If it was to be trained again, the earlier finished record stays. If the disk refuses the write, the
        record does not mention the failure.
        """
        status = self.folder.status()
        unrecorded = self.unrecorded_failure(reason, device=status.device)
        try:
            if status.is_final:
                return unrecorded
            if not status.has_begun:
                self.stale = ""
                self.begin({}, **provenance.of(self.spec.cfg))
            elif status.name != "running":
                self.folder.set_status(resumed=time.time(), trained_by=self.spec.trained_by)
            self.folder.log("".join(traceback.format_exception(error)) if error else f"failed. {reason}")
            self.end("failed", reason)
            self.join()
            self.upload()
        except (OSError, ConfigError):
            return unrecorded
        return self.folder.status()

    def unrecorded_failure(self, reason: str, **known: Any) -> Status:
        """The status of a failed run whose folder cannot, or must not, record the failure."""
        now, signature = time.time(), self.spec.signature
        known = first_status(self.spec) | known
        return Status(name="failed", reason=reason, ended=now, signature=signature, **known)

    def upload(self, again: bool = False) -> None:
        uploader.sync(self.folder, self.spec.cfg, self.note, again)


def first_status(spec: RunSpec) -> dict[str, Any]:
    """The part of a run's status that comes from the request."""
    given = criteria_of(spec.cfg)
    return {
        "single": spec.single,
        "trained_by": spec.trained_by,
        "sweep": spec.place.sweep if spec.place is not None else None,
        "objective_key": given.objective,
        "judge": given.judge,
        "metrics": dict(given.own),
    }


def is_done(cfg: Mapping[Any, Any], status: Status) -> bool:
    """Whether a run of this status needs no training: it ended for good, with the current code."""
    return status.is_final and not provenance.stale_reason(cfg, status)


@contextmanager
def claimed(spec: RunSpec, note: Note) -> Iterator[Run | None]:
    """Hold the run inside the block; None if another process holds it."""
    run = Run.claim(spec, note)
    try:
        yield run
    finally:
        if run is not None:
            run.release()


def end_dead(outputs: Path) -> None:
    """End the runs and sweeps of dead processes, whose locks are free, as interrupted."""
    for marker in markers.all_of(outputs):
        ending = {"status": "interrupted", "ended": time.time()}
        with suppress(Timeout, OSError), FileLock(outputs / "locks" / f"{marker.name}.lock", timeout=0):
            if (folder := markers.run_of(marker)) is not None:
                if folder.status().name == "running":
                    folder.set_status(name="interrupted", reason=DEAD, ended=time.time())
            elif (sweep := markers.sweep_of(marker)) is not None:
                content = read_sweep(sweep)
                if content["status"] == "running":
                    write_atomically(sweep / "sweep.json", json.dumps(content | ending, indent=1).encode())


def upload_pending(cfg: DictConfig) -> None:
    """Upload what earlier commands could not, meanwhile."""
    end_dead(Path(cfg.record.dir).absolute())
    uploader.sync_pending(cfg)


def flush(cfg: DictConfig) -> bool:
    """At a command's end, and before MLflow is read: wait until all is uploaded; whether it is."""
    end_dead(Path(cfg.record.dir).absolute())
    return uploader.flush(cfg)


def illustrate(folder: RunFolder, spec: RunSpec, note: Note) -> bool:
    """Make the requested pictures and event files that a finished run lacks; returns whether it made any."""
    cfg = spec.cfg
    wanted = cfg.record.pictures == "all" or (cfg.record.pictures == "auto" and spec.single)
    draw = wanted and not (folder.pictures / "curves.png").exists()
    write_events = cfg.tracking.tensorboard and not (folder.path / "tensorboard").exists()
    if folder.status().name != "finished" or not (draw or write_events):
        return False
    try:
        if draw:
            from fairsweep.runs import pictures

            pictures.draw(folder)
        if write_events:
            tensorboard.write(folder)
    except Exception as error:  # the record is complete, and these can be made of it later
        folder.log("".join(traceback.format_exception(error)))
        note(f"no pictures: {error}")
        return False
    return True


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
