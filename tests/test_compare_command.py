"""`src/compare.py` as a user starts it: what it finds, what it says of trouble, and how it ends."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from commands import Answer, Command, in_environment
from studies import Arm, study, upload
from test_cli import answers, assert_one_line

ARMS = {"adam": Arm((1e-3, 1e-2), best=1e-3), "sgd": Arm((1e-2, 1.0), best=1e-2, diverges=0.5)}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `record.dir` whose MLflow knows a sweep that was not begun there."""
    folder = tmp_path_factory.mktemp("outputs")
    tables = study(ARMS, seeds=range(2), confirm=range(100, 103), epochs=3)
    upload(tables, f"sqlite:///{folder}/mlflow.db", folder / "artifacts")
    other = dataclasses.replace(tables, sweeps=[{**tables.sweeps[0], "id": "other1", "started": 1.7e9}])
    upload(other, f"sqlite:///{folder}/mlflow.db", folder / "artifacts")
    return folder


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be written to."""
    shutil.copy(made / "mlflow.db", tmp_path)
    return tmp_path


def compare(outputs: Path, *words: str, status: int = 0, **changes: str) -> Answer:
    before = partial(in_environment, {"COLUMNS": "200", **changes})
    answer = Command(outputs, (f"record.dir={outputs}", *words), before, "src/compare.py").wait()
    assert answer.status == status, answer
    return answer


def begun_here(outputs: Path, **changes: object) -> None:
    """The folder of a sweep that was run with tracking=none."""
    folder = outputs / "sweeps" / "s1"
    folder.mkdir(parents=True)
    about = {
        **{"id": "s1", "name": "grid", "status": "finished", "objective": "val_accuracy", "resumed": 1.79e9},
        **{"command": "", "overrides": [], "named_arms": False, "arms": {}, "directory": str(folder)},
        **{"started": 1.79e9, "ended": 1.79e9, "counts": {}, "reused": 0, "best_objective": None},
        **{"seeds": [0], "confirm_seeds": [], "weights": {}},
    }
    (folder / "sweep.json").write_text(json.dumps(about | changes))
    (folder / "plan.jsonl").write_text("{}\n")


# Mistakes, and what the answer to them contains; nothing is there but a sweep without runs.
REFUSED: dict[str, tuple[str, ...]] = {
    "swep=s1": ("swep: unknown key", "did you mean 'sweep'", "allowed: experiment, filter"),
    "relevent=0.01": ("relevent: unknown key", "did you mean 'relevant'"),
    "+foo=1": ("foo: unknown key",),
    "relevant=-1": ("relevant=-1:", "a number, 0 or more"),
    "relevant=little": ('relevant="little"',),
    "target=high": ('target="high"', "a number, or null"),
    "ui=localhost": ('ui="localhost"', "http://"),
    "sweep=[]": ("sweep=[]:", "a list of ids"),
    "sweep=3": ("sweep=3:", "a text"),
    "sweep=a,b": ("which=a,b", "key=[value1,value2]"),
    "sweep=s1 experiment=x": ("sweep: excludes experiment and filter",),
    "tracking=mlfow": ("tracking=mlfow", "did you mean 'mlflow'"),
    "sweep=s2": ("sweep=s2: no sweeps of that name", "allowed: latest"),
    "experiment=x": ("tracking.uri=sqlite:", "no such database"),
    "experiment=x tracking=none": ("tracking.uri=null", "omit tracking=none"),
    "sweep=[s1,s2] tracking=none": ("sweep=s2: no sweeps of that name",),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What the command says to each of REFUSED, in one process."""
    outputs = tmp_path_factory.mktemp("outputs")
    begun_here(outputs)
    lists = [[f"record.dir={outputs}", *words.split(" ")] for words in REFUSED]
    return dict(zip(REFUSED, answers(lists, "src/compare.py"), strict=True))


@pytest.mark.parametrize("words", REFUSED)
def test_a_mistake_is_told_in_a_line_before_anything_slow_is_imported(
    refusals: dict[str, Answer], words: str
) -> None:
    assert_one_line(refusals[words], *REFUSED[words])
    assert not refusals[words].slow


def test_the_newest_sweep_in_mlflow_is_reported_where_none_was_begun_here(outputs: Path) -> None:
    answer = compare(outputs)
    assert answer.stdout.startswith(("adam is better than sgd", "Too few seeds to tell adam and sgd apart"))
    assert f"report     {outputs}/report/report.html" in answer.stdout
    assert f"compare    mlflow ui --backend-store-uri sqlite:///{outputs}/mlflow.db" in answer.stdout
    content = json.loads((outputs / "report" / "report.json").read_text())
    assert (content["what"], content["settings"]["relevant"]) == ("sweep made0up0", 0.001)
    assert sorted(path.name for path in (outputs / "report").iterdir()) == [
        "figures", "report.html", "report.json", "tables", "verdict.md",
    ]  # fmt: skip


def test_settings_and_a_filter_reach_the_report(outputs: Path, tmp_path: Path) -> None:
    where = "filter=params.`optimizer.lr` != '1' and tags.arm = \"sgd\""
    words = ("experiment=fairsweep", where, "relevant=0.02", "target=0.5", f"output={tmp_path}/mine")
    answer = compare(outputs, *words, "ui=https://mlflow.example")
    assert "No comparison: there is only one arm, sgd" in answer.stdout
    content = json.loads((tmp_path / "mine" / "report.json").read_text())
    assert content["settings"] == {"relevant": 0.02, "target": 0.5, "ui": "https://mlflow.example"}
    assert content["what"] == f"experiment=fairsweep, {where}"


def test_several_sweeps_are_reported_together(outputs: Path) -> None:
    answer = compare(outputs, "sweep=[made,other1]")
    assert "adam [made0up0]" in answer.stdout
    assert "sgd [other1]" in answer.stdout


def test_a_sweep_without_runs_shows_how_far_it_is_and_why_there_is_no_report(outputs: Path) -> None:
    begun_here(outputs)
    answer = compare(outputs, status=2, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "sweep      s1, grid\nstatus     finished" in answer.stdout
    assert answer.stderr.startswith("error: sweep s1: no run has begun, or none is left in ")
    assert not (outputs / "report").exists()


def test_a_server_that_is_away_is_named_where_runs_are_read_from_it(outputs: Path) -> None:
    answer = compare(outputs, "experiment=x", status=2, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert answer.stderr == (
        "error: tracking.uri=http://127.0.0.1:9 (from MLFLOW_TRACKING_URI): does not answer; "
        "is the tracking server running?\n"
    )


def test_a_folder_that_cannot_be_written_is_named(outputs: Path) -> None:
    (outputs / "file").touch()
    answer = compare(outputs, f"output={outputs}/file/report", status=2)
    assert_one_line(answer._replace(stdout=""), f"output={outputs}/file/report: cannot be written")


def test_a_store_named_on_the_command_line_is_where_the_newest_sweep_is_looked_for(
    outputs: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    begun_here(here)
    answer = compare(here, f"tracking.uri=sqlite:///{outputs}/mlflow.db")
    assert json.loads((here / "report" / "report.json").read_text())["what"] == "sweep made0up0", answer
