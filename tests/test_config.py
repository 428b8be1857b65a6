"""What a configuration may say, key by key, and which of it names the run."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fairsweep.config import (
    NOT_IN_SIGNATURE,
    REQUIRED,
    ROOT,
    RULES,
    ConfigError,
    check,
    leaves,
    resolved,
    signature,
    without_credentials,
)

NAN, INF = float("nan"), float("inf")

# For each key: values that are allowed, and values that are refused.
NUMBER_ABOVE_ZERO = ([1e-9, 1, 30.5], [0, -0.1, NAN, INF, "abc", True, None, [1]])
NOT_NEGATIVE = ([0, 0.0, 1e-4, 3], [-1e-9, NAN, INF, "x", False, None])
BELOW_ONE = ([0, 0.0, 0.999], [1, -0.1, NAN, "0.5x", True, None])
COUNT = ([1, 500], [0, -1, 1.5, NAN, "many", True, None])
COUNT_OR_NULL = ([None, 1, 500], [0, -1, 1.5, "many", True])
COUNT_FROM_ZERO = ([0, 7], [-1, 0.5, "x", True, None])
SWITCH = ([True, False], [0, 1, "yes", None])
NAME = (["x", "some/where"], ["", 3, None, True])
WIDTHS = ([[], [1], [32, 64, 128]], [[0], [-3], [1.5], 32, "32", None, [None], [[32]]])
SHARE_OR_COUNT = ([0, 0.1, 0.999, 1, 5000], [-1, -0.1, 1.0, 1.5, 2.0, NAN, INF, "x", True, None])
STATISTIC = ([None, 0.1307, 0, [0.5], [0.4, 0.5, 0.6]], [NAN, "x", True, [0.5, "x"], [[0.5]]])
TARGET = (["fairsweep.models.CNN", "mine.net.Net"], ["Net", "torch.", "a b.c", "1.x", "", None, 1])
EXAMPLES: dict[str, tuple[list[Any], list[Any]]] = {
    "seed": COUNT_FROM_ZERO,
    "objective": (["val_accuracy", "val_loss", "val_f1"], ["test_accuracy", "accuracy", "", None, 1]),
    "judge": ([None, "test_accuracy", "test_mae"], ["val_accuracy", "", 1]),
    "rerun": SWITCH,
    "reuse": (["same", "any"], ["all", None, True]),
    "record.dir": (NAME[0], [*NAME[1], __file__, f"{__file__}/below"]),
    "record.pictures": (["auto", "all", "none"], ["some", None, True]),
    "record.keep": (["auto", "weights", "all", "none"], ["best", None, 1]),
    "data._target_": TARGET,
    "data.name": (["x", "x y"], [*NAME[1], "some/where", "a\\b", "a\x1b"]),
    "data.root": NAME,
    "data.dataset": (["MNIST", "FashionMNIST", "KMNIST"], ["EMNIST", "mnist", None]),
    "data.split": (["balanced", "letters"], ["all", None, 1]),
    "data.channels": ([1, 3], [0, 2, 4, 1.0, True, "rgb"]),
    "data.size": COUNT,
    "data.val_size": SHARE_OR_COUNT,
    "data.test_size": SHARE_OR_COUNT,
    "data.val_seed": COUNT_FROM_ZERO,
    "data.limit": COUNT_OR_NULL,
    "data.mean": STATISTIC,
    "data.std": ([*STATISTIC[0][:2], [0.5], [0.1, 0.2, 0.3]], [*STATISTIC[1], 0, -1, [0.5, 0]]),
    "data.file": NAME,
    "data.targets_file": ([None, *NAME[0]], ["", 3, True]),
    "data.test_file": ([None, *NAME[0]], ["", 3, True]),
    "data.test_targets_file": ([None, *NAME[0]], ["", 3, True]),
    "data.inputs": ([None, "x", ["a", "b"]], ["", 3, [1]]),
    "data.target": ([None, "y", ["a", "b"]], ["", 3, [1]]),
    "data.task": (["auto", "classification", "regression"], ["numbers", None, 1]),
    "data.standardize": SWITCH,
    "data.augment.shift": COUNT_FROM_ZERO,
    "data.augment.rotate": NOT_NEGATIVE,
    "data.augment.flip": SWITCH,
    "data.augment.crop": COUNT_FROM_ZERO,
    "data.augment.cutout": COUNT_FROM_ZERO,
    "model._target_": TARGET,
    "model.name": NAME,
    "model.widths": WIDTHS,
    "model.hidden": WIDTHS,
    "model.kernel": COUNT,
    "model.padding": COUNT_FROM_ZERO,
    "model.norm": (["none", "batch"], ["layer", None, True]),
    "model.activation": (["none", "relu", "tanh", "gelu"], ["elu", None, 1]),
    "model.pool": (["each", "last"], ["none", None]),
    "model.dropout": BELOW_ONE,
    "loss._target_": TARGET,
    "loss.label_smoothing": ([*BELOW_ONE[0], None], BELOW_ONE[1][:-1]),
    "loss.reduction": (["mean"], ["sum", "none", None]),
    "optimizer._target_": TARGET,
    "optimizer.lr": NUMBER_ABOVE_ZERO,
    "optimizer.decay_norms_and_biases": SWITCH,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.nesterov": ([False], SWITCH[1]),
    "optimizer.betas": (
        [[0.9, 0.999], [0, 0], [0.9, 0.9, 0.99]],
        [[0.9], [0.9, 1.0], [0.9, 0.9, 0.9, 0.9], [-0.1, 0.9], 0.9, "x", [0.9, NAN], None],
    ),
    "optimizer.eps": NOT_NEGATIVE,
    "optimizer.alpha": BELOW_ONE,
    "optimizer.lr_decay": NOT_NEGATIVE,
    "scheduler._target_": TARGET,
    "scheduler.warmup": ([0, 0.5, 9], NOT_NEGATIVE[1]),
    "scheduler.factor": NUMBER_ABOVE_ZERO,
    "scheduler.total_iters": NOT_NEGATIVE,
    "scheduler.step_size": NUMBER_ABOVE_ZERO,
    "scheduler.gamma": NUMBER_ABOVE_ZERO,
    "scheduler.T_max": ([None, 0.5, 10], [0, -1, NAN, "x", True]),
    "scheduler.eta_min": NOT_NEGATIVE,
    "scheduler.max_lr": NUMBER_ABOVE_ZERO,
    "scheduler.total_steps": ([None, 10, 20.5], [0, -1, NAN, "x", True]),
    "scheduler.pct_start": BELOW_ONE,
    "scheduler.div_factor": NUMBER_ABOVE_ZERO,
    "scheduler.final_div_factor": NUMBER_ABOVE_ZERO,
    "scheduler.cycle_momentum": SWITCH,
    "trainer.epochs": COUNT,
    "trainer.batch_size": COUNT,
    "trainer.device": (
        ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"],
        ["tpu", "gpu", "cuda:", "cuda:x", "cpu:0", "CUDA", "", None, 0],
    ),
    "trainer.precision": (["fp32", "bf16", "auto"], ["fp16", "float32", None, 32]),
    "trainer.threads": COUNT_OR_NULL,
    "trainer.deterministic": SWITCH,
    "trainer.cuda_graphs": SWITCH,
    "trainer.data_on": (["auto", "device", "host", "disk"], ["cuda", "ram", None, True]),
    "trainer.clip_norm": ([None, 0.1, 5], [0, -1, NAN, "x", True]),
    "trainer.patience": COUNT_OR_NULL,
    "trainer.max_seconds": ([None, 0.5, 60], [0, -1, INF, "x", True]),
    "trainer.log_every": COUNT,
    "trainer.weights": ([None, "latest", "a/file.pt"], ["", 3, True]),
    "trainer.stop_epoch": ([None, 1, 10], [0, -1, 1.5, "x", True]),
    "trainer.test_weights": (["best", "last"], ["worst", None]),
    "trainer.test_each_epoch": SWITCH,
    "tracking.uri": ([None, "sqlite:///x.db", "http://localhost:5000"], ["", 5000, True]),
    "tracking.experiment": NAME,
    "tracking.log_model": (["auto", "all", "none"], ["yes", None, True]),
    "tracking.register": ([None, "digits"], ["", 1, "a/b", "a:b"]),
    "tracking.tensorboard": SWITCH,
}


@pytest.fixture(scope="module")
def base() -> DictConfig:
    """The configuration without any override; take a copy before changing it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra_compose("train")


