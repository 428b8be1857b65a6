"""A lane's training steps as a CUDA graph: one launch for some dozens of kernels, and nothing to decide.

A graph does the same work on the same memory each time. So all that changes from step to step is read from
the device: which images, by a counter; the learning rates; where the loss goes. Each lane has a graph of its
own, on a stream of its own, rather than all lanes the branches of one: lanes come and go, and to capture
takes as long as some dozens of steps.
"""

import weakref
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fairsweep.training.tally import Tally
from fairsweep.training.task import Task


class Steps(Protocol):
    """What is captured: a lane's training steps, and what they read and write."""

    device: torch.device
    stream: torch.cuda.Stream | None
    optimizer: Optimizer
    scheduler: LRScheduler
    trainer: Any
    task: Task
    tally: Tally

    def optimize(self, index: Tensor) -> tuple[Tensor, Tensor]: ...


def obstacle(optimizer: Optimizer, scheduler: LRScheduler) -> str:
    """Why steps cannot be captured as a graph; empty if there is no known reason."""
    name = type(optimizer).__name__
    if getattr(scheduler, "cycle_momentum", False):
        return "its scheduler changes more than learning rates (cycle_momentum=true)"
    if "capturable" in optimizer.defaults or (name == "SGD" and optimizer.defaults["fused"]):
        return ""
    return f"{name} has no capturable form"


class CapturedSteps:
    """The steps of a lane on the full batches of an epoch.

    On CUDA the first use captures them. Elsewhere they run eagerly, with the same result.

    Raises:
        RuntimeError: the model does what no graph can, as to decide by a value.
    """

    def __init__(self, lane: Steps) -> None:
        self.lane: Steps = weakref.proxy(lane)  # or only the garbage collector would free the two
        device, groups = lane.device, lane.optimizer.param_groups
        size: int = lane.trainer.batch_size
        self.count = lane.task.count // size  # full batches in an epoch
        self.batches = torch.zeros(self.count, size, dtype=torch.int64, device=device)
        # Torch's kernels read learning rates as float32 on CUDA, as float64 on the CPU.
        kind = torch.float32 if device.type == "cuda" else torch.float64
        self.rates = torch.zeros(self.count, len(groups), dtype=kind, device=device)
        self.losses = torch.zeros(self.count, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.graph = self.record() if device.type == "cuda" else None

    def record(self) -> torch.cuda.CUDAGraph:
        """Capture one step; nothing is computed by that."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.lane.stream):
            self.step()
        return graph

    def begin_epoch(self, order: Tensor) -> None:
        """Take the image indices of an epoch, those of its full batches."""
        self.batches.copy_(order[: self.batches.numel()].view_as(self.batches))

    def run(self, position: int, steps: int) -> Tensor:
        """N steps, from this batch of the epoch on; their losses, not yet waited for."""
        lane = self.lane
        rates = []
        for _ in range(steps):
            rates.append([group["lr"] for group in lane.optimizer.param_groups])
            lane.scheduler.step()
        self.rates[position : position + steps].copy_(
            torch.tensor(rates, dtype=self.rates.dtype), non_blocking=True
        )
        self.position.fill_(position)
        for _ in range(steps):
            if self.graph is None:
                self.step()
            else:
                self.graph.replay()
        return self.losses[position : position + steps]

    def step(self) -> None:
        """One optimizer step, as the device's memory says."""
        lane, groups = self.lane, self.lane.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, self.rates.index_select(0, self.position)[0], strict=True):
            group["lr"] = rate
        try:
            loss, correct = lane.optimize(self.batches.index_select(0, self.position)[0])
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
        self.losses.index_copy_(0, self.position, loss.view(1))
        lane.tally.correct += correct
        self.position += 1
