"""What a report says and shows of made-up studies: no more than they hold, and why not more."""

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from studies import ADAM, SGD, Arm, study

from fairsweep.compare import figures, report, static, statistics, tables
from fairsweep.compare.analysis import find, trials_of
from fairsweep.compare.findings import TRAINING, Findings, ReportSettings
from fairsweep.compare.load import ORIGIN, UNKNOWN, Tables, assemble, infer
from fairsweep.config import ROOT, ConfigError

TESTED = ["test_accuracy", "test_loss"]
LAST = ["val_accuracy", "val_loss", "objective", *TESTED]
CURVES = ["seconds", "val_loss", "val_accuracy"]
AT_END = ["objective", *TESTED]
Change = Callable[[pd.DataFrame], None]


def changed(tables: Tables, change: Change = lambda _: None, **sweep: Any) -> Tables:
    """The study with another table of runs, and other facts of its sweep."""
    runs = tables.runs.copy()
    change(runs)
    return replace(tables, runs=runs, sweeps=[{**tables.sweeps[0], **sweep}])


def ended(status: str, where: Callable[[pd.DataFrame], pd.Series], count: int | None = None) -> Change:
    """Some runs ended otherwise, without the figures of an end."""

    def change(runs: pd.DataFrame) -> None:
        rows = runs.index[where(runs)][:count]
        runs.loc[rows, "status"] = status
        runs.loc[rows, AT_END] = math.nan

    return change


def put(column: str, values: Any) -> Change:
    """Another column of the table; values may be made from the table."""
    return lambda runs: runs.__setitem__(column, values(runs) if callable(values) else values)


def phase(name: str, arm: str | None = None) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda runs: (runs["phase"] == name) & (True if arm is None else runs["arm"] == arm)


def found_in(tables: Tables, **settings: Any) -> Findings:
    return find(tables, ReportSettings(**settings))


# Selection


def test_nothing_that_selects_sees_a_test_figure() -> None:
    given = study(seeds=range(3))
    honest = found_in(given)
    random = np.random.default_rng(1)

    def corrupt(runs: pd.DataFrame) -> None:
        # The better a trial is on validation, the worse it now is on test.
        runs["test_accuracy"] = 1 - runs["objective"].fillna(0) + 0.01 * random.standard_normal(len(runs))
        runs["test_loss"] = random.random(len(runs))

    corrupted = found_in(changed(given, corrupt))
    assert corrupted.chosen == honest.chosen == {"adam": 3, "sgd": 3}
    assert corrupted.judged["run"].tolist() == honest.judged["run"].tolist()
    for name in ("trials", "tuning", "curves"):
        pd.testing.assert_frame_equal(getattr(corrupted, name), getattr(honest, name))
    assert (corrupted.axis, corrupted.flat, corrupted.target) == (honest.axis, honest.flat, honest.target)
    for arm, budget in honest.budgets.items():
        pd.testing.assert_frame_equal(corrupted.budgets[arm], budget)
    assert corrupted.verdict != honest.verdict


def test_what_selects_works_without_test_figures_at_all() -> None:
    given = study(confirm=())
    blind = replace(given, runs=given.runs.drop(columns=TESTED))
    assert statistics.select(trials_of(blind)) == found_in(given).chosen


def test_the_verdict_is_of_the_confirm_runs_alone() -> None:
    given = study()
    worse = put("test_accuracy", lambda runs: runs["test_accuracy"].mask(runs["phase"] == "search", 0.1))
    assert found_in(changed(given, worse)).verdict == found_in(given).verdict


# A judge of which less is better


def by_loss(given: Tables) -> Tables:
    """The same study, selected and judged by loss, which is here a falling line of the accuracy."""
    runs = given.runs.copy()
    runs["objective"] = runs["val_loss"].where(runs["status"] == "finished")
    return replace(given, runs=runs, objective="val_loss", judge="test_loss")


