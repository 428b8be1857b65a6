"""Pictures from anywhere, brought to the form of the training images and classified; bad input refused."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from rich.console import Console

from fairsweep import config
from fairsweep.config import ROOT, ConfigError
from fairsweep.launch import origins
from fairsweep.runs import checkpoint, identity, inputs, prediction, provenance, session
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.training.source import Split

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SETTINGS = ("tracking=none", "model=cnn", "model.widths=[16,32]", "trainer.epochs=6", "record.pictures=none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small network that knows the digits."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"record.dir={tmp_path_factory.mktemp('outputs')}", *SETTINGS])
    (outcome,) = session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    return outcome.folder


def found(which: str, outputs: Path, data: str | None = None) -> RunFolder:
    with inputs.find_run(which, None, str(outputs), data) as folder:
        return folder


@pytest.fixture(scope="module")
def known(trained: RunFolder) -> Split:
    """Test images that this network is sure of, and right about."""
    split = prediction.test_split(trained)
    best, labels = prediction.outputs(prediction.predictor(trained), split.inputs).max(1)
    return split.pick(((best > 0.99) & (labels == split.targets)).nonzero()[::4, 0])


def canvas(digit: Pixels, ink: int, paper: int, size: tuple[int, int] = (600, 420)) -> Pixels:
    """A digit (28, 28), eight times as large, off the centre of a sheet, with some noise."""
    large = np.asarray(Image.fromarray(digit).resize((224, 224), Image.Resampling.BICUBIC)) / 255
    sheet = np.zeros(size)
    sheet[340:564, 20:244] = large
    noise = np.random.default_rng(0).normal(0, 4, size)
    return (paper + (ink - paper) * sheet + noise).clip(0, 255).astype(np.uint8)


def in_colour(digit: Pixels) -> Image.Image:
    """Dark blue on yellowish paper."""
    grey = canvas(digit, 255, 0)[..., None] / 255
    return Image.fromarray(
        (np.array([240, 235, 190]) * (1 - grey) + np.array([20, 30, 120]) * grey).astype(np.uint8)
    )


def on_nothing(digit: Pixels, ink: int) -> Image.Image:
    """Ink of one colour, the digit in the transparency alone."""
    alpha = canvas(digit, 255, 0)
    return Image.fromarray(np.stack([np.full_like(alpha, ink)] * 3 + [alpha], axis=2))


def turned(digit: Pixels) -> tuple[Image.Image, Image.Exif]:
    """A photograph whose EXIF data say that it must be turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return Image.fromarray(canvas(digit, 40, 220)).transpose(Image.Transpose.ROTATE_90), exif


