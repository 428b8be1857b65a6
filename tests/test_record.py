"""What a damaged, incomplete or foreign record costs: a line that names the file, and training it again."""

import json
import re
import resource
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import rich
from commands import Answer
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig
from rich.console import Console
from test_session import QUICK, assert_same_run
from test_tracking import Trainer, empty_store, mlflow_id, train

from fairsweep.config import ROOT
from fairsweep.runs import checkpoint, inputs, lookup, schema, session, status
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.identity import RunSpec
from fairsweep.runs.life import Outcome
from fairsweep.runs.progress import Progress
from fairsweep.training.lane import Lane

Invoke = Callable[..., Answer]


__all__ = ["empty_store", "train"]  # fixtures


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256))),
    "cut": cut,
    "list": lambda path: path.write_bytes(b"[1]\n"),
    "no entries": lambda path: path.write_bytes(b"{}\n"),
    "missing": Path.unlink,
    "folder": into_folder,
}


class Outputs:
    """An output folder, and runs trained there by commands of one configuration."""

    def __init__(self, path: Path, cfg: DictConfig) -> None:
        self.path, self.cfg = path, cfg

    def train(self, **changes: Any) -> tuple[Outcome, str]:
        """Train the run with these values changed; its outcome, and what was reported."""
        text, cfg = StringIO(), self.cfg.copy()
        cfg.record.dir = str(self.path)
        for key, value in changes.items():
            cfg[key] = value
        (outcome,) = session.run([RunSpec(cfg)], Progress(Console(file=text, width=1000)))
        return outcome, text.getvalue()

    def run(self, seed: int) -> RunFolder:
        (folder,) = [RunFolder(path.parent) for path in self.path.glob(f"runs/*/seed{seed}")]
        return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """The finished runs of seeds 0 and 1, and one of seed 2 as it was when its process was killed."""
    words = (
        *QUICK,
        "trainer.log_every=1",
        "record.pictures=none",
        "tracking=none",
        "trainer.device=cpu",
        "record.dir=x",
    )
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CHECKPOINT_SECONDS", 0)
        made = Outputs(tmp_path_factory.mktemp("outputs"), hydra_compose("train", [*words]))
        cfg = hydra_compose("train", [*words, "trainer.stop_epoch=1"])
        folders = [made.train(seed=seed)[0].folder for seed in range(2)]
        folders.append(Outputs(made.path, cfg).train(seed=2)[0].folder)
    folders[2].set_status(name="running", ended=None)
    for seed, folder in enumerate(folders):
        (folder.path / f"seed{seed}").touch()
    return made


