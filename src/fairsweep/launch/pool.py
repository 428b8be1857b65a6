"""Workers on Ray: how many fit, and how they start and end."""

import logging
import math
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from fairsweep.cli import overrides
from fairsweep.config import Rule, either, integer, number, one_of, or_null
from fairsweep.launch.worker import Identity, Order, Worker, source_hash
from fairsweep.runs.life import CannotLaunch
from fairsweep.runs.store import Note

if TYPE_CHECKING:
    from ray import ObjectRef, ObjectRefGenerator

# Ray reads these when it is imported. No usage reports to its makers.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Nor should workers yield to other work on the machine.
os.environ.setdefault("RAY_worker_niceness", "0")
# Workers train in threads, whose freed memory glibc would return at each step (`memory.keep_freed_memory`).
os.environ.setdefault("MALLOC_ARENA_MAX", "1")

# How long a cluster may take to answer.
CONNECT_SECONDS = 10
# How many workers in a row may die before they are ready, as when a machine goes down.
FAILED_STARTS = 5
# How long a worker may take to clean up.
CLOSE_SECONDS = 5

RULES: dict[str, Rule] = {
    "address": or_null(
        Rule(
            "auto, or host:port",
            lambda v: isinstance(v, str) and re.fullmatch(r"auto|[^/]+:\d+", v) is not None,
        )
    ),
    "workers": or_null(integer(1)),
    "cpus": integer(1),
    "gpus": number("a number, 0 or more; above 1 a whole number", lambda v: 0 <= v <= 1 or v == v // 1 > 0),
    "lanes": either(one_of("auto"), integer(1)),
    "retries": integer(0),
}


class RaySettings(NamedTuple):
    """The keys of `hydra.launcher`."""

    address: str | None
    workers: int | None
    cpus: int
    gpus: float
    lanes: str | int
    retries: int

    def check(self) -> None:
        """
        Raises:
            ConfigError: a value is not allowed, or Ray is not installed.
        """
        for key, value in self._asdict().items():
            if not RULES[key].holds(value):
                raise CannotLaunch(f"hydra.launcher.{key}={value}: must be {RULES[key].allowed}")
        if find_spec("ray") is None:
            raise CannotLaunch("hydra/launcher=ray: Ray is not installed; pip install 'fairsweep[ray]'")


@dataclass(eq=False)
class RemoteWorker:
    """A worker, as its launcher sees it.

    ready: its identity, once it can train. host: where it is, empty until then. stream: the parcels of the
    runs it trains; None: it is idle.
    """

    actor: Any
    ready: "ObjectRef[Identity]"
    host: str = ""
    stream: "ObjectRefGenerator | None" = None

    def send(self, orders: list[Order], lanes: int | None) -> None:
        """Have it train some runs, up to `lanes` at once."""
        self.stream = self.actor.train.options(num_returns="streaming").remote(orders, lanes)

    def control(self, name: str) -> "ObjectRef[None]":
        """Call a method that does not wait until its runs have ended."""
        method = getattr(self.actor, name).options(concurrency_group="control")
        called: ObjectRef[None] = method.remote()
        return called


def current_cluster() -> str:
    """The address of the cluster that `RAY_ADDRESS` names, or that `ray start` started or joined here.

    Ray's own `auto` would also find a private Ray that another command started and will stop.

    Raises:
        ConnectionError: there is no such cluster.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
    if not file.exists():
        raise ConnectionError(f"{file} does not exist")
    return file.read_text().strip()


class Pool:
    """Workers on Ray, which is started or connected to when they are first needed."""

    def __init__(self, settings: RaySettings) -> None:
        settings.check()
        self.settings = settings
        self.workers: list[RemoteWorker] = []
        self.failed_starts = 0  # in a row
        self.room: int | None = None  # in workers; None: not connected
        self.scratch: str | None = None  # for Ray and the workers, if we started Ray

    def check(self, cfg: DictConfig) -> None:
        """
        Raises:
            CannotLaunch: the runs need more than a worker has.
        """
        cpus, gpus = self.settings.cpus, self.settings.gpus
        threads, device = cfg.trainer.threads, str(cfg.trainer.device)
        if threads is not None and threads > cpus:
            raise CannotLaunch(
                f"trainer.threads={threads}: a worker has hydra.launcher.cpus={cpus}; "
                f"set hydra.launcher.cpus={threads}, or omit trainer.threads"
            )
        if device.startswith("cuda") and not gpus:
            raise CannotLaunch(
                f"trainer.device={device}: a worker has hydra.launcher.gpus=0; "
                "set hydra.launcher.gpus=1, or a fraction of a GPU"
            )

    # Ray

    def connect(self) -> None:
        """Start Ray, or connect to it.

        Raises:
            CannotLaunch: there is no cluster at the address, or such workers do not fit it.
        """
        import ray

        address, where = self.settings.address, dict[str, Any]()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if address is None:
            self.scratch = tempfile.mkdtemp(prefix="fairsweep-ray-")
            where |= {"_temp_dir": self.scratch, "num_cpus": len(os.sched_getaffinity(0))}
        try:
            found = current_cluster() if address == "auto" else address
            if found is not None:  # Ray itself waits for minutes
                host, _, port = found.rpartition(":")
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(
                found or "local",
                include_dashboard=None if found else False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **where,
            )
        except SystemExit as error:  # how Ray reacts to a signal
            raise KeyboardInterrupt from error
        except Exception as error:  # Ray raises plain Exceptions too
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if address is None:
                raise CannotLaunch(f"hydra/launcher=ray: Ray did not start: {reason}") from error
            raise CannotLaunch(
                f"hydra.launcher.address={address}: this machine is not part of a Ray cluster ({reason}); "
                "start one with `ray start --head`, or join it with `ray start --address=<head>:6379`; if it "
                "wants a token, set RAY_AUTH_MODE=token, with the same ~/.ray/auth_token on all machines"
            ) from error
        finally:
            # Ray installs its own.
            for number_, handler in handlers.items():
                signal.signal(number_, handler)
        self.room = self.count_room()

    def count_room(self) -> int:
        """How many workers the cluster has room for.

        Raises:
            CannotLaunch: for no worker, or fewer than requested.
        """
        import ray

        cpus, gpus, workers = self.settings.cpus, self.settings.gpus, self.settings.workers
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        for key, name, wanted in (("cpus", "CPU", cpus), ("gpus", "GPU", gpus)):
            most = max(node.get(name, 0) for node in nodes)
            if wanted > most:
                where = (
                    "no machine of the cluster has more than" if self.settings.address else "this machine has"
                )
                raise CannotLaunch(f"hydra.launcher.{key}={wanted}: {where} {most:g} {name}s")
        room = sum(
            math.floor(min([node.get("CPU", 0) / cpus, *([node.get("GPU", 0) / gpus] if gpus else [])]))
            for node in nodes
        )
        if workers is not None and workers > room:
            raise CannotLaunch(
                f"hydra.launcher.workers={workers}: only {room} with cpus={cpus} and gpus={gpus:g} fit"
            )
        return workers or room

    def has_room(self) -> bool:
        """Whether one more worker fits."""
        return self.room is not None and len(self.workers) < self.room

    def start_worker(self) -> None:
        """Start one more worker; if the cluster is full, Ray starts it later."""
        import ray

        cpus, gpus = self.settings.cpus, self.settings.gpus
        decorate: Any = ray.remote  # its types lack concurrency_groups
        remote = decorate(
            num_cpus=cpus,
            num_gpus=gpus,
            concurrency_groups={"control": 1},
            # Runs are few and long: spread them over the machines.
            scheduling_strategy="SPREAD",
        )(Worker)
        actor = remote.remote(overrides.command_line(), str(Path.cwd()), cpus, self.scratch)
        self.workers.append(RemoteWorker(actor, actor.identity.remote()))

    def admit(self, remote: RemoteWorker, note: Note) -> None:
        """Use a worker that is ready, unless its code differs."""
        import ray

        try:
            identity = ray.get(remote.ready)
        except ray.exceptions.RayTaskError as error:
            self.refuse(remote, f"a worker cannot train: {error.cause}", note)
        except ray.exceptions.RayActorError as error:
            if "creation task" in str(error) or isinstance(error, ray.exceptions.ActorUnschedulableError):
                self.refuse(remote, f"a worker cannot start: {str(error).strip().splitlines()[-1]}", note)
            elif self.failed_starts < FAILED_STARTS:
                self.failed_starts += 1
                self.remove(remote)
            else:
                self.refuse(remote, f"workers die as they start: {str(error).strip().splitlines()[-1]}", note)
        else:
            self.failed_starts = 0
            if identity.code != source_hash():
                self.refuse(
                    remote,
                    f"worker on {identity.host} refused: its fairsweep differs from the one here "
                    f"({identity.code}, here {source_hash()}); install the same commit on both",
                    note,
                )
            else:
                remote.host = identity.host

    def refuse(self, remote: RemoteWorker, why: str, note: Note) -> None:
        """Continue without this worker.

        Raises:
            CannotLaunch: it was the last one.
        """
        self.remove(remote)
        assert self.room is not None
        self.room -= 1
        if self.room == 0:
            raise CannotLaunch(f"hydra/launcher=ray: {why}")
        note(why)

    def remove(self, worker: RemoteWorker) -> None:
        """End a worker, even in the middle of a run."""
        import ray

        if worker in self.workers:
            self.workers.remove(worker)
            ray.kill(worker.actor)

    def close(self) -> None:
        """End all workers, and Ray if we started it."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            if asked := [worker.control("close") for worker in self.workers if worker.host]:
                ray.wait(asked, num_returns=len(asked), timeout=CLOSE_SECONDS)
            for worker in list(self.workers):
                self.remove(worker)
            ray.shutdown()
        if self.scratch is not None:
            deadline = time.monotonic() + CLOSE_SECONDS
            # Processes of Ray that are still ending may write there.
            while Path(self.scratch).exists() and time.monotonic() < deadline:
                shutil.rmtree(self.scratch, ignore_errors=True)
