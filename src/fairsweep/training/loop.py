"""The training loop: `advance` trains lanes side by side and tells what happens as it happens.

It knows nothing of folders, tracking or terminals: whoever iterates over its events journals them, saves
`lane.state_dict()` when it likes, and may end a lane from outside with `lane.end`.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from fairsweep.training.lane import Lane
from fairsweep.training.report import report
from fairsweep.training.tally import Line


class Event(NamedTuple):
    """What a lane has to tell: lines for its journal, or that it ended (`lane.ending`), or both."""

    lane: Lane
    lines: list[Line]


def fit(lanes: Iterable[Lane], stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train lanes side by side until each has ended, which its last event tells."""
    active = list(lanes)
    while active:
        yield from advance(active, stop)
        active = [lane for lane in active if lane.ending is None]


def advance(lanes: list[Lane], stop: Callable[[], bool]) -> Iterator[Event]:
    """Train lanes side by side to the next line of the journal that any of them has due.

    A lane's exception ends that lane as `failed` and no other. If `stop` turns true, those that are left end
    as `interrupted`, between two steps.
    """
    steps = min(lane.steps_at_once() for lane in lanes)
    for lane in lanes:  # on CUDA this only launches the work
        lane.beside = len(lanes)
        lane.shared = lane.shared or len(lanes) > 1
        with lane.failing(), lane.own_state():
            if lane.ending is None:
                started = time.perf_counter()
                lane.advance(steps, stop)
                lane.count_seconds(time.perf_counter() - started)
    collect(lanes)
    for lane in lanes:
        lines: list[Line] = []
        with lane.failing(), lane.own_state():
            if lane.ending is None:
                lines = report(lane)
        if lane.ending is None and stop():
            lane.end("interrupted", f"stopped after step {lane.step}")
        if lines or lane.ending is not None:
            yield Event(lane, lines)


def collect(lanes: list[Lane]) -> None:
    """Bring to the host what lines of the journal are due of, in one transfer per device.

    The only place where the host waits for the device. The time goes to all lanes, in equal shares.
    """
    started = time.perf_counter()
    due: dict[torch.device, list[Lane]] = {}
    for lane in lanes:
        if lane.ending is None and lane.is_due():
            due.setdefault(lane.device, []).append(lane)
    for device in {lane.device for lane in lanes}:  # also those whose lanes were broken off before a line
        wait_for(device)
    for those in due.values():
        pieces = [lane.tally.pending() for lane in those]
        figures = torch.split(torch.cat(pieces).cpu(), [len(piece) for piece in pieces])
        for lane, values in zip(those, figures, strict=True):
            lane.tally.collected = values
    share = (time.perf_counter() - started) / len(lanes)
    for lane in lanes:
        lane.count_seconds(share)


def fits_one_more(lanes: list[Lane]) -> bool:
    """Whether a CUDA device holds one more lane, going by what these use.

    No other device trains several lanes faster than one after another.
    """
    device = lanes[0].device
    if device.type != "cuda":
        return False
    settled = sum(lane.is_settled() for lane in lanes)
    if not settled:
        return False
    torch.cuda.empty_cache()  # what lanes that have ended had
    free, total = torch.cuda.mem_get_info(device)
    each = (total - free) / settled
    to_evaluate = total / 16  # which takes more than a step, but one lane at a time
    return free - to_evaluate > (len(lanes) - settled + 2) * each


def wait_for(device: torch.device) -> None:
    """Wait until all that was launched on a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
