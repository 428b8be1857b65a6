"""Reports of sweeps that were begun here: from their folders, whatever is missing, damaged or not begun."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from test_sweep import ARMS, QUICK, empty_store, outputs_in

from fairsweep.compare import folder_source, mlflow_tables, report
from fairsweep.compare.analysis import find
from fairsweep.compare.findings import TRAINING, Findings, ReportSettings
from fairsweep.compare.load import Tables
from fairsweep.sweeps.folder import SweepFolder

__all__ = ["empty_store"]  # fixtures

RUNS = 8  # two arms, each with two trials of one seed, and two seeds of the best


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Path]:
    """A `record.dir` with a sweep of two arms."""
    with outputs_in(tmp_path_factory.mktemp("swept") / "outputs", empty_store) as made:
        made.sweep(*QUICK, ARMS, "trials=2", "confirm=2")
        yield made.path


@pytest.fixture
def sweep(swept: Path, tmp_path: Path) -> SweepFolder:
    """The folder of a copy of it, to be changed."""
    shutil.copytree(swept, tmp_path / "outputs")
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    return SweepFolder(folder, tmp_path / "outputs")


def uri(outputs: Path) -> str:
    return f"sqlite:///{outputs}/mlflow.db"


def of_mlflow(outputs: Path) -> Tables:
    return mlflow_tables.load(uri(outputs), str(outputs))


def of_folder(sweep: SweepFolder) -> Findings:
    return find(folder_source.load([sweep], None), ReportSettings())


def test_a_sweeps_folder_gives_the_tables_that_mlflow_gives(swept: Path) -> None:
    (folder,) = (swept / "sweeps").iterdir()
    here, there = folder_source.load([SweepFolder(folder, swept)], uri(swept)), of_mlflow(swept)
    different = ["experiment", "name", "started", "reason"]  # MLflow rounds times
    pd.testing.assert_frame_equal(
        here.runs.drop(columns=different), there.runs.drop(columns=different), check_exact=False
    )
    assert here.runs["started"].tolist() == pytest.approx(there.runs["started"].tolist(), abs=0.001)
    pd.testing.assert_frame_equal(here.params.sort_index(), there.params.sort_index(), check_like=True)
    runs = here.runs["run"].tolist()
    by = ["run", "step"]
    pd.testing.assert_frame_equal(
        here.curves(runs).sort_values(by, ignore_index=True),
        there.curves(runs).sort_values(by, ignore_index=True),
        check_dtype=False,
    )
    assert (here.objective, here.what, here.uri, here.missing) == (
        there.objective, there.what, there.uri, there.missing,
    )  # fmt: skip


def test_links_lead_to_the_runs_that_mlflow_is_known_to_have(sweep: SweepFolder) -> None:
    runs = folder_source.load([sweep], uri(sweep.outputs)).runs
    folder = sweep.run(runs["signature"][0])
    states = json.loads((folder.path / "tracking.json").read_text())
    for state in states.values():
        state["experiment"] = "7"
    (folder.path / "tracking.json").write_text(json.dumps({uri(sweep.outputs): state}))
    found = find(folder_source.load([sweep], uri(sweep.outputs)), ReportSettings(ui="http://ui"))
    first = found.tables.runs.iloc[0]
    assert (
        found.run_url(first["experiment"], first["run"])
        == f"http://ui/#/experiments/7/runs/{state['run_id']}?{TRAINING}"
    )
    (folder.path / "tracking.json").unlink()
    assert [text for text, _ in of_folder(sweep).links()] == []


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(b"\x00\xff{]: [\n\t")


@pytest.mark.parametrize("damage", [remove, empty, garble])
@pytest.mark.parametrize(
    "name", ["status.json", "config.yaml", "journal.jsonl", "tracking.json", "sweeps.json"]
)
def test_no_damage_to_a_run_costs_the_report_more_than_that_run(
    sweep: SweepFolder, name: str, damage: Callable[[Path], None]
) -> None:
    row = next(row for row in sweep.rows() if (row.arm, row.phase) == ("adam", "confirm"))
    damage(sweep.run(row.signature).path / name)
    found = find(folder_source.load([sweep], uri(sweep.outputs)), ReportSettings())
    known = found.tables.runs.set_index("signature")["status"]
    if name in ("tracking.json", "sweeps.json"):
        assert not found.tables.missing
        return
    where = sweep.outputs / "runs"
    assert found.verdict == (
        f"No verdict yet: 1 of {RUNS} runs of sweep {sweep.path.name} is missing in {where}: {row.name}; "
        "repeat the sweep's command to train what is missing."
    )
    assert known[known == "missing"].index.tolist() == [row.signature]
    assert (found.comparisons, found.best) == ([], None)


def test_a_sweep_of_before_has_a_report(sweep: SweepFolder) -> None:
    content = sweep.read()
    del content["weights"]
    sweep.write(content)
    assert of_folder(sweep).tables.missing == ""


def test_a_missing_seed_keeps_a_trial_from_being_chosen(sweep: SweepFolder) -> None:
    before = of_folder(sweep)
    row = next(
        r for r in sweep.rows() if (r.arm, r.phase, r.trial) == ("adam", "search", before.chosen["adam"])
    )
    shutil.rmtree(sweep.run(row.signature).path)
    after = of_folder(sweep)
    assert after.trials.loc[("adam", row.trial), "kind"] == "incomplete"


def test_a_sweep_that_was_stopped_in_its_first_confirm_run_has_a_report(
    sweep: SweepFolder, tmp_path: Path
) -> None:
    first, *others = [row.signature for row in sweep.rows() if row.phase == "confirm"]
    for signature in others:
        shutil.rmtree(sweep.run(signature).path)
    sweep.run(first).set_status(name="interrupted", test={}, objective=None)
    sweep.set(status="interrupted")
    found = report.write(folder_source.load([sweep], None), ReportSettings(), tmp_path / "report")
    assert found.verdict.startswith(f"No verdict yet: 3 of {RUNS} runs")
    sweep.set(status="running")
    found = report.write(folder_source.load([sweep], None), ReportSettings(), tmp_path / "report")
    assert found.verdict.startswith(f"No verdict yet: 3 of {RUNS} runs")  # its process died
    with sweep.lock(sweep.path.name):  # what is missing is being trained
        found = report.write(folder_source.load([sweep], None), ReportSettings(), tmp_path / "report")
    assert found.verdict.startswith("So far: No verdict: none of the runs that decide it has a test accuracy")
    assert any("3 waiting" in remark for remark in found.remarks)


def test_a_run_that_serves_two_arms_is_in_both(sweep: SweepFolder, tmp_path: Path) -> None:
    sweep.has_planned = True
    of_adam = [row for row in sweep.rows() if row.arm == "adam"]
    sweep.add([row._replace(arm="twin") for row in of_adam])
    found = report.write(folder_source.load([sweep], None), ReportSettings(), tmp_path / "report")
    assert found.results["twin"].equals(found.results["adam"])


# What MLflow has of a sweep


def test_what_mlflow_does_not_have_of_a_sweep_is_said_first(sweep: SweepFolder) -> None:
    client = MlflowClient(uri(sweep.outputs))
    gone = [next(row for row in sweep.rows() if row.phase == "confirm"), sweep.rows()[0]]
    for row in gone:
        (run,) = client.search_runs(["1"], f"tags.signature = '{row.signature}'")
        client.delete_run(run.info.run_id)
    tables = of_mlflow(sweep.outputs)
    found = find(tables, ReportSettings())
    assert found.verdict.startswith(
        f"No verdict yet: 2 of {RUNS} runs of sweep {sweep.path.name} are missing in {uri(sweep.outputs)}: "
        f"{gone[1].name}, {gone[0].name}; repeat the sweep's command where it was started "
    )
    assert (found.comparisons, found.best) == ([], None)
    assert tables.runs["status"].value_counts()["missing"] == 2


def test_a_garbled_tag_is_named_and_a_plan_makes_up_for_it(sweep: SweepFolder) -> None:
    client = MlflowClient(uri(sweep.outputs))
    before = of_mlflow(sweep.outputs)
    run = before.runs["run"][0]
    client.set_tag(run, f"sweep.{sweep.path.name}", '[{"arm": "ad')
    pd.testing.assert_frame_equal(of_mlflow(sweep.outputs).runs, before.runs)
    (parent,) = client.search_runs(["1"], "tags.fairsweep_sweep LIKE '%'")
    client.set_tag(parent.info.run_id, "status", "running")  # so it has no plan yet
    tables = of_mlflow(sweep.outputs)
    assert f"Run {run} is omitted: its tag sweep.{sweep.path.name} is not readable." in tables.notes
    assert len(tables.runs) == RUNS - 1
    client.set_tag(run, f"sweep.{sweep.path.name}", '[{"arm": "adam"}]')
    assert of_mlflow(sweep.outputs).notes == tables.notes


def test_a_status_that_nobody_knows_is_named_and_is_no_result(sweep: SweepFolder) -> None:
    client = MlflowClient(uri(sweep.outputs))
    run = of_mlflow(sweep.outputs).runs["run"][0]
    client.set_tag(run, "status", "\x1b[31mgone")
    found = find(of_mlflow(sweep.outputs), ReportSettings())
    assert f"1 run of unknown status counted as having no result: {run} (\\x1b[31mgone)." in found.remarks


def test_seconds_are_those_of_training_and_may_be_shared(sweep: SweepFolder) -> None:
    """Not MLflow's end less its start."""
    client = MlflowClient(uri(sweep.outputs))
    tables = of_mlflow(sweep.outputs)
    row = tables.runs.iloc[0]
    assert row["seconds"] == sweep.run(row["signature"]).status().seconds
    client.log_metric(row["run"], "time/training_seconds", 1234.5, step=10**6)
    client.set_tag(row["run"], "shared_seconds", "true")
    first = of_mlflow(sweep.outputs).runs.iloc[0]
    assert (first["seconds"], first["shared"]) == (1234.5, True)


def test_whether_a_sweep_is_in_progress_is_seen_without_writing(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweeps" / "s0", tmp_path)
    assert not folder.is_held("s0")
    assert not list(tmp_path.iterdir())
    with folder.lock("s0"):
        assert folder.is_held("s0")
    assert not folder.is_held("s0")
