"""The `fused` launcher: runs of a sweep in this process, several at once where one leaves the device idle.

Hydra executes this file at each start, to find the plugin: what is slow to import waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


@dataclass
class FusedLauncherConf:
    """What `hydra.launcher` may say."""

    _target_: str = "hydra_plugins.fairsweep.fused_launcher.FusedLauncher"
    # Runs that train at once; auto: as many as the device has use for, on the CPU one.
    lanes: Any = "auto"


ConfigStore.instance().store(
    group="hydra/launcher", name="fused", node=FusedLauncherConf, provider="fairsweep"
)


class FusedLauncher(BasicLauncher):
    """Hands the runs of the `fair` sweeper to the training loop together; other jobs run one by one."""

    def __init__(self, lanes: Any) -> None:
        from fairsweep.config import ConfigError

        super().__init__()
        if lanes != "auto" and (type(lanes) is not int or lanes < 1):
            raise ConfigError(f"hydra.launcher.lanes={lanes}: must be auto or a whole number, 1 or more")
        self.lanes = None if lanes == "auto" else lanes

    @property
    def fails_fast(self) -> bool:
        """Callbacks, and what Hydra sets for each job, need jobs of Hydra's own, one by one."""
        assert self.config is not None
        hydra = self.config.hydra
        return not hydra.callbacks and not hydra.job.chdir and not hydra.job.env_set

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from fairsweep.config import ConfigError
        from fairsweep.launch import jobs
        from fairsweep.sweeps.compose import Composer
        from fairsweep.training import build

        config, context = self.config, self.hydra_context
        assert config is not None
        assert context is not None
        composer = context.config_loader
        if not (self.fails_fast and "record" in config and isinstance(composer, Composer)):
            return super().launch(job_overrides, initial_job_idx)
        try:
            build.device(config)
        except ConfigError as error:  # the same for all runs
            raise jobs.CannotLaunch(str(error)) from error
        runs = (jobs.unpacked(overrides[-1]) for overrides in job_overrides)
        return jobs.run(runs, self.lanes, config.hydra.sweeper.fail_fast)
