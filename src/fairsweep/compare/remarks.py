"""What the reader of a report has to know beside its verdict, most of it trouble."""

from collections import Counter

import pandas as pd

from fairsweep.compare.findings import Findings
from fairsweep.compare.load import ENDED, UNRECORDED, number
from fairsweep.wording import counted, listed, short


def remarks(found: Findings) -> list[str]:
    """Trouble with the sweep, its budget, its seeds, its best values and where its runs were trained."""
    return [*progress(found), *fairness(found), *edges(found), *times(found), *mixtures(found.tables.runs)]


def progress(found: Findings) -> list[str]:
    """What has not ended, or not well."""
    runs, said = found.tables.runs, []
    unique = runs.drop_duplicates("run")
    counts = Counter(unique["status"])
    statuses = {sweep["status"] for sweep in found.tables.sweeps}
    if "running" in statuses:
        so_far = ", ".join(f"{n} {status}" for status, n in counts.items())
        said.append(f"The sweep is still running ({so_far} so far): everything here can still change.")
    if len(found.tables.sweeps) == 1:
        named = [arm for arm in found.tables.sweeps[0].get("arms", {}) if arm not in ("", *found.arms)]
        if named:
            said.append(f"There are no runs of {listed(named)} yet.")
    if statuses & {"interrupted", "failed"}:
        said.append(
            f"The sweep ended as {listed(statuses - {'finished'})}: repeat its command to complete it."
        )
    if "running" not in statuses and (open_ := counts["running"] + counts["paused"] + counts["interrupted"]):
        said.append(f"{counted(open_, 'run')} did not end.")
    known = (*ENDED, *UNRECORDED, "running", "paused", "interrupted")
    if len(strange := unique[~unique["status"].isin(known)]):
        names = listed(f"{row.run} ({row.status})" for row in strange.head(3).itertuples())
        said.append(f"{counted(len(strange), 'run')} of unknown status counted as having no result: {names}.")
    if counts["failed"]:
        failed = unique[unique["status"] == "failed"]
        reasons = Counter(failed["reason"]).most_common(3)
        why = "; ".join(f"{n} x {reason}" for reason, n in reasons)
        said.append(f"{counted(counts['failed'], 'run')} failed and have no result: {why}")
    lost = unique["status"].eq("diverged").groupby(unique["arm"]).agg(["sum", "size"])
    if each := [f"{n} of {counted(size, 'run')} of {arm}" for arm, n, size in lost.itertuples() if n]:
        said.append(f"{listed(each)} diverged.")
    return said


def fairness(found: Findings) -> list[str]:
    """Whether each arm had the same chances, and the seeds were fresh."""
    runs, said = found.tables.runs, []
    trials = runs[runs["phase"] == "search"].groupby("arm")["trial"].nunique()
    if trials.nunique() > 1:
        each = listed(f"{arm} {n}" for arm, n in trials.items())
        said.append(f"The arms had different numbers of trials ({each}): the comparison is unequal.")
    search = runs[runs["phase"] == "search"].groupby("arm")["seed"].agg(set)
    if search.map(len).max() == 1 and trials.max() > 1:
        said.append("The search used one seed per trial: the best trial may owe its rank to luck.")
    if found.evidence == "confirm":
        stale: dict[str, list[str]] = {}
        for arm, rows in found.judged.groupby("arm"):
            if seeds := sorted(set(rows["seed"]) & search.get(arm, set())):
                stale.setdefault(str(seeds), []).append(str(arm))
        for seeds_text, arms in stale.items():
            said.append(
                f"{listed(arms)}: seeds {seeds_text} were also used by the search: they are not fresh."
            )
        if missing := [arm for arm in found.arms if arm not in found.results]:
            said.append(f"No confirm run of {listed(missing)} has a test {found.tables.tested.words}.")
        sizes = {arm: len(values) for arm, values in found.results.items()}
        if len(set(sizes.values())) > 1:
            each = listed(f"{arm} {size}" for arm, size in sizes.items())
            said.append(f"The arms have different numbers of confirm results: {each}.")
    if found.evidence == "untuned" and len(found.arms) > 1:
        said.append("Each arm has one setting and was not tuned: this compares settings, not optimizers.")
    if len(set(found.tables.params.get("data.name", [""]))) > 1:
        said.append("The runs used different data sets: their results cannot be compared.")
    return said


def edges(found: Findings) -> list[str]:
    """Chosen trials whose value is at the end of the arm's range, once its search is complete."""
    said = []
    # A sampler has not tried all of the range.
    is_grid = all(sweep.get("sampler", "grid") == "grid" for sweep in found.tables.sweeps)
    advice = "Widen the range, or set extend=true." if is_grid else "More trials would tell."
    for arm, trial in found.chosen.items():
        if (arm, trial) not in found.trials.index or not is_searched(found, arm):
            continue
        own = found.searched(arm)["values"]
        tried = pd.DataFrame(list(own), own.index)
        for key in tried:
            values = tried[key].map(number)
            if values.nunique() < 3 or values.isna().any():
                continue
            best = values[trial]
            if best in (values.min(), values.max()):
                end = "highest" if best == values.max() else "lowest"
                said.append(f"{arm}: the best {short(key)}, {best:.4g}, is the {end} tried")
    return [f"{'; '.join(said)}: better ones may lie beyond. {advice}"] if said else []


def is_searched(found: Findings, arm: str) -> bool:
    """Whether all trials of an arm have ended, and no further ones are to be planned."""
    own = found.tables.runs[found.tables.runs["arm"] == arm]
    is_open = {"running", "interrupted"} & {sweep["status"] for sweep in found.tables.sweeps}
    is_planned = not is_open or (own["phase"] == "confirm").any()
    return bool(is_planned and own.loc[own["phase"] == "search", "status"].isin(ENDED).all())


def times(found: Findings) -> list[str]:
    """Seconds that depend on what else was trained at the time."""
    runs, said = found.tables.runs.drop_duplicates("run"), []
    shared = runs[runs["shared"]]
    if len(shared):
        said.append(
            f"{counted(len(shared), 'run')} trained beside others in one process, so their seconds depend on "
            "those: the report compares and sums steps, not seconds."
        )
    limits = found.tables.params.reindex(columns=["trainer.max_seconds"]).reindex(shared["run"])
    if limits.map(number).notna().any(axis=None):
        said.append(
            "trainer.max_seconds counted those shared seconds: how far a run got depends on the others."
        )
    return said


def mixtures(runs: pd.DataFrame) -> list[str]:
    """What should have been the same for all runs, and was not."""
    said = []
    names = {
        "data": ("versions of the data", "results are not comparable"),
        "code": ("versions of the training code", "the code may explain differences"),
        "device": ("devices", "times are not comparable"),
        "precision": ("precisions", "the precision may explain differences"),
        "commit": ("commits", ""),
        "versions": ("sets of package versions", ""),
        "hostname": ("machines", "times may not be comparable"),
    }
    # Where a run failed before it began, its device and data are not known; it has no figures to compare.
    unique = runs[~runs["status"].isin((*UNRECORDED, "failed"))].drop_duplicates("run")
    for column, (what, so) in names.items():
        counts = Counter(unique[column])
        if len(counts) > 1:
            some = "; ".join(f"{value[:60]}: {counted(n, 'run')}" for value, n in counts.most_common(4))
            said.append(f"Mixed {what}{f', so {so}' if so else ''} ({some}).")
    if dirty := int((unique["dirty"] == "true").sum()):
        said.append(f"{counted(dirty, 'run')} trained with uncommitted changes in the project.")
    return said
