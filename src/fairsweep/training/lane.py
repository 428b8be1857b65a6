"""A lane: one run's live state, step by step, from the first to the last or to wherever it ends."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fairsweep.config import ConfigError
from fairsweep.training import (
    build,
    by_task,  # noqa: F401 - registers a resolver
    schedulefree,
)
from fairsweep.training.capture import CapturedSteps, obstacle
from fairsweep.training.memory import causes, is_out_of_memory, keep_freed_memory
from fairsweep.training.process import ProcessState, default_threads, mixed, on_stream, seeded_random_state
from fairsweep.training.source import Split
from fairsweep.training.tally import Selection, Tally
from fairsweep.training.task import task

# Steps before a graph is captured: kernels are chosen, buffers made.
WARM_UP = 3
# Graphs that are launched at once: the device begins while the host prepares more.
LAUNCHES = 10

Name = Literal["finished", "diverged", "failed", "paused", "interrupted"]


class Ending(NamedTuple):
    """How a lane ended, and why."""

    status: Name
    reason: str = ""
    error: BaseException | None = None


class Lane:
    """One run's live state: model, optimizer, scheduler, random state, position.

    Args:
        threads: that it computes with, if a checkpoint says so; else as `cfg.trainer.threads` has it.

    Raises:
        ConfigError: the device is not there; or model, data, loss, optimizer, batch size do not fit.
    """

    def __init__(self, cfg: DictConfig, threads: int | None = None) -> None:
        self.trainer = SimpleNamespace(**build.plain(cfg.trainer))
        default = default_threads()
        self.threads: int = threads or self.trainer.threads or default
        self.seed = int(cfg.seed)
        self.device = build.device(cfg)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = build.precision(cfg, self.device)
        self.task = task(cfg, self.device)
        self.steps_per_epoch = self.task.steps_per_epoch
        self.total_steps = self.trainer.epochs * self.steps_per_epoch

        self.process = ProcessState(self.device, self.seed, self.threads, self.trainer.deterministic)
        with self.own_state():
            self.model = self.task.model()
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = build.optimizer(cfg, self.model)
        if isinstance(self.optimizer, torch.optim.LBFGS):  # which takes gradients for flat
            self.model.to(memory_format=torch.contiguous_format)
        self.takes_closure = bool(inspect.signature(self.optimizer.step).parameters)  # a user's may not
        self.scheduler = build.scheduler(cfg, self.optimizer, self.steps_per_epoch)
        # Behind a warm-up, the last of the sequence.
        self.main_scheduler = getattr(self.scheduler, "_schedulers", [self.scheduler])[-1]
        self.augment_generator = torch.Generator(self.device).manual_seed(mixed(self.seed, 0))

        self.step, self.seconds = 0, 0.0  # of training, over all sittings
        self.tally = Tally(self.device, self.task.counts_correct)
        self.objective_key, self.metric = str(cfg.objective), self.task.scores.criteria.metric
        self.selection = Selection(self.metric.sign)
        self.order, self.order_of_epoch = torch.zeros(0), -1  # indices of this epoch's examples
        is_cuda = self.device.type == "cuda"
        self.stream = torch.cuda.Stream(self.device) if is_cuda else None  # type: ignore[no-untyped-call]
        self.captured: CapturedSteps | None = None
        self.steps_uncaptured = 0
        self.beside = 1  # lanes that trained at once when this one did last, itself among them
        self.shared = False  # whether other lanes trained during any of `seconds`, which are shares then
        self.note = schedulefree.caution(self.optimizer, self.model)  # what the user should know
        self.ending: Ending | None = None
        random_state = dict(self.process.random_state)
        with self.own_state():
            self.task.check(self.model)
        self.process.random_state = random_state

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.step // self.steps_per_epoch

    def end(self, status: Name, reason: str = "", error: BaseException | None = None) -> None:
        """Train no further, and say why (see `Ending`)."""
        self.ending = Ending(status, reason, error)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """An exception inside ends this lane as failed, and no other."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self.end("failed", f"{type(error).__name__}: {error}", error)

    # One step, and what it needs

    def own_state(self) -> AbstractContextManager[None]:
        """Inside, what torch has one of per process is this lane's."""
        return self.process.own()

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes inside are in this lane's precision."""
        return build.autocast(self.precision, self.device)

    def optimize(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer step on the training images of these indices (N,): its mean loss, and how many were
        classified correctly; neither is waited for."""
        inputs, targets = self.task.batch(index, self.augment_generator)
        passes: list[tuple[Tensor, Tensor]] = []

        def gradients() -> Tensor:
            with self.autocast():
                outputs = self.model(inputs)
            loss: Tensor = self.task.loss(outputs.float(), targets)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.trainer.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.clip_norm)
            passes.append((loss.detach(), outputs.detach()))
            return loss

        if self.takes_closure:
            self.optimizer.step(gradients)  # type: ignore[arg-type]  # torch's type asks for a float
        else:
            gradients()
            self.optimizer.step()
        loss, outputs = passes[0]  # some optimizers, as LBFGS, need several
        return loss, self.task.correct(outputs, targets)

    def train_step(self, index: Tensor) -> None:
        """One step of the optimizer and of the scheduler, noted for the next line."""
        loss, correct = self.optimize(index)
        self.scheduler.step()
        self.tally.losses.append(loss.view(1))
        self.tally.correct += correct
        self.tally.sizes.append(len(index))
        self.step += 1

    def advance(self, steps: int, stop: Callable[[], bool]) -> None:
        """That many optimizer steps within this epoch, or fewer if `stop` says so.

        On CUDA they are only launched, on the lane's own stream, and after the first few as a graph.
        """
        size: int = self.trainer.batch_size
        epoch, position = divmod(self.step, self.steps_per_epoch)
        end = min(position + steps, self.steps_per_epoch)
        with on_stream(self.stream):
            if self.order_of_epoch != epoch:
                self.begin_epoch(epoch)
            while position < end and not stop():
                if self.captured is not None and position < self.captured.count:
                    count = min(end - position, self.captured.count - position, LAUNCHES)
                    self.tally.losses.append(self.captured.run(position, count))
                    self.tally.sizes += [size] * count
                    self.step += count
                else:
                    self.train_step(self.order[position * size : (position + 1) * size])
                    self.warm_up()
                position = self.step - epoch * self.steps_per_epoch

    def begin_epoch(self, epoch: int) -> None:
        """Decide the order of the images."""
        generator = torch.Generator().manual_seed(mixed(self.seed, 1, epoch))
        order = torch.randperm(self.task.count, generator=generator)
        self.order = order.to(self.task.home, non_blocking=True)
        self.order_of_epoch = epoch
        if self.captured is not None:
            self.captured.begin_epoch(self.order)

    def warm_up(self) -> None:
        """Count a step that was no graph; after the first few, which choose kernels, capture one."""
        self.steps_uncaptured += 1
        wanted = self.device.type == "cuda" and self.trainer.cuda_graphs
        if self.steps_uncaptured != WARM_UP or not wanted:
            return
        reason = obstacle(self.optimizer, self.main_scheduler)
        if self.task.home.type != self.device.type:
            reason = "the data are in the host's memory (trainer.data_on)"
        if not reason:
            try:
                self.captured = CapturedSteps(self)
                self.captured.begin_epoch(self.order)
            except (RuntimeError, ValueError, TypeError) as error:
                if is_out_of_memory(error):
                    raise
                *_, first = causes(error)  # after which the others only say that the capture is broken off
                reason = f"{type(first).__name__}: {first}".splitlines()[0]
        if reason:
            self.note = f"CUDA graph capture is disabled: {reason}"

    def is_settled(self) -> bool:
        """Whether it uses what memory it will: its graph is captured, or will not be."""
        return self.steps_uncaptured >= WARM_UP

    def steps_at_once(self) -> int:
        """Steps until the next line of the journal is due: every `log_every`, and at an epoch's end.

        Before that, as many as come before a graph: to capture one waits for the device, on which other lanes
        are not to be at work already.
        """
        every: int = self.trainer.log_every
        steps = min(every - self.step % every, self.steps_per_epoch - self.step % self.steps_per_epoch)
        return steps if self.is_settled() else min(steps, WARM_UP - self.steps_uncaptured)

    # What is told after some steps

    def is_due(self) -> bool:
        """Whether a line of the journal is, after a step."""
        at_line = self.step % self.trainer.log_every == 0 or self.step % self.steps_per_epoch == 0
        return bool(self.tally.losses) and at_line

    def evaluate(self, split: Split) -> dict[str, float]:
        """Figures of the model as it is, on a whole split, by their metrics' names."""
        return self.task.evaluate(self.model, split, self.autocast)

    def count_seconds(self, seconds: float) -> None:
        self.seconds += seconds
        self.tally.epoch_seconds += seconds

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on as if nothing had happened; loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "device": self.device.type,
            "random_state": self.process.random_state,
            "augment_state": self.augment_generator.get_state(),
            "threads": self.threads,
            "step": self.step,
            "seconds": self.seconds,
            "shared": self.shared,
            **self.tally.state_dict(),
            **self.selection.state_dict(),
        }

    def weights(self) -> dict[str, Any]:
        """A copy of the weights at this step, as they are evaluated."""
        with schedulefree.averaged(self.optimizer, self.model):
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return {"model": weights, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; on the same kind of device, with the same bits."""
        self.model.load_state_dict(state["model"])
        for group in state["optimizer"]["param_groups"]:  # which says where step counts go
            if "capturable" in group:
                group["capturable"] = self.optimizer.defaults["capturable"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if state["device"] == self.device.type:
            self.process.random_state = state["random_state"]
            self.augment_generator.set_state(state["augment_state"])
        else:  # random states of one kind of device mean nothing to another
            self.process.random_state = seeded_random_state(self.device, mixed(self.seed, 2, state["step"]))
            self.augment_generator.manual_seed(mixed(self.seed, 3, state["step"]))
        self.step, self.seconds = state["step"], state["seconds"]
        self.shared = state.get("shared", False)  # older checkpoints lack it
        self.tally.load_state_dict(state)
        self.selection.load_state_dict(state)

    def load_weights(self, weights: dict[str, Tensor], source: str) -> None:
        """Start from these weights instead of the random ones.

        Raises:
            ConfigError: they are another model's.
        """
        try:
            self.model.load_state_dict(weights)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(
                f"trainer.weights={source}: not this model's weights ({' '.join(str(error).split())})"
            ) from error
