"""Searches by Optuna's samplers: one study per arm, rebuilt from the sweep's own record."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fairsweep.config import ConfigError, nearest
from fairsweep.sweeps import space
from fairsweep.sweeps.arms import Arm
from fairsweep.sweeps.space import Dimension

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

# These ignore results: all their trials can be requested at once.
NOT_LEARNING = ("grid", "random", "qmc")

# These keep nothing from one ask to the next but the trials themselves.
WITHOUT_MEMORY = ("random", "tpe", "gp", "bruteforce")


def short_name(sampler: str) -> str:
    """`tpe` for `TPESampler`, `TPE` or `tpe`."""
    return sampler.lower().removesuffix("sampler")


@cache
def samplers() -> dict[str, "type[BaseSampler]"]:
    """Optuna's samplers by their short names, without its grid (ours is another) and what wraps samplers."""
    import inspect

    from optuna import samplers

    kinds: list[Any] = [getattr(samplers, name) for name in samplers.__all__]
    kinds = [kind for kind in kinds if inspect.isclass(kind)]
    found = {short_name(kind.__name__): kind for kind in kinds if not inspect.isabstract(kind)}
    return {name: kind for name, kind in found.items() if name not in ("grid", "partialfixed")}


def check(sampler: str, arm: Arm) -> None:
    """Check that Optuna has the sampler and that it can search the arm's space.

    Raises:
        ConfigError: it has not; or the sampler cannot, or would silently sample at random instead.
    """
    name, known = short_name(sampler), samplers()
    place = f"hydra.sweeper.sampler={sampler}"
    if name not in known:
        names = sorted([*known, "grid"])
        raise ConfigError(f"{place}: no such sampler{nearest(name, names)} (allowed: {', '.join(names)})")
    if not arm.space:
        raise ConfigError(f"{place}: there is no space to search; give one, or use grid")
    if name == "cmaes":
        if find_spec("cmaes") is None:
            raise ConfigError(f"{place}: needs the package cmaes; install it: pip install cmaes")
        lists = [dim.key for dim in arm.space if dim.choices]
        if lists:
            raise ConfigError(f"{place}: searches numbers only, and {lists[0]} is a list; use tpe")
        if sum(dim.low < dim.high for dim in arm.space) < 2:
            raise ConfigError(f"{place}: with less than two dimensions it samples at random; use tpe or gp")
    if name == "bruteforce":
        endless = [dim.key for dim in arm.space if dim.is_interval and not dim.integer]
        if endless:
            raise ConfigError(f"{place}: tries all values, and {endless[0]} is an interval; use tpe")


class Proposal(NamedTuple):
    """A trial of an arm's search.

    Attributes:
        values: by key, as override texts.
        space: what they were chosen from.
        after: how many results were known by then; None: the sweep chose it, not the sampler.
        basis: stands for those results; see `Study`.
    """

    values: dict[str, str]
    space: tuple[Dimension, ...]
    after: int | None
    basis: str


class Memory(NamedTuple):
    """A study as Optuna has it, in memory."""

    storage: "BaseStorage"
    study: "OptunaStudy"


