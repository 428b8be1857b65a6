"""The `fused` launcher: runs of a sweep in this process, several at once where one leaves the device idle.

Hydra executes this file at each start, to find the plugin: what is slow to import waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore

if TYPE_CHECKING:
    from fairsweep.runs.identity import RunSpec
    from fairsweep.runs.life import Outcome


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
    """Trains the runs of the `fair` sweeper together; jobs of other sweepers run one by one."""

    def __init__(self, lanes: Any) -> None:
        from fairsweep.config import ConfigError

        super().__init__()
        if lanes != "auto" and (type(lanes) is not int or lanes < 1):
            raise ConfigError(f"hydra.launcher.lanes={lanes}: must be auto or a whole number, 1 or more")
        self.lanes = None if lanes == "auto" else lanes

    @property
    def takes_runs(self) -> bool:
        """Callbacks, and what Hydra sets for each job, need jobs of Hydra's own, one by one."""
        assert self.config is not None
        hydra = self.config.hydra
        return not hydra.callbacks and not hydra.job.chdir and not hydra.job.env_set

    def train(self, specs: "Sequence[RunSpec]") -> "Sequence[Outcome]":
        """Train the runs of a sweep in this process.

        Raises:
            CannotLaunch: the device that all of them want is not there.
            FirstFailure: a run failed, with fail_fast.
        """
        from rich import get_console

        from fairsweep.config import ConfigError
        from fairsweep.runs import session
        from fairsweep.runs.life import CannotLaunch
        from fairsweep.runs.progress import Progress
        from fairsweep.training import build

        assert self.config is not None
        try:
            build.device(self.config)
        except ConfigError as error:  # the same for all runs
            raise CannotLaunch(str(error)) from error
        progress = Progress(get_console(), quiet=True)
        return session.run(specs, progress, self.lanes, self.config.hydra.sweeper.fail_fast)
