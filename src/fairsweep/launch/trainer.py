"""Executes the runs of a sweep by our training, through a launcher that may die, as may its workers."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from omegaconf import DictConfig

from fairsweep import config, signals
from fairsweep.cli.entry import explain
from fairsweep.config import ConfigError
from fairsweep.launch import origins
from fairsweep.launch.origins import Pinned
from fairsweep.runs import checkpoint, provenance
from fairsweep.runs.folder import RunFolder, folder_of
from fairsweep.runs.identity import PlannedRun, RunSpec, plan
from fairsweep.runs.life import CannotLaunch, FirstFailure, Outcome, Run, claimed, is_done
from fairsweep.runs.status import Status
from fairsweep.runs.store import Note

# Passes runs to a launcher. Gives for each what came of it, its error if it was lost, or None if its folder
# tells.
Launch = Callable[[Sequence[RunSpec]], Sequence[Outcome | BaseException | None]]

DEAD = "its process died (killed, or out of memory)"


class Trainer:
    """The runs of one sweep; see `sweeps.executor.Executor`.

    Args:
        master: the configuration without what is swept.
        run_config: composes the configuration of a run.
        most_jobs: how many runs the launcher gets at once; None: all.
        selects: whether the sweep chooses by validation.
        halving: whether it stops runs early.
    """

    def __init__(
        self,
        master: DictConfig,
        run_config: Callable[[DictConfig, list[str]], DictConfig],
        launch: Launch,
        note: Note,
        *,
        most_jobs: int | None = None,
        selects: bool = False,
        halving: bool = False,
    ) -> None:
        self.master, self.run_config, self.launch, self.note = master, run_config, launch, note
        self.most_jobs, self.selects, self.halving = most_jobs, selects, halving
        self.pinned: Mapping[str, Pinned] = {}  # what names of weights stand for

    # Which run

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """A run's configuration; `latest` and `best` weights are those of when the sweep began."""
        cfg = self.run_config(self.master, list(overrides))
        if cfg.record.dir != self.master.record.dir:
            raise ConfigError(
                f"record.dir={cfg.record.dir}: must be the same in all runs; set it once for the whole sweep"
            )
        if pinned := self.pinned.get(origins.word(cfg) or ""):
            cfg.trainer.weights = pinned.path
        return cfg

    def identify(self, overrides: Sequence[str]) -> PlannedRun:
        cfg = self.compose(overrides)
        planned = plan(cfg, overrides)
        self.check(cfg)
        return planned

    def identify_unchecked(self, overrides: Sequence[str]) -> PlannedRun:
        return plan(self.compose(overrides), overrides, checked=False)

    def check(self, cfg: DictConfig) -> None:
        """Check that runs can be compared.

        Raises:
            ConfigError: objectives or pauses differ; validation is off; halving meets a pause, or runs of
                different lengths.
        """
        master, pause = self.master, self.master.trainer.stop_epoch
        if self.halving and pause is not None:
            raise ConfigError(
                f"trainer.stop_epoch={pause}: halving decides where runs pause; omit one of the two"
            )
        if not self.halving and cfg.trainer.stop_epoch != pause:
            raise ConfigError(
                f"trainer.stop_epoch={cfg.trainer.stop_epoch}: must be the same for the whole sweep, as it "
                "pauses all of it"
            )
        if cfg.objective != master.objective:
            raise ConfigError(
                f"objective={cfg.objective}: must be {master.objective} in all runs, which are compared "
                "by it; set it once for the whole sweep"
            )
        for key in ("judge", "metrics"):
            if cfg[key] != master[key]:
                raise ConfigError(
                    f"{key}={cfg[key]}: must be {master[key]} in all runs, which are compared by it; set it "
                    "once for the whole sweep"
                )
        if cfg.data.val_size == 0 and self.selects:
            raise ConfigError("data.val_size=0: arms are compared by validation; set it above 0")
        epochs = master.trainer.epochs
        if self.halving and cfg.trainer.epochs != epochs:
            raise ConfigError(
                f"trainer.epochs={cfg.trainer.epochs}: must be {epochs} in all runs, with halving"
            )

    def origins(self, overrides: Sequence[str]) -> list[str]:
        cfg = self.compose(overrides)
        config.check(cfg)
        return origins.of(cfg)

    def pin(self, runs: Iterable[Sequence[str]], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        pinned = origins.pin(map(self.compose, runs), {} if self.master.rerun else known)
        self.pinned = pinned
        return {name: file._asdict() for name, file in pinned.items()}

    def notes(self, planned: Iterable[PlannedRun]) -> list[str]:
        return origins.notes(one.cfg for one in planned)

    # What it gave

    def folder(self, signature: str) -> RunFolder:
        return folder_of(self.master.record.dir, signature)

    def status(self, signature: str) -> Status:
        return self.folder(signature).status()

    def is_done(self, planned: PlannedRun, stop_epoch: int | None, is_begun: bool) -> bool:
        folder = self.folder(planned.signature)
        status = folder.status()
        if not status.has_begun or folder.damage():
            return False
        cfg = json.loads(planned.cfg)
        if cfg["rerun"] and not is_begun:
            return False
        if stop_epoch is None:
            return is_done(cfg, status)
        if status.name in ("running", "failed") or provenance.stale_reason(cfg, status):
            return False
        return folder.objective_at(stop_epoch) is not None

    def objective_at(self, signature: str, epoch: int) -> float | None:
        return self.folder(signature).objective_at(epoch)

    def cost(self, planned: Sequence[PlannedRun]) -> tuple[float, float]:
        """The mean of existing runs; otherwise an estimate from a second of training."""
        folders = [self.folder(one.signature) for one in planned]
        statuses = [folder.status() for folder in folders]
        seconds = [status.seconds or 0.0 for status in statuses if status.name == "finished"]
        sizes = [size for folder in folders if (size := checkpoint.size(folder))]
        if seconds and sizes:
            return fmean(seconds), fmean(sizes)
        from fairsweep.training.estimate import estimate

        estimated = estimate(config.literal(json.loads(planned[0].cfg)))
        return fmean(seconds) if seconds else estimated[0], estimated[1]

    # Execution

    def execute(self, specs: Sequence[RunSpec]) -> Iterator[Status]:
        left = list(specs)
        size = self.most_jobs or len(left)
        while left:
            signals.check()
            chunk, rest, launched = left[:size], left[size:], time.time()
            results: Sequence[Outcome | BaseException | None] = ()
            death: BaseException | None = None
            try:
                results = self.launch(chunk)
            except CannotLaunch:
                raise
            except FirstFailure as failure:
                yield from (outcome.status for outcome in failure.outcomes)
                raise
            except (
                Exception,
                SystemExit,
            ) as error:  # of the launcher, with a worker of its: the others go on
                death = error
            signals.check()  # which may have become that error
            unbegun = []
            for spec, result in zip(chunk, results or [death] * len(chunk), strict=True):
                status = self.settled(spec, result, launched)
                if status is not None:
                    yield status
                elif death is not None:
                    unbegun.append(spec)
                else:
                    assert isinstance(result, BaseException)
                    yield self.fail(spec, result)
            if death is not None and len(unbegun) == len(chunk):  # nothing began: trying again is no use
                for spec in unbegun:
                    yield self.fail(spec, death)
                unbegun = []
            left = unbegun + rest

    def settled(
        self, spec: RunSpec, result: Outcome | BaseException | None, launched: float
    ) -> Status | None:
        """The outcome of a launched run; None if it was lost before it began."""
        if isinstance(result, Outcome):
            return result.status
        status = self.status(spec.signature)
        if status.name == "running":
            with claimed(spec, self.note) as run:
                if run is not None and self.status(spec.signature).name == "running":
                    return run.fail(DEAD)
            status = self.status(spec.signature)  # another process trains it
        return status if result is None or (status.ended or 0) >= launched else None

    def fail(self, spec: RunSpec, error: BaseException) -> Status:
        reason = explain(error) if str(error) else type(error).__name__
        run = Run(spec, self.note)
        try:
            with run.folder.lock():
                return run.fail(reason, error)
        except OSError:  # the disk is full
            return run.unrecorded_failure(reason)

    def prune(self, spec: RunSpec, reason: str) -> Status:
        with claimed(spec, self.note) as run:
            if run is not None:  # else another process goes on with it
                run.prune(reason)
        return self.status(spec.signature)

    def join(self, spec: RunSpec) -> None:
        run = Run(spec, self.note)
        if run.folder.path.exists():
            with run.folder.lock():
                run.reuse()
