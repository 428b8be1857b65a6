"""The `ray` launcher: runs of a sweep on all cores of this machine, or on a cluster, by Ray.

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
class RayLauncherConf:
    """What `hydra.launcher` may say."""

    _target_: str = "hydra_plugins.fairsweep.ray_launcher.RayLauncher"
    # null: start Ray on this machine; auto: the cluster that this machine is part of, or its host:port.
    address: Any = None
    # How many; null: as many as there is room for.
    workers: Any = None
    # Of each worker: cores, which are its compute threads, too.
    cpus: Any = 1
    # Of each worker: GPUs, or a share of one.
    gpus: Any = 0
    # Runs that a worker trains at once; auto: as many as its device has use for, on the CPU one.
    lanes: Any = "auto"
    # How often a run is taken up again whose worker has died.
    retries: Any = 3


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="fairsweep")


class RayLauncher(BasicLauncher):
    """Trains the runs of the `fair` sweeper on workers; jobs of other sweepers run here, one by one."""

    takes_runs = True

    def __init__(self, **settings: Any) -> None:
        from fairsweep.launch.pool import Pool, RaySettings

        super().__init__()
        self.pool = Pool(RaySettings(**settings))

    def train(self, specs: "Sequence[RunSpec]") -> "Sequence[Outcome]":
        """Train the runs of a sweep on workers; see `launch.remote.run`."""
        from fairsweep.launch import remote

        assert self.config is not None
        self.pool.check(self.config)
        return remote.run(self.pool, specs, len(specs), self.config.hydra.sweeper.fail_fast)

    def close(self) -> None:
        """End the workers."""
        self.pool.close()