WAYS: dict[str, Callable[[Pixels, Path], Any]] = {
    "as it is": lambda digit, path: Image.fromarray(digit).save(path.with_suffix(".png")),
    "light on dark": lambda digit, path: Image.fromarray(canvas(digit, 230, 30)).save(
        path.with_suffix(".png")
    ),
    "dark on light": lambda digit, path: Image.fromarray(canvas(digit, 30, 230)).save(
        path.with_suffix(".bmp")
    ),
    "pencil on grey": lambda digit, path: Image.fromarray(canvas(digit, 40, 115)).save(
        path.with_suffix(".png")
    ),
    "in colour": lambda digit, path: in_colour(digit).save(path.with_suffix(".jpg")),
    "black on nothing": lambda digit, path: on_nothing(digit, 0).save(path.with_suffix(".png")),
    "white on nothing": lambda digit, path: on_nothing(digit, 255).save(path.with_suffix(".png")),
    "16 bits": lambda digit, path: Image.fromarray(canvas(digit, 30, 230).astype(np.uint16) * 257).save(
        path.with_suffix(".png")
    ),
    "turned": lambda digit, path: turned(digit)[0].save(path.with_suffix(".jpg"), exif=turned(digit)[1]),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_digit_drawn_in_any_way_is_classified_as_its_original(
    way: str, trained: RunFolder, known: Split, tmp_path: Path
) -> None:
    digits = known.inputs[:20, 0].numpy()
    for index, digit in enumerate(digits):
        WAYS[way](digit, tmp_path / f"{index:02}")
    results = prediction.classify(trained, inputs.find_input(str(tmp_path)))
    assert [int(result.label) for result in results] == known.targets[:20].tolist()


def facts(channels: int = 1, **values: Any) -> dict[str, Any]:
    mean = [0.2, 0.3, 0.4][:channels]
    return {"shape": [channels, 8, 8], "background": "dark", "extent": 1.0, "mean": mean} | values


def read(array: Pixels, folder: Path, facts: dict[str, Any]) -> Pixels:
    Image.fromarray(array).save(folder / "picture.png")
    return prediction.read(folder / "picture.png", facts)[0]


def test_content_that_fills_the_training_frames_is_not_cropped_but_gets_their_background(
    tmp_path: Path,
) -> None:
    coat = np.full((8, 8), 255, np.uint8)
    coat[2:7, 1:4] = 90
    assert (read(coat, tmp_path, facts()) == 255 - coat).all()
    assert (read(coat, tmp_path, facts(background="light")) == coat).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_are_only_resized(channels: int, tmp_path: Path) -> None:
    photo = np.full((16, 24, 3), 250, np.uint8)
    photo[:, 12:] = 10
    pixels = read(photo, tmp_path, facts(channels, background="mixed"))
    assert pixels.shape == (channels, 8, 8)
    assert (pixels[:, :, :3] > 240).all()
    assert (pixels[:, :, 5:] < 20).all()


def test_an_empty_page_is_seen_as_background(tmp_path: Path) -> None:
    page = np.full((100, 60), 230, np.uint8)
    assert (read(page, tmp_path, facts(extent=0.7)) == 0).all()
    assert (read(page, tmp_path, facts(extent=0.7, background="light")) == 255).all()


@pytest.mark.parametrize("inverted", [False, True])
def test_inverted_digits_are_told_from_the_test_images_themselves(inverted: bool, trained: RunFolder) -> None:
    for digit in prediction.test_split(trained).inputs[:, 0].numpy():
        image = Image.fromarray(255 - digit if inverted else digit)
        expected = ["a light background, but trained on images with a dark one; inverted"] * inverted
        assert [*prediction.differences(image, image, trained.facts())] == expected


UNLIKE: list[tuple[Image.Image, dict[str, Any], str]] = [
    (in_colour(np.full((28, 28), 255, np.uint8)), facts(), "in colour, but trained on grey"),
    (
        Image.new("RGB", (8, 8), (90, 90, 90)),
        facts(3, background="mixed"),
        "grey, but trained on images in col",
    ),
    (
        Image.new("L", (3, 8), 90),
        facts(background="mixed"),
        "only 3 x 8 pixels, but trained on 8 x 8; enlarged",
    ),
    (Image.new("L", (30, 30), 90), facts(), "blank: nothing stands out"),
    (
        Image.linear_gradient("L"),
        facts(),
        "an uneven background, but trained on images with a plain dark one",
    ),
]


@pytest.mark.parametrize(("image", "trained_on", "difference"), UNLIKE, ids=[case[2] for case in UNLIKE])
def test_what_does_not_look_like_the_training_images_is_said(
    image: Image.Image, trained_on: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    image.save(tmp_path / "picture.png")
    _, unlike = prediction.read(tmp_path / "picture.png", trained_on)
    assert any(text.startswith(difference) for text in unlike)


def test_test_images_are_taken_by_number_with_their_true_labels(trained: RunFolder) -> None:
    split = prediction.test_split(trained)
    results = prediction.classify(trained, inputs.find_input("test:3-7"))
    assert [result.name for result in results] == [f"test:{number}" for number in range(3, 8)]
    assert [int(str(result.true)) for result in results] == split.targets[3:8].tolist()
    assert torch.equal(torch.stack([result.image for result in results]), split.inputs[3:8])


def test_accuracy_is_the_one_that_the_run_reports(trained: RunFolder) -> None:
    everything = range(len(prediction.test_split(trained)))
    right = [result.label == result.true for result in prediction.classify(trained, everything)]
    assert sum(right) / len(right) == pytest.approx(trained.status().test["accuracy"], abs=1.5 / len(right))


def test_test_images_that_have_changed_are_refused(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "facts", lambda folder: {"fingerprint": "another"})
    with pytest.raises(ConfigError, match=r"data \(digits\) have changed"):
        prediction.test_split(trained)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("missing.png", "no such file; must be an image file"),
        ("folder/*.jpg", "no such file"),
        ("empty", "no images in this folder"),
        ("folder/notes.txt", "is not a readable image"),
        ("folder", "broken.png is not a readable image"),
        ("", "must be an image file, a folder of images, a glob, a table"),
        ("test:", "must be test:N or test:N-M"),
        ("test:7-3", "must be test:N or test:N-M"),
        ("test:x", "must be test:N or test:N-M"),
    ],
)
def test_input_that_is_no_image_is_refused(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("empty", "folder"):
        (tmp_path / name).mkdir()
    for name in ("notes.txt", "broken.png"):
        (tmp_path / "folder" / name).write_text("no image")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        inputs.find_input(text)
    assert str(error.value).startswith(f"input={text}: ")


def test_a_folder_a_glob_and_a_file_name_their_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", ".hidden.png"):
        Image.new("L", (3, 3)).save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").touch()
    images = [tmp_path / "a.PNG", tmp_path / "b.png"]
    assert inputs.find_input(str(tmp_path)) == images
    assert (
        inputs.note(str(tmp_path)) == f"input={tmp_path}: 1 file of other types not read: 1 .txt (notes.txt)"
    )
    assert inputs.note(str(images[0])) == inputs.note("test:3") == ""
    assert inputs.find_input(f"{tmp_path}/*.[pP][nN][gG]") == images
    assert inputs.find_input(str(tmp_path / "b.png")) == images[1:]


def test_a_truncated_image_is_refused_by_name(trained: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"cut\.png is not a readable image"):
        prediction.classify(trained, inputs.find_input(str(path)))


def test_names_from_the_disk_give_a_terminal_nothing_to_obey() -> None:
    image = torch.zeros(1, 2, 2, dtype=torch.uint8)
    results = [
        prediction.Prediction("a\x1b[2J.png", image, "red\x9b", 0.5, None),
        prediction.Prediction("b.png", image, "blue", 0.25, "red\x9b"),
    ]
    assert prediction.table(results).splitlines() == [
        r"a\x1b[2J.png  red\x9b   50.00%",
        r"b.png         blue      25.00%  wrong: is red\x9b",
    ]


def test_a_number_beyond_the_test_images_is_refused(trained: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"input=test:359: must be at most test:358"):
        prediction.classify(trained, range(350, 360))


@pytest.mark.parametrize(
    ("which", "message"),
    [("../x", "must be latest, best"), ("beef" * 4, "no runs of that name"), ("f" * 32, "null")],
)
def test_an_unknown_run_is_refused(which: str, message: str, trained: RunFolder) -> None:
    with pytest.raises(ConfigError, match=f"run={which}: .*{message}"):
        found(which, trained.path.parents[1])


def test_no_finished_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run=latest: no finished run in .*; train one first"):
        found("latest", tmp_path)


def test_a_run_is_found_by_the_beginning_of_its_signature(trained: RunFolder) -> None:
    for which in (trained.signature, trained.signature[:3], "best", "latest"):
        assert found(which, trained.path.parents[1]).path == trained.path


@pytest.mark.parametrize(("weights", "name"), [("best", "best.pt"), ("last", "last.pt")])
def test_lost_weights_are_an_error_that_names_the_file(
    trained: RunFolder, tmp_path: Path, weights: str, name: str
) -> None:
    folder = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "runs" / trained.signature)))
    cfg = OmegaConf.merge(folder.config(), {"record": {"dir": str(tmp_path)}})
    cfg.trainer.test_weights = weights
    folder.write_config(cfg)
    (folder.path / name).unlink()
    with pytest.raises(ConfigError, match=rf"run=best: .*/{name}: is missing"):
        found("best", tmp_path)
    cfg.trainer.weights, cfg.seed = folder.signature, 1
    with pytest.raises(ConfigError, match=rf"trainer\.weights={folder.signature}: .*/{name}: is missing"):
        identity.identify(RunSpec(cfg))


