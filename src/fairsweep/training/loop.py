"""The training loop: `advance` trains lanes side by side and tells what happens as it happens.

It knows nothing of folders, tracking or terminals: whoever iterates over its events journals them, saves
`lane.state_dict()` when it likes, and may end a lane from outside with `lane.end`.
"""

import copy
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fairsweep.config import OBJECTIVES, ConfigError
from fairsweep.losses import is_mean_of_images
from fairsweep.training import build
from fairsweep.training.capture import CapturedSteps, obstacle
from fairsweep.training.dataset import Split, augment
from fairsweep.training.memory import causes, is_out_of_memory, keep_freed_memory

Line = dict[str, float]

# Enough images for full speed, few enough to stay in the processor's cache.
EVALUATION_BATCH = {"cpu": 500, "cuda": 4000, "mps": 500}

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


class Event(NamedTuple):
    """What a lane has to tell: lines for its journal, or that it ended (`lane.ending`), or both."""

    lane: "Lane"
    lines: list[Line]


class Lane:
    """One run's live state: model, optimizer, scheduler, random state, position.

    Args:
        threads: that it computes with, where a checkpoint says so; else as `cfg.trainer.threads` has it.

    Raises:
        ConfigError: the device is not there; or model, data, loss, optimizer, batch size do not fit.
    """

    def __init__(self, cfg: DictConfig, threads: int | None = None) -> None:
        self.trainer = SimpleNamespace(**build.plain(cfg.trainer))
        default = default_threads()
        self.threads: int = threads or self.trainer.threads or default
        self.seed = int(cfg.seed)
        self.objective_key = str(cfg.objective)
        self.device = build.device(cfg)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = build.precision(cfg, self.device)
        self.data = build.data(cfg, self.device)
        images = len(self.data.train.labels)
        batch_size: int = self.trainer.batch_size
        if batch_size > images:
            raise ConfigError(
                f"trainer.batch_size={batch_size}: must be at most the number of training images, {images}"
            )
        # Batch normalisation knows no statistics of a single image: a last batch of one is left out.
        self.steps_per_epoch = images // batch_size + (images % batch_size > 1)
        self.total_steps = self.trainer.epochs * self.steps_per_epoch

        self.random_state = seeded_random_state(self.device, self.seed)
        self.default_dtype = torch.get_default_dtype()
        with self.own_state():
            self.model = build.model(cfg, self.data.shape, len(self.data.classes))
        self.model.to(self.device).to(memory_format=torch.channels_last)
        self.loss = build.loss(cfg).to(self.device)
        self.averages_images = True  # whether the loss of a batch is the mean of its images' losses
        self.optimizer = build.optimizer(cfg, self.model)
        if isinstance(self.optimizer, torch.optim.LBFGS):  # which takes gradients for flat
            self.model.to(memory_format=torch.contiguous_format)
        self.scheduler = build.scheduler(cfg, self.optimizer, self.steps_per_epoch)
        # Behind a warm-up, the last of the sequence.
        self.main_scheduler = getattr(self.scheduler, "_schedulers", [self.scheduler])[-1]
        self.augmentation = self.data.augment if any(self.data.augment) else None
        self.augment_generator = torch.Generator(self.device).manual_seed(mixed(self.seed, 0))
        mean, std = (
            torch.tensor(figure, device=self.device).view(1, -1, 1, 1)
            for figure in (self.data.mean, self.data.std)
        )
        self.scale, self.shift = 1 / (255 * std), -mean / std

        self.step = 0
        self.seconds = 0.0  # of training, over all sittings
        self.losses: list[Tensor] = []  # of the steps since the last line, in pieces
        self.sizes: list[int] = []  # of each batch since the last line
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)  # since the last line
        self.epoch_loss, self.epoch_correct, self.epoch_images = 0.0, 0, 0  # sums of this epoch
        self.epoch_seconds = 0.0
        self.objective: float | None = None  # of the last validation
        self.best: dict[str, Any] | None = None  # objective, epoch and weights of the best epoch
        self.epochs_without_gain = 0
        self.order = torch.zeros(0)  # of this epoch's images: their indices
        self.order_of_epoch = -1
        self.stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self.captured: CapturedSteps | None = None
        self.steps_uncaptured = 0
        self.beside = 1  # lanes that trained at once when this one did last, itself among them
        self.shared = False  # whether other lanes trained during any of `seconds`, which are shares then
        self.collected = torch.zeros(0)  # losses since the last line, and `correct`, on the host
        self.note = ""  # what the user should know
        self.ending: Ending | None = None
        self._check_fit(cfg)

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

    @contextmanager
    def own_state(self) -> Iterator[None]:
        """Inside, what torch has one of per process is this lane's.

        Its generators and its default dtype are as they were again outside; threads and determinism each lane
        sets for itself.
        """
        set_process(self.threads, self.device, self.trainer.deterministic)
        generators = default_generators(self.device)
        outer = {name: generator.get_state() for name, generator in generators.items()}
        for name, generator in generators.items():
            generator.set_state(self.random_state[name])
        outer_dtype = torch.get_default_dtype()
        torch.set_default_dtype(self.default_dtype)
        try:
            yield
        finally:
            self.default_dtype = torch.get_default_dtype()  # a model may set it
            torch.set_default_dtype(outer_dtype)
            for name, generator in generators.items():
                self.random_state[name] = generator.get_state()
                generator.set_state(outer[name])

    @contextmanager
    def own_stream(self) -> Iterator[None]:
        """Inside, a CUDA device works on this lane beside others; `collect` waits for it."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            yield

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward passes inside are in this lane's precision."""
        if self.precision == "bf16":
            # What is cached outside of a graph would be missing inside.
            return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.device.type != "cuda")
        return nullcontext()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixel values (N, C, H, W) from 0 to 255, float, in place: to zero mean and unit deviation."""
        return pixels.mul_(self.scale).add_(self.shift)

    def optimize(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer step on the training images of these indices (N,): its mean loss, and how many were
        classified correctly; neither is waited for."""
        pixels = self.data.train.images.index_select(0, index).to(
            torch.float32, memory_format=torch.channels_last
        )
        labels = self.data.train.labels.index_select(0, index)
        if self.augmentation is not None:
            pixels = augment(
                pixels, self.augmentation.shift, self.augmentation.rotate, self.augment_generator
            )
        pixels = self.normalise(pixels)
        asked: list[tuple[Tensor, Tensor]] = []

        def gradients() -> Tensor:
            with self.autocast():
                logits = self.model(pixels)
            loss: Tensor = self.loss(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.trainer.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.clip_norm)
            asked.append((loss.detach(), logits.detach()))
            return loss

        self.optimizer.step(gradients)  # type: ignore[arg-type]  # torch's type asks for a float
        loss, logits = asked[0]  # some optimizers, as LBFGS, ask several times
        return loss, (logits.argmax(1) == labels).sum()

    def train_step(self, index: Tensor) -> None:
        """One step of the optimizer and of the scheduler, noted for the next line."""
        loss, correct = self.optimize(index)
        self.scheduler.step()
        self.losses.append(loss.view(1))
        self.correct += correct
        self.sizes.append(len(index))
        self.step += 1

    def advance(self, steps: int, stop: Callable[[], bool]) -> None:
        """That many optimizer steps within this epoch, or fewer if `stop` says so.

        On CUDA they are only launched, on the lane's own stream, and after the first few as a graph.
        """
        size: int = self.trainer.batch_size
        epoch, position = divmod(self.step, self.steps_per_epoch)
        end = min(position + steps, self.steps_per_epoch)
        with self.own_stream():
            if self.order_of_epoch != epoch:
                self.begin_epoch(epoch)
            while position < end and not stop():
                if self.captured is not None and position < self.captured.count:
                    count = min(end - position, self.captured.count - position, LAUNCHES)
                    self.losses.append(self.captured.run(position, count))
                    self.sizes += [size] * count
                    self.step += count
                else:
                    self.train_step(self.order[position * size : (position + 1) * size])
                    self.warm_up()
                position = self.step - epoch * self.steps_per_epoch

    def begin_epoch(self, epoch: int) -> None:
        """Decide the order of the images."""
        generator = torch.Generator().manual_seed(mixed(self.seed, 1, epoch))
        order = torch.randperm(len(self.data.train.labels), generator=generator)
        self.order = order.to(self.device, non_blocking=True)
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
        return bool(self.losses) and at_line

    def report(self) -> list[Line]:
        """The lines that are due after a step; sets `ending` when the run is over.

        A loss that is not finite ends the lane as diverged.
        """
        if not self.is_due():
            return []
        lines = [self._interval()]
        limit = self.trainer.max_seconds
        out_of_time = limit is not None and self.seconds >= limit
        if self.ending is None and (out_of_time or self.step % self.steps_per_epoch == 0):
            lines.append(self._epoch_end())
            if self.ending is None and out_of_time:
                self.end("finished", f"trainer.max_seconds={limit} reached")
            if self.ending is not None and self.ending.status == "finished":
                lines.append(self._test())
        return lines

    def _interval(self) -> Line:
        """Means over the steps since the last line, from what was collected."""
        losses, correct = self.collected[:-1], int(self.collected[-1])
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        images = sum(self.sizes)
        loss = float((losses * sizes).sum()) / images
        if not bool(losses.isfinite().all()):
            first = int((~losses.isfinite()).nonzero()[0])
            step = self.step - len(losses) + first + 1
            self.end("diverged", f"the loss of step {step} is {float(losses[first])}")
        self.epoch_loss += loss * images
        self.epoch_correct += correct
        self.epoch_images += images
        self.losses, self.sizes = [], []
        self.correct.zero_()
        return self._line(
            train_loss=loss,
            train_accuracy=correct / images,
            lr=float(self.optimizer.param_groups[0]["lr"]),
        )

    def _epoch_end(self) -> Line:
        """Validation; best weights; early stopping, pause and the end."""
        figures = {
            "epoch_train_loss": self.epoch_loss / self.epoch_images,
            "epoch_train_accuracy": self.epoch_correct / self.epoch_images,
            "images_per_second": self.epoch_images / self.epoch_seconds,
            "epoch_seconds": self.epoch_seconds,
        }
        self.epoch_loss, self.epoch_correct, self.epoch_images = 0.0, 0, 0
        self.epoch_seconds = 0.0
        if len(self.data.val.labels):
            figures["val_loss"], figures["val_accuracy"] = self.evaluate(self.data.val)
            self._select(figures)
        if self.trainer.test_each_epoch and len(self.data.test.labels):
            figures["epoch_test_loss"], figures["epoch_test_accuracy"] = self.evaluate(self.data.test)
        patience = self.trainer.patience
        if self.ending is not None:
            pass
        elif self.step >= self.total_steps:
            self.end("finished")
        elif patience is not None and self.epochs_without_gain >= patience:
            self.end("finished", f"no better {self.objective_key} for {patience} epochs")
        elif self.trainer.stop_epoch is not None and self.epoch >= self.trainer.stop_epoch:
            self.end("paused", f"trainer.stop_epoch={self.trainer.stop_epoch} reached")
        return self._line(**figures)

    def _select(self, figures: Line) -> None:
        """Keep the weights if their objective is the best so far."""
        if not np.isfinite(figures["val_loss"]):
            self.end("diverged", f"the validation loss after step {self.step} is {figures['val_loss']}")
            return
        self.objective = figures[self.objective_key]
        sign = OBJECTIVES[self.objective_key]
        if self.best is None or sign * self.objective > sign * self.best["objective"]:
            weights = self.model.state_dict().items()
            self.best = {
                "objective": self.objective,
                "epoch": self.epoch,
                "step": self.step,
                "model": {name: value.to("cpu", copy=True) for name, value in weights},
            }
            self.epochs_without_gain = 0
        else:
            self.epochs_without_gain += 1

    def _test(self) -> Line:
        """Test figures of the weights that `trainer.test_weights` names, and their objective."""
        line = self._line()
        if len(self.data.test.labels):
            last = {name: value.clone() for name, value in self.model.state_dict().items()}
            self.model.load_state_dict(self.tested_weights())
            line["test_loss"], line["test_accuracy"] = self.evaluate(self.data.test)
            self.model.load_state_dict(last)
        if self.best is not None and self.objective is not None:
            tested_best = self.trainer.test_weights == "best"
            line["objective"] = self.best["objective"] if tested_best else self.objective
        return line

    def tested_weights(self) -> dict[str, Tensor]:
        """The weights that `trainer.test_weights` names."""
        if self.trainer.test_weights == "best" and self.best is not None:
            weights: dict[str, Tensor] = self.best["model"]
            return weights
        return self.model.state_dict()

    @torch.inference_mode()
    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean loss and accuracy of the model as it is, on a whole split."""
        self.model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        size = EVALUATION_BATCH[self.device.type]
        outputs = list[Tensor]()
        for images, labels in zip(
            torch.split(split.images, size),
            torch.split(split.labels, size),
            strict=True,
        ):
            pixels = images.to(torch.float32, memory_format=torch.channels_last)
            with self.autocast():
                logits = self.model(self.normalise(pixels))
            if self.averages_images:
                loss += self.loss(logits.float(), labels) * len(labels)
            else:
                outputs.append(logits.float())
            correct += (logits.argmax(1) == labels).sum()
        if outputs:
            loss += self.loss(torch.cat(outputs), split.labels) * len(split.labels)
        self.model.train()
        return float(loss) / len(split.labels), int(correct) / len(split.labels)

    def _line(self, **figures: float) -> Line:
        return {"step": self.step, "epoch": self.step / self.steps_per_epoch, **figures}

    def count_seconds(self, seconds: float) -> None:
        self.seconds += seconds
        self.epoch_seconds += seconds

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on as if nothing had happened; loads with `weights_only=True`."""
        return {**self.snapshot(), "best": self.best}

    def snapshot(self) -> dict[str, Any]:
        """The state at this step; shares its tensors with the lane."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "device": self.device.type,
            "random_state": self.random_state,
            "augment_state": self.augment_generator.get_state(),
            "threads": self.threads,
            "losses": torch.cat(self.losses).cpu() if self.losses else torch.zeros(0),
            "correct": self.correct.cpu(),
            **{name: getattr(self, name) for name in PLAIN_STATE},
            "shared": self.shared,
        }

    def kept(self, keep: str) -> dict[str, dict[str, Any]]:
        """The weights that stay of a finished run, by file name, given `record.keep`."""
        if keep == "none":
            return {}
        kept = {"last.pt": self.weights()}
        if self.best is not None:
            kept["best.pt"] = {"model": self.best["model"], "step": self.best["step"]}
        return kept

    def weights(self) -> dict[str, Any]:
        """The weights at this step; shares its tensors with the lane."""
        return {"model": self.model.state_dict(), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; on the same kind of device, with the same bits."""
        self.model.load_state_dict(state["model"])
        for group in state["optimizer"]["param_groups"]:  # which says where step counts go
            if "capturable" in group:
                group["capturable"] = self.optimizer.defaults["capturable"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if state["device"] == self.device.type:
            self.random_state = state["random_state"]
            self.augment_generator.set_state(state["augment_state"])
        else:  # random states of one kind of device mean nothing to another
            self.random_state = seeded_random_state(self.device, mixed(self.seed, 2, state["step"]))
            self.augment_generator.manual_seed(mixed(self.seed, 3, state["step"]))
        self.best = state["best"]
        self.losses = [state["losses"].to(self.device)] if len(state["losses"]) else []
        self.correct.copy_(state["correct"])
        for name in PLAIN_STATE:
            setattr(self, name, state[name])
        self.shared = state.get("shared", False)  # older checkpoints lack it

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

    def _check_fit(self, cfg: DictConfig) -> None:
        """A batch through a copy of the model, so that what does not fit is said before training."""
        size = min(2, self.trainer.batch_size)
        images, labels = self.data.train.images[:size], self.data.train.labels[:size]
        random_state = dict(self.random_state)
        try:
            with self.own_state(), torch.no_grad():
                logits = copy.deepcopy(self.model)(self.normalise(images.float()))
                fits = logits.shape == (size, len(self.data.classes))
                if fits:
                    copy.deepcopy(self.loss)(logits, labels)
                    self._check_loss(cfg)
        except ConfigError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise ConfigError(
                f"model ({cfg.model._target_}) and loss ({cfg.loss._target_}) do not fit images of shape "
                f"{self.data.shape} in batches of {self.trainer.batch_size}: {error}"
            ) from error
        self.random_state = random_state
        if not fits:
            raise ConfigError(
                f"model ({cfg.model._target_}): gives {tuple(logits.shape)} for {size} images, "
                f"must give one logit for each of {len(self.data.classes)} classes"
            )

    def _check_loss(self, cfg: DictConfig) -> None:
        """Find out how the loss averages over a batch, by a copy of it.

        Raises:
            ConfigError: it is not a mean, or has state that no checkpoint holds.
        """
        loss = copy.deepcopy(self.loss)
        try:
            self.averages_images = is_mean_of_images(loss, len(self.data.classes), self.device)
        except ValueError as error:
            raise ConfigError(f"loss ({cfg.loss._target_}): {error}") from error
        before = self.loss.state_dict()
        if changed := [name for name, now in loss.state_dict().items() if not now.equal(before[name])]:
            raise ConfigError(
                f"loss ({cfg.loss._target_}): must be the same for each batch, but changes its "
                f"{', '.join(changed)}, which a resumed run would not have"
            )


PLAIN_STATE = (
    "step",
    "seconds",
    "sizes",
    "epoch_loss",
    "epoch_correct",
    "epoch_images",
    "epoch_seconds",
    "objective",
    "epochs_without_gain",
)


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
                lines = lane.report()
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
        pieces = [torch.cat([*lane.losses, lane.correct.view(1)]).double() for lane in those]
        figures = torch.split(torch.cat(pieces).cpu(), [len(piece) for piece in pieces])
        for lane, values in zip(those, figures, strict=True):
            lane.collected = values
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


def mixed(*numbers: int) -> int:
    """One well-mixed 64-bit seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def default_generators(device: torch.device) -> dict[str, torch.Generator]:
    """Torch's global generators that a lane on this device draws from."""
    generators = {"cpu": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        generators["cuda"] = torch.cuda.default_generators[device.index]
    elif device.type == "mps":
        generators["mps"] = torch.mps._get_default_mps_generator()
    return generators


def seeded_random_state(device: torch.device, seed: int) -> dict[str, Tensor]:
    """The state of each of those generators after seeding it."""
    return {
        name: torch.Generator(generator.device).manual_seed(seed).get_state()
        for name, generator in default_generators(device).items()
    }


def set_process(threads: int, device: torch.device, deterministic: bool) -> None:
    """Set what torch only knows per process. The CPU is deterministic anyway."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        if deterministic:  # cuBLAS reads this once, before its first call
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = not deterministic


@cache
def default_threads() -> int:
    """Torch's own choice, as it was before the first lane of this process set another."""
    return torch.get_num_threads()
