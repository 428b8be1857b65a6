"""Metrics: what there is, what may be asked for, what they compute, what selects and what judges."""

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from sklearn import metrics as sklearn
from test_sweep import ARMS, Outputs, empty_store, outputs

from fairsweep.config import ConfigError, check, resolved, signature
from fairsweep.metrics import KNOWN, criteria, metric_of, tracked, untracked
from fairsweep.runs.status import Status, read_status
from fairsweep.training.lane import Lane
from fairsweep.training.loop import fit
from fairsweep.training.scores import Scores

__all__ = ["empty_store", "outputs"]  # fixtures

Compose = Callable[..., DictConfig]

QUICK = ("model=mlp", "model.widths=[16]", "data.limit=200", "trainer.epochs=2")

# A package of the user's own.
SOURCE = """
import torch

def top2(outputs, targets):
    return (outputs.topk(2, 1).indices == targets[:, None]).any(1).double().mean()

def place(outputs, targets, best=1):
    mine = outputs.gather(1, targets[:, None])
    return float((outputs >= mine).sum(1).double().mean()) - 1 + best

def percent(outputs, targets):
    return 87.3

def several(outputs, targets):
    return targets

def broken(outputs, targets):
    raise ZeroDivisionError("out of luck")

def greedy(outputs, targets, weights):
    return 0.5

def alone(outputs):
    return 0.5

def spoiling(outputs, targets):
    outputs.zero_()
    return 0.5

def undefined(outputs, targets):
    return float("nan")

class Later:
    calls = 0

def undefined_later(outputs, targets):
    Later.calls += 1
    return 0.5 if Later.calls < 3 else float("nan")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an importable package `mine`."""
    folder = tmp_path / "home"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "scores.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def importable(folder: str) -> None:
    sys.path.insert(0, folder)


def own(name: str, **more: str) -> tuple[str, ...]:
    words = {"_target_": f"mine.scores.{name}", **more}
    return tuple(f"+metrics.{name}.{key}={value}" for key, value in words.items())


# What there is


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("val_f1", "val/f1"),
        ("test_f1", "test/f1"),
        ("epoch_test_f1", "test/epoch_f1"),
        ("train_loss", "train/loss"),
        ("epoch_train_accuracy", "train/epoch_accuracy"),
        ("lr", "train/lr"),
        ("training_seconds", "time/training_seconds"),
        ("epoch_seconds", "time/epoch_seconds"),
        ("images_per_second", "time/images_per_second"),
        ("objective", "objective"),
        ("system/cpu", "system/cpu"),
    ],
)
def test_mlflow_names_follow_one_rule_in_both_directions(key: str, name: str) -> None:
    assert tracked(key) == name
    assert untracked(name) == key
    assert untracked(key) == key  # of an earlier version


def test_the_objectives_counterpart_judges_unless_told_otherwise() -> None:
    given = {"objective": "val_loss", "judge": None, "metrics": {}}
    assert criteria(given).judge == "test_loss"
    assert criteria({**given, "judge": "test_f1"}).judge == "test_f1"
    assert criteria({"objective": "val_loss"}).judge == "test_accuracy"  # a record from before


def test_values_and_differences_are_written_by_unit_and_size() -> None:
    loss, mae, f1 = KNOWN["loss"], KNOWN["mae"], KNOWN["f1"]
    assert [f1.text(0.9792), loss.text(0.0834), mae.text(20431.77), mae.text(math.nan)] == [
        "97.92%", "0.0834", "20432", "none",
    ]  # fmt: skip
    assert mae.text(0.0000123) == "1.2e-05"
    assert f1.difference(-0.0123) == "\N{MINUS SIGN}1.23 points"
    assert mae.difference(12.5) == "12.500"
    assert mae.difference(3.1234, like=4321.0) == "3.1"
    assert mae.spread(20431.77, 12.04) == "20432 ± 12"
    assert (f1.worst, mae.worst) == (-math.inf, math.inf)


def test_chance_corrected_accuracy_may_be_negative() -> None:
    assert metric_of("val_balanced_accuracy", {"balanced_accuracy": {"adjusted": True}}).low == -1
    assert metric_of("val_balanced_accuracy", {}).low == 0