@pytest.mark.parametrize("lost", [0, 4])
def test_a_judge_of_which_less_is_better_finds_the_same_and_turns_every_figure(lost: int) -> None:
    # Loss is 3 x (1.002 - accuracy), so that whatever is said of the one must be said of the other.
    given = changed(study(GAP), ended("diverged", phase("confirm", "bad"), lost))
    found, mirror = found_in(given), found_in(by_loss(given))
    assert found.best == mirror.best == "good"
    assert mirror.chosen == found.chosen
    (pair,), (turned,) = found.comparisons, mirror.comparisons
    assert (turned.better, turned.worse, turned.method) == (pair.better, pair.worse, pair.method)
    figures = [turned.p, turned.probability, turned.difference, turned.low, turned.high, turned.mean_better]
    expected = [pair.p, pair.probability, 3 * pair.difference, 3 * pair.low, 3 * pair.high]
    assert figures == pytest.approx([*expected, 3 * (1.002 - pair.mean_better)], nan_ok=True)
    assert mirror.target == pytest.approx(3 * (1.002 - found.target))
    for arm, reached in found.reached["step"].items():
        pd.testing.assert_frame_equal(mirror.reached["step"][arm].times, reached.times)
    for arm, budget in found.budgets.items():
        assert mirror.budgets[arm]["median"].tolist() == pytest.approx(
            (3 * (1.002 - budget["median"])).tolist()
        )
    assert mirror.flat.keys() == found.flat.keys()
    gains = mirror.tuning["gain_over_median"] / found.tuning["gain_over_median"]
    assert gains.tolist() == pytest.approx([3] * len(gains))
    if lost:
        assert "4 of 10 runs of bad diverged" in mirror.verdict
    else:
        means = f"{turned.mean_better:.4f} against {turned.mean_worse:.4f}"
        said = f"mean test loss {means}, lower by {turned.difference:.4f} (95% interval "
        assert mirror.verdict.startswith(f"good is better than bad: {said}")
        assert "points" not in mirror.verdict


