"""The numbers of a report, against cases that can be worked out by hand, and against scipy."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fairsweep.compare import crossfit, price, statistics
from fairsweep.metrics import ACCURACY


def by_seed(*values: float, first: int = 0) -> pd.Series:
    return pd.Series(values, index=range(first, first + len(values)))


def runs(rows: list[tuple[str, int, str, float]]) -> pd.DataFrame:
    """Search runs out of arm, trial, status and objective; no test figures at all."""
    table = pd.DataFrame(rows, columns=["arm", "trial", "status", "objective"])
    seeds = table.groupby(["arm", "trial"]).cumcount()
    return table.assign(phase="search", seed=seeds, val_accuracy=math.nan, val_loss=math.nan)


# Trials and selection


def test_a_trial_is_the_mean_over_its_seeds_and_never_over_a_diverged_one() -> None:
    table = statistics.trials(
        runs(
            [
                ("a", 0, "finished", 0.5),
                ("a", 0, "finished", 0.7),
                ("a", 1, "finished", 0.9),
                ("a", 1, "diverged", math.nan),
                ("a", 2, "finished", 0.8),
                ("a", 2, "failed", math.nan),
                ("a", 3, "running", math.nan),
            ]
        ),
        "val_accuracy",
        sign=1,
    ).loc["a"]
    assert table["kind"].tolist() == ["finished", "diverged", "incomplete", "incomplete"]
    assert table.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx([0.6, 0.5, 0.7])
    assert table.loc[1, ["mean", "low", "high"]].isna().all()
    assert table["score"].tolist()[:3] == [pytest.approx(0.6), -math.inf, 0.8]
    assert math.isnan(table.loc[3, "score"])


def test_a_dropped_trial_keeps_its_last_value_but_is_not_selected() -> None:
    table = runs([("a", 0, "pruned", 0.9), ("a", 1, "finished", 0.8)])
    table["val_accuracy"], table.loc[0, "objective"] = table["objective"], math.nan
    trials = statistics.trials(table, "val_accuracy", sign=1)
    assert trials.loc[("a", 0), ["kind", "mean"]].tolist() == ["pruned", 0.9]
    assert statistics.select(trials) == {"a": 1}


@pytest.mark.parametrize(("sign", "best"), [(1, 2), (-1, 0)])
def test_the_best_trial_is_selected_and_of_equals_the_first(sign: int, best: int) -> None:
    rows = [("a", t, "finished", v) for t, v in enumerate([0.1, 0.2, 0.3, 0.3, 0.1])]
    rows += [("b", 0, "diverged", math.nan)]
    assert statistics.select(statistics.trials(runs(rows), "val_accuracy", sign)) == {"a": best}


def test_a_tie_is_one_whatever_the_order_of_the_seeds() -> None:
    values = [0.1, 0.2, 0.3]
    rows = [("a", 0, "finished", v) for v in values[::-1]] + [("a", 1, "finished", v) for v in values]
    assert np.mean(values) != np.mean(values[::-1])
    assert statistics.select(statistics.trials(runs(rows), "val_accuracy", 1)) == {"a": 0}


# Differences


def test_shared_seeds_are_compared_pairwise() -> None:
    # Differences 1, 2 and 3 hundredths: mean 2, sd 1, and t of 0.975 with 2 degrees of freedom is 4.3027.
    pair = statistics.compare(("a", by_seed(0.91, 0.82, 0.73)), ("b", by_seed(0.90, 0.80, 0.70)), ACCURACY)
    assert (pair.better, pair.worse) == ("a", "b")
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert [pair.difference, pair.low, pair.high] == pytest.approx([0.02, 0.02 - half, 0.02 + half])
    assert pair.p == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))
    assert pair.method == "paired t over 3 shared seeds"


def test_other_seeds_are_compared_by_welch() -> None:
    a, b = by_seed(0.9, 0.92, 0.95), by_seed(0.8, 0.99, 0.93, 0.95, first=10)
    pair = statistics.compare(("a", a), ("b", b), ACCURACY)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert pair.p == pytest.approx(expected.pvalue)
    assert (pair.low, pair.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert "Welch" in pair.method


def test_the_order_of_the_arms_turns_nothing_but_the_sign() -> None:
    a, b = by_seed(0.9, 0.92, 0.95), by_seed(0.93, 0.95, 0.99)
    one, other = (
        statistics.compare(("a", a), ("b", b), ACCURACY),
        statistics.compare(("b", b), ("a", a), ACCURACY),
    )
    assert {**vars(one), "p": 0} == {**vars(other), "p": 0}
    assert one.better == "b"
    assert one.low < one.difference < one.high


def test_probability_counts_wins_and_half_of_the_ties() -> None:
    # 0.9 beats two of (0.9, 0.8, 0.7) and ties one; 0.8 beats one and ties one: 4 of 6.
    pair = statistics.compare(("a", by_seed(0.9, 0.8)), ("b", by_seed(0.9, 0.8, 0.7, first=5)), ACCURACY)
    assert pair.probability == pytest.approx(4 / 6)


def test_diverged_runs_rank_last_and_enter_no_mean() -> None:
    good = by_seed(*np.linspace(0.95, 0.97, 10))
    bad = pd.Series((good.where(good.index > 6, -math.inf) + 0.001).to_numpy(), index=good.index + 100)
    pair = statistics.compare(("bad", bad), ("good", good), ACCURACY)
    assert (pair.better, pair.probability > 0.7) == ("good", True)
    assert pair.difference == pytest.approx(good.mean() - bad.loc[107:].mean())
    assert math.isnan(pair.low)
    assert pair.p == pytest.approx(stats.mannwhitneyu(bad.replace(-math.inf, 0.0), good).pvalue)
    assert pair.method == "Mann-Whitney test, 7 diverged runs ranking last; no interval"


def test_a_divergence_leaves_runs_compared_by_pairs() -> None:
    # Arms that differ by little beside what the seeds do: a test of pairs sees it, one of the arms does not.
    seeds = np.linspace(0.9, 0.99, 10)
    a, b = by_seed(*seeds + 0.001 + 0.0001 * np.arange(10)), by_seed(*seeds)
    b[3] = -math.inf
    (pair,) = statistics.comparisons({"a": a, "b": b}, ACCURACY)
    assert (pair.better, pair.claimed, pair.seeds) == ("a", True, 10)
    assert pair.p == pytest.approx(2 / 2**10)  # all ten signs the same
    assert pair.method.startswith("Wilcoxon's signed ranks over 10 shared seeds, 1 diverged run ranking last")
    both = [seed for seed in range(10) if seed != 3]
    assert [pair.mean_better, pair.mean_worse] == pytest.approx([a[both].mean(), b[both].mean()])
    assert pair.difference == pytest.approx((a - b)[both].mean())


def test_signed_ranks_are_exact() -> None:
    random = np.random.default_rng(0)
    for size in (4, 9, 20):
        differences = random.standard_normal(size) + 0.5
        p, ahead = statistics.signed_rank(differences)
        assert p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
        assert (ahead > 0) == (
            stats.wilcoxon(differences).statistic < stats.rankdata(abs(differences)).sum() / 2
        )
    # Ranks 1, 2.5, 2.5, and a zero: of 8 ways to sign them, 2 sum to 5 or more and 2 to 1 or less.
    assert statistics.signed_rank(np.array([-0.1, math.inf, math.inf, 0.0]))[0] == pytest.approx(0.5)
    assert math.isnan(statistics.signed_rank(np.zeros(3))[0])


def test_few_pairs_with_a_divergence_are_compared_without_pairing_as_no_outcome_could_tell() -> None:
    lost, good = by_seed(*[-math.inf] * 5), by_seed(*np.linspace(0.9, 0.91, 5))
    (pair,) = statistics.comparisons({"lost": lost, "good": good}, ACCURACY)
    assert (pair.better, pair.claimed) == ("good", True)
    assert pair.method.startswith("Mann-Whitney")


def test_an_arm_that_always_diverges_loses() -> None:
    lost = by_seed(*[-math.inf] * 10)
    pair = statistics.comparisons({"lost": lost, "good": by_seed(*np.linspace(0.9, 0.91, 10))}, ACCURACY)[0]
    assert pair.better == "good"
    assert pair.claimed
    assert pair.probability == 1
    assert math.isnan(pair.difference)


@pytest.mark.parametrize("shift", [0.0, 0.01])
def test_results_without_spread_allow_no_claim(shift: float) -> None:
    same = by_seed(0.9, 0.91, 0.93)
    (pair,) = statistics.comparisons({"a": same, "b": same + shift}, ACCURACY)
    assert math.isnan(pair.p)
    assert not pair.claimed
    assert "no spread" in pair.method


def test_one_seed_allows_no_claim() -> None:
    (pair,) = statistics.comparisons({"a": by_seed(0.9), "b": by_seed(0.1)}, ACCURACY)
    assert not pair.claimed
    assert pair.method == "one seed, no interval"


def test_a_claim_and_its_interval_never_contradict_each_other() -> None:
    random = np.random.default_rng(0)
    claims = set()
    for gap in np.linspace(0, 0.02, 40):
        arms = {name: by_seed(*(0.9 + 0.01 * random.standard_normal(10))) for name in "abc"}
        arms["a"] += gap
        for pair in statistics.comparisons(arms, ACCURACY):
            assert pair.claimed == (not pair.low <= 0 <= pair.high)
            claims.add(pair.claimed)
    assert claims == {True, False}


def test_several_pairs_are_corrected_by_bonferroni_interval_and_p_alike() -> None:
    random = np.random.default_rng(0)
    noise = {arm: by_seed(*(0.9 + 0.01 * random.standard_normal(10))) for arm in "abc"}
    found = statistics.comparisons(noise, ACCURACY)
    assert {frozenset((pair.better, pair.worse)) for pair in found} == {*map(frozenset, ("ab", "ac", "bc"))}
    for pair in found:
        test = stats.ttest_1samp(noise[pair.better] - noise[pair.worse], 0.0)
        assert pair.adjusted == pytest.approx(min(1.0, 3 * test.pvalue))
        assert (pair.low, pair.high) == pytest.approx(tuple(test.confidence_interval(1 - 0.05 / 3)))


def test_means_and_their_difference_are_of_the_same_seeds() -> None:
    a, b = by_seed(0.9, 0.8, 0.7, 0.1), by_seed(0.89, 0.78, 0.67)
    pair = statistics.compare(("a", a), ("b", b), ACCURACY)
    assert pair.seeds == 3
    assert [pair.mean_better, pair.mean_worse, pair.difference] == pytest.approx([0.8, 0.78, 0.02])


# Times to a target


def reach(times: list[tuple[str, float, bool]], horizon: float = 10) -> statistics.Reach:
    """Of runs (status, time, there): one point each until they get there, or end."""
    curves = [
        {"run": str(n), "step": t, "seconds": t, "val_accuracy": 1.0 if there else 0.0}
        for n, (_, t, there) in enumerate(times)
    ]
    curves.append({"run": "another arm's", "step": horizon, "seconds": horizon, "val_accuracy": 0.0})
    statuses = {str(n): status for n, (status, _, _) in enumerate(times)}
    return statistics.reach(pd.DataFrame(curves), statuses, ("val_accuracy", ACCURACY), 0.5, "step")


def test_kaplan_and_meier_by_hand() -> None:
    # At 2, one of five gets there; one is stopped at 3; at 4, one of the three left; the others never do.
    found = reach(
        [
            ("finished", 2, True),
            ("interrupted", 3, False),
            ("finished", 4, True),
            ("finished", 6, False),
            ("diverged", 1, False),
        ]
    )
    shares = dict(zip(found.curve["time"], found.curve["share"], strict=True))
    assert shares[2] == pytest.approx(1 / 5)
    assert shares[4] == pytest.approx(1 - 4 / 5 * 2 / 3)
    assert found.share_there == pytest.approx(7 / 15)
    assert found.median == math.inf
    never = found.times[~found.times["reached"]].set_index("run")["time"]
    assert never.to_dict() == {"1": 3, "3": 10, "4": 10}


def test_median_time_has_the_interval_that_the_band_gives() -> None:
    found = reach([("finished", t, True) for t in range(1, 11)])
    assert found.median == 5
    data = stats.CensoredData(list(range(1, 11)))
    with pytest.warns(RuntimeWarning, match="undefined"):
        band = stats.ecdf(data).sf.confidence_interval(0.95, method="log-log")
    assert found.low == 1 + int(np.argmax(band.low.probabilities <= 0.5))
    assert found.high == 1 + int(np.argmax(band.high.probabilities <= 0.5))


def test_nobody_gets_there() -> None:
    found = reach([("finished", 5, False), ("diverged", 2, False)])
    assert (found.median, found.share_there) == (math.inf, 0.0)


# Budgets


def test_the_best_of_several_trials_by_the_formula() -> None:
    # The best of k draws is at most the i-th of n with probability (i / n) ** k.
    scores = [0.1 * n for n in range(1, 11)]
    table = statistics.best_of(scores)
    for k in (1, 2, 5, 10):
        exact = next(v for i, v in enumerate(scores, 1) if (i / 10) ** k >= 0.5)
        assert table["median"][k - 1] == exact
    assert table["median"].is_monotonic_increasing


def test_diverged_trials_are_the_worst_and_no_number() -> None:
    table = statistics.best_of([-math.inf] * 9 + [0.9])
    assert table["median"][0] == -math.inf
    assert table["median"][9] == 0.9
    assert not table.isna().any(axis=None)


def test_flat_region_ends_at_the_first_value_that_is_worse() -> None:
    profile = pd.Series({1: 0.995, 2: 0.9, 3: 0.992, 4: 1.0, 5: math.nan, 6: 1.0})
    assert statistics.flat_region(profile, 1) == (3, 4)
    assert statistics.flat_region(-profile, -1) == (3, 4)


def test_the_interval_of_a_mean_is_students() -> None:
    values = by_seed(0.4, 0.5, 0.6)
    expected: Any = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert statistics.mean_interval(values, ACCURACY) == pytest.approx((expected.low, expected.high))
    assert all(map(math.isnan, statistics.mean_interval(by_seed(0.4, 0.5, -math.inf), ACCURACY)))
    assert all(map(math.isnan, statistics.mean_interval(by_seed(1.0), ACCURACY)))


@pytest.mark.parametrize(
    ("values", "expected"), [((0.4, 1.0), (math.nan, math.nan)), ((0.97, 0.99), (0.98 - 0.01 * 12.7062, 1.0))]
)
def test_no_interval_goes_beyond_what_an_accuracy_can_be(
    values: tuple[float, ...], expected: tuple[float, float]
) -> None:
    # With two seeds, t of 0.975 with one degree of freedom is 12.7062.
    assert statistics.mean_interval(by_seed(*values), ACCURACY) == pytest.approx(expected, nan_ok=True)
    pair = statistics.compare(("a", by_seed(0.0, 1.0)), ("b", by_seed(1.0, 0.9)), ACCURACY)
    assert (pair.low, pair.high) == (-1.0, 1.0)


# Choosing by the other seeds


def test_each_seeds_trial_is_chosen_by_the_other_seeds_and_of_equals_the_first() -> None:
    scores = np.array([[9.0, 1.0, 1.0], [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]])
    assert crossfit.picks(scores).tolist() == [1, 0, 0]
    scores[0, 1] = -math.inf  # diverged: not chosen by this seed, whatever the other says
    assert crossfit.picks(scores).tolist() == [1, 0, 1]
    assert crossfit.picks(np.full((2, 3), -math.inf)).tolist() == [-1, -1, -1]


def test_seeds_that_choose_for_each_other_widen_the_interval() -> None:
    a, b = by_seed(0.91, 0.82, 0.73), by_seed(0.90, 0.80, 0.70)
    plain, wide = (statistics.compare(("a", a), ("b", b), ACCURACY, overlap=o) for o in (0.0, 1.0))
    assert wide.difference == plain.difference
    ratio = math.sqrt((1 / 3 + 1 / 2) / (1 / 3))
    assert wide.high - wide.low == pytest.approx(ratio * (plain.high - plain.low))


def test_p_is_shown_on_its_side_of_five_percent() -> None:
    pair = statistics.compare(("a", by_seed(0.91, 0.82)), ("b", by_seed(0.90, 0.80)), ACCURACY)
    shown = [replace(pair, adjusted=p).p_text for p in (0.0499, 0.04999, 0.05, 0.2371, math.nan)]
    assert shown == ["0.0499", "0.04999", "0.05", "0.24", "none"]


def test_the_seeds_needed_have_the_power_that_a_simulation_finds() -> None:
    random = np.random.default_rng(0)
    x, y = (by_seed(*random.standard_normal(20)) for _ in range(2))
    spread = price.Spread(x, y, True, 0.0)
    draws = random.standard_normal((20_000, 12)) * math.sqrt(spread.variance) + 1.2
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert spread.power(12, 1.2, 0.05) == pytest.approx(found.mean(), abs=0.01)
