"""Runs of a sweep on workers; their results are written here and uploaded to MLflow from here."""

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich import get_console

from fairsweep import config
from fairsweep.launch import parcel
from fairsweep.launch.parcel import Parcel
from fairsweep.launch.pool import Pool, RemoteWorker
from fairsweep.launch.worker import Order
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.life import FirstFailure, Outcome, Run
from fairsweep.runs.progress import Progress
from fairsweep.runs.session import Session
from fairsweep.runs.status import UNKNOWN, Status
from fairsweep.signals import Stop, check, stopping
from fairsweep.wording import counted

# How often signals, and runs that another process trains, are checked.
POLL_SECONDS = 0.2
# After this long without a worker, a note says what the sweep waits for.
PATIENCE_SECONDS = 20.0
# The most runs that a worker gets at once.
LARGEST_GROUP = 64


@dataclass(eq=False)
class Assignment:
    """A run that is ours, the worker that trains it, and how many workers died of it, or with it."""

    run: Run
    remote: RemoteWorker | None = None
    deaths: int = 0


def run(pool: Pool, specs: Iterable[RunSpec], number: int, fail_fast: bool = False) -> list[Outcome]:
    """Reuse or train each of these runs, `number` of them; a worker that dies costs its runs a retry.

    Returns:
        The outcome of each run, in their order.

    Raises:
        CannotLaunch: no worker is available.
        FirstFailure: a run failed, with fail_fast. Runs in training ended as after Ctrl-C.
        KeyboardInterrupt: the user stopped. Runs in training ended as interrupted, with a checkpoint.
    """
    progress = Progress(get_console(), quiet=True)
    with progress, stopping() as stop:
        launch = Launch(pool, Session(specs, progress, stop, fail_fast), number, stop)
        try:
            launch.run()
        finally:
            launch.abandon()
        check()
        if stop.wanted:
            raise FirstFailure(launch.session.outcomes())
    return launch.session.outcomes()