def test_the_best_of_several_arms_has_the_lowest_loss(tmp_path: Path) -> None:
    arms = {name: Arm(accuracy=accuracy) for name, accuracy in (("a", 0.95), ("b", 0.97), ("c", 0.93))}
    found = report.write(by_loss(study(arms)), ReportSettings(), tmp_path)
    assert found.best == "b"
    assert "is shown to be lower than that of" in found.verdict
    assert "test loss, fresh seeds" in (tmp_path / "verdict.md").read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"target": 97.0}, "target=97: must be from 0 to 1, as val_accuracy is"),
        ({"relevant": 2.0}, "relevant=2: must be a difference of test_accuracy, from 0 to 1"),
    ],
)
def test_settings_that_no_value_of_the_metric_can_meet_are_refused(
    settings: dict[str, float], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        found_in(small(), **settings)


def test_what_matters_of_a_figure_without_bounds_is_not_guessed() -> None:
    given = study({"a": ADAM, "b": ADAM})
    assert found_in(given).settings.relevant == 0.001
    found = found_in(by_loss(given))
    assert found.settings.relevant is None
    assert "matter" not in found.verdict
    assert "below the 5 that matters." in found_in(by_loss(given), relevant=5.0).verdict


def test_figures_of_no_metric_that_is_known_here_disturb_nothing() -> None:
    given = replace(changed(small(), put("test_strange", 1.0)), objective="val_loss", judge="test_loss")
    strange = replace(given, curves=lambda runs: given.curves(runs).assign(val_strange=1.0))
    found = found_in(strange)
    assert report.tables.runs(found).rows
    assert [panel.y.label for panel in report.figures(found)[2].panels[::2]] == [
        "validation loss", "validation accuracy",
    ]  # fmt: skip


def test_sweeps_that_were_judged_by_different_metrics_need_a_choice() -> None:
    given = study()
    params = {run: {**row, "judge": "None"} for run, row in given.params.to_dict("index").items()}
    rows: list[dict[str, Any]] = [
        {str(k): v for k, v in row.items()} for row in given.runs.to_dict("records")
    ]
    sweeps = [{**given.sweeps[0], "judge": judge} for judge in ("test_accuracy", "test_loss")]
    about = {"what": "both", "sweeps": sweeps}
    with pytest.raises(ConfigError, match="both: its runs are judged by test_accuracy and test_loss; choose"):
        assemble(rows, params, given.curves, **about)
    assert assemble(rows, params, given.curves, "test_loss", **about).judge == "test_loss"
    assert assemble(rows, params, given.curves, **{**about, "sweeps": []}).judge == "test_accuracy"
    with pytest.raises(ConfigError, match="judge=test_f1: no run has it; they have test_accuracy, test_loss"):
        assemble(rows, params, given.curves, "test_f1", **about)


# Words

GAP = {"good": Arm(accuracy=0.98), "bad": Arm(accuracy=0.95)}
SAME = {"one": Arm(noise=0.01), "two": Arm(noise=0.01)}


def parallel(runs: pd.DataFrame) -> None:
    """At every seed, the one arm is as far ahead of the other."""
    good, bad = (runs.loc[phase("confirm", arm)(runs), "test_accuracy"] for arm in ("good", "bad"))
    runs.loc[bad.index, "test_accuracy"] = good.to_numpy() - 0.125


def no_objective(runs: pd.DataFrame) -> None:
    runs[["objective", "val_accuracy", "val_loss"]] = math.nan


@pytest.mark.parametrize(
    ("given", "said", "best"),
    [
        (
            changed(study(GAP), ended("running", phase("confirm"), 3), status="running"),
            "So far: good is better than bad: ",
            "good",
        ),
        (
            study(GAP),
            r"good is better than bad: mean test accuracy 9\d\.\d\d% against 9\d\.\d\d%, higher by "
            r"\d\.\d\d points \(95% interval \d\.\d\d to \d\.\d\d; paired t over 10 shared seeds\)\. A run "
            r"of good beats one of bad with probability 1\.00\.",
            "good",
        ),
        (
            study(SAME),
            r"No difference shown between (one|two) and (one|two): .*points remains possible\. A run",
            None,
        ),
        (changed(study(GAP), parallel), "No verdict: the arms differ by the same amount at every seed", None),
        (study(GAP, confirm=[7]), "No verdict: one seed cannot tell a difference from luck", None),
        (
            study({"only": ADAM}),
            r"No comparison: there is only one arm, only\. With lr=0\.003, its mean test accuracy over 10 "
            r"seeds is 97\.\d\d% \(95% interval",
            None,
        ),
        (
            study(GAP, confirm=()),
            r"No verdict: there are no confirm runs, and the runs that chose each arm's best trial cannot "
            r"judge it: 2 seeds a trial cannot both choose and judge; "
            r"it takes 3\. On validation: good with 98\.\d\d% \(lr=0\.01\) and bad with",
            None,
        ),
        (
            study({"a": replace(ADAM, diverges=0), "b": replace(SGD, diverges=0)}),
            r"No verdict: all 44 runs diverged\. Try lower",
            None,
        ),
        (
            changed(study(GAP, confirm=()), no_objective),
            r"No verdict: no trial is complete, .*\(data\.val_size=0\)",
            None,
        ),
        (
            changed(study(GAP), put("test_accuracy", math.nan)),
            "No verdict: none of the runs that decide it has a test accuracy",
            None,
        ),
        (
            replace(
                changed(study(GAP), put("test_accuracy", math.nan)),
                params=study(GAP).params.assign(**{"data.test_size": "0"}),
            ),
            r"No verdict: none .* has a test accuracy\. There were no test images \(data\.test_size=0\)\.",
            None,
        ),
        (
            changed(study(GAP), ended("running", phase("confirm", "bad"))),
            "No comparison: there is no result of bad",
            None,
        ),
        (
            changed(study(GAP), ended("diverged", phase("confirm", "bad"), 4)),
            r"good is better than bad: 4 of 10 runs of bad diverged; over the seeds at which neither",
            "good",
        ),
        (
            changed(study(SAME), ended("diverged", phase("confirm", "two"), 1)),
            "No difference shown between one and two: 1 of 10 runs of two diverged; over the seeds at which",
            None,
        ),
        (
            study({**GAP, "worse": Arm(accuracy=0.9)}),
            r"good is the best of 3 arms: its mean test accuracy, 98.*shown to be higher than that of bad "
            r"\(95\.\d\d%\) and worse \(",
            "good",
        ),
        (
            study({**SAME, "bad": Arm(accuracy=0.9)}),
            r"No single best arm is shown: (one|two) \(9.* is ahead, but no difference "
            r"to (one|two) \(9.*\) is shown; it is better than bad \(",
            None,
        ),
        (
            study({"a": Arm((1e-2,)), "b": Arm((1e-2,), accuracy=0.9)}, seeds=range(10), confirm=()),
            "a is better than b: .*paired t over 10 shared seeds",
            "a",
        ),
    ],
)
def test_the_verdict_says_what_is_shown_and_no_more(given: Tables, said: str, best: str | None) -> None:
    found = found_in(given)
    assert re.match(said, found.verdict), found.verdict
    assert found.best == best
    assert found.verdict.count("\n") == 0


@pytest.mark.parametrize(
    ("gap", "relevant", "said"),
    [
        (0.01, 0.05, "The difference is below the 5 points that matter."),
        (0.01, 0.01, "It may still be below the 1 points that matter."),
        (0.01, 0.001, None),
        (0.0, 0.02, "The difference is below the 2 points that matter."),
    ],
)
def test_the_smallest_relevant_difference_is_held_against_the_interval(
    gap: float, relevant: float, said: str | None
) -> None:
    found = found_in(study({"a": Arm(accuracy=0.97), "b": Arm(accuracy=0.97 - gap)}), relevant=relevant)
    assert ("matter" in found.verdict) == (said is not None)
    assert said is None or said in found.verdict


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            replace(both := study(GAP), runs=both.runs[both.runs["arm"] == "good"]),
            r"There are no runs of bad yet\.",
        ),
        (
            changed(study(), ended("running", phase("confirm"), 3), status="running"),
            r"The sweep is still running \(39 finished, 3 running, 2 diverged so far\): everything",
        ),
        (
            changed(study(), ended("interrupted", phase("confirm"), 3), status="interrupted"),
            "The sweep ended as interrupted: repeat its command to complete it.",
        ),
        (
            changed(study(), ended("failed", phase("confirm"), 2)),
            "2 runs failed and have no result: 2 x all epochs",
        ),
        (study(), r"2 of 22 runs of sgd diverged\."),
        (
            study({"a": ADAM, "b": replace(SGD, lrs=SGD.lrs[:-1])}),
            r"different numbers of trials \(a 6 and b 5\)",
        ),
        (study(seeds=[3]), "The search used one seed per trial"),
        (
            study(confirm=range(1, 11)),
            r"adam and sgd: seeds \[1\] were also used by the search: they are not fresh",
        ),
        (
            study({"a": replace(ADAM, best=1e-9), "b": SGD}),
            r"a: the best lr, 0\.0001, is the lowest tried: .*extend=true",
        ),
        (
            study({"a": replace(ADAM, best=1e9), "b": SGD}),
            r"a: the best lr, 0\.03, is the highest tried",
        ),
        (
            changed(study({"a": replace(ADAM, best=1e9), "b": SGD}), sampler="tpe"),
            r"a: the best lr, 0\.03, is the highest tried: .*More trials would tell",
        ),
        (
            changed(study(), put("commit", ["a"] * 4 + ["b"] * 40)),
            r"Mixed commits \(b: 40 runs; a: 4 runs\)",
        ),
        (
            changed(study(), put("device", ["NVIDIA H200"] + ["cpu"] * 43)),
            r"Mixed devices, so times are not comparable \(cpu: 43 runs; NVIDIA H200: 1 run\)",
        ),
        (changed(study(), put("precision", ["bf16"] + ["fp32"] * 43)), "Mixed precisions"),
        (changed(study(), put("dirty", ["true"] * 44)), "44 runs trained with uncommitted changes"),
        (
            changed(study(), ended("failed", phase("confirm", "sgd"), 2)),
            r"The comparison uses the 8 seeds that all arms share, without the results of adam \[100, 101\]",
        ),
        (
            changed(study(), put("trial", lambda runs: runs["trial"].mask(phase("confirm", "sgd")(runs), 2))),
            r"sgd: trial 3 is the best on validation, but trial 2 was confirmed",
        ),
        (study({"a": Arm((1e-2,)), "b": Arm((1e-2,))}, confirm=()), "was not tuned: this compares"),
    ],
)
def test_trouble_is_pointed_out(given: Tables, said: str) -> None:
    remarks = found_in(given).remarks
    assert any(re.search(said, remark) for remark in remarks), remarks


