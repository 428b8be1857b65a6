"""The report at a sweep's end: where it goes, what is told of it, and that it costs the sweep nothing."""

import json
from pathlib import Path

import pytest
from test_sweep import QUICK, Outputs, empty_store, outputs

__all__ = ["empty_store", "outputs"]  # fixtures

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
    started = content["verdict"].startswith(("No difference shown", "Too few seeds"))
    assert started or "is better than" in content["verdict"]
    for text in (content["verdict"], *content["remarks"]):
        assert text in " ".join(answer.stdout.split())
    parent = outputs.tracked[outputs.definition["id"]].info.run_id
    files = {file.path for file in outputs.client.list_artifacts(parent, "report")}
    assert files == {
        f"report/{name}" for name in ("figures", "report.html", "report.json", "tables", "verdict.md")
    }

    # The same command: the same report. More seeds: another one.
    written = (folder / "report.html").stat().st_mtime_ns
    again = outputs.sweep(*GRID)
    assert (folder / "report.html").stat().st_mtime_ns == written
    assert content["verdict"] in " ".join(again.stdout.split())
    outputs.sweep(*GRID[:-1], "seed=range(4)")
    assert len(json.loads((folder / "report.json").read_text())["runs"]) == 8


def test_a_report_needs_no_tracking_store(outputs: Outputs) -> None:
    for tracking in ("tracking=none", "tracking.uri=http://127.0.0.1:9"):
        answer = outputs.sweep(*QUICK, "seed=range(2)", tracking)
        assert told(answer.stdout) == str(report_of(outputs) / "report.html")
        content = json.loads((report_of(outputs) / "report.json").read_text())
        assert [run["status"] for run in content["runs"]] == ["finished", "finished"]
        assert content["verdict"] in " ".join(answer.stdout.split())
        assert (
            "#/experiments/" not in (report_of(outputs) / "report.html").read_text().partition("<script>")[0]
        )


def test_a_report_is_of_all_runs_whatever_mlflow_has_of_them(outputs: Outputs) -> None:
    outputs.sweep(*QUICK, "optimizer=adam,sgd", "seed=0")
    for run in outputs.client.search_runs(["1"]):
        outputs.client.delete_run(run.info.run_id)
    outputs.sweep(*GRID)
    content = json.loads((report_of(outputs) / "report.json").read_text())
    assert [(arm["arm"], arm["judged"]) for arm in content["arms"]] == [("adam", 3), ("sgd", 3)]


def test_trials_that_are_one_run_count_once(outputs: Outputs) -> None:
    outputs.sweep(*QUICK, "optimizer=adam,sgd", "trainer.device=cpu,auto", "seed=range(2)", "tracking=none")
    content = json.loads((report_of(outputs) / "report.json").read_text())
    assert [(arm["arm"], arm["trials"], arm["judged"]) for arm in content["arms"]] == [
        ("adam", 1, 2), ("sgd", 1, 2),
    ]  # fmt: skip
    assert "2 duplicate trials ignored: same runs as an earlier trial." in content["remarks"]


def test_a_report_that_fails_costs_the_sweep_nothing(outputs: Outputs) -> None:
    outputs.with_reports = False
    outputs.sweep(*QUICK, "seed=range(2)")
    outputs.with_reports = True
    report_of(outputs).write_text("in the way")
    answer = outputs.sweep(*QUICK, "seed=range(2)")
    assert told(answer.stdout).startswith(f"none: output={report_of(outputs)}: cannot be written")
    assert outputs.definition["status"] == "finished"
    outputs.assert_tracked()
