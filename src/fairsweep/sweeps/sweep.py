"""A sweep at work: finished runs are reused, the others launched, and it ends in order."""

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, Protocol

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich import get_console

from fairsweep import config, signals
from fairsweep.cli.entry import explain
from fairsweep.cli.overrides import command
from fairsweep.config import ConfigError
from fairsweep.launch import jobs
from fairsweep.runs import experiment, provenance, uploader
from fairsweep.runs.experiment import FirstFailure, Outcome, Wanted
from fairsweep.runs.progress import Progress
from fairsweep.runs.record import Place, RunFolder
from fairsweep.runs.schema import FINAL
from fairsweep.sweeps import origins, phases, space, weights
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.board import Board
from fairsweep.sweeps.compose import Composer
from fairsweep.sweeps.folder import ReportSummary, Row, SweepFolder
from fairsweep.sweeps.origins import Pinned
from fairsweep.sweeps.phases import ArmOutcome, Result, Run
from fairsweep.sweeps.request import ARMS, Request
from fairsweep.sweeps.search import Study
from fairsweep.wording import counted, described, short, shown

Launch = Callable[[list[list[str]]], Sequence[JobReturn]]


# No run reads these, and Hydra copies them four times for each, which takes longer than the rest of it.
UNNEEDED = ("hydra.help", "hydra.hydra_help", "hydra.sweeper", "hydra.runtime.config_sources")


class Entry(NamedTuple):
    """A run of the sweep, its row in the plan, and what a job needs of it.

    cfg: its configuration, resolved once, as JSON: small, as there may be many.
    content: the hash of its data.
    """

    run: Run
    row: Row
    overrides: list[str]
    cfg: str
    content: str


class Reports(Protocol):
    """Makes the report of a sweep; see `compare.after`."""

    def known(self, sweep: SweepFolder) -> ReportSummary | None: ...
    def write(self, sweep: SweepFolder, cfg: DictConfig) -> ReportSummary: ...


