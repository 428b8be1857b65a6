"""The `slurm` launcher: Hydra's submitit launcher, for which a crashed job is one failed run and no more.

Hydra executes this file at each start, to find the plugin: what is slow to import waits.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus

if TYPE_CHECKING:
    from submitit import Job

# Between two looks for results, and between two questions to Slurm.
POLL_SECONDS, ASK_SECONDS = 1.0, 5.0
# Why a job may wait without anybody having to know; else it may wait for ever.
ORDINARY = {"None", "Resources", "Priority", "JobArrayTaskLimit"}
# A result may be seen so long after the end of its job, on a shared disk.
DISK_SECONDS = 15.0

if find_spec("hydra_plugins.hydra_submitit_launcher") is not None:  # the extra [slurm]
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

    class SlurmLauncher(BaseSubmititLauncher):
        """Submits a job for each run, and waits for all of them, however they end."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            import submitit

            from fairsweep import signals
            from fairsweep.config import ROOT
            from fairsweep.runs.life import CannotLaunch

            assert self.config is not None
            shared = set(BaseQueueConf.__dataclass_fields__)
            settings = {key: value for key, value in self.params.items() if key != "submitit_folder"}
            settings["setup"] = [
                *(settings.get("setup") or []),
                # Torch would start a thread for each core of the machine.
                "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
                f"export PYTHONPATH='{ROOT / 'src'}'${{PYTHONPATH:+:$PYTHONPATH}}",
            ]
            try:
                executor = submitit.AutoExecutor(
                    self.config.hydra.launcher.submitit_folder,
                    cluster="slurm",
                    slurm_max_num_timeout=settings.pop("max_num_timeout"),
                )
                executor.update_parameters(
                    **{key if key in shared else f"slurm_{key}": value for key, value in settings.items()}
                )
                asked = [
                    (list(overrides), "hydra.sweep.dir", index, f"job_id_for_{index}", Singleton.get_state())
                    for index, overrides in enumerate(job_overrides, initial_job_idx)
                ]
                with signals.postponed():  # else unknown jobs would be submitted
                    jobs = executor.map_array(self, *zip(*asked, strict=True))
            except (RuntimeError, ValueError, submitit.core.utils.FailedSubmissionError) as error:
                raise CannotLaunch(
                    f"hydra/launcher=slurm: Slurm takes no job: {' '.join(str(error).split())}"
                ) from error
            try:
                return results(jobs)
            except BaseException:  # Ctrl-C: SIGTERM lets runs end with a checkpoint
                subprocess.run(["scancel", *{job.job_id for job in jobs}], check=False)
                with suppress(KeyboardInterrupt):
                    while {job.job_id for job in jobs} & (in_queue() or {}).keys():
                        time.sleep(POLL_SECONDS)
                raise


def results(jobs: "Sequence[Job[JobReturn]]") -> list[JobReturn]:
    """What the jobs gave, in their order. One that is gone without a result has crashed.

    Slurm's accounts would know, but there may be none; its queue is always there.
    """
    from rich import get_console

    from fairsweep import signals
    from fairsweep.runs.progress import Progress

    returned: dict[str, JobReturn] = {}
    gone: dict[str, float] = {}  # since when
    told = ORDINARY
    asked = 0.0
    while len(returned) < len(jobs):
        time.sleep(POLL_SECONDS)
        signals.check()
        waiting = [job for job in jobs if job.job_id not in returned]
        if time.monotonic() - asked > ASK_SECONDS:
            asked, queue = time.monotonic(), in_queue()
            if queue is not None:
                gone = {job.job_id: gone.get(job.job_id, asked) for job in waiting if job.job_id not in queue}
                reasons = {queue[job.job_id] for job in waiting if job.job_id in queue} - told
                told = told | reasons
                for reason in sorted(reasons):
                    Progress(get_console(), quiet=True).note(f"hydra/launcher=slurm: jobs wait: {reason}")
        for job in waiting:
            since = gone.get(job.job_id)
            if job.paths.result_pickle.exists():
                returned[job.job_id] = result(job)
            elif since is not None and time.monotonic() - since > DISK_SECONDS:
                returned[job.job_id] = failed(
                    f"Slurm job {job.job_id} ended without a result (killed, out of memory or of time); "
                    f"its output: {job.paths.stderr}"
                )
    return [returned[job.job_id] for job in jobs]


def result(job: "Job[JobReturn]") -> JobReturn:
    """What a job gave that has ended; its error, if it could not even load what it was to do."""
    try:
        return job.results()[0]
    except Exception as error:
        return failed(f"Slurm job {job.job_id}: {str(error).strip().splitlines()[-1]}")


def failed(reason: str) -> JobReturn:
    """A job's end that says this."""
    from fairsweep.runs.life import RunFailed

    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = RunFailed(reason)
    return job


def in_queue() -> dict[str, str] | None:
    """The user's jobs that wait or run, and what they wait for; None where Slurm does not answer."""
    command = ["squeue", f"--user={os.getuid()}", "--noheader", "--array", "--format=%i %r"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return None
    return {job: reason for job, _, reason in (line.partition(" ") for line in answer.stdout.splitlines())}
