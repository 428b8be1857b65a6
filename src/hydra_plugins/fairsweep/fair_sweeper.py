"""The `fair` sweeper: Hydra's plain grid, or arms with spaces of their own and equal budgets.

Hydra executes this file at each start, to find the plugin: what is slow to import waits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fairsweep.sweeper import SweeperConf

if TYPE_CHECKING:
    from fairsweep.runs.identity import RunSpec
    from fairsweep.runs.life import Outcome


ConfigStore.instance().store(group="hydra/sweeper", name="fair", node=SweeperConf, provider="fairsweep")


class FairSweeper(Sweeper):
    """Reads the request, and runs it with the launcher."""

    # Hydra has them as None before `setup`, which it calls first.
    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self, max_batch_size: int | None, **_: Any) -> None:
        from fairsweep.config import ConfigError

        if max_batch_size is not None and max_batch_size < 1:
            raise ConfigError(
                f"hydra.sweeper.max_batch_size={max_batch_size}: must be null or a whole number, 1 or more"
            )
        self.max_batch_size = max_batch_size
        self.jobs = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from fairsweep.sweeps.compose import Composer

        self.config = config
        self.composer = Composer(hydra_context.config_loader.get_search_path())
        self.hydra_context = HydraContext(config_loader=self.composer, callbacks=hydra_context.callbacks)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Carry out the sweep; ends the process with status 1 where a run has failed."""
        if "record" not in self.config:
            return self.grid(arguments)

        from rich import get_console

        from fairsweep import signals
        from fairsweep.compare import after
        from fairsweep.launch.trainer import Trainer
        from fairsweep.runs.progress import Progress
        from fairsweep.sweeps import compose, dry_run, request
        from fairsweep.sweeps.sweep import Sweep

        signals.check()
        self.composer.unneeded = compose.UNNEEDED
        asked = request.read(self.config, arguments, self.composer)
        trainer = Trainer(
            self.config,
            self.composer.run_config,
            self.train,
            Progress(get_console(), quiet=True).note,
            most_jobs=self.most_jobs(),
            selects=asked.settings.selects,
            halving=asked.settings.halving is not None,
        )
        sweep = Sweep(asked, self.config, trainer, after)
        try:
            return dry_run.show(sweep) if self.config.hydra.sweeper.dry_run else sweep.run()
        finally:
            with signals.postponed():
                getattr(self.launcher, "close", lambda: None)()

    def train(self, specs: "Sequence[RunSpec]") -> "Sequence[Outcome | BaseException | None]":
        """Pass runs to the launcher; for what it gives, see `launch.trainer.Launch`."""
        from fairsweep.launch import jobs

        if getattr(self.launcher, "takes_runs", False):
            outcomes: Sequence[Outcome] = self.launcher.train(specs)  # type: ignore[attr-defined]
            if any(outcome.status.name == "interrupted" for outcome in outcomes):
                raise KeyboardInterrupt
            return outcomes
        returned = self.launch([jobs.packed(spec) for spec in specs])
        return [job._return_value if job.status == JobStatus.FAILED else None for job in returned]

    def most_jobs(self) -> int | None:
        """How many jobs the launcher gets at once, at most; None: all."""
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher

        stops_late = self.config.hydra.sweeper.fail_fast and not getattr(self.launcher, "takes_runs", False)
        # Hydra's own launcher keeps all its jobs in memory until the end.
        if stops_late or type(self.launcher) is BasicLauncher:
            return 1
        return self.max_batch_size

    def grid(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """A plain grid of some other application, which keeps no record of runs."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        params = [f"{key}={value}" for key, value in self.config.hydra.sweeper.params.items()]
        overrides = self.composer.parse([*params, *arguments])
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        batches = BasicSweeper.split_arguments(overrides, self.max_batch_size)
        for batch in batches:
            self.validate_batch_is_legal(batch)
        returns = [self.launch(batch) for batch in batches]
        for job in (job for batch in returns for job in batch):
            _ = job.return_value  # raises what the job raised
        return returns

    def launch(self, jobs: list[list[str]]) -> Sequence[JobReturn]:
        """Pass jobs to the launcher, each a list of overrides."""
        first, self.jobs = self.jobs, self.jobs + len(jobs)
        return self.launcher.launch(jobs, initial_job_idx=first)
