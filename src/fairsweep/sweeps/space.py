"""A dimension of an arm's space: parsed from Hydra's grammar, cut into points, grown, passed to Optuna."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from fairsweep.config import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Numbers within an interval are rounded to this many digits, for readability.
DIGITS = 4

# The most combinations of ends that are checked before a search.
MOST_CORNERS = 32

# A range of more steps than this is a mistake.
MOST_STEPS = 1_000_000


@dataclass(frozen=True)
class Dimension:
    """A key and the values that it may take: a list, numbers at equal steps, or all numbers of an interval.

    Attributes:
        key: as in an override, with its prefix: `optimizer.lr`, `+model.depth`.
        choices: the list, as texts of overrides; empty where the values are numbers.
        low, high: the first and the last number, both included.
        step: from one number to the next, negative where they count down; None: an interval.
        log: numbers are spread evenly on a logarithmic scale.
        integer: only whole numbers.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    integer: bool = False

    def __str__(self) -> str:
        return f"{self.key}={self.space}"

    @property
    def space(self) -> str:
        """The values in Hydra's grammar."""
        if self.choices:
            return f"choice({', '.join(self.choices)})"
        if self.step is not None:
            start, last = (self.low, self.high) if self.step > 0 else (self.high, self.low)
            text = f"range({start}, {last + self.step:.12g}, {self.step})"
        elif self.integer:
            text = f"int(interval({self.low}, {self.high}))"
        else:
            text = f"interval({self.low}, {self.high})"
        return f"tag(log, {text})" if self.log else text

    @property
    def is_interval(self) -> bool:
        return not self.choices and self.step is None

    @cached_property
    def points(self) -> tuple[str, ...]:
        """All values of a list or a range, in its order; an interval has none."""
        if self.step is None:
            return self.choices
        start, last = (self.low, self.high) if self.step > 0 else (self.high, self.low)
        # Counted by Hydra, so that a number has the same digits as in Hydra's own grid.
        if self.integer:
            sweep = RangeSweep(start=int(start), stop=int(last + self.step), step=int(self.step))
        else:
            sweep = RangeSweep(start=start, stop=last + self.step / 2, step=self.step)
        return tuple(map(str, sweep.range()))

    @property
    def ends(self) -> tuple[str, ...]:
        """The first and the last number; of a list, all values."""
        if self.is_interval:
            return number_text(self, self.low), number_text(self, self.high)
        return self.choices or tuple(dict.fromkeys((self.points[0], self.points[-1])))


def dimension(override: Override) -> Dimension:
    """The dimension that an override spans; one that sweeps over nothing is a list of its one value.

    A shuffled list or range comes in an order that is the same each time.

    Raises:
        ConfigError: there is nothing to choose from, the bounds make no sense, or a tag is unknown.
    """
    key, sweep = override.get_key_element(), override.value()
    given = override.input_line or key
    if not override.is_sweep_override():
        return Dimension(key, (override.get_value_element_as_str(),))
    tags: set[str] = getattr(sweep, "tags", set())
    if tags - {"log"} or (tags and isinstance(sweep, ChoiceSweep)):
        names = ", ".join(sorted(tags))
        raise ConfigError(f"{given}: has the tag {names}; the one tag is log, for an interval or a range")
    if isinstance(sweep, IntervalSweep):
        return interval(key, given, sweep, log=bool(tags))
    if isinstance(sweep, RangeSweep):
        found = number_range(key, given, sweep, log=bool(tags))
        return shuffled(key, found.points) if sweep.shuffle else found
    if isinstance(sweep, ChoiceSweep) and sweep.shuffle:
        in_order = replace(override, _value=replace(sweep, shuffle=False))
        return shuffled(key, tuple(in_order.sweep_string_iterator()))
    choices = tuple(override.sweep_string_iterator())
    if not choices:
        raise ConfigError(f"{given}: has no values; give one or more")
    return Dimension(key, choices)


def interval(key: str, given: str, sweep: IntervalSweep, log: bool) -> Dimension:
    """All numbers between two."""
    low, high = sweep.start, sweep.end
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{given}: must go from a number to a larger one")
    if log and low <= 0:
        raise ConfigError(f"{given}: must begin above 0, as it is logarithmic")
    return Dimension(key, low=low, high=high, log=log, integer=isinstance(low, int))


def number_range(key: str, given: str, sweep: RangeSweep, log: bool) -> Dimension:
    """The numbers that Hydra's `range` counts through; it stops before its end."""
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None
    assert stop is not None
    if not all(map(math.isfinite, (start, stop, step))) or step == 0 or (stop - start) / step <= 0:
        raise ConfigError(
            f"{given}: contains no value; the steps must lead from the first number to the second"
        )
    if (stop - start) / step > MOST_STEPS:
        raise ConfigError(f"{given}: must have at most {MOST_STEPS:,} steps; use interval(...)")
    numbers: list[float] = list(sweep.range())
    integer = all(isinstance(number, int) for number in (start, stop, step))
    low, high = min(numbers), max(numbers)
    if log and not (integer and abs(step) == 1 and low > 0):
        raise ConfigError(f"{given}: log is for whole numbers above 0 at steps of 1, or for interval(...)")
    return Dimension(key, low=low, high=high, step=step, log=log, integer=integer)


