"""The models, their wrapper for prediction, and our loss."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fairsweep.config import ConfigError
from fairsweep.losses import MSEOneHot
from fairsweep.models import ACTIVATIONS, CNN, MLP, Classifier, Shape

PLAIN: dict[str, Any] = {
    "widths": [4, 6],
    "kernel": 3,
    "padding": 1,
    "norm": "none",
    "activation": "relu",
    "pool": "each",
    "dropout": 0.0,
    "hidden": [8],
}


def cnn(shape: Shape = (1, 28, 28), classes: int = 10, **options: Any) -> CNN:
    torch.manual_seed(0)
    return CNN(shape, classes, **PLAIN | options)


def mlp(shape: Shape = (1, 28, 28), classes: int = 10, **options: Any) -> MLP:
    torch.manual_seed(0)
    plain = {"widths": [16, 12], "norm": "none", "activation": "relu", "dropout": 0.0}
    return MLP(shape, classes, **plain | options)


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.children()]


def activated_first(model: nn.Sequential) -> nn.Sequential:
    """The same layers with each activation before its pooling, as the tutorials have them."""
    layers = list(copy.deepcopy(model))
    poolings = [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    assert poolings
    for place in poolings:
        layers[place], layers[place + 1] = layers[place + 1], layers[place]
    return nn.Sequential(*layers)


def outputs_and_gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_()
    logits = model(images)
    labels = torch.arange(len(images)) % logits.shape[1]
    nn.functional.cross_entropy(logits, labels).backward()
    assert images.grad is not None
    return [logits, images.grad, *(weight.grad for weight in model.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("activation", ["relu", "tanh", "none"])
@pytest.mark.parametrize("options", [{}, {"norm": "batch"}, {"pool": "last"}, {"kernel": 5, "padding": 0}])
def test_pooling_before_the_activation_changes_no_bit(activation: str, options: dict[str, Any]) -> None:
    model = cnn((3, 27, 30), activation=activation, **options)
    images = torch.randn(20, 3, 27, 30)
    fast, slow = (outputs_and_gradients(m, images) for m in (model, activated_first(model)))
    assert len(fast) == len(slow) == 2 + len(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_an_activation_that_is_not_monotone_comes_before_its_pooling() -> None:
    assert kinds(cnn(activation="gelu", widths=[4]))[:3] == ["Conv2d", "GELU", "MaxPool2d"]
    assert kinds(cnn(activation="relu", widths=[4]))[:3] == ["Conv2d", "MaxPool2d", "ReLU"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (17, 40), (32, 9)])
@pytest.mark.parametrize("make", [cnn, mlp])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_logits_for_any_channels_sides_and_classes(
    channels: int, size: tuple[int, int], make: Any, norm: str
) -> None:
    model = make((channels, *size), 7, norm=norm)
    logits = model(torch.randn(5, channels, *size))
    assert logits.shape == (5, 7)
    assert logits.isfinite().all()
    assert (logits < 0).any()  # logits, not probabilities


def test_layers_of_a_cnn() -> None:
    assert kinds(cnn(norm="batch", dropout=0.3, pool="last")) == [
        *("Conv2d", "BatchNorm2d", "ReLU"),
        *("Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"),
        *("Dropout2d", "Flatten", "Linear", "ReLU", "Linear"),
    ]
    first, last = cnn(norm="batch", dropout=0.3)[0], cnn(hidden=[])[-1]
    assert first.bias is None  # the norm has one
    assert last.in_features == 6 * 7 * 7
    assert cnn(dropout=0.3)[6].p == 0.3


def test_layers_of_an_mlp() -> None:
    model = mlp(norm="batch", activation="tanh", dropout=0.4)
    block = ("Linear", "BatchNorm1d", "Tanh", "Dropout")
    assert kinds(model) == ["Flatten", *block, *block, "Linear"]
    assert [layer.out_features for layer in model if isinstance(layer, nn.Linear)] == [16, 12, 10]
    assert kinds(mlp(widths=[])) == ["Flatten", "Linear"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("make", [cnn, mlp])
def test_each_activation_is_the_one_it_is_called(activation: str, make: Any) -> None:
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "none": nn.Identity}[activation]
    assert sum(isinstance(layer, kind) for layer in make(activation=activation)) >= 2


def test_dropout_drops_whole_channels_in_a_cnn_in_training_only() -> None:
    model = cnn(dropout=0.5, hidden=[])
    seen: list[Tensor] = []
    model[6].register_forward_hook(lambda _m, _i, output: seen.append(output))
    images = torch.randn(30, 1, 28, 28)
    model(images)
    dropped = (seen[0] == 0).flatten(2).all(dim=2)
    assert 0.3 < dropped.float().mean() < 0.7
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 3, 3), {"widths": [4, 4]}),
        ((1, 28, 3), {"widths": [4, 4]}),
        ((1, 4, 28), {"kernel": 5, "padding": 0}),
        ((3, 28, 28), {"widths": [4] * 5}),
    ],
)
def test_images_too_small_for_a_cnn(shape: Shape, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model.widths=\[4.*too small for block \d.*use fewer blocks"):
        cnn(shape, **options)


def test_the_smallest_image_that_a_cnn_takes() -> None:
    assert cnn((1, 4, 4))(torch.randn(2, 1, 4, 4)).shape == (2, 10)


def test_a_cnn_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.widths=\[\]"):
        cnn(widths=[])


def test_a_classifier_gives_probabilities_for_pixel_values() -> None:
    model = cnn((3, 12, 12), 4).eval()
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.4)
    pixels = torch.randint(0, 256, (6, 3, 12, 12)).float()
    normal = torch.stack([(pixels[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    probabilities = Classifier(model, mean, std)(pixels)
    torch.testing.assert_close(probabilities, model(normal).softmax(1))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))
    assert set(Classifier(model, mean, std).state_dict()) > {"mean", "std"}  # saved with the weights


def test_mse_one_hot_by_hand() -> None:
    # softmax(0, ln 3) = (1/4, 3/4); against (0, 1): (1/16 + 1/16) / 2; against (1, 0): (9/16 + 9/16) / 2
    logits = torch.tensor([[0.0, torch.tensor(3.0).log()], [0.0, torch.tensor(3.0).log()]])
    assert MSEOneHot()(logits, torch.tensor([1, 0])).item() == pytest.approx((1 / 16 + 9 / 16) / 2)
    assert MSEOneHot()(logits[:1], torch.tensor([1])).item() == pytest.approx(1 / 16)


def test_mse_one_hot_in_bf16_counts_in_fp32() -> None:
    logits = torch.randn(8, 10).bfloat16().requires_grad_()
    loss = MSEOneHot()(logits, torch.arange(8))
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad is not None
    assert logits.grad.any()
