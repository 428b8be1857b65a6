"""From configuration to objects. Only this module looks up the classes that a configuration names."""

import inspect
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, Union, get_origin, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from fairsweep.config import CUTS, TARGET, ConfigError, is_number, nearest, unknown
from fairsweep.models import Classifier, Predictor, Regressor, Shape
from fairsweep.training import own_data
from fairsweep.training.dataset import Data, prepare
from fairsweep.training.source import Source
from fairsweep.training.sources import fingerprint
from fairsweep.training.targets import module_of

T = TypeVar("T")

# CUDA has eight hardware queues by default, so that with more streams kernels wait for each other. It reads
# this when it first looks for devices, below.
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# Arguments of torch's schedulers that are times: epochs in the YAML, steps in torch.
TIMES = (
    *("step_size", "step_size_up", "step_size_down", "total_iters", "T_max", "T_0", "total_steps"),
    "milestones",
)
# Of these, the ones for which null means the end of the run.
HORIZONS = ("T_max", "total_steps")


def located(key: str, target: str) -> Any:
    """The object of a dotted name; imports its module.

    Raises:
        ConfigError: there is none, or its module cannot be imported.
    """
    module = module_of(key, target)
    try:
        found = import_module(module)
        for name in target.removeprefix(f"{module}.").split("."):
            found = getattr(found, name)
    except AttributeError as error:
        if getattr(error, "obj", None) is not found:
            raise ConfigError(f"{key}={target}: {module} cannot be imported: {error}") from error
        public = [one for one in vars(found) if not one.startswith("_")]
        public += [one.name for one in iter_modules(getattr(found, "__path__", ()))]
        raise ConfigError(f"{key}={target}: {module} has no {name}{nearest(name, public)}") from error
    except Exception as error:  # of its own code
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{key}={target}: {module} cannot be imported: {reason}") from error
    return found


def makes(make: Any, kind: type) -> bool:
    """Whether something that a configuration names may be called to get a `kind`.

    A class must be one. A function may return anything where it does not say what, unless it is one of the
    standard library, which knows of no such kinds.
    """
    if inspect.isclass(make):
        return issubclass(make, kind) and make is not kind and not inspect.isabstract(make)
    if not inspect.isfunction(make) or make.__module__.partition(".")[0] in sys.stdlib_module_names:
        return False
    try:
        returned = get_type_hints(make).get("return", object)
    except Exception:  # names that its module imports for type checkers alone
        return True
    returned = returned if get_origin(returned) in (None, Union, UnionType) else get_origin(returned)
    return not inspect.isclass(returned) or issubclass(returned, kind) or issubclass(kind, returned)


def article(kind: type) -> str:
    """A type's name with its article."""
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def maker(kind: type[T], group: str, node: dict[str, Any]) -> Callable[..., T]:
    """The class or function that a group's `_target_` names, which makes a `kind`.

    Raises:
        ConfigError: there is none, or it cannot make one.
    """
    key, target = f"{group}._target_", node.get("_target_")
    if not TARGET.holds(target):
        raise ConfigError(f"{key}={json.dumps(target)}: must be {TARGET.allowed}")
    # Not by `instantiate`, which would also call targets inside the node, without a check.
    make: Callable[..., T] = located(key, str(target))
    if not makes(make, kind):
        what = (
            "class, or a function"
            if kind is object
            else f"{article(kind)} class, or a function that makes one"
        )
        raise ConfigError(f"{key}={target}: must be {'a ' * (kind is object)}{what}")
    return make


