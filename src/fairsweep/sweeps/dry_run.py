"""What a sweep would train, and how long that would take, without training it."""

from statistics import fmean

from fairsweep.sweeps.sweep import Sweep


def show(sweep: Sweep) -> None:
    """List the runs and whether they exist; estimate the time of those that do not."""
    entries = sweep.check()
    unique = {entry.row.signature: entry for entry in entries}
    missing = {signature for signature, entry in unique.items() if not sweep.is_done(entry)}
    costs = {arm.name: cost(sweep, arm.name) for arm in sweep.request.arms}
    more = sweep.unplanned - len(entries)
    arms = [unique[signature].row.arm for signature in missing]
    seconds, size = (
        sum(costs[arm][part] for arm in arms) + more * fmean(cost[part] for cost in costs.values())
        for part in (0, 1)
    )
    kept = size
    if sweep.master.record.keep == "auto":
        seeds = len(sweep.settings.seeds) + len(sweep.settings.confirm_seeds)
        kept = min(size, seeds * sum(cost[1] for cost in costs.values()))
    sweep.board.listing([entry.row for entry in unique.values()], missing, more, seconds, (size, kept))


def cost(sweep: Sweep, arm: str) -> tuple[float, float]:
    """The seconds and the bytes of weights of a run of an arm."""
    ours = [entry.planned for entry in sweep.plan.entries.values() if entry.row.arm == arm]
    return sweep.executor.cost(ours)
