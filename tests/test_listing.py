"""`src/runs.py`: sweeps and runs as lines, what trains now, and what cleaning frees."""

import json
from pathlib import Path

from commands import unhurried
from test_cli import assert_one_line
from test_session import LONG
from test_sweep import ARMS, QUICK, Outputs, empty_store, outputs

__all__ = ["empty_store", "outputs"]  # fixtures


def listed(outputs: Outputs, *words: str) -> list[list[str]]:
    """The lines of `src/runs.py`, each as its words."""
    answer = outputs.start(*words, script="src/runs.py").wait()
    assert (answer.status, answer.stderr) == (0, "")
    return [line.split() for line in answer.stdout.splitlines()]


def report_of(outputs: Outputs) -> Path:
    return Path(outputs.definition["directory"]) / "report"


def test_a_cleaned_sweep_still_knows_its_results_and_trains_nothing(outputs: Outputs) -> None:
    words = (*QUICK, ARMS, "trials=2", "confirm=2")
    outputs.with_reports = outputs.with_models = True
    outputs.sweep(*words)
    outputs.start(*QUICK, "seed=9", single=True).wait()
    sweep, (single,) = outputs.definition["id"], [s for s, run in outputs.runs.items() if not run.sweeps()]

    parent = outputs.tracked[sweep]
    assert parent.info.run_name == "adam vs sgd · digits · mlp"
    assert "| arm | best trial | val_accuracy |" in parent.data.tags["mlflow.note.content"]
    assert [data.dataset.name for data in parent.inputs.dataset_inputs] == ["digits"]

    head, first, second, *rest = listed(outputs)
    assert head[:3] == ["id", "age", "status"]
    assert (first[0], first[3]) == (single[:8], "finished")
    assert (second[0], second[3]) == (sweep[:8], "finished")
    text = " ".join(word for line in (second, *rest) for word in line)
    what, claim = text.rpartition("digits · mlp · adam vs sgd ")[1:]
    assert what
    assert json.loads((report_of(outputs) / "report.json").read_text())["verdict"].startswith(f"{claim}:")

    of_sweep = listed(outputs, f"sweep={sweep[:5]}")
    assert [line[0] for line in of_sweep if line[0] in {s[:8] for s in outputs.runs}] == list(
        dict.fromkeys(row["signature"][:8] for row in outputs.table)
    )
    assert sum("champion" in line for line in of_sweep) == 1

    kept = {s for s, run in outputs.runs.items() if list(run.path.glob("*.pt"))}
    offer = " ".join(listed(outputs, "clean", f"sweep={sweep}", "keep=none")[-1])
    assert offer.startswith(f"{len(kept) - 1} runs, ")
    assert "their MLflow artifacts too; add yes=true" in offer
    assert {s for s, run in outputs.runs.items() if list(run.path.glob("*.pt"))} == kept
    listed(outputs, "clean", f"sweep={sweep}", "keep=none", "yes=true")
    assert {s for s, run in outputs.runs.items() if list(run.path.glob("*.pt"))} == {single}
    models = {model.source_run_id for model in outputs.client.search_logged_models(["1"])}
    assert models == {outputs.tracked[single].info.run_id}
    for run in (outputs.tracked[signature] for signature in kept - {single}):
        held = {item.path for item in outputs.client.list_artifacts(run.info.run_id, "record")}
        assert {"record/journal.jsonl"} <= held
        assert not [path for path in held if path.endswith(".pt")]
    assert " ".join(listed(outputs, "clean", f"sweep={sweep}", "keep=none")[-1]).endswith("nothing to free")

    table, before = outputs.table, outputs.trained
    repeated = outputs.sweep(*words)
    assert (outputs.table, outputs.trained) == (table, before)
    assert "models serve" not in repeated.stdout
    answer = outputs.start(f"output={outputs.path}/report", "tracking=none", script="src/compare.py").wait()
    assert answer.status == 0, answer
    answer = outputs.start(f"run={table[-1]['signature']}", "input=test:0", script="src/predict.py").wait()
    assert_one_line(answer, "has no weights (runs.py clean)")


def test_what_trains_now_is_listed_with_its_place_and_what_died_is_not(outputs: Outputs) -> None:
    nothing = f"nothing trains in {outputs.path}"
    assert " ".join(word for line in listed(outputs, "running=true") for word in line) == nothing
    command = outputs.start(*LONG, "trainer.epochs=1000", "tracking=none", single=True, before=unhurried)
    outputs.wait_for_lines(1)
    (signature,) = outputs.runs
    head, *line = listed(outputs, "running=true")
    assert head == ["id", "epoch", "for", "host", "device", "sweep", "run"]
    assert line[0][0] == signature[:8]
    assert "cpu" in line[0]
    command.kill()
    assert " ".join(word for line in listed(outputs, "running=true") for word in line) == nothing
    assert listed(outputs)[1][3] == "died"


def test_a_sweep_with_runs_of_another_one_frees_only_its_own(outputs: Outputs) -> None:
    grid = (*QUICK, "tracking=none", "record.keep=weights", "optimizer=sgd")
    outputs.sweep(*grid, "optimizer.lr=0.1,0.01")
    first = outputs.definition["id"]
    outputs.sweep(*grid, "optimizer.lr=0.01,0.001")
    offer = [" ".join(line) for line in listed(outputs, "clean", f"sweep={first}", "keep=none", "yes=true")]
    assert "1 run untouched: part of other sweeps, too" in offer
    weights = {run.config().optimizer.lr: bool(list(run.path.glob("*.pt"))) for run in outputs.runs.values()}
    assert weights == {0.1: False, 0.01: True, 0.001: True}


def test_cleaning_says_what_it_needs(outputs: Outputs) -> None:
    for words, text in (
        (("clean",), "clean: needs sweep=...; `python src/runs.py` lists the sweeps"),
        (("yes=true",), "yes=true: confirms `clean`; write: clean sweep=... yes=true"),
        (("clean", "sweep=s1", "keep=some"), 'keep="some": must be best | none'),
        (("sweep=s1",), "sweep=s1: no sweeps of that name"),
    ):
        assert_one_line(outputs.start(*words, script="src/runs.py").wait(), text)


def test_a_sweep_with_a_damaged_plan_is_named_and_the_others_are_listed(outputs: Outputs) -> None:
    grid = (*QUICK, "tracking=none", "optimizer=sgd")
    outputs.sweep(*grid, "optimizer.lr=0.1,0.01")
    damaged = Path(outputs.definition["directory"])
    outputs.sweep(*grid, "optimizer.lr=0.2,0.02")
    (damaged / "plan.jsonl").write_text('{"a"\n')
    answer = outputs.start(script="src/runs.py").wait()
    assert answer.stderr == f"{damaged}/plan.jsonl: is damaged: not JSON; {damaged.name} is not listed\n"
    assert outputs.definition["id"][:8] in answer.stdout