def construct(
    kind: type[T],
    group: str,
    node: dict[str, Any],
    *args: Any,
    offered: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    """Call the class or function that a group's `_target_` names with the group's other values.

    Args:
        offered: arguments for a target that has parameters of these names, unless the group sets them.

    Raises:
        ConfigError: the target is not allowed, does not exist, rejects its arguments, or makes no `kind`.
    """
    make, target = maker(kind, group, node), node["_target_"]
    arguments = {name: value for name, value in node.items() if name != "_target_"}
    parameters = list(inspect.signature(make).parameters.values())[len(args) :]
    names = [parameter.name for parameter in parameters if parameter.kind not in VARIADIC]
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    for name in arguments:
        if name not in names and not is_open:
            raise ConfigError(unknown(f"{group}.{name}", names, f"{target} has no such argument"))
    arguments = {name: value for name, value in offered.items() if name in names} | arguments
    for parameter in parameters:
        is_needed = parameter.default is parameter.empty and parameter.kind not in VARIADIC
        if is_needed and parameter.name not in arguments:
            raise ConfigError(
                f"{group} ({target}): needs the argument {parameter.name}; add +{group}.{parameter.name}=..."
            )
    try:
        built = make(*args, **arguments)
    except (ConfigError, MemoryError):
        raise
    except Exception as error:  # of a user's own code
        what = "" if isinstance(error, TypeError | ValueError | RuntimeError) else f"{type(error).__name__}: "
        raise ConfigError(f"{group} ({target}): {what}{error}") from error
    if not isinstance(built, kind):  # a function made something else
        raise ConfigError(
            f"{group}._target_={target}: must make {article(kind)}, made {article(type(built))}"
        )
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
    """`fp32` or `bf16`; `auto` is bf16 where the hardware is faster in it.

    Without AMX, Intel's bf16 instructions do no more work than those for fp32, and the conversions come on
    top (a step of ResNet-18: 1.4 times as long). AMD's do twice as much.
    """
    if cfg.trainer.precision != "auto":
        return str(cfg.trainer.precision)
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cpu":
        does = torch.cpu.get_capabilities()
        is_amd = str(does.get("cpu_name")).startswith("AMD")
        native = does.get("amx_bf16", False) or (is_amd and does.get("avx512_bf16", False))
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
    """The data set of `cfg.data`, read and checked once per process, kept where `trainer.data_on` says."""
    node = plain(cfg.data)
    augment = node.pop("augment")
    text, where = json.dumps(node, sort_keys=True), OmegaConf.select(cfg, "trainer.data_on", default="auto")
    if device is None or device.type == "cpu" or where in ("host", "disk"):
        return resident(text, where == "disk").augmented(**augment)
    return on_device(text, device, where == "device").augmented(**augment)


@lru_cache(maxsize=8)
def on_device(text: str, device: torch.device, always: bool) -> Data:
    """Data on a device, or on the host where they would take more than half of its free memory."""
    data = resident(text, False)
    size = sum(split.inputs.nbytes for split in (data.train, data.val, data.test))
    if not always and device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] / 2:
        return data
    return data.to(device)


@lru_cache(maxsize=8)
def resident(text: str, is_mapped: bool) -> Data:
    """Data on the host, in memory or in mapped files."""
    values = json.loads(text)
    cuts = {key: values.pop(key) for key in CUTS if key in values}
    found, content = source(json.dumps(values, sort_keys=True))
    source.cache_clear()  # cached since the run was identified, and not needed again
    data = prepare(source=found, fingerprint=content, **cuts)
    return data.on_disk() if is_mapped else data


@lru_cache(maxsize=1)
def source(text: str) -> tuple[Source, str]:
    """A data set as read, and the hash of its content."""
    values = json.loads(text)
    known = fingerprint(values)  # before reading, so that a change meanwhile is noticed
    found = read(values)
    found.check()
    return found, known or fingerprint(values) or found.hash()


def read(values: dict[str, Any]) -> Source:
    """The data set of our own, or whatever the user's function makes, as a `Source`."""
    if str(values["_target_"]).startswith("fairsweep."):
        return construct(Source, "data", values)
    task = values.pop("task", "auto")
    with own_data.as_if_alone():
        return own_data.as_source(construct(object, "data", values), task)


@lru_cache(maxsize=64)
def task_of(text: str) -> str:
    """What is learned from a data set that must be read to know; see `by_task`.

    Args:
        text: its configuration as JSON, without cuts.
    """
    return source(text)[0].task


