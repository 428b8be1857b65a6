"""From configuration to objects. Only this module looks up the classes that a configuration names."""

import inspect
import json
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from fairsweep.config import CUTS, RULES, ConfigError, is_number, unknown
from fairsweep.models import Classifier, Shape
from fairsweep.training.dataset import Data, Source, prepare
from fairsweep.training.sources import fingerprint

T = TypeVar("T")

# CUDA has eight hardware queues by default, so that with more streams kernels wait for each other. It reads
# this when it first looks for devices, below.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

# Arguments of torch's schedulers that are times: epochs in the YAML, steps in torch.
TIMES = ("step_size", "total_iters", "T_max", "T_0", "total_steps", "milestones")
# Of these, the ones for which null means the end of the run.
HORIZONS = ("T_max", "total_steps")


def located(target: str) -> Any:
    """The object of a dotted name, without the three lines that Hydra prints if there is none."""
    logger = logging.getLogger("hydra.utils")
    before, logger.disabled = logger.disabled, True
    try:
        return hydra.utils.get_object(target)
    finally:
        logger.disabled = before


def construct(kind: type[T], group: str, node: dict[str, Any], *args: Any, **kwargs: Any) -> T:
    """Call the class or function that a group's `_target_` names with the group's other values.

    Raises:
        ConfigError: the target is not allowed, does not exist, rejects its arguments, or makes no `kind`.
    """
    target = node.get("_target_")
    rule = RULES[f"{group}._target_"]
    if not rule.holds(target):
        raise ConfigError(f"{group}._target_={json.dumps(target)}: must be {rule.allowed}")
    try:
        # Not by `instantiate`, which would also call targets inside the node, without a check.
        make = located(str(target))
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(f"{group}._target_={target}: no such class") from error
    if not inspect.isfunction(make) and not (inspect.isclass(make) and issubclass(make, kind)):
        # A module also has the names that it imports, which are not its own.
        home, own = str(target).rpartition(".")[0], str(getattr(make, "__module__", ""))
        is_own = callable(make) and f"{own}.".startswith(f"{home}.")
        raise ConfigError(
            f"{group}._target_={target}: " + (f"must make a {kind.__name__}" if is_own else "no such class")
        )
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    parameters = list(inspect.signature(make).parameters.values())[len(args) :]
    names = [parameter.name for parameter in parameters]
    for name in arguments:
        if name not in names and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            raise ConfigError(unknown(f"{group}.{name}", names, f"{target} has no such argument"))
    try:
        built = make(*args, **arguments, **kwargs)
    except ConfigError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise ConfigError(f"{group} ({target}): {error}") from error
    if not isinstance(built, kind):  # a function made something else
        raise ConfigError(f"{group}._target_={target}: must make a {kind.__name__}")
    return built


def plain(node: DictConfig) -> dict[str, Any]:
    """A group's resolved values: reading them one by one from a DictConfig is slow."""
    values = OmegaConf.to_container(node, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def device(cfg: DictConfig) -> torch.device:
    """The device that `trainer.device` names.

    Raises:
        ConfigError: this machine does not have it.
    """
    name = cfg.trainer.device
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(name)
    if chosen.type == "cuda":
        count = torch.cuda.device_count()
        if (chosen.index or 0) >= count:
            raise ConfigError(
                f"trainer.device={name}: this machine has {count} CUDA devices; use cpu or auto"
            )
        return torch.device("cuda", chosen.index or 0)
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"trainer.device={name}: not available on this machine; use cpu or auto")
    return chosen


