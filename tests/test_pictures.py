"""Pictures are made from the record alone, show what it says, and are not blank."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from fairsweep.config import ROOT, ConfigError
from fairsweep.runs import pictures, session
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.prediction import Prediction
from fairsweep.runs.progress import Progress
from fairsweep.runs.status import Status
from fairsweep.training.dataset import Augment, Data
from fairsweep.training.source import Split

SETTINGS = ("tracking=none", "model=mlp", "data.limit=200", "trainer.epochs=3", "trainer.log_every=2")


def trained(directory: Path, *overrides: str) -> RunFolder:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"record.dir={directory}", *SETTINGS, *overrides])
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    return outcome.folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("outputs"))


def pixels(figure: Figure) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(pictures.png(figure))).convert("RGB"))


def shows(image: np.ndarray[Any, np.dtype[np.uint8]], color: str) -> bool:
    """Whether a good part of a thousandth of the picture has this colour."""
    wanted = np.array(to_rgb(color)) * 255
    return bool((np.abs(image - wanted).max(axis=2) < 8).mean() > 5e-4)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_run_leaves_its_pictures(folder: RunFolder) -> None:
    assert sorted(path.name for path in folder.pictures.iterdir()) == [
        "confusion.png",
        "curves.png",
        "worst.png",
    ]
    curves = np.asarray(Image.open(folder.pictures / "curves.png").convert("RGB"))
    for color in (pictures.TRAIN_LIGHT, pictures.TRAIN, pictures.VAL):
        assert shows(curves, color)
    for name in ("confusion.png", "worst.png"):
        assert np.asarray(Image.open(folder.pictures / name).convert("L")).std() > 20


def test_pictures_can_be_made_again_from_the_record_alone(folder: RunFolder) -> None:
    before = {path: path.read_bytes() for path in folder.pictures.iterdir()}
    for path in before:
        path.unlink()
    written = pictures.draw(RunFolder(folder.path))
    assert {path: path.read_bytes() for path in written} == before


def test_a_run_that_kept_no_weights_has_its_curves(tmp_path: Path) -> None:
    folder = trained(tmp_path, "record.keep=none")
    assert folder.status().name == "finished"
    assert [path.name for path in folder.pictures.iterdir()] == ["curves.png"]


def test_curves_show_the_journal(folder: RunFolder) -> None:
    journal, status = folder.journal(), folder.status()
    figure = pictures.curves(journal, status, folder.config())
    loss, accuracy = figure.axes
    lines = {str(line.get_label()): line for line in accuracy.get_lines()}
    validation = [line["val_accuracy"] for line in journal if "val_accuracy" in line]
    assert lines["validation"].get_xydata().tolist() == list(map(list, enumerate(validation, start=1)))  # type: ignore[union-attr]
    best = status.best_epoch
    assert lines[f"best epoch: {best}"].get_xydata().tolist() == [[best, validation[best - 1]]]  # type: ignore[union-attr]
    assert len(loss.get_lines()[0].get_xdata()) == sum("train_loss" in line for line in journal)  # type: ignore[arg-type]
    title = figure.get_suptitle()
    for part in ("mlp", "digits", "Adam", "lr 0.001", f"{status.test['accuracy']:.2%}"):
        assert part in title


@pytest.mark.parametrize(("name", "better"), [("f1", "higher"), ("error", "lower")])
def test_curves_show_the_objective_from_a_little_beyond_its_worst_to_the_best_there_is(
    name: str, better: str, folder: RunFolder
) -> None:
    values = (0.7, 0.8, 0.9) if better == "higher" else (0.3, 0.2, 0.1)
    journal = [{"epoch": n + 1.0, f"val_{name}": value, "val_loss": 1.0} for n, value in enumerate(values)]
    own = {"error": {"_target_": "mine.error", "better": "lower", "unit": "%"}}
    status = Status(objective_key=f"val_{name}", judge=f"test_{name}", metrics=own, test={name: values[-1]})
    figure = pictures.curves(journal, status, folder.config())
    low, high = figure.axes[1].get_ylim()
    expected = (0.7 - 0.047, 1 + 0.0094) if better == "higher" else (-0.0094, 0.3 + 0.047)
    assert (low, high) == pytest.approx(expected)
    assert figure.get_suptitle().endswith(": test F1 90.00%" if name == "f1" else ": test error 10.00%")


@pytest.mark.parametrize(
    "journal",
    [
        [],
        [{"step": 1, "epoch": 0.1, "train_loss": 2.3, "train_accuracy": 0.1}],
        [{"step": 1, "epoch": 0.1, "train_loss": float("nan"), "train_accuracy": 0.1}],
        [{"step": 1, "epoch": 1.0, "epoch_train_loss": 0.0, "epoch_train_accuracy": 1.0}],
    ],
)
def test_curves_of_a_run_that_got_nowhere_are_no_error(
    journal: list[dict[str, float]], folder: RunFolder
) -> None:
    assert pixels(pictures.curves(journal, Status(), folder.config())).std() > 0


def test_the_confusion_matrix_counts_true_against_predicted() -> None:
    labels, predicted = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 1, 0])
    figure = pictures.confusion(labels, predicted, ["cat", "dog", "$owl"])
    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "2", (1, 0): "1", (1, 1): "1", (0, 2): "1"}  # (column, row)
    assert figure.axes[0].get_title("left") == "3 of 5 test images correct: 60.00%"
    assert shows(pixels(figure), "#08306b")  # all of a class in one cell: the darkest blue


def test_a_confusion_matrix_of_many_classes_has_no_counts() -> None:
    labels = torch.arange(120)
    figure = pictures.confusion(labels, labels, [f"class {label}" for label in labels])
    assert texts(figure) == []
    assert len(figure.axes[0].get_xticks()) == 40


def test_the_worst_come_first_in_red() -> None:
    split = Split(torch.full((3, 1, 4, 4), 200, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    probabilities = torch.tensor([[0.9, 0.1], [1.0, 0.0], [0.6, 0.4]])
    figure = pictures.worst(split, probabilities, ["a", "b"])
    assert texts(figure)[1:] == ["b → a\n100.0%", "b → a\n60.0%", "a → a\n90.0%"]
    colors = [text.get_color() for text in figure.axes[0].texts[1:]]
    assert colors == [pictures.WRONG, pictures.WRONG, pictures.RIGHT]


def test_samples_show_each_class_in_its_column() -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    images = (labels * 100).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    split = Split(images, labels)
    data = Data("some", split, split, split, ("a", "b", "c"), (0.0,), (1.0,), Augment(0, 0), "")
    figure = pictures.samples(data)
    assert texts(figure) == ["some: 7 of 7 training images", "a", "b", "c", "a", "b", "c", "b"]
    shown = [int(np.asarray(image.get_array()).mean()) for image in figure.axes[0].images]
    assert shown == [0, 100, 200, 0, 100, 200, 100]


@pytest.mark.filterwarnings("error")
def test_class_names_of_any_script_are_drawn_or_escaped_without_warnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["中文", "كلب", "अ", "😀", "café"]
    pictures.font_with.cache_clear()
    monkeypatch.setattr(pictures, "characters", lambda file, name: {0xE9, 0x2192, *range(32, 127)})
    assert pictures.legible("中é") == r"\u4e2dé"
    monkeypatch.undo()
    pictures.font_with.cache_clear()
    labels = torch.arange(5)
    pictures.png(pictures.confusion(labels, labels, names))
    split = Split(torch.full((5, 1, 4, 4), 200, dtype=torch.uint8), labels)
    pictures.png(pictures.worst(split, torch.eye(5), names))


def test_a_name_that_the_usual_font_lacks_gets_another_font(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.font_with.cache_clear()
    has = {pictures.FONT: set(range(32, 127)), "DejaVu Serif": {ord("я")}}
    monkeypatch.setattr(pictures, "characters", lambda file, name: has.get(name, ()))
    figure = Figure()
    figure.text(0, 0, pictures.legible("a я"))
    pictures.png(figure)
    pictures.font_with.cache_clear()
    assert figure.texts[0].get_fontfamily() == [pictures.FONT, "DejaVu Serif"]


def test_predictions_are_shown_with_name_label_and_probability() -> None:
    image = torch.zeros(1, 8, 8, dtype=torch.uint8)
    results = [Prediction("folder/a_very_long_file_name.png", image, "cat", 0.876, None)] * 97
    figure = pictures.predictions(results)
    assert texts(figure)[:2] == [
        "As the network saw them: the first 96 of 97",
        "a_very_…ame.png\ncat  87.6%",
    ]
    assert len(figure.axes[0].images) == 96


def test_a_picture_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"output=.*x\.png: cannot be written"):
        pictures.save(Figure(), tmp_path / "file" / "x.png")


def test_no_pyplot_is_imported() -> None:
    script = "import sys, fairsweep.runs.pictures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "src", capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
