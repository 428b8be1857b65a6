"""What MLflow costs: a command with tracking=mlflow (model logged) and with tracking=none, alternately.

MNIST, recipe=two_conv, `trainer.log_every=10`, no test between epochs. From the run folders and the clock:
- added to a command: the seconds beside its training steps (whole command less the `seconds` of status.json),
  tracked less untracked. The first round creates MLflow's database, which the later ones find there.
- share inside the loop: between the ends of two epochs, the seconds that are not training, relative to those
  that are; tracked less untracked. Taken after the first upload, which loads MLflow and so belongs to the
  figure above. Because training itself is not in the difference, a noisy machine hardly shows.
- the same epochs' wall clock, tracked / untracked: would show tracking that slows the training steps, but
  has all the machine's noise.

    python tests/benchmarks/tracking_cost.py              # about 7 minutes
    python tests/benchmarks/tracking_cost.py --rounds 5   # the published table, about 12 minutes
    python tests/benchmarks/tracking_cost.py --rounds 1 --epochs 2 data.limit=600   # more overrides, for both
"""

import math
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common import Result, alternate, heading, parser, spread, table
from timed import only_run, train

if TYPE_CHECKING:
    from fairsweep.runs.folder import RunFolder


def loop_seconds(run: "RunFolder") -> tuple[float, float] | None:
    """Seconds per epoch, by the clock and of training, between two ends of epochs after the first upload.

    None where the run is too short. Its last epoch does not count: the test comes before its line.
    """
    from fairsweep.runs.session import CHECKPOINT_SECONDS

    journal = run.journal()
    # Uploads go with checkpoints; a second more, so that this line is not before the first one's.
    after = run.status().started + CHECKPOINT_SECONDS + 1
    uploaded = next((line["step"] for line in journal if line["time"] >= after), math.inf)
    ends = [line for line in journal if "epoch_seconds" in line][:-1]
    ends = [line for line in ends if line["step"] > uploaded]
    if len(ends) < 2:
        return None
    clock = (ends[-1]["time"] - ends[0]["time"]) / (len(ends) - 1)
    return clock, statistics.mean(line["epoch_seconds"] for line in ends[1:])


def measure(folder: Path, words: list[str], tracking: str, number: int) -> Result:
    """One command in a new run folder; MLflow's database is the same in all rounds."""
    out = folder / f"{tracking}{number}"
    chosen = [f"tracking={tracking}", f"record.dir={out}"]
    if tracking == "mlflow":
        chosen += [f"tracking.uri=sqlite:///{folder}/mlflow.db", "tracking.log_model=all"]
    command = train(*words, *chosen)
    if (folder / "mlflow.db").exists() != (tracking == "mlflow" or number > 0):
        raise SystemExit(f"tracking={tracking} did not do what it says:\n{command.output}")
    run = only_run(out)
    return {"beside": command.seconds - run.status().seconds, "loop": loop_seconds(run)}


def rows_of(untracked: list[Result], tracked: list[Result]) -> list[list[str]]:
    added = [b["beside"] - a["beside"] for a, b in zip(untracked, tracked, strict=True)]
    rows = [["added to the first command", f"{added[0]:.2f} s", "under 4 s"]]
    if added[1:]:
        rows.append(["added to a later command", f"{spread(added[1:])} s", "under 4 s"])
    loops = [(a["loop"], b["loop"]) for a, b in zip(untracked, tracked, strict=True)]
    pairs = [(a, b) for a, b in loops if a and b]
    if not pairs:
        return [*rows, ["share inside the loop", "run too short, raise --epochs", "under 3%"]]
    shares = [
        100 * (clock / training - plain / plain_train) for (plain, plain_train), (clock, training) in pairs
    ]
    walls = [clock / plain for (plain, _), (clock, _) in pairs]
    return [
        *rows,
        ["share inside the loop", f"{spread(shares)}%", "under 3%"],
        ["epochs by the clock, tracked / untracked", spread(walls), ""],
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options.add_argument("--epochs", type=int, default=6, help="of each run (default: %(default)s)")
    options.add_argument("overrides", nargs="*", help="for every command, e.g. data.limit=600")
    args = options.parse_args()
    words = ["recipe=two_conv", f"data.root={args.data}", f"trainer.epochs={args.epochs}"]
    words += ["trainer.log_every=10", "trainer.test_each_epoch=false", *args.overrides]
    print(heading() + f"; {args.rounds} rounds of {' '.join(words)}\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = partial(measure, Path(scratch), words)
        sides = {"none": partial(run, "none"), "mlflow": partial(run, "mlflow")}
        results = alternate(sides, args.rounds)
    print(table(["tracking", "median (range)", "wanted"], rows_of(results["none"], results["mlflow"])))


if __name__ == "__main__":
    main()
