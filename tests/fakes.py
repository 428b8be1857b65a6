"""A sweep without training: an executor that computes results, and what else a sweep needs."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fairsweep.config import ConfigError
from fairsweep.runs.identity import PlannedRun, RunSpec
from fairsweep.runs.status import Status
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.folder import ReportSummary, SweepFolder
from fairsweep.sweeps.phases import SweepSettings
from fairsweep.sweeps.request import Request
from fairsweep.sweeps.sweep import Sweep

Values = dict[str, str]
CONFIG = {"rerun": False, "data": {"name": "data"}, "model": {"name": "model"}}


class FakeExecutor:
    """Executes runs by a formula of their overrides; `statuses` is what a disk would keep.

    Args:
        formula: the objective; None: the run fails. An exception that it raises ends the execution.
        allowed: whether runs can have these values.
    """

    def __init__(
        self,
        formula: Callable[[Values], float | None],
        statuses: dict[str, Status],
        allowed: Callable[[Values], bool] = lambda values: True,
    ) -> None:
        self.formula, self.statuses, self.permits = formula, statuses, allowed
        self.values: dict[str, Values] = {}  # by signature
        self.executed: list[str] = []
        self.reached: dict[tuple[str, int], float] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        return OmegaConf.create(dict(CONFIG))

    def identify(self, overrides: Sequence[str]) -> PlannedRun:
        planned = self.identify_unchecked(overrides)
        if not self.permits(self.values[planned.signature]):
            raise ConfigError(f"{' '.join(overrides)}: not allowed")
        return planned

    def identify_unchecked(self, overrides: Sequence[str]) -> PlannedRun:
        values = dict(text.lstrip("+").split("=", 1) for text in overrides)
        own = {key: value for key, value in values.items() if key != "trainer.stop_epoch"}
        digest = hashlib.sha256(json.dumps(sorted(own.items())).encode()).hexdigest()
        self.values[f"a{digest[:15]}"] = own
        cfg = json.dumps({**CONFIG, "stop_epoch": values.get("trainer.stop_epoch")})
        return PlannedRun(f"a{digest[:15]}", "content", tuple(overrides), cfg)

    def origins(self, overrides: Sequence[str]) -> list[str]:
        return ["content"]

    def pin(self, runs: Iterable[Sequence[str]], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        return {}

    def notes(self, planned: Iterable[PlannedRun]) -> list[str]:
        return []

    def status(self, signature: str) -> Status:
        return self.statuses.get(signature, Status())

    def is_done(self, planned: PlannedRun, stop_epoch: int | None, is_begun: bool) -> bool:
        status = self.status(planned.signature)
        if stop_epoch is None or status.name == "failed":
            return status.is_final
        return (planned.signature, stop_epoch) in self.reached

    def objective_at(self, signature: str, epoch: int) -> float | None:
        return self.reached.get((signature, epoch))

    def execute(self, specs: Sequence[RunSpec]) -> Iterator[Status]:
        for spec in specs:
            self.executed.append(spec.signature)
            value, stop_epoch = self.formula(self.values[spec.signature]), spec.cfg.stop_epoch
            if value is None:
                yield self.fail(spec, RuntimeError("out of luck"))
            elif stop_epoch is not None:
                self.reached[spec.signature, int(stop_epoch)] = value
                yield self.note(spec, name="paused")
            else:
                yield self.note(spec, name="finished", objective=value)

    def fail(self, spec: RunSpec, error: BaseException) -> Status:
        return self.note(spec, name="failed", reason=str(error))

    def prune(self, spec: RunSpec, reason: str) -> Status:
        return self.note(spec, name="pruned", reason=reason)

    def note(self, spec: RunSpec, **changes: Any) -> Status:
        known = {"signature": spec.signature, "trained_by": spec.trained_by, "objective_key": "val_accuracy"}
        ended = 1.0 + len(self.executed)
        status = replace(Status(ended=ended, seconds=1.0, test={"accuracy": 0.5}, **known), **changes)
        self.statuses[spec.signature] = status
        return status

    def join(self, spec: RunSpec) -> None:
        pass

    def cost(self, planned: Sequence[PlannedRun]) -> tuple[float, float]:
        return 2.0, 1000.0


class NoReports:
    def known(self, sweep: SweepFolder) -> ReportSummary | None:
        return None

    def write(self, sweep: SweepFolder, cfg: DictConfig) -> ReportSummary:
        return ReportSummary("none in these tests")


GRID = SweepSettings(
    sampler="grid", trials=None, seeds=(0,), confirm_seeds=(), extend=False, extend_steps=2, halving=None,
    batch=1, equal_budget=True, epochs=9, sign=1,
)  # fmt: skip


def sweep_of(
    outputs: Path, executor: FakeExecutor, arms: Sequence[Arm], fail_fast: bool = False, **settings: Any
) -> Sweep:
    """A sweep that is ready to run."""
    master = OmegaConf.create(
        {
            "rerun": False,
            "objective": "val_accuracy",
            "record": {"dir": str(outputs), "keep": "none"},
            "tracking": {"uri": None, "register": None},
            "hydra": {
                "sweeper": {"fail_fast": fail_fast},
                "sweep": {"dir": ""},
                "overrides": {"hydra": []},
            },
        }
    )
    request = Request((), tuple(arms), replace(GRID, **settings), named_arms=len(arms) > 1)
    return Sweep(request, master, executor, NoReports())
