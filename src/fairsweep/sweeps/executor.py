"""What a sweep needs of whatever executes its runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from omegaconf import DictConfig

from fairsweep.runs.identity import PlannedRun, RunSpec
from fairsweep.runs.status import Status


class Executor(Protocol):
    """Identifies the runs of a sweep, tells their results, and executes those that are missing.

    Our own training is one, `launch.trainer.Trainer`; tests have another, which trains nothing.
    """

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration that overrides make.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: they make none.
        """
        ...

    def identify(self, overrides: Sequence[str]) -> PlannedRun:
        """The run that overrides make; the same signature for the same run.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: its configuration is not allowed.
        """
        ...

    def identify_unchecked(self, overrides: Sequence[str]) -> PlannedRun:
        """As `identify`, of a run whose configuration is not allowed: it is to fail by its name."""
        ...

    def origins(self, overrides: Sequence[str]) -> list[str]:
        """Hashes of what the run learns from and starts from, which the sweep's id depends on.

        Raises: as `identify`.
        """
        ...

    def pin(self, runs: Iterable[Sequence[str]], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Fix what changes its meaning with time in the overrides of these runs, for the sweep's record.

        Args:
            known: what was recorded when the sweep was first begun.

        Raises:
            ConfigError: it is not there any more.
        """
        ...

    def notes(self, planned: Iterable[PlannedRun]) -> list[str]:
        """What the user should know of these runs."""
        ...

    def status(self, signature: str) -> Status:
        """How a run stands now."""
        ...

    def is_done(self, planned: PlannedRun, stop_epoch: int | None, is_begun: bool) -> bool:
        """Whether a run need not be executed, to its end or to an epoch.

        Args:
            is_begun: this sweep has executed it already, so that `rerun` asks for nothing more.
        """
        ...

    def objective_at(self, signature: str, epoch: int) -> float | None:
        """The objective as it stood after an epoch; None if the run is not so far."""
        ...

    def execute(self, specs: Sequence[RunSpec]) -> Iterator[Status]:
        """Execute runs until each has ended or paused; yields their statuses as they do.

        Raises:
            CannotLaunch: no run can be executed at all.
            FirstFailure: a run failed, with fail_fast.
            KeyboardInterrupt: the user stopped.
        """
        ...

    def fail(self, spec: RunSpec, error: BaseException) -> Status:
        """End a run as failed that cannot be executed."""
        ...

    def prune(self, spec: RunSpec, reason: str) -> Status:
        """End a paused run that is not continued."""
        ...

    def join(self, spec: RunSpec) -> None:
        """Note what a run, which need not be executed, is in this sweep."""
        ...

    def cost(self, planned: Sequence[PlannedRun]) -> tuple[float, float]:
        """The mean seconds and the bytes of weights of runs like these."""
        ...
