"""Runs, from configurations to outcomes: what is finished is reused, what is not resumes."""

import dataclasses
import math
import os
import shutil
import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import BaseFileLock, Timeout
from omegaconf import DictConfig

from fairsweep import config, signals
from fairsweep.config import OBJECTIVES, ConfigError
from fairsweep.files import write_atomically
from fairsweep.runs import lookup, provenance, record, store, tensorboard, uploader
from fairsweep.runs.progress import Progress
from fairsweep.runs.record import Place, RunFolder
from fairsweep.runs.schema import FINAL
from fairsweep.training import sources
from fairsweep.training.memory import causes, is_out_of_memory

if TYPE_CHECKING:
    from fairsweep.training.loop import Event, Lane

# A kill costs at most so much training; writing a checkpoint takes a few hundredths of a second.
CHECKPOINT_SECONDS = 10.0

# Free room on the disk without which no run is begun.
LEAST_FREE_BYTES = 50_000_000

# Between two looks at runs that other processes train.
POLL_SECONDS = 0.05


class RunFailed(Exception):
    """A run of a sweep has failed; its record has the traceback."""


class Wanted(NamedTuple):
    """A requested run; `place` is its place in its sweep.

    A single run gets pictures and an MLflow model, and one that cannot be built is a mistake of the user's,
    where one of many just fails. `signature`, and `content`, the hash of its data, are empty until `identify`
    has resolved the configuration: once, so that what is trained is what was planned.
    """

    cfg: DictConfig
    place: Place | None = None
    single: bool = True
    signature: str = ""
    content: str = ""


class Claim(NamedTuple):
    """A run that is to be trained, its lock ours; `stale` says why what its folder holds is not that run."""

    wanted: Wanted
    folder: RunFolder
    lock: BaseFileLock
    stale: str


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


class FirstFailure(Exception):
    """A run has failed, with fail_fast; holds the outcomes of the runs that had started."""

    def __init__(self, outcomes: "list[Outcome]") -> None:
        self.outcomes = outcomes


def run(
    wanted: Iterable[Wanted], progress: Progress, lanes: int | None = 1, fail_fast: bool = False
) -> list[Outcome]:
    """Reuse, resume or train each run; each ends with a status, whatever happens.

    Ctrl-C or SIGTERM ends the runs in training as `interrupted`, with a checkpoint each, and begins no other;
    a second one does so at once, without.

    Args:
        wanted: drawn from one by one, as lanes get free.
        lanes: how many train at once; None: as many as the memory of a CUDA device holds, elsewhere one.
        fail_fast: the first that fails interrupts the others, as Ctrl-C does.

    Returns:
        What came of each run, in their order; if interrupted, of those that were begun.

    Raises:
        ConfigError: a configuration is not good, or the outputs cannot be written.
        FirstFailure: a run has failed, with fail_fast.
        KeyboardInterrupt: the user stopped, by a second Ctrl-C or while no run was in training.
    """
    with progress, signals.stopping() as stop:
        session = Session(wanted, progress, stop, fail_fast)
        for _ in session.train(lanes):
            pass
        outcomes = session.outcomes()
        if stop.received and not any(outcome.status["status"] == "interrupted" for outcome in outcomes):
            raise KeyboardInterrupt
        if stop.wanted and not stop.received:
            raise FirstFailure(outcomes)
    return outcomes


def identify(wanted: Wanted) -> Wanted:
    """The run with its configuration checked and resolved, its starting weights a file, and its signature.

    Raises:
        ConfigError: a key or a value is not allowed; the data or the weights are missing.
    """
    if wanted.signature:
        return wanted
    store.check(wanted.cfg.tracking.uri)
    cfg = with_weights_file(config.literal(config.check(wanted.cfg)))
    values = config.resolved(cfg)
    content = provenance.content(values)
    return wanted._replace(cfg=cfg, signature=config.signature(values, content), content=content)


def is_done(rerun: bool, reuse: str, status: dict[str, Any]) -> bool:
    """Whether the run of this status need not be trained: it ended for good, with today's code."""
    return not rerun and status.get("status") in FINAL and not provenance.stale_reason(reuse, status)


