"""Search spaces: what Hydra's grammar means, the points of a grid, growth at an edge, Optuna's view of it."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fairsweep.config import ConfigError
from fairsweep.sweeps.arms import Arm, check_equal, check_keys
from fairsweep.sweeps.space import (
    Dimension,
    at_edge,
    between,
    cut,
    dimension,
    distribution,
    grid,
    grow,
    notes,
    spacing,
    text,
    value,
)


class Groups:
    """The part of Hydra's config loader that globs ask."""

    def get_group_options(self, group: str, results_filter: Any) -> list[str]:
        return ["adam", "adamw", "sgd"]


def dim(override: str) -> Dimension:
    return dimension(OverridesParser.create(config_loader=Groups()).parse_overrides([override])[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer=adam,sgd", Dimension("optimizer", ("adam", "sgd"))),
        ("+model.widths=choice([1,2],[3])", Dimension("+model.widths", ("[1,2]", "[3]"))),
        ("optimizer=glob(adam*)", Dimension("optimizer", ("adam", "adamw"))),
        ("a@pkg='x y',true", Dimension("a@pkg", ("'x y'", "True"))),
        ("a=sort(3,1,2)", Dimension("a", ("1", "2", "3"))),
        ("a=0.1", Dimension("a", ("0.1",))),
        ("a=range(3)", Dimension("a", low=0, high=2, step=1, integer=True)),
        ("a=range(1,10,4)", Dimension("a", low=1, high=9, step=4, integer=True)),
        ("a=range(5,0,-2)", Dimension("a", low=1, high=5, step=-2, integer=True)),
        ("a=range(0.5,2)", Dimension("a", low=0.5, high=1.5, step=1)),
        ("a=float(range(1,3))", Dimension("a", low=1.0, high=2.0, step=1.0)),
        ("a=tag(log,range(1,4))", Dimension("a", low=1, high=3, step=1, log=True, integer=True)),
        ("a=interval(1e-3,1)", Dimension("a", low=0.001, high=1.0)),
        ("a=tag(log,interval(1e-3,1))", Dimension("a", low=0.001, high=1.0, log=True)),
        ("a=int(interval(1,9))", Dimension("a", low=1, high=9, integer=True)),
        ("a=int(tag(log,interval(1,9)))", Dimension("a", low=1, high=9, log=True, integer=True)),
    ],
)
def test_hydras_grammar_is_understood(override: str, expected: Dimension) -> None:
    assert dim(override) == expected
    assert dim(override).ends[0] in (*expected.points, "0.001", "1")


@pytest.mark.parametrize(
    "override",
    [
        "range(3)",
        "range(5,0,-2)",
        "range(0,1,0.1)",
        "range(0.1,0.9,0.1)",
        "range(1,-1,-0.3)",
        "float(range(3))",
    ],
)
def test_a_range_counts_as_hydra_does(override: str) -> None:
    theirs = OverridesParser.create().parse_override(f"a={override}")
    assert list(dim(f"a={override}").points) == list(theirs.sweep_string_iterator())


def test_a_space_is_told_in_hydras_grammar_again() -> None:
    for override in (
        "a=tag(log, interval(0.001, 1.0))",
        "a=range(5, 0, -1)",
        "a=int(interval(1, 9))",
        "+a=choice(x, y)",
    ):
        assert str(dim(override)) == override
        assert dim(str(dim(override))) == dim(override)


def test_a_shuffled_list_has_one_order() -> None:
    (first, second) = (dim("a=shuffle(1,2,3,4,5)"), dim("a=shuffle(1,2,3,4,5)"))
    assert first == second
    assert set(first.choices) == set("12345")
    assert first.choices != tuple("12345")
    assert sorted(dim("a=shuffle(range(4))").choices) == list("0123")


@pytest.mark.parametrize(
    "override",
    [
        "interval(1,1)",
        "interval(2,1)",
        "interval(nan,1)",
        "interval(0,inf)",
        "tag(log,interval(0,1))",
        "tag(log,interval(-1,1))",
        "tag(uniform,interval(0,1))",
        "tag(log,quick,interval(1,2))",
        "tag(log,choice(1,2))",
        "glob(none*)",
        "range(3,1)",
        "range(1,3,0)",
        "range(1,inf)",
        "range(nan,3)",
        "range(0,1,1e-9)",
        "int(range(0,3,0.5))",
        "tag(log,range(0,3))",
        "tag(log,range(1,9,2))",
    ],
)
def test_a_space_that_cannot_be_is_refused_with_its_key(override: str) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr") as error:
        dim(f"optimizer.lr={override}")
    assert "\n" not in str(error.value)


