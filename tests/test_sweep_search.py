"""Searches by Optuna's samplers: the same trials however often they are killed, and no silent random ones."""

import importlib.util
import math
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fairsweep.config import ConfigError
from fairsweep.sweeps import search, space
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.search import Study, check, samplers
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


def opened(folder: Path, arm: Arm, sampler: str, sign: int = 1) -> Study:
    """Open a search; in a new folder it finds a database without any, which is made faster by copying."""
    if not folder.exists():
        folder.mkdir()
        shutil.copy(BLANK[0], folder / "optuna.db")
    return Study(folder, "s1", arm, sampler, sign)


BLANK: list[Path] = []


@pytest.fixture(autouse=True, scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("blank")
    Study(folder, "s0", MIXED, "random", 1)
    BLANK[:] = [folder / "optuna.db"]


class Killed(Exception):
    pass


def searched(
    folder: Path,
    arm: Arm,
    sampler: str,
    trials: int,
    batch: int = 1,
    step: Callable[[], None] = lambda: None,
    outcome: Callable[[int, Values], float | None] = objective,
) -> list[Values]:
    """Carry out a search from its beginning; `step` is called after each ask and each tell, and may raise."""
    study = opened(folder, arm, sampler)
    found: list[Values] = []
    for first in range(0, trials, batch):
        numbers = range(first, min(first + batch, trials))
        for number in numbers:
            found.append(study.ask(number))
            step()
        for number in numbers:
            study.tell(number, outcome(number, found[number]))
            step()
    return found


def killed_after(steps: Iterable[int]) -> Callable[[], None]:
    """Raises when so many steps have been made since it last did, again and again."""
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


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """These tests kill processes, not the power."""
    from sqlalchemy import Engine, event

    def relax(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


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
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path, sampler: str, batch: int) -> None:
    trials, kills = SIZES.get(sampler, KILLS)
    arm = arm_for(sampler)
    whole = searched(tmp_path / "whole", arm, sampler, trials, batch)
    step = killed_after(kills)
    assert until_done(lambda: searched(tmp_path / "killed", arm, sampler, trials, batch, step)) == whole
    for values in whole:
        assert values.keys() == {dim.key for dim in arm.space}


def test_a_kill_within_any_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies between Optuna's transactions, in a search whose results change on the way."""
    from optuna.storages import RDBStorage

    def carry_out(folder: Path) -> list[Values]:
        return searched(
            folder, NUMBERS, "tpe", 8, 2, outcome=lambda n, v: -9.0 if n == 4 else objective(n, v)
        )

    searched(tmp_path / "old", NUMBERS, "tpe", 7, batch=2)
    shutil.copytree(tmp_path / "old", tmp_path / "whole")
    whole = carry_out(tmp_path / "whole")
    left = [math.inf]
    for name in ("create_new_study", "delete_study", "_create_new_trial", "set_trial_state_values"):
        write = getattr(RDBStorage, name)

        def killed(self: Any, *args: Any, write: Any = write, **kwargs: Any) -> Any:
            result = write(self, *args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(RDBStorage, name, killed)
    for writes in (2, 5, 11):
        shutil.copytree(tmp_path / "old", tmp_path / str(writes))
        left[0] = writes
        with suppress(KeyboardInterrupt):
            carry_out(tmp_path / str(writes))
        assert left[0] == 0
        assert carry_out(tmp_path / str(writes)) == whole


def test_trials_depend_on_sweep_and_arm(tmp_path: Path) -> None:
    def first(sweep: str, arm: Arm, sampler: str) -> Values:
        return Study(tmp_path, sweep, arm, sampler, 1).ask(0)

    for sampler in ("tpe", "qmc"):
        ours = first("s1", MIXED, sampler)
        assert ours == first("s1", MIXED, sampler)
        assert ours != first("s2", MIXED, sampler)
        assert ours != first("s1", MIXED._replace(name="adam"), sampler)


def test_two_arms_share_a_database(tmp_path: Path) -> None:
    one, other = (Study(tmp_path, "s1", arm, "random", 1) for arm in (MIXED, NUMBERS._replace(name="adam")))
    assert one.ask(0).keys() != other.ask(0).keys()
    one.tell(0, 1.0)
    assert other.ask(0) == Study(tmp_path, "s1", NUMBERS._replace(name="adam"), "random", 1).ask(0)


def test_a_search_grows_beyond_its_end_and_its_batches_may_change(tmp_path: Path) -> None:
    short = searched(tmp_path / "a", MIXED, "tpe", 6)
    assert searched(tmp_path / "a", MIXED, "tpe", 9, batch=4)[:6] == short


@pytest.mark.parametrize(
    ("sampler", "was"), [("tpe", None), pytest.param("tpe", 100.0, marks=pytest.mark.slow), ("cmaes", -100.0)]
)
def test_a_changed_result_leads_where_it_would_have_led_at_once(
    tmp_path: Path, sampler: str, was: float | None
) -> None:
    """A failed run was repaired, or the code gives another value: what was chosen after it is chosen anew."""
    arm = arm_for(sampler)

    def before(number: int, values: Values) -> float | None:
        return was if number == 6 else objective(number, values)

    trials = 12 if sampler == "cmaes" else 10
    old = searched(tmp_path / "a", arm, sampler, trials, batch=2, outcome=before)
    new = searched(tmp_path / "b", arm, sampler, trials, batch=2)
    assert old[:8] == new[:8]  # number 7 was asked for together with 6
    assert old[8:] != new[8:]
    assert searched(tmp_path / "a", arm, sampler, trials, batch=2) == new


def test_results_that_all_change_are_taken_over_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More seeds for each trial change every mean; samplers that do not learn keep all their trials."""
    before = searched(tmp_path / "a", MIXED, "random", 6, batch=6)
    restored = []
    restore = Study.restore
    monkeypatch.setattr(Study, "restore", lambda *args, **kwargs: restored.append(restore(*args, **kwargs)))
    after = searched(tmp_path / "a", MIXED, "random", 6, batch=6, outcome=lambda n, v: float(n))
    assert after == before
    assert len(restored) == 1
    stored = Study(tmp_path / "a", "s1", MIXED, "random", 1)
    assert [trial.objective for trial in stored.trials] == [0, 1, 2, 3, 4, 5]


def test_a_result_told_twice_is_no_news(tmp_path: Path) -> None:
    study = Study(tmp_path, "s1", MIXED, "tpe", 1)
    asked = [study.ask(number) for number in range(3)]
    for result in (None, None, -math.inf, -math.inf, 0.25, 0.25):
        study.tell(0, result)
    again = Study(tmp_path, "s1", MIXED, "tpe", 1)
    assert [again.ask(number) for number in range(3)] == asked
    assert [(trial.told, trial.objective) for trial in again.trials] == [
        (True, 0.25),
        (False, None),
        (False, None),
    ]


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("cmaes", marks=pytest.mark.slow)])
def test_trials_of_others_widen_the_space(tmp_path: Path, sampler: str) -> None:
    wider = (Dimension("optimizer.lr", low=1.0, high=1e9, log=True), *NUMBERS.space[1:])
    narrow = Arm("sgd", (), (Dimension("optimizer.lr", low=1.0, high=1.01, log=True), *NUMBERS.space[1:]))

    def carry_out(folder: Path, step: Callable[[], None] = lambda: None) -> list[Values]:
        found = searched(folder, narrow, sampler, 5, 5, step)
        study = opened(folder, narrow, sampler)
        found.append({**found[-1], "optimizer.lr": "1000000000.0"})
        study.add(5, found[-1], 50.0, wider)
        step()
        for number in (6, 7):
            found.append(study.ask(number))
            step()
            study.tell(number, objective(number, found[-1]))
            step()
        return found

    whole = carry_out(tmp_path / "whole")
    assert all(float(values["optimizer.lr"]) > 1.01 for values in whole[6:])
    step = killed_after([11, 13, 14])
    assert until_done(lambda: carry_out(tmp_path / "killed", step)) == whole
    # A search that is longer now takes the number back.
    longer = searched(tmp_path / "longer", narrow, sampler, 6, 5)
    assert opened(tmp_path / "whole", narrow, sampler).ask(5) == longer[5]


def test_a_trial_of_others_may_change(tmp_path: Path) -> None:
    def extended(lr: str, result: float | None) -> Values:
        study = Study(tmp_path, "s1", MIXED, "tpe", 1)
        values = {**study.ask(0), "optimizer.lr": lr}
        study.tell(0, 0.5)
        study.add(1, values, result, MIXED.space)
        return study.ask(2)

    first = extended("0.5", 0.75)
    assert extended("0.5", 0.75) == first
    assert extended("0.25", None).keys() == first.keys()
    assert extended("0.25", 0.75).keys() == first.keys()
    stored = Study(tmp_path, "s1", MIXED, "tpe", 1)
    assert (stored.texts(1)["optimizer.lr"], stored.trials[1].objective) == ("0.25", 0.75)


def test_quasi_random_trials_are_all_of_one_low_discrepancy_sequence(tmp_path: Path) -> None:
    """The first 8 points of a scrambled Sobol sequence have one in each 8th of every dimension."""
    arm = Arm("a", (), (Dimension("x", low=0.0, high=8.0), Dimension("y", low=1.0, high=2.0**8, log=True)))
    for batch in (1, 8):
        found = searched(tmp_path / str(batch), arm, "qmc", 8, batch)
        assert sorted(math.floor(float(values["x"])) for values in found) == list(range(8))
        assert sorted(math.floor(math.log2(float(values["y"]))) for values in found) == list(range(8))
    assert found[0] != {"x": "0.0", "y": "1.0"}


@pytest.mark.parametrize(("sampler", "sign", "trials"), [("tpe", 1, 14), ("cmaes", -1, 20), ("gp", -1, 7)])
def test_samplers_learn_in_the_right_direction_and_bear_divergence(
    tmp_path: Path, sampler: str, sign: int, trials: int
) -> None:
    arm = Arm("a", (), (Dimension("x", low=0.0, high=1.0), Dimension("y", low=0.0, high=1.0)))
    study = opened(tmp_path / "a", arm, sampler, sign)
    found = []
    for number in range(trials):
        x = float(study.ask(number)["x"])
        found.append(x)
        study.tell(number, sign * (-math.inf if x < 0.3 else x))
    late = found[-3:]
    assert sum(late) / len(late) > 0.7


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc"])
def test_every_kind_of_dimension_can_be_searched(tmp_path: Path, sampler: str) -> None:
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
    for values in searched(tmp_path / "a", arm, sampler, 5):
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
def test_optuna_is_silent(tmp_path: Path, sampler: str, capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    handlers = list(logging.getLogger().handlers)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        searched(tmp_path / "a", arm_for(sampler), sampler, 6)
        Study(tmp_path, "s1", MIXED, "random", 1)
    assert capfd.readouterr() == ("", "")
    assert not [str(warning.message) for warning in shown if "optuna" in str(warning.message).lower()]
    assert logging.getLogger().handlers == handlers


# The database


def damage_garbage(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)


def damage_cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_table(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE trial_params")


def damage_values(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE trial_values")


def damage_studies(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE studies")


def damage_columns(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE trials RENAME COLUMN state TO status")


@pytest.mark.parametrize(
    "damage",
    [damage_garbage, damage_cut, damage_table, damage_values, damage_studies, damage_columns],
)
def test_a_damaged_database_is_told_in_a_line_and_can_be_removed(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "a"
    before = searched(folder, MIXED, "tpe", 2)
    damage(folder / "optuna.db")
    with pytest.raises(ConfigError, match=r"optuna\.db: is damaged.*remove it") as error:
        searched(folder, MIXED, "tpe", 2)
    assert "\n" not in str(error.value)
    (folder / "optuna.db").unlink()
    assert searched(folder, MIXED, "tpe", 2) == before


def test_a_locked_database_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LOCK_SECONDS", 0.1)
    searched(tmp_path, MIXED, "tpe", 2)
    other = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError, match=r"optuna\.db: is locked by another program; end that one"):
        searched(tmp_path, MIXED, "tpe", 2)
    other.execute("ROLLBACK")
    other.close()
    searched(tmp_path, MIXED, "tpe", 3)


def test_a_folder_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optuna\.db: cannot be used: .*writable"):
        Study(tmp_path / "none", "s1", MIXED, "tpe", 1)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b%41{c}?#'é"
    assert searched(folder, MIXED, "random", 2) == searched(folder, MIXED, "random", 2)
    assert [path.name for path in folder.iterdir()] == ["optuna.db"]


def test_a_trial_is_stored_whole(tmp_path: Path) -> None:
    """Other programs (a dashboard) can read the database."""
    import optuna

    found = searched(tmp_path, MIXED, "tpe", 4)
    storage = f"sqlite:///{tmp_path}/optuna.db"
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert summary.study_name.startswith("sgd tpe")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "COMPLETE", "FAIL"]
    texts = [
        {dim.key: space.text(dim, trial.params[dim.key]) for dim in MIXED.space} for trial in study.trials
    ]
    assert texts == found
