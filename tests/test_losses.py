"""Losses: what is a mean over a batch trains and is evaluated right, what is not is refused."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from fairsweep import losses
from fairsweep.config import ConfigError, check
from fairsweep.losses import is_mean_of_images
from fairsweep.training import build
from fairsweep.training.lane import Lane
from fairsweep.training.loop import fit

Compose = Callable[..., DictConfig]

QUICK = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=1")
OWN = (*QUICK, "loss=other", "loss._target_=fairsweep.losses.Own")
WEIGHTS = [1, 20, 3, 4, 5, 6, 7, 8, 9, 10]


class Sum(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="sum")


class PerImage(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")


class Learned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits * self.scale, labels)


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("batches", torch.zeros(1))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.batches += 1
        return F.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (Remembering, "must be the same for each batch, but changes its batches"),
        (Sum, "must be a mean over the batch, but is .* for the batch repeated twice"),
        (PerImage, r"must return one number for a batch, but returns the shape \(2,\)"),
        (Learned, "has parameters of its own, which no optimizer trains"),
    ],
)
def test_own_losses_that_would_be_wrong_are_refused_before_training(
    loss: type[nn.Module], told: str, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "Own", loss, raising=False)
    with pytest.raises(ConfigError, match=rf"^loss\S* ?\(?fairsweep.losses.Own.*{told}"):
        Lane(compose(*OWN))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_reduction_other_than_the_mean_is_refused_by_its_key(reduction: str, compose: Compose) -> None:
    with pytest.raises(ConfigError, match=f'loss.reduction="{reduction}": must be mean'):
        check(compose(f"+loss.reduction={reduction}"))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (nn.CrossEntropyLoss(), True),
        (nn.CrossEntropyLoss(label_smoothing=0.1), True),
        (nn.MultiMarginLoss(), True),
        (losses.MSEOneHot(), True),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1, 1, 2])), False),
        (nn.CrossEntropyLoss(ignore_index=2), False),
    ],
)
def test_weights_of_classes_show_in_what_the_loss_does(loss: nn.Module, expected: bool) -> None:
    assert is_mean_of_images(loss, 4, torch.device("cpu")) is expected


def test_figures_of_a_weighted_loss_are_those_of_the_whole_split(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, "data.limit=null", f"+loss.weight={WEIGHTS}"))
    split = lane.task.data.train
    assert len(split) > 500  # more than one batch
    lines = [line for event in fit([lane]) for line in event.lines]
    assert lane.ending is not None
    assert lane.ending.status == "finished"
    for part, key in ((split, None), (lane.task.data.val, "val_loss")):
        with torch.inference_mode():
            logits = lane.model.eval()(lane.task.normalise(part.inputs.float()))
        expected = F.cross_entropy(logits, part.targets, torch.tensor(WEIGHTS, dtype=torch.float32))
        assert lane.evaluate(part)["loss"] == pytest.approx(float(expected), rel=1e-5)
        assert key is None or lines[-2][key] == pytest.approx(float(expected), rel=1e-5)


def test_weights_that_do_not_fit_the_classes_are_refused(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"loss \(torch.nn.CrossEntropyLoss\): does not fit.*weight tensor"):
        Lane(compose(*QUICK, "+loss.weight=[1,2]"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_loss_with_weights_trains_on_cuda(compose: Compose) -> None:
    lane = Lane(compose(*QUICK, f"+loss.weight={WEIGHTS}", "trainer.device=cuda"))
    for _ in fit([lane]):
        pass
    assert lane.ending is not None
    assert lane.ending.status == "finished"


def test_the_check_draws_no_random_numbers_and_changes_no_bits(compose: Compose) -> None:
    assert build.loss(compose()).state_dict() == {}
    before = torch.get_rng_state()
    is_mean_of_images(nn.CrossEntropyLoss(), 10, torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
