"""The `ray` launcher: runs of a sweep on all cores of this machine, or on a cluster, by Ray.

Hydra executes this file at each start, to find the plugin: what is slow to import waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn


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
    """Hands the runs of the `fair` sweeper to workers; jobs of other applications run here, one by one."""

    fails_fast = True

    def __init__(self, **settings: Any) -> None:
        from fairsweep.launch.pool import Pool, Settings

        super().__init__()
        self.pool = Pool(Settings(**settings))

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from fairsweep.launch import jobs, remote
        from fairsweep.sweeps.compose import Composer

        config, context = self.config, self.hydra_context
        assert config is not None
        assert context is not None
        composer = context.config_loader
        if not ("record" in config and isinstance(composer, Composer)):
            return super().launch(job_overrides, initial_job_idx)
        self.pool.check(config)
        runs = (jobs.unpacked(overrides[-1]) for overrides in job_overrides)
        fail_fast = config.hydra.sweeper.fail_fast
        return jobs.returned(remote.run(self.pool, runs, len(job_overrides), fail_fast))

    def close(self) -> None:
        """End the workers."""
        self.pool.close()