def precision(cfg: DictConfig, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` is bf16 if the hardware supports it natively."""
    if cfg.trainer.precision != "auto":
        return str(cfg.trainer.precision)
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = False
    return "bf16" if native else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Forward passes inside are in this precision."""
    if precision != "bf16":
        return nullcontext()
    # What is cached outside of a CUDA graph would be missing inside.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=device.type != "cuda")


def data(cfg: DictConfig, device: torch.device | None = None) -> Data:
    """The data set of `cfg.data`, read and checked once per process, resident on the device."""
    node = plain(cfg.data)
    augment = node.pop("augment")
    return resident(json.dumps(node, sort_keys=True), device or torch.device("cpu")).augmented(**augment)


@lru_cache(maxsize=8)
def resident(text: str, device: torch.device) -> Data:
    if device.type != "cpu":
        return resident(text, torch.device("cpu")).to(device)
    values = json.loads(text)
    cuts = {key: values.pop(key) for key in CUTS if key in values}
    found, content = source(json.dumps(values, sort_keys=True))
    source.cache_clear()  # cached since the run was identified, and not needed again
    return prepare(source=found, fingerprint=content, **cuts)


@lru_cache(maxsize=1)
def source(text: str) -> tuple[Source, str]:
    """A data set as read, and the hash of its content."""
    values = json.loads(text)
    known = fingerprint(values)  # before reading, so that a change meanwhile is noticed
    found = construct(Source, "data", values)
    found.check()
    return found, known or fingerprint(values) or found.hash()


def content(text: str) -> str:
    """The hash of a data set that must be read to be hashed.

    Args:
        text: its configuration as JSON, without cuts.
    """
    return source(text)[1]


def model(cfg: DictConfig, shape: Shape, classes: int) -> nn.Module:
    """The model for images of this shape, initialised from torch's global generator."""
    node = plain(cfg.model)
    node.pop("name", None)
    return construct(nn.Module, "model", node, shape, classes)


def classifier(cfg: DictConfig, facts: dict[str, Any], weights: dict[str, Tensor]) -> Classifier:
    """A recorded run's model with its weights, on the CPU, ready to classify pixel values.

    Args:
        facts: `Data.facts()` of the data that it was trained on.
    """
    network = model(cfg, tuple(facts["shape"]), len(facts["classes"]))
    network.load_state_dict(weights)
    return Classifier(network, facts["mean"], facts["std"]).eval()


def loss(cfg: DictConfig) -> nn.Module:
    """The loss. Its arguments that are lists, such as class weights, become tensors.

    Raises:
        ConfigError: it has parameters, which no optimizer would train.
    """
    node = plain(cfg.loss)
    for key, value in node.items():
        if isinstance(value, list) and all(map(is_number, value)):
            node[key] = torch.tensor(value, dtype=torch.float32)
    built = construct(nn.Module, "loss", node)
    if any(parameter.requires_grad for parameter in built.parameters()):
        raise ConfigError(
            f"loss._target_={cfg.loss._target_}: has parameters of its own, which no optimizer trains; "
            "use a loss without parameters, or make them part of the model"
        )
    return built


def optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """torch's own optimizer, fused if it can be, which is several times faster on small models.

    On CUDA it is capturable if it can be, so that no step waits for the device.
    """
    node = plain(cfg.optimizer)
    name = str(node["_target_"]).rsplit(".", 1)[-1]
    kind = getattr(torch.optim, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, Optimizer) and kind is not Optimizer):
        raise ConfigError(f"optimizer._target_=torch.optim.{name}: torch.optim has no such optimizer")
    if name == "SparseAdam":
        raise ConfigError(
            "optimizer._target_=torch.optim.SparseAdam: not supported, it needs sparse gradients; "
            "use another optimizer"
        )
    arguments = inspect.signature(kind).parameters
    if "fused" in arguments and not {"fused", "foreach"} & node.keys():
        node["fused"] = True
    if "capturable" in arguments and any(one.is_cuda for one in model.parameters()):
        node.setdefault("capturable", True)
    return construct(Optimizer, "optimizer", node, model.parameters())


def scheduler(cfg: DictConfig, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """torch's own scheduler, to be stepped once per batch, after an optional linear warm-up."""
    node = plain(cfg.scheduler)
    steps = cfg.trainer.epochs * steps_per_epoch
    warmup = min(round(node.pop("warmup") * steps_per_epoch), steps - 1)
    rest = steps - warmup
    for name in TIMES:
        if name in HORIZONS and node.get(name, 0) is None:
            node[name] = rest
        elif isinstance(node.get(name), list):
            node[name] = [round(epochs * steps_per_epoch) for epochs in node[name]]
        elif node.get(name):  # a time above 0 is at least one step
            node[name] = max(1, round(node[name] * steps_per_epoch))
    main = construct(LRScheduler, "scheduler", node, optimizer)
    if isinstance(main, ReduceLROnPlateau):
        raise ConfigError(
            f"scheduler._target_={cfg.scheduler._target_}: not supported, it needs validation at each step; "
            "use another scheduler"
        )
    if not warmup:
        return main
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    return SequentialLR(optimizer, [rise, main], milestones=[warmup])
