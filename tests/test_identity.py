"""A run is what it trains on: the content of data and weights, resolved once when it is planned."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from commands import Command
from conftest import Compose
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.console import Console
from test_session import QUICK, run_many
from test_sweep import Outputs, empty_store, outputs

from fairsweep import config, data
from fairsweep.config import ROOT, ConfigError
from fairsweep.launch import jobs
from fairsweep.launch.worker import Order, Worker
from fairsweep.runs import checkpoint, identity, provenance, session
from fairsweep.runs.folder import Place
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.progress import Progress
from fairsweep.training import build
from fairsweep.training.source import Source, Split

__all__ = ["empty_store", "outputs"]  # fixtures

FOLDER = ("data=image_folder", "model=mlp", "model.widths=[16]", "trainer.batch_size=8", "trainer=smoke")


def write_images(root: Path, level: int) -> Path:
    """Two classes of 20 images; the level decides the content."""
    for label in range(2):
        (root / str(label)).mkdir(parents=True)
        for number in range(20):
            image = Image.new("L", (28, 28), level)
            image.putpixel((number, label), 255 - level)
            image.save(root / str(label) / f"{number}.png")
    return root


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_images(tmp_path / "a", 10), write_images(tmp_path / "b", 90)


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    """Hashes are kept for the life of a process, which a test stands for."""
    yield
    forget()


def forget() -> None:
    provenance.content_of.cache_clear()
    build.source.cache_clear()
    build.resident.cache_clear()


def signature(cfg: DictConfig) -> str:
    return identity.identify(RunSpec(cfg)).signature


# What a run is


def test_other_data_are_another_run_and_the_same_data_elsewhere_the_same_one(
    compose: Compose, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = (signature(compose(*FOLDER, f"data.root={root}")) for root in folders)
    shutil.copytree(folders[0], tmp_path / "copy")
    assert a != b
    assert signature(compose(*FOLDER, f"data.root={tmp_path / 'copy'}")) == a


def test_a_function_of_ones_own_is_known_by_the_arrays_that_it_returns(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(40) % 2

    def own() -> Source:
        return Source(Split(images.clone(), labels.clone()), None, ("a", "b"))

    monkeypatch.setattr(data, "own", own, raising=False)
    cfg = compose("data=digits", "data._target_=fairsweep.data.own", "data.name=own")
    before = signature(cfg)
    forget()
    assert signature(cfg) == before
    for change in (images, labels):
        change[7] = 1 - change[7]
        forget()
        assert signature(cfg) != before
        change[7] = 1 - change[7]


def test_a_run_is_not_found_again_where_there_are_no_data(compose: Compose, tmp_path: Path) -> None:
    (outcome,) = run_many([compose(*QUICK, "data=digits")])
    assert outcome.status.name == "finished"
    missing = compose(*FOLDER, f"data.root={tmp_path / 'typo'}")
    with pytest.raises(ConfigError, match=r"data\.root=.*typo: no such folder"):
        identity.identify(RunSpec(missing))


def test_hashes_are_kept_and_every_change_of_a_file_is_noticed(
    compose: Compose, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairsweep.training.sources.SETTLED_SECONDS", -10)  # else files this new are not kept
    cfg = compose(*FOLDER, f"data.root={folders[0]}")
    before = signature(cfg)
    forget()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", unreadable(folders[0]))
        assert signature(cfg) == before
    forget()
    path = folders[0] / "0" / "3.png"
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert signature(cfg) != before
    (tmp_path / "content.json").write_text("[garbage")
    forget()
    assert signature(cfg) != before


def unreadable(folder: Path) -> Callable[[Path], bytes]:
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        assert folder not in path.parents, f"{path} was read"
        return read(path)

    return read_bytes


def test_data_that_change_after_planning_fail_the_run_instead_of_training_it(
    compose: Compose, folders: tuple[Path, Path]
) -> None:
    planned = identity.identify(RunSpec(compose(*FOLDER, f"data.root={folders[0]}"), single=False))
    shutil.copytree(folders[1], folders[0], dirs_exist_ok=True)
    forget()
    (outcome,) = session.run([planned], Progress(Console(quiet=True), quiet=True))
    assert outcome.status.name == "failed"
    assert "have changed since the run was planned" in outcome.status.reason


def test_a_worker_with_other_data_fails_the_run(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("os.environ", dict(os.environ))
    run = identity.identify(RunSpec(compose(*QUICK), single=False))
    worker = Worker([], "/nowhere", 1, str(tmp_path))
    place = Place("s0", "/sweeps/s0", [{"trial": 0}])
    order = Order(run.signature, "another", config.resolved(run.cfg), place, {}, None)
    *_, parcel = worker.train([order], lanes=1)
    status = json.loads(parcel.files["status.json"])
    assert (status["status"], status["signature"]) == ("failed", run.signature)
    assert "data=digits: its data have changed since the run was planned" in status["reason"]


# What a job carries


def test_a_job_is_the_run_that_was_planned_whatever_its_overrides_mean_later(compose: Compose) -> None:
    planned = identity.identify(RunSpec(compose(*QUICK, "seed=3"), single=False))
    place = Place("s0", "/sweeps/it's $one", [{"arm": 'a"b', "values": {"optimizer.lr": "0.1"}}], "command")
    run = planned._replace(place=place)
    job = jobs.packed(run._replace(overrides=("seed=3",)))
    assert jobs.unpacked(compose(*QUICK, "seed=4", *job[1:])) == run
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        names = hydra_compose("train", ["trainer.device=cpu", *job], return_hydra_config=True).hydra.job
    assert names.override_dirname == "seed=3,trainer.device=cpu"


def test_a_text_that_looks_like_an_interpolation_stays_a_text() -> None:
    for text in ("${oc.env:HOME}", r"\${x}", r"a\\${x}", "$", "${", r"C:\dir"):
        cfg = config.literal({"key": text, "list": [text]})
        assert OmegaConf.to_container(cfg, resolve=True) == {"key": text, "list": [text]}
        assert cfg.key == text


# Sweeps


@pytest.mark.parametrize("as_arms", [False, True])
def test_a_sweep_over_folders_trains_on_each_of_them(
    outputs: Outputs, folders: tuple[Path, Path], as_arms: bool
) -> None:
    a, b = folders
    words = (f"data.root={a},{b}",)
    if as_arms:
        words = (f"arms={{a: {{data.root: {a}}}, b: {{data.root: {b}}}}}", "confirm=1")
    outputs.sweep(*FOLDER, "tracking=none", *words)
    assert len(outputs.runs) == 4 if as_arms else 2
    roots = {signature: folder.config().data.root for signature, folder in outputs.runs.items()}
    for row in outputs.table:
        root = {"a": str(a), "b": str(b)}[row["arm"]] if as_arms else row["data.root"]
        assert roots[row["signature"]] == root
    assert len({folder.facts()["fingerprint"] for folder in outputs.runs.values()}) == 2


def test_a_sweeps_id_follows_the_content_of_its_data_and_not_their_path(
    outputs: Outputs, folders: tuple[Path, Path]
) -> None:
    grid = (*FOLDER, "tracking=none", "seed=0,1")
    a, b = folders
    outputs.sweep(*grid, f"data.root={a}")
    first, trained = outputs.definition["id"], outputs.trained
    a.rename(a.with_name("moved"))
    outputs.sweep(*grid, f"data.root={a.with_name('moved')}")
    assert (outputs.definition["id"], outputs.trained) == (first, trained)
    outputs.sweep(*grid, f"data.root={b}")
    assert outputs.definition["id"] != first


@pytest.mark.parametrize("launcher", ["fused", "basic"])
def test_weights_named_latest_are_those_of_before_the_sweep_for_all_of_its_runs(
    outputs: Outputs, launcher: str
) -> None:
    quick = (*QUICK, "tracking=none")
    Command(outputs.path, (f"record.dir={outputs.path}", *quick)).wait()
    (first,) = outputs.runs.values()
    sweep = (*quick, "trainer.weights=latest", "seed=1,2,3", f"hydra/launcher={launcher}")
    outputs.sweep(*sweep)
    started = {f.config().trainer.weights for s, f in outputs.runs.items() if s != first.signature}
    assert started == {str(checkpoint.tested_file(first))}
    assert {row["signature"] for row in outputs.table} == outputs.runs.keys() - {first.signature}
    trained = outputs.trained
    outputs.sweep(*sweep)
    assert outputs.trained == trained

    checkpoint.tested_file(first).write_bytes(b"something else")
    answer = outputs.sweep(*sweep, status=2)
    assert "trainer.weights=latest: this sweep started from" in answer.stderr


def test_all_runs_of_a_sweep_are_recorded_in_one_place(outputs: Outputs, tmp_path: Path) -> None:
    answer = outputs.sweep(*QUICK, "tracking=none", f"record.dir={tmp_path / 'c'},{tmp_path / 'd'}", status=2)
    assert answer.stderr.startswith(f"error: record.dir={tmp_path / 'c'}: must be the same in all runs")
    assert not (tmp_path / "c").exists()
