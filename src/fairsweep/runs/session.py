"""Runs trained in this process, one or several at once: what is finished is reused, what is not resumes."""

import time
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from fairsweep import signals
from fairsweep.config import ConfigError
from fairsweep.runs import checkpoint, provenance, tensorboard, uploader
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec, identify
from fairsweep.runs.life import FirstFailure, Outcome, Run, check_writable, illustrate
from fairsweep.runs.progress import Progress
from fairsweep.runs.status import FINAL, Status
from fairsweep.training import sources
from fairsweep.training.memory import causes, is_out_of_memory

if TYPE_CHECKING:
    from fairsweep.training.lane import Lane
    from fairsweep.training.loop import Event

# A kill costs at most this much training; writing a checkpoint takes a few hundredths of a second.
CHECKPOINT_SECONDS = 10.0

# Between two looks at runs that other processes train.
POLL_SECONDS = 0.05


def run(
    specs: Iterable[RunSpec], progress: Progress, lanes: int | None = 1, fail_fast: bool = False
) -> list[Outcome]:
    """Reuse, resume or train each run; each ends with a status, whatever happens.

    Ctrl-C or SIGTERM ends the runs in training as `interrupted`, with a checkpoint each, and begins no other;
    a second one does so at once, without.

    Args:
        specs: drawn from one by one, as lanes get free.
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
        session = Session(specs, progress, stop, fail_fast)
        for _ in session.train(lanes):
            pass
        outcomes = session.outcomes()
        if stop.received and not any(outcome.status.name == "interrupted" for outcome in outcomes):
            raise KeyboardInterrupt
        if stop.wanted and not stop.received:
            raise FirstFailure(outcomes)
    return outcomes


class Session:
    """The runs of one command: waiting, in training, and ended."""

    def __init__(
        self, specs: Iterable[RunSpec], progress: Progress, stop: signals.Stop, fail_fast: bool = False
    ) -> None:
        self.progress, self.stop, self.fail_fast = progress, stop, fail_fast
        self.specs = takewhile(lambda _: not stop(), specs)
        self.all_seen = False  # no other will be drawn from `specs`
        self.waiting: deque[RunSpec] = deque()  # other processes train them, or they were postponed
        self.timed: Run | None = None  # the next run, which must train alone
        self.jobs: dict[Lane, Job] = {}  # in training here
        self.most: int | None = None  # of them at once
        self.crowd, self.fits = (0, 0), True  # what was last asked of the device's memory, its answer
        self.seen: set[str] = set()  # signatures of the runs
        self.order: list[str] = []  # the signatures of the runs, in the order of the requests
        self.known: dict[str, Outcome] = {}  # by signature

    def outcomes(self) -> list[Outcome]:
        """What came of the runs that were begun."""
        return [self.known[signature] for signature in self.order if signature in self.known]

    def settle(self, folder: RunFolder, status: Status) -> None:
        """Record a run's outcome."""
        # Not this folder, which has read its configuration: of a thousand runs, these fill the memory.
        self.known[folder.signature] = Outcome(RunFolder(folder.path), status)
        if self.fail_fast and status.name == "failed":
            self.stop.wanted = True

    # Which run is next

    @property
    def is_exhausted(self) -> bool:
        """Whether no run is left to claim."""
        return self.all_seen and not self.waiting

    def next_run(self) -> Run | None:
        """The next run to train, claimed; finished runs are reused. None if there is none at present.

        Runs that another process trains come last.
        """
        for given in self.specs:
            spec = identify(given)
            is_new = spec.signature not in self.seen
            self.seen.add(spec.signature)
            self.order.append(spec.signature)
            if is_new and (run := self.first_claim(spec)) is not None:
                return run
        self.all_seen = True
        for _ in range(len(self.waiting)):
            if (run := self.claim(self.waiting.popleft())) is not None:
                return run
        return None

    def first_claim(self, spec: RunSpec) -> Run | None:
        """Claim a run that was not seen before."""
        cfg = spec.cfg
        if cfg.tracking.tensorboard:
            tensorboard.check_installed()
        try:
            check_writable(Path(cfg.record.dir).absolute())
        except ConfigError as error:
            if spec.single:
                raise
            self.fail(Run(spec, self.progress.note), error)
            return None
        run = self.claim(spec)
        if self.waiting and self.waiting[-1] is spec:
            self.progress.note(f"run {spec.signature} is being trained by another process; waiting for it")
        return run

    def claim(self, spec: RunSpec) -> Run | None:
        """The run if it needs training; None if another process trains it or its outcome is known."""
        run = Run.claim(spec, self.progress.note)
        if run is None:
            self.waiting.append(spec)
            return None
        if run.plan():
            uploader.start(spec.cfg, spec.single)
            return run
        try:
            self.known[spec.signature] = run.reuse()
        finally:
            run.release()
        return None

    def fail(self, run: Run, error: BaseException) -> None:
        """Record that one run of many cannot begin; the others train."""
        self.settle(run.folder, run.fail(f"{type(error).__name__}: {error}", error))

    # Training

    def train(self, lanes: int | None) -> Iterator[RunFolder]:
        """Train the runs here, up to `lanes` at once; yields a run's folder after each write to it."""
        self.most = lanes
        try:
            while self.admit():
                from fairsweep.training.loop import advance

                for event in advance([*self.jobs], self.stop):
                    job = self.jobs.get(event.lane)
                    if job is not None:  # else it was postponed
                        self.record(job, event)
                        yield job.run.folder
                    del event, job  # a lane that has ended is to leave the memory: nothing may hold it
        except BaseException as error:
            self.break_off(error)
            raise
        finally:
            if self.timed is not None:
                self.timed.release()

    def admit(self) -> bool:
        """Open lanes while there are runs and room for them; returns whether any lane is training."""
        while not self.stop() and self.has_room():
            run, self.timed = self.timed or self.next_run(), None
            if run is not None and self.jobs and is_timed(run.spec.cfg):
                self.timed = run
                break
            if run is not None:
                self.open(run)
            elif self.jobs or self.is_exhausted:
                break
            else:
                time.sleep(POLL_SECONDS)
        return bool(self.jobs)

    def has_room(self) -> bool:
        """Whether one more lane may train beside the others."""
        if not self.jobs:
            return True
        if self.timed is not None or any(is_timed(job.cfg) for job in self.jobs.values()):
            return False
        if self.most is not None:
            return len(self.jobs) < self.most
        crowd = len(self.jobs), sum(lane.is_settled() for lane in self.jobs)
        if crowd != self.crowd:  # else the answer would be the same
            from fairsweep.training.loop import fits_one_more

            self.crowd, self.fits = crowd, fits_one_more([*self.jobs])
        return self.fits

    def open(self, run: Run) -> None:
        """Open a lane for a run, unless it cannot begin."""
        job = None
        try:
            try:
                with self.stop.immediate():
                    job = Job(run, self.progress)
            except KeyboardInterrupt:
                return
            if self.stop.received:  # though nothing was raised
                return
            self.jobs[job.lane] = job
            job.begin()
        except (Exception, SystemExit) as error:
            if run.spec.single:
                raise
            if job is None and self.stop.received:  # which became this error
                return
            if job is not None:
                del self.jobs[job.lane]
            if is_out_of_memory(error) and self.jobs:
                self.most = len(self.jobs)
                self.waiting.append(run.spec)
            else:  # its model is too large, its batch larger than the data, its folder not to be written
                self.fail(run, error)
        finally:
            if job is None or job.lane not in self.jobs:
                run.release()

    def record(self, job: "Job", event: "Event") -> None:
        """Record what a lane reports. If one runs out of memory, half of the lanes continue later."""
        ending, beside = event.lane.ending, event.lane.beside
        if ending is not None and is_out_of_memory(ending.error) and beside > 1:
            if self.most is None or self.most > beside // 2:  # else another one was short of it as well
                self.most = beside // 2
                self.progress.note(
                    f"{beside} runs at once do not fit into the device's memory; continuing with {self.most}"
                )
            self.postpone(job)  # from its last checkpoint, as its state is not to be trusted
        else:
            job.record(event)
            if event.lane.ending is not None:
                self.settle(job.run.folder, job.status())
                self.leave(job)
        for other in [*self.jobs.values()][self.most :] if self.most is not None else ():
            if other.lane.ending is None and not other.lane.is_due():  # else after its line
                other.checkpoint()
                other.lane.end("interrupted", "postponed")
                self.postpone(other)

    def postpone(self, job: "Job") -> None:
        """Continue a run later, from its last checkpoint, if need be in the next command."""
        job.run.end("interrupted", "postponed: out of memory")
        job.cfg.rerun = False
        self.waiting.append(job.run.spec)
        self.leave(job)

    def leave(self, job: "Job") -> None:
        """Drop a run: its lane, its memory and its lock."""
        ending = job.lane.ending
        for error in causes(ending.error if ending is not None else None):
            error.__traceback__ = None  # whose frames hold the lane, and that its memory
        job.run.release()
        del self.jobs[job.lane]

    def break_off(self, error: BaseException) -> None:
        """After a second Ctrl-C or an internal error, leave no run as `running`."""
        for lane, job in self.jobs.items():
            with suppress(OSError):  # the disk is full; its lock, now free, tells the next command
                if job.run.folder.status().name == "running":
                    text = " ".join(str(error).split())
                    reason = f"{type(error).__name__} after step {lane.step}" + (f": {text}" if text else "")
                    job.run.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed", reason)
                    job.run.upload()
            job.run.release()


