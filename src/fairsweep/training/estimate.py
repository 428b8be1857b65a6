"""How long a run would take, and the size of its weights, by training a little of it."""

import time

from omegaconf import DictConfig

from fairsweep.training.lane import WARM_UP, Lane
from fairsweep.training.loop import wait_for


def estimate(cfg: DictConfig) -> tuple[float, int]:
    """A run's seconds, by the first second of it and one validation, and the bytes of its weights.

    Nothing is kept.

    Raises:
        ConfigError: data, model, device do not fit each other.
    """
    lane = Lane(cfg)
    with lane.own_state():
        while lane.step < min(WARM_UP, lane.total_steps):  # these load libraries, and capture a graph
            lane.advance(1, lambda: False)
        wait_for(lane.device)
        first, started = lane.step, time.perf_counter()
        while time.perf_counter() < started + 1 and lane.step < lane.total_steps:
            lane.advance(1, lambda: False)
        wait_for(lane.device)
        per_step = (time.perf_counter() - started) / max(lane.step - first, 1)
        started = time.perf_counter()
        if len(lane.task.data.val):
            lane.evaluate(lane.task.data.val)
        per_epoch = time.perf_counter() - started
    seconds: float = lane.total_steps * per_step + cfg.trainer.epochs * per_epoch
    copies = {"none": 0, "all": cfg.trainer.epochs + 2}.get(cfg.record.keep, 2)  # the last and the best
    weights = sum(value.nbytes for value in lane.model.state_dict().values())
    return seconds, copies * weights
