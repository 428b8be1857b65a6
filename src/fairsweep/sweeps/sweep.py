"""A sweep at work: finished runs are reused, the others executed, and it ends in order."""

import sys
import time
import uuid
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig, open_dict
from rich import get_console

from fairsweep import signals
from fairsweep.config import criteria_of
from fairsweep.runs import life, uploader
from fairsweep.runs.folder import Place, RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.life import CannotLaunch, FirstFailure
from fairsweep.runs.status import Status
from fairsweep.sweeps import phases, space, weights
from fairsweep.sweeps.arms import Arm, variants
from fairsweep.sweeps.board import Board
from fairsweep.sweeps.executor import Executor
from fairsweep.sweeps.folder import ReportSummary, SweepFolder
from fairsweep.sweeps.phases import Result, TrialRun
from fairsweep.sweeps.plan import Entry, Plan, naming
from fairsweep.sweeps.request import Request
from fairsweep.sweeps.search import Study
from fairsweep.wording import counted


class Reports(Protocol):
    """Makes the report of a sweep; see `compare.after`."""

    def known(self, sweep: SweepFolder) -> ReportSummary | None: ...
    def write(self, sweep: SweepFolder, cfg: DictConfig) -> ReportSummary: ...


class Sweep:
    """One multirun command at work.

    Args:
        master: the configuration without what is swept; its `hydra.sweep.dir` becomes the sweep's folder.
        executor: executes the runs.
        reports: makes the report at the end.
    """

    def __init__(self, request: Request, master: DictConfig, executor: Executor, reports: Reports) -> None:
        phases.check(request.arms, request.settings)
        self.request, self.master, self.executor, self.reports = request, master, executor, reports
        self.settings = request.settings
        self.plan = Plan(request, executor)
        self.command = uuid.uuid4().hex
        runs = {arm.name: [[*request.common, *values] for values in variants(arm)] for arm in request.arms}
        self.id = request.id({name: self.origins(name, those) for name, those in runs.items()})
        self.folder = SweepFolder(directory(master, self.id), Path(master.record.dir).absolute())
        before = self.folder.before()
        known = before.get("weights") or {} if before.get("id") == self.id else {}
        self.pinned = executor.pin(chain(*runs.values()), known)
        confirm = len(request.arms) * len(self.settings.confirm_seeds)
        self.board = Board(
            get_console(), self.folder, executor.status, criteria_of(master), self.command, confirm
        )
        self.unplanned = 0  # runs that are still to come, at most
        self.begun: set[str] = set()  # signatures of the runs that were executed
        self.settled: dict[str, Status] = {}  # how runs ended in this command, by signature

    def origins(self, arm: str, runs: Sequence[Sequence[str]]) -> list[str]:
        """Hashes of what the runs of an arm learn from and start from."""
        with naming(arm, self.request.named_arms):
            return [text for overrides in runs for text in self.executor.origins(overrides)]

    # The request, checked before anything is trained

    def check(self) -> list[Entry]:
        """The runs that are known by now, all of them good.

        Raises:
            ConfigError: an arm, its space, a budget, a value that cannot be; or a folder of another sweep.
        """
        runs, more = phases.known(self.request.arms, self.settings)
        entries = [self.plan.checked(run) for run in runs]
        for arm in self.request.arms:
            if arm.name not in {entry.row.arm for entry in entries}:  # a sampler will choose its values
                for values in space.corners(arm.space):
                    self.plan.checked(
                        TrialRun(phases.Trial(arm.name, 0, values), "search", self.settings.seeds[0])
                    )
        self.unplanned = len(runs) + more
        self.folder.check_owner(self.id)
        for note in space.notes(arm.space for arm in self.request.arms):
            self.board.note(note)
        return entries

    # The work

    def run(self) -> None:
        """Carry it out, and tell what came out; ends the process with status 1 where a run has failed."""
        asked = self.check()
        life.check_writable(self.folder.outputs)
        different = {entry.row.signature for entry in asked}
        if len(different) < len(asked):
            self.board.note(f"{len(asked)} runs, {len(different)} distinct: duplicates train once")
        for note in self.executor.notes(entry.planned for entry in self.plan.entries.values()):
            self.board.note(note)
        with self.folder.alone(self.id, self.board.note), uploader.running(self.board.note):
            ending, is_launched = "failed", True
            try:
                signals.check()
                self.folder.begin(id=self.id, weights=self.pinned, **self.plan.definition(self.master))
                self.upload()
                life.upload_pending(self.master)
                with self.board:
                    phases.Course(
                        self.request.arms,
                        self.settings,
                        evaluate=self.evaluate,
                        study_of=self.study,
                        prune=self.prune,
                        allowed=self.plan.allowed,
                    ).run(interleave=self.request.named_arms)
                left = []
                for folder in self.folder.leave():
                    uploader.sync(folder, self.master, self.board.note)
                    left.append(folder.signature)
                if left:
                    self.board.note(
                        f"removed from this sweep, but kept on disk: {counted(len(left), 'run')} "
                        "that only an earlier command asked for"
                    )
                signals.check()
                if not self.board.standing.counts()["failed"]:
                    ending = "finished"
            except FirstFailure:
                pass
            except CannotLaunch:
                is_launched = bool(self.board.standing.reused or self.board.trained)
                raise
            except KeyboardInterrupt:
                ending = "interrupted"
                raise
            finally:
                with signals.postponed():
                    self.end(ending, is_launched)
        if ending == "failed":
            sys.exit(1)

    def study(self, arm: Arm) -> Study:
        """The search of one arm, continued where an earlier command left it."""
        recorded = self.folder.proposals(arm.name)
        return Study(self.id, arm, self.settings.sampler, self.settings.sign, recorded)

    def evaluate(self, runs: Sequence[TrialRun]) -> list[Result]:
        """The results of these runs, once all of them are there."""
        entries = [self.plan.entry(run) for run in runs]
        rows = self.plan.add(entries)
        self.unplanned = max(0, self.unplanned - len(rows))
        self.folder.add(rows)
        self.board.plan(rows, self.unplanned)
        missing: dict[str, Entry] = {}
        for entry in entries:
            signature = entry.row.signature
            if signature in missing:
                continue
            if signature in self.plan.rejected and signature not in self.settled:
                status = self.executor.fail(self.spec(entry), self.plan.rejected[signature])
                self.settle(signature, status)
            elif self.has_failed(signature) or self.is_done(entry):
                self.executor.join(self.spec(entry))
                self.board.settle(entry.row, self.status(signature))
            else:
                missing[signature] = entry
        self.stop_at_failure()
        self.execute(list(missing.values()))
        return [self.result(entry) for entry in entries]

    def is_done(self, entry: Entry) -> bool:
        """Whether what is wanted of this run is there already."""
        is_begun = entry.row.signature in self.begun
        return self.executor.is_done(entry.planned, entry.run.stop_epoch, is_begun)

    def has_failed(self, signature: str) -> bool:
        """Whether a run failed in this command, as that of another trial; it would fail again."""
        return signature in self.settled and self.settled[signature].name == "failed"

    def stop_at_failure(self) -> None:
        """
        Raises:
            FirstFailure: a run has failed, with fail_fast.
        """
        if self.master.hydra.sweeper.fail_fast and self.board.standing.counts()["failed"]:
            raise FirstFailure([])

    def spec(self, entry: Entry) -> RunSpec:
        """A run as its executor gets it."""
        place = Place(self.id, str(self.folder.path), [], self.command)
        return self.plan.spec(entry, place, entry.row.signature in self.begun)

    def execute(self, entries: list[Entry]) -> None:
        """Execute runs until each has ended."""
        if not entries:
            return
        specs = [self.spec(entry) for entry in entries]
        self.board.launch([entry.row for entry in entries])
        self.begun |= {spec.signature for spec in specs}
        try:
            for status in self.executor.execute(specs):
                self.settle(status.signature, status)
                self.stop_at_failure()
        finally:
            self.board.returned()

    def settle(self, signature: str, status: Status) -> None:
        """Note how a run ended."""
        self.settled[signature] = status
        self.board.settle(self.plan.rows[signature][0], status)

    def status(self, signature: str) -> Status:
        """How a run stands. If it has not ended for good, another process may have continued it."""
        settled = self.settled.get(signature)
        if settled and (settled.is_final or settled.name == "failed"):
            return settled
        return self.executor.status(signature)

    def result(self, entry: Entry) -> Result:
        """What a run gave: its objective; at a rung, the one of that epoch."""
        status, stop_epoch = self.status(entry.row.signature), entry.run.stop_epoch
        if status.name == "failed" or stop_epoch is None:
            return Result(status.name, status.ranked_objective)
        return Result(status.name, self.executor.objective_at(entry.row.signature, stop_epoch))

    def prune(self, runs: Sequence[TrialRun]) -> None:
        """End paused runs that halving has dropped."""
        for run in runs:
            entry = self.plan.checked(run)
            reason = f"stopped by halving after epoch {run.stop_epoch}"
            self.settle(entry.row.signature, self.executor.prune(self.spec(entry), reason))

    def upload(self) -> None:
        """Bring the sweep's MLflow run up to date."""
        uploader.sync_sweep(self.folder.path, self.folder.outputs, self.master, self.board.note)

    # The end

    def end(self, ending: str, is_launched: bool) -> None:
        """Write the table, bring MLflow up to date, and tell what came out, if anything could."""
        if not self.folder.exists():
            return
        standing = self.board.standing
        self.board.reread()
        if standing.rows:  # else the table is still right, as the plan is
            self.folder.write_table(self.status)
        self.folder.set(
            status=ending,
            ended=time.time(),
            counts=dict(standing.counts()),
            reused=len(standing.reused),
            best_objective=standing.best_objective(),
        )
        self.upload()
        life.flush(self.master)
        if not is_launched:
            return
        report = champion = None
        if ending != "interrupted":
            report = self.report()
            is_complete = ending == "finished" and not standing.counts()["paused"]
            champion = self.settle_weights(report.best, is_complete)
            uploader.register(champion, self.master, self.board.note)
            life.flush(self.master)
        self.board.summary(ending, self.master, report, champion)

    def report(self) -> ReportSummary:
        """Write the report, or show again the one that is there."""
        if not self.begun and (known := self.reports.known(self.folder)):
            return known
        with self.board.console.status("writing the report"):
            written = self.reports.write(self.folder, self.master)
        self.upload()
        return written

    def settle_weights(self, best_arm: str | None, is_complete: bool) -> RunFolder | None:
        """Keep the weights of the best, and upload them; free the disk of the others. Gives the champion."""
        choice = weights.choose(self.board.standing, best_arm)
        for folder in weights.settle(self.folder, self.board.standing, choice, is_complete):
            uploader.sync(folder, self.master, self.board.note)
        return self.folder.run(choice.champion) if choice.champion else None


def directory(master: DictConfig, sweep: str) -> Path:
    """The sweep's folder, known to Hydra from here on: the user's, or one named by the sweep's id."""
    if any(word.startswith("hydra.sweep.dir=") for word in master.hydra.overrides.hydra):
        return Path(master.hydra.sweep.dir).absolute()
    path = Path(master.record.dir).absolute() / "sweeps" / sweep
    with open_dict(master):
        master.hydra.sweep.dir = str(path)
        quoted = str(path).replace("'", r"\'")
        master.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
    return path