class Study:
    """One arm's search.

    A trial depends on the sweep, the arm, the sampler and the results told before it was asked for, and on
    nothing else. A killed search therefore continues as if it had not been killed, and a search whose results
    change (a failed run was repaired, the code changed) becomes the one that these results lead to.

    The sweep's plan records each proposal with its basis: how many results it was chosen after, and a hash of
    them. A recorded proposal is reused if these results are still the same, whatever the version of
    Optuna; otherwise the sampler is asked, seeded by sweep, arm and number. Callers ask and tell in the order
    of the trials' numbers, from 0.

    A diverged trial is told as infinitely bad. All samplers of Optuna 5.0 cope with that: TPE, CMA-ES and the
    genetic ones use ranks, and the Gaussian process treats it as the worst finite result.

    Args:
        sweep: the sweep's id.
        sign: 1 if a higher objective is better, -1 if a lower one is.
        recorded: values and bases of earlier proposals, by number.

    Raises:
        ConfigError: the sampler cannot search the arm.
    """

    def __init__(
        self,
        sweep: str,
        arm: Arm,
        sampler: str,
        sign: int,
        recorded: Mapping[int, Sequence[tuple[dict[str, str], str]]] = MappingProxyType({}),
    ) -> None:
        check(sampler, arm)
        self.sweep, self.arm, self.sampler, self.sign = sweep, arm, short_name(sampler), sign
        self.recorded = recorded
        self.space = arm.space
        self.trials: list[Proposal] = []
        self.results: list[float | None] = []  # of the first trials; None: it failed
        self.hashes = [""]  # of the first results: of none, of one, ...
        self.memory: Memory | None = None

    def ask(self, number: int) -> Proposal:
        """The next trial: as recorded, or a new one."""
        assert number == len(self.trials)
        proposal = self.known(number)
        if proposal is None:
            with silence():
                # Interrupted on the way, the memory is made anew.
                memory, self.memory = self.memory or self.remember(), None
                values = self.sample(memory.study, number)
            after = len(self.results)
            proposal = Proposal(values, self.space, after, f"{after}:{self.hashes[after]}")
            self.memory = memory
        else:
            self.memory = None
        self.trials.append(proposal)
        return proposal

    def known(self, number: int) -> Proposal | None:
        """The latest recorded proposal whose results are the same as now, or not known yet.

        Results are not known yet if the sampler is asked for more trials at once than before.
        """
        for values, basis in reversed(self.recorded.get(number, ())):
            count, _, known = basis.partition(":")
            is_whole = values.keys() == {dim.key for dim in self.space} and count.isdecimal()
            if is_whole and (int(count) > len(self.results) or self.hashes[int(count)] == known):
                return Proposal(values, self.space, int(count), basis)
        return None

    def tell(self, number: int, objective: float | None) -> None:
        """What came of the next trial; None: it failed."""
        assert number == len(self.results)
        values = sorted(self.trials[number].values.items())
        self.results.append(objective)
        content = repr((self.hashes[-1], values, objective))
        self.hashes.append(hashlib.sha256(content.encode()).hexdigest()[:12])
        if self.memory is not None:
            conclude(self.memory, number, objective)

    def add(
        self, number: int, values: Mapping[str, str], objective: float | None, wider: tuple[Dimension, ...]
    ) -> None:
        """A trial chosen by the sweep, with its result; from here on the space is the wider one."""
        assert number == len(self.trials)
        self.trials.append(Proposal(dict(values), wider, None, ""))
        self.space, self.memory = wider, None
        self.tell(number, objective)

    # The sampler

    def remember(self, anew: bool = False) -> Memory:
        """The study after all that was asked and told, including the sampler's own state.

        Most samplers keep none. That of the others (a generation's parents, the position in a sequence, the
        pickle of CMA-ES) is rebuilt by asking again in the same order, from where the space was last widened:
        with a space of another size, these samplers have to start afresh.

        Args:
            anew: the sampler starts afresh in any case.
        """
        import optuna
        from optuna.storages import InMemoryStorage
        from optuna.study import StudyDirection

        storage = InMemoryStorage()
        direction = StudyDirection.MAXIMIZE if self.sign > 0 else StudyDirection.MINIMIZE
        memory = Memory(storage, optuna.create_study(storage=storage, direction=direction))
        widened = [n for n, t in enumerate(self.trials) if t.after is None or t.space != self.space]
        first = max(widened, default=-1) + 1
        if anew or self.sampler in WITHOUT_MEMORY:
            first = len(self.trials)
        for number, trial in enumerate(self.trials[:first]):
            memory.study.add_trial(self.frozen(number, trial.values))
        told = min(first, len(self.results))
        for number, trial in enumerate(self.trials[first:], first):
            assert trial.after is not None
            for earlier in range(told, min(trial.after, len(self.results))):
                conclude(memory, earlier, self.results[earlier])
            told = max(told, min(trial.after, len(self.results)))
            if self.sample(memory.study, number) != trial.values:  # by another version of Optuna
                return self.remember(anew=True)
        for number in range(told, len(self.results)):
            conclude(memory, number, self.results[number])
        return memory

    def sample(self, study: "OptunaStudy", number: int) -> dict[str, str]:
        """Ask a sampler, made for this one trial; its values as override texts."""
        distributions = {dim.key: space.distribution(dim) for dim in self.space}
        if self.sampler == "qmc":  # one sequence, so one seed for all its points
            study.sampler = whole_sequence(distributions, seed(self.sweep, self.arm.name))
        else:
            kind: Any = samplers()[self.sampler]
            study.sampler = kind(seed=seed(self.sweep, self.arm.name, str(number)))
        params = study.ask(distributions).params
        return {dim.key: space.text(dim, params[dim.key]) for dim in self.arm.space}

    def frozen(self, number: int, values: Mapping[str, str]) -> "FrozenTrial":
        """A trial for Optuna, as if chosen from the current space, with its result if known."""
        from optuna.trial import TrialState, create_trial

        state, objective = TrialState.RUNNING, None
        if number < len(self.results):
            objective = self.results[number]
            state = TrialState.FAIL if objective is None else TrialState.COMPLETE
        return create_trial(
            state=state,
            value=objective,
            params={dim.key: space.value(dim, values[dim.key]) for dim in self.space},
            distributions={dim.key: space.distribution(dim) for dim in self.space},
        )


def whole_sequence(distributions: "dict[str, BaseDistribution]", seed: int) -> "BaseSampler":
    """A quasi-random sampler that takes every trial from its sequence.

    Optuna's own leaves the first to chance, to learn the space from it; here the space is known.
    """
    from optuna.samplers import QMCSampler

    dims = {name: dist for name, dist in distributions.items() if not dist.single()}

    class WholeSequence(QMCSampler):
        def infer_relative_search_space(
            self, _study: "OptunaStudy", _trial: "FrozenTrial"
        ) -> "dict[str, BaseDistribution]":
            return dims

    return WholeSequence(scramble=True, seed=seed)


@contextmanager
def silence() -> Iterator[None]:
    """Inside, Optuna and what it uses neither warn nor log."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def seed(*names: str) -> int:
    """32 bits that depend on all the names."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:4])


def conclude(memory: Memory, number: int, objective: float | None) -> None:
    """Note a trial's result. Optuna's own `tell` reads the trial over and over."""
    from optuna.trial import TrialState

    trial = memory.storage.get_trial_id_from_study_id_trial_number(memory.study._study_id, number)
    if objective is None:
        memory.storage.set_trial_state_values(trial, TrialState.FAIL)
    else:
        memory.storage.set_trial_state_values(trial, TrialState.COMPLETE, [objective])