# What may be asked for

REFUSED: dict[tuple[str, ...], str] = {
    (
        "objective=val_acuracy",
    ): r'objective="val_acuracy": .* did you mean .val_accuracy.\? \(allowed: val_acc',
    ("judge=test_matthews_corrcoef",): "did you mean 'test_mcc'",
    ("objective=val_top2",): "your own: see metrics in conf/train.yaml",
    ("+metrics.top2={}",): "metrics.top2: there is no such metric",
    ("+metrics.f1=weighted",): 'metrics.f1="weighted": must be a mapping of arguments, or {}',
    ("metrics=3",): "metrics=3: must be a mapping",
    ("+metrics.f1.avrage=macro",): "metrics.f1.avrage: .*; did you mean 'average'",
    ("+metrics.accuracy._target_=mine.scores.top2",): "metrics.accuracy: must have another name",
    ("+metrics.val_x._target_=mine.scores.top2",): "metrics.val_x: must have another name",
    own("top2", better="up"): r'metrics.top2.better="up": must be higher \| lower',
    own("top2", unit="m"): r'metrics.top2.unit="m": must be ',
    ("+metrics.top2._target_=top2",): 'metrics.top2._target_="top2": must be the dotted name',
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_metric_that_cannot_be_is_told_in_one_line(words: tuple[str, ...], compose: Compose) -> None:
    with pytest.raises(ConfigError, match=REFUSED[words]) as caught:
        check(compose(*words))
    assert "\n" not in str(caught.value)


def test_a_run_keeps_its_signature_unless_metrics_or_a_judge_are_given(compose: Compose) -> None:
    def name(*words: str) -> str:
        return signature(resolved(compose(*words)), "content")

    values = resolved(compose())
    before = {key: value for key, value in values.items() if key not in ("judge", "metrics")}
    assert signature(before, "content") == name() == name("judge=null")
    others = [name(*words) for words in (("+metrics.f1={}",), ("judge=test_loss",), ("+metrics.mcc={}",))]
    assert len({name(), *others}) == 4


UNFIT: dict[tuple[str, ...], str] = {
    ("objective=val_r2",): "objective=val_r2: r2 is a metric of regression",
    ("+metrics.mae={}",): "metrics.mae: mae is a metric of regression",
    ("+metrics.f1.average=best",): "metrics.f1: fails on the validation data: The 'average' parameter",
    ("+metrics.f1.average=binary",): "metrics.f1: fails on the validation data: Target is multiclass",
    ("+metrics.x._target_=mine.scores.missing",): "mine.scores has no missing",
    ("+metrics.x._target_=nowhere.at.all",): "metrics.x._target_=nowhere.at.all: no module named",
    ("+metrics.x._target_=os.system",): "metrics.x._target_=os.system: is in Python's standard library",
    ("+metrics.x._target_=torch.argmax",): "metrics.x._target_=torch.argmax: must be a Python function of",
    own("greedy"): "must take .outputs, targets. and metrics.greedy's arguments: .*weights",
    own("alone"): "must take .outputs, targets.",
    own("top2", k="3"): "metrics.top2.k: mine.scores.top2 has no such argument",
    own("several"): "metrics.several: must give a number, gives tensor",
    own("percent", unit='"%"'): "metrics.percent.unit=%: must give a share, from 0 to 1, gives 87.3",
    own("broken"): "metrics.broken: fails on the validation data: out of luck",
    (
        *own("undefined"),
        "objective=val_undefined",
    ): "objective=val_undefined: is undefined in validation: it is nan for random outputs",
    (
        "objective=val_roc_auc",
        "data.val_size=5",
    ): "objective=val_roc_auc: is undefined in validation: there is no example among 5 of class '0'",
    (
        "judge=test_average_precision",
        "data.test_size=5",
    ): "judge=test_average_precision: is undefined in test: there is no example",
}


@pytest.mark.parametrize("words", UNFIT)
def test_a_metric_that_does_not_fit_is_told_before_training(
    words: tuple[str, ...], compose: Compose, mine: Path
) -> None:
    with pytest.raises(ConfigError, match=UNFIT[words]) as caught:
        Lane(compose(*QUICK, *words))
    assert "\n" not in str(caught.value)


# What they compute


def scores(compose: Compose, task: str, size: int, *words: str, defaults: tuple[str, ...] = ()) -> Scores:
    return Scores(compose(*words), task, size, defaults, counted=["loss", "accuracy"])


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_of_classes_are_scikit_learns(classes: int, compose: Compose) -> None:
    names = (
        "balanced_accuracy",
        "f1",
        "precision",
        "recall",
        "mcc",
        "roc_auc",
        "average_precision",
        "log_loss",
    )
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(60, classes, generator=generator)
    targets = torch.randint(classes, (60,), generator=generator)
    found = scores(compose, "classification", classes, *(f"+metrics.{n}={{}}" for n in names))(
        outputs, targets
    )

    true, guess, shares = targets.numpy(), outputs.argmax(1).numpy(), outputs.double().softmax(1).numpy()
    average = "binary" if classes == 2 else "macro"
    of_each = [sklearn.average_precision_score(true == c, shares[:, c]) for c in range(classes)]
    expected = {
        "balanced_accuracy": sklearn.balanced_accuracy_score(true, guess),
        "f1": sklearn.f1_score(true, guess, average=average),
        "precision": sklearn.precision_score(true, guess, average=average),
        "recall": sklearn.recall_score(true, guess, average=average),
        "mcc": sklearn.matthews_corrcoef(true, guess),
        "roc_auc": sklearn.roc_auc_score(true, shares[:, 1])
        if classes == 2
        else sklearn.roc_auc_score(true, shares, multi_class="ovr"),
        "average_precision": of_each[1] if classes == 2 else sum(of_each) / classes,
        "log_loss": sklearn.log_loss(true, shares),
    }
    assert found == pytest.approx(expected)


def test_metrics_of_numbers_are_scikit_learns_in_the_targets_unit(compose: Compose) -> None:
    outputs, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0], [7.0]])
    words = ("objective=val_mae", "+metrics.mse={}")
    found = scores(compose, "regression", 1, *words, defaults=("r2", "mae", "rmse"))(outputs, targets)
    assert found == pytest.approx({"r2": 1 - 9 / (62 / 3), "mae": 1.0, "rmse": math.sqrt(3), "mse": 3.0})


