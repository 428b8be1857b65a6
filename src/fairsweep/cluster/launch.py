"""Runs of a sweep on workers; their results are written here and uploaded to MLflow from here."""

import json
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock
from rich import get_console

from fairsweep import config, experiment, uploader
from fairsweep.cluster import parcel, worker
from fairsweep.cluster.parcel import Parcel
from fairsweep.cluster.pool import Hand, Pool
from fairsweep.cluster.worker import Order
from fairsweep.experiment import FirstFailure, Outcome, Session, Wanted
from fairsweep.jobs import CannotLaunch
from fairsweep.progress import Progress
from fairsweep.record import RunFolder
from fairsweep.schema import UNKNOWN
from fairsweep.signals import Stop, check, stopping
from fairsweep.wording import counted

# The longest that a signal, or a run that another process trains, waits for attention.
POLL_SECONDS = 0.2
# After this long without a worker, a note says what the sweep waits for.
PATIENCE_SECONDS = 20.0
# So many workers in a row may die before they are ready, as where a machine goes down.
STILLBORN = 5
# The most runs that a worker gets at once.
LARGEST_GROUP = 64


@dataclass(eq=False)
class Flight:
    """A run on its way: `stale` says why what its folder holds does not count; `deaths`, of workers at it."""

    wanted: Wanted
    folder: RunFolder
    lock: BaseFileLock
    stale: str
    hand: Hand | None = None
    deaths: int = 0


def run(pool: Pool, wanted: Iterable[Wanted], number: int, fail_fast: bool = False) -> list[Outcome]:
    """Reuse or train each of these runs; a worker that dies costs its runs a retry.

    Returns:
        What came of each run, in their order.

    Raises:
        CannotLaunch: no worker is available.
        FirstFailure: a run has failed, with fail_fast. Runs in training have ended as after a Ctrl-C.
        KeyboardInterrupt: the user stopped. Runs in training have ended as interrupted, with a checkpoint.
    """
    progress = Progress(get_console(), quiet=True)
    with progress, stopping() as stop:
        launch = Launch(pool, Session(wanted, progress, stop, fail_fast), number, stop)
        try:
            launch.carry_out()
        finally:
            launch.leave()
        check()
        if stop.wanted:
            raise FirstFailure(launch.session.outcomes())
    return launch.session.outcomes()