def rival(of: RunFolder, outputs: Path, data: str, name: str, ended: float, **changes: Any) -> RunFolder:
    """The record of another finished run, on data of this name and hash."""
    signature = f"a{ended:015.0f}"
    folder = RunFolder(Path(shutil.copytree(of.path, outputs / "runs" / signature)))
    (folder.path / "data.json").write_text(json.dumps({**of.facts(), "name": name, "fingerprint": data}))
    folder.set_status(signature=signature, data=data, ended=ended, **changes)
    return folder


def test_the_best_run_is_one_of_those_on_the_same_data_by_the_same_objective(
    trained: RunFolder, tmp_path: Path
) -> None:
    good = rival(trained, tmp_path, "d1", "digits", 1, objective=0.9)
    better = rival(trained, tmp_path, "d1", "digits", 2, objective=0.95)
    rival(trained, tmp_path, "d1", "digits", 3, objective=0.1, objective_key="val_loss")
    latest = rival(trained, tmp_path, "d1", "digits", 4, objective=0.2)
    assert found("best", tmp_path).path == better.path
    easy = rival(trained, tmp_path, "e2", "letters", 5, objective=0.99)
    same_name = rival(trained, tmp_path, "f3", "letters", 6, objective=0.8)
    choice = r"run=best: .* digits \(d1\), letters \(e2\), letters \(f3\); choose one .*data=\.\.\."
    with pytest.raises(ConfigError, match=choice):
        found("best", tmp_path)
    assert found("best", tmp_path, "digits").path == better.path
    assert found("latest", tmp_path, "digits").path == latest.path
    assert found("best", tmp_path, "e2").path == easy.path
    assert found("latest", tmp_path).path == same_name.path
    with pytest.raises(ConfigError, match="choose one"):
        found("best", tmp_path, "letters")
    with pytest.raises(ConfigError, match=r"data=mnist: there is no finished run on this data set; there"):
        found("best", tmp_path, "mnist")
    shutil.rmtree(better.path)
    assert found("best", tmp_path, "digits").path == good.path