def content(text: str) -> str:
    """The hash of a data set that must be read to be hashed.

    Args:
        text: its configuration as JSON, without cuts.
    """
    return source(text)[1]


def model(cfg: DictConfig, shape: Shape, classes: int) -> nn.Module:
    """The model for images of this shape, initialised from torch's global generator."""
    known = {"shape": shape, "channels": shape[0], "features": math.prod(shape), "classes": classes}
    node = filled(plain(cfg.model), known)
    node.pop("name", None)
    return construct(nn.Module, "model", node, offered={"shape": shape, "classes": classes})


def filled(node: Any, known: Mapping[str, Any]) -> Any:
    """A nested value in which the number stands for `${classes}`, and so on (see `config.OF_DATA`)."""
    if isinstance(node, dict):
        return {key: filled(value, known) for key, value in node.items()}
    if isinstance(node, list):
        return [filled(value, known) for value in node]
    found = re.fullmatch(r"\$\{(\w+)\}", node) if isinstance(node, str) else None
    return known[found[1]] if found else node


def predictor(cfg: DictConfig, facts: dict[str, Any], weights: dict[str, Tensor]) -> Predictor:
    """A recorded run's model with its weights, on the CPU, ready for inputs as they are stored.

    Args:
        facts: `Data.facts()` of the data that it was trained on.
    """
    shape, targets = tuple(facts["shape"]), facts.get("targets")
    network = model(cfg, shape, len(targets or facts["classes"]))
    network.load_state_dict(weights)
    form = facts["mean"], facts["std"], 255 if "dtype" not in facts else 1, len(shape) == 3
    if targets:
        return Regressor(network, *form, (facts["target_mean"], facts["target_std"])).eval()
    return Classifier(network, *form).eval()


def loss(cfg: DictConfig) -> nn.Module:
    """The loss. Its arguments that are lists, such as class weights, become tensors.

    Raises:
        ConfigError: it has parameters, which no optimizer would train.
    """
    node = plain(cfg.loss)
    for key, value in node.items():
        if isinstance(value, list) and all(map(is_number, value)):
            node[key] = torch.tensor(value, dtype=torch.float32)
    given = {key: value for key, value in node.items() if value is not None}
    built = construct(nn.Module, "loss", given)
    if any(parameter.requires_grad for parameter in built.parameters()):
        raise ConfigError(
            f"loss._target_={cfg.loss._target_}: has parameters of its own, which no optimizer trains; "
            "use a loss without parameters, or make them part of the model"
        )
    return built


def optimizer(cfg: DictConfig, model: nn.Module) -> Optimizer:
    """The optimizer; torch's own is fused if it can be, which is several times faster on small models.

    On CUDA it is capturable if it can be, so that no step waits for the device.

    Raises:
        ConfigError: it does not take this model's parameters, or not in groups.
    """
    node = plain(cfg.optimizer)
    target, decay_all = str(node["_target_"]), node.pop("decay_norms_and_biases", True)
    if target == "torch.optim.SparseAdam":
        raise ConfigError(
            "optimizer._target_=torch.optim.SparseAdam: not supported, it needs sparse gradients; "
            "use another optimizer"
        )
    parameters = inspect.signature(maker(Optimizer, "optimizer", node)).parameters
    if target.startswith("torch.optim.") and "fused" in parameters and not {"fused", "foreach"} & node.keys():
        node["fused"] = True
    if "capturable" in parameters and any(one.is_cuda for one in model.parameters()):
        node.setdefault("capturable", True)
    if "model" in parameters:
        if not decay_all:
            raise ConfigError(
                f"optimizer.decay_norms_and_biases=false: {target} groups the model's parameters itself; "
                "set its own arguments instead"
            )
        return construct(Optimizer, "optimizer", node, offered={"model": model})
    return construct(Optimizer, "optimizer", node, model.parameters() if decay_all else groups(model))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """The parameters in two groups: weight decay spares those of one dimension, norms and biases."""
    weights = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]


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
        elif is_number(node.get(name)) and node[name]:  # a time above 0 is at least one step
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