def test_arguments_reach_scikit_learn(compose: Compose) -> None:
    outputs, targets = torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 1, 2, 2])
    found = scores(compose, "classification", 3, "+metrics.f1.average=weighted")(outputs, targets)
    assert found["f1"] == pytest.approx(sklearn.f1_score([0, 1, 2, 2], [0, 1, 1, 2], average="weighted"))


def test_what_is_undefined_is_never_a_number(compose: Compose) -> None:
    given = scores(compose, "regression", 2, defaults=("r2", "mae"))
    targets = torch.tensor([[1.0, 5.0], [2.0, 5.0]])
    assert math.isnan(given(targets, targets)["r2"])  # scikit-learn says 1
    given.check("validation", targets, ["a", "b"])
    assert given.notes == ["R² is undefined in validation: all 2 values are the same of target 'b'"]
    chosen = scores(compose, "regression", 2, "objective=val_r2")
    with pytest.raises(
        ConfigError,
        match="objective=val_r2: is undefined in validation: all 2 values are the same of target 1",
    ):
        chosen.check("validation", targets)


def test_an_undefined_metric_that_decides_nothing_is_noted(outputs: Outputs) -> None:
    answer = outputs.start(*QUICK, "data.val_size=5", "+metrics.roc_auc={}", single=True).wait()
    assert "ROC AUC is undefined in validation: there is no example among 5 of class '0'" in answer.stdout
    (folder,) = outputs.runs.values()
    assert [line["val_roc_auc"] for line in folder.journal() if "val_loss" in line] == [None, None]
    shown = outputs.tracked[folder.signature].data.metrics
    assert "test/roc_auc" in shown
    assert "val/roc_auc" not in shown