@pytest.fixture(scope="module")
def undisturbed(whole: Outputs, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of seed 2 as it ends when nothing stops it."""
    return Outputs(tmp_path_factory.mktemp("undisturbed"), whole.cfg).train(seed=2)[0].folder


@pytest.fixture
def outputs(whole: Outputs, tmp_path: Path) -> Iterator[Outputs]:
    """A copy of them, to be damaged."""
    schema.warn.cache_clear()
    yield Outputs(Path(shutil.copytree(whole.path, tmp_path / "outputs")), whole.cfg)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["status.json", "data.json", "config.yaml", "journal.jsonl"])
def test_a_finished_run_with_a_damaged_file_is_trained_again_and_costs_no_other_run_anything(
    outputs: Outputs, whole: Outputs, name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = outputs.run(1), outputs.run(0)
    DAMAGES[damage](folder.path / name)
    for which in ("latest", "best"):
        assert lookup.find(str(outputs.path), which).signature == other.signature
    assert capsys.readouterr().err.count(f"{folder.path / name}: ") == 1
    again, told = outputs.train(seed=1, rerun=damage == "empty")
    assert not again.reused
    assert told.count(f"{folder.path / name}: ") == told.count("training again") == 1
    assert_same_run(again.folder, whole.run(1))
    again, told = outputs.train(seed=1)
    assert again.reused
    assert "training again" not in told


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["last.pt", "best.pt", "run.log", "sweeps.json"])
def test_what_a_finished_run_does_not_need_for_its_figures_does_not_stop_it_from_being_reused(
    outputs: Outputs, name: str, damage: str
) -> None:
    folder = outputs.run(1)
    (folder.path / name).touch()
    DAMAGES[damage](folder.path / name)
    again, _ = outputs.train(seed=1)
    assert again.status.name == "finished"
    assert again.reused == (damage != "folder" or name == "sweeps.json")
    assert again.folder.sweeps() == {}
    assert outputs.train(seed=1)[0].reused


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["status.json", "data.json", "config.yaml", "journal.jsonl", "last.pt", "previous.pt", "run.log"]
)
def test_an_interrupted_run_with_a_damaged_file_ends_with_the_same_bits(
    outputs: Outputs, undisturbed: RunFolder, name: str, damage: str
) -> None:
    folder = outputs.run(2)
    DAMAGES[damage](folder.path / name)
    again, told = outputs.train(seed=2)
    assert_same_run(again.folder, undisturbed)
    if damage != "missing" and name not in ("run.log", "previous.pt"):
        assert name in told
    again, told = outputs.train(seed=2)
    assert again.reused
    assert "damaged" not in told


def test_a_journal_shorter_than_the_last_checkpoint_has_the_run_go_on_from_the_one_before(
    outputs: Outputs, undisturbed: RunFolder
) -> None:
    folder = outputs.run(2)
    journal = folder.path / "journal.jsonl"
    before = checkpoint.read(folder.path / "previous.pt")
    journal.write_bytes(journal.read_bytes()[: before["journal_bytes"] + 5])
    again, told = outputs.train(seed=2)
    assert (
        "last.pt: journal.jsonl is damaged: lines before this checkpoint are missing; it is skipped" in told
    )
    assert f"resuming after step {before['step']} of" in told
    assert_same_run(again.folder, undisturbed)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_pause_counts_only_while_the_journal_has_all_lines_before_it(outputs: Outputs, damage: str) -> None:
    folder = outputs.run(2)
    assert folder.objective_at(1) is not None
    DAMAGES[damage](folder.path / "journal.jsonl")
    assert folder.objective_at(1) is None


FINISHED = {**status.RULES, **status.ENDING, **status.FINAL_FIGURES}


@pytest.mark.parametrize("key", FINISHED)
def test_an_entry_of_a_status_that_is_of_another_type_is_named(outputs: Outputs, key: str) -> None:
    path = outputs.run(0).path / "status.json"
    content = json.loads(path.read_text()) | {key: ["x"]}
    path.write_text(json.dumps(content))
    with pytest.raises(schema.Damaged, match=rf"status\.json: is damaged: {key} must be"):
        status.read_status(path)


@pytest.mark.parametrize("text", [b"", b"1", b"null", b"[]", b"NaN", b"\xff", b"[" * 100_000, b'{"a": 1'])
def test_what_is_not_a_json_object_is_damaged(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file.json").write_bytes(text)
    with pytest.raises(schema.Damaged, match=r"file\.json: is damaged: not"):
        schema.read_json(tmp_path / "file.json")


def invoke(script: str, outputs: Path, *words: str) -> Answer:
    """Calls an entry point, as a command does, in this process."""
    schema.warn.cache_clear()
    status: Any = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as stdout,
        redirect_stderr(StringIO()) as stderr,
    ):
        patch.setattr(sys, "argv", [script, *words, f"record.dir={outputs}"])
        patch.setenv("HYDRA_FULL_ERROR", "0")  # the command changes it
        patch.setattr(rich, "_console", Console(file=stdout, width=1000))
        try:
            runpy.run_path(str(ROOT / "src" / script), run_name="__main__")
        except SystemExit as error:
            status = error.code or 0
    return Answer(status, stdout.getvalue(), stderr.getvalue())


def fill_disk(_: Path) -> None:
    """From here on, no file can be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def room_afterwards() -> Iterator[None]:
    """The disk takes files again behind the block: pytest itself may write to one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("harm", "owner", "name"),
    [
        (fill_disk, Lane, "train_step"),
        (fill_disk, checkpoint, "finish"),
        (shutil.rmtree, Lane, "train_step"),
        (shutil.rmtree, checkpoint, "finish"),
        (shutil.rmtree, session, "illustrate"),
    ],
)
def test_a_run_whose_end_cannot_be_written_says_so_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None], owner: Any, name: str
) -> None:
    original, done = getattr(owner, name), list[int]()

    def harmed(*args: Any, **kwargs: Any) -> Any:
        if not done:
            harm(tmp_path / "outputs")
        done.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, harmed)
    with room_afterwards():
        answer = invoke("train.py", tmp_path / "outputs", *QUICK, "tracking=none", "record.pictures=none")
    assert answer.status == 1, answer
    assert "status     failed: " in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr


SWEEP = ("-m", *QUICK, "tracking=none", "record.pictures=none", "seed=range(4)")
OF_RUNS = ("status.json", "data.json", "config.yaml", "journal.jsonl")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of a finished sweep."""
    outputs = tmp_path_factory.mktemp("swept") / "outputs"
    answer = invoke("train.py", outputs, *SWEEP)
    assert answer.status == 0, answer
    return outputs


@pytest.mark.parametrize("damage", ["garbage", "cut", "no entries", "missing", "folder"])
def test_a_sweep_with_damaged_files_is_completed_by_the_same_command(
    swept: Path, tmp_path: Path, damage: str
) -> None:
    outputs = Path(shutil.copytree(swept, tmp_path / "outputs"))
    folders = sorted(path for path in (outputs / "runs").iterdir() if not path.name.startswith("."))
    (sweep,) = (outputs / "sweeps").iterdir()
    files = [folder / name for folder, name in zip(folders, OF_RUNS, strict=True)]
    files += [sweep / "sweep.json", sweep / "plan.jsonl", outputs / "content.json"]
    files[-1].write_text('{"hashes": {}}')
    for path in files:
        DAMAGES[damage](path)
    predicted = invoke("predict.py", outputs, "input=test:0")
    assert predicted.status == 2
    assert predicted.stderr.splitlines()[-1].startswith("error: run=latest: no finished run")
    compared = invoke("compare.py", outputs)
    assert compared.status == 2
    answer = invoke("train.py", outputs, *SWEEP)
    assert answer.status == 0, answer
    assert "4 finished" in answer.stdout
    said = answer.stdout + answer.stderr
    for path in files[:5] if damage != "missing" else files[:4]:
        assert f"{path}: " in said
    commands = ("train.py", *SWEEP), ("compare.py",), ("predict.py", "run=best", "input=test:0")
    for script, *words in commands:
        answer = invoke(script, outputs, *words)
        assert answer.status == 0, answer
        assert not [path for path in files if f"{path}: " in answer.stdout + answer.stderr]


@pytest.mark.parametrize("damage", ["empty", "list", "missing"])
def test_a_damaged_plan_is_no_shorter_sweep(swept: Path, tmp_path: Path, damage: str) -> None:
    outputs = Path(shutil.copytree(swept, tmp_path / "outputs"))
    (plan,) = outputs.glob("sweeps/*/plan.jsonl")
    DAMAGES[damage](plan)
    answer = invoke("compare.py", outputs)
    assert answer.status == 2
    assert re.fullmatch(f"error: .*{plan}.*\n", answer.stderr)
    assert "Traceback" not in answer.stderr
    assert invoke("train.py", outputs, *SWEEP).status == 0
    assert "4 finished" in invoke("compare.py", outputs).stdout


def test_a_damaged_run_counts_as_not_begun_in_what_compare_shows_of_its_sweep(
    swept: Path, tmp_path: Path
) -> None:
    outputs = Path(shutil.copytree(swept, tmp_path / "outputs"))
    damaged = sorted(outputs.glob("runs/[a-f]*/status.json"))[0]
    damaged.write_bytes(b"")
    answer = invoke("compare.py", outputs)
    assert answer.status == 0
    assert "3 finished, 1 waiting" in answer.stdout
    assert answer.stderr == f"{damaged}: is damaged: not JSON; this run counts as not started\n"


def test_texts_of_a_recorded_configuration_are_not_looked_up(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    folder = outputs.run(0)
    for text in ("${oc.env:SECRET}", "${", r"\${model.name}", "${a:${b}}"):
        path = folder.path / "config.yaml"
        values = schema.read_config(path)
        values["model"]["name"] = text
        path.write_text(json.dumps(values))
        assert RunFolder(folder.path).config().model.name == text
        assert not RunFolder(folder.path).damage()


@pytest.mark.parametrize("sweep", ["../../victim", "/victim", "", "s", "..", "runs"])
def test_a_sweep_of_a_foreign_id_is_damaged(swept: Path, tmp_path: Path, sweep: str) -> None:
    outputs = Path(shutil.copytree(swept, tmp_path / "outputs"))
    (path,) = outputs.glob("sweeps/*/sweep.json")
    path.write_text(json.dumps(schema.read_json(path) | {"id": sweep}))
    with pytest.raises(schema.Damaged, match=r"sweep\.json: is damaged: id must be"):
        schema.read_sweep(path.parent)


def test_an_interrupted_run_of_before_goes_on_though_its_checkpoint_has_more_of_the_best_epoch(
    outputs: Outputs, undisturbed: RunFolder
) -> None:
    folder = outputs.run(2)
    state = checkpoint.read(folder.path / "last.pt")
    best = {**{key: value for key, value in state.items() if key != "best"}, **state["best"]}
    checkpoint.write(folder, "last.pt", {**state, "best": best})
    checkpoint.write(folder, "best.pt", best)
    assert_same_run(outputs.train(seed=2)[0].folder, undisturbed)
    assert "optimizer" not in checkpoint.read(folder.path / "best.pt")


def test_a_checkpoint_holds_the_best_weights_once_and_without_the_optimizer(outputs: Outputs) -> None:
    folder = outputs.run(2)
    assert not (folder.path / "best.pt").exists()
    assert checkpoint.read(folder.path / "last.pt")["best"].keys() == {"objective", "epoch", "step", "model"}


# In MLflow


def test_a_run_of_mlflow_is_downloaded_for_as_long_as_it_is_used(train: Trainer, tmp_path: Path) -> None:
    folder = train().folder
    weights, uri = checkpoint.tested_weights(folder), f"sqlite:///{tmp_path}/mlflow.db"
    run_id = mlflow_id(folder)
    with inputs.find_run(run_id, uri, str(tmp_path)) as found:
        assert found.path == folder.path
    shutil.rmtree(folder.path)
    with inputs.find_run(run_id, uri, str(tmp_path)) as found:
        assert found.signature == folder.signature
        assert checkpoint.tested_weights(found).keys() == weights.keys()
    assert not found.path.parent.exists()


def test_lost_weights_are_named_and_the_rest_of_the_run_is_uploaded(
    train: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    schema.warn.cache_clear()
    lost = train("tracking=none").folder.path / "best.pt"
    lost.unlink()
    outcome = train("tracking.log_model=all")
    run = train.run(outcome)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/accuracy"] == outcome.status.test["accuracy"]
    names = {file.path for file in train.client.list_artifacts(run.info.run_id, "record")}
    assert "record/status.json" in names
    assert not {name for name in names if name.endswith(".pt")}
    assert f"{lost}: is missing" in train.output.getvalue() + capsys.readouterr().err


@pytest.mark.parametrize("damage", ["garbage", "list", "folder"])
def test_a_run_whose_note_of_its_upload_is_damaged_is_found_in_mlflow(train: Trainer, damage: str) -> None:
    outcome = train()
    run = train.run(outcome)
    DAMAGES[damage](outcome.folder.path / "tracking.json")
    again = train()
    assert again.reused
    assert train.run(again).info.run_id == run.info.run_id
    assert len(train.client.search_runs([run.info.experiment_id])) == 1


@pytest.mark.parametrize("name", ["status.json", "config.yaml", "journal.jsonl"])
def test_the_mlflow_run_of_a_damaged_record_is_superseded_and_nothing_is_left_to_upload(
    train: Trainer, tmp_path: Path, name: str
) -> None:
    outcome = train()
    old = train.run(outcome)
    DAMAGES["list"](outcome.folder.path / name)
    new = train.run(train())
    assert train.client.get_run(old.info.run_id).data.tags["superseded"] == "true"
    assert "superseded" not in new.data.tags
    assert not [*(tmp_path / "pending").iterdir()]


def test_texts_of_a_recorded_configuration_reach_mlflow_as_they_are(
    train: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    path = train("tracking=none").folder.path / "config.yaml"
    values = schema.read_config(path)
    values["model"]["name"] = "${oc.env:SECRET}"
    path.write_text(json.dumps(values))
    run = train.run(train())
    assert run.data.params["model.name"] == "${oc.env:SECRET}"
    assert str(run.info.run_name).startswith("${oc.env:SECRET} ")
