"""Features, and numbers as targets, from end to end: predictions, pictures, show, other formats, report."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from test_show import show
from test_sweep import Outputs, empty_store, outputs

from fairsweep.config import ConfigError
from fairsweep.runs import export, inputs, pictures, prediction, session
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress

__all__ = ["empty_store", "outputs"]  # fixtures

Compose = Callable[..., DictConfig]

QUICK = ("data=arrays", "model=mlp", "model.widths=[8]", "trainer.epochs=20", "optimizer.lr=0.02")


def table(rows: int = 300) -> pd.DataFrame:
    """Houses, whose price is a linear function of their features."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"area": random.normal(90, 30, rows), "floor": random.integers(0, 9, rows)})
    price = 1000 + 20 * frame.area - 50 * frame.floor + random.normal(0, 20, rows)
    return frame.assign(price=price, kind=np.where(price > 2600, "high", "low"))


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("houses") / "houses.csv"
    table().to_csv(file, index=False)
    return file


def trained(cfg: DictConfig) -> RunFolder:
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    assert outcome.status.name == "finished", outcome.status.reason
    return outcome.folder


@pytest.fixture
def of_prices(houses: Path, compose: Compose) -> RunFolder:
    """A run that has learned prices from area and floor."""
    words = (f"data.file={houses}", "data.target=price", "data.inputs=[area,floor]")
    return trained(compose(*QUICK, *words, "record.pictures=none"))


@pytest.fixture
def of_kinds(houses: Path, compose: Compose) -> RunFolder:
    """A run that has learned the kind from area and floor."""
    words = (f"data.file={houses}", "data.target=kind", "data.inputs=[area,floor]")
    return trained(compose(*QUICK, *words, "record.pictures=none"))


def of_images(compose: Compose, tmp_path: Path, kind: Any, targets: Any, *words: str) -> RunFolder:
    """A run on grey images, 8 x 8, of even brightness."""
    levels = np.random.default_rng(0).integers(0, 250, 200)
    images = np.broadcast_to(levels[:, None, None], (200, 8, 8)) + np.arange(8)[:, None] / 2
    scale = 1 if kind == np.uint8 else 1000
    np.savez(tmp_path / "images.npz", x=(images / scale).astype(kind), y=targets(levels))
    return trained(compose(*QUICK, f"data.file={tmp_path}/images.npz", *words))


def said(folder: RunFolder, what: str) -> list[prediction.Prediction]:
    return prediction.classify(folder, inputs.find_input(what))


# Predictions


def test_predictions_are_in_the_unit_of_the_target_beside_the_true_ones(of_prices: RunFolder) -> None:
    results = said(of_prices, "test:0-9")
    split = prediction.test_split(of_prices)
    error = np.array([float(one.label) - float(str(one.true)) for one in results])
    assert [float(str(one.true)) for one in results] == pytest.approx(
        split.targets[:10, 0].tolist(), rel=1e-5
    )
    assert np.sqrt((error**2).mean()) < 0.3 * float(split.targets.std())
    first = prediction.table(results).splitlines()[0]
    assert first.split() == ["test:0", results[0].label, "true:", results[0].true]
    assert pictures.predictions(results) is None  # no grey squares


def test_rows_of_a_table_are_predicted_by_their_columns_in_any_order(
    of_prices: RunFolder, of_kinds: RunFolder, tmp_path: Path
) -> None:
    split = prediction.test_split(of_prices)
    frame = pd.DataFrame(split.inputs[:6].numpy(), columns=["area", "floor"])
    frame.assign(owner="someone")[["floor", "owner", "area"]].to_csv(tmp_path / "rows.csv", index=False)
    expected = [one.label for one in said(of_prices, "test:0-5")]
    assert [one.label for one in said(of_prices, f"{tmp_path}/rows.csv")] == expected
    frame.to_parquet(tmp_path / "rows.parquet")
    assert [one.label for one in said(of_prices, f"{tmp_path}/rows.parquet")] == expected
    results = said(of_kinds, f"{tmp_path}/rows.csv")
    assert {one.label for one in results} <= {"high", "low"}
    assert all(0.5 <= float(str(one.probability)) <= 1 for one in results)