def test_no_function_changes_what_the_next_one_sees(compose: Compose, mine: Path) -> None:
    outputs, targets = torch.eye(3)[[2, 1, 0]], torch.tensor([2, 1, 0])
    given = scores(compose, "classification", 3, *own("spoiling"), "+metrics.f1={}", *own("top2"))
    assert given(outputs, targets) == {"spoiling": 0.5, "f1": 1.0, "top2": 1.0}
    assert outputs.sum() == 3


def test_nothing_is_computed_of_outputs_that_are_not_numbers(compose: Compose) -> None:
    given = scores(compose, "classification", 3, "+metrics.roc_auc={}", "+metrics.f1={}")
    for value in (math.nan, math.inf):
        figures = given(torch.full((3, 3), value), torch.tensor([0, 1, 2]))
        assert all(map(math.isnan, figures.values()))
    masked = torch.eye(3).masked_fill(torch.eye(3) == 0, -math.inf)  # logits of impossible classes
    assert given(masked, torch.tensor([0, 1, 2])) == {"roc_auc": 1.0, "f1": 1.0}
    rmse = scores(compose, "regression", 1, "objective=val_rmse")
    assert math.isnan(rmse(torch.tensor([[math.inf], [1.0]]), torch.tensor([[0.0], [1.0]]))["rmse"])


def test_examples_of_which_a_model_is_nearly_certain_are_still_ranked(compose: Compose) -> None:
    given = scores(compose, "classification", 2, "+metrics.roc_auc={}")
    certain = torch.tensor([[0.0, 60.0], [0.0, 50.0], [0.0, 40.0], [0.0, -math.inf]])  # shares of 1, 1, 1, 0
    assert given(certain, torch.tensor([1, 1, 0, 0])) == {"roc_auc": 1.0}


def test_an_objective_that_becomes_undefined_fails_the_run_and_says_so(compose: Compose, mine: Path) -> None:
    lane = Lane(compose(*QUICK, *own("undefined_later"), "objective=val_undefined_later"))
    for _ in fit([lane]):
        pass
    assert lane.ending is not None
    assert lane.ending.status == "failed"
    assert lane.ending.reason.startswith("val_undefined_later after step ")


def test_more_metrics_leave_the_training_alone(compose: Compose) -> None:
    plain, more = (Lane(compose(*QUICK, *words)) for words in ((), ("+metrics.f1={}", "+metrics.roc_auc={}")))
    for lane in (plain, more):
        for _ in fit([lane]):
            pass
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, more.model.state_dict()[name])


# Whole commands


def test_f1_selects_and_judges_a_run(outputs: Outputs) -> None:
    answer = outputs.start(
        *QUICK, "objective=val_f1", "trainer.test_each_epoch=true", "record.pictures=all", single=True
    ).wait()
    assert answer.status == 0, answer
    (folder,) = outputs.runs.values()
    status, journal = folder.status(), folder.journal()
    epochs = [line for line in journal if "val_f1" in line]
    assert status.objective == max(line["val_f1"] for line in epochs)
    assert all({"val_accuracy", "epoch_test_f1"} <= line.keys() for line in epochs)
    assert status.judged == status.test["f1"] == journal[-1]["test_f1"]
    assert json.loads((folder.path / "status.json").read_text())["test_f1"] == status.test["f1"]
    assert f"F1 {status.test['f1']:.2%}, accuracy {status.test['accuracy']:.2%}" in answer.stdout

    lane = Lane(folder.config())
    lane.load_weights(torch.load(folder.path / "best.pt", weights_only=True)["model"], "best")
    test = lane.task.data.test
    guess = lane.model.eval()(lane.task.normalise(test.inputs.float())).argmax(1)
    assert status.test["f1"] == pytest.approx(sklearn.f1_score(test.targets, guess, average="macro"))

    shown = outputs.tracked[status.signature].data.metrics
    assert shown["test/f1"] == status.test["f1"]
    assert {"val/f1", "test/epoch_f1", "test/accuracy"} <= shown.keys()


