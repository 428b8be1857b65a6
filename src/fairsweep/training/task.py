"""What a lane learns: batches, loss and figures. A lane itself knows nothing of images or classes."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fairsweep import losses
from fairsweep.config import ConfigError
from fairsweep.training import build
from fairsweep.training.dataset import Data
from fairsweep.training.memory import is_out_of_memory
from fairsweep.training.scores import Scores
from fairsweep.training.source import Split, described

Autocast = Callable[[], AbstractContextManager[Any]]

# Enough examples for full speed, few enough to stay in the processor's cache.
EVALUATION_BATCH = {"cpu": 500, "cuda": 4000, "mps": 500}


def task(cfg: DictConfig, device: torch.device) -> "Task":
    """The task that the data of a configuration are for."""
    data = build.data(cfg, device)
    return (Regression if data.task == "regression" else Classification)(cfg, device, data)


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """An exception of a user's own code inside becomes one line that begins with `what`.

    Raises:
        ConfigError: that line.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        is_plain = isinstance(error, RuntimeError | ValueError | TypeError)
        raise ConfigError(f"{what}: {'' if is_plain else f'{type(error).__name__}: '}{error}") from error


class Task(ABC):
    """What all tasks have in common. Examples are on the device, or on the host, batches on the device.

    Attributes:
        count: training examples.
        home: where the examples are.
        counts_correct: whether `correct` means something.
        averages: whether the loss of a batch is the mean of its examples' losses.

    Raises:
        ConfigError: there are fewer training examples than a batch has.
    """

    counts_correct: bool
    scores: Scores

    def __init__(self, cfg: DictConfig, device: torch.device, data: Data) -> None:
        self.cfg, self.device, self.data = cfg, device, data
        self.count, self.home = len(data.train), data.train.inputs.device
        batch_size: int = cfg.trainer.batch_size
        if batch_size > self.count:
            raise ConfigError(
                f"trainer.batch_size={batch_size}: must be at most the number of training {data.noun}, "
                f"{self.count}"
            )
        # Batch normalisation knows no statistics of a single example: a last batch of one is left out.
        self.steps_per_epoch = self.count // batch_size + (self.count % batch_size > 1)
        self.loss = build.loss(cfg).to(device)
        self.averages = True
        has_pixels = data.train.inputs.dtype == torch.uint8
        axes = (1, -1, 1, 1) if len(data.shape) == 3 else (1, -1)
        self.mean, std = (torch.tensor(one, device=device).view(axes) for one in (data.mean, data.std))
        self.scale = 1 / (255 * std) if has_pixels else 1 / std
        self.shift = -self.mean / std if has_pixels else None
        self.layout = torch.channels_last if len(data.shape) == 3 else torch.contiguous_format

    def model(self) -> nn.Module:
        """A new model, initialised from torch's global generator."""
        return build.model(self.cfg, self.data.shape, self.data.outputs)

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs, normalised float32, and targets for the loss of the training examples with these indices.

        Args:
            index: on the examples' `home`.
            generator: for augmentation.
        """
        inputs = self.picked(self.data.train.inputs, index).to(torch.float32, memory_format=self.layout)
        inputs = self.data.augment.of_pixels(inputs, generator)
        inputs = self.data.augment.of_normalised(self.normalise(inputs), generator)
        return inputs, self.targets(self.picked(self.data.train.targets, index))

    def picked(self, values: Tensor, index: Tensor) -> Tensor:
        """The rows of these indices, on the device."""
        if self.home.type == self.device.type:
            return values.index_select(0, index)
        # In pinned memory, from which the copy does not hold up the host. Torch keeps and reuses it.
        is_cuda = self.device.type == "cuda"
        rows = torch.empty((len(index), *values.shape[1:]), dtype=values.dtype, pin_memory=is_cuda)
        return torch.index_select(values, 0, index, out=rows).to(self.device, non_blocking=True)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Inputs as they are stored, but float32, in place: to zero mean and unit deviation."""
        if self.shift is not None:
            return inputs.mul_(self.scale).add_(self.shift)
        return inputs.sub_(self.mean).mul_(self.scale)  # exact where the mean is large

    def targets(self, targets: Tensor) -> Tensor:
        """Targets as the loss takes them."""
        return targets

    @abstractmethod
    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How many were classified correctly, int64."""

    @abstractmethod
    def in_own_unit(self, outputs: Tensor) -> Tensor:
        """Outputs as metrics take them."""

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: Split, autocast: Autocast) -> dict[str, float]:
        """Figures of the model as it is, on a whole split: `loss`, its mean, and others."""
        model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        size = EVALUATION_BATCH[self.device.type]
        kept = list[Tensor]()
        all_targets = split.targets.to(self.device)
        for inputs, targets in zip(
            torch.split(split.inputs, size), torch.split(all_targets, size), strict=True
        ):
            # A copy: what is float already is to stay as it is.
            ready = inputs.to(self.device).to(torch.float32, memory_format=self.layout, copy=True)
            with autocast():
                outputs = model(self.normalise(ready))
            if self.averages:
                loss += self.loss(outputs.float(), self.targets(targets)) * len(targets)
            if not self.averages or self.scores.functions:
                kept.append(outputs.float())
            correct += self.correct(outputs, targets)
        if not self.averages:
            loss += self.loss(torch.cat(kept), self.targets(all_targets)) * len(split)
        model.train()
        figures = {"loss": float(loss) / len(split)}
        if self.counts_correct:
            figures["accuracy"] = int(correct) / len(split)
        if self.scores.functions:
            figures |= self.scores(self.in_own_unit(torch.cat(kept)).cpu(), split.targets.cpu())
        return figures

    def check(self, model: nn.Module) -> None:
        """A batch through copies of model and loss, so that what does not fit is said before training.

        Raises:
            ConfigError: model, loss and inputs do not fit each other, the loss is not a mean, or it has state
                that no checkpoint holds; or a metric does not fit the targets.
        """
        for name, split in (("validation", self.data.val), ("test", self.data.test)):
            self.scores.check(name, split.targets.cpu(), self.data.target_names or self.data.classes)
        size, wanted = min(2, self.cfg.trainer.batch_size), self.data.outputs
        inputs, targets = (
            some[:size].to(self.device) for some in (self.data.train.inputs, self.data.train.targets)
        )
        targets = self.targets(targets)
        model_name, loss_name = self.cfg.model._target_, self.cfg.loss._target_
        does_not = f"model ({model_name}): does not fit {self.data.noun} of shape {self.data.shape}"
        does_not += " in batches of 1" if size == 1 else ""
        with fitting(does_not), torch.no_grad():
            outputs = copy.deepcopy(model)(self.normalise(inputs.to(torch.float32, copy=True)))
        shape = getattr(outputs, "shape", None)
        if shape != (size, wanted):
            gives = tuple(shape) if shape is not None else type(outputs).__name__
            raise ConfigError(
                f"model ({model_name}): gives {gives} for {size} {self.data.noun}, must give {self.needed()}"
            )
        does_not = (
            f"loss ({loss_name}): does not fit outputs of {described(outputs)} and targets of "
            f"{described(targets)}"
        )
        with fitting(does_not), torch.no_grad():
            copy.deepcopy(self.loss)(outputs, targets)
            self.check_loss(loss_name)

    @abstractmethod
    def needed(self) -> str:
        """What a model must give, in a sentence."""

    @abstractmethod
    def probe(self, loss: nn.Module) -> bool:
        """Whether a batch's loss is the mean of its examples' losses.

        Raises:
            ValueError: the loss does not suit the task.
        """

    def check_loss(self, name: str) -> None:
        """Find out how the loss averages over a batch, by a copy of it."""
        loss = copy.deepcopy(self.loss)
        try:
            self.averages = self.probe(loss)
        except ValueError as error:
            raise ConfigError(f"loss ({name}): {error}") from error
        before = self.loss.state_dict()
        if changed := [key for key, now in loss.state_dict().items() if not now.equal(before[key])]:
            raise ConfigError(
                f"loss ({name}): must be the same for each batch, but changes its "
                f"{', '.join(changed)}, which a resumed run would not have"
            )


class Classification(Task):
    """Classes from logits."""

    counts_correct = True

    def __init__(self, cfg: DictConfig, device: torch.device, data: Data) -> None:
        super().__init__(cfg, device, data)
        self.scores = Scores(cfg, "classification", data.outputs, ["accuracy"], counted=["loss", "accuracy"])

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.argmax(1) == targets).sum()

    def in_own_unit(self, outputs: Tensor) -> Tensor:
        return outputs

    def needed(self) -> str:
        return f"one logit for each of {self.data.outputs} classes"

    def probe(self, loss: nn.Module) -> bool:
        return losses.is_mean_of_images(loss, self.data.outputs, self.device)


class Regression(Task):
    """Numbers. The loss is of standardised targets; metrics are in the target's own unit."""

    counts_correct = False

    def __init__(self, cfg: DictConfig, device: torch.device, data: Data) -> None:
        super().__init__(cfg, device, data)
        self.target_mean = torch.tensor(data.target_mean, device=device)
        self.target_std = torch.tensor(data.target_std, device=device)
        self.none = torch.zeros((), dtype=torch.int64, device=device)
        self.scores = Scores(cfg, "regression", data.outputs, ["r2", "mae", "rmse"], counted=["loss"])

    def targets(self, targets: Tensor) -> Tensor:
        return (targets - self.target_mean) / self.target_std

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002 - nothing is right or wrong
        return self.none

    def in_own_unit(self, outputs: Tensor) -> Tensor:
        return outputs * self.target_std + self.target_mean

    def needed(self) -> str:
        count = self.data.outputs
        return f"(N, {count}), one number for {'the target' if count == 1 else f'each of {count} targets'}"

    def probe(self, loss: nn.Module) -> bool:
        return losses.is_mean_of_numbers(loss, self.data.outputs, self.device)