def test_what_a_failed_run_was_trained_with_mixes_nothing() -> None:
    def failed_unbegun(runs: pd.DataFrame) -> None:
        ended("failed", phase("search", "sgd"), 1)(runs)
        runs.loc[runs["status"] == "failed", ["data", "device"]] = ["unknown", "auto"]

    assert not any("Mixed" in remark for remark in found_in(changed(study(), failed_unbegun)).remarks)


@pytest.mark.parametrize(
    "given",
    [
        changed(edge := study({"a": replace(ADAM, best=1e9), "b": SGD}), status="interrupted"),
        changed(edge, ended("running", phase("confirm")), status="running"),
        changed(edge),
    ],
)
def test_an_edge_is_pointed_out_once_the_search_is_complete(given: Tables) -> None:
    assert any("a: the best lr, 0.03, is the highest" in text for text in found_in(given).remarks)
    # Else higher values may be waiting: some are planned, or will be.
    waiting = ended("waiting", lambda runs: (runs["arm"] == "a") & (runs["trial"] == 0), 1)
    unplanned = replace(given, runs=given.runs[given.runs["phase"] == "search"])
    for less in (changed(given, waiting), changed(unplanned, status="interrupted")):
        assert not any("a: the best lr" in text for text in found_in(less).remarks)


def test_shared_seconds_are_neither_compared_nor_summed(tmp_path: Path) -> None:
    def beside_others(runs: pd.DataFrame) -> None:
        runs["shared"] = phase("confirm", "sgd")(runs)

    found = report.write(changed(study(), beside_others), ReportSettings(), tmp_path)
    assert [*found.reached] == ["step"]
    curves = next(figure for figure in figures.figures(found) if figure.name == "curves")
    assert {panel.x.label for panel in curves.panels} == {"step"}
    heads = [head for table in (tables.times(found), tables.given(found)) for head in table.heads]
    assert "#median steps" in heads
    assert "#median seconds" not in heads
    times = [row[-1].text for row in tables.given(found).rows]
    assert times == ["66 s", ""]  # 22 runs of 3 s
    assert [text for text in found.remarks if "seconds" in text] == [
        "10 runs trained beside others in one process, so their seconds depend on those: the report compares "
        "and sums steps, not seconds."
    ]
    limited = study().params.assign(**{"trainer.max_seconds": "5"})
    found = found_in(replace(changed(study(), beside_others), params=limited))
    assert any("trainer.max_seconds counted those shared seconds" in text for text in found.remarks)