@pytest.mark.parametrize("name", ["top2", "place"])
def test_an_own_metric_selects_and_judges_a_sweep(name: str, outputs: Outputs, mine: Path) -> None:
    """In both directions: a share, of which more is better; a place, of which less is."""
    direction = {"top2": {"unit": '"%"'}, "place": {"better": "lower", "best": "0"}}[name]
    words = (*QUICK, ARMS, "trials=2", "confirm=3", f"objective=val_{name}", *own(name, **direction))
    outputs.with_reports = True
    outputs.sweep(*words, before=partial(importable, str(mine)))
    sign = {"top2": 1, "place": -1}[name]

    report = json.loads((Path(outputs.definition["directory"]) / "report" / "report.json").read_text())
    assert (report["objective"], report["judge"]) == (f"val_{name}", f"test_{name}")
    assert f"mean test {name}" in report["verdict"]
    assert ("points" in report["verdict"]) == (name == "top2")
    for arm in report["arms"]:
        trials = [t for t in report["trials"] if t["arm"] == arm["arm"]]
        assert arm[f"val_{name}"] == max((t["mean"] for t in trials), key=lambda mean: sign * mean)
        tested = [
            float(r[f"test_{name}"])
            for r in outputs.table
            if (r["arm"], r["phase"]) == (arm["arm"], "confirm")
        ]
        assert arm[f"test_{name}"] == pytest.approx(sum(tested) / 3)
    (pair,) = report["comparisons"]
    assert pair["difference"] == pytest.approx(sign * (pair["mean_better"] - pair["mean_worse"]))
    assert list(outputs.table[0])[-5:] == [
        f"test_{name}",
        "test_accuracy",
        "test_loss",
        "reason",
        "signature",
    ]

    listed = outputs.start(script="src/runs.py").wait()
    assert listed.status == 0, listed
    best = outputs.definition["best_objective"]
    assert best == max((arm[f"val_{name}"] for arm in report["arms"]), key=lambda mean: sign * mean)

    again = outputs.start("tracking=mlflow", "judge=test_accuracy", script="src/compare.py").wait()
    assert again.status == 0, again
    assert "mean test accuracy" in " ".join(again.stdout.split())
    refused = outputs.start("judge=test_f1", script="src/compare.py").wait()
    assert f"judge=test_f1: no run has it; they have test_{name}, test_accuracy, test_loss" in refused.stderr


def test_the_loss_is_judged_by_loss(outputs: Outputs) -> None:
    outputs.with_reports = True
    outputs.sweep(*QUICK, ARMS, "trials=2", "confirm=3", "objective=val_loss", "halving=2")
    report = json.loads((Path(outputs.definition["directory"]) / "report" / "report.json").read_text())
    assert report["judge"] == "test_loss"
    (pair,) = report["comparisons"]
    assert pair["mean_better"] < pair["mean_worse"]
    means = {arm["arm"]: arm["test_loss"] for arm in report["arms"]}
    assert pair["better"] == min(means, key=lambda arm: means[arm])


def test_runs_of_a_sweep_are_judged_by_one_metric(outputs: Outputs) -> None:
    arms = "arms={a: {optimizer: adam, judge: test_loss}, b: {optimizer: sgd, judge: test_accuracy}}"
    answer = outputs.start(*QUICK, arms).wait()
    assert answer.status == 2
    assert "judge=test_loss: must be None in all runs" in answer.stderr


# Records


def test_a_record_of_an_earlier_version_is_judged_by_accuracy(outputs: Outputs) -> None:
    outputs.start(*QUICK, "objective=val_loss", single=True).wait()
    (folder,) = outputs.runs.values()
    path = folder.path / "status.json"
    content: dict[str, Any] = json.loads(path.read_text())
    assert read_status(path).judge == "test_loss"
    del content["judge"], content["metrics"]
    path.write_text(json.dumps(content))
    status = read_status(path)
    assert status.judged == status.test["accuracy"] == content["test_accuracy"]
    assert Status(**{**vars(status), "name": "diverged"}).ranked_objective == math.inf


def test_a_status_of_a_metric_that_nobody_knows_is_damaged(outputs: Outputs) -> None:
    outputs.start(*QUICK, single=True).wait()
    (folder,) = outputs.runs.values()
    folder.set_status(objective_key="val_nothing")
    assert "val_nothing is of no metric" in folder.damage()