class Session:
    """Opens the runs that are wanted, one by one, and keeps account of them."""

    def __init__(
        self, wanted: Iterable[Wanted], progress: Progress, stop: signals.Stop, fail_fast: bool = False
    ) -> None:
        self.wanted, self.progress, self.stop, self.fail_fast = wanted, progress, stop, fail_fast
        self.waiting: deque[tuple[Wanted, RunFolder]] = deque()  # postponed runs
        self.jobs: dict[Lane, Job] = {}  # in training here
        self.most: int | None = None  # of them at once
        self.crowd, self.has_memory = (0, 0), True  # what was last asked of the device's memory, its answer
        self.order: list[str] = []  # the signatures of the runs, in the order of the requests
        self.known: dict[str, Outcome] = {}  # by signature

    def outcomes(self) -> list[Outcome]:
        """What came of the runs that were begun."""
        return [self.known[signature] for signature in self.order if signature in self.known]

    def settle(self, folder: RunFolder, status: dict[str, Any]) -> None:
        """Note what came of a run."""
        # Not this folder, which has read its configuration: of a thousand runs, these fill the memory.
        self.known[folder.signature] = Outcome(RunFolder(folder.path), status)
        if self.fail_fast and status["status"] == "failed":
            self.stop.wanted = True

    def train(self, lanes: int | None) -> Iterator[RunFolder]:
        """Train them here, up to `lanes` at once; yields a run's folder whenever something was written."""
        self.most = lanes
        try:
            coming = self.lanes()
            first = next(coming, None)
            if first is None:  # nothing is to be trained, and torch is not needed
                return
            from fairsweep.training.loop import fit

            coming = chain(iter([first]), coming)
            del first  # a lane that has ended is to leave the memory: nothing may hold it
            for event in fit(coming, self.stop):
                job = self.jobs.get(event.lane)
                if job is not None:  # else it was postponed
                    self.record(job, event)
                    yield job.folder
                del event, job
        except BaseException as error:
            self.break_off(error)
            raise

    def lanes(self) -> "Iterator[Lane | None]":
        """Yields a lane for each run to train; None while there is no room or no run."""
        for claim in self.claims():
            if claim is not None:
                while self.jobs and is_timed(claim.wanted.cfg):
                    yield None
                if self.stop():  # while it waited
                    claim.lock.release()
                    return
                yield from self.open(*claim)
            elif self.jobs:
                yield None
            else:
                time.sleep(POLL_SECONDS)
            while not self.has_room():
                yield None

    def has_room(self) -> bool:
        """Whether one lane more may train beside those that do."""
        if any(is_timed(job.cfg) for job in self.jobs.values()):
            return False
        if not self.jobs or self.most is not None:
            return len(self.jobs) < (self.most or 1)
        crowd = len(self.jobs), sum(lane.is_settled() for lane in self.jobs)
        if crowd != self.crowd:  # else the answer would be the same
            from fairsweep.training.loop import fits_one_more

            self.crowd, self.has_memory = crowd, fits_one_more([*self.jobs])
        return self.has_memory

    def claims(self) -> Iterator[Claim | None]:
        """The runs that are to be trained, their locks ours; what is finished is reused.

        What another process trains at present comes last; None while there is nothing else.
        """
        seen = set[str]()
        for given in takewhile(lambda _: not self.stop(), self.wanted):
            wanted = identify(given)
            cfg, signature = wanted.cfg, wanted.signature
            self.order.append(signature)
            if signature in seen:
                continue
            seen.add(signature)
            folder = record.folder_of(cfg.record.dir, signature)
            one = wanted, folder
            if cfg.tracking.tensorboard:
                tensorboard.check_installed()
            try:
                check_writable(folder.path.parents[1])
            except ConfigError as error:
                if given.single:
                    raise
                self.fail(*one, error)
                continue
            if lock := acquired(folder):
                yield from self.claim(*one, lock)
            else:
                self.progress.note(f"run {signature} is being trained by another process; waiting for it")
                self.waiting.append(one)
        while (self.waiting or self.jobs) and not self.stop():  # some of those in training may be postponed
            if not self.waiting:
                yield None
                continue
            one = self.waiting.popleft()
            if lock := acquired(one[1]):
                yield from self.claim(*one, lock)
            else:
                self.waiting.append(one)
                yield None

    def claim(self, wanted: Wanted, folder: RunFolder, lock: BaseFileLock) -> Iterator[Claim]:
        """A run, whose lock is ours, unless its outcome is known without training."""
        cfg = wanted.cfg
        if damage := folder.damage():
            put_away(folder, cfg, damage, self.progress)
        status = folder.status()
        if is_done(cfg.rerun, cfg.reuse, status):
            try:
                self.known[folder.signature] = self.take_over(wanted, folder)
            finally:
                lock.release()
            return
        stale = "rerun=true" if cfg.rerun else provenance.stale_reason(cfg.reuse, status)
        uploader.start(cfg, wanted.single)
        yield Claim(wanted, folder, lock, stale)

    def open(self, wanted: Wanted, folder: RunFolder, lock: BaseFileLock, stale: str) -> "Iterator[Lane]":
        """The lane of a run, unless it cannot be begun."""
        job = None
        try:
            try:
                with self.stop.immediate():
                    job = Job(wanted, folder, lock, self.progress, stale)
            except KeyboardInterrupt:
                return
            if self.stop.received:  # though nothing was raised
                return
            self.jobs[job.lane] = job
            job.begin()
        except (Exception, SystemExit) as error:
            if wanted.single:
                raise
            if job is None and self.stop.received:  # which became this error
                return
            if job is not None:
                del self.jobs[job.lane]
            if is_out_of_memory(error) and self.jobs:
                self.most = len(self.jobs)
                self.waiting.append((wanted, folder))
            else:  # its model is too large, its batch larger than the data, its folder not to be written
                self.fail(wanted, folder, error)
            return
        finally:
            if job is None or job.lane not in self.jobs:
                lock.release()
        yield job.lane

    def fail(self, wanted: Wanted, folder: RunFolder, error: BaseException) -> None:
        """Settle one run of many that cannot be begun; the others train."""
        reason = f"{type(error).__name__}: {error}"
        try:
            status = fail_unbegun(wanted, folder, reason, error)
            uploader.sync(folder, wanted.cfg, self.progress.note)
        except OSError:  # then its record cannot say so
            status = unrecorded_failure(wanted, reason)
        self.settle(folder, status)

    def take_over(self, wanted: Wanted, folder: RunFolder) -> Outcome:
        """The outcome of a run that is finished."""
        if wanted.place is not None:
            folder.join(wanted.place)
        made = illustrate(folder, wanted.cfg, self.progress, wanted.single)
        uploader.sync(folder, wanted.cfg, self.progress.note, again=made)
        return Outcome(folder, folder.status(), reused=True)

    def record(self, job: "Job", event: "Event") -> None:
        """Write down what a lane tells. One that is short of memory has half of the lanes go on later."""
        ending, beside = event.lane.ending, event.lane.beside
        if ending is not None and is_out_of_memory(ending.error) and beside > 1:
            if self.most is None or self.most > beside // 2:  # else another one was short of it as well
                self.most = beside // 2
                self.progress.note(
                    f"{beside} runs at once do not fit into the device's memory; continuing with {self.most}"
                )
            self.put_off(job)  # from its last checkpoint, as its state is not to be trusted
        else:
            job.record(event)
            if event.lane.ending is not None:
                self.settle(job.folder, job.status())
                self.leave(job)
        for other in [*self.jobs.values()][self.most :] if self.most is not None else ():
            if other.lane.ending is None and not other.lane.is_due():  # else after its line
                other.checkpoint()
                other.lane.end("put off")
                self.put_off(other)

    def put_off(self, job: "Job") -> None:
        """Have a run go on later, from its last checkpoint, if need be in the next command."""
        job.folder.set_status(status="interrupted", reason="postponed: out of memory", ended=time.time())
        job.cfg.rerun = False
        self.waiting.append((job.wanted, job.folder))
        self.leave(job)

    def leave(self, job: "Job") -> None:
        """Have nothing to do with a run any more."""
        ending = job.lane.ending
        for error in causes(ending.error if ending is not None else None):
            error.__traceback__ = None  # whose frames hold the lane, and that its memory
        job.lock.release()
        del self.jobs[job.lane]

    def break_off(self, error: BaseException) -> None:
        """After a second Ctrl-C, or a fault of ours: no run stays behind as `running`."""
        ending = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        for lane, job in self.jobs.items():
            with suppress(OSError):  # the disk is full; its lock, now free, tells the next command
                if job.folder.status().get("status") == "running":
                    text = " ".join(str(error).split())
                    reason = f"{type(error).__name__} after step {lane.step}" + (f": {text}" if text else "")
                    job.folder.set_status(status=ending, reason=reason, ended=time.time())
                    uploader.sync(job.folder, job.cfg, self.progress.note)
            job.lock.release()


