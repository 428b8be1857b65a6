"""Workers with a peculiarity, for tests; those of Ray import them from here."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from commands import unhurried

from fairsweep.launch.parcel import Parcel
from fairsweep.launch.worker import Identity, Order, Worker
from fairsweep.runs import session


class Eager(Worker):
    """Writes, and sends, checkpoints all the time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        session.CHECKPOINT_SECONDS = 0.1
        unhurried()


class Unlucky(Worker):
    """Dies of any run with seed 1, in the middle of it; a run with seed 2 raises."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        from fairsweep.training.lane import Lane

        step = Lane.train_step

        def broken(lane: Lane, index: Any) -> None:
            if lane.step == 3 and lane.seed == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if lane.step == 3 and lane.seed == 2:
                raise RuntimeError("out of luck")
            step(lane, index)

        Lane.train_step = broken  # type: ignore[method-assign]


class Telling(Worker):
    """Trains nothing, but tells which GPUs it has, and how many runs it gets, once there are two workers."""

    def train(self, orders: list[Order], lanes: int | None) -> Iterator[Parcel]:
        outputs = Path(orders[0].cfg["record"]["dir"])
        (outputs / f"worker-{os.getpid()}").touch()
        while len([*outputs.glob("worker-*")]) < 2:
            time.sleep(0.1)
        raise RuntimeError(f"GPU {os.environ['CUDA_VISIBLE_DEVICES']}, {len(orders)} runs")
        yield


class Crowded(Worker):
    """The first one has no room on its disk."""

    def train(self, orders: list[Order], lanes: int | None) -> Iterator[Parcel]:
        try:
            (Path(orders[0].cfg["record"]["dir"]) / "crowded").mkdir()
        except FileExistsError:
            yield from super().train(orders, lanes)
        else:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Newer(Worker):
    """On the second and the third machine, of another version; the first one waits for them."""

    def identity(self) -> Identity:
        here = Path(os.environ["TMPDIR"])
        if here.name == "head":
            return super().identity()
        (here / "told").touch()
        return super().identity()._replace(code="0123456789")

    def train(self, orders: list[Order], lanes: int | None) -> Iterator[Parcel]:
        while len([*Path(os.environ["TMPDIR"]).parent.glob("*/told")]) < 2:
            time.sleep(0.1)
        yield from super().train(orders, lanes)
