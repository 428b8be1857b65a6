"""The report at a sweep's end: where it goes, what is told of it, and that it costs the sweep nothing."""

import json
from pathlib import Path

import pytest
from commands import server
from test_sweep import QUICK, Outputs, empty_store, outputs

__all__ = ["empty_store", "outputs", "server"]  # fixtures

GRID = (*QUICK, "optimizer=adam,sgd", "seed=range(3)")


@pytest.fixture(autouse=True)
def with_reports(outputs: Outputs) -> None:
    outputs.with_reports = True


def report_of(made: Outputs) -> Path:
    return Path(made.definition["directory"]) / "report"


def told(stdout: str) -> str:
    (line,) = [line for line in stdout.splitlines() if line.startswith("report ")]
    return line.removeprefix("report").strip()


def test_a_sweep_ends_with_its_verdict_and_a_report_that_mlflow_has_too(outputs: Outputs) -> None:
    answer = outputs.sweep(*GRID)
    folder = report_of(outputs)
    assert told(answer.stdout) == str(folder / "report.html")
    content = json.loads((folder / "report.json").read_text())
    assert content["verdict"].startswith("No difference shown") or "is better than" in content["verdict"]
    for text in (content["verdict"], *content["remarks"]):
        assert text in " ".join(answer.stdout.split())
    parent = outputs.tracked[outputs.definition["id"]].info.run_id
    files = {file.path for file in outputs.client.list_artifacts(parent, "report")}
    assert files == {f"report/{name}" for name in ("figures", "report.html", "report.json", "tables")}

    # The same command: the same report. More seeds: another one.
    written = (folder / "report.html").stat().st_mtime_ns
    again = outputs.sweep(*GRID)
    assert (folder / "report.html").stat().st_mtime_ns == written
    assert content["verdict"] in " ".join(again.stdout.split())
    outputs.sweep(*GRID[:-1], "seed=range(4)")
    assert len(json.loads((folder / "report.json").read_text())["runs"]) == 8


def test_without_mlflow_there_is_no_report_and_the_end_says_why(outputs: Outputs) -> None:
    answer = outputs.sweep(*QUICK, "seed=range(2)", "tracking=none")
    assert told(answer.stdout) == "none: it is made from what MLflow has, and tracking is off"
    answer = outputs.sweep(*QUICK, "seed=range(2)", "tracking.uri=http://127.0.0.1:9")
    sweep = outputs.definition["id"]
    assert told(answer.stdout) == f"none: MLflow is away; later, python src/compare.py sweep={sweep}"
    assert not report_of(outputs).exists()


def test_a_report_that_fails_costs_the_sweep_nothing(outputs: Outputs) -> None:
    outputs.sweep(*QUICK, "seed=range(2)", "tracking=none")
    report_of(outputs).write_text("in the way")
    answer = outputs.sweep(*QUICK, "seed=range(2)")
    assert told(answer.stdout).startswith(f"none: output={report_of(outputs)}: cannot be written")
    assert outputs.definition["status"] == "finished"
    outputs.assert_tracked()