def test_files_that_do_not_suit_the_run_are_told_in_one_line(
    of_prices: RunFolder, tmp_path: Path, compose: Compose
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    pd.DataFrame({"area": [90.0], "flor": [2]}).to_csv(tmp_path / "other.csv", index=False)
    pd.DataFrame({"area": [90.0, None], "floor": [2, 3]}).to_csv(tmp_path / "hole.csv", index=False)
    pd.DataFrame({"area": ["big"], "floor": [2]}).to_csv(tmp_path / "text.csv", index=False)
    for name, told in {
        "grey.png": "trained on 2 features; give a .csv",
        "other.csv": "input=floor: .* has no column 'floor'; did you mean 'flor'",
        "hole.csv": "1 of 4 values are NaN or infinite, the first in row 1, column 'area'",
        "text.csv": "area is not numeric",
    }.items():
        with pytest.raises(ConfigError, match=told):
            said(of_prices, f"{tmp_path}/{name}")
    floats = of_images(compose, tmp_path, np.float32, lambda levels: levels // 125, "record.pictures=none")
    with pytest.raises(ConfigError, match="trained on images of floats, whose scale no file has; use test:N"):
        said(floats, f"{tmp_path}/grey.png")


def test_numbers_are_learned_from_images_and_predicted_for_image_files(
    tmp_path: Path, compose: Compose
) -> None:
    folder = of_images(compose, tmp_path, np.uint8, lambda levels: levels * 4.0 + 0.5)
    assert folder.journal()[-1]["test_r2"] > 0.9
    assert {path.name for path in folder.pictures.iterdir()} == {"curves.png", "predicted.png", "worst.png"}
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / "grey.png")
    (one,) = said(folder, f"{tmp_path}/grey.png")
    assert float(one.label) > 0
    figure = pictures.predictions([one, *said(folder, "test:0-2")])
    assert figure is not None
    assert len(figure.axes[0].images) == 4


# Pictures


def test_pictures_follow_the_task_and_features_get_no_grey_squares(houses: Path, compose: Compose) -> None:
    for target, names in {"price": "predicted", "kind": "confusion"}.items():
        words = (f"data.file={houses}", f"data.target={target}", "data.inputs=[area,floor]")
        folder = trained(compose(*QUICK, *words))
        expected = {"curves.png", f"{names}.png", "worst.png"}
        assert {path.name for path in folder.pictures.iterdir()} == expected
    split, facts = prediction.test_split(folder), folder.facts()
    found = prediction.outputs(prediction.predictor(folder), split.inputs)
    figure = pictures.worst(split, found, facts["classes"])
    assert not figure.axes[0].images
    shown = [text.get_text() for text in figure.axes[0].texts]
    of_truth = found.gather(1, split.targets[:, None])[:, 0]
    assert shown[1] == f"test:{int(of_truth.argmin())}"


def test_the_largest_errors_come_first(of_prices: RunFolder) -> None:
    split, facts = prediction.test_split(of_prices), of_prices.facts()
    found = prediction.outputs(prediction.predictor(of_prices), split.inputs)
    shown = [text.get_text() for text in pictures.largest_errors(split, found, facts).axes[0].texts]
    assert shown[1] == f"test:{int((found - split.targets).abs().argmax())}"
    axes = pictures.predicted(split.targets, found, facts["targets"]).axes
    points = np.asarray(axes[0].collections[0].get_offsets())
    assert np.allclose(points, np.column_stack([split.targets[:, 0], found[:, 0]]))


def test_images_of_floats_are_shown_from_their_least_to_their_largest_value(
    tmp_path: Path, compose: Compose
) -> None:
    folder = of_images(compose, tmp_path, np.float32, lambda levels: levels // 125)
    assert (folder.pictures / "worst.png").is_file()
    split = prediction.test_split(folder)
    shown = prediction.as_pictures(split.inputs)
    assert (int(shown.min()), int(shown.max())) == (0, 255)


def test_show_tells_the_columns_of_a_table(houses: Path, tmp_path: Path) -> None:
    data = ("data=arrays", f"data.file={houses}", "data.target=price", "'data.inputs=[area,floor]'")
    done = show(
        f"record.dir={tmp_path}", *(word.strip("'") for word in data), "model=mlp", "data.test_size=0"
    )
    assert done.returncode == 0, done.stderr
    assert "arrays: rows of 2 features, learn price" in done.stdout
    rows = {
        line.replace("│", " ").split()[0]: line.replace("│", " ").split()
        for line in done.stdout.splitlines()
        if "│" in line
    }
    assert rows["floor"][3:5] == ["0", "8"]
    assert float(rows["area"][1]) == pytest.approx(90, abs=5)
    assert not list(tmp_path.iterdir())  # no picture


# Elsewhere


@pytest.mark.parametrize("kind", inputs.SUFFIXES)
def test_an_exported_file_gives_numbers_in_the_unit_of_the_target(kind: str, of_prices: RunFolder) -> None:
    exported = export.write(of_prices, kind, None)
    assert (exported.input, exported.output) == ("float32 (N, 2)", "float32 (N, 1), price")
    assert exported.compared == "60 test rows"
    assert exported.difference < 1e-5


def test_the_mlflow_model_gives_numbers_in_the_unit_of_the_target(
    outputs: Outputs, houses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs.with_models = True
    words = (f"data.file={houses}", "data.target=price", "data.inputs=[area,floor]", "record.pictures=none")
    answer = outputs.start(*QUICK, *words, single=True).wait()
    assert answer.status == 0, answer.stderr
    (folder,) = outputs.runs.values()
    uri = f"sqlite:///{outputs.path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # which MLflow sets, too, and other tests must not find
    mlflow.set_tracking_uri(uri)
    (run,) = outputs.tracked.values()
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    split = prediction.test_split(folder)
    ours = prediction.outputs(prediction.predictor(folder), split.inputs)
    np.testing.assert_allclose(model.predict(split.inputs.numpy()), ours.numpy(), rtol=1e-5)
    assert float((ours - split.targets).abs().mean()) < 200
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 2)
    assert model.metadata.signature.outputs.inputs[0].shape == (-1, 1)
    assert np.asarray(model.input_example)[0].tolist() == pytest.approx(folder.facts()["mean"], rel=1e-5)
    assert run.data.metrics["test/rmse"] == pytest.approx(folder.journal()[-1]["test_rmse"])


def test_a_sweep_over_a_regression_selects_by_rmse_and_reports_it(outputs: Outputs, houses: Path) -> None:
    outputs.with_reports = True
    words = (f"data.file={houses}", "data.target=price", "data.inputs=[area,floor]", "tracking=none")
    answer = outputs.sweep(*QUICK, *words, "optimizer.lr=0.0001,0.02", "seed=range(2)")
    assert "val_rmse" in answer.stdout
    (report,) = outputs.path.glob("sweeps/*/report/report.html")
    text = re.sub(r"(?s)<script.*?</script>", "", report.read_text())  # plotly's
    assert "RMSE" in text
    assert "accuracy" not in text


def test_images_of_a_run_that_classifies_are_as_they_were(compose: Compose) -> None:
    folder = trained(compose("model=mlp", "data.limit=200", "trainer.epochs=1", "record.pictures=none"))
    assert "dtype" not in folder.facts()
    assert "targets" not in folder.facts()
    (one,) = said(folder, "test:3")
    assert one.image is not None
    assert torch.equal(one.image, prediction.test_split(folder).inputs[3])