@pytest.fixture
def configured(base: DictConfig) -> Callable[..., DictConfig]:
    """The configuration with these values in it, as an override, or one with a plus sign, would put them."""

    def changed(values: dict[str, Any]) -> DictConfig:
        cfg = base.copy()
        for key, value in values.items():
            OmegaConf.update(cfg, key, value, force_add=True)
        return cfg

    return changed


def test_every_rule_has_examples_here() -> None:
    assert set(EXAMPLES) == set(RULES)
    assert all(allowed and refused for allowed, refused in EXAMPLES.values())


def without_reading(key: str) -> dict[str, Any]:
    """A user's function would be called to know the task, unless the configuration says it."""
    return {"data.task": "classification"} if key == "data._target_" else {}


@pytest.mark.parametrize("key", EXAMPLES)
def test_allowed_values_pass(key: str, configured: Callable[..., DictConfig]) -> None:
    for value in EXAMPLES[key][0]:
        check(configured({key: value} | without_reading(key)))


@pytest.mark.parametrize("key", EXAMPLES)
def test_refused_values_are_told_with_key_value_and_what_is_allowed(
    key: str, configured: Callable[..., DictConfig]
) -> None:
    for value in EXAMPLES[key][1]:
        with pytest.raises(ConfigError) as caught:
            check(configured({key: value} | without_reading(key)))
        assert str(caught.value) == f"{key}={json.dumps(value)}: must be {RULES[key].allowed}"


