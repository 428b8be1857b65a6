"""What a lane learns: batches, loss and figures. A lane itself knows nothing of images or classes."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from fairsweep.config import ConfigError
from fairsweep.losses import is_mean_of_images
from fairsweep.training import build
from fairsweep.training.dataset import Split, augment
from fairsweep.training.memory import is_out_of_memory
from fairsweep.training.scores import Scores

Autocast = Callable[[], AbstractContextManager[Any]]

# Enough images for full speed, few enough to stay in the processor's cache.
EVALUATION_BATCH = {"cpu": 500, "cuda": 4000, "mps": 500}


class Classification:
    """Classification of images that are resident on the device.

    Attributes:
        count: training images.

    Raises:
        ConfigError: there are fewer training images than a batch has.
    """

    def __init__(self, cfg: DictConfig, device: torch.device) -> None:
        self.cfg, self.device = cfg, device
        self.data = build.data(cfg, device)
        self.count = len(self.data.train.labels)
        batch_size: int = cfg.trainer.batch_size
        if batch_size > self.count:
            raise ConfigError(
                f"trainer.batch_size={batch_size}: must be at most the number of training images, "
                f"{self.count}"
            )
        # Batch normalisation knows no statistics of a single image: a last batch of one is left out.
        self.steps_per_epoch = self.count // batch_size + (self.count % batch_size > 1)
        self.loss = build.loss(cfg).to(device)
        self.averages_images = True  # whether the loss of a batch is the mean of its images' losses
        self.augmentation = self.data.augment if any(self.data.augment) else None
        mean, std = (
            torch.tensor(figure, device=device).view(1, -1, 1, 1)
            for figure in (self.data.mean, self.data.std)
        )
        self.scale, self.shift = 1 / (255 * std), -mean / std
        classes = self.data.classes
        self.scores = Scores(cfg, "classification", len(classes), ["accuracy"], counted=["loss", "accuracy"])

    def model(self) -> nn.Module:
        """A new model, initialised from torch's global generator."""
        return build.model(self.cfg, self.data.shape, len(self.data.classes))

    def batch(self, index: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pixels (N, C, H, W), normalised float32, and labels (N,) of the training images with these indices.

        Args:
            generator: for augmentation.
        """
        pixels = self.data.train.images.index_select(0, index).to(
            torch.float32, memory_format=torch.channels_last
        )
        labels = self.data.train.labels.index_select(0, index)
        if self.augmentation is not None:
            pixels = augment(pixels, self.augmentation.shift, self.augmentation.rotate, generator)
        return self.normalise(pixels), labels

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixel values (N, C, H, W) from 0 to 255, float, in place: to zero mean and unit deviation."""
        return pixels.mul_(self.scale).add_(self.shift)

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """How many were classified correctly, int64."""
        return (logits.argmax(1) == labels).sum()

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: Split, autocast: Autocast) -> dict[str, float]:
        """Figures of the model as it is, on a whole split: `loss`, its mean; `accuracy`; and others."""
        model.eval()
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
            with autocast():
                logits = model(self.normalise(pixels))
            if self.averages_images:
                loss += self.loss(logits.float(), labels) * len(labels)
            if not self.averages_images or self.scores.functions:
                outputs.append(logits.float())
            correct += self.correct(logits, labels)
        if not self.averages_images:
            loss += self.loss(torch.cat(outputs), split.labels) * len(split.labels)
        model.train()
        figures = {"loss": float(loss) / len(split.labels), "accuracy": int(correct) / len(split.labels)}
        if self.scores.functions:
            figures |= self.scores(torch.cat(outputs).cpu(), split.labels.cpu())
        return figures

    def check(self, model: nn.Module) -> None:
        """A batch through copies of model and loss, so that what does not fit is said before training.

        Raises:
            ConfigError: model, loss and images do not fit each other, the loss is not a mean, or it has state
                that no checkpoint holds; or a metric does not fit the targets.
        """
        for name, split in (("validation", self.data.val), ("test", self.data.test)):
            self.scores.check(name, split.labels.cpu(), self.data.classes)
        size = min(2, self.cfg.trainer.batch_size)
        images, labels = self.data.train.images[:size], self.data.train.labels[:size]
        model_name, loss_name = self.cfg.model._target_, self.cfg.loss._target_
        try:
            with torch.no_grad():
                logits = copy.deepcopy(model)(self.normalise(images.float()))
                fits = logits.shape == (size, len(self.data.classes))
                if fits:
                    copy.deepcopy(self.loss)(logits, labels)
                    self.check_loss(loss_name)
        except ConfigError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise ConfigError(
                f"model ({model_name}) and loss ({loss_name}) do not fit images of shape "
                f"{self.data.shape} in batches of {self.cfg.trainer.batch_size}: {error}"
            ) from error
        if not fits:
            raise ConfigError(
                f"model ({model_name}): gives {tuple(logits.shape)} for {size} images, "
                f"must give one logit for each of {len(self.data.classes)} classes"
            )

    def check_loss(self, name: str) -> None:
        """Find out how the loss averages over a batch, by a copy of it."""
        loss = copy.deepcopy(self.loss)
        try:
            self.averages_images = is_mean_of_images(loss, len(self.data.classes), self.device)
        except ValueError as error:
            raise ConfigError(f"loss ({name}): {error}") from error
        before = self.loss.state_dict()
        if changed := [key for key, now in loss.state_dict().items() if not now.equal(before[key])]:
            raise ConfigError(
                f"loss ({name}): must be the same for each batch, but changes its "
                f"{', '.join(changed)}, which a resumed run would not have"
            )