def test_means_and_difference_are_of_the_seeds_that_both_arms_have() -> None:
    given = changed(study(GAP), ended("failed", phase("confirm", "bad"), 3))
    found = found_in(given)
    means = {row["arm"]: row["test_accuracy"] for row in report.analysis.arm_rows(found)}
    (pair,) = found.comparisons
    assert pair.seeds == 7
    assert pair.difference == pytest.approx(means["good"] - means["bad"])
    assert f"mean test accuracy {100 * means['good']:.2f}% against {100 * means['bad']:.2f}%" in found.verdict
    points = next(f for f in figures.figures(found) if f.name == "verdict").panels[0].layers
    assert {len(layer.y) for layer in points if layer.kind == "points"} == {7}


def test_what_is_said_of_several_pairs_at_once_says_so() -> None:
    found = found_in(study({**GAP, "worse": Arm(accuracy=0.9)}))
    assert "(Bonferroni's correction for 3 pairs)" in found.verdict
    heads = tables.pairs(found).heads
    assert "#95% interval, adjusted for 3 pairs (Bonferroni)" in heads
    assert "#p, adjusted for 3 pairs (Bonferroni)" in heads
    panel = next(f for f in figures.figures(found) if f.name == "verdict").panels[1]
    assert panel.title == "Difference, with 95% interval, adjusted for 3 pairs"


def test_without_confirmation_nothing_is_claimed_anywhere() -> None:
    found = found_in(study(GAP, confirm=()))
    assert (found.comparisons, found.best) == ([], None)
    assert "comparisons" not in tables.frames(found)


def test_a_clean_study_has_no_remarks() -> None:
    assert found_in(study({"a": ADAM, "b": ADAM})).remarks == []


def test_without_a_result_there_is_no_report(tmp_path: Path) -> None:
    nothing = changed(study(), put("status", "running"))
    with pytest.raises(ConfigError, match=r"^sweep made0up0: no run has a result yet \(44 running\)"):
        report.write(nothing, ReportSettings(), tmp_path / "report")
    assert not (tmp_path / "report").exists()


# Numbers


def test_the_verdict_is_right_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small version of tests/benchmarks/verdict.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    import verdict

    tables, noise = verdict.template(10, shared=True), verdict.NOISES["normal"]
    none, one = (verdict.simulate(tables, noise, 80, shift) for shift in (0.0, 1.0))
    assert none["claimed"].mean() <= 0.1
    assert none["covered"].mean() >= 0.9
    assert one["claimed"].mean() >= 0.4


def test_tuning_gains_over_the_default_where_that_was_tried() -> None:
    found = found_in(study(seeds=range(20)))
    adam, sgd = found.tuning.to_dict("records")
    means = found.trials["mean"]
    assert adam["gain"] == pytest.approx(means["adam", 3] - means["adam", 2])  # 0.001 is Adam's default
    assert (adam["default_is"], sgd["default_is"]) == ("lr=0.001 finished", "lr=0.05 not tried")
    assert math.isnan(sgd["gain"])
    # Of six trials, one diverged, the third worst: of 0.001, 0.01, 0.03.
    assert sgd["gain_over_median"] == pytest.approx(means["sgd", 3] - sorted(means["sgd"].dropna())[1])


def test_the_target_is_the_lower_arms_final_validation_accuracy_unless_it_is_set() -> None:
    given = study(GAP)
    found = found_in(given)
    final = given.curves(found.judged["run"][found.judged["arm"] == "bad"].tolist()).groupby("run").last()
    assert found.target == pytest.approx(final["val_accuracy"].mean())
    assert found.reached["step"]["good"].share_there == 1
    high = found_in(given, target=0.975)
    assert high.reached["step"]["bad"].share_there == 0
    assert high.reached["seconds"]["bad"].median == math.inf


def test_the_flat_region_and_the_axis_come_from_the_learning_rates() -> None:
    found = found_in(study())
    assert found.axis == "optimizer.lr"
    assert found.flat == {"adam": (0.001, 0.01), "sgd": (0.03, 0.1)}


def test_a_grid_without_arms_has_its_trials_from_the_parameters() -> None:
    given = study(confirm=())
    bare = infer(changed(given, put("arm", "")))
    assert found_in(bare).chosen == found_in(given).chosen


# What is shown


@pytest.fixture(scope="module")
def found() -> Findings:
    given = changed(study(seeds=range(3)), ended("diverged", phase("confirm", "sgd"), 2))
    return found_in(
        changed(given, ended("pruned", lambda runs: (runs["arm"] == "adam") & (runs["trial"] == 0)))
    )


