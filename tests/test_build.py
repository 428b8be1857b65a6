"""Every choice of every group is allowed, and reaches the object that is built."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from fairsweep import data
from fairsweep.config import ROOT, ConfigError, check, resolved
from fairsweep.losses import MSEOneHot
from fairsweep.models import CNN, MLP
from fairsweep.training import build
from fairsweep.training.augment import Augment
from fairsweep.training.sources import IDX_FILES

Compose = Callable[..., DictConfig]

SCHEDULERS = "torch.optim.lr_scheduler"

# What a choice leaves open.
GIVEN = {
    "data=image_folder": ["data.root=set here"],
    "data=mnist": ["data.root=set here"],
    "data=fashion_mnist": ["data.root=set here"],
    "data=kmnist": ["data.root=set here"],
    "model=vision": ["model.architecture=resnet18"],
    "model=other": [
        "model._target_=fairsweep.models.MLP",
        *("+model.widths=[256,128]", "+model.norm=none", "+model.activation=relu", "+model.dropout=0.0"),
    ],
    "data=arrays": ["data.file=some.npz", "data.task=classification"],
    "data=other": ["data._target_=mine.data.load", "data.task=regression"],
    "loss=other": ["loss._target_=torch.nn.MultiMarginLoss"],
    "optimizer=other": ["optimizer._target_=torch.optim.RAdam", "optimizer.lr=2e-3"],
    "tracking=mlflow": ["tracking.uri=set here"],
}


def choices(group: str) -> list[str]:
    """The files of a group, without those that others build on."""
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("[!_]*.yaml"))


GROUPS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "hydra")
CHOICES = [(g, choice) for g in GROUPS if g not in ("recipe", "sweep") for choice in choices(g)]


def test_every_entry_point_has_its_configuration() -> None:
    assert {path.stem for path in (ROOT / "conf").glob("[!_]*.yaml")} == {
        path.stem for path in (ROOT / "src").glob("*.py")
    }


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_each_choice_is_allowed(group: str, choice: str, compose: Compose) -> None:
    check(compose(f"{group}={choice}", *GIVEN.get(f"{group}={choice}", [])))


def test_mlflows_own_variable_names_the_experiment(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    assert compose("tracking=mlflow").tracking.experiment == "mine"
    assert compose("tracking=mlflow", "tracking.experiment=yours").tracking.experiment == "yours"


def test_smoke_is_small(compose: Compose) -> None:
    cfg = compose("trainer=smoke")
    assert len(build.data(cfg).train) == cfg.data.limit == 512


def test_outputs_lie_in_the_project_by_default_and_the_environment_may_name_a_server(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compose("record.dir=${project:outputs}").record.dir == str(ROOT / "outputs")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert compose("tracking=mlflow").tracking.uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert compose("tracking=mlflow").tracking.uri == "http://somewhere:5000"
    monkeypatch.delenv("FAIRSWEEP_DATA", raising=False)
    assert compose("data=mnist").data.root == str(ROOT / "outputs" / "data")
    monkeypatch.setenv("FAIRSWEEP_DATA", "/some/where")
    assert compose("data=mnist").data.root == "/some/where"


# Data


def write_idx(folder: Path, train: int = 5100, test: int = 60) -> None:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0)
    for name, count in zip(IDX_FILES, (train, train, test, test), strict=True):
        if "images" in name:
            head, body = (2051, count, 28, 28), pixels.bytes(count * 28 * 28)
        else:
            head, body = (2049, count), bytes(i % 10 for i in range(count))
        (folder / name).write_bytes(np.array(head, ">u4").tobytes() + body)


@pytest.mark.parametrize("choice", ["mnist", "fashion_mnist", "kmnist"])
def test_data_in_mnists_format(
    choice: str, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = compose(f"data={choice}", "data.root=x").data.dataset
    write_idx(tmp_path / dataset / "raw")
    if choice == "mnist":
        for name in IDX_FILES:
            content = (tmp_path / dataset / "raw" / name).read_bytes()
            monkeypatch.setitem(data.MNIST_MD5, name, data.hashlib.md5(content).hexdigest())
    built = build.data(compose(f"data={choice}", f"data.root={tmp_path}"))
    assert (len(built.train), len(built.val), len(built.test)) == (100, 5000, 60)
    assert built.shape == (1, 28, 28)
    assert built.name == choice
    assert built.classes == data.CLASSES[dataset]


def test_digits(compose: Compose) -> None:
    built = build.data(compose())
    assert (len(built.train), len(built.val), len(built.test)) == (1150, 288, 359)
    assert built.shape == (1, 28, 28)
    assert built.classes == tuple("0123456789")
    assert build.data(compose()).train is built.train  # read once


def test_an_image_folder(compose: Compose, tmp_path: Path) -> None:
    root = tmp_path / "images"
    pixels = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(pixels.integers(0, 256, (20, 30, 3), np.uint8))
            image.save(root / name / f"{number}.png")
    grey = build.data(compose("data=image_folder", f"data.root={root}"))
    assert grey.shape == (1, 28, 28)
    assert grey.classes == ("cat", "dog")
    assert (len(grey.train), len(grey.val), len(grey.test)) == (13, 3, 4)
    options = ["data.channels=3", "data.size=12", "data.val_size=0", "data.test_size=2"]
    rgb = build.data(compose("data=image_folder", f"data.root={root}", *options))
    assert rgb.shape == (3, 12, 12)
    assert (len(rgb.train), len(rgb.val), len(rgb.test)) == (18, 0, 2)


def test_each_common_option_of_data_counts(compose: Compose) -> None:
    plain = build.data(compose())
    sized = build.data(compose("data.val_size=100", "data.test_size=0.1"))
    assert (len(sized.train), len(sized.val), len(sized.test)) == (1517, 100, 180)
    assert len(build.data(compose("data.limit=50")).train) == 50
    assert not torch.equal(build.data(compose("data.val_seed=1")).val.inputs, plain.val.inputs)
    set_here = build.data(compose("data.mean=0.25", "data.std=[0.5]"))
    assert (set_here.mean, set_here.std) == ((0.25,), (0.5,))
    assert plain.mean[0] == pytest.approx(plain.train.inputs.double().mean().item() / 255)
    augmented = build.data(compose("data.augment.shift=2", "data.augment.rotate=10"))
    assert augmented.augment == Augment(shift=2, rotate=10)
    assert augmented.train is plain.train


# Models


def outline(model: nn.Module) -> list[str]:
    """Each layer in a word or a few."""
    lines = []
    for layer in model.children():
        if isinstance(layer, nn.Conv2d):
            (kernel, _), (padding, _) = layer.kernel_size, layer.padding
            assert (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
            lines.append(f"conv {layer.in_channels}-{layer.out_channels} k{kernel} p{padding}")
        elif isinstance(layer, nn.Linear):
            lines.append(f"linear {layer.in_features}-{layer.out_features}")
        elif isinstance(layer, nn.MaxPool2d):
            assert layer.kernel_size == layer.stride == 2
            lines.append("pool")
        elif isinstance(layer, nn.Dropout2d | nn.Dropout):
            lines.append(f"{type(layer).__name__} {layer.p}")
        elif not isinstance(layer, nn.Flatten | nn.Identity):
            lines.append(type(layer).__name__)
    return lines


# Pooling stands before ReLU, which changes nothing but time (tests/test_models.py).
OUTLINES = {
    "lenet_no_relu": [
        *("conv 1-16 k5 p2", "pool", "conv 16-32 k5 p2", "pool", "conv 32-64 k5 p2", "pool"),
        *("linear 576-64", "linear 64-10"),
    ],
    "bn_convnet": [
        *("conv 3-16 k5 p2", "BatchNorm2d", "pool", "ReLU"),
        *("conv 16-32 k5 p2", "BatchNorm2d", "pool", "ReLU"),
        "linear 1568-10",
    ],
    "fc_net": [
        *("linear 784-512", "ReLU", "linear 512-256", "ReLU", "linear 256-256", "ReLU"),
        *("linear 256-128", "ReLU", "linear 128-64", "ReLU", "linear 64-10"),
    ],
    "dropout_convnet": [
        *("conv 1-32 k3 p0", "ReLU", "conv 32-64 k3 p0", "pool", "ReLU", "Dropout2d 0.25"),
        *("linear 9216-128", "ReLU", "linear 128-10"),
    ],
    "two_conv": [
        *("conv 1-24 k3 p0", "pool", "ReLU", "conv 24-48 k3 p0", "pool", "ReLU"),
        *("linear 1200-200", "ReLU", "linear 200-10"),
    ],
    "cnn": [
        *("conv 1-32 k3 p1", "pool", "ReLU", "conv 32-64 k3 p1", "pool", "ReLU"),
        *("linear 3136-128", "ReLU", "linear 128-10"),
    ],
    "mlp": ["linear 784-256", "ReLU", "linear 256-128", "ReLU", "linear 128-10"],
}
OUTLINES["other"] = OUTLINES["mlp"]
# Worked out by hand from the layers; a convolution before a batch norm has no bias, the norm has one.
PARAMETERS = {
    "lenet_no_relu": 416 + 12_832 + 51_264 + 36_928 + 650,
    "bn_convnet": 1_200 + 32 + 12_800 + 64 + 15_690,
    "fc_net": 401_920 + 131_328 + 65_792 + 32_896 + 8_256 + 650,
    "dropout_convnet": 320 + 18_496 + 1_179_776 + 1_290,
    "two_conv": 240 + 10_416 + 240_200 + 2_010,
    "cnn": 320 + 18_496 + 401_536 + 1_290,
    "mlp": 200_960 + 32_896 + 1_290,
    "other": 200_960 + 32_896 + 1_290,
}


def channels(choice: str) -> int:
    return 3 if choice == "bn_convnet" else 1


@pytest.mark.parametrize("choice", OUTLINES)
def test_each_model_has_its_layers_and_parameters(choice: str, compose: Compose) -> None:
    cfg = compose(f"model={choice}", *GIVEN.get(f"model={choice}", []))
    model = build.model(cfg, (channels(choice), 28, 28), 10)
    assert isinstance(model, MLP if cfg.model._target_.endswith("MLP") else CNN)
    assert outline(model) == OUTLINES[choice]
    assert sum(weight.numel() for weight in model.parameters()) == PARAMETERS[choice]


def test_model_options_from_the_command_line(compose: Compose) -> None:
    options = ["widths=[8]", "kernel=5", "padding=0", "norm=batch", "activation=gelu", "pool=last"]
    options += ["dropout=0.1", "hidden=[20,30]"]
    cfg = compose("model=cnn", *(f"model.{option}" for option in options))
    assert outline(build.model(cfg, (3, 20, 24), 5)) == [
        *("conv 3-8 k5 p0", "BatchNorm2d", "GELU", "pool", "Dropout2d 0.1"),
        *("linear 640-20", "GELU", "linear 20-30", "GELU", "linear 30-5"),
    ]
    options = ["widths=[6,5]", "norm=batch", "activation=tanh", "dropout=0.2"]
    cfg = compose("model=mlp", *(f"model.{option}" for option in options))
    assert outline(build.model(cfg, (1, 4, 3), 2)) == [
        *("linear 12-6", "BatchNorm1d", "Tanh", "Dropout 0.2"),
        *("linear 6-5", "BatchNorm1d", "Tanh", "Dropout 0.2", "linear 5-2"),
    ]


# Losses


def test_each_loss(compose: Compose) -> None:
    entropy = build.loss(compose("loss=cross_entropy", "loss.label_smoothing=0.1"))
    assert isinstance(entropy, nn.CrossEntropyLoss)
    assert entropy.label_smoothing == 0.1
    logits, labels = torch.tensor([[2.0, 1.0]]), torch.tensor([0])
    log = math.log(1 + math.exp(-1))  # -log softmax of the first; of the second it is one more
    assert entropy(logits, labels).item() == pytest.approx(0.95 * log + 0.05 * (log + 1))
    assert isinstance(build.loss(compose("loss=mse_one_hot")), MSEOneHot)


# Optimizers

CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "other": torch.optim.RAdam,
}
OTHER_VALUES = {
    "lr": 0.0123,
    "betas": [0.8, 0.95],
    "eps": 1e-6,
    "weight_decay": 0.02,
    "momentum": 0.7,
    "nesterov": True,
    "alpha": 0.91,
    "lr_decay": 0.03,
}


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("choice", CLASSES)
def test_each_optimizer_is_torchs_own_with_all_its_options(
    choice: str, compose: Compose, network: nn.Module
) -> None:
    base = [f"optimizer={choice}", *GIVEN.get(f"optimizer={choice}", [])]
    given = resolved(compose(*base))["optimizer"]
    options = {
        key: value for key, value in given.items() if key not in ("_target_", "decay_norms_and_biases")
    }
    others = {key: OTHER_VALUES[key] for key in options}
    assert all(others[key] != value for key, value in options.items())
    changes = [f"optimizer.{key}={value}" for key, value in others.items()]
    for overrides, expected in ((base, options), (base + changes, others)):
        built = build.optimizer(compose(*overrides), network)
        assert type(built) is CLASSES[choice]
        (group,) = built.param_groups
        assert group["params"] == list(network.parameters())
        for key, value in expected.items():
            assert (list(group[key]) if key == "betas" else group[key]) == value, key


def test_the_fused_form_is_taken_where_there_is_one_and_not_asked_otherwise(
    compose: Compose, network: nn.Module
) -> None:
    assert build.optimizer(compose("optimizer=adam"), network).param_groups[0]["fused"] is True
    assert build.optimizer(compose("+optimizer.fused=false"), network).param_groups[0]["fused"] is False
    assert build.optimizer(compose("+optimizer.foreach=true"), network).param_groups[0]["foreach"] is True
    assert "fused" not in build.optimizer(compose("optimizer=rmsprop"), network).param_groups[0]


REST = sorted(
    name
    for name in dir(torch.optim)
    if isinstance(kind := getattr(torch.optim, name), type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam", "Muon")
)


@pytest.mark.parametrize("name", REST)
def test_any_class_of_torch_optim_by_its_name(name: str, compose: Compose, network: nn.Module) -> None:
    cfg = compose("optimizer=other", f"optimizer._target_=torch.optim.{name}", "optimizer.lr=0.01")
    check(cfg)
    built = build.optimizer(cfg, network)
    assert type(built).__name__ == name
    before = network[1].weight.detach().clone()
    images = torch.randn(6, 4)

    def gradients() -> float:
        built.zero_grad()
        loss = network(images).square().sum()
        loss.backward()
        return loss.item()

    built.step(gradients)
    assert not torch.equal(network[1].weight, before)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer=other", "optimizer._target_=torch.optim.SparseAdam", "optimizer.lr=1"], "not supported"),
        (["optimizer=other", "optimizer._target_=torch.optim.Muun", "optimizer.lr=1"], "did you mean 'Muon'"),
        (["optimizer=other", "optimizer._target_=torch.optim.Optimizer", "optimizer.lr=1"], "an Optim"),
        (["optimizer=other", "optimizer._target_=torch.optim.lr_scheduler", "optimizer.lr=1"], "an Opt"),
        (
            ["+optimizer.beta=1"],
            "optimizer.beta: torch.optim.Adam has no such.*did you mean 'betas'.*amsgrad",
        ),
        (["+optimizer.fused=true", "+optimizer.foreach=true"], "optimizer .torch.optim.Adam.: "),
    ],
)
def test_optimizers_that_are_refused(
    overrides: list[str], message: str, compose: Compose, network: nn.Module
) -> None:
    cfg = compose(*overrides)
    check(cfg)
    with pytest.raises(ConfigError, match=message):
        build.optimizer(cfg, network)


# Schedulers: 4 epochs of 5 steps

EPOCHS, STEPS, LR = 4, 5, 0.4
TOTAL = EPOCHS * STEPS


def cosine(share: float, high: float, low: float) -> float:
    """From high at 0 to low at 1 along half a cosine."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(step: int, total: int, rise: float = 0.3) -> float:
    top = rise * total - 1
    if step <= top:
        return cosine(step / top, LR / 25, LR)
    return cosine((step - top) / (total - 1 - top), LR, LR / 25 / 1e4)


