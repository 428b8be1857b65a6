"""Tables out of a tracking store: a sweep as it was written, and clear lines where there is none."""

import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from servers import mlflow_server
from studies import Arm, study, upload

from fairsweep.compare.load import Tables
from fairsweep.compare.mlflow_source import MlflowRuns
from fairsweep.compare.mlflow_tables import load, parent_of
from fairsweep.config import ConfigError

ARMS = {"adam": Arm((1e-3, 1e-2), best=1e-3), "sgd": Arm((1e-2, 1.0), best=1e-2, diverges=0.5)}

# What MLflow decides, or the store does not keep to the last bit.
OWN = ("run", "experiment", "started", "seconds")


@dataclasses.dataclass
class Store:
    folder: Path
    uri: str
    written: Tables
    client: MlflowClient

    def load(self, *sweeps: str, **how: str) -> Tables:
        return load(self.uri, str(self.folder), sweeps, **how)

    def runs_of(self, sweep: str) -> list[str]:
        found = self.client.search_runs(["1"], f"tags.`sweep.{sweep}` LIKE '%'")
        return [run.info.run_id for run in found]


def named(tables: Tables, sweep: str, started: float, **runs: object) -> Tables:
    definition = {**tables.sweeps[0], "id": sweep, "started": started}
    return dataclasses.replace(tables, runs=tables.runs.assign(sweep=sweep, **runs), sweeps=[definition])


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a sweep of two arms, and an older one that has no arms."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    small = study(ARMS, seeds=range(2), confirm=range(100, 102), epochs=3)
    small.runs.loc[[0, 1], "reused"] = True
    upload(named(small, "older0", 1.78e9, arm="", values=[{}] * len(small.runs)), uri, folder / "artifacts")
    upload(small, uri, folder / "artifacts")
    return Store(folder, uri, small, MlflowClient(uri))


