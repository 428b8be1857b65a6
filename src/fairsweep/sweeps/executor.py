"""What a sweep needs from whatever executes its runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from omegaconf import DictConfig

from fairsweep.runs.identity import PlannedRun, RunSpec
from fairsweep.runs.status import Status


class Executor(Protocol):
    """Identifies the runs of a sweep, reports their results, and executes the missing ones.

    `launch.trainer.Trainer` is our own training; the tests have an executor that trains nothing.
    """

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration that these overrides compose.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: they cannot be composed.
        """
        ...

    def identify(self, overrides: Sequence[str]) -> PlannedRun:
        """The run that these overrides describe; equal runs have equal signatures.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: its configuration is not allowed.
        """
        ...

    def identify_unchecked(self, overrides: Sequence[str]) -> PlannedRun:
        """Identify a run whose configuration is not allowed, so that it can be recorded as failed."""
        ...

    def origins(self, overrides: Sequence[str]) -> list[str]:
        """Hashes of the data and the starting weights, which are part of the sweep's id.

        Raises: as `identify`.
        """
        ...

    def pin(self, runs: Iterable[Sequence[str]], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Resolve names whose meaning changes with time (`latest`) here; returns them, to be recorded.

        Args:
            known: what was recorded when the sweep first began.

        Raises:
            ConfigError: what was recorded no longer exists.
        """
        ...

    def notes(self, planned: Iterable[PlannedRun]) -> list[str]:
        """What the user should know of these runs."""
        ...

    def status(self, signature: str) -> Status:
        """A run's current status."""
        ...

    def is_done(self, planned: PlannedRun, stop_epoch: int | None, is_begun: bool) -> bool:
        """Whether a run needs no execution, to its end or to an epoch. One that failed always does.

        Args:
            is_begun: this sweep has executed it already, so `rerun` no longer applies.
        """
        ...

    def objective_at(self, signature: str, epoch: int) -> float | None:
        """The objective after an epoch; None if the run has not reached it."""
        ...

    def execute(self, specs: Sequence[RunSpec]) -> Iterator[Status]:
        """Execute runs until each has ended or paused; yields their statuses.

        Raises:
            CannotLaunch: no run can be executed at all.
            FirstFailure: a run failed, with fail_fast.
            KeyboardInterrupt: the user stopped.
        """
        ...

    def fail(self, spec: RunSpec, error: BaseException) -> Status:
        """End a run that cannot be executed as failed."""
        ...

    def prune(self, spec: RunSpec, reason: str) -> Status:
        """End a paused run that the sweep dropped."""
        ...

    def join(self, spec: RunSpec) -> None:
        """Record the membership of a run that needs no execution, and complete what is made of its record."""
        ...

    def cost(self, planned: Sequence[PlannedRun]) -> tuple[float, float]:
        """The mean seconds and the bytes of weights of runs like these."""
        ...
