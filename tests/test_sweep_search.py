"""Searches by Optuna's samplers: the same trials however often they are killed, and no silent random ones."""

import copy
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fairsweep.config import ConfigError
from fairsweep.sweeps import search
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.search import Proposal, Study, check, samplers
from fairsweep.sweeps.space import Dimension

LR = Dimension("optimizer.lr", low=1e-4, high=1.0, log=True)
MOMENTUM = Dimension("optimizer.momentum", low=0.0, high=0.99)
WIDTH = Dimension("model.width", low=8, high=64, step=8, integer=True)
NORM = Dimension("model.norm", ("none", "batch"))
NUMBERS = Arm("sgd", ("optimizer=sgd",), (LR, MOMENTUM, WIDTH))
MIXED = Arm("sgd", ("optimizer=sgd",), (LR, NORM))
FINITE = Arm("sgd", ("optimizer=sgd",), (WIDTH, NORM))

Values = dict[str, str]


def arm_for(sampler: str) -> Arm:
    return {"cmaes": NUMBERS, "bruteforce": FINITE}.get(sampler, MIXED)


def objective(number: int, values: Values) -> float | None:
    """Best at lr=0.01; some trials fail, some diverge."""
    if number % 7 == 3:
        return None
    if number % 7 == 5:
        return -math.inf
    lr = float(values.get("optimizer.lr", "0.1"))
    rest = sum(float(v) for k, v in values.items() if k in ("optimizer.momentum", "model.width"))
    return -((math.log10(lr) + 2) ** 2) - 0.01 * rest + (values.get("model.norm") == "batch")


class Record:
    """What a sweep's plan has of one search: it survives what is killed."""

    def __init__(self) -> None:
        self.proposals: dict[int, list[tuple[Values, str]]] = {}

    def study(self, arm: Arm, sampler: str, sign: int = 1, sweep: str = "s1") -> Study:
        return Study(sweep, arm, sampler, sign, copy.deepcopy(self.proposals))

    def note(self, number: int, proposal: Proposal) -> None:
        self.proposals.setdefault(number, []).append((proposal.values, proposal.basis))


class Killed(Exception):
    pass


def searched(
    record: Record,
    arm: Arm,
    sampler: str,
    trials: int,
    batch: int = 1,
    step: Callable[[], None] = lambda: None,
    outcome: Callable[[int, Values], float | None] = objective,
) -> list[Values]:
    """Carry out a search from its beginning; `step` is called after each ask and each tell, and may raise."""
    return search_on(record.study(arm, sampler), record, trials, batch, step, outcome)


def search_on(
    study: Study,
    record: Record,
    trials: int,
    batch: int = 1,
    step: Callable[[], None] = lambda: None,
    outcome: Callable[[int, Values], float | None] = objective,
) -> list[Values]:
    found: list[Values] = []
    for first in range(0, trials, batch):
        numbers = range(first, min(first + batch, trials))
        for number in numbers:
            found.append(study.ask(number).values)
            step()
        for number in numbers:  # as a sweep does: a batch is planned as a whole
            record.note(number, study.trials[number])
        for number in numbers:
            study.tell(number, outcome(number, found[number]))
            step()
    return found


def killed_after(steps: Iterable[int]) -> Callable[[], None]:
    """Raises after N steps, then after the next N, and so on."""
    left = iter(steps)
    remaining = next(left)

    def step() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            remaining = next(left, -1)
            raise Killed

    return step


def until_done(carry_out: Callable[[], list[Values]]) -> list[Values]:
    while True:
        try:
            return carry_out()
        except Killed:
            continue


@pytest.fixture(autouse=True)
def small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Genetic samplers breed after 4 trials instead of 50, and others learn early, so that tests see it."""
    import optuna

    def with_defaults(kind: Any, **defaults: Any) -> Any:
        return lambda seed: kind(seed=seed, **defaults)

    kinds: dict[str, Any] = dict(samplers())
    for name in ("nsgaii", "nsgaiii"):
        kinds[name] = with_defaults(kinds[name], population_size=4)
    kinds["tpe"] = with_defaults(optuna.samplers.TPESampler, n_startup_trials=4)
    kinds["gp"] = with_defaults(optuna.samplers.GPSampler, n_startup_trials=4)
    monkeypatch.setattr(search, "samplers", lambda: kinds)


# How many trials it takes to see a sampler learn; and the steps between kills.
SIZES = {"gp": (6, [5, 10]), "cmaes": (12, [2, 19]), "random": (5, [2, 8]), "qmc": (5, [2, 8])}
KILLS = (8, [1, 9, 13])


@pytest.mark.parametrize(
    ("sampler", "batch"),
    [
        *(("tpe", 3), ("qmc", 3), ("cmaes", 3), ("gp", 3)),
        *(pytest.param(sampler, 1, marks=pytest.mark.slow) for sampler in sorted(samplers())),
    ],
)
def test_a_killed_search_goes_on_as_if_it_had_not_been(sampler: str, batch: int) -> None:
    trials, kills = SIZES.get(sampler, KILLS)
    arm = arm_for(sampler)
    whole = searched(Record(), arm, sampler, trials, batch)
    step, record = killed_after(kills), Record()
    assert until_done(lambda: searched(record, arm, sampler, trials, batch, step)) == whole
    for values in whole:
        assert values.keys() == {dim.key for dim in arm.space}


def test_a_search_over_decimal_steps_goes_on_to_the_last_bit() -> None:
    """Texts such as 0.3 become the sampler's own values again, as 0.30000000000000004 is."""
    steps = Dimension("model.dropout", low=0.1, high=0.9, step=0.1)
    arm = Arm("sgd", (), (steps, Dimension("optimizer.momentum", low=0.05, high=0.95, step=-0.05), LR))
    whole = searched(Record(), arm, "tpe", 14)
    step, record = killed_after([15]), Record()
    assert until_done(lambda: searched(record, arm, "tpe", 14, step=step)) == whole


