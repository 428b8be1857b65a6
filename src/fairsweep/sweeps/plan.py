"""The runs of a sweep: which there are, their rows in the plan, and which are not allowed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairsweep import config, signals
from fairsweep.cli.entry import explain
from fairsweep.cli.overrides import command
from fairsweep.config import ConfigError
from fairsweep.runs.folder import Place
from fairsweep.runs.identity import PlannedRun, RunSpec
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.executor import Executor
from fairsweep.sweeps.folder import Row
from fairsweep.sweeps.phases import Trial, TrialRun
from fairsweep.sweeps.request import ARMS, Request
from fairsweep.wording import described


class Entry(NamedTuple):
    """A run of the sweep, its row in the plan, and its executor's view of it."""

    run: TrialRun
    row: Row
    planned: PlannedRun


class Plan:
    """The runs of a sweep so far, each identified once.

    Attributes:
        rows: the requested rows of each run, by signature.
        rejected: why sampled values are not allowed, by the signature of their run.
    """

    def __init__(self, request: Request, executor: Executor) -> None:
        self.request, self.executor = request, executor
        self.entries: dict[TrialRun, Entry] = {}
        self.rows: dict[str, list[Row]] = {}
        self.rejected: dict[str, ConfigError] = {}

    def checked(self, run: TrialRun) -> Entry:
        """A run whose configuration is allowed.

        Raises:
            ConfigError: it is not allowed.
        """
        if run not in self.entries:
            signals.check()
            with naming(run.trial.arm, self.request.named_arms):
                planned = self.executor.identify(self.request.overrides(run))
            self.enter(run, planned)
        return self.entries[run]

    def entry(self, run: TrialRun) -> Entry:
        """A run; if its sampled values are not allowed together, it will be recorded as failed."""
        try:
            return self.checked(run)
        except ConfigError as error:
            planned = self.executor.identify_unchecked(self.request.overrides(run))
            self.rejected[planned.signature] = error
            self.enter(run, planned)
            return self.entries[run]

    def enter(self, run: TrialRun, planned: PlannedRun) -> None:
        """Enter a run with its row."""
        trial = run.trial
        values = config.redacted(trial.values)
        name = " ".join(f"{trial.arm} {described(values)} seed={run.seed}".split())
        row = Row(planned.signature, name, trial.arm, trial.number, run.phase, run.seed, values, trial.basis)
        self.entries[run] = Entry(run, row, planned)

    def allowed(self, arm: str, values: Mapping[str, str]) -> bool:
        """Whether runs can have these values."""
        try:
            self.checked(TrialRun(Trial(arm, -1, dict(values)), "search", self.request.settings.seeds[0]))
        except ConfigError:
            return False
        return True

    def add(self, entries: list[Entry]) -> list[Row]:
        """Record that these runs are requested; returns the new rows."""
        new = []
        for entry in entries:
            known = self.rows.setdefault(entry.row.signature, [])
            if entry.row not in known:
                known.append(entry.row)
                new.append(entry.row)
        return new

    def spec(self, entry: Entry, place: Place, is_begun: bool) -> RunSpec:
        """A run as it was planned.

        Args:
            place: the sweep's; the run's membership is added.
            is_begun: this command has executed it before, so `rerun` no longer applies.
        """
        members = [row.member() for row in self.rows[entry.row.signature]]
        spec = entry.planned.spec(place._replace(members=members))
        spec.cfg.rerun = spec.cfg.rerun and not is_begun
        return spec

    def definition(self, master: DictConfig) -> dict[str, Any]:
        """The request, as the sweep's record has it."""
        arms, settings = self.request.arms, self.request.settings
        given = config.criteria_of(master)
        return {
            "name": " vs ".join(arm.name for arm in arms if arm.name) or "grid",
            "command": command(),
            "overrides": self.request.common,
            "objective": given.objective,
            "judge": given.judge,
            "metrics": dict(given.own),
            "named_arms": self.request.named_arms,
            **{group: self.names(group) for group in ("data", "model")},
            "arms": {
                arm.name: {
                    "fixed": arm.fixed,
                    "space": {dim.key: dim.space for dim in arm.space},
                    "default": self.default(arm),
                }
                for arm in arms
            },
            **{
                key: value
                for key, value in asdict(settings).items()
                if key not in ("batch", "epochs", "sign")
            },
        }

    def default(self, arm: Arm) -> dict[str, str]:
        """The values of the arm's keys without a search."""
        cfg = self.executor.compose([*self.request.common, *arm.fixed])
        values = {dim.key: OmegaConf.select(cfg, dim.key.lstrip("+~")) for dim in arm.space}
        return {
            key: json.dumps(v).strip('"') for key, v in values.items() if isinstance(v, int | float | str)
        }

    def names(self, group: str) -> list[str]:
        """The data sets, or the models, of the runs known so far."""
        configurations = (json.loads(entry.planned.cfg) for entry in self.entries.values())
        return list(dict.fromkeys(cfg[group]["name"] for cfg in configurations))


@contextmanager
def naming(arm: str, named_arms: bool) -> Iterator[None]:
    """Errors raised inside the block name the arm, if the user named the arms."""
    where = f"{ARMS}.{arm}: " if named_arms else ""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{where}{explain(error)}") from error