def is_timed(cfg: DictConfig) -> bool:
    """Whether the run's result depends on the seconds that it trains, so that it must train alone."""
    return cfg.trainer.max_seconds is not None


class Job:
    """A run in training: its lane, and what was written of it last.

    Raises:
        ConfigError: data, model, device, starting weights do not fit each other. Nothing is written then.
    """

    def __init__(self, run: Run, progress: Progress) -> None:
        from fairsweep.training.lane import Lane

        self.run, self.progress = run, progress
        self.cfg = cfg = run.spec.cfg
        self.state, self.complaints = (None, []) if run.stale else checkpoint.load(run.folder)
        self.lane = Lane(cfg, threads=self.state["threads"] if self.state else None)
        if self.lane.task.data.fingerprint != run.spec.content:
            where = f"data.root={cfg.data.root}" if "root" in cfg.data else f"data={cfg.data.name}"
            raise ConfigError(
                f"{where}: its data have changed since the run was planned; restore them, or "
                "repeat the command"
            )
        if self.state is None and cfg.trainer.weights is not None:
            self.lane.load_weights(starting_weights(cfg.trainer.weights), cfg.trainer.weights)
        self.checkpointed = time.monotonic()

    def begin(self) -> None:
        """Continue from the last checkpoint, or create the run's folder.

        Raises:
            ConfigError: the folder cannot be written.
        """
        run, lane, state = self.run, self.lane, self.state
        if state is not None:
            lane.load_state_dict(state)
            run.resume(state["journal_bytes"])
            self.tell(f"run {run.folder.signature}: resuming after step {lane.step} of {lane.total_steps}")
            if state["device"] != lane.device.type:
                self.tell(f"its checkpoint was made on {state['device']}; it continues on {lane.device.type}")
        else:
            run.begin(lane.task.data.facts(), lane.total_steps, **provenance.of(self.cfg, lane))
        task = lane.task
        notes = [*self.complaints, sources.note(self.cfg.data), *task.data.notes, *task.scores.notes]
        for text in filter(None, notes):
            self.tell(text)
        if self.cfg.trainer.stop_epoch is not None and lane.epoch >= self.cfg.trainer.stop_epoch:
            lane.end("paused", f"trainer.stop_epoch={self.cfg.trainer.stop_epoch} reached")

    def tell(self, text: str) -> None:
        """Write to the run's log; for a single run, tell the user as well."""
        self.run.folder.log(text)
        if self.run.spec.single:
            self.progress.note(text)

    def record(self, event: "Event") -> None:
        """Record what the lane reports. A disk that refuses a write ends the lane as failed."""
        folder, lane = self.run.folder, self.lane
        try:
            for line in event.lines:
                folder.append(line)
            self.progress.show(lane, event.lines)
            if lane.note:
                folder.log(lane.note)
                self.progress.note(f"run {folder.signature}: {lane.note}")
                lane.note = ""
            if self.cfg.record.keep == "all" and any("epoch_seconds" in line for line in event.lines):
                checkpoint.write(folder, f"epoch_{lane.epoch:04}.pt", lane.weights())
            if lane.ending is not None:
                self.close()
            elif time.monotonic() - self.checkpointed >= CHECKPOINT_SECONDS:
                self.checkpoint()
                self.run.upload()
                self.checkpointed = time.monotonic()
        except OSError as error:
            reason = f"cannot write to {folder.path}: {error.strerror}"
            lane.end("failed", reason, error)
            try:
                self.log_error()
                self.run.end("failed", reason, **self.figures())
            except OSError:  # then its last checkpoint and the lock that it leaves tell the next command
                self.progress.note(reason)

    def checkpoint(self) -> None:
        """Write the lane's state, including its best weights."""
        checkpoint.save(self.run.folder, self.lane.state_dict())

    def close(self) -> None:
        """Record the ending, keep the weights that it calls for, and make the pictures."""
        run, lane, figures = self.run, self.lane, self.figures()
        assert lane.ending is not None
        name, reason, _ = lane.ending
        self.log_error()
        run.folder.log(f"{name} after step {lane.step}. {reason}")
        if name in FINAL:
            run.finish(name, reason, kept(lane, self.cfg.record.keep), **figures)
        else:
            if name != "failed":
                self.checkpoint()
            run.end(name, reason, **figures)
        illustrate(run.folder, run.spec, self.progress.note)
        run.upload()

    def log_error(self) -> None:
        """Write the error that ended the run to its log."""
        if self.lane.ending is not None and self.lane.ending.error is not None:
            self.run.folder.log("".join(traceback.format_exception(self.lane.ending.error)))

    def status(self) -> Status:
        """The status of the ended run: the lane's, if the folder could not be written."""
        recorded, ending = self.run.folder.status(), self.lane.ending
        assert ending is not None
        if recorded.name == ending.status:
            return recorded
        if ending.status != "failed":
            self.lane.end(
                "failed", f"{self.run.folder.path}: its record was removed or damaged while it trained"
            )
        assert self.lane.ending is not None
        return self.run.unrecorded_failure(
            self.lane.ending.reason, device=self.lane.device.type, **self.figures()
        )

    def figures(self) -> dict[str, Any]:
        """The status entries of an ended run besides its name and the reason."""
        ending, lane = self.lane.ending, self.lane
        assert ending is not None
        last = self.run.folder.journal()[-1] if ending.status == "finished" else {}
        tested = {key: value for key, value in last.items() if key.startswith("test_") and value is not None}
        return {
            "step": lane.step,
            "epoch": lane.epoch,
            "seconds": lane.seconds,
            "shared": lane.shared,
            "best_epoch": lane.selection.best["epoch"] if lane.selection.best else None,
            **weights_mark(self.run.spec),
            "objective": last.get("objective"),
            "test": {key.removeprefix("test_"): value for key, value in tested.items()},
        }


def weights_mark(spec: RunSpec) -> dict[str, str]:
    """With `record.keep=auto`, what is known of the weights of a sweep's run before the sweep has ended."""
    if spec.place is None or spec.cfg.record.keep != "auto":
        return {}
    is_confirmed = any(member.get("phase") == "confirm" for member in spec.place.members)
    return {"weights": "kept" if is_confirmed else "undecided"}


def kept(lane: "Lane", keep: str) -> dict[str, dict[str, Any]]:
    """The weights that stay of a finished run, by file name, given `record.keep`."""
    if keep == "none":
        return {}
    weights = {"last.pt": lane.weights()}
    if (best := lane.selection.best) is not None:
        weights["best.pt"] = {"model": best["model"], "step": best["step"]}
    return weights


def starting_weights(file: str) -> dict[str, Any]:
    """The weights that `trainer.weights` names.

    Raises:
        ConfigError: the file is damaged or no checkpoint.
    """
    try:
        return checkpoint.read_weights(Path(file))
    except ConfigError as error:
        raise ConfigError(f"trainer.weights={error}") from error