@pytest.mark.parametrize(
    ("group", "values"),
    [
        ("model", {"norm": "layer", "widths": 64, "kernel": [3, 5]}),
        ("data", {"channels": 4, "split": "mine", "size": 0.5, "root": None}),
        ("loss", {"reduction": "none", "label_smoothing": 2}),
        ("optimizer", {"momentum": 1.5, "betas": 0.9}),
        ("scheduler", {"gamma": -1, "T_max": [3]}),
    ],
)
def test_arguments_of_a_users_own_target_may_be_anything(
    group: str, values: dict[str, Any], configured: Callable[..., DictConfig]
) -> None:
    own = {f"{group}.{name}": value for name, value in values.items()}
    task = {"data.task": "classification"}  # else the data would be read to know it
    check(configured({f"{group}._target_": "mine.parts.Part", **own, **task}))
    with pytest.raises(ConfigError):
        check(configured(own))


def test_what_is_allowed_is_told_in_words() -> None:
    assert RULES["optimizer.lr"].allowed == "a number above 0"
    assert RULES["optimizer.momentum"].allowed == "a number from 0 up to, but not including, 1"
    assert RULES["trainer.batch_size"].allowed == "a whole number, 1 or more"
    assert RULES["trainer.stop_epoch"].allowed == "a whole number, 1 or more, or null"
    assert RULES["trainer.device"].allowed == "auto | cuda | cuda:N | mps | cpu"
    assert "below 1" in RULES["data.val_size"].allowed
    assert RULES["model.widths"].allowed == "a list of values, each a whole number, 1 or more"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.nesterov": True, "optimizer.momentum": 0.0}, "needs optimizer.momentum above 0"),
        ({"optimizer.nesterov": True}, "needs optimizer.momentum above 0"),
        ({"trainer.epochs": 3, "trainer.stop_epoch": 4}, "trainer.stop_epoch=4: must be at most .*epochs=3"),
        ({"trainer.epochs": 3, "scheduler.warmup": 3}, "scheduler.warmup=3: must be below .*epochs=3"),
        ({"scheduler.total_steps": 9}, "scheduler.total_steps=9: must be at least .* = 10"),
        ({"data.val_size": 0, "trainer.patience": 2}, "trainer.patience=2: .*needs validation"),
        ({"foo": 1}, "^foo: unknown key .allowed: data, "),
        ({"trainer.epoch": 1}, "trainer.epoch: unknown key; did you mean 'epochs'.*allowed: batch_size"),
        ({"trainer.a.b": 1}, "trainer.a: unknown key"),
        ({"data.augment.shfit": 1}, "data.augment.shfit: unknown key; did you mean 'shift'"),
        ({"data.limits": 1}, "data.limits: unknown key; did you mean 'limit'"),
        ({"trainer": 3}, "trainer: must have keys of its own"),
        ({"optimizer.lr": {"a": 1}}, "optimizer.lr: must be a number above 0"),
        ({"optimizer._args_": [1]}, "optimizer._args_: unknown key"),
        ({"optimizer._recursive_": True}, "optimizer._recursive_: unknown key"),
        ({"optimizer.x": {"_target_": "os.system"}}, 'optimizer: has an inner _target_="os.system"'),
        ({"loss.x": [{"_target_": "os.system"}]}, 'loss: has an inner _target_="os.system"'),
        ({"model.x": [[{"y": {"_target_": "a"}}]]}, 'model: has an inner _target_="a"'),
        ({"trainer.epochs": "${nowhere}"}, "trainer.epochs: .*nowhere"),
        ({"trainer.epochs": "???"}, "trainer.epochs: .*give it a value"),
    ],
)
def test_values_that_do_not_go_together_or_are_unknown(
    values: dict[str, Any], message: str, configured: Callable[..., DictConfig]
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(configured(values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"optimizer.nesterov": True, "optimizer.momentum": 0.9},
        {"trainer.epochs": 3, "trainer.stop_epoch": 3},
        {"trainer.epochs": 3, "scheduler.warmup": 2.9},
        {"scheduler.total_steps": 8, "scheduler.warmup": 2},
        {"data.val_size": 0, "trainer.patience": None},
        {"optimizer.dampening": 0.1, "model.something": [1, {"a": 2}]},
    ],
)
def test_values_that_go_together(values: dict[str, Any], configured: Callable[..., DictConfig]) -> None:
    check(configured(values))