LOG = Dimension("lr", low=1e-4, high=1e-1, log=True)
LINEAR = Dimension("m", low=0.0, high=0.9)
WHOLE = Dimension("n", low=1, high=9, integer=True)


def test_a_grid_is_hydras_product() -> None:
    space = [dim("optimizer=adam,sgd"), dim("optimizer.lr=0.1,0.01"), dim("seed=range(2)")]
    points = grid(space, None)
    assert [tuple(point.values()) for point in points][:3] == [
        ("adam", "0.1", "0"),
        ("adam", "0.1", "1"),
        ("adam", "0.01", "0"),
    ]
    assert list(points[0]) == ["optimizer", "optimizer.lr", "seed"]
    assert grid(space, 8) == points
    assert grid([], None) == grid([], 1) == [{}]


@pytest.mark.parametrize(
    ("interval", "count", "expected"),
    [
        (LOG, 7, "0.0001 0.0003162 0.001 0.003162 0.01 0.03162 0.1"),
        (LOG, 1, "0.003162"),
        (LOG, 2, "0.0001 0.1"),
        (LINEAR, 4, "0.0 0.3 0.6 0.9"),
        (Dimension("a", low=-0.3, high=0.3), 3, "-0.3 0.0 0.3"),
        (Dimension("a", low=-0.3, high=0.3), 7, "-0.3 -0.2 -0.1 0.0 0.1 0.2 0.3"),
        (Dimension("a", low=0.123456789, high=1.0), 3, "0.123456789 0.5617 1.0"),
        (Dimension("a", low=0.99990, high=0.99991), 3, "0.9999 0.999905 0.99991"),
        (WHOLE, 3, "1 5 9"),
        (Dimension("n", low=1, high=100, log=True, integer=True), 3, "1 10 100"),
    ],
)
def test_an_interval_is_cut_into_short_numbers_with_exact_ends(
    interval: Dimension, count: int, expected: str
) -> None:
    assert " ".join(cut(interval, count)) == expected


def test_whole_numbers_do_not_repeat() -> None:
    assert len(set(cut(WHOLE, 9))) == 9
    with pytest.raises(ConfigError, match=r"n=.*10 different points"):
        cut(WHOLE, 10)


def test_intervals_share_the_number_of_trials() -> None:
    lists = Dimension("nesterov", ("true", "false"))
    points = grid([LOG, lists, LINEAR], 18)
    assert len(points) == 18
    assert len({point["lr"] for point in points}) == len({point["m"] for point in points}) == 3