class Launch:
    """The runs of one launch, from the first to the last."""

    def __init__(self, pool: Pool, session: Session, number: int, stop: Stop) -> None:
        self.pool, self.session, self.number, self.stop = pool, session, number, stop
        self.note = session.progress.note
        self.waiting: deque[Assignment] = deque()
        self.training: dict[str, Assignment] = {}  # by signature
        self.changed: dict[str, Assignment] = {}  # to be uploaded
        self.is_ending = False
        self.idle_since = time.monotonic()

    def run(self) -> None:
        """Train until no run is left, or, after Ctrl-C, until the runs in training have ended."""
        while True:
            if not self.stop():
                self.assign()
            elif not self.is_ending:
                self.end_all()
            self.track()
            if not self.training and (self.stop() or (self.session.is_exhausted and not self.waiting)):
                return
            self.receive()

    # To workers

    def assign(self) -> None:
        """Give runs to idle workers, and start workers while there are more runs than workers."""
        if self.pool.room is None and self.claim(1):
            with self.stop.immediate():
                self.pool.connect()
        for remote in [remote for remote in self.pool.workers if remote.host and remote.stream is None]:
            if not self.claim(1):
                return
            self.send(remote, self.group())
        starting = sum(not remote.host for remote in self.pool.workers)
        while self.claim(1) and starting < len(self.waiting) + self.left and self.pool.has_room():
            self.pool.start_worker()
            starting += 1

    @property
    def left(self) -> int:
        """The most runs that are still to be claimed."""
        return 0 if self.session.is_exhausted else self.number - len(self.session.order)

    def claim(self, number: int) -> bool:
        """Claim runs until this many wait for a worker; whether they do."""
        while len(self.waiting) < number and (claimed := self.session.next_run()) is not None:
            self.waiting.append(Assignment(claimed))
        return len(self.waiting) >= number

    def group(self) -> list[Assignment]:
        """The runs that a worker gets next. A run whose worker died goes alone, as it may be the cause."""
        first = self.waiting.popleft()
        if first.deaths:
            return [first]
        size = self.size()
        self.claim(size - 1)
        rest = [assignment for assignment in self.waiting if not assignment.deaths][: size - 1]
        for assignment in rest:
            self.waiting.remove(assignment)
        return [first, *rest]

    def size(self) -> int:
        """The size of a group: one run, unless a worker trains several at once."""
        lanes, gpus = self.pool.settings.lanes, self.pool.settings.gpus
        if lanes == 1 or (lanes == "auto" and not gpus):
            return 1
        # Groups get smaller towards the end, so that no worker has many runs while others are idle.
        share = math.ceil((self.left + len(self.waiting)) / (2 * len(self.pool.workers)))
        return max(lanes if isinstance(lanes, int) else 1, min(share, LARGEST_GROUP))

    def send(self, remote: RemoteWorker, group: list[Assignment]) -> None:
        """Give runs to a worker."""
        lanes = self.pool.settings.lanes
        remote.send(
            [order(assignment.run) for assignment in group], lanes if isinstance(lanes, int) else None
        )
        for assignment in group:
            assignment.remote = remote
            self.training[assignment.run.spec.signature] = assignment

    def busy(self) -> set[RemoteWorker]:
        """The workers that train."""
        return {one.remote for one in self.training.values() if one.remote is not None}

    def end_all(self) -> None:
        """End the runs in training as interrupted, and give up those that wait."""
        self.is_ending = True
        for remote in self.busy():
            remote.control("end")
        while self.waiting:
            self.interrupt(self.waiting.popleft())

    # From workers

    def receive(self) -> None:
        """Wait a moment for the next message of a worker."""
        import ray

        workers = self.pool.workers
        expected = {
            remote.stream or remote.ready: remote for remote in workers if remote.stream or not remote.host
        }
        if not expected:
            time.sleep(POLL_SECONDS)
            return
        if any(remote.host for remote in workers):
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > PATIENCE_SECONDS:
            self.idle_since = math.inf
            self.pool.count_room()  # raises if all machines are gone
            self.note("waiting for a worker: the cluster is busy, or slow to start one")
        ready, _ = ray.wait(list(expected), num_returns=1, timeout=POLL_SECONDS)
        for reference in ready:
            remote = expected[reference]
            if remote.stream is None:
                self.pool.admit(remote, self.note)
            else:
                self.read(remote)

    def read(self, remote: RemoteWorker) -> None:
        """Read a worker's next parcel; or see that it is done, or has died."""
        import ray

        assert remote.stream is not None
        assignments = [assignment for assignment in self.training.values() if assignment.remote is remote]
        try:
            self.write(ray.get(next(remote.stream)))
        except StopIteration:
            remote.stream = None
            for assignment in assignments:
                if self.is_ending:
                    self.interrupt(assignment)
                else:  # the worker's disk is full
                    self.fail(
                        assignment, f"on {remote.host}: it ended, but its record could not be written there"
                    )
        except ray.exceptions.RayTaskError as error:
            remote.stream = None
            if isinstance(error.cause, OSError):  # such as a full disk, which the others may not have
                for assignment in assignments:
                    self.retry(assignment, remote.host)
                self.pool.refuse(remote, f"worker on {remote.host} cannot continue: {error.cause}", self.note)
            for assignment in assignments:
                if assignment.remote is remote:
                    self.fail(assignment, f"on {remote.host}: {error.cause}")
        except ray.exceptions.RayError:
            self.note(f"a worker on {remote.host} died with {counted(len(assignments), 'run')} in training")
            self.pool.remove(remote)
            for assignment in assignments:
                self.retry(assignment, remote.host)

    def retry(self, assignment: Assignment, host: str) -> None:
        """Let another worker resume a run whose worker has died, from what it has sent."""
        del self.training[assignment.run.spec.signature]
        assignment.remote, assignment.deaths = None, assignment.deaths + 1
        if self.stop():
            self.interrupt(assignment)
        elif assignment.deaths > self.pool.settings.retries:
            times = "once" if assignment.deaths == 1 else f"{assignment.deaths} times"
            self.fail(assignment, f"its worker died {times} (killed, or out of memory), last on {host}")
        else:
            if assignment.run.folder.path.exists():
                assignment.run.folder.log(f"its worker on {host} died")
            self.waiting.append(assignment)

    # Records

    def write(self, parcel_: Parcel) -> None:
        """Bring a run's folder up to date."""
        assignment = self.training.get(parcel_.signature)
        if assignment is None:  # it has failed here: the disk is full
            return
        run = assignment.run
        status = parcel_.status()
        if run.stale and status.name == "failed" and status.data == UNKNOWN:
            self.fail(assignment, status.reason)  # it could not begin: the old record stays
            return
        try:
            self.renew(run, status.started)
            parcel.unpack(run.folder, parcel_)
            run.join()
        except OSError as error:
            self.fail(assignment, f"cannot write to {run.folder.path}: {error.strerror}")
            return
        for note in parcel_.notes:
            self.note(note)
        self.changed[run.spec.signature] = assignment
        # `interrupted`: a worker also postpones runs while its memory is full.
        if status.name not in ("running", "interrupted"):
            self.settle(assignment, status)

    def renew(self, run: Run, started: float) -> None:
        """Archive the old record if the worker began the run anew. Without a checkpoint there is none."""
        status = run.folder.status()
        if status.started == started:
            return
        if status.has_begun and (run.stale or (run.folder.path / "last.pt").exists()):
            run.renew(run.stale or "its checkpoint could not be used")
        run.stale = ""
        run.folder.write_config(run.spec.cfg)

    def settle(self, assignment: Assignment, status: Status) -> None:
        """Note how a run has ended."""
        self.training.pop(assignment.run.spec.signature, None)
        self.changed[assignment.run.spec.signature] = assignment
        self.session.settle(assignment.run.folder, status)

    def fail(self, assignment: Assignment, reason: str) -> None:
        """End a run as failed that no worker has ended."""
        self.settle(assignment, assignment.run.fail(reason))

    def interrupt(self, assignment: Assignment) -> None:
        """Give a run up; the next command resumes it."""
        self.training.pop(assignment.run.spec.signature, None)
        run, status = assignment.run, assignment.run.folder.status()
        run.interrupt(f"stopped after step {status.step}")
        if status.name in ("running", "interrupted"):
            self.settle(assignment, run.folder.status())
        else:
            run.release()

    def track(self) -> None:
        """Upload what has come back."""
        while self.changed:
            signature, assignment = self.changed.popitem()
            assignment.run.upload()
            if signature not in self.training:
                assignment.run.release()

    def abandon(self) -> None:
        """After a second Ctrl-C or an error: leave no run `running`, and no worker training one."""
        for remote in self.busy():
            self.pool.remove(remote)
        for assignment in [*self.training.values(), *self.waiting]:
            try:
                self.interrupt(assignment)
            except OSError:  # the disk is full; its free lock tells the next command
                assignment.run.release()
        self.track()


def order(run: Run) -> Order:
    """A run as a worker gets it."""
    spec, values = run.spec, config.resolved(run.spec.cfg)
    weights = values["trainer"]["weights"]
    return Order(
        spec.signature,
        spec.content,
        values,
        spec.place,
        {} if run.stale else parcel.state(run.folder),
        Path(weights).read_bytes() if weights is not None else None,
    )
