"""The course of a sweep: exactly which runs each feature asks for, with results computed from a formula."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fairsweep.config import ConfigError
from fairsweep.sweeps import phases
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.phases import ArmOutcome, Result, SweepSettings, Trial, TrialRun, known, rungs
from fairsweep.sweeps.search import Study
from fairsweep.sweeps.space import Dimension

GRID = SweepSettings(
    sampler="grid",
    trials=None,
    seeds=(0,),
    confirm_seeds=(),
    extend=False,
    extend_steps=1,
    halving=None,
    batch=1,
    equal_budget=True,
    epochs=10,
    sign=1,
)
LR = Dimension("lr", low=1e-4, high=1e-1, log=True)
MOMENTUM = Dimension("momentum", low=0.0, high=0.9)
COUNT = Dimension("n", low=1, high=5, step=2, integer=True)
LIST = Dimension("lr", ("0.1", "0.2", "0.3"))
ADAM, SGD = Arm("adam", ("optimizer=adam",), (LR,)), Arm("sgd", ("optimizer=sgd",), (LR,))

Formula = Callable[[TrialRun], float | None]


def near(**best: float) -> Formula:
    """The objective falls with the distance from these values, on a log scale for lr."""

    def scale(key: str, value: float) -> float:
        return math.log10(value) if key == "lr" else value

    return lambda run: (
        -sum(abs(scale(key, float(run.trial.values[key])) - scale(key, value)) for key, value in best.items())
    )


# By arm and number, the values and the basis of each proposal.
Plan = dict[str, dict[int, list[tuple[dict[str, str], str]]]]


class Bench:
    """Computes results instead of training, and remembers what it was asked for.

    Args:
        plan: what the samplers proposed, of earlier commands as well.
    """

    def __init__(
        self,
        formula: Formula,
        allowed: Callable[[Mapping[str, str]], bool] = lambda values: True,
        plan: Plan | None = None,
    ) -> None:
        self.formula = formula
        self.permits = allowed
        self.batches: list[list[TrialRun]] = []
        self.pruned: list[list[TrialRun]] = []
        self.studies: dict[str, Study] = {}
        self.plan = {} if plan is None else plan

    def evaluate(self, runs: Sequence[TrialRun]) -> list[Result]:
        assert runs
        self.batches.append(list(runs))
        for trial in (run.trial for run in runs if run.trial.basis):
            proposals = self.plan.setdefault(trial.arm, {}).setdefault(trial.number, [])
            proposals.append((trial.values, trial.basis))
        return [self.result(run) for run in runs]

    def result(self, run: TrialRun) -> Result:
        value = self.formula(run)
        if value is None:
            return Result("failed", None)
        if math.isinf(value):
            return Result("diverged", value)
        return Result("finished" if run.stop_epoch is None else "paused", value)

    def allowed(self, arm: str, values: Mapping[str, str]) -> bool:
        return self.permits(values)

    def prune(self, runs: Sequence[TrialRun]) -> None:
        self.pruned.append(list(runs))

    def run(
        self, arms: Sequence[Arm], settings: SweepSettings, interleave: bool = True
    ) -> dict[str, ArmOutcome]:
        def study(arm: Arm) -> Study:
            self.studies[arm.name] = Study(
                "s1", arm, settings.sampler, settings.sign, self.plan.get(arm.name, {})
            )
            return self.studies[arm.name]

        phases.check(arms, settings)
        course = phases.Course(arms, settings, self.evaluate, study, self.prune, self.allowed)
        outcomes = course.run(interleave)
        if settings.equal_budget:
            assert len({len(outcome.tried) for outcome in outcomes.values()}) == 1
        return outcomes

    def asked(self) -> list[str]:
        """All runs, batch by batch, in few words: arm, number, values, /seed, :rung, ! to confirm."""
        return [" ".join(map(words, batch)) for batch in self.batches]


def words(run: TrialRun) -> str:
    text = f"{run.trial.arm}{run.trial.number}@" + ",".join(run.trial.values.values())
    text += f"/{run.seed}" if run.seed else ""
    text += f":{run.stop_epoch}" if run.stop_epoch else ""
    return text + ("!" if run.phase == "confirm" else "")


def lists(name: str, *values: str) -> Arm:
    return Arm(name, (), (Dimension("lr", values),))


def test_a_run_can_be_a_key() -> None:
    run, same = (
        TrialRun(Trial("a", 0, values), "search", 1)
        for values in ({"x": "1", "y": "2"}, {"y": "2", "x": "1"})
    )
    assert {run: 1}[same] == 1
    assert run != run._replace(trial=Trial("a", 0, {"x": "1", "y": "3"}))


# Search


def test_a_grid_is_one_batch_with_the_arms_side_by_side() -> None:
    bench = Bench(near(lr=0.2))
    outcomes = bench.run([lists("a", "0.1", "0.2"), lists("b", "0.3", "0.4")], replace(GRID, seeds=(0, 7)))
    assert bench.asked() == ["a0@0.1 a0@0.1/7 b0@0.3 b0@0.3/7 a1@0.2 a1@0.2/7 b1@0.4 b1@0.4/7"]
    assert [outcome.best.trial.number for outcome in outcomes.values() if outcome.best] == [1, 0]
    assert outcomes["a"].best is not None
    assert outcomes["a"].best.objective == 0


def test_a_plain_grid_comes_in_hydras_order() -> None:
    bench = Bench(near())
    bench.run([lists("a", "1", "2"), lists("b", "1", "2")], GRID, interleave=False)
    assert bench.asked() == ["a0@1 a1@2 b0@1 b1@2"]


def test_what_is_known_beforehand_is_what_is_run() -> None:
    arms = [lists("a", "0.1", "0.2"), lists("b", "0.3", "0.4")]
    for interleave in (True, False):
        bench = Bench(near(lr=0.1))
        bench.run(arms, replace(GRID, seeds=(0, 1)), interleave=interleave)
        assert known(arms, replace(GRID, seeds=(0, 1)), interleave) == (bench.batches[0], 0)
    settings = replace(GRID, trials=4, seeds=(0, 1, 2), confirm_seeds=(5, 6), extend=True, extend_steps=2)
    assert known([ADAM, SGD], settings)[1] == 2 * (2 * 3 + 2)
    bench = Bench(near(lr=1e-9))
    bench.run([ADAM, SGD], settings)
    assert bench.batches[0] == known([ADAM, SGD], settings)[0]
    assert sum(map(len, bench.batches[1:])) == known([ADAM, SGD], settings)[1]
    assert known([ADAM, SGD], replace(settings, sampler="tpe")) == ([], 2 * (4 * 3 + 2 * 3 + 2))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_trial_has_the_best_mean_over_its_seeds(sign: int) -> None:
    """Trial 0 has the best single run, 3 fails once, 4 diverges once, 1 and 2 are equal."""
    values: list[list[float | None]] = [[9, 0], [5, 6], [6, 5], [9, None], [9, -math.inf]]

    def formula(run: TrialRun) -> float | None:
        value = values[run.trial.number][run.seed]
        return None if value is None else sign * value

    outcome = Bench(formula).run([lists("a", *"12345")], replace(GRID, seeds=(0, 1), sign=sign))["a"]
    means = [tried.objective for tried in outcome.tried]
    assert means == [sign * 4.5, sign * 5.5, sign * 5.5, None, -sign * math.inf]
    assert outcome.best == outcome.tried[1]


@pytest.mark.parametrize("bad", [None, -math.inf])
def test_an_arm_where_nothing_finished_has_no_best_and_no_confirm_runs(bad: float | None) -> None:
    bench = Bench(lambda run: bad if run.trial.arm == "adam" else 0.5)
    settings = replace(GRID, trials=3, confirm_seeds=(100, 101), extend=True, extend_steps=2)
    outcomes = bench.run([ADAM, SGD], settings)
    assert outcomes["adam"].best is None
    assert outcomes["adam"].confirmed == ()
    assert bench.asked()[-1] == "sgd0@0.0001/100! sgd0@0.0001/101!"
    assert len(outcomes["sgd"].confirmed) == 2


def test_confirm_runs_go_by_seed() -> None:
    bench = Bench(lambda run: run.trial.number + run.seed / 1000)
    outcomes = bench.run(
        [lists("a", "1", "2"), lists("b", "3", "4")], replace(GRID, confirm_seeds=(100, 101))
    )
    assert bench.asked()[1:] == ["a1@2/100! b1@4/100! a1@2/101! b1@4/101!"]
    assert [result.objective for result in outcomes["b"].confirmed] == [1.1, 1.101]
    assert [outcome.trial.number for outcome in outcomes["a"].tried] == [0, 1]


def test_two_equal_arms_come_out_equal() -> None:
    outcomes = Bench(near(lr=0.001)).run([ADAM, SGD], replace(GRID, trials=5, extend=True, extend_steps=3))
    one, other = ([(t.trial.values, t.results) for t in outcome.tried] for outcome in outcomes.values())
    assert one == other


# Samplers


def test_a_sampler_is_asked_in_rounds_of_all_arms() -> None:
    bench = Bench(near(lr=0.01))
    settings = replace(GRID, sampler="tpe", trials=5, batch=2, seeds=(0, 1))
    outcomes = bench.run([ADAM, SGD], settings)
    numbers = [[(run.trial.arm, run.trial.number, run.seed) for run in batch] for batch in bench.batches]
    assert numbers[0] == [(arm, n, seed) for n in (0, 1) for arm in ("adam", "sgd") for seed in (0, 1)]
    assert [len(batch) for batch in numbers] == [8, 8, 4]
    # All of it again: the same runs, and the results are known to the studies.
    again = Bench(near(lr=0.01))
    assert again.run([ADAM, SGD], settings) == outcomes
    assert again.batches == bench.batches
    assert again.studies["sgd"].results == [tried.objective for tried in outcomes["sgd"].tried]


def test_a_sampler_that_does_not_learn_is_one_batch() -> None:
    bench = Bench(near(lr=0.01))
    bench.run([ADAM, SGD], replace(GRID, sampler="QMCSampler", trials=4))
    assert [[run.trial.number for run in batch] for batch in bench.batches] == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_an_interrupted_sweep_asks_for_the_same_again() -> None:
    settings = replace(
        GRID, sampler="tpe", trials=4, batch=2, extend=True, extend_steps=2, confirm_seeds=(9,)
    )
    whole = Bench(near(lr=1.0))
    outcomes = whole.run([ADAM, SGD], settings)
    plan: Plan = {}
    for place in range(len(whole.batches)):
        bench = Bench(near(lr=1.0), plan=plan)

        def interrupted(runs: Sequence[TrialRun], bench: Bench = bench, place: int = place) -> list[Result]:
            if len(bench.batches) == place:
                raise KeyboardInterrupt
            return Bench.evaluate(bench, runs)

        bench.evaluate = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            bench.run([ADAM, SGD], settings)
    bench = Bench(near(lr=1.0), plan=plan)
    assert bench.run([ADAM, SGD], settings) == outcomes
    assert bench.batches == whole.batches


# Extension


def extended(
    formula: Formula, arm: Arm, steps: int, trials: int | None, **bench: Any
) -> tuple[list[str], ArmOutcome]:
    """The runs after the search of a single arm, and what came of it."""
    it = Bench(formula, **bench)
    outcome = it.run([arm], replace(GRID, trials=trials, extend=True, extend_steps=steps))[arm.name]
    return [text.split("@")[1] for text in it.asked()[1:]], outcome


def test_a_range_grows_at_its_low_end_as_long_as_the_best_stands_there() -> None:
    runs, outcome = extended(near(lr=8e-7), ADAM, 4, 4)
    # The third step is one too far; the fourth trial goes between the best and its better neighbour.
    assert runs == ["1e-05", "1e-06", "1e-07", "3.162e-07"]
    assert outcome.space == (replace(LR, low=1e-7),)
    assert outcome.best is not None
    assert outcome.best.trial == Trial("adam", 5, {"lr": "1e-06"})


def test_a_range_grows_at_its_high_end() -> None:
    runs, outcome = extended(near(lr=1.0), ADAM, 1, 4)
    assert runs == ["1.0"]
    assert outcome.arm.space == (LR,)


def test_linear_and_whole_ranges_grow_by_their_step() -> None:
    assert extended(near(momentum=9), Arm("a", (), (MOMENTUM,)), 2, 4)[0] == ["1.2", "1.5"]
    assert extended(near(n=9), Arm("a", (), (COUNT,)), 2, None)[0] == ["7", "9"]
    assert extended(near(n=-9), Arm("a", (), (COUNT,)), 2, 3)[0] == ["-1", "-3"]
    assert extended(near(n=9), Arm("a", (), (replace(COUNT, step=-2),)), 1, None)[0] == ["7"]


def test_the_first_range_at_an_edge_grows() -> None:
    arm = Arm("a", (), (Dimension("nesterov", ("true", "false")), LR, MOMENTUM))
    runs, outcome = extended(near(lr=1e-3, momentum=2), arm, 1, 32)
    assert runs == ["true,0.001,1.2"]
    assert outcome.space[2] == replace(MOMENTUM, high=1.2)
    assert extended(near(lr=9, momentum=2), arm, 2, 32)[0] == ["true,1.0,0.9", "true,10.0,0.9"]


def test_what_the_runs_cannot_have_is_spent_inside() -> None:
    def below_one(values: Mapping[str, str]) -> bool:
        return float(values["momentum"]) < 1

    runs, outcome = extended(near(momentum=9), Arm("a", (), (MOMENTUM,)), 3, 4, allowed=below_one)
    # 1.2 is refused each time: between the best and its neighbour, again, again.
    assert runs == ["0.75", "0.825", "0.8625"]
    assert outcome.space == (MOMENTUM,)


def test_an_arm_that_needs_no_extension_spends_its_trial_between_its_best_points() -> None:
    # The best is 0.001, its better neighbour 0.0001, then 0.0003162, ...
    runs, _ = extended(near(lr=8e-4), ADAM, 3, 4)
    assert runs == ["0.0003162", "0.0005623", "0.0007499"]


def test_points_inside_follow_the_best() -> None:
    # 0.003162 is better than 0.001, and then 0.001778 and 0.002371 are better than that.
    runs, _ = extended(near(lr=2.2e-3), ADAM, 4, 4)
    assert runs == ["0.003162", "0.001778", "0.002371", "0.002053"]


def test_whole_numbers_stay_whole_until_none_is_left() -> None:
    runs, outcome = extended(near(n=3), Arm("a", (), (COUNT,)), 5, None)
    assert runs == ["2", "4"]
    assert len(outcome.tried) == 5


def test_a_step_inside_goes_to_another_line_when_its_own_is_full() -> None:
    pair = Dimension("n", low=1, high=3, step=1, integer=True)
    arm = Arm("a", (), (pair, Dimension("m", low=0, high=8, step=4, integer=True)))
    runs, _ = extended(near(n=2, m=4), arm, 3, None)
    assert runs == ["2,2", "2,3", "2,6"]


def test_arms_spend_the_same_reserve_side_by_side() -> None:
    bench = Bench(lambda run: near(lr=1e-9 if run.trial.arm == "adam" else 1e-3)(run))
    outcomes = bench.run([ADAM, SGD], replace(GRID, trials=4, extend=True, extend_steps=2, seeds=(0, 1)))
    assert bench.asked()[1:] == [
        "adam4@1e-05 adam4@1e-05/1 sgd4@0.0003162 sgd4@0.0003162/1",
        "adam5@1e-06 adam5@1e-06/1 sgd5@0.0005623 sgd5@0.0005623/1",
    ]
    assert outcomes["sgd"].space == (LR,)


def test_without_a_best_trial_the_reserve_is_spent_inside() -> None:
    runs, outcome = extended(lambda run: None, ADAM, 2, 3)
    assert runs == ["0.0005623", "0.0002371"]
    assert (outcome.best, outcome.space) == (None, (LR,))


def test_a_samplers_space_grows_too() -> None:
    settings = replace(GRID, sampler="random", trials=6, extend=True, extend_steps=3)
    arm = Arm("a", (), (Dimension("n", low=1, high=2, integer=True),))
    bench = Bench(lambda run: -abs(float(run.trial.values["n"]) - 4))
    outcome = bench.run([arm], settings)["a"]
    assert bench.asked()[1:3] == ["a6@3", "a7@4"]
    assert outcome.space == (Dimension("n", low=1, high=5, integer=True),)
    assert [trial.values["n"] for trial in bench.studies["a"].trials[6:]] == ["3", "4", "5"]


def test_a_sampler_that_needs_no_extension_is_asked_for_one_trial_more() -> None:
    settings = replace(GRID, sampler="random", trials=6)
    bench = Bench(near(lr=3e-3))
    outcome = bench.run([ADAM], replace(settings, extend=True, extend_steps=2))["adam"]
    assert [len(batch) for batch in bench.batches] == [6, 1, 1]
    assert outcome.space == (LR,)
    longer = Bench(near(lr=3e-3)).run([ADAM], replace(settings, trials=8))["adam"]
    assert [(tried.trial.values, tried.results) for tried in longer.tried] == [
        (tried.trial.values, tried.results) for tried in outcome.tried
    ]


# Halving


@pytest.mark.parametrize(
    ("trials", "factor", "epochs", "expected"),
    [
        (9, 3, 9, [1, 3]),
        (9, 3, 10, [2, 4]),
        (8, 3, 9, [3]),
        (27, 3, 9, [1, 3]),
        (27, 3, 100, [4, 12, 34]),
        (16, 2, 5, [1, 2, 3]),
        (2, 2, 2, [1]),
        (2, 3, 9, []),
        (9, 3, 1, []),
    ],
)
def test_rungs_are_as_many_as_trials_and_epochs_allow(
    trials: int, factor: int, epochs: int, expected: list[int]
) -> None:
    assert rungs(trials, factor, epochs) == expected


def test_halving_drops_all_but_the_best_share_of_each_arm() -> None:
    arms = [lists("a", "1", "2", "3", "4"), lists("b", "1", "2", "3", "4")]

    # Trial 0 is best at first, trial 2 in the end; b counts the other way round.
    def formula(run: TrialRun) -> float:
        lr = float(run.trial.values["lr"])
        rung = run.stop_epoch or 10
        return (lr if run.trial.arm == "b" else -lr) + (10 * (rung > 4) if lr == 2 else 0) - run.seed

    bench = Bench(formula)
    outcomes = bench.run(arms, replace(GRID, halving=2, seeds=(0, 1), confirm_seeds=(100,)))
    assert bench.asked() == [
        " ".join(f"{arm}{n}@{n + 1}{seed}:3" for n in range(4) for arm in "ab" for seed in ("", "/1")),
        "a0@1:5 a0@1/1:5 a1@2:5 a1@2/1:5 b2@3:5 b2@3/1:5 b3@4:5 b3@4/1:5",
        "a1@2 a1@2/1 b3@4 b3@4/1",
        "a1@2/100! b3@4/100!",
    ]
    assert [[words(run) for run in runs] for runs in bench.pruned] == [
        ["b0@1:3", "b0@1/1:3", "b1@2:3", "b1@2/1:3", "a2@3:3", "a2@3/1:3", "a3@4:3", "a3@4/1:3"],
        ["a0@1:5", "a0@1/1:5", "b2@3:5", "b2@3/1:5"],
    ]
    # A dropped trial keeps its last value, but is no candidate.
    assert [(tried.objective, tried.complete) for tried in outcomes["b"].tried] == [
        (0.5, False),
        (1.5, False),
        (2.5, False),
        (3.5, True),
    ]


def test_halving_drops_what_failed_or_diverged_first_and_prunes_only_what_is_paused() -> None:
    values: list[float | None] = [None, -math.inf, 1, 1, 1, None]
    bench = Bench(lambda run: values[run.trial.number])
    outcome = bench.run([lists("a", *"123456")], replace(GRID, halving=2, epochs=2))["a"]
    assert bench.asked() == ["a0@1:1 a1@2:1 a2@3:1 a3@4:1 a4@5:1 a5@6:1", "a2@3 a3@4 a4@5"]
    assert bench.pruned == []
    values[:] = [1, 1, None, None, None, -math.inf]
    bench = Bench(lambda run: values[run.trial.number])
    outcome = bench.run([lists("a", *"123456")], replace(GRID, halving=3, epochs=2))["a"]
    assert bench.asked()[1:] == ["a0@1 a1@2"]
    values[:] = [0, None, 1, 1, None, None]
    bench = Bench(lambda run: values[run.trial.number])
    outcome = bench.run([lists("a", *"123456")], replace(GRID, halving=6, epochs=2))["a"]
    assert bench.asked()[1:] == ["a2@3"]
    assert [[words(run) for run in runs] for runs in bench.pruned] == [["a0@1:1", "a3@4:1"]]
    assert outcome.best is not None
    assert outcome.best.trial.number == 2


def test_halving_goes_with_samplers_that_do_not_learn_and_with_extension() -> None:
    bench = Bench(near(lr=1e-2))
    settings = replace(GRID, sampler="random", trials=4, halving=4, epochs=4, extend=True)
    outcome = bench.run([ADAM, SGD], settings)["adam"]
    stages = [Counter((run.trial.arm, run.stop_epoch) for run in batch) for batch in bench.batches]
    assert stages == [
        {("adam", 1): 4, ("sgd", 1): 4},
        {("adam", None): 1, ("sgd", None): 1},
        {("adam", None): 1, ("sgd", None): 1},
    ]
    assert bench.studies["adam"].results == [
        tried.objective if tried.complete else None for tried in outcome.tried
    ]


# What is refused


@pytest.mark.parametrize(
    ("arms", "changes", "words"),
    [
        ([ADAM], {"trials": 3, "seeds": ()}, r"seeds=\[\]: must be one or more"),
        ([ADAM], {"trials": 3, "seeds": (1, 2, 1)}, r"seeds=\[1, 2, 1\]: has 1 twice"),
        ([ADAM], {"trials": 3, "confirm_seeds": (5, 5)}, r"confirm=\[5, 5\]: has 5 twice"),
        (
            [ADAM],
            {"trials": 3, "seeds": (1, 2), "confirm_seeds": (2, 3)},
            r"has 2, a seed of the confirm phase",
        ),
        ([ADAM], {"trials": 0}, r"trials=0: must be a whole number, 1 or more"),
        ([ADAM], {"trials": 3, "batch": 0}, r"batch=0: must be"),
        ([ADAM], {}, r"arms\.adam: hydra\.sweeper\.trials: is missing"),
        ([ADAM], {"sampler": "tpe"}, r"trials: is missing: .*sampler=tpe needs it"),
        ([ADAM], {"sampler": "tp", "trials": 3}, r"arms\.adam: .*sampler=tp: no such sampler"),
        ([ADAM], {"sampler": "cmaes", "trials": 3}, r"arms\.adam: .*less than two dimensions"),
        ([ADAM._replace(name="")], {"sampler": "cmaes", "trials": 3}, r"^hydra\.sweeper\.sampler=cmaes"),
        ([ADAM, Arm("sgd", (), (LR, MOMENTUM))], {"trials": 5}, r"arms\.sgd: .*trials=5: .*4 or 9"),
        ([lists("a", "1", "2"), lists("b", "1")], {}, r"a has 2, b has 1.*equal_budget=false"),
        ([lists("a", "1", "2")], {"trials": 3}, r"arms\.a: .*trials=3: .*has 2"),
        ([lists("a", "1", "2")], {"extend": True}, r"arms\.a: .*extend=true: .*no order"),
        ([Arm("a", ("x=1",), ())], {"extend": True}, r"arms\.a: .*extend=true"),
        ([ADAM], {"trials": 3, "extend": True, "extend_steps": 0}, r"extend_steps=0: must be"),
        ([ADAM], {"trials": 3, "halving": 1}, r"halving=1: must be a whole number, 2 or more"),
        ([ADAM], {"trials": 3, "halving": 4}, r"halving=4: needs as many trials in each arm \(there are 3\)"),
        ([ADAM], {"trials": 3, "halving": 2, "epochs": 1}, r"2 epochs or more \(there are 1\)"),
        (
            [ADAM],
            {"trials": 9, "halving": 3, "sampler": "tpe"},
            r"halving=3: .*sampler=tpe learns.*take grid",
        ),
        ([Arm("a", (), (LR, LR))], {"trials": 4}, r"arms\.a: has lr twice"),
    ],
)
def test_what_cannot_be_a_sweep_is_refused(arms: list[Arm], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        phases.check(arms, replace(GRID, **changes))
    assert "\n" not in str(error.value)


def test_unequal_budgets_can_be_insisted_on() -> None:
    arms = [lists("a", "1", "2"), ADAM, Arm("none", ("x=1",), ())]
    bench = Bench(near())
    outcomes = bench.run(arms, replace(GRID, trials=3, equal_budget=False))
    assert [len(outcome.tried) for outcome in outcomes.values()] == [2, 3, 1]
    assert bench.asked() == ["a0@1 adam0@0.0001 none0@ a1@2 adam1@0.003162 adam2@0.1"]


def test_every_arm_gets_as_many_trials_whatever_its_results() -> None:
    """Runs fail, diverge and stand at edges here and there, in every kind of search."""
    arms = [ADAM, SGD, Arm("third", (), (MOMENTUM,))]
    for salt, sampler in enumerate(["grid"] * 6 + ["tpe"]):

        def formula(run: TrialRun, salt: int = salt) -> float | None:
            text = f"{salt}{run.trial.arm}{sorted(run.trial.values.items())}{run.seed}"
            draw = sum(ord(letter) * (place + 1) for place, letter in enumerate(text)) % 101
            return None if draw < 12 else -math.inf if draw < 25 else float(draw)

        settings = replace(
            GRID, sampler=sampler, trials=4, seeds=(0, 1), extend=True, extend_steps=2, batch=2
        )
        settings = replace(settings, halving=2 if salt % 2 else None)
        for outcome in Bench(formula).run(arms, settings).values():
            assert [tried.trial.number for tried in outcome.tried] == list(range(6))
            assert len({tuple(tried.trial.values.values()) for tried in outcome.tried}) == 6