@pytest.mark.parametrize(
    ("space", "trials", "words"),
    [
        ([LOG, LINEAR], 10, "9 or 16"),
        ([LOG, Dimension("a", ("x", "y"))], 7, "6 or 8"),
        ([LOG, Dimension("a", ("x", "y"))], 1, "2 at least"),
        ([LOG], None, "missing.*lr is an interval"),
        ([Dimension("a", ("x", "y"))], 3, "has 2"),
    ],
)
def test_a_number_of_trials_that_does_not_fit_is_refused_with_those_that_do(
    space: list[Dimension], trials: int | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        grid(space, trials)


@pytest.mark.parametrize(
    ("given", "count", "low_end", "high_end"),
    [
        (LOG, 4, "1e-05", "1.0"),
        (LINEAR, 4, "-0.3", "1.2"),
        (Dimension("a", low=0.3, high=0.6), 2, "0.0", "0.9"),
        (WHOLE, 3, "-3", "13"),
        (Dimension("n", low=10, high=1000, log=True, integer=True), 3, "1", "10000"),
        (Dimension("n", low=4, high=5, integer=True), 9, "3", "6"),
        (Dimension("a", low=0.1, high=0.4, step=0.1), 1, "0.0", "0.5"),
        (Dimension("a", low=1, high=5, step=-1, integer=True), 1, "0", "6"),
    ],
)
def test_a_range_grows_by_one_step_at_either_end(
    given: Dimension, count: int, low_end: str, high_end: str
) -> None:
    step = spacing(given, count)
    for direction, end in ((-1, low_end), (1, high_end)):
        grown = grow(given, direction, step)
        assert grown is not None
        wider, new = grown
        assert new == end
        assert (wider.low, wider.high) == (
            (float(end), given.high) if direction < 0 else (given.low, float(end))
        )
        assert at_edge(wider, new, step) == direction
        again = grow(wider, direction, step)
        assert again is None or math.dist([again[0].low], [again[0].high]) > wider.high - wider.low


def test_whole_numbers_on_a_log_scale_end_at_one() -> None:
    assert grow(Dimension("n", low=1, high=8, log=True, integer=True), -1, 2.0) is None


@pytest.mark.parametrize(
    ("given", "count", "by_value"),
    [
        (LOG, 4, {"0.0001": -1, "0.0003": -1, "0.00032": 0, "0.001": 0, "0.031": 0, "0.032": 1, "0.1": 1}),
        (LINEAR, 4, {"0.0": -1, "0.149": -1, "0.151": 0, "0.749": 0, "0.751": 1}),
        (LINEAR, 1, {"0.45": 0}),
        (dim("a=range(5,0,-1)"), 1, {"5": 1, "4": 0, "2": 0, "1": -1}),
        (dim("a=range(1)"), 1, {"0": 0}),
        (dim("a=1,2,3"), 1, {"1": 0, "3": 0}),
    ],
)
def test_an_edge_is_less_than_half_a_step_away(
    given: Dimension, count: int, by_value: dict[str, int]
) -> None:
    assert {v: at_edge(given, v, spacing(given, count)) for v in by_value} == by_value


@pytest.mark.parametrize(
    ("given", "one", "other", "middle"),
    [
        (LOG, "0.001", "0.0001", "0.0003162"),
        (LINEAR, "0.3", "0.6", "0.45"),
        (WHOLE, "1", "4", "2"),
        (WHOLE, "4", "5", None),
        (WHOLE, "4", "4", None),
        (Dimension("n", low=1, high=9, log=True, integer=True), "1", "3", "2"),
        (LINEAR, "0.5", "0.50001", "0.500005"),
        (LINEAR, "0.5", repr(math.nextafter(0.5, 1)), None),
    ],
)
def test_the_middle_of_two_values_is_a_new_one(
    given: Dimension, one: str, other: str, middle: str | None
) -> None:
    assert between(given, one, other) == middle


@pytest.mark.parametrize(
    "override",
    [
        "optimizer=adam,sgd,adam",
        "a=range(1,10,4)",
        "a=range(5,0,-2)",
        "a=range(0.1,0.9,0.1)",
        "a=range(1,-1,-0.3)",
        "a=interval(1e-3,1)",
        "a=tag(log,interval(1e-3,1))",
        "a=int(tag(log,interval(1,64)))",
    ],
)
def test_optunas_values_are_the_grids_values(override: str) -> None:
    import optuna

    given = dim(override)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(30):
        found = study.ask({"x": distribution(given)}).params["x"]
        written = text(given, found)
        assert written in given.points if given.points else value(given, written) == found
    for point in given.points or cut(given, 3):
        back = text(given, value(given, point))
        assert back == point
        assert distribution(given)._contains(distribution(given).to_internal_repr(value(given, point)))


def test_unequal_budgets_are_refused_with_each_number() -> None:
    check_equal({"adam": 3, "sgd": 3})
    with pytest.raises(ConfigError, match=r"adam has 3, sgd has 4.*equal_budget=false"):
        check_equal({"adam": 3, "sgd": 4})


def test_a_key_has_one_space() -> None:
    with pytest.raises(ConfigError, match=r"arms\.adam: has lr twice"):
        check_keys(Arm("adam", (), (LOG, Dimension("+lr", ("1",)))))


def test_a_learning_rate_searched_linearly_over_a_decade_or_more_gets_a_hint() -> None:
    wide, narrow = dim("optimizer.lr=interval(1e-4, 1e-1)"), dim("optimizer.lr=interval(0.1, 0.3)")
    others = [replace(wide, log=True), replace(wide, key="optimizer.momentum"), narrow]
    assert [*notes([[wide, *others], [wide]])] == [
        "optimizer.lr=interval(0.0001, 0.1): is searched linearly, with most trials near 0.1; for a log "
        "scale, write 'optimizer.lr=tag(log, interval(0.0001, 0.1))'"
    ]