class Sweep:
    """One multirun command at work.

    Args:
        master: the configuration without what is swept; its `hydra.sweep.dir` becomes the sweep's folder.
        launch: passes jobs, each a list of overrides, to Hydra's launcher, at most `most_jobs` at once.
    """

    def __init__(
        self,
        asked: Request,
        master: DictConfig,
        composer: Composer,
        launch: Launch,
        reports: Reports,
        most_jobs: int | None = None,
    ) -> None:
        self.asked, self.master, self.composer, self.launch = asked, master, composer, launch
        self.reports, self.most_jobs = reports, most_jobs
        composer.unneeded = UNNEEDED
        self.settings = asked.settings
        self.command = uuid.uuid4().hex
        self.arms = {arm.name: arm for arm in asked.arms}
        self.outputs = Path(master.record.dir).absolute()
        self.weights: dict[str, Pinned] = {}
        phases.check(asked.arms, self.settings)
        variants = {arm.name: self.variants(arm) for arm in asked.arms}
        self.id = asked.id({name: origins.of(cfgs) for name, cfgs in variants.items()})
        self.folder = SweepFolder(self.directory(), self.outputs)
        self.weights = self.starting_weights(chain(*variants.values()))
        confirm = len(asked.arms) * len(self.settings.confirm_seeds)
        self.board = Board(get_console(), self.folder, str(master.objective), self.command, confirm)
        self.progress = Progress(self.board.console, quiet=True)
        self.entries: dict[Run, Entry] = {}
        self.rows: dict[str, list[Row]] = {}  # what each run is in this sweep, by signature
        self.unplanned = 0  # runs that are still to come, at most
        self.studies: dict[str, Study] = {}  # those that an earlier command had begun, by arm
        self.begun: set[str] = set()  # signatures that were launched
        self.rejected: dict[str, ConfigError] = {}  # what is wrong with sampled values, by signature
        self.unrecorded: dict[str, dict[str, Any]] = {}  # statuses of runs whose folders do not tell

    def directory(self) -> Path:
        """The sweep's folder, known to Hydra from here on: the user's, or one named by the sweep's id."""
        given = [o for o in self.master.hydra.overrides.hydra if o.startswith("hydra.sweep.dir=")]
        if given:
            return Path(self.master.hydra.sweep.dir).absolute()
        path = Path(self.master.record.dir).absolute() / "sweeps" / self.id
        with open_dict(self.master):
            self.master.hydra.sweep.dir = str(path)
            quoted = str(path).replace("'", r"\'")
            self.master.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")
        return path

    # The request, checked before anything is trained

    def check(self) -> list[Entry]:
        """The runs that are known by now, all of them good.

        Raises:
            ConfigError: an arm, its space, a budget, a value that cannot be; or a folder of another sweep.
        """
        runs, more = phases.known(self.asked.arms, self.settings)
        entries = [self.prepare(run) for run in runs]
        for arm in self.asked.arms:
            if arm.name not in {entry.row.arm for entry in entries}:  # a sampler will choose its values
                for values in space.corners(arm.space):
                    self.prepare(Run(phases.Trial(arm.name, 0, values), "search", self.settings.seeds[0]))
        self.unplanned = len(runs) + more
        self.folder.check_owner(self.id)
        for note in space.notes(arm.space for arm in self.asked.arms):
            self.board.note(note)
        return entries

    def prepare(self, run: Run) -> Entry:
        """A run's place in the sweep, after its configuration was found good."""
        if run not in self.entries:
            signals.check()
            overrides = self.asked.overrides(run)
            with self.naming(run.trial.arm):
                wanted = experiment.identify(Wanted(self.compose(overrides), single=False))
                self.check_selection(wanted.cfg)
            self.enter(run, overrides, wanted)
        return self.entries[run]

    def enter(self, run: Run, overrides: list[str], wanted: Wanted) -> None:
        """Give a run its place in the sweep."""
        trial = run.trial
        number, values = trial.number, config.redacted(trial.values)
        row = Row(wanted.signature, self.name(run), trial.arm, number, run.phase, run.seed, values)
        plain = json.dumps(config.resolved(wanted.cfg))
        self.entries[run] = Entry(run, row, overrides, plain, wanted.content)

    def planned(self, run: Run) -> Entry:
        """A run's place in the sweep; a run whose sampled values are not allowed together will fail there."""
        try:
            return self.prepare(run)
        except ConfigError as error:
            overrides = self.asked.overrides(run)
            cfg = experiment.with_weights_file(self.compose(overrides))
            values = config.resolved(cfg)
            content = provenance.content(values)
            signature = config.signature(values, content)
            self.rejected[signature] = error
            self.enter(run, overrides, Wanted(cfg, signature=signature, content=content))
            return self.entries[run]

    def compose(self, overrides: list[str]) -> DictConfig:
        """A run's configuration; weights that a word names are those that it meant when the sweep began."""
        cfg = self.composer.run_config(self.master, overrides)
        if cfg.record.dir != self.master.record.dir:
            raise ConfigError(
                f"record.dir={cfg.record.dir}: must be the same in all runs; set it once for the whole sweep"
            )
        if pinned := self.weights.get(origins.word(cfg) or ""):
            cfg.trainer.weights = pinned.path
        return cfg

    def starting_weights(self, variants: Iterable[DictConfig]) -> dict[str, Pinned]:
        """What `latest` and `best` meant when this sweep was first begun."""
        known = {}
        before = self.folder.before()
        if not self.master.rerun and before.get("id") == self.id:
            known = before.get("weights", {})
        return origins.pin(variants, known)

    def variants(self, arm: Arm) -> list[DictConfig]:
        """Configurations of an arm that between them have all that its runs may train on or start from."""
        found = []
        for values in origins.variants(arm):
            with self.naming(arm.name):
                cfg = self.compose([*self.asked.common, *arm.fixed, *values])
                config.check(cfg)
                found.append(cfg)
        return found

    @contextmanager
    def naming(self, arm: str) -> Iterator[None]:
        """Inside, a mistake names its arm, if the user named the arms."""
        where = f"{ARMS}.{arm}: " if self.asked.named_arms else ""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from error
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{where}{explain(error)}") from error

    def check_selection(self, cfg: DictConfig) -> None:
        """Check that runs can be compared.

        Raises:
            ConfigError: objectives or pauses differ; validation is off; halving meets a pause, or
                runs of different lengths.
        """
        settings = self.settings
        pause = self.master.trainer.stop_epoch
        if settings.halving and pause is not None:
            raise ConfigError(
                f"trainer.stop_epoch={pause}: halving decides where runs pause; omit one of the two"
            )
        if not settings.halving and cfg.trainer.stop_epoch != pause:
            raise ConfigError(
                f"trainer.stop_epoch={cfg.trainer.stop_epoch}: must be the same for the whole sweep, as it "
                "pauses all of it"
            )
        if cfg.objective != self.master.objective:
            raise ConfigError(
                f"objective={cfg.objective}: must be {self.master.objective} in all runs, which are compared "
                "by it; set it once for the whole sweep"
            )
        selects = settings.confirm_seeds or settings.sampler != "grid" or settings.extend or settings.halving
        if cfg.data.val_size == 0 and selects:
            raise ConfigError("data.val_size=0: arms are compared by validation; set it above 0")
        if settings.halving and cfg.trainer.epochs != settings.epochs:
            raise ConfigError(
                f"trainer.epochs={cfg.trainer.epochs}: must be {settings.epochs} in all runs, with halving"
            )

    def name(self, run: Run) -> str:
        """What tells a run from the others: `adam lr=0.01 seed=2`."""
        values = described(config.redacted(run.trial.values))
        return " ".join(f"{run.trial.arm} {values} seed={run.seed}".split())

    def allowed(self, arm: str, values: Mapping[str, str]) -> bool:
        """Whether runs can have these values."""
        try:
            self.prepare(Run(phases.Trial(arm, -1, dict(values)), "search", self.settings.seeds[0]))
        except ConfigError:
            return False
        return True

    # The work

    def run(self) -> None:
        """Carry it out, and tell what came out; ends the process with status 1 where a run has failed."""
        asked = self.check()
        experiment.check_writable(self.outputs)
        different = {entry.row.signature for entry in asked}
        if len(different) < len(asked):
            self.board.note(f"{len(asked)} runs, {len(different)} distinct: duplicates train once")
        for note in origins.notes(entry.cfg for entry in self.entries.values()):
            self.board.note(note)
        with self.only_here(), uploader.running(self.board.note):
            self.check_studies()
            ending, outcomes, is_launched = "failed", dict[str, ArmOutcome](), True
            try:
                signals.check()
                self.begin()
                with self.board:
                    outcomes = phases.run(
                        self.asked.arms,
                        self.settings,
                        evaluate=self.evaluate,
                        study_of=self.study,
                        prune=self.prune,
                        allowed=self.allowed,
                        interleave=self.asked.named_arms,
                    )
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
            except jobs.CannotLaunch:
                is_launched = bool(self.board.standing.reused or self.board.trained)
                raise
            except KeyboardInterrupt:
                ending = "interrupted"
                raise
            finally:
                with signals.postponed():
                    self.end(ending, outcomes, is_launched)
        if ending == "failed":
            sys.exit(1)

    def check_studies(self) -> None:
        """Open the searches of an earlier command, before anything is written.

        Raises:
            ConfigError: their database is locked or damaged.
        """
        if self.settings.sampler != "grid" and self.folder.exists():
            self.studies = {arm.name: self.study(arm) for arm in self.asked.arms}

    def study(self, arm: Arm) -> Study:
        """The search of one arm, in the sweep's folder."""
        return self.studies.get(arm.name) or Study(
            self.folder.path, self.id, arm, self.settings.sampler, self.settings.sign
        )

    @contextmanager
    def only_here(self) -> Iterator[None]:
        """Inside, no other process runs this sweep."""
        lock: FileLock = self.folder.lock(self.id)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.board.note(f"sweep {self.id} is running in another process; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def begin(self) -> None:
        """Write the request; repair what dead processes left."""
        settings = self.settings
        self.folder.begin(
            id=self.id,
            name=" vs ".join(name for name in self.arms if name) or "grid",
            command=command(),
            overrides=self.asked.common,
            objective=str(self.master.objective),
            named_arms=self.asked.named_arms,
            **{group: self.names(group) for group in ("data", "model")},
            weights={name: file._asdict() for name, file in self.weights.items()},
            arms={
                arm.name: {
                    "fixed": arm.fixed,
                    "space": {dim.key: dim.space for dim in arm.space},
                    "default": self.default(arm),
                }
                for arm in self.asked.arms
            },
            **{key: getattr(settings, key) for key in RECORDED},
        )
        uploader.sync_sweep(self.folder.path, self.outputs, self.master, self.board.note)
        uploader.sync_pending(self.master)

    def names(self, group: str) -> list[str]:
        """The data sets, or the models, of the runs that are known by now."""
        return list(dict.fromkeys(json.loads(entry.cfg)[group]["name"] for entry in self.entries.values()))

    def default(self, arm: Arm) -> dict[str, str]:
        """What the arm's keys are where nobody searches them."""
        cfg = self.composer.run_config(self.master, [*self.asked.common, *arm.fixed])
        values = {dim.key: OmegaConf.select(cfg, dim.key.lstrip("+~")) for dim in arm.space}
        return {
            key: json.dumps(v).strip('"') for key, v in values.items() if isinstance(v, int | float | str)
        }

    def evaluate(self, runs: Sequence[Run]) -> list[Result]:
        """The results of these runs, once all of them are there."""
        entries = [self.planned(run) for run in runs]
        rows = []
        for entry in entries:
            known = self.rows.setdefault(entry.row.signature, [])
            if entry.row not in known:
                known.append(entry.row)
                rows.append(entry.row)
        self.unplanned = max(0, self.unplanned - len(rows))
        self.folder.add(rows)
        self.board.plan(rows, self.unplanned)
        missing: dict[str, Entry] = {}
        for entry in entries:
            signature = entry.row.signature
            if signature in missing:
                continue
            if signature in self.rejected and signature not in self.unrecorded:
                self.fail(entry, self.rejected[signature])
            elif self.exists(entry) or self.has_failed(entry):
                self.join(entry)
                self.board.settle(entry.row, self.status(entry))
            else:
                missing[signature] = entry
        self.stop_at_failure()
        self.train(list(missing.values()))
        return [self.result(entry) for entry in entries]

    def has_failed(self, entry: Entry) -> bool:
        """Whether a run failed in this command, as that of another trial; it would fail again."""
        is_ours = entry.row.signature in self.begun or entry.row.signature in self.rejected
        return is_ours and self.status(entry).get("status") == "failed"

    def stop_at_failure(self) -> None:
        """
        Raises:
            FirstFailure: a run has failed, with fail_fast.
        """
        if self.master.hydra.sweeper.fail_fast and self.board.standing.counts()["failed"]:
            raise FirstFailure([])

    def exists(self, entry: Entry) -> bool:
        """Whether what is wanted of this run is there already."""
        folder = self.folder.run(entry.row.signature)
        status = folder.status()
        if not status or folder.damage():
            return False
        cfg = json.loads(entry.cfg)
        rerun, reuse = cfg["rerun"] and entry.row.signature not in self.begun, cfg["reuse"]
        if entry.run.stop_epoch is None:
            return experiment.is_done(rerun, reuse, status)
        if rerun or provenance.stale_reason(reuse, status) or status["status"] == "running":
            return False
        return folder.objective_at(entry.run.stop_epoch) is not None

    def join(self, entry: Entry) -> None:
        """Note in a run, and in its MLflow run, what it is in this sweep."""
        folder = self.folder.run(entry.row.signature)
        if not folder.path.exists():
            return
        with folder.lock():
            folder.join(self.place_of(entry))
            uploader.sync(folder, self.master, self.board.note)

    def place_of(self, entry: Entry) -> Place:
        """What a run is in this sweep."""
        members = [row.member() for row in self.rows[entry.row.signature]]
        return Place(self.id, str(self.folder.path), members, self.command)

    def job(self, entry: Entry) -> list[str]:
        """A run as a job for the launcher; one that this command has launched before is not trained anew."""
        cfg = json.loads(entry.cfg)
        cfg["rerun"] &= entry.row.signature not in self.begun
        identity = {"signature": entry.row.signature, "content": entry.content}
        return jobs.overrides(entry.overrides, cfg, self.place_of(entry), **identity)

    def wanted(self, entry: Entry) -> Wanted:
        """A run as it was planned."""
        cfg = config.literal(json.loads(entry.cfg))
        return Wanted(cfg, self.place_of(entry), False, entry.row.signature, entry.content)

    def train(self, entries: list[Entry]) -> None:
        """Launch runs until each has ended."""
        size = self.most_jobs or len(entries)
        while entries:
            signals.check()
            chunk, rest = entries[:size], entries[size:]
            launched = time.time()
            self.board.launch([entry.row for entry in chunk])
            asked = [self.job(entry) for entry in chunk]
            self.begun |= {entry.row.signature for entry in chunk}
            returns: Sequence[JobReturn] = ()
            death: BaseException | None = None
            try:
                returns = self.launch(asked)
            except jobs.CannotLaunch:
                raise
            except FirstFailure as failure:
                ended = {outcome.folder.signature: outcome.status for outcome in failure.outcomes}
                for entry in chunk:
                    if status := ended.get(entry.row.signature):
                        self.unrecorded[entry.row.signature] = status
                        self.board.settle(entry.row, status)
                raise
            except (
                Exception,
                SystemExit,
            ) as error:  # of the launcher, with a worker of its: the others go on
                death = error
            finally:
                self.board.landed()
            signals.check()  # which may have become that error
            again = self.collect(chunk, returns, death, launched)
            entries = again + rest
            self.stop_at_failure()

    def collect(
        self,
        chunk: list[Entry],
        returns: Sequence[JobReturn],
        death: BaseException | None,
        launched: float,
    ) -> list[Entry]:
        """Settle what has ended; the runs that had not begun when the launcher died are given back."""
        errors = [job._return_value if job.status == JobStatus.FAILED else None for job in returns]
        waiting = []
        for entry, error in zip(chunk, errors or [death] * len(chunk), strict=True):
            folder = self.folder.run(entry.row.signature)
            if folder.status().get("status") == "running":
                self.bury(folder)
            status = folder.status()
            if error is None or (status.get("ended") or 0) >= launched:
                self.board.settle(entry.row, status)
            elif death is not None:
                waiting.append(entry)
                self.begun.discard(entry.row.signature)
            else:
                self.fail(entry, error)
        if len(waiting) == len(chunk) and death is not None:  # it did not even begin: no use to try again
            for entry in waiting:
                self.fail(entry, death)
            return []
        return waiting

    def bury(self, folder: RunFolder) -> None:
        """End a run whose process has died, as its lock is free."""
        lock = experiment.acquired(folder)
        if lock is None:  # another process trains it
            return
        try:
            if folder.status().get("status") == "running":
                experiment.fail(folder, "its process died (killed, or out of memory)")
                uploader.sync(folder, self.master, self.board.note)
        finally:
            lock.release()

    def fail(self, entry: Entry, error: BaseException) -> None:
        """Settle a run that failed before it began, its job lost by the launcher."""
        reason = explain(error) if str(error) else type(error).__name__
        signature, wanted = entry.row.signature, self.wanted(entry)
        folder = self.folder.run(signature)
        try:
            with folder.lock():
                status = experiment.fail_unbegun(wanted, folder, reason, error)
                uploader.sync(folder, self.master, self.board.note)
        except OSError:  # the disk is full
            status = experiment.unrecorded_failure(wanted, reason)
        self.unrecorded[signature] = status
        self.board.settle(entry.row, status)

    def status(self, entry: Entry) -> dict[str, Any]:
        """How a run stands."""
        signature = entry.row.signature
        return self.unrecorded.get(signature) or self.folder.run(signature).status()

    def result(self, entry: Entry) -> Result:
        """What a run gave: its objective; at a rung, the one of that epoch."""
        folder, status = self.folder.run(entry.row.signature), self.status(entry)
        if status["status"] == "failed":
            return Result("failed", None)
        if entry.run.stop_epoch is not None:
            return Result(status["status"], folder.objective_at(entry.run.stop_epoch))
        objective = Outcome(folder, status).objective if status["status"] in FINAL else None
        return Result(status["status"], objective)

    def prune(self, runs: Sequence[Run]) -> None:
        """End paused runs that halving has dropped."""
        for run in runs:
            entry = self.prepare(run)
            folder = self.folder.run(entry.row.signature)
            reason = f"stopped by halving after epoch {run.stop_epoch}"
            experiment.prune(folder, self.master, reason, self.progress)
            self.board.settle(entry.row, folder.status())

    # The end

    def end(self, ending: str, outcomes: Mapping[str, ArmOutcome], is_launched: bool) -> None:
        """Write the table, bring MLflow up to date, and tell what came out, if anything could."""
        if not self.folder.exists():
            return
        standing = self.board.standing
        self.board.reread()
        if standing.rows:  # else the table is still right, as the plan is
            self.folder.write_table()
        self.folder.set(
            status=ending,
            ended=time.time(),
            counts=dict(standing.counts()),
            reused=len(standing.reused),
            best_objective=standing.best_objective(),
        )
        uploader.sync_sweep(self.folder.path, self.outputs, self.master, self.board.note)
        uploader.flush(self.master)
        if not is_launched:
            return
        report = champion = None
        if ending != "interrupted":
            report = self.report()
            is_complete = ending == "finished" and not standing.counts()["paused"]
            champion = self.settle_weights(report.best, is_complete)
            uploader.register(champion, self.master, self.board.note)
            uploader.flush(self.master)
        self.board.summary(ending, self.master, remarks(outcomes, self.settings.extend), report, champion)

    def report(self) -> ReportSummary:
        """Write the report, or show again the one that is there."""
        if not self.begun and (known := self.reports.known(self.folder)):
            return known
        with self.board.console.status("writing the report"):
            written = self.reports.write(self.folder, self.master)
        uploader.sync_sweep(self.folder.path, self.outputs, self.master, self.board.note)
        return written

    def settle_weights(self, best_arm: str | None, is_complete: bool) -> RunFolder | None:
        """Keep the weights of the best, and upload them; free the disk of the others. Gives the champion."""
        choice = weights.choose(self.board.standing, best_arm)
        for folder in weights.settle(self.folder, self.board.standing, choice, is_complete):
            uploader.sync(folder, self.master, self.board.note)
        return self.folder.run(choice.champion) if choice.champion else None

    # Instead of it

    def dry_run(self) -> None:
        """List the runs and whether they exist; estimate the time of those that do not."""
        entries = self.check()
        unique = {entry.row.signature: entry for entry in entries}
        missing = {signature for signature, entry in unique.items() if not self.exists(entry)}
        costs = {arm: self.cost(arm, list(unique.values())) for arm in self.arms}
        more = self.unplanned - len(entries)
        arms = [unique[signature].row.arm for signature in missing]
        seconds, size = (
            sum(costs[arm][part] for arm in arms) + more * fmean(cost[part] for cost in costs.values())
            for part in (0, 1)
        )
        kept = size
        if self.master.record.keep == "auto":
            seeds = len(self.settings.seeds) + len(self.settings.confirm_seeds)
            kept = min(size, seeds * sum(cost[1] for cost in costs.values()))
        self.board.listing([entry.row for entry in unique.values()], missing, more, seconds, (size, kept))

    def cost(self, arm: str, entries: list[Entry]) -> tuple[float, float]:
        """The seconds and the bytes of weights of a run of an arm: as of those that exist, or estimated."""
        ours = [entry for entry in entries if entry.row.arm == arm] or [
            entry for entry in self.entries.values() if entry.row.arm == arm
        ]
        folders = [self.folder.run(entry.row.signature) for entry in ours]
        statuses = [folder.status() for folder in folders]
        seconds = [status["seconds"] for status in statuses if status.get("status") == "finished"]
        weights = [size for folder in folders if (size := folder.weights_size())]
        if seconds and weights:
            return fmean(seconds), fmean(weights)
        estimate = experiment.estimate(config.literal(json.loads(ours[0].cfg)))
        return fmean(seconds) if seconds else estimate[0], estimate[1]


# Settings that `sweep.json` has by their own names.
RECORDED = (
    "sampler", "trials", "seeds", "confirm_seeds", "extend", "extend_steps", "halving", "equal_budget",
)  # fmt: skip


def remarks(outcomes: Mapping[str, ArmOutcome], extended: bool) -> list[str]:
    """What to mind of a sweep's results."""
    trials = {name: len(outcome.tried) for name, outcome in outcomes.items()}
    said = []
    if len(set(trials.values())) > 1:
        numbers = ", ".join(f"{name} {number}" for name, number in trials.items())
        said.append(f"the arms had unequal budgets (trials: {numbers}), which favours those with more")
    for name, outcome in outcomes.items():
        if outcome.best is None:
            said.append(f"{name or 'this sweep'}: no trial finished with all its seeds; there is no best one")
        for key, edge in outcome.edges.items():
            if edge and outcome.best is not None:
                value = shown(outcome.best.trial.values[key])
                side = "high" if edge > 0 else "low"
                more = "raise extend_steps" if extended else "set extend=true"
                said.append(
                    f"{name}: the best {short(key)}={value} is at the {side} end of its range; {more} to "
                    "search beyond it".lstrip(": ")
                )
    return said
