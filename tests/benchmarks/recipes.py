"""The recipes on real MNIST, trained as a user would, against the results that their tutorials state.

Each run is `python src/train.py recipe=<name> seed=<n> tracking=none`, one after another; the table is made
from the run folders. They are kept in --dir: a second call goes on where the first was stopped, and trains
nothing twice. bn_convnet gets MNIST written out as JPEG files. Minutes are those of the training steps.

    python tests/benchmarks/recipes.py --dir /somewhere                     # 75 minutes on two cores
    python tests/benchmarks/recipes.py --dir /somewhere --only two_conv     # 5 seeds, about 4 minutes
    python tests/benchmarks/recipes.py --dir /elsewhere data.limit=600 trainer.epochs=1    # a quick look

The table has all finished runs in --dir that were trained with these overrides, also those not in --only.
"""

import dataclasses
import datetime
import statistics
import sys
from pathlib import Path
from typing import Any

from common import ROOT, compose, machine, names_of, parser, table
from jpegs import write_jpegs
from timed import train

# Recipe: seeds, and what its tutorial states.
RECIPES = {
    "two_conv": (range(5), "99.02%, loss 0.0290"),
    "two_conv_sgd": (range(5), "99.16%, loss 0.0360"),
    "two_conv_sgd_slow": (range(1), "about 86%"),
    "lenet_no_relu": (range(1), "none"),
    "bn_convnet": (range(1), "none"),
    "dropout_convnet": (range(1), "curves only"),
    "fc_net": (range(1), "none"),
    "fastest_99": (range(30), "at least 99.0%"),
}


def overrides(recipe: str, seed: int, folder: Path, data: Path, more: list[str]) -> list[str]:
    root = folder / "jpegs" if recipe == "bn_convnet" else data
    words = [f"recipe={recipe}", f"seed={seed}", f"data.root={root}", f"record.dir={folder}"]
    return [*words, "tracking=none", *more]


def finished(words: list[str]) -> dict[str, Any] | None:
    """The status of the run that this command trains, if it is finished."""
    from fairsweep.runs import identity
    from fairsweep.runs.folder import folder_of
    from fairsweep.runs.identity import RunSpec

    cfg = compose(*words)
    status = folder_of(cfg.record.dir, identity.identify(RunSpec(cfg)).signature).status()
    return dataclasses.asdict(status) if status.name == "finished" else None


def row(recipe: str, wanted: int, runs: list[dict[str, Any]]) -> list[object]:
    accuracies = [100 * run["test_accuracy"] for run in runs]
    deviation = f" ± {statistics.stdev(accuracies):.2f}" if len(runs) > 1 else ""
    return [
        f"`{recipe}`",
        "/".join(sorted({str(run["epoch"]) for run in runs})),
        len(runs) if len(runs) == wanted else f"{len(runs)} of {wanted}",
        f"{statistics.mean(accuracies):.2f}{deviation}%",
        f"{statistics.mean(run['test_loss'] for run in runs):.4f}",
        RECIPES[recipe][1],
        f"{statistics.mean(run['seconds'] for run in runs) / 60:.1f}",
    ]


def provenance(runs: list[dict[str, Any]]) -> str:
    """Where the runs were trained, from their own records. More than one of a kind shows."""

    def all_of(values: list[str]) -> str:
        return ", ".join(sorted(set(values)))

    def commit(run: dict[str, Any]) -> str:
        git = run["git"]
        return git["commit"][:10] + ("-dirty" if git["dirty"] == "true" else "") if git else "unknown"

    days = sorted(str(datetime.date.fromtimestamp(run["ended"])) for run in runs)
    return "; ".join(
        [
            machine(),
            f"device {all_of([run['device'] for run in runs])}",
            f"{all_of([run['precision'] for run in runs])}",
            f"threads {all_of([str(run['threads']) for run in runs])}",
            f"torch {all_of([run['versions']['torch'] for run in runs])}",
            days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
            f"commit {all_of([commit(run) for run in runs])}",
        ]
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--dir", type=Path, required=True, help="kept: where the runs are and stay")
    options.add_argument("--only", type=names_of(RECIPES), default=list(RECIPES), metavar="NAME,NAME")
    options.add_argument("overrides", nargs="*", help="for every run, e.g. trainer=fast reuse=any")
    args = options.parse_args()
    folder = args.dir.absolute()
    if folder.is_relative_to(ROOT / "outputs"):
        options.error("--dir: not in outputs/, which is for runs of your own")
    folder.mkdir(parents=True, exist_ok=True)
    if "bn_convnet" in args.only:
        write_jpegs(args.data, folder / "jpegs")
    rows, all_runs = [], []
    for recipe, (seeds, _) in RECIPES.items():
        runs = []
        for seed in seeds:
            words = overrides(recipe, seed, folder, args.data, args.overrides)
            if recipe in args.only:
                print(f"python src/train.py {' '.join(words)}", file=sys.stderr, flush=True)
                train(*words)
            if (status := finished(words)) is not None:
                runs.append(status)
        if runs:
            rows.append(row(recipe, len(seeds), runs))
            all_runs += runs
    head = ["recipe", "epochs", "seeds", "test accuracy, mean ± sd", "test loss", "stated", "minutes a run"]
    print(f"{provenance(all_runs)}\n\n{table(head, rows)}" if rows else "no finished runs")


if __name__ == "__main__":
    main()