def test_what_is_recorded_stays_whatever_a_sampler_would_propose_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update of Optuna."""
    record = Record()
    before = searched(record, NUMBERS, "cmaes", 6)
    monkeypatch.setattr(search, "seed", lambda *names: hash(names) % 2**32)
    longer = searched(record, NUMBERS, "cmaes", 9)
    assert longer[:6] == before
    assert longer != searched(Record(), NUMBERS, "cmaes", 9)


def test_a_record_that_does_not_fit_the_space_is_passed_over() -> None:
    whole, record = searched(Record(), MIXED, "tpe", 3), Record()
    searched(record, MIXED, "tpe", 3)
    for number, basis in enumerate(("x:", "", "2")):
        (values, _), *_ = record.proposals[number]
        record.proposals[number] = [({"other.key": "1"}, "0:"), (values, basis)]
    assert searched(record, MIXED, "tpe", 3) == whole


def test_trials_depend_on_sweep_and_arm() -> None:
    def first(sweep: str, arm: Arm, sampler: str) -> Values:
        return Study(sweep, arm, sampler, 1).ask(0).values

    for sampler in ("tpe", "qmc"):
        ours = first("s1", MIXED, sampler)
        assert ours == first("s1", MIXED, sampler)
        assert ours != first("s2", MIXED, sampler)
        assert ours != first("s1", MIXED._replace(name="adam"), sampler)


def test_a_search_grows_beyond_its_end_and_its_batches_may_change() -> None:
    record = Record()
    short = searched(record, MIXED, "tpe", 6)
    assert searched(record, MIXED, "tpe", 9, batch=4)[:6] == short
    assert searched(record, MIXED, "tpe", 9, batch=2)[:6] == short


@pytest.mark.parametrize(
    ("sampler", "was"), [("tpe", None), pytest.param("tpe", 100.0, marks=pytest.mark.slow), ("cmaes", -100.0)]
)
def test_a_changed_result_leads_where_it_would_have_led_at_once(sampler: str, was: float | None) -> None:
    """A failed run was repaired, or the code gives another value: what was chosen after it is chosen anew."""
    arm = arm_for(sampler)

    def before(number: int, values: Values) -> float | None:
        return was if number == 6 else objective(number, values)

    trials = 12 if sampler == "cmaes" else 10
    record = Record()
    old = searched(record, arm, sampler, trials, batch=2, outcome=before)
    new = searched(Record(), arm, sampler, trials, batch=2)
    assert old[:8] == new[:8]  # number 7 was asked for together with 6
    assert old[8:] != new[8:]
    assert searched(record, arm, sampler, trials, batch=2) == new
    assert searched(record, arm, sampler, trials, batch=2, outcome=before) == old


def test_samplers_that_do_not_learn_keep_their_trials_when_all_results_change() -> None:
    """As with more seeds for each trial, which change every mean."""
    record = Record()
    before = searched(record, MIXED, "random", 6, batch=6)
    assert searched(record, MIXED, "random", 6, batch=6, outcome=lambda n, v: float(n)) == before


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("cmaes", marks=pytest.mark.slow)])
def test_trials_chosen_by_the_sweep_widen_the_space(sampler: str) -> None:
    wider = (Dimension("optimizer.lr", low=1.0, high=1e9, log=True), *NUMBERS.space[1:])
    narrow = Arm("sgd", (), (Dimension("optimizer.lr", low=1.0, high=1.01, log=True), *NUMBERS.space[1:]))

    def carry_out(record: Record, step: Callable[[], None] = lambda: None) -> list[Values]:
        study = record.study(narrow, sampler)
        found = search_on(study, record, 5, 5, step)
        found.append({**found[-1], "optimizer.lr": "1000000000.0"})
        study.add(5, found[-1], 50.0, wider)
        step()
        for number in (6, 7):
            proposal = study.ask(number)
            found.append(proposal.values)
            record.note(number, proposal)
            step()
            study.tell(number, objective(number, found[-1]))
            step()
        return found

    whole = carry_out(Record())
    assert all(float(values["optimizer.lr"]) > 1.01 for values in whole[6:])
    record, step = Record(), killed_after([11, 13, 14])
    assert until_done(lambda: carry_out(record, step)) == whole
    # A search that is longer now takes the number back.
    longer = searched(Record(), narrow, sampler, 6, 5)
    assert searched(record, narrow, sampler, 6, 5)[5] == longer[5]


def test_a_trial_chosen_by_the_sweep_may_change() -> None:
    record = Record()

    def extended(lr: str, result: float | None) -> Values:
        study = record.study(MIXED, "tpe")
        values = {**study.ask(0).values, "optimizer.lr": lr}
        study.tell(0, 0.5)
        study.add(1, values, result, MIXED.space)
        proposal = study.ask(2)
        record.note(2, proposal)
        assert proposal.basis == study.ask(3).basis
        return proposal.values

    first = extended("0.5", 0.75)
    assert extended("0.5", 0.75) == first
    assert extended("0.25", 0.75).keys() == first.keys()
    assert len({basis for _, basis in record.proposals[2]}) == 2


def test_quasi_random_trials_are_all_of_one_low_discrepancy_sequence() -> None:
    """The first 8 points of a scrambled Sobol sequence have one in each 8th of every dimension."""
    arm = Arm("a", (), (Dimension("x", low=0.0, high=8.0), Dimension("y", low=1.0, high=2.0**8, log=True)))
    for batch in (1, 8):
        found = searched(Record(), arm, "qmc", 8, batch)
        assert sorted(math.floor(float(values["x"])) for values in found) == list(range(8))
        assert sorted(math.floor(math.log2(float(values["y"]))) for values in found) == list(range(8))
    assert found[0] != {"x": "0.0", "y": "1.0"}


@pytest.mark.parametrize(("sampler", "sign", "trials"), [("tpe", 1, 14), ("cmaes", -1, 20), ("gp", -1, 7)])
def test_samplers_learn_in_the_right_direction_and_bear_divergence(
    sampler: str, sign: int, trials: int
) -> None:
    arm = Arm("a", (), (Dimension("x", low=0.0, high=1.0), Dimension("y", low=0.0, high=1.0)))
    study = Study("s1", arm, sampler, sign)
    found = []
    for number in range(trials):
        x = float(study.ask(number).values["x"])
        found.append(x)
        study.tell(number, sign * (-math.inf if x < 0.3 else x))
    late = found[-3:]
    assert sum(late) / len(late) > 0.7


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc"])
def test_every_kind_of_dimension_can_be_searched(sampler: str) -> None:
    arm = Arm(
        "a",
        (),
        (
            Dimension("one", ("x",)),
            Dimension("single", low=3, high=3, step=1, integer=True),
            Dimension("depth", low=1, high=64, log=True, integer=True),
            Dimension("rate", low=0.1, high=0.9, step=0.1),
            Dimension("down", low=1, high=5, step=-2, integer=True),
            Dimension("lists", ("[1,2]", "[3]", "[1,2]")),
        ),
    )
    for values in searched(Record(), arm, sampler, 5):
        assert (values["one"], values["single"]) == ("x", "3")
        assert values["down"] in ("1", "3", "5")
        assert values["lists"] in ("[1,2]", "[3]")


@pytest.mark.parametrize(
    ("sampler", "arm", "words"),
    [
        ("tp", MIXED, "no such sampler; did you mean 'tpe'.*allowed: .*cmaes.*grid.*tpe"),
        ("GridSampler", MIXED, "no such sampler; did you mean 'grid'"),
        ("PartialFixedSampler", MIXED, "no such sampler"),
        ("BaseSampler", MIXED, "no such sampler"),
        ("BaseGASampler", MIXED, "no such sampler"),
        ("cmaes", MIXED, "model.norm is a list"),
        ("CmaEsSampler", Arm("a", (), (LR,)), "less than two dimensions"),
        ("cmaes", Arm("a", (), (LR, Dimension("n", low=1, high=1, step=1))), "less than two dimensions"),
        ("bruteforce", MIXED, "optimizer.lr is an interval"),
        ("tpe", Arm("a", (), ()), "no space"),
    ],
)
def test_a_sampler_that_cannot_do_it_is_refused(sampler: str, arm: Arm, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^hydra\.sweeper\.sampler={sampler}: .*{words}"):
        check(sampler, arm)


def test_samplers_have_long_names_and_short_ones() -> None:
    for name in ("TPESampler", "tpe", "TPE", "QMCSampler", "gp", "nsgaii", "NSGAIIISampler", "random"):
        check(name, MIXED)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    assert importlib.util.find_spec("cmaes")
    with pytest.raises(ConfigError, match="pip install cmaes"):
        check("cmaes", NUMBERS)


@pytest.mark.parametrize("sampler", ["gp", "bruteforce"])
def test_optuna_is_silent(sampler: str, capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    handlers = list(logging.getLogger().handlers)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        searched(Record(), arm_for(sampler), sampler, 6)
    assert capfd.readouterr() == ("", "")
    assert not [str(warning.message) for warning in shown if "optuna" in str(warning.message).lower()]
    assert logging.getLogger().handlers == handlers
