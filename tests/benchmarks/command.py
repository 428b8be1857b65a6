"""Whole commands as a user gives them, on MNIST with recipe=two_conv: seconds and memory.

Measured from outside, with nothing patched, each round in a new folder:
- first training step: from starting the process to the time of the journal's first line (log_every=1; a limit
  of a millisecond ends the run there);
- a mistake's answer: `optimizer=sdg` and `optimizer.lr=-1`, from start to exit;
- memory: the largest resident set of a command that trains one epoch and tests, as the kernel counted it;
- that finished run shown again: the same command once more, from start to exit.
`import torch` and `import mlflow` alone are measured in the same rounds, as a yardstick for the machine.
All begins with a round that is not counted, so that the disk cache is warm. Outputs go to a temporary folder.

    python tests/benchmarks/command.py                # about 3 minutes
    python tests/benchmarks/command.py --rounds 5     # the published table, about 5 minutes
    python tests/benchmarks/command.py --rounds 1 data.limit=600      # more overrides, for every command
"""

import tempfile
from pathlib import Path

from common import Result, alternate, heading, parser, spread, table
from timed import call, only_run, train

MISTAKES = ("optimizer=sdg", "optimizer.lr=-1")
FIRST, PEAK, AGAIN = "first training step", "largest resident set", "finished run shown again"
WANTED = {
    FIRST: "within 5 s",
    **{f"answer to `{mistake}`": "within 1 s" for mistake in MISTAKES},
    PEAK: "under 1.3 GB",
    AGAIN: "a second or two",
    "`import torch` alone": "",
    "`import mlflow` alone": "",
}


def measure(folder: Path, words: list[str]) -> Result:
    """One round: every figure of WANTED, in seconds or GB."""
    out = folder / "first"
    first = train(*words, f"record.dir={out}", "trainer.log_every=1", "trainer.max_seconds=0.001")
    found: Result = {FIRST: only_run(out).journal()[0]["time"] - first.started}
    for mistake in MISTAKES:
        found[f"answer to `{mistake}`"] = train(*words, f"record.dir={out}", mistake, status=2).seconds
    command = [*words, f"record.dir={folder / 'whole'}", "trainer.epochs=1"]
    found[PEAK] = train(*command).peak / 1e9
    again = train(*command)
    if "reused" not in again.output:
        raise SystemExit(f"the finished run was not reused:\n{again.output}")
    found[AGAIN] = again.seconds
    for module in ("torch", "mlflow"):
        found[f"`import {module}` alone"] = call("-c", f"import {module}").seconds
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    options.add_argument("overrides", nargs="*", help="for every command, e.g. data.limit=600")
    args = options.parse_args()
    words = ["recipe=two_conv", f"data.root={args.data}", *args.overrides]
    print(heading() + f"; {args.rounds} rounds; {' '.join(args.overrides)}\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        sides = {"all figures": lambda number: measure(Path(scratch) / str(number), words)}
        (_, *rounds) = alternate(sides, args.rounds + 1)["all figures"]
    rows = [
        [what, spread([found[what] for found in rounds]), "GB" if what == PEAK else "s", wanted]
        for what, wanted in WANTED.items()
    ]
    print(table(["what", "median (range)", "unit", "wanted"], rows))


if __name__ == "__main__":
    main()
