"""Searches by Optuna: one study per arm, in the sweep's folder; a kill at any moment does not change it."""

import hashlib
import logging
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

# A database that another program holds for longer than this is not waited for.
LOCK_SECONDS = 2.0

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


@dataclass
class Asked:
    """A trial as the sampler proposed it.

    Attributes:
        params: Optuna's values by key.
        distributions: what they were chosen from.
        after: how many trials had been told by then; None: it was chosen by others, not by the sampler.
        told: whether it has ended; then with this objective, None if it failed.
    """

    params: dict[str, Any]
    distributions: "dict[str, BaseDistribution]"
    after: int | None
    told: bool = False
    objective: float | None = None


class Study:
    """One arm's search.

    What a trial is depends on the sweep, the arm, the sampler, and the results told before it was asked for;
    on nothing else. So a search that was killed goes on as if it had not been, and one whose results change
    (a failed run was repaired, the code is another) becomes the search that these results lead to.

    Samplers work on a copy in memory; the database gets each trial whole, in one transaction. The caller
    asks and tells in the order of the trials' numbers, from 0 each time.

    A diverged trial is told as infinitely bad, which all samplers of Optuna 5.0 bear when tried: TPE, CMA-ES
    and the genetic ones go by ranks, and the Gaussian process takes it for the worst finite one.

    Args:
        folder: where `optuna.db` is, or will be.
        sweep: the sweep's id.
        sign: 1 where a higher objective is better, -1 where a lower one is.

    Raises:
        ConfigError: the sampler cannot search the arm; the database is locked, damaged, or not writable.
            So do the methods.
    """

    def __init__(self, folder: Path, sweep: str, arm: Arm, sampler: str, sign: int) -> None:
        from optuna.storages import RDBStorage
        from sqlalchemy import URL
        from sqlalchemy.pool import NullPool

        check(sampler, arm)
        self.file = folder.absolute() / "optuna.db"
        self.sweep, self.arm, self.sampler, self.sign = sweep, arm, short_name(sampler), sign
        # Another space, sampler or objective is another search, in the same file.
        what = hashlib.sha256(repr((sweep, arm, sign)).encode()).hexdigest()[:8]
        self.name = f"{arm.name} {self.sampler} {what}".strip()
        self.trials: list[Asked] = []
        self.memory: BaseStorage | None = None
        url = URL.create("sqlite", database=str(self.file)).render_as_string()
        with self.storing():
            self.storage = RDBStorage(
                url.replace("{", "{{").replace("}", "}}"),  # Optuna takes it for a template
                engine_kwargs={"poolclass": NullPool, "connect_args": {"timeout": LOCK_SECONDS}},
                skip_compatibility_check=True,  # it takes as long as all the rest; a mismatch shows anyway
            )
            self.stored = self.open(self.storage)
            self.trials = [self.read(trial) for trial in self.stored.get_trials(deepcopy=False)]

    # What the sweep uses

    def ask(self, number: int) -> dict[str, str]:
        """The values of a trial by key, as override texts: as stored, or new ones."""
        if number < len(self.trials) and self.trials[number].after is None:
            self.restore(self.trials[:number], told=number)  # the search is longer now, and takes the number
        if number == len(self.trials):
            with silence():
                # Interrupted before it is stored, the trial is forgotten.
                memory, self.memory = self.memory or self.remember(), None
                now = self.distributions()
                params = self.sample(memory, number, now)
            told = sum(trial.told for trial in self.trials)
            with self.storing():
                self.store(Asked(params, now, after=told))
            self.memory = memory
        return self.texts(number)

    def tell(self, number: int, objective: float | None) -> None:
        """What came of a trial; None: it failed.

        Where the database knows another result, the trials that were chosen in its light are dropped, and
        the results behind it are waited for anew.
        """
        trial = self.trials[number]
        if trial.told and trial.objective != objective:
            kept = [
                other
                for place, other in enumerate(self.trials)
                if place <= number or (other.after is not None and other.after <= number)
            ]
            self.restore(kept, told=number)
        if not self.trials[number].told:
            with self.storing():
                self.finish(number, objective)

    def add(
        self, number: int, values: Mapping[str, str], objective: float | None, wider: Sequence[Dimension]
    ) -> None:
        """A trial chosen by others, with its result; from here on the space is the wider one."""
        params = {dim.key: space.value(dim, values[dim.key]) for dim in wider}
        if number < len(self.trials) and not (
            self.trials[number].after is None and self.trials[number].params == params
        ):
            self.restore(self.trials[:number], told=number)
        if number == len(self.trials):
            with self.storing():
                distributions = {dim.key: space.distribution(dim) for dim in wider}
                self.store(Asked(params, distributions, after=None))
                self.memory = None
        self.tell(number, objective)

    def texts(self, number: int) -> dict[str, str]:
        """The values of a trial that was asked for."""
        params = self.trials[number].params
        return {dim.key: space.text(dim, params[dim.key]) for dim in self.arm.space}

    def distributions(self) -> "dict[str, BaseDistribution]":
        """The space as it is now."""
        if self.trials:
            return self.trials[-1].distributions
        return {dim.key: space.distribution(dim) for dim in self.arm.space}

    # The database

    def open(self, storage: "BaseStorage") -> "OptunaStudy":
        """This search in the database, or in memory; made if it is not there."""
        import optuna
        from optuna.study import StudyDirection

        direction = StudyDirection.MAXIMIZE if self.sign > 0 else StudyDirection.MINIMIZE
        return optuna.create_study(
            storage=storage, study_name=self.name, direction=direction, load_if_exists=True
        )

    def read(self, trial: "FrozenTrial") -> Asked:
        """A trial as it is stored."""
        from optuna.trial import TrialState

        whole = trial.params.keys() == {dim.key for dim in self.arm.space} and (
            (trial.value is None) == (trial.state != TrialState.COMPLETE)
        )
        if not whole:
            raise ValueError(f"trial {trial.number} of {self.name} is not complete")
        return Asked(
            params={dim.key: trial.params[dim.key] for dim in self.arm.space},
            distributions={dim.key: trial.distributions[dim.key] for dim in self.arm.space},
            after=trial.user_attrs["after"],
            told=trial.state.is_finished(),
            objective=trial.value,
        )

    def store(self, trial: Asked) -> None:
        """Append a trial that is not told yet."""
        self.stored.add_trial(frozen(trial, trial.distributions))
        self.trials.append(trial)

    def finish(self, number: int, objective: float | None) -> None:
        """Note a result, in the database and in memory."""
        conclude(self.storage, self.name, number, objective)
        self.trials[number].told, self.trials[number].objective = True, objective
        if self.memory is not None:
            conclude(self.memory, self.name, number, objective)

    def restore(self, kept: list[Asked], told: int) -> None:
        """Begin the stored search anew, with these trials and the results of the first so many.

        Results come last: killed in between, trials are asked for again in the light of none too many.
        """
        import optuna

        with self.storing():
            optuna.delete_study(study_name=self.name, storage=self.storage)
            self.stored, self.trials, self.memory = self.open(self.storage), [], None
            for trial in kept:
                self.store(Asked(trial.params, trial.distributions, trial.after))
            for number, trial in enumerate(kept[:told]):
                if trial.told:
                    self.finish(number, trial.objective)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Inside, what goes wrong is the database's fault, and told in one line.

        Raises:
            ConfigError: it is locked, damaged, or cannot be written.
        """
        try:
            with silence():
                yield
        except Exception as error:
            raise ConfigError(f"{self.file}: {complaint(error)}") from error

    # The copy in memory

    def remember(self, anew: bool = False) -> "BaseStorage":
        """The study in memory as it is after all that was asked and told, the sampler's own notes included.

        Most samplers make none. Those of the others (a generation's parents, the place in a sequence, the
        state of CMA-ES, which is a pickle) are made again, by asking again in the same order. That begins
        where the space was last widened: with one of another size, they have to start afresh.

        Args:
            anew: the sampler starts afresh in any case.
        """
        from optuna.storages import InMemoryStorage

        memory = InMemoryStorage()
        now = self.distributions()
        widened = [n for n, t in enumerate(self.trials) if t.after is None or t.distributions != now]
        first = max(widened, default=-1) + 1
        if anew or self.sampler in WITHOUT_MEMORY:
            first = len(self.trials)
        for trial in self.trials[:first]:
            self.open(memory).add_trial(frozen(trial, now))
        told = first
        for number, trial in enumerate(self.trials[first:], first):
            assert trial.after is not None
            for earlier in range(told, trial.after):
                conclude(memory, self.name, earlier, self.trials[earlier].objective)
            told = max(told, trial.after)
            if self.sample(memory, number, now) != trial.params:  # by another version of Optuna
                return self.remember(anew=True)
        for number, trial in enumerate(self.trials[told:], told):
            if trial.told:
                conclude(memory, self.name, number, trial.objective)
        return memory

    def sample(
        self, memory: "BaseStorage", number: int, distributions: "dict[str, BaseDistribution]"
    ) -> dict[str, Any]:
        """Ask a sampler, made for this one trial."""
        study = self.open(memory)
        if self.sampler == "qmc":  # one sequence, so one seed for all its points
            study.sampler = whole_sequence(distributions, seed(self.sweep, self.arm.name))
        else:
            kind: Any = samplers()[self.sampler]
            study.sampler = kind(seed=seed(self.sweep, self.arm.name, str(number)))
        return study.ask(distributions).params


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
    logging.getLogger("alembic").setLevel(logging.ERROR)
    # Where there is no handler at all, alembic sets up logging for the whole process.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)


def seed(*names: str) -> int:
    """32 bits that depend on all the names."""
    return int.from_bytes(hashlib.sha256("\n".join(names).encode()).digest()[:4])


def frozen(trial: Asked, distributions: "dict[str, BaseDistribution]") -> "FrozenTrial":
    """A trial for Optuna to take over, chosen from these distributions."""
    from optuna.trial import TrialState, create_trial

    ended = TrialState.FAIL if trial.objective is None else TrialState.COMPLETE
    return create_trial(
        state=ended if trial.told else TrialState.RUNNING,
        value=trial.objective,
        params=trial.params,
        distributions=distributions,
        user_attrs={"after": trial.after},
    )


def conclude(storage: "BaseStorage", study: str, number: int, objective: float | None) -> None:
    """Note a trial's result, in one transaction; Optuna's `tell` reads it over and over."""
    from optuna.trial import TrialState

    trial = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(study), number)
    if objective is None:
        storage.set_trial_state_values(trial, TrialState.FAIL)
    else:
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [objective])


def complaint(error: BaseException) -> str:
    """What is wrong with a database, and what to do."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "locked" in text:
        return "is locked by another program; end that one, then repeat the command"
    unusable = any(word in text for word in ("readonly", "unable to open", "disk"))
    if isinstance(error, OSError) or (isinstance(error, sqlite3.OperationalError) and unusable):
        return f"cannot be used: {text}; make room and its folder writable, then repeat the command"
    return (
        f"is damaged, or not the database of a search ({text}); remove it and repeat the command: "
        "the search begins again, and finished runs are reused"
    )