# The learning rate of a step, given the steps since warm-up and those that it leaves.
CURVES: dict[str, tuple[list[str], Callable[[int, int], float]]] = {
    "constant": ([], lambda _step, _total: LR),
    "constant for a time": (
        ["scheduler.factor=0.5", "scheduler.total_iters=1"],
        lambda step, _: LR / 2 if step < 5 else LR,
    ),
    "step": (["scheduler.step_size=1", "scheduler.gamma=0.5"], lambda step, _: LR * 0.5 ** (step // 5)),
    "step within an epoch": (["scheduler.step_size=0.4"], lambda step, _: LR * 0.1 ** (step // 2)),
    "cosine": ([], lambda step, total: cosine(step / total, LR, 0)),
    "cosine to a floor": (["scheduler.eta_min=0.1"], lambda step, total: cosine(step / total, LR, 0.1)),
    "cosine of two epochs": (["scheduler.T_max=2"], lambda step, _: cosine(step / 10, LR, 0)),
    "onecycle": ([], one_cycle),
    "onecycle half up": (["scheduler.pct_start=0.5"], lambda step, total: one_cycle(step, total, 0.5)),
    "onecycle beyond the end": (["scheduler.total_steps=6"], lambda step, _: one_cycle(step, 30)),
}


def rates(cfg: DictConfig, **changes: Any) -> list[float]:
    """The learning rate of each step, with these changes in `scheduler` and `trainer`."""
    cfg = OmegaConf.merge(cfg, changes)
    check(cfg)
    weight = nn.Linear(1, 1)
    optimizer = build.optimizer(cfg, weight)
    scheduler = build.scheduler(cfg, optimizer, STEPS)
    seen = []
    for _ in range(TOTAL):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return seen


def test_every_scheduler_has_a_curve_here() -> None:
    assert {name.split()[0] for name in CURVES} == set(choices("scheduler"))


@pytest.mark.parametrize("name", CURVES)
def test_learning_rates_of_a_whole_run(name: str, compose: Compose) -> None:
    overrides, curve = CURVES[name]
    choices = [f"scheduler={name.split()[0]}", f"trainer.epochs={EPOCHS}", "optimizer=sgd"]
    cfg = compose(*choices, f"optimizer.lr={LR}", *overrides)
    for warmup in (0, 0.4, 1):
        rise = round(warmup * STEPS)
        start = LR / 25 if name.startswith("onecycle") else LR
        expected = [start * (step + 1) / (rise + 1) for step in range(rise)]
        expected += [curve(step, TOTAL - rise) for step in range(TOTAL - rise)]
        seen = rates(cfg, scheduler={"warmup": warmup})
        assert seen == pytest.approx(expected, rel=1e-9, abs=1e-12), warmup
        # A pause moves no horizon.
        assert rates(cfg, scheduler={"warmup": warmup}, trainer={"stop_epoch": 1}) == seen


@pytest.mark.parametrize("choice", choices("scheduler"))
def test_warm_up_over_nearly_all_of_a_run_leaves_a_step(choice: str, compose: Compose) -> None:
    cfg = compose(f"scheduler={choice}", f"trainer.epochs={EPOCHS}")
    seen = rates(cfg, scheduler={"warmup": EPOCHS - 0.001})
    assert seen[:-1] == pytest.approx([seen[0] * (step + 1) for step in range(TOTAL - 1)])


def test_milestones_of_other_schedulers_count_epochs(compose: Compose) -> None:
    cfg = compose(f"trainer.epochs={EPOCHS}", "scheduler=step", "optimizer.lr=1")
    node = {"_target_": f"{SCHEDULERS}.MultiStepLR", "milestones": [1, 2.6], "gamma": 0.5, "warmup": 0}
    cfg.scheduler = OmegaConf.create(node)
    check(cfg)
    optimizer = build.optimizer(cfg, nn.Linear(1, 1))
    assert dict(build.scheduler(cfg, optimizer, STEPS).milestones) == {5: 1, 13: 1}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+scheduler.gama=1"], "scheduler.gama: .*StepLR has no such argument; did you mean 'gamma'"),
        (["scheduler._target_=torch.optim.lr_scheduler.Step"], "has no Step; did you mean 'StepLR'"),
        (["~scheduler.step_size", "~scheduler.gamma", "scheduler._target_=torch.optim.lr_scheduler.LambdaLR"],
         "scheduler .*LambdaLR.*lr_lambda"),
        (["~scheduler.step_size", "~scheduler.gamma", f"scheduler._target_={SCHEDULERS}.ReduceLROnPlateau"],
         "ReduceLROnPlateau: not supported"),
        (["scheduler=onecycle", "scheduler.pct_start=0.05"], "scheduler .*OneCycleLR.: .*zero"),
        (["scheduler=onecycle", "scheduler.cycle_momentum=true", "optimizer=adagrad"], "momentum"),
    ],
)  # fmt: skip
def test_schedulers_that_are_refused(overrides: list[str], message: str, compose: Compose) -> None:
    cfg = compose("scheduler=step", f"trainer.epochs={EPOCHS}", *overrides)
    check(cfg)
    with pytest.raises(ConfigError, match=message):
        build.scheduler(cfg, build.optimizer(cfg, nn.Linear(1, 1)), STEPS)


# Device and precision


def test_device_and_precision(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert build.device(compose("trainer.device=cpu")) == cpu
    assert build.precision(compose("trainer.precision=bf16"), cpu) == "bf16"
    assert build.precision(compose("trainer.precision=fp32"), cpu) == "fp32"
    machines = [
        ("Intel(R) Xeon(R) Platinum 8480", {"amx_bf16": True, "avx512_bf16": True}, "bf16"),
        ("Intel(R) Xeon(R) Platinum 8380H", {"amx_bf16": False, "avx512_bf16": True}, "fp32"),
        ("AMD EPYC 9354", {"amx_bf16": False, "avx512_bf16": True}, "bf16"),
        ("AMD EPYC 7763", {"amx_bf16": False, "avx512_bf16": False}, "fp32"),
        ("Neoverse-N1", {}, "fp32"),
    ]
    for cpu_name, does, expected in machines:
        known = {"cpu_name": cpu_name, **does}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert build.precision(compose("trainer=fast"), cpu) == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert build.device(compose("trainer.device=auto")) == cpu
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert build.device(compose("trainer.device=auto")) == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert build.device(compose("trainer.device=auto")) == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert build.device(compose("trainer.device=cuda")) == torch.device("cuda:0")
    assert build.device(compose("trainer.device=cuda:1")) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"trainer\.device=cuda:2: this machine has 2 CUDA devices"):
        build.device(compose("trainer.device=cuda:2"))


# What the configuration names and what it may not


@pytest.mark.parametrize(
    ("group", "node", "message"),
    [
        ("loss", {"_target_": "os.system"}, "_target_=os.system: is in Python.s standard library"),
        ("loss", {}, "_target_=null: must be the dotted name of a class"),
        (
            "loss",
            {"_target_": "torch.nn.NoLoss"},
            "loss._target_=torch.nn.NoLoss: torch.nn has no NoLoss; did you mean 'NLLLoss'",
        ),
        ("loss", {"_target_": "torch.nn.Parameter"}, "torch.nn.Parameter: must be a Module class"),
        (
            "model",
            {"_target_": "fairsweep.models.partial"},
            "model._target_=fairsweep.models.partial: must be a Module class",
        ),
        (
            "model",
            {"_target_": "fairsweep.models.nn"},
            "model._target_=fairsweep.models.nn: must be a Module class",
        ),
        ("model", {"_target_": "fairsweep.models.Shape"}, "fairsweep.models.Shape: must be a Module class"),
        (
            "model",
            {"_target_": "fairsweep.models.MONOTONE"},
            "fairsweep.models.MONOTONE: must be a Module class",
        ),
        ("model", {"_target_": "fairsweep.models.linear"}, "fairsweep.models.linear: must be a Module class"),
        ("data", {"_target_": "fairsweep.data.Path"}, "fairsweep.data.Path: must be a Module class"),
        ("data", {"_target_": "fairsweep.data.NDArray"}, "fairsweep.data.NDArray: must be a Module class"),
        (
            "scheduler",
            {"_target_": "torch.optim.lr_scheduler.Counter"},
            "lr_scheduler.Counter: must be a Module class",
        ),
        (
            "scheduler",
            {"_target_": "torch.optim.lr_scheduler.bisect_right"},
            "bisect_right: must be a Module class",
        ),
        (
            "loss",
            {"_target_": "torch.nn.Linear"},
            r"loss \(torch.nn.Linear\): needs the argument in_features; add \+loss.in_features=",
        ),
        ("loss", {"_target_": "torch.nn.L1Loss", "foo": 1}, "loss.foo: torch.nn.L1Loss has no such argument"),
    ],
)
def test_what_is_not_allowed_is_not_made(group: str, node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build.construct(nn.Module, group, node)


def test_nothing_inside_a_node_is_made(tmp_path: Path) -> None:
    inner = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    for value in (inner, [inner], {"deep": [inner]}):
        node = {"_target_": "torch.nn.CrossEntropyLoss", "reduction": value}
        build.construct(nn.Module, "loss", node)
    assert not (tmp_path / "made").exists()


# Recipes: shared facts of the five tutorials

MODELS_OF = {"two_conv_sgd": "two_conv", "two_conv_sgd_slow": "two_conv"}
# data, loss, optimizer, lr, momentum, batch size, epochs, mean and std of the normalisation, deterministic
RECIPES: dict[str, tuple[Any, ...]] = {
    "lenet_no_relu": ("mnist", "cross_entropy", "SGD", 0.03, 0.0, 64, 1, 0.0, 1.0, False),
    "bn_convnet": ("image_folder", "cross_entropy", "SGD", 0.01, 0.0, 32, 20, 0.0, 1.0, False),
    "fc_net": ("mnist", "mse_one_hot", "Adam", 1e-3, None, 512, 20, 0.0, 1.0, False),
    "dropout_convnet": ("mnist", "cross_entropy", "SGD", 0.01, 0.0, 32, 19, 0.0, 1.0, True),
    "two_conv": ("mnist", "cross_entropy", "Adam", 1e-3, None, 200, 5, 0.5, 0.5, False),
    "two_conv_sgd": ("mnist", "cross_entropy", "SGD", 0.1, 0.9, 200, 10, 0.5, 0.5, False),
    "two_conv_sgd_slow": ("mnist", "cross_entropy", "SGD", 0.001, 0.0, 200, 10, 0.5, 0.5, False),
}


def test_the_fastest_recipe_is_allowed(compose: Compose) -> None:
    cfg = compose("recipe=fastest_99", "data.root=set here")
    check(cfg)
    assert (cfg.trainer.epochs, cfg.model.norm, cfg.data.val_size) == (2, "batch", 0)


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_is_its_tutorial(name: str, compose: Compose) -> None:
    dataset, loss, optimizer, lr, momentum, batch_size, epochs, mean, std, deterministic = RECIPES[name]
    model = MODELS_OF.get(name, name)
    cfg = compose(f"recipe={name}", "data.root=set here")
    check(cfg)
    values, plain = resolved(cfg), resolved(compose(f"data={dataset}", "data.root=set here", f"loss={loss}"))
    assert values["data"] == plain["data"] | {"val_size": 0, "mean": mean, "std": std} | (
        {"channels": 3} if name == "bn_convnet" else {}
    )
    built = build.model(cfg, (channels(model), 28, 28), 10)
    assert outline(built) == OUTLINES[model]
    assert sum(weight.numel() for weight in built.parameters()) == PARAMETERS[model]

    assert values["loss"] == plain["loss"]
    made = build.optimizer(cfg, built)
    (group,) = made.param_groups
    assert type(made).__name__ == optimizer
    assert (group["lr"], group.get("momentum"), group["weight_decay"]) == (lr, momentum, 0.0)
    assert values["scheduler"] == plain["scheduler"]
    assert values["trainer"] == plain["trainer"] | {
        "epochs": epochs,
        "batch_size": batch_size,
        "deterministic": deterministic,
        "test_weights": "last",
        "test_each_epoch": True,
    }


def test_a_recipe_can_be_changed_from_the_command_line(compose: Compose) -> None:
    cfg = compose("recipe=two_conv", "data=digits", "optimizer=sgd", "optimizer.lr=0.3", "trainer.epochs=2")
    assert cfg.data.name == "digits"
    assert (cfg.optimizer.lr, cfg.trainer.epochs, cfg.trainer.batch_size) == (0.3, 2, 200)


def test_halves_of_a_cyclic_schedule_count_epochs(compose: Compose) -> None:
    cfg, optimizer = compose("trainer.epochs=4"), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    times = {"step_size_up": 1, "step_size_down": 2, "warmup": 0}
    node = {"_target_": f"{SCHEDULERS}.CyclicLR", "base_lr": 0.1, "max_lr": 1.0, "cycle_momentum": False}
    cfg.scheduler = {**node, **times}
    assert build.scheduler(cfg, optimizer, STEPS).total_size == 3 * STEPS