@pytest.mark.parametrize("key", REQUIRED)
def test_a_key_that_was_taken_out_is_missed(key: str, base: DictConfig) -> None:
    cfg = base.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.tracking.uri = None  # by default it is made out of record.dir
    parent, _, name = key.rpartition(".")
    del (OmegaConf.select(cfg, parent) if parent else cfg)[name]
    with pytest.raises(ConfigError, match=f"^{key}: is missing: must be "):
        check(cfg)


# The signature


def name_of(cfg: DictConfig, content: str = "content") -> str:
    return signature(resolved(cfg), content)


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    items = value if isinstance(value, list) else []
    return {str: f"{value}x", list: [*items, 1], type(None): 7, dict: {"f1": {}}}[type(value)]


def test_a_run_is_named_by_all_that_can_change_its_result_and_by_nothing_else(
    base: DictConfig, configured: Callable[..., DictConfig]
) -> None:
    free = [
        *("rerun", "reuse", "data.root"),
        *("data.file", "data.targets_file", "data.test_file", "data.test_targets_file"),
        *("trainer.device", "trainer.threads", "trainer.log_every", "trainer.stop_epoch"),
        *("trainer.cuda_graphs", "trainer.data_on"),
        *(key for key in leaves(resolved(base)) if key.split(".")[0] in ("record", "tracking")),
    ]
    assert set(NOT_IN_SIGNATURE) == {
        *(key for key in free if key.split(".")[0] not in ("record", "tracking")),
        *("record", "tracking", "trainer.weights"),
    }
    name = name_of(base)
    assert len(name) == 16
    assert name[0] in "abcdef"  # not a number, wherever it is typed
    assert int(name, 16)
    for key, value in ({"data.root": "a"} | leaves(resolved(base))).items():
        if key == "trainer.weights":
            continue
        changed = name_of(configured({key: other(value)}))
        assert (changed == name) == (key in free), key


def test_starting_weights_count_by_their_content(
    tmp_path: Path, configured: Callable[..., DictConfig]
) -> None:
    first, copy, second = (tmp_path / name for name in "abc")
    first.write_bytes(b"1")
    copy.write_bytes(b"1")
    second.write_bytes(b"2")
    names = [name_of(configured({"trainer.weights": str(path)})) for path in (first, copy, second)]
    assert names[0] == names[1] != names[2]
    assert name_of(configured({})) not in names


def test_data_count_by_their_content(base: DictConfig) -> None:
    assert name_of(base, "one") != name_of(base, "other")


def test_the_order_of_keys_does_not_matter(base: DictConfig) -> None:
    def backwards(node: Any) -> Any:
        return {k: backwards(node[k]) for k in reversed(node)} if isinstance(node, dict) else node

    values = resolved(base)
    turned = backwards(values)
    assert list(turned) != list(values)
    assert name_of(OmegaConf.create(turned)) == name_of(base)


def test_an_interpolation_counts_by_its_value(configured: Callable[..., DictConfig]) -> None:
    first = configured({"scheduler.max_lr": "${optimizer.lr}", "optimizer.lr": 0.1})
    second = configured({"scheduler.max_lr": 0.1, "optimizer.lr": 0.1})
    assert name_of(first) == name_of(second)


def test_a_run_has_the_same_name_in_every_process(base: DictConfig) -> None:
    code = (
        "import json, sys; sys.path.insert(0, 'src'); from fairsweep.config import signature; "
        "print(signature(json.load(sys.stdin), 'content'))"
    )
    for seed in ("1", "2"):
        child = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(resolved(base)),
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert child.stdout.strip() == name_of(base)


def test_credentials_are_taken_out_of_text() -> None:
    text = "a http://me:secret@host:5000/x?y=1 sqlite:////a/b@c.db"
    assert without_credentials(text) == "a http://host:5000/x?y=1 sqlite:////a/b@c.db"