def shuffled(key: str, values: Sequence[str]) -> Dimension:
    """A list in some order, the same for the same values."""
    order = list(values)
    random.Random(f"{key}={','.join(values)}").shuffle(order)
    return Dimension(key, tuple(order))


# Points


def points_per_interval(space: Sequence[Dimension], trials: int | None) -> int:
    """The number of points per interval with which the whole grid has this many trials.

    Raises:
        ConfigError: it does not come out even, or the number of trials is missing.
    """
    intervals = [dim for dim in space if dim.is_interval]
    finite = math.prod(len(dim.points) for dim in space if not dim.is_interval)
    names = " x ".join(dim.key for dim in space) or "an arm without a space"
    if not intervals:
        if trials not in (None, finite):
            raise ConfigError(
                f"hydra.sweeper.trials={trials}: the grid of {names} has {finite}; set trials={finite}, or "
                "trials=null"
            )
        return 1
    if trials is None:
        raise ConfigError(
            f"hydra.sweeper.trials: is missing: the grid of {names} needs it, "
            f"as {intervals[0].key} is an interval"
        )
    count = 1
    while finite * (count + 1) ** len(intervals) <= trials:
        count += 1
    fitting = finite * count ** len(intervals)
    if fitting != trials:
        above = finite * (count + 1) ** len(intervals)
        nearest = f"{fitting} or {above}" if fitting < trials else f"{fitting} at least"
        raise ConfigError(
            f"hydra.sweeper.trials={trials}: does not fit the grid of {names}, where all intervals get "
            f"equally many points; the nearest numbers that do: {nearest}"
        )
    return count


def grid_size(space: Sequence[Dimension], trials: int | None) -> int:
    """How many points `grid` makes.

    Raises:
        ConfigError: as there.
    """
    count = points_per_interval(space, trials)
    return math.prod(count if dim.is_interval else len(dim.points) for dim in space)


def grid(space: Sequence[Dimension], trials: int | None) -> list[dict[str, str]]:
    """Every combination of the dimensions' points, the last varying fastest, as texts by key.

    Args:
        trials: how many; None where no dimension is an interval.

    Raises:
        ConfigError: the interval cannot be cut into this many points.
    """
    count = points_per_interval(space, trials)
    columns = [cut(dim, count) if dim.is_interval else dim.points for dim in space]
    keys = [dim.key for dim in space]
    return [dict(zip(keys, values, strict=True)) for values in product(*columns)]


def corners(space: Sequence[Dimension]) -> Iterator[dict[str, str]]:
    """Combinations of the dimensions' ends: all of them, or if they are many, those with one that is not the
    first."""
    columns = [dim.ends for dim in space]
    if math.prod(map(len, columns)) <= MOST_CORNERS:
        combinations = list(product(*columns))
    else:
        first = [column[0] for column in columns]
        combinations = [tuple(first)] + [
            (*first[:place], end, *first[place + 1 :])
            for place, column in enumerate(columns)
            for end in column[1:]
        ]
    for values in combinations:
        yield {dim.key: value for dim, value in zip(space, values, strict=True)}


def cut(dim: Dimension, count: int) -> tuple[str, ...]:
    """An interval's points, evenly spread on its scale, with both ends; a single one in the middle.

    Raises:
        ConfigError: there are fewer distinct numbers.
    """
    shares = [index / (count - 1) for index in range(1, count - 1)] if count > 1 else [0.5]
    inner = [at_share(dim, dim.low, dim.high, share) for share in shares]
    texts = readable(dim, dim.low, inner, dim.high)
    if texts is None:
        raise ConfigError(
            f"{dim}: cannot be cut into {count} different points; use fewer trials or a wider interval"
        )
    return (number_text(dim, dim.low), *texts, number_text(dim, dim.high)) if count > 1 else texts


def at_share(dim: Dimension, low: float, high: float, share: float) -> float:
    """The number at a share of the way from one to another, on the dimension's scale."""
    if dim.log:
        return float(low * (high / low) ** share)
    return low + (high - low) * share


def readable(dim: Dimension, low: float, inner: Sequence[float], high: float) -> tuple[str, ...] | None:
    """Numbers between two others as short texts that are still in order; None where there are none."""
    roundings: Iterable[list[float]]
    if dim.integer:
        roundings = [[round(number) for number in inner]]
    else:
        # What a difference leaves over, such as 1e-17, is 0.
        least = 0.0 if dim.log else 1e-12 * (high - low)
        clean = [number if abs(number) > least else 0.0 for number in inner]
        roundings = ([float(f"{number:.{digits}g}") for number in clean] for digits in range(DIGITS, 18))
    for numbers in roundings:
        whole = [low, *numbers, high]
        if all(left < right for left, right in pairwise(whole)):
            return tuple(number_text(dim, number) for number in numbers)
    return None