def test_every_point_is_a_run_with_that_figure(found: Findings) -> None:
    runs = found.tables.runs.set_index("run")
    drawn = {figure.name: figure for figure in figures.figures(found)}
    assert [*drawn] == ["verdict", "sensitivity", "curves", "target", "budget", "tuning", "parallel"]
    for name, column in (("verdict", "test_accuracy"), ("sensitivity", "objective")):
        shown: dict[str, float] = {}
        for layer in drawn[name].panels[0].layers:
            shown |= (
                dict(zip(layer.runs, layer.y, strict=True)) if layer.kind == "points" and layer.runs else {}
            )
        rows = found.judged["run"] if name == "verdict" else runs.index[runs["phase"] == "search"]
        expected = runs.loc[rows, column].where(runs["status"] != "pruned", runs["val_accuracy"]).dropna()
        assert shown == expected.to_dict()
        lost = [run for layer in drawn[name].panels[0].strip for run in layer.runs]
        assert sorted(lost) == sorted(run for run in rows if runs.loc[run, "status"] == "diverged")
    lines = drawn["parallel"].parallel
    assert lines is not None
    assert len(lines.values) == (runs["phase"] == "search").sum()
    assert not lines.values.isna().any(axis=None)


def test_the_mean_curve_is_of_the_runs_that_did_not_diverge(found: Findings) -> None:
    curves = next(figure for figure in figures.figures(found) if figure.name == "curves")
    panel = curves.panels[2]
    (mean,) = [layer for layer in panel.layers if layer.arm == "sgd" and layer.named]
    ended_well = found.judged[(found.judged["arm"] == "sgd") & (found.judged["status"] == "finished")]["run"]
    own = found.curves[found.curves["run"].isin(ended_well)].groupby("step")["val_accuracy"].mean()
    assert dict(zip(mean.x, mean.y, strict=True)) == pytest.approx(own.to_dict())
    (dotted,) = [layer for layer in panel.layers if layer.arm == "sgd" and layer.dashed]
    assert len(set(dotted.runs)) == 2


SMALL = {"adam": Arm((1e-3, 1e-2, 1e-1), best=1e-2), "sgd": Arm((1e-2, 1e-1, 1.0), best=1e-1, diverges=0.9)}


def small(**how: Any) -> Tables:
    return study(**{"arms": SMALL, "confirm": range(100, 102), "epochs": 2, **how})


def without(where: Callable[[pd.DataFrame], pd.Series]) -> Tables:
    return replace(given := small(), runs=given.runs[~where(given.runs)].reset_index(drop=True))


def with_curves(column: str, value: float) -> Tables:
    return replace(given := small(), curves=lambda runs: given.curves(runs).assign(**{column: value}))


def no_curves(given: Tables) -> Tables:
    return replace(given, curves=lambda runs: given.curves(runs).head(0))


def shared_runs(runs: pd.DataFrame) -> None:
    """The runs of sgd are those of adam, and those of trial 1 the ones of trial 0."""
    for column in ("run", "signature"):
        names = runs["phase"] + runs["seed"].astype(str) + runs["trial"].replace(1, 0).astype(str)
        runs[column] = names


def absurd(column: str) -> Change:
    """Nothing in one arm, infinity in the other."""
    return put(column, lambda runs: runs["arm"].map({"adam": None, "sgd": math.inf}).astype(object))


