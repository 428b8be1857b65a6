"""Published runs, trained anew: DeepOBS's `fmnist_2c2d`, three optimizers with their published settings.

Ten seeds for each optimizer on Fashion-MNIST, as one sweep each of `python src/train.py`, with a model of the
benchmark's own. Test accuracy after epochs 1, 2, 5 and 10 stands beside the published repeats (nine seeds at
the learning rate that a tenth had chosen), and so does what our comparison says of each pair: the difference,
its 95% interval and p, both adjusted for three pairs. Runs are kept in --dir: a second call goes on where
the first was stopped, and trains nothing twice. Fashion-MNIST is Debian's dataset-fashion-mnist, or in
--images.

    python tests/benchmarks/published.py --dir /somewhere                # 90 minutes on two cores with bf16
    python tests/benchmarks/published.py --dir /elsewhere --seeds 3 data.limit=1000     # a quick look
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from common import ROOT, heading, parser, table

from fairsweep.compare import statistics
from fairsweep.metrics import metric_of

# As published: the best of 36 learning rates.
OPTIMIZERS = {
    "sgd": "optimizer=sgd optimizer.lr=0.158489 optimizer.momentum=0",
    "momentum": "optimizer=sgd optimizer.lr=0.00251189 optimizer.momentum=0.99",
    "adam": "optimizer=adam optimizer.lr=0.000251189",
}
MODEL = ["model=other", "model._target_=deepobs.Net2c2d", "model.name=2c2d"]
DATA = ["data=fashion_mnist", "data.val_size=0", "data.mean=0", "data.std=1"]
TRAINER = [
    "trainer=fast",
    "trainer.batch_size=128",
    "trainer.test_each_epoch=true",
    "trainer.test_weights=last",
]
RECORD = ["record.keep=none", "tracking=none"]
EPOCHS = (1, 2, 5, 10)
ACCURACY = metric_of("test_accuracy", {})


def train(optimizer: str, seeds: int, folder: Path, more: list[str]) -> pd.DataFrame:
    """Train what is missing of an optimizer's runs; test accuracy by seed and epoch.

    Raises:
        subprocess.CalledProcessError: a run has failed.
    """
    where = [f"record.dir={folder}", f"hydra.sweep.dir={folder}/{optimizer}"]
    what = [
        *OPTIMIZERS[optimizer].split(),
        *MODEL,
        *DATA,
        *TRAINER,
        *RECORD,
        f"trainer.epochs={EPOCHS[-1]}",
        *more,
    ]
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, str(ROOT / "src" / "train.py"), "-m", *where, *what, f"seeds={seeds}"],
        env=os.environ | {"PYTHONPATH": path},
        stdout=sys.stderr,
        check=True,
    )
    runs = pd.read_csv(folder / optimizer / "table.csv")
    return pd.DataFrame(
        [
            row
            for run in runs.itertuples()
            for row in epochs(folder / "runs" / run.signature, optimizer, run.seed)
        ]
    )


def epochs(folder: Path, optimizer: str, seed: int) -> Iterator[dict[str, object]]:
    """A run's test accuracy after each epoch, from its journal."""
    journal = pd.read_json(folder / "journal.jsonl", lines=True)
    for line in journal.dropna(subset="epoch_test_accuracy").itertuples():
        yield {
            "optimizer": optimizer,
            "seed": seed,
            "epoch": int(line.epoch),
            "test_accuracy": line.epoch_test_accuracy,
        }


def published(file: Path) -> pd.DataFrame:
    """The published repeats; seed 42, which chose the learning rates, is not among them."""
    runs = pd.read_csv(file)
    return runs[runs["seed"] != 42]


def means(runs: pd.DataFrame, epoch: int) -> list[str]:
    """Mean and standard deviation of each optimizer's test accuracy after an epoch, in percent."""
    grouped = 100 * runs[runs["epoch"] == epoch].set_index("optimizer")["test_accuracy"]
    return [f"{grouped[name].mean():.2f} ± {grouped[name].std():.2f}" for name in OPTIMIZERS]


def verdicts(runs: pd.DataFrame, epoch: int) -> dict[frozenset[str], str]:
    """What the comparison says of each pair of optimizers after an epoch."""
    now = runs[runs["epoch"] == epoch]
    results = {
        name: now[now["optimizer"] == name].set_index("seed")["test_accuracy"].sort_index()
        for name in OPTIMIZERS
    }
    return {
        frozenset((one.better, one.worse)): f"{one.better} +{100 * one.difference:.2f} "
        f"({100 * one.low:.2f} to {100 * one.high:.2f}), p {one.adjusted:.2g}"
        for one in statistics.comparisons(results, ACCURACY)
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--dir", type=Path, required=True, help="where the runs are kept")
    made.add_argument("--seeds", type=int, default=10)
    made.add_argument("--images", help="folder with Fashion-MNIST (default: where Debian installs it)")
    made.add_argument("--published", type=Path, help="fmnist_2c2d.csv (default: in --data/deepobs)")
    made.add_argument("overrides", nargs="*", help="further overrides of all runs")
    args = made.parse_intermixed_args()
    more = [*args.overrides, *([f"data.root={args.images}"] if args.images else [])]
    print(f"{heading()}\n")
    ours = pd.concat([train(name, args.seeds, args.dir.absolute(), more) for name in OPTIMIZERS])
    theirs = published(args.published or Path(args.data) / "deepobs" / "fmnist_2c2d.csv")
    both = {"ours": ours, "published": theirs}
    rows = [[epoch, side, *means(runs, epoch)] for epoch in EPOCHS for side, runs in both.items()]
    print("Test accuracy in percent, mean and standard deviation over the seeds:\n")
    print(table(["epoch", "runs", *OPTIMIZERS], rows))
    print("\nDifferences in percentage points, with 95% intervals and adjusted p:\n")
    pairs = [frozenset(pair) for pair in (("adam", "sgd"), ("adam", "momentum"), ("momentum", "sgd"))]
    rows = [
        [epoch, side, *(verdicts(runs, epoch)[pair] for pair in pairs)]
        for epoch in EPOCHS
        for side, runs in both.items()
    ]
    print(table(["epoch", "runs", "adam, sgd", "adam, momentum", "momentum, sgd"], rows))


if __name__ == "__main__":
    main()