def between(dim: Dimension, one: str, other: str) -> str | None:
    """The number in the middle of two, on the dimension's scale; None where no whole number is left."""
    low, high = sorted((float(one), float(other)))
    texts = readable(dim, low, [at_share(dim, low, high, 0.5)], high)
    return texts[0] if texts else None


def number_text(dim: Dimension, number: float) -> str:
    """A number as the text of an override, to the last bit."""
    return str(round(number)) if dim.integer else repr(float(number))


# Edges


def spacing(dim: Dimension, count: int) -> float:
    """From one point of the dimension to the next: a difference, or a factor in a logarithmic interval.

    Args:
        count: into how many points an interval is cut.
    """
    if dim.step is not None:
        return abs(dim.step)
    gaps = max(count - 1, 1)
    return float((dim.high / dim.low) ** (1 / gaps)) if dim.log else (dim.high - dim.low) / gaps


def at_edge(dim: Dimension, value: str, step: float) -> int:
    """Where a value is less than half a step from an end: -1 the low one, 1 the high one; 0 elsewhere.

    A list has no edges, nor does a single number.
    """
    if dim.choices or dim.low == dim.high:
        return 0
    scale = math.log if multiplies(dim) else float
    reach = scale(step) * 0.5 * (1 - 1e-9)
    if scale(float(value)) - scale(dim.low) < reach:
        return -1
    return 1 if scale(dim.high) - scale(float(value)) < reach else 0


def grow(dim: Dimension, direction: int, step: float) -> tuple[Dimension, str] | None:
    """The dimension one step wider at its low (-1) or high (1) end, and its new end.

    None where there is nothing beyond: a logarithmic scale of whole numbers ends at 1.
    """
    end = dim.high if direction > 0 else dim.low
    new = end * step**direction if multiplies(dim) else end + direction * step
    if dim.integer:
        new = max(round(new), end + 1) if direction > 0 else min(round(new), end - 1)
        if dim.log and new < 1:
            return None
    elif dim.step is not None:
        new = float(f"{new:.12g}")
    else:
        # Rounded as the points are, but never back to where it was.
        far = end + 2 * (new - end)
        texts = readable(dim, *((end, [new], far) if direction > 0 else (far, [new], end)))
        new = float(texts[0]) if texts else new
    wider = replace(dim, high=new) if direction > 0 else replace(dim, low=new)
    return wider, number_text(dim, new)


def multiplies(dim: Dimension) -> bool:
    """Whether steps are factors; the numbers of a range always lie at equal distances."""
    return dim.log and dim.step is None


# Optuna


def distribution(dim: Dimension) -> "BaseDistribution":
    """The dimension for Optuna's samplers."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dim.choices:
        return CategoricalDistribution(tuple(dict.fromkeys(dim.choices)))
    if dim.integer:
        step = abs(int(dim.step or 1))
        return IntDistribution(int(dim.low), int(dim.high), log=dim.log, step=step)
    if dim.step is None:
        return FloatDistribution(dim.low, dim.high, log=dim.log)
    # Without what counting in binary fractions leaves in the last digits.
    low, high, width = (float(f"{number:.12g}") for number in (dim.low, dim.high, abs(dim.step)))
    return FloatDistribution(low, high, step=width)


def text(dim: Dimension, value: Any) -> str:
    """A value of Optuna's as the text of an override: of a range, as it is written there."""
    if dim.choices:
        return str(value)
    if dim.integer or dim.step is None:
        return number_text(dim, value)
    start = dim.low if dim.step > 0 else dim.high
    place: int = round((value - start) / dim.step)
    if 0 <= place < len(dim.points):
        return dim.points[place]
    return number_text(dim, float(f"{start + place * dim.step:.12g}"))


def value(dim: Dimension, written: str) -> Any:
    """The text of an override as Optuna's value, to the last bit."""
    if dim.choices:
        return written
    if dim.integer or dim.step is None:
        return int(written) if dim.integer else float(written)
    low, high, width = (float(f"{number:.12g}") for number in (dim.low, dim.high, abs(dim.step)))
    return min(max(low + round((float(written) - low) / width) * width, low), high)


def notes(spaces: Iterable[Sequence[Dimension]]) -> Iterator[str]:
    """What to know of learning rates that are searched over a wide range, but not on a logarithmic scale."""
    for dim in dict.fromkeys(dim for space in spaces for dim in space if dim.is_interval and not dim.log):
        if dim.key.rpartition(".")[2] == "lr" and 0 < dim.low <= dim.high / 10:
            yield (
                f"{dim}: is searched linearly, with most trials near {dim.high:g}; for a log scale, write "
                f"'{dim.key}=tag(log, {dim.space})'"
            )