def is_timed(cfg: DictConfig) -> bool:
    """Whether the run's result depends on the seconds that it trains, so that it must train alone."""
    return cfg.trainer.max_seconds is not None


def acquired(folder: RunFolder) -> BaseFileLock | None:
    """The run's lock, now ours; None where another process has it."""
    lock = folder.lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def put_away(folder: RunFolder, cfg: DictConfig, reason: str, progress: Progress) -> None:
    """Archive what is recorded of a run, which is trained again."""
    old = folder.archive()
    uploader.supersede(RunFolder(old), cfg, progress.note)
    progress.note(f"{reason}: training again; the old run is in {old}")


def trainer(wanted: Wanted) -> str | None:
    """The command of a sweep that trains this run, so that it knows its own; None of others."""
    return wanted.place.command if wanted.place is not None else None


def first_status(wanted: Wanted) -> dict[str, Any]:
    """The part of a run's status that the request decides."""
    return {
        "single": wanted.single,
        "trained_by": trainer(wanted),
        "sweep": wanted.place.sweep if wanted.place is not None else None,
        "objective_key": str(wanted.cfg.objective),
        "objective": None,
    }


def weights_mark(wanted: Wanted) -> dict[str, str]:
    """With `record.keep=auto`, what is known of the weights of a sweep's run before the sweep has ended."""
    if wanted.place is None or wanted.cfg.record.keep != "auto":
        return {}
    is_confirmed = any(member.get("phase") == "confirm" for member in wanted.place.members)
    return {"weights": "kept" if is_confirmed else "undecided"}


