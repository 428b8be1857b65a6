"""Own arrays and tables: what is learned of them, how they are scaled, and what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from recording import Recording
from rich.console import Console

from fairsweep.config import ConfigError, resolved
from fairsweep.runs import identity, session
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.training import build, tables
from fairsweep.training.capture import CapturedSteps
from fairsweep.training.dataset import float_statistics
from fairsweep.training.lane import WARM_UP, Lane
from fairsweep.training.loop import fit

Compose = Callable[..., DictConfig]

NAN = float("nan")
# Of inputs in very different units.
SCALES, WEIGHTS = np.array([1, 10, 100, 0.1]), np.array([3, 0.2, -0.01, 8])
LINEAR = ("model=mlp", "model.widths=[]", "optimizer.lr=0.05", "trainer.epochs=30", "record.pictures=none")


def problem(rows: int = 400, noise: float = 0.5) -> tuple[Any, Any]:
    """Features, and a linear function of them in a large unit with some noise."""
    random = np.random.default_rng(0)
    x = random.normal(5, SCALES, (rows, 4))
    return x, 1000 + 50 * ((x - 5) @ WEIGHTS + random.normal(0, noise, rows))


def write(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def numbers(tmp_path: Path) -> str:
    """An .npz of a linear regression problem."""
    x, y = problem()
    return write(tmp_path / "numbers.npz", x=x, y=y)


@pytest.fixture
def classes(tmp_path: Path) -> str:
    """An .npz of two classes, 3 and 7, that a line separates."""
    x, y = problem()
    return write(tmp_path / "classes.npz", inputs=x, targets=np.where(y > 1000, 7, 3))


def trained(cfg: DictConfig) -> RunFolder:
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    assert outcome.status.name == "finished", outcome.status.reason
    return outcome.folder


def test_a_linear_model_reaches_the_known_r2_of_a_linear_problem(numbers: str, compose: Compose) -> None:
    folder = trained(compose("data=arrays", f"data.file={numbers}", *LINEAR))
    status, last = folder.status(), folder.journal()[-1]
    # What is left is the noise: 0.5 * 50 in the target's unit.
    _, y = problem()
    assert last["test_rmse"] == pytest.approx(25, rel=0.2)
    assert last["test_r2"] == pytest.approx(1 - 25**2 / y.var(), abs=0.01)
    assert last["test_mae"] == pytest.approx(25 * (2 / np.pi) ** 0.5, rel=0.25)
    assert status.selected.name == "rmse"
    assert not any("accuracy" in key for line in folder.journal() for key in line)


def test_the_loss_is_of_standardised_targets_and_metrics_are_in_their_unit(
    numbers: str, compose: Compose
) -> None:
    lane = Lane(compose("data=arrays", f"data.file={numbers}", *LINEAR))
    split, data = lane.task.data.test, lane.task.data
    figures = lane.evaluate(split)
    with torch.no_grad():
        outputs = lane.model(lane.task.normalise(split.inputs.clone()))
    mean, std = data.train.targets.double().mean(0), data.train.targets.double().std(0, correction=0)
    assert data.target_mean == pytest.approx(mean.tolist())
    assert data.target_std == pytest.approx(std.tolist())
    scaled = (split.targets - mean) / std
    assert figures["loss"] == pytest.approx(float((outputs - scaled).square().mean()), rel=1e-5)
    error = outputs * std + mean - split.targets
    assert figures["rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-5)


def test_evaluation_leaves_float_inputs_as_they_are(numbers: str, tmp_path: Path, compose: Compose) -> None:
    images = write(
        tmp_path / "images.npz", x=np.random.default_rng(0).random((60, 8, 8)), y=np.arange(60) % 2
    )
    for file in (numbers, images):
        lane = Lane(compose("data=arrays", f"data.file={file}", "model=mlp", "trainer.batch_size=20"))
        before = [split.inputs.clone() for split in (lane.task.data.train, lane.task.data.val)]
        lane.evaluate(lane.task.data.val)
        lane.train_step(torch.arange(20))
        after = [lane.task.data.train.inputs, lane.task.data.val.inputs]
        assert all(map(torch.equal, before, after))


def test_several_targets_are_learned_at_once(tmp_path: Path, compose: Compose) -> None:
    x, y = problem()
    file = write(tmp_path / "two.npz", x=x, y=np.stack([y, 3 - y / 1000], axis=1))
    last = trained(compose("data=arrays", f"data.file={file}", *LINEAR)).journal()[-1]
    assert last["test_r2"] > 0.97
    lane = Lane(compose("data=arrays", f"data.file={file}", *LINEAR))
    assert lane.task.data.target_names == ("target_0", "target_1")
    assert lane.task.batch(torch.arange(5), lane.augment_generator)[1].shape == (5, 2)


def test_integers_are_classes_by_their_values(classes: str, compose: Compose) -> None:
    folder = trained(compose("data=arrays", f"data.file={classes}", *LINEAR))
    assert folder.facts()["classes"] == ["3", "7"]
    assert folder.journal()[-1]["test_accuracy"] > 0.9
    assert folder.config().loss._target_ == "torch.nn.CrossEntropyLoss"
    assert folder.config().objective == "val_accuracy"


def test_numbers_that_are_declared_classes_are_and_the_other_way_round(
    tmp_path: Path, compose: Compose
) -> None:
    x, y = problem()
    file = write(tmp_path / "whole.npz", x=x, y=(y > 1000).astype(float))
    data = build.data(compose("data=arrays", f"data.file={file}", "data.task=classification"))
    assert data.classes == ("0", "1")
    data = build.data(compose("data=arrays", f"data.file={file}"))
    assert data.task == "regression"
    assert "set data.task=classification" in data.notes[0]
    file = write(tmp_path / "counts.npz", x=x, y=y.astype(int))
    cfg = compose("data=arrays", f"data.file={file}", "data.task=regression")
    assert build.data(cfg).task == "regression"
    assert cfg.objective == "val_rmse"


@pytest.mark.parametrize(
    ("shape", "kind", "read"),
    [
        ((12, 8, 6), np.uint8, (1, 8, 6)),
        ((12, 3, 8, 6), np.uint8, (3, 8, 6)),
        ((12, 8, 6, 3), np.uint8, (3, 8, 6)),
        ((12, 8, 6), np.float64, (1, 8, 6)),
        ((12, 5, 8, 6), np.float32, (5, 8, 6)),
        ((12, 7), np.uint8, (7,)),
        ((12, 7), np.int64, (7,)),
        ((12, 7), bool, (7,)),
        ((12,), np.float16, (1,)),
    ],
)
def test_arrays_are_images_or_features_by_their_shape(
    shape: tuple[int, ...], kind: Any, read: tuple[int, ...], tmp_path: Path, compose: Compose
) -> None:
    values = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    file = write(tmp_path / "some.npz", x=values, y=np.arange(12) % 2)
    data = build.data(compose("data=arrays", f"data.file={file}", "data.val_size=0", "data.test_size=0"))
    assert data.shape == read
    is_image_of_bytes = kind == np.uint8 and len(shape) > 2
    assert data.train.inputs.dtype == (torch.uint8 if is_image_of_bytes else torch.float32)
    channels_last = shape[1:] == (8, 6, 3)
    expected = values.transpose(0, 3, 1, 2) if channels_last else values.reshape(12, *read)
    assert np.array_equal(data.train.inputs.numpy(), expected)


def test_features_have_zero_mean_and_unit_deviation_over_training(numbers: str, compose: Compose) -> None:
    lane = Lane(compose("data=arrays", f"data.file={numbers}", "model=mlp"))
    inputs, targets = lane.task.batch(torch.arange(lane.task.count), lane.augment_generator)
    for values in (inputs, targets):
        assert values.mean(0).tolist() == pytest.approx([0] * values.shape[1], abs=1e-5)
        assert values.std(0, correction=0).tolist() == pytest.approx([1] * values.shape[1], rel=1e-5)
    raw = Lane(compose("data=arrays", f"data.file={numbers}", "model=mlp", "data.standardize=false"))
    inputs, targets = raw.task.batch(torch.arange(raw.task.count), raw.augment_generator)
    assert torch.equal(inputs, raw.task.data.train.inputs)
    assert torch.equal(targets, raw.task.data.train.targets)


def test_statistics_of_floats_are_exact_where_the_mean_is_large() -> None:
    values = 1e6 + torch.randn(10_000, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    means, stds = float_statistics(values)
    assert means == pytest.approx(values.double().mean((0, 2, 3)).tolist(), abs=1e-6)
    assert stds == pytest.approx(values.double().std((0, 2, 3), correction=0).tolist(), rel=1e-9)


def test_a_constant_feature_is_told_and_harmless(tmp_path: Path, compose: Compose) -> None:
    x, y = problem()
    file = write(tmp_path / "constant.npz", x=np.column_stack([x, np.full(len(x), 0.1)]), y=y)
    folder = trained(compose("data=arrays", f"data.file={file}", *LINEAR))
    assert "1 of 5 features are constant in training (4)" in (folder.path / "run.log").read_text()
    assert folder.journal()[-1]["test_r2"] > 0.95


def test_npy_csv_and_parquet_hold_the_same_as_npz(numbers: str, tmp_path: Path, compose: Compose) -> None:
    x, y = problem()
    x = x.astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    table = pd.DataFrame(x, columns=["a", "b", "c", "d"]).assign(price=y)
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    expected = build.data(compose("data=arrays", f"data.file={numbers}"))
    for words in (
        (f"data.file={tmp_path}/x.npy", f"data.targets_file={tmp_path}/y.npy"),
        (f"data.file={tmp_path}/rows.csv", "data.target=price"),
        (f"data.file={tmp_path}/rows.parquet", "data.target=[price]"),
    ):
        cfg = compose("data=arrays", *words)
        data = build.data(cfg)
        assert cfg.objective == "val_rmse"
        assert torch.allclose(data.test.inputs, expected.test.inputs)
        assert torch.allclose(data.test.targets, expected.test.targets)
    assert data.feature_names == ("a", "b", "c", "d")
    assert data.target_names == ("price",)
    cfg = compose(
        "data=arrays", f"data.file={tmp_path}/rows.csv", "data.target=[price,d]", "data.inputs=[a,c]"
    )
    assert build.data(cfg).shape == (2,)
    assert build.data(cfg).target_names == ("price", "d")


def test_nullable_columns_of_parquet_are_numbers_too(tmp_path: Path, compose: Compose) -> None:
    frame = pd.DataFrame({"a": range(30), "b": [1.5, 2.5, 3.5] * 10, "sick": [True, False, False] * 10})
    frame = frame.assign(grade=frame.a % 3).astype({"a": "Int64", "b": "Float64", "grade": "Int64"})
    frame.to_parquet(tmp_path / "rows.parquet")
    words = ("data=arrays", f"data.file={tmp_path}/rows.parquet")
    for target, classes in {"grade": ("0", "1", "2"), "sick": ("False", "True"), "b": ()}.items():
        inputs = "data.inputs=[a]" if target == "b" else "data.inputs=[a,b]"
        assert build.data(compose(*words, inputs, f"data.target={target}")).classes == classes


def test_columns_of_a_test_table_are_found_by_their_names(tmp_path: Path, compose: Compose) -> None:
    table = pd.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0) * 2, "price": np.arange(30.0) / 7})
    table.to_csv(tmp_path / "train.CSV", index=False)
    table[["price", "b", "a"]].assign(c=1.0).to_csv(tmp_path / "test.csv", index=False)
    words = (f"data.file={tmp_path}/train.CSV", f"data.test_file={tmp_path}/test.csv", "data.target=price")
    data = build.data(compose("data=arrays", *words))
    assert data.feature_names == ("a", "b")
    assert data.test.inputs[3].tolist() == [3.0, 6.0]


def test_an_index_that_was_saved_along_is_no_feature(tmp_path: Path, compose: Compose) -> None:
    table = pd.DataFrame({"a": np.arange(30.0) ** 2, "price": np.arange(30.0) / 7})
    table.to_csv(tmp_path / "rows.csv")
    words = (f"data.file={tmp_path}/rows.csv", "data.target=price")
    assert build.data(compose("data=arrays", *words)).feature_names == ("a",)


def test_texts_in_a_table_are_classes_of_training_and_of_test(tmp_path: Path, compose: Compose) -> None:
    table = pd.DataFrame({"a": np.arange(30.0), "kind": ["oak", "ash", "elm"] * 10})
    table.to_csv(tmp_path / "train.csv", index=False)
    table[:7].to_csv(tmp_path / "test.csv", index=False)
    words = (f"data.file={tmp_path}/train.csv", f"data.test_file={tmp_path}/test.csv", "data.target=kind")
    data = build.data(compose("data=arrays", *words))
    assert data.classes == ("ash", "elm", "oak")
    assert data.test.targets.tolist() == [2, 0, 1, 2, 0, 1, 2]
    table.assign(kind="fir")[:7].to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(
        ConfigError, match=r"test target 0 is 'fir', no class of those for training \(ash, elm"
    ):
        build.data(compose("data=arrays", *words, "data.limit=9"))


def x_and_y(**changed: Any) -> dict[str, Any]:
    return {"x": np.arange(80.0).reshape(40, 2), "y": np.arange(40) % 2, **changed}


def with_hole(value: float) -> Any:
    array = np.arange(80.0).reshape(40, 2)
    array[7, 1] = array[9, 0] = value
    return array


BAD = [
    (
        x_and_y(x=with_hole(NAN)),
        "training inputs: 2 of 80 values are NaN or infinite, the first in row 7, at .1.",
    ),
    (x_and_y(x=with_hole(np.inf)), "2 of 80 values are NaN or infinite"),
    (x_and_y(x=with_hole(1e300)), "2 of 80 values are NaN or infinite"),  # too large for float32
    (
        x_and_y(y=with_hole(NAN)),
        "training targets: 2 of 80 values are NaN or infinite, the first in row 7, column",
    ),
    (x_and_y(y=np.arange(39) % 2), r"inputs of shape \(40, 2\) and targets of shape \(39,\)"),
    (x_and_y(y=np.zeros(40, complex)), "targets of type complex128; must be integers or texts"),
    (
        x_and_y(y=np.arange(80).reshape(40, 2)),
        "2 targets for each example, of type int64; .*data.task=regression",
    ),
    (x_and_y(y=np.zeros(40, int)), "has 1 class .0.; must have two or more"),
    (x_and_y(y=np.full(40, 0.5)), "target 0 is 0.5 for all training examples, to the 7 digits of float32"),
    (
        x_and_y(y=np.zeros((40, 1, 2))),
        r"targets of float64 \(40, 1, 2\); must be numbers, \(N,\) or \(N, T\)",
    ),
    (x_and_y(x=np.zeros((0, 2)), y=np.zeros(0)), r"training inputs are empty, of shape \(0, 2\)"),
    (x_and_y(x=np.zeros((40, 2, 2, 2, 2))), r"inputs of shape \(40, 2, 2, 2, 2\); must be features"),
    (x_and_y(x=np.full((40, 2), "a")), "training inputs of type <U1; must be numbers"),
    (x_and_y(x=np.full((40, 2), {})), "pickles can run code and are not read"),
    (x_and_y(y=np.full(40, None)), "pickles can run code and are not read"),
    (
        {"data": np.zeros((40, 2)), "y": np.arange(40) % 2},
        "has no array inputs or x, but data, y; .*data.inputs=",
    ),
    ({"x": np.zeros((40, 2)), "labels": np.arange(40) % 2}, "has no array targets or y, but x, labels;"),
]


@pytest.mark.parametrize(("arrays", "told"), BAD)
def test_bad_arrays_are_told_in_one_line(
    arrays: dict[str, Any], told: str, tmp_path: Path, compose: Compose
) -> None:
    file = write(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ConfigError, match=told) as caught:
        Lane(identity.identify(RunSpec(compose("data=arrays", f"data.file={file}", "model=mlp"))).cfg)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "data.target=null: name the column, or columns, of .* to learn: age, city, price"),
        (("data.target=prize",), "data.target=prize: .* has no column 'prize'; did you mean 'price'"),
        (("data.target=price",), r"city is not numeric; .*exclude with 'data.inputs=\[age\]'"),
        (("data.target=price", "data.inputs=[ago]"), "data.inputs=ago: .*did you mean 'age'"),
        (("data.target=price", "data.inputs=[age,price]"), "data.inputs=price: is a target"),
        (("data.target=city", "data.inputs=[age]", "data.task=regression"), "the targets are texts"),
        (("data.target=hole", "data.inputs=[age]"), "1 of 40 targets are missing or NaN, the first in row 3"),
        (("data.target=price", "data.inputs=[hole]"), "1 of .* values are NaN .*row 3, column 'hole'"),
        (
            ("data.target=price", "data.inputs=[age]", "data.task=classification"),
            "target 1 is 0.5; classes must",
        ),
        (
            ("data.target=price", "data.inputs=[age]", "loss=cross_entropy"),
            "is not minimal where outputs equal",
        ),
        (("data.target=price", "data.inputs=[age]", "loss=mse_one_hot"), "loss .*fairsweep.losses.MSEOneHot"),
        (
            ("data.target=price", "data.inputs=[age]", "objective=val_accuracy"),
            "objective=val_accuracy: accuracy is a metric of classification",
        ),
        (("data.target=price", "data.inputs=[age]", "model=two_conv"), "a cnn needs images.*use model=mlp"),
        (("data.target=price", "data.inputs=[age]", "data.augment.shift=1"), "has no images to augment"),
        (("data.target=price", "data.inputs=[age]", "trainer.batch_size=500"), "number of training rows, 26"),
        (
            ("data.target=price", "data.inputs=[age]", "data.test_size=39"),
            "must leave 2 or more of the 40 rows",
        ),
    ],
)
def test_bad_tables_and_what_does_not_fit_them_are_told_in_one_line(
    words: tuple[str, ...], told: str, tmp_path: Path, compose: Compose
) -> None:
    hole = np.arange(40.0)
    hole[3] = NAN
    columns = {"age": np.arange(40), "city": ["Ulm", "Bonn"] * 20, "price": np.arange(40) / 2}
    frame = pd.DataFrame({**columns, "hole": hole} if "hole" in str(words) else columns)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    small = ("data=arrays", f"data.file={tmp_path}/rows.csv", "trainer.batch_size=10", "model=mlp")
    with pytest.raises(ConfigError, match=told) as caught:
        Lane(identity.identify(RunSpec(compose(*small, *words))).cfg)
    assert "\n" not in str(caught.value)


def test_without_a_file_the_declared_task_decides_the_objective(numbers: str, compose: Compose) -> None:
    """As in what the runs of a sweep over files have in common."""
    assert compose("data=arrays").objective == "val_accuracy"
    assert compose("data=arrays", "data.task=regression").objective == "val_rmse"
    assert compose("data=arrays", f"data.file={numbers}").objective == "val_rmse"


def test_files_that_are_no_arrays_are_told_in_one_line(tmp_path: Path, compose: Compose) -> None:
    (tmp_path / "text.npz").write_text("nonsense")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "notes.txt").touch()
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    np.savez(tmp_path / "single.npz", x=np.zeros((4, 2)), y=np.float64(1))
    for name, told in {
        "text.npz": "is no NumPy file",
        "empty.csv": "cannot be read: No columns",
        "notes.txt": "must be a file that ends in .npz",
        "missing.npz": "no such file",
        "x.npy": "an .npy has one array; set data.targets_file, too",
        "single.npz": "the targets are a single value",
    }.items():
        with pytest.raises(ConfigError, match=told):
            identity.identify(
                RunSpec(compose("data=arrays", f"data.file={tmp_path}/{name}", "data.target=y"))
            )
    with pytest.raises(ConfigError, match=r"^data.file: Missing mandatory value: .*give it a value"):
        identity.identify(RunSpec(compose("data=arrays")))


def test_the_task_changes_no_signature_of_runs_that_classify(compose: Compose) -> None:
    cfg = resolved(compose())
    assert cfg["loss"] == {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0}
    assert cfg["objective"] == "val_accuracy"
    for words, name in {
        (): "d3fcb9de70b54875",
        ("recipe=two_conv_sgd", "data=digits"): "c25af5349fdd7ec5",
        ("loss.label_smoothing=0.1",): "fd8a867f917a0290",
        ("loss=cross_entropy", "objective=val_loss"): "fdcc4be34d00ae40",
    }.items():
        assert identity.identify(RunSpec(compose(*words))).signature == name


def test_a_run_on_arrays_is_named_by_their_content_and_not_by_their_place(
    numbers: str, tmp_path: Path, compose: Compose
) -> None:
    def name(file: str, *words: str) -> str:
        return identity.identify(RunSpec(compose("data=arrays", f"data.file={file}", *words))).signature

    (tmp_path / "copy.npz").write_bytes(Path(numbers).read_bytes())
    first = name(numbers)
    assert name(f"{tmp_path}/copy.npz") == first
    x, y = problem()
    assert name(write(tmp_path / "other.npz", x=x, y=y + 1)) != first
    assert name(numbers, f"data.test_file={tmp_path}/copy.npz") != first
    assert name(numbers, "data.standardize=false") != first


def test_a_resumed_regression_has_the_same_bits(numbers: str, compose: Compose) -> None:
    words = ("data=arrays", f"data.file={numbers}", "model=mlp", "model.dropout=0.2", "trainer.epochs=3")
    straight, first = Lane(compose(*words)), Lane(compose(*words, "trainer.stop_epoch=1"))
    lines = [line for event in fit([straight]) for line in event.lines]
    list(fit([first]))
    again = Lane(compose(*words))
    again.load_state_dict(first.state_dict())
    rest = [line for event in fit([again]) for line in event.lines]
    timed = {"epoch_seconds", "images_per_second"}
    assert [{k: v for k, v in line.items() if k not in timed} for line in rest] == [
        {k: v for k, v in line.items() if k not in timed} for line in lines[-len(rest) :]
    ]


def test_steps_of_a_regression_can_be_recorded_once_and_repeated(numbers: str, compose: Compose) -> None:
    """As a CUDA graph repeats them."""
    words = ("data=arrays", f"data.file={numbers}", "model=mlp", "trainer.epochs=2", "optimizer=sgd")
    lanes = [Lane(compose(*words, "optimizer.lr=0.1", "trainer.log_every=4")) for _ in range(2)]
    for lane in lanes:
        with lane.own_state():
            lane.advance(WARM_UP, lambda: False)
            lane.captured = CapturedSteps(lane)
            lane.captured.begin_epoch(lane.order)
    captured = lanes[1].captured
    assert captured is not None
    with lanes[1].own_state():
        captured.graph = Recording(captured)  # type: ignore[assignment]
    losses = [
        [line["train_loss"] for event in fit([lane]) for line in event.lines if "train_loss" in line]
        for lane in lanes
    ]
    assert losses[0] == losses[1]
    for first, second in zip(lanes[0].model.parameters(), lanes[1].model.parameters(), strict=True):
        assert torch.equal(first, second)


def test_facts_of_features_say_how_they_were_scaled(numbers: str, compose: Compose) -> None:
    data = build.data(compose("data=arrays", f"data.file={numbers}"))
    facts = json.loads(json.dumps(data.facts()))
    assert facts["shape"] == [4]
    assert facts["targets"] == ["target"]
    assert (facts["mean"], facts["std"]) == (list(data.mean), list(data.std))
    assert "background" not in facts


def test_integers_that_are_probably_numbers_need_a_declared_task() -> None:
    prices = np.arange(200) * 7 % 101
    with pytest.raises(
        ConfigError, match=r"101 distinct values in 200 examples; if they are numbers, set data"
    ):
        tables.decide("auto", prices)
    assert tables.decide("regression", prices) == "regression"
    assert tables.decide("classification", prices) == "classification"
    assert tables.decide("auto", np.arange(2000) % 100) == "classification"  # twenty examples of each