class Launch:
    """From the first run to the last."""

    def __init__(self, pool: Pool, session: Session, number: int, stop: Stop) -> None:
        self.pool, self.session, self.number, self.stop = pool, session, number, stop
        self.note = session.progress.note
        self.coming = session.claims()
        self.is_out = False  # whether no more are coming
        self.waiting: deque[Flight] = deque()
        self.flying: dict[str, Flight] = {}  # by signature
        self.changed: dict[str, Flight] = {}  # what MLflow does not know yet
        self.told_to_end = False
        self.stillborn = 0  # workers in a row that died before they were ready
        self.idle_since = time.monotonic()

    def carry_out(self) -> None:
        """Until nothing is left, or until what is in training has ended after a Ctrl-C."""
        while True:
            if not self.stop():
                self.assign()
            elif not self.told_to_end:
                self.end_all()
            self.track()
            if not self.flying and (self.stop() or (self.is_out and not self.waiting)):
                return
            self.receive()

    # To workers

    def assign(self) -> None:
        """Give those that have nothing to do some runs; where there are more runs than workers, hire."""
        if self.pool.room is None and self.draw(1):
            with self.stop.immediate():
                self.pool.connect()
        for hand in [hand for hand in self.pool.hands if hand.host and hand.stream is None]:
            if not self.draw(1):
                return
            self.send(hand, self.group())
        starting = sum(not hand.host for hand in self.pool.hands)
        while self.draw(1) and starting < len(self.waiting) + self.left and self.pool.has_room():
            self.pool.hire()
            starting += 1

    @property
    def left(self) -> int:
        """Runs that are still to be claimed, at most."""
        return 0 if self.is_out else self.number - len(self.session.order)

    def draw(self, number: int) -> bool:
        """Whether so many runs wait for a worker; if need be, after more were claimed."""
        while len(self.waiting) < number and not self.is_out:
            try:
                claim = next(self.coming)
            except StopIteration:
                self.is_out = True
                break
            if claim is None:
                break  # all that is left is being trained by other processes
            self.waiting.append(Flight(*claim))
        return len(self.waiting) >= number

    def group(self) -> list[Flight]:
        """The runs that a worker gets next. What may have killed a worker is tried alone."""
        first = self.waiting.popleft()
        if first.deaths:
            return [first]
        size = self.size()
        self.draw(size - 1)
        rest = [flight for flight in self.waiting if not flight.deaths][: size - 1]
        for flight in rest:
            self.waiting.remove(flight)
        return [first, *rest]

    def size(self) -> int:
        """How many runs make a group: one, unless a worker trains several at once."""
        lanes, gpus = self.pool.settings.lanes, self.pool.settings.gpus
        if lanes == 1 or (lanes == "auto" and not gpus):
            return 1
        # Toward the end they get smaller, so that no worker is left with much while others have nothing.
        share = math.ceil((self.left + len(self.waiting)) / (2 * len(self.pool.hands)))
        return max(lanes if isinstance(lanes, int) else 1, min(share, LARGEST_GROUP))

    def send(self, hand: Hand, group: list[Flight]) -> None:
        """Hand some runs to a worker."""
        lanes = self.pool.settings.lanes
        hand.send([order(flight) for flight in group], lanes if isinstance(lanes, int) else None)
        for flight in group:
            flight.hand = hand
            self.flying[flight.folder.signature] = flight

    def end_all(self) -> None:
        """Have what is in training end as interrupted; what is not is given up."""
        self.told_to_end = True
        for hand in {flight.hand for flight in self.flying.values() if flight.hand is not None}:
            hand.control("end")
        while self.waiting:
            self.interrupt(self.waiting.popleft())

    # From workers

    def receive(self) -> None:
        """Wait a little for what comes next."""
        import ray

        hands = self.pool.hands
        expected = {hand.stream or hand.greeting: hand for hand in hands if hand.stream or not hand.host}
        if not expected:
            time.sleep(POLL_SECONDS)
            return
        if any(hand.host for hand in hands):
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > PATIENCE_SECONDS:
            self.idle_since = math.inf
            self.pool.count_room()  # which is an error where all machines have gone
            self.note("no worker is ready yet: others use the cluster's cores, or it starts slowly; waiting")
        ready, _ = ray.wait(list(expected), num_returns=1, timeout=POLL_SECONDS)
        for reference in ready:
            hand = expected[reference]
            if hand.stream is None:
                self.welcome(hand)
            else:
                self.take(hand)

    def welcome(self, hand: Hand) -> None:
        """A worker is ready, unless it is another version's."""
        import ray

        try:
            identity = ray.get(hand.greeting)
        except ray.exceptions.RayTaskError as error:
            self.refuse(hand, f"a worker cannot train: {error.cause}")
        except ray.exceptions.RayActorError as error:
            if "creation task" in str(error) or isinstance(error, ray.exceptions.ActorUnschedulableError):
                self.refuse(hand, f"a worker cannot start: {str(error).strip().splitlines()[-1]}")
            elif self.stillborn < STILLBORN:
                self.stillborn += 1
                self.pool.dismiss(hand)
            else:
                self.refuse(hand, f"workers die before they are ready: {str(error).strip().splitlines()[-1]}")
        else:
            self.stillborn = 0
            if identity.code != worker.source_hash():
                self.refuse(
                    hand,
                    f"worker on {identity.host} refused: its fairsweep is another version "
                    f"({identity.code}, here {worker.source_hash()}); bring both to the same commit",
                )
            else:
                hand.host = identity.host

    def refuse(self, hand: Hand, why: str) -> None:
        """Go on without this worker.

        Raises:
            CannotLaunch: it was the last one.
        """
        self.pool.dismiss(hand)
        assert self.pool.room is not None
        self.pool.room -= 1
        if self.pool.room == 0:
            raise CannotLaunch(f"hydra/launcher=ray: {why}")
        self.note(why)

    def take(self, hand: Hand) -> None:
        """The next parcel of a worker; or it has done what it was given, or died."""
        import ray

        assert hand.stream is not None
        flights = [flight for flight in self.flying.values() if flight.hand is hand]
        try:
            self.write(ray.get(next(hand.stream)))
        except StopIteration:
            hand.stream = None
            for flight in flights:
                if self.told_to_end:
                    self.interrupt(flight)
                else:  # its disk is full
                    self.fail(flight, f"on {hand.host}: it ended, but its record could not be written there")
        except ray.exceptions.RayTaskError as error:
            hand.stream = None
            if isinstance(error.cause, OSError):  # as a full disk: the others can do better
                for flight in flights:
                    self.retry(flight, hand.host)
                self.refuse(hand, f"worker on {hand.host} cannot continue: {error.cause}")
            for flight in flights:
                if flight.hand is hand:
                    self.fail(flight, f"on {hand.host}: {error.cause}")
        except ray.exceptions.RayError:
            self.note(f"a worker on {hand.host} died with {counted(len(flights), 'run')} in training")
            self.pool.dismiss(hand)
            for flight in flights:
                self.retry(flight, hand.host)

    def retry(self, flight: Flight, host: str) -> None:
        """The worker that was at this run has died: the next one goes on with what has come back."""
        del self.flying[flight.folder.signature]
        flight.hand, flight.deaths = None, flight.deaths + 1
        if self.stop():
            self.interrupt(flight)
        elif flight.deaths > self.pool.settings.retries:
            times = "once" if flight.deaths == 1 else f"{flight.deaths} times"
            self.fail(flight, f"its worker died {times} (killed, or out of memory), at last on {host}")
        else:
            if flight.folder.path.exists():
                flight.folder.log(f"its worker on {host} died")
            self.waiting.append(flight)

    # What is written

    def write(self, parcel_: Parcel) -> None:
        """Bring a run's folder up to date."""
        flight = self.flying.get(parcel_.signature)
        if flight is None:  # it has failed here, for want of disk
            return
        folder, wanted = flight.folder, flight.wanted
        status = json.loads(parcel_.files["status.json"])
        if flight.stale and status["status"] == "failed" and status["data"] == UNKNOWN:
            self.fail(flight, status["reason"])  # it could not begin: what was there stays
            return
        try:
            self.renew(flight, status["started"])
            parcel.unpack(folder, parcel_)
            if wanted.place is not None:
                folder.join(wanted.place)
        except OSError as error:
            self.fail(flight, f"cannot write to {folder.path}: {error.strerror}")
            return
        for note in parcel_.notes:
            self.note(note)
        self.changed[folder.signature] = flight
        # A worker puts runs off, too, where its memory is full.
        if folder.status()["status"] not in ("running", "interrupted"):
            self.land(flight, folder.status())

    def renew(self, flight: Flight, started: float) -> None:
        """Where the worker began the run anew, put away what was there; without a checkpoint nothing was."""
        folder = flight.folder
        if folder.status().get("started") == started:
            return
        if folder.status() and (flight.stale or (folder.path / "last.pt").exists()):
            old = folder.archive()
            uploader.supersede(RunFolder(old), flight.wanted.cfg, self.note)
            why = flight.stale or "its checkpoint could not be used"
            self.note(f"{why}: training again; the old run is in {old}")
        flight.stale = ""
        folder.write_config(flight.wanted.cfg)

    def land(self, flight: Flight, status: dict[str, Any]) -> None:
        """A run has ended, like this."""
        self.flying.pop(flight.folder.signature, None)
        self.changed[flight.folder.signature] = flight
        self.session.settle(flight.folder, status)

    def fail(self, flight: Flight, reason: str) -> None:
        """End a run as failed that no worker has ended."""
        folder, wanted = flight.folder, flight.wanted
        try:
            if folder.status().get("status") == "running":
                experiment.fail(folder, reason)
                status = folder.status()
            else:
                status = experiment.fail_unbegun(wanted, folder, reason)
        except OSError:  # the disk is full; its last checkpoint tells the next command
            self.note(reason)
            status = experiment.unrecorded_failure(wanted, reason)
        self.land(flight, status)

    def interrupt(self, flight: Flight) -> None:
        """Give a run up; what there is of it, the next command goes on with."""
        self.flying.pop(flight.folder.signature, None)
        status = flight.folder.status()
        if status.get("status") == "running":
            reason = f"stopped after step {status.get('step', 0)}"
            flight.folder.set_status(status="interrupted", reason=reason, ended=time.time())
        if status.get("status") in ("running", "interrupted"):
            self.land(flight, flight.folder.status())
        else:
            flight.lock.release()

    def track(self) -> None:
        """Bring to MLflow what has come back."""
        while self.changed:
            signature, flight = self.changed.popitem()
            uploader.sync(flight.folder, flight.wanted.cfg, self.note)
            if signature not in self.flying:
                flight.lock.release()

    def leave(self) -> None:
        """After a second Ctrl-C, or a fault: no run stays behind as `running`, and no worker at one."""
        for hand in {flight.hand for flight in self.flying.values() if flight.hand is not None}:
            self.pool.dismiss(hand)
        for flight in [*self.flying.values(), *self.waiting]:
            try:
                self.interrupt(flight)
            except OSError:  # the disk is full; its lock, free, tells the next command
                flight.lock.release()
        self.track()


def order(flight: Flight) -> Order:
    """What a worker needs to know of a run."""
    values = config.resolved(flight.wanted.cfg)
    weights = values["trainer"]["weights"]
    return Order(
        flight.folder.signature,
        flight.wanted.content,
        values,
        flight.wanted.place,
        {} if flight.stale else parcel.state(flight.folder),
        Path(weights).read_bytes() if weights is not None else None,
    )