COLUMNS = [column for column in UNKNOWN if column not in ORIGIN[1:]] + ["device"]
ODD = ("diverged", "failed", "pruned", "running", "missing", "?")
STUDIES: dict[str, Tables] = {
    **{f"no {column}": replace(made := small(), runs=made.runs.drop(columns=column)) for column in LAST},
    **{f"absurd {column}": changed(small(), absurd(column)) for column in COLUMNS},
    **{f"all {s}": changed(small(), ended(s, lambda runs: runs["trial"] >= 0)) for s in ODD},
    **{f"confirm {s}": changed(small(), ended(s, phase("confirm"))) for s in ODD},
    **{f"search {s}": changed(small(), ended(s, phase("search"))) for s in ODD},
    **{f"sgd {s}": changed(small(), ended(s, lambda runs: runs["arm"] == "sgd")) for s in ODD},
    "stopped": changed(small(), ended("interrupted", phase("confirm"), 1), status="interrupted"),
    **{f"{p} empty": without(phase(p)) for p in ("search", "confirm")},
    **{f"{p} of {a} empty": without(phase(p, a)) for p in ("search", "confirm") for a in SMALL},
    **{f"{c} {v} in curves": with_curves(c, v) for c in CURVES for v in (math.nan, math.inf)},
    "no curves": no_curves(small()),
    "no parameters": replace(given := small(), params=given.params[[]].head(0)),
    "one arm": small(arms={"only": ADAM}),
    "one seed": small(seeds=[0], confirm=[1]),
    "one trial": small(arms={"a": Arm((1e-2,)), "b": Arm((1e-2,))}),
    "one run": small(arms={"a": Arm((1e-2,))}, seeds=[0], confirm=()),
    "no seeds": small(seeds=[]),
    "no confirmation": small(confirm=()),
    "no objective": changed(small(confirm=()), no_objective),
    "one value": changed(small(), put("test_accuracy", 0.5), counts={}),
    "eight arms": small(arms={f"arm{n}": Arm((1e-2,)) for n in range(8)}, confirm=()),
    "shared runs": changed(small(), shared_runs),
    "shared seconds": changed(small(), put("shared", True)),
    "no sweep": replace(small(), sweeps=[], uri=""),
    "a loss": replace(changed(small(), put("objective", lambda r: r["val_loss"])), objective="val_loss"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_can_be_made_of_any_study(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or there is a line that says why not: no run has a result."""
    given = STUDIES[name]
    if name not in PICTURED:  # the slow part of a report; descriptions of figures hold all its numbers
        monkeypatch.setattr(static, "pictures", lambda figure: {})
    if not {"finished", "diverged", "pruned"} & set(given.runs.get("status", ())):
        with pytest.raises(ConfigError, match="no run has a result yet"):
            report.write(given, ReportSettings(), tmp_path)
        return
    found = report.write(given, ReportSettings(), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert html.escape(found.verdict, quote=False) in html.unescape(page[:100_000]).replace("&", "&amp;")
    json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    report.tell(found, Console(file=StringIO(), width=80))


PICTURED = ("one arm", "one seed", "one run", "no confirmation", "all diverged", "a loss", "no objective")


@pytest.fixture(scope="module")
def written(found: Findings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "figures").mkdir()
    (folder / "figures" / "curves.png").write_text("of an earlier report")
    (folder / "figures" / "photo.png").write_text("somebody else's")
    (folder / "tables").mkdir()
    (folder / "tables" / "budget.csv").write_text("of an earlier report")
    output = StringIO()
    report.tell(
        report.write(found.tables, ReportSettings(ui="https://mlflow.example/"), folder),
        Console(file=output, width=160),
    )
    (folder / "terminal.txt").write_text(output.getvalue())
    return folder


def test_the_page_needs_nothing_else(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert len(page) < 8e6
    head, _, rest = page.partition("<script>")
    own = head + rest.rpartition("</script>")[2]
    assert not re.search(r"<(script|img|link|iframe)[^>]*\b(src|href)=", own)
    assert not re.search(r"@import|url\(", own)
    assert set(re.findall(r'href="(https?://[^/"]+)', own)) == {"https://mlflow.example"}


def test_links_lead_to_the_runs_and_to_their_comparison(written: Path, found: Findings) -> None:
    page = html.unescape((written / "report.html").read_text())
    runs = found.judged["run"].tolist()
    assert f"https://mlflow.example/#/experiments/1/runs/{runs[0]}" in page
    compared = "https://mlflow.example/#/compare-runs?runs=" + quote(json.dumps(runs))
    assert f'{compared}&experiments=%5B%221%22%5D&{TRAINING}"' in page


def test_the_plots_name_their_runs(written: Path, found: Findings) -> None:
    page = (written / "report.html").read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    content = json.loads(data[1], parse_constant=lambda name: pytest.fail(name))
    assert len(content["urls"]) == len(found.tables.runs)
    trace = next(t for t in content["plots"]["verdict"]["data"] if "customdata" in t)
    for place, text in zip(trace["customdata"], trace["text"], strict=True):
        row = found.tables.runs.set_index("run").loc[
            content["urls"][place].rpartition("/")[2].partition("?")[0]
        ]
        assert f"seed {row['seed']}" in text
        assert text.startswith(f"<b>{row['arm']} lr=")


def test_a_name_that_looks_like_html_is_only_a_name() -> None:
    evil = "</script><a href='x'>\x1b[31m"
    found = found_in(study({evil: ADAM, "b": ADAM}))
    page = report.page(found, figures.figures(found))
    assert evil not in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    for name in ("verdict", "sensitivity", "curves", "target", "budget", "tuning"):
        plot = json.loads(data)["plots"][name]
        shown = [plot["layout"], *(trace.get(key, "") for trace in plot["data"] for key in ("text", "name"))]
        assert "<a" not in json.dumps(shown)
    output = StringIO()
    report.tell(found, Console(file=output, width=80))
    assert "\x1b" not in output.getvalue()


def test_the_files_hold_what_the_page_says(written: Path, found: Findings) -> None:
    names = sorted(path.relative_to(written).as_posix() for path in written.rglob("*.*"))
    names.remove("figures/photo.png")
    pictures = ["budget", "curves", "parallel", "sensitivity", "target", "tuning", "verdict"]
    assert [n for n in names if n.startswith("figures/")] == [
        f"figures/{name}.{ending}" for name in pictures for ending in ("png", "svg")
    ]
    content = json.loads((written / "report.json").read_text())
    assert (content["verdict"], content["chosen"]) == (found.verdict, found.chosen)
    for name in ("arms", "comparisons", "trials", "runs", "target", "budget", "tuning"):
        table = pd.read_csv(written / "tables" / f"{name}.csv")
        assert len(table) == len(content[name])
    runs = pd.read_csv(written / "tables" / "runs.csv")
    assert runs["optimizer.lr"].tolist() == [float(v["optimizer.lr"]) for v in found.tables.runs["values"]]


def test_the_terminal_shows_the_verdict_and_a_line_an_arm(written: Path, found: Findings) -> None:
    text = (written / "terminal.txt").read_text()
    assert " ".join(text.split()).startswith(found.verdict)
    assert re.search(r"\nadam +lr=0\.003 +97\.\d\d% +97\.\d\d ± 0\.\d\d% \(n=10\) +6 +28", text)
    assert re.search(r"\nsgd +.*\(n=8\), 2 diverged", text)


def test_a_narrow_terminal_cuts_nothing() -> None:
    given = changed(study({**GAP, "worse": Arm(accuracy=0.9)}), ended("failed", phase("confirm", "bad"), 3))
    output = StringIO()
    report.tell(
        found_in(changed(given, ended("missing", phase("search", "good"), 2))), Console(file=output, width=80)
    )
    assert "\N{HORIZONTAL ELLIPSIS}" not in output.getvalue()
    assert "2 missing" in output.getvalue()


def test_test_accuracy_is_shown_of_the_runs_that_decide_only(found: Findings) -> None:
    table = tables.runs(found)
    column = [head.lstrip("#") for head in table.heads].index("test_accuracy")
    shown = [bool(row[column].text) for row in table.rows]
    decided = found.tables.runs["run"].isin(found.judged["run"]) & (found.tables.runs["status"] == "finished")
    assert shown == decided.tolist()


def test_a_long_name_of_an_arm_is_wrapped_and_whole() -> None:
    name = "sgd with nesterov momentum and weight decay 5e-4"
    drawn = figures.figures(found_in(study({name: ADAM, "adam": SGD})))
    panels = [panel for figure in drawn for panel in figure.panels]
    names = [text for panel in panels for axis in (panel.x, panel.y) for text in (axis.ticks or ((), ()))[1]]
    assert figures.widest(names) <= figures.WRAP + 2
    assert sum(name in " ".join(text.split()) for text in names) == 3


# A grid without confirm runs


def grid(arms: dict[str, Arm] | None = None, seeds: int = 5) -> Tables:
    return study(arms, seeds=range(seeds), confirm=())


def test_a_grid_is_judged_by_the_trials_that_the_other_seeds_choose() -> None:
    found = found_in(grid(GAP))
    assert (found.evidence, found.best) == ("crossfit", "good")
    assert "Each seed's trial was chosen by the other seeds" in found.verdict
    runs = found.tables.runs
    for row in found.judged.to_dict("records"):
        others = runs[(runs["arm"] == row["arm"]) & (runs["seed"] != row["seed"])]
        assert row["trial"] == others.groupby("trial")["objective"].mean().idxmax()
        assert found.results[row["arm"]][row["seed"]] == row["test_accuracy"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (grid(GAP, seeds=2), "2 seeds a trial cannot both choose and judge; it takes 3"),
        (changed(grid(GAP), ended("failed", phase("search"), 1)), "some runs have no result"),
        (changed(grid(GAP), ended("pruned", phase("search"), 1)), "halving stopped trials early"),
        (changed(grid(GAP), sampler="tpe"), "the sampler learned from all seeds"),
        (changed(grid(GAP), put("seed", lambda r: r["seed"] + (r["arm"] == "bad"))), "different seeds"),
        (
            changed(grid(GAP), ended("diverged", lambda r: (r["arm"] == "bad") & (r["seed"] == 3))),
            "every trial of bad diverged at a seed that would choose",
        ),
    ],
)
def test_a_grid_that_cannot_choose_and_judge_in_turn_has_no_verdict_and_says_why(
    given: Tables, why: str
) -> None:
    found = found_in(given)
    assert found.evidence == "search"
    assert found.best is None
    assert found.verdict.startswith("No verdict: there are no confirm runs")
    assert why in found.verdict


def test_with_confirm_runs_the_repeated_search_is_a_remark() -> None:
    found = found_in(study(GAP, seeds=range(3)))
    assert found.evidence == "confirm"
    (said,) = [remark for remark in found.remarks if remark.startswith("With the search repeated")]
    assert "good is better than bad, higher by" in said


def test_too_few_seeds_are_said_to_be_too_few_and_what_would_be_enough() -> None:
    found = found_in(study({"a": Arm(noise=0.1), "b": Arm(noise=0.1, accuracy=0.9)}, confirm=range(100, 103)))
    assert found.verdict.startswith("Too few seeds to tell ")
    assert "probability" not in found.verdict
    (needed,) = re.findall(r"repeat the sweep's command with confirm=(\d+), about", found.verdict)
    assert f"a difference of the size seen takes about {needed} seeds per arm" in found.verdict
