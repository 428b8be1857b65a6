"""Workers on Ray: how many there is room for, and how they come and go."""

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

from fairsweep import overrides
from fairsweep.cluster.worker import Identity, Order, Worker
from fairsweep.config import Rule, either, integer, number, one_of, or_null
from fairsweep.jobs import CannotLaunch

if TYPE_CHECKING:
    from ray import ObjectRef, ObjectRefGenerator

# Ray reads these when it is imported. It is not to tell others that it is used.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Nor should workers yield to other work on the machine.
os.environ.setdefault("RAY_worker_niceness", "0")
# Workers train in threads, whose heaps glibc would give back all the time (`memory.keep_freed_memory`).
os.environ.setdefault("MALLOC_ARENA_MAX", "1")

# A cluster has so long to answer at all.
CONNECT_SECONDS = 10
# A worker that is asked to clean up gets so long.
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
    "gpus": number("a number, 0 or more; above 1 a whole one", lambda v: 0 <= v <= 1 or v == v // 1 > 0),
    "lanes": either(one_of("auto"), integer(1)),
    "retries": integer(0),
}


class Settings(NamedTuple):
    """What `hydra.launcher` says."""

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
class Hand:
    """A worker, as seen from here.

    greeting: who it is, once it is ready. stream: of parcels, of what it is at.
    """

    actor: Any
    greeting: "ObjectRef[Identity]"
    host: str = ""  # where it is ready
    stream: "ObjectRefGenerator | None" = None

    def send(self, orders: list[Order], lanes: int | None) -> None:
        """Have it train some runs, up to `lanes` at once."""
        self.stream = self.actor.train.options(num_returns="streaming").remote(orders, lanes)

    def control(self, name: str) -> "ObjectRef[None]":
        """Call a method that does not wait for the end of what it is at."""
        method = getattr(self.actor, name).options(concurrency_group="control")
        called: ObjectRef[None] = method.remote()
        return called


def current_cluster() -> str:
    """The address of the cluster that `RAY_ADDRESS` names, or that `ray start` has started or joined here.

    Ray's own `auto` would also take what another command has started for itself, and will end.

    Raises:
        ConnectionError: there is none.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
    if not file.exists():
        raise ConnectionError(f"{file} does not exist")
    return file.read_text().strip()


class Pool:
    """Workers on Ray, which is started, or connected to, when they are first needed."""

    def __init__(self, settings: Settings) -> None:
        settings.check()
        self.settings = settings
        self.hands: list[Hand] = []
        self.room: int | None = None  # in workers; None: not connected
        self.scratch: str | None = None  # Ray's folder, and the workers', where Ray is ours

    def check(self, cfg: DictConfig) -> None:
        """
        Raises:
            CannotLaunch: the runs need what workers do not have.
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
                "set hydra.launcher.gpus=1, or a share of one"
            )

    # Ray

    def connect(self) -> None:
        """Start Ray, or find it.

        Raises:
            CannotLaunch: there is no cluster at the address, or it has no room for such workers.
        """
        import ray

        address, where = self.settings.address, dict[str, Any]()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if address is None:
            self.scratch = tempfile.mkdtemp(prefix="fairsweep-")
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
        except SystemExit as error:  # Ray's answer to a signal
            raise KeyboardInterrupt from error
        except Exception as error:  # Ray raises just that, too
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if address is None:
                raise CannotLaunch(f"hydra/launcher=ray: Ray does not start: {reason}") from error
            raise CannotLaunch(
                f"hydra.launcher.address={address}: this machine is not part of a Ray cluster ({reason}); "
                "start one with `ray start --head`, or join it with `ray start --address=<head>:6379`; if it "
                "wants a token, set RAY_AUTH_MODE=token, with the same ~/.ray/auth_token on all machines"
            ) from error
        finally:
            # Ray puts its own in their place.
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
                where = "no machine of the cluster has more than" if self.settings.address else "there are"
                raise CannotLaunch(f"hydra.launcher.{key}={wanted}: {where} {most:g} {name}s")
        room = sum(
            math.floor(min([node.get("CPU", 0) / cpus, *([node.get("GPU", 0) / gpus] if gpus else [])]))
            for node in nodes
        )
        if workers is not None and workers > room:
            raise CannotLaunch(
                f"hydra.launcher.workers={workers}: there is room for {room} of cpus={cpus} and gpus={gpus:g}"
            )
        return workers or room

    def has_room(self) -> bool:
        """Whether there is room for one more worker."""
        return self.room is not None and len(self.hands) < self.room

    def hire(self) -> None:
        """Start one more worker; where the cluster is full, Ray starts it later."""
        import ray

        cpus, gpus = self.settings.cpus, self.settings.gpus
        decorate: Any = ray.remote  # its types lack concurrency_groups
        remote = decorate(
            num_cpus=cpus,
            num_gpus=gpus,
            concurrency_groups={"control": 1},
            # Runs are few and long: each on the machine that has most to give.
            scheduling_strategy="SPREAD",
        )(Worker)
        actor = remote.remote(overrides.command_line(), str(Path.cwd()), cpus, self.scratch)
        self.hands.append(Hand(actor, actor.identity.remote()))

    def dismiss(self, hand: Hand) -> None:
        """End a worker, whatever it is at."""
        import ray

        if hand in self.hands:
            self.hands.remove(hand)
            ray.kill(hand.actor)

    def close(self) -> None:
        """End all workers, and Ray, if it is ours."""
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            if asked := [hand.control("close") for hand in self.hands if hand.host]:
                ray.wait(asked, num_returns=len(asked), timeout=CLOSE_SECONDS)
            for hand in list(self.hands):
                self.dismiss(hand)
            ray.shutdown()
        if self.scratch is not None:
            deadline = time.monotonic() + CLOSE_SECONDS
            # What is left of Ray may still write there.
            while Path(self.scratch).exists() and time.monotonic() < deadline:
                shutil.rmtree(self.scratch, ignore_errors=True)
