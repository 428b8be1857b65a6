"""The settings of a sweep, as `hydra.sweeper` has them and the command line may write them: `trials=10`."""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass
class SweeperConf:
    """What `hydra.sweeper` may say."""

    _target_: str = "hydra_plugins.fairsweep.fair_sweeper.FairSweeper"
    # What is compared: name -> overrides, fixed or a search space. Without any, the sweep is a plain grid.
    arms: dict[str, Any] = field(default_factory=dict)
    # Overrides as on the command line, for presets: key -> value or values.
    params: dict[str, Any] = field(default_factory=dict)
    # grid, or a sampler of Optuna's: tpe, cmaes, qmc, random, gp, ...
    sampler: str = "grid"
    # Trials per arm. A grid without intervals has its own number.
    trials: int | None = None
    # Runs per trial in the search: how many seeds, or a list of them.
    seeds: Any = 1
    # Fresh seeds for the best trial of each arm; null: 10 where there are arms, else none.
    confirm: int | None = None
    # If an arm's best value is at the edge of its range, extend the range.
    extend: bool = False
    # Further trials for each arm, beyond the edge or inside.
    extend_steps: int = 2
    # Successive halving: 3 keeps the best third of the trials at each rung.
    halving: int | None = None
    # Trials per arm that a sampler proposes at once.
    batch: int = 1
    # false: allow arms of unequal budget; the report says so.
    equal_budget: bool = True
    # List the runs, and estimate the time.
    dry_run: bool = False
    # Stop at the first run that fails.
    fail_fast: bool = False
    # The most jobs that the launcher gets at once; null: all.
    max_batch_size: int | None = None


# Keys that a command line may write without `hydra.sweeper`. Arms are new keys, which need a
# plus sign.
SHORT = {"arms": "++hydra.sweeper.arms"} | {
    one.name: f"hydra.sweeper.{one.name}"
    for one in fields(SweeperConf)
    if one.name not in ("_target_", "arms", "params", "max_batch_size")
}