def fail(folder: RunFolder, reason: str, error: BaseException | None = None) -> None:
    """End a run as failed; an error goes to its log."""
    folder.log("".join(traceback.format_exception(error)) if error is not None else f"failed. {reason}")
    folder.set_status(status="failed", reason=reason, ended=time.time())


def fail_unbegun(
    wanted: Wanted, folder: RunFolder, reason: str, error: BaseException | None = None
) -> dict[str, Any]:
    """Record that a run failed without having begun; gives its status.

    Of one that was to be trained anew, the record of before stays as it is.
    """
    status = folder.status()
    if status.get("status") in FINAL:
        return unrecorded_failure(wanted, reason)
    if status:
        folder.set_status(resumed=time.time(), trained_by=trainer(wanted))
    else:
        folder.create(wanted.cfg, {}, **first_status(wanted), **provenance.of(wanted.cfg))
    fail(folder, reason, error)
    if wanted.place is not None:
        folder.join(wanted.place)
    return folder.status()


def unrecorded_failure(wanted: Wanted, reason: str) -> dict[str, Any]:
    """The status of a run that failed, where its folder cannot, or is not to, say so."""
    return {
        "status": "failed",
        "reason": reason,
        "objective": None,
        "ended": time.time(),
        "trained_by": trainer(wanted),
    }


def prune(folder: RunFolder, cfg: DictConfig, reason: str, progress: Progress) -> None:
    """End a paused run as dropped by its sweep. Another sweep may take it up again, from its checkpoint."""
    lock = acquired(folder)
    if lock is None:  # another process goes on with it
        return
    try:
        if folder.status().get("status") == "paused":
            folder.log(f"pruned. {reason}")
            folder.set_status(status="pruned", reason=reason, ended=time.time())
            uploader.sync(folder, cfg, progress.note)
    finally:
        lock.release()