@pytest.fixture
def store(written: Store, tmp_path: Path) -> Store:
    """A copy of it, to be changed."""
    shutil.copy(written.folder / "mlflow.db", tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return Store(tmp_path, uri, written.written, MlflowClient(uri))


def test_the_newest_sweep_comes_back_as_it_was_written(written: Store) -> None:
    tables, expected = written.load(), written.written
    assert tables.what == "sweep made0up0"
    assert tables.sweeps == expected.sweeps
    assert (tables.objective, tables.notes) == ("val_accuracy", [])
    columns = [column for column in expected.runs if column not in OWN]
    pd.testing.assert_frame_equal(tables.runs[columns], expected.runs[columns], check_dtype=False)
    seconds = tables.runs["seconds"].tolist()
    assert seconds == pytest.approx(expected.runs["seconds"].tolist(), abs=0.002)
    params = tables.params.loc[tables.runs["run"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        params, expected.params.loc[expected.runs["run"]].reset_index(drop=True), check_like=True
    )


def test_curves_come_back_for_the_runs_that_are_asked_for(written: Store) -> None:
    tables, expected = written.load(), written.written
    rows = tables.runs.index[tables.runs["phase"] == "confirm"]
    of_run = dict(zip(tables.runs["run"], expected.runs["run"], strict=True))
    curves = tables.curves(tables.runs.loc[rows, "run"].tolist())
    curves["run"] = curves["run"].map(of_run)
    wanted = expected.curves(expected.runs.loc[rows, "run"].tolist())
    by = ["run", "step"]
    pd.testing.assert_frame_equal(
        curves.sort_values(by, ignore_index=True),
        wanted.sort_values(by, ignore_index=True),
        check_like=True,
        check_dtype=False,
    )


def test_runs_that_were_trained_again_are_left_out(store: Store) -> None:
    gone = store.runs_of("made0up0")[:2]
    for run in gone:
        store.client.set_tag(run, "superseded", "true")
    tables = store.load("made0up0")
    assert not set(gone) & set(tables.runs["run"])
    assert tables.notes == ["2 runs trained again since: the old record is omitted."]


def test_a_run_that_is_there_twice_counts_once_and_the_ended_one_it_is(store: Store) -> None:
    before = store.load("made0up0").runs
    run = store.client.get_run(before["run"][0])
    again = store.client.create_run("1", tags={**run.data.tags, "status": "running"}).info.run_id
    tables = store.load("made0up0")
    assert tables.runs["run"].tolist() == before["run"].tolist()
    assert again not in set(tables.runs["run"])
    assert tables.notes == ["1 duplicate run ignored."]


def test_a_sweep_that_has_just_begun_needs_no_definition(store: Store) -> None:
    parent = parent_of(MlflowRuns(store.uri, str(store.folder)), "made0up0").info.run_id
    artifacts = Path(store.client.get_run(parent).info.artifact_uri.removeprefix("file://"))
    shutil.move(artifacts / "sweep.json", store.folder)
    store.client.set_tag(parent, "status", "running")
    store.client.set_tag(store.runs_of("made0up0")[0], "status", "running")
    try:
        tables = store.load()
    finally:
        shutil.move(store.folder / "sweep.json", artifacts)
    assert tables.sweeps == [{"id": "made0up0", "status": "running"}]
    running = tables.runs[tables.runs["status"] == "running"]
    assert running[["objective", "test_accuracy", "test_loss"]].isna().all(axis=None)


def test_without_arms_the_optimizer_is_the_arm_and_what_varies_a_trial(written: Store) -> None:
    tables = written.load("older0")
    given = written.written.runs.copy()
    tried = {"adam": {"0.001": 0, "0.01": 1}, "sgd": {"0.01": 0, "1": 1}}
    for runs in (tables.runs, given):
        runs["lr"] = runs["values"].str["optimizer.lr"]
    assert {
        arm: dict(zip(own["lr"], own["trial"], strict=True)) for arm, own in tables.runs.groupby("arm")
    } == tried
    keys = ["arm", "lr", "seed"]
    assert sorted(map(tuple, tables.runs[keys].to_numpy())) == sorted(map(tuple, given[keys].to_numpy()))
    assert set(tables.runs["phase"]) == {"search"}
    assert tables.notes == ["The runs have no arms: their optimizers are compared instead."]


def test_an_experiment_and_a_filter_find_runs_of_any_sweep(written: Store) -> None:
    everything = written.load(experiment="fairsweep")
    runs = len(written.written.runs)  # those of the other sweep have the same signatures
    assert len(everything.runs) == runs
    assert everything.notes[0] == f"{runs} duplicate runs ignored."
    assert everything.sweeps == []
    slow = written.load(where="params.`optimizer.lr` = '0.01'")
    assert set(slow.runs["arm"]) == {"adam", "sgd"}
    assert set(slow.runs["values"].map(len)) == {0}


def test_arms_of_one_name_in_two_sweeps_are_told_apart(store: Store) -> None:
    again = named(store.written, "another1", 1.77e9)
    upload(again, store.uri, store.folder / "artifacts")
    tables = store.load("made0up0", "another1")
    assert set(tables.runs["arm"]) == {
        f"{arm} [{sweep}]" for arm in ARMS for sweep in ("made0up0", "another1")
    }
    assert tables.what == "sweeps made0up0, another1"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"sweeps": ["nothere"]},
            r"sweep=nothere: not in sqlite:.* \(run with tracking=none\?\); there are latest, made0up0,",
        ),
        ({"sweeps": ["it's"]}, "sweep=it's: must be latest or the id of a sweep"),
        ({"experiment": "other"}, "experiment=other: must be one of Default, fairsweep"),
        ({"where": "metrics.x ="}, "filter=metrics.x =: "),
        ({"where": "tags.arm = 'nobody'"}, "filter=tags.arm = 'nobody' in sqlite:.*: finds no runs"),
        (
            {"uri": "sqlite:////nowhere/mlflow.db"},
            "tracking.uri=sqlite:////nowhere/mlflow.db: no such database",
        ),
        ({"uri": "http://127.0.0.1:9"}, "tracking.uri=http://127.0.0.1:9: .*is the tracking server running"),
        (
            {"uri": "postgresql://u:p@127.0.0.1:9/x"},
            "tracking.uri=postgresql://127.0.0.1:9/x: does not answer; is the database server running",
        ),
    ],
)
def test_a_mistake_is_told_in_a_line(written: Store, how: dict[str, str], said: str) -> None:
    arguments = {"uri": written.uri, "directory": str(written.folder), **how}
    with pytest.raises(ConfigError, match=f"^{said}") as caught:
        load(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_beginning_of_an_id_will_do_where_it_is_of_one_sweep(store: Store) -> None:
    assert store.load("made").what == "sweep made0up0"
    upload(named(store.written, "made1", 1.77e9), store.uri, store.folder / "artifacts")
    with pytest.raises(ConfigError, match=r"sweep=made: matches several in sqlite:.*: made0up0, made1"):
        store.load("made")


def test_a_store_without_sweeps_says_so(store: Store) -> None:
    for run in store.client.search_runs(["1"], "tags.fairsweep_sweep LIKE '%'"):
        store.client.delete_run(run.info.run_id)
    with pytest.raises(ConfigError, match=r"sweep=latest: no sweep in sqlite.*; start one with"):
        store.load()


def test_a_sweep_without_runs_says_so(store: Store) -> None:
    store.client.create_run("1", tags={"fairsweep_sweep": "new0", "status": "running"})
    with pytest.raises(ConfigError, match=r"sweep new0 in sqlite.*: has no runs yet; wait for the first"):
        store.load()


def test_runs_of_two_objectives_are_refused(store: Store) -> None:
    run = store.client.create_run("1", tags={"signature": "x", "sweep.made0up0": "[]"})
    store.client.log_param(run.info.run_id, "objective", "val_loss")
    with pytest.raises(ConfigError, match="select by val_accuracy and val_loss"):
        store.load(experiment="fairsweep")


@pytest.fixture
def server(written: Store, tmp_path: Path) -> Iterator[str]:
    """A tracking server over the store."""
    with mlflow_server(tmp_path, written.uri) as made:
        yield made.uri


def test_the_uri_of_a_database_may_have_settings(written: Store) -> None:
    with_settings = load(f"{written.uri}?timeout=30", str(written.folder), ())
    pd.testing.assert_frame_equal(written.load().runs, with_settings.runs)


@pytest.mark.slow
def test_a_server_gives_the_same_tables(written: Store, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = written.load(), load(server, str(written.folder))
    pd.testing.assert_frame_equal(here.runs, there.runs)
    pd.testing.assert_frame_equal(here.params.sort_index(), there.params.sort_index(), check_like=True)
    assert (here.sweeps, there.uri) == (there.sweeps, server)
    some = here.runs["run"].tolist()
    wanted = here.curves(some)
    pd.testing.assert_frame_equal(wanted, there.curves(some))
    # Histories longer than the server gives at once, and more runs than it takes at once.
    monkeypatch.setattr("fairsweep.compare.mlflow_source.VALUES", 2)
    monkeypatch.setattr("fairsweep.compare.mlflow_source.RUNS", 3)
    pd.testing.assert_frame_equal(wanted, there.curves(some))
    assert math.isfinite(wanted["seconds"].sum())