def test_best_weights_to_start_from_are_those_of_a_run_on_the_configured_data(
    trained: RunFolder, tmp_path: Path
) -> None:
    ours = rival(trained, tmp_path, trained.status().data, "digits", 1, objective=0.5)
    rival(trained, tmp_path, "e2", "letters", 2, objective=0.99)
    cfg = OmegaConf.merge(
        trained.config(), {"record": {"dir": str(tmp_path)}, "trainer": {"weights": "best"}}
    )
    assert identity.identify(RunSpec(cfg)).cfg.trainer.weights == str(ours.path / "best.pt")


def test_best_weights_in_a_sweep_over_data_sets_are_of_a_run_on_the_same_data(
    trained: RunFolder, tmp_path: Path
) -> None:
    for label in range(2):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for number in range(3):
            image = Image.new("L", (28, 28), 100 * label + number)
            image.save(tmp_path / "images" / str(label) / f"{number}.png")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = [f"record.dir={tmp_path}", "tracking=none", "trainer.weights=best"]
        images = compose("train", [*words, "data=image_folder", f"data.root={tmp_path / 'images'}"])
        digits = compose("train", words)
    files = []
    for number, cfg in enumerate((digits, images)):
        content = provenance.content(config.resolved(cfg))
        files.append(str(rival(trained, tmp_path, content, "x", number, objective=0.5).path / "best.pt"))
    pinned = origins.pin([digits, images], {})
    assert [pinned[str(origins.word(cfg))].path for cfg in (digits, images)] == files