class Job:
    """A run to train: its lane, its folder, and what was written of it last.

    Raises:
        ConfigError: data, model, device, starting weights do not fit each other. Nothing is written then.
    """

    def __init__(
        self, wanted: Wanted, folder: RunFolder, lock: BaseFileLock, progress: Progress, stale: str
    ) -> None:
        from fairsweep.training.loop import Lane

        self.wanted, self.folder, self.lock, self.progress = wanted, folder, lock, progress
        self.cfg = cfg = wanted.cfg
        self.stale = stale
        self.state, self.complaints = (None, []) if stale else folder.load_checkpoint()
        self.lane = Lane(cfg, threads=self.state["threads"] if self.state else None)
        if self.lane.data.fingerprint != wanted.content:
            where = f"data.root={cfg.data.root}" if "root" in cfg.data else f"data={cfg.data.name}"
            raise ConfigError(
                f"{where}: its data have changed since the run was planned; restore them, or "
                "repeat the command"
            )
        if self.state is None and cfg.trainer.weights is not None:
            self.lane.load_weights(starting_weights(cfg.trainer.weights), cfg.trainer.weights)
        self.checkpointed = time.monotonic()

    def begin(self) -> None:
        """Go on from the last checkpoint; or make the run's folder, after what is stale was put away.

        Raises:
            ConfigError: the folder cannot be written.
        """
        folder, lane, state = self.folder, self.lane, self.state
        if self.stale and folder.path.exists():
            put_away(folder, self.cfg, self.stale, self.progress)
        if state is not None:
            lane.load_state_dict(state)
            folder.truncate_journal(state["journal_bytes"])
            folder.set_status(
                status="running",
                resumed=time.time(),
                trained_by=trainer(self.wanted),
                ended=None,
                journal_bytes=state["journal_bytes"],
            )
            self.tell(f"run {folder.signature}: resuming after step {lane.step} of {lane.total_steps}")
            if state["device"] != lane.device.type:
                self.tell(f"its checkpoint was made on {state['device']}; it continues on {lane.device.type}")
        else:
            self.create_folder()
        if self.wanted.place is not None:
            folder.join(self.wanted.place)
        for text in filter(None, [*self.complaints, sources.note(self.cfg.data)]):
            self.tell(text)
        if self.cfg.trainer.stop_epoch is not None and lane.epoch >= self.cfg.trainer.stop_epoch:
            lane.end("paused", f"trainer.stop_epoch={self.cfg.trainer.stop_epoch} reached")

    def create_folder(self) -> None:
        """Begin the run's record."""
        new = not self.folder.path.exists()
        try:
            facts, origin = self.lane.data.facts(), provenance.of(self.cfg, self.lane)
            steps = self.lane.total_steps
            self.folder.create(self.cfg, facts, **first_status(self.wanted), steps=steps, **origin)
            if patch := provenance.uncommitted():
                write_atomically(self.folder.path / "code.patch", patch.encode())
        except OSError as error:
            if new:
                shutil.rmtree(self.folder.path, ignore_errors=True)
            raise ConfigError(
                f"record.dir={self.cfg.record.dir}: cannot write to {self.folder.path}: {error.strerror}"
            ) from error

    def tell(self, text: str) -> None:
        """To the run's log, and to the user, unless this is one run of many."""
        self.folder.log(text)
        if self.wanted.single:
            self.progress.note(text)

    def record(self, event: "Event") -> None:
        """Write down what the lane tells. A disk that refuses ends the lane as failed."""
        try:
            for line in event.lines:
                self.folder.append(line)
            self.progress.show(self.lane, event.lines)
            if self.lane.note:
                self.folder.log(self.lane.note)
                self.progress.note(f"run {self.folder.signature}: {self.lane.note}")
                self.lane.note = ""
            if self.cfg.record.keep == "all" and any("epoch_seconds" in line for line in event.lines):
                self.folder.save(f"epoch_{self.lane.epoch:04}.pt", self.lane.weights())
            if self.lane.ending is not None:
                self.close()
            elif time.monotonic() - self.checkpointed >= CHECKPOINT_SECONDS:
                self.checkpoint()
                uploader.sync(self.folder, self.cfg, self.progress.note)
                self.checkpointed = time.monotonic()
        except OSError as error:
            reason = f"cannot write to {self.folder.path}: {error.strerror}"
            self.lane.end("failed", reason, error)
            try:
                self.log_error()
                self.folder.set_status(**self.ending_status())
            except OSError:  # then its last checkpoint and the lock that it leaves tell the next command
                self.progress.note(reason)

    def checkpoint(self) -> None:
        """Write the lane's state, its best weights among it."""
        self.folder.save_checkpoint(self.lane.state_dict())

    def close(self) -> None:
        """Write how the run ended, keep of it what that calls for, and make its pictures."""
        status = self.ending_status()
        self.log_error()
        self.folder.log(f"{status['status']} after step {self.lane.step}. {status['reason']}")
        if status["status"] in FINAL:
            self.folder.finish(self.lane.kept(self.cfg.record.keep), status)
        else:
            if status["status"] != "failed":
                self.checkpoint()
            self.folder.set_status(**status)
        illustrate(self.folder, self.cfg, self.progress, self.wanted.single)
        uploader.sync(self.folder, self.cfg, self.progress.note)

    def log_error(self) -> None:
        """The error that ended the run goes to its log."""
        if self.lane.ending is not None and self.lane.ending.error is not None:
            self.folder.log("".join(traceback.format_exception(self.lane.ending.error)))

    def status(self) -> dict[str, Any]:
        """The status of the run, which has ended: the lane's, where the folder could not be written."""
        recorded, ending = self.folder.status(), self.lane.ending
        assert ending is not None
        if recorded.get("status") == ending.status:
            return recorded
        if ending.status != "failed":
            self.lane.end("failed", f"{self.folder.path}: its record was removed or damaged while it trained")
        return first_status(self.wanted) | {"device": self.lane.device.type} | self.ending_status()

    def ending_status(self) -> dict[str, Any]:
        """What the status says of a run that has ended."""
        ending, lane = self.lane.ending, self.lane
        assert ending is not None
        figures = self.folder.journal()[-1] if ending.status == "finished" else {}
        return {
            "status": ending.status,
            "reason": ending.reason,
            "ended": time.time(),
            "step": lane.step,
            "epoch": lane.epoch,
            "seconds": lane.seconds,
            "shared": lane.shared,
            "best_epoch": lane.best["epoch"] if lane.best else None,
            **weights_mark(self.wanted),
            **{key: figures.get(key) for key in ("objective", "test_loss", "test_accuracy")},
        }


