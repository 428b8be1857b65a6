"""Whose weights stay when a sweep ends."""

import shutil

import pytest
from test_sweep import ARMS, QUICK, Outputs, empty_store, outputs

from fairsweep.config import ConfigError
from fairsweep.metrics import criteria
from fairsweep.runs import checkpoint, lookup
from fairsweep.runs.folder import RunFolder
from fairsweep.runs.status import Status
from fairsweep.sweeps.folder import Row
from fairsweep.sweeps.standing import Standing
from fairsweep.sweeps.weights import choose

__all__ = ["empty_store", "outputs"]  # fixtures


def has_weights(folder: RunFolder) -> bool:
    return any(folder.path.glob("*.pt"))


def test_the_best_and_the_confirmed_runs_keep_their_weights_and_the_champion_becomes_a_model(
    outputs: Outputs,
) -> None:
    outputs.with_models = True
    words = (*QUICK, ARMS, "trials=2", "seeds=2", "confirm=2")
    outputs.sweep(*words)
    confirmed = {(row["arm"], row["trial"]) for row in outputs.table if row["phase"] == "confirm"}
    client, tracked, champions = outputs.client, outputs.tracked, []
    for row in outputs.table:
        folder = outputs.runs[row["signature"]]
        is_best = (row["arm"], row["trial"]) in confirmed
        assert has_weights(folder) == is_best == checkpoint.stay(folder)
        run = tracked[row["signature"]]
        uploaded = {item.path for item in client.list_artifacts(run.info.run_id, "record")}
        assert ("record/best.pt" in uploaded) == is_best
        champions += [folder] if run.outputs.model_outputs else []
    (champion,) = champions
    assert champion.status().weights == "champion"
    assert float(champion.status().objective) == max(
        float(outputs.runs[row["signature"]].status().objective)
        for row in outputs.table
        if (row["arm"], row["trial"]) in confirmed and row["arm"] == best_arm(outputs)
    )
    assert has_weights(lookup.find(str(outputs.path), "best"))
    assert not list((outputs.path / "pending").iterdir())

    before = outputs.trained
    outputs.sweep(*words)
    assert outputs.trained == before
    assert {s for s, folder in outputs.runs.items() if has_weights(folder)} == {
        row["signature"] for row in outputs.table if (row["arm"], row["trial"]) in confirmed
    }


def best_arm(outputs: Outputs) -> str:
    """The arm with the best mean over the search's seeds."""
    means: dict[tuple[str, str], list[float]] = {}
    for row in outputs.table:
        if row["phase"] == "search":
            means.setdefault((row["arm"], row["trial"]), []).append(float(row["objective"]))
    return max(means, key=lambda trial: sum(means[trial]))[0]


def test_an_incomplete_sweep_keeps_the_weights_that_it_may_still_choose(outputs: Outputs) -> None:
    grid = (*QUICK, "tracking=none", "optimizer=sgd", "optimizer.lr=0.1,0.01")
    outputs.sweep(*grid, "trainer.batch_size=32,100000", status=1)
    outputs.sweep(*grid, "trainer.batch_size=32")
    finished = [folder for folder in outputs.runs.values() if folder.status().name == "finished"]
    assert [has_weights(folder) for folder in finished] == [True, True]

    outputs.sweep(*grid, "trainer.batch_size=32,16")
    assert sum(map(has_weights, outputs.runs.values())) == 3  # the first sweep has not ended


def test_best_and_latest_skip_runs_without_weights_and_say_so(
    outputs: Outputs, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs.sweep(*QUICK, "tracking=none", "optimizer=sgd", "optimizer.lr=0.1,0.000001")
    removed = next(folder for folder in outputs.runs.values() if not has_weights(folder))
    removed.set_status(ended=removed.status().ended + 1000, objective=1.0)
    for which in ("best", "latest"):
        assert has_weights(lookup.find(str(outputs.path), which))
        assert (
            f"run={which}: skipped {removed.signature}, whose weights were not kept"
            in capsys.readouterr().err
        )
    with pytest.raises(ConfigError, match=r"has no weights \(record\.keep=auto\); choose another run"):
        checkpoint.tested_file(removed)


def test_a_sweep_that_grows_has_one_champion(outputs: Outputs) -> None:
    grid = (*QUICK, "tracking=none", "optimizer=sgd")
    outputs.sweep(*grid, "optimizer.lr=0.1,0.000001")
    (first,) = [run for run in outputs.runs.values() if run.status().weights == "champion"]
    other = next(run for run in outputs.runs.values() if run.path != first.path)
    other.set_status(weights="kept", objective=1.0)
    shutil.copy(first.path / "best.pt", other.path)
    outputs.sweep(*grid, "optimizer.lr=0.1,0.000001")
    assert [run.status().weights for run in (first, other)] == ["kept", "champion"]


def test_without_a_verdict_the_champion_is_of_the_arm_that_is_ahead_on_fresh_seeds() -> None:
    """A lucky search is not enough."""
    standing = Standing(criteria({"objective": "val_accuracy"}))
    figures = {
        ("lucky", "search"): [0.99],
        ("lucky", "confirm"): [0.90, 0.91],
        ("steady", "search"): [0.95],
        ("steady", "confirm"): [0.94, 0.96],
    }
    for (arm, phase), objectives in figures.items():
        for seed, objective in enumerate(objectives):
            signature = f"{arm} {phase} {seed}"
            standing.rows.append(Row(signature, signature, arm, 0, phase, seed, {}))
            standing.statuses[signature] = Status(name="finished", objective=objective)
    assert choose(standing).champion == "steady confirm 1"
    assert choose(standing, "lucky").champion == "lucky search 0"
    standing.rows = [row for row in standing.rows if row.phase == "search"]
    assert choose(standing).champion == "lucky search 0"