def test_an_unfinished_run_has_no_tested_weights(trained: RunFolder, tmp_path: Path) -> None:
    paused = rival(trained, tmp_path, "d1", "digits", 1)
    paused.set_status(name="paused")
    with pytest.raises(ConfigError, match=f"run={paused.signature}: .*has not finished"):
        found(paused.signature, tmp_path)


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        settings = ["tracking=none", "model=mlp", "trainer=smoke", "record.keep=none", "record.pictures=none"]
        cfg = compose("train", [f"record.dir={tmp_path}", *settings])
    session.run([RunSpec(cfg)], Progress(Console(quiet=True)))
    with pytest.raises(ConfigError, match=r"run=latest: no finished run .* has weights; .*record\.keep="):
        found("latest", tmp_path)


def test_an_unknown_mlflow_run_leaves_nothing_behind(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with (
        pytest.raises(ConfigError, match=f"run={'f' * 32}: not in {uri}: there is no such database"),
        inputs.find_run("f" * 32, uri, str(tmp_path)),
    ):
        pass
    assert not [*tmp_path.iterdir()]


def test_mlflow_runs_are_looked_up_where_training_puts_them() -> None:
    predict, tracking = (
        OmegaConf.load(ROOT / "conf" / name) for name in ("predict.yaml", "tracking/mlflow.yaml")
    )
    uri, expected = (
        OmegaConf.to_yaml(OmegaConf.masked_copy(node, "uri")) for node in (predict.tracking, tracking)
    )
    assert uri == expected


def command(words: Sequence[str], *options: str) -> "subprocess.CompletedProcess[str]":
    script = [sys.executable, *options, str(ROOT / "src" / "predict.py"), *words]
    return subprocess.run(script, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_tells_labels_and_writes_a_picture(
    trained: RunFolder, known: Split, tmp_path: Path
) -> None:
    for index, digit in enumerate(known.inputs[:3, 0].numpy()):
        Image.fromarray(canvas(digit, 30, 230)).save(tmp_path / f"{index}.png")
    output = tmp_path / "new" / "picture.png"
    done = command([f"record.dir={trained.path.parents[1]}", f"input={tmp_path}/*.png", f"output={output}"])
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[:3]]
    accuracy = f"{trained.status().test['accuracy']:.2%}"
    assert f"trained  cnn on digits, test accuracy {accuracy}\n" in done.stdout
    assert [line[0] for line in lines] == [str(tmp_path / f"{index}.png") for index in range(3)]
    assert [int(line[1]) for line in lines] == known.targets[:3].tolist()
    assert (
        "note     3 of 3 images (0.png, ...): a light background, but trained on images with a dark one"
        in done.stdout
    )
    assert all(50 < float(line[2].rstrip("%")) <= 100 for line in lines)
    assert str(output) in done.stdout
    assert np.asarray(Image.open(output).convert("L")).std() > 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "input=: must be an image file"),
        (["input=no.png"], "input=no.png: no such file"),
        (["input=test:1", "run=bcd"], "run=bcd: no runs of that name"),
        (["input=test:1", "output=picture.jpg"], "output=picture.jpg: must be"),
        (["input=test:1", "inptu=3"], "inptu"),
    ],
)
def test_a_mistake_is_one_line_without_torch(words: list[str], message: str, trained: RunFolder) -> None:
    done = command([f"record.dir={trained.path.parents[1]}", *words], "-X", "importtime")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert "| torch\n" not in done.stderr
    assert done.stdout == ""


def test_weights_that_do_not_fit_the_model_any_more_are_said(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "tested_weights", lambda folder: {"0.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match="weights no longer fit its model"):
        prediction.predictor(trained)