def illustrate(folder: RunFolder, cfg: DictConfig, progress: Progress, single: bool) -> bool:
    """Make the pictures and event files of a finished run that are wanted and not there; whether any was."""
    wanted = cfg.record.pictures == "all" or (cfg.record.pictures == "auto" and single)
    draw = wanted and not (folder.pictures / "curves.png").exists()
    write_events = cfg.tracking.tensorboard and not (folder.path / "tensorboard").exists()
    if folder.status().get("status") != "finished" or not (draw or write_events):
        return False
    try:
        if draw:
            from fairsweep.runs import pictures

            pictures.draw(folder)
        if write_events:
            tensorboard.write(folder)
    except Exception as error:  # the record is complete, and these can be made of it later
        folder.log("".join(traceback.format_exception(error)))
        progress.note(f"no pictures: {error}")
        return False
    return True


def estimate(cfg: DictConfig) -> tuple[float, int]:
    """A run's seconds, by the first second of it and one validation, and the bytes of its weights.

    Nothing is kept.

    Raises:
        ConfigError: data, model, device do not fit each other.
    """
    from fairsweep.training.loop import WARM_UP, Lane, wait_for

    lane = Lane(cfg)
    with lane.own_state():
        while lane.step < min(WARM_UP, lane.total_steps):  # these load libraries, and capture a graph
            lane.advance(1, lambda: False)
        wait_for(lane.device)
        first, started = lane.step, time.perf_counter()
        while time.perf_counter() < started + 1 and lane.step < lane.total_steps:
            lane.advance(1, lambda: False)
        wait_for(lane.device)
        per_step = (time.perf_counter() - started) / max(lane.step - first, 1)
        started = time.perf_counter()
        if len(lane.data.val):
            lane.evaluate(lane.data.val)
        per_epoch = time.perf_counter() - started
    seconds: float = lane.total_steps * per_step + cfg.trainer.epochs * per_epoch
    copies = {"none": 0, "all": cfg.trainer.epochs + 2}.get(cfg.record.keep, 2)  # the last and the best
    weights = sum(value.nbytes for value in lane.model.state_dict().values())
    return seconds, copies * weights


def with_weights_file(cfg: DictConfig) -> DictConfig:
    """The configuration with `trainer.weights` as a file's path, where it names a run."""
    which = cfg.trainer.weights
    if which is None:
        return cfg
    path = Path(which)
    if not path.is_file():
        try:
            path = lookup.find(cfg.record.dir, which, *comparable(cfg, which)).tested_weights_file()
        except ConfigError as error:
            raise ConfigError(
                f"trainer.weights={which}: neither a file nor a run with weights ({error})"
            ) from error
    cfg = cfg.copy()
    cfg.trainer.weights = str(path.absolute())
    return cfg


def comparable(cfg: DictConfig, which: str) -> tuple[str | None, str | None]:
    """The data set and the objective among whose runs `best` is looked for; of others, any."""
    if which != "best":
        return None, None
    return provenance.content(config.resolved(cfg)), str(cfg.objective)


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
