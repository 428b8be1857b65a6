"""What a sweep costs beside training, by many runs that do next to nothing: an mlp of width 4, two steps.

From the run folders, the clock and the kernel's figures of the process:
- ms per run: from the start of the first run to the end of the command, less the training of all runs
  (`seconds` of status.json), through their number. What comes before is not in it;
- until the first: from the start of the command to the start of the first run. Imports, the database, and the
  check of all configurations, so that it grows with the number of runs;
- first and last: the same within the first and the last hundred runs, by the times at which they started: a
  sweep that slows down shows here;
- memory: the largest resident set by the time that a hundred runs had begun, and all of them.
Untracked, tracked in SQLite, and for comparison, on fewer runs, with Hydra's own sweeper, which composes each
run from its files twice and keeps no sweep: no parent run, no table.

    python tests/benchmarks/sweep_cost.py               # 1,000 runs: about 5 minutes
    python tests/benchmarks/sweep_cost.py --runs 100
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timed
from common import Result, heading, table

WORDS = (
    "model=mlp", "model.widths=[4]", "data.limit=128", "trainer.epochs=1", "trainer.batch_size=64",
    "trainer.threads=1", "record.pictures=none", "tracking.log_model=none",
)  # fmt: skip

SIDES = {
    "ours": (("tracking=none",), 1.0, "at most 40"),
    "ours, tracked": (("tracking=mlflow",), 1.0, "at most 120"),
    "Hydra's": (("hydra/sweeper=basic", "tracking=none"), 0.1, ""),
    "Hydra's, tracked": (("hydra/sweeper=basic", "tracking=mlflow"), 0.1, ""),
}


def memory(process: subprocess.Popen[bytes]) -> float:
    """The largest resident set of a process so far, in MB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), default=0)


def measure(outputs: Path, words: tuple[str, ...], runs: int) -> Result:
    """One sweep over this many seeds."""
    command = ("src/train.py", "-m", f"record.dir={outputs}", f"seed=range({runs})")
    marks = {"after_hundred": min(runs, 100), "after_all": runs}
    sizes: dict[str, float] = {}  # what it needed by then
    started = time.time()
    with outputs.with_suffix(".log").open("wb") as log:
        process = timed.start(log, *command, *WORDS, *words)
        while process.poll() is None:
            begun = len([*outputs.glob("runs/*")])
            for name, mark in marks.items():
                if name not in sizes and begun >= mark:
                    sizes[name] = memory(process)
            time.sleep(0.1)
        ended = time.time()
    if process.returncode != 0:
        raise SystemExit(f"exit status {process.returncode}:\n{outputs.with_suffix('.log').read_text()}")
    statuses = [json.loads(path.read_text()) for path in outputs.glob("runs/*/status.json")]
    statuses.sort(key=lambda status: float(status["started"]))
    if len(statuses) != runs:
        raise SystemExit(f"{len(statuses)} runs instead of {runs}")
    few = min(100, runs // 2)
    return {
        "runs": runs,
        "until": statuses[0]["started"] - started,
        "all": per_run(statuses, ended),
        "first": per_run(statuses[:few], statuses[few]["started"]),
        "last": per_run(statuses[-few - 1 : -1], statuses[-1]["started"]),
        **sizes,
    }


def per_run(statuses: list[dict[str, Any]], ended: float) -> float:
    """Milliseconds beside training for each of these runs, which had ended by then."""
    seconds = ended - statuses[0]["started"] - sum(status["seconds"] for status in statuses)
    return 1000 * seconds / len(statuses)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--runs", type=int, default=1000, help="default: %(default)s")
    args = options.parse_args()
    print(heading() + f"; {' '.join(WORDS)}\n", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, (words, share, wanted)) in enumerate(SIDES.items()):
            print(name, file=sys.stderr, flush=True)
            found = measure(Path(scratch) / str(number), words, max(20, round(args.runs * share)))
            times = [f"{found[key]:.0f}" for key in ("all", "first", "last")]
            sizes = [f"{found[key]:.0f}" for key in ("after_hundred", "after_all")]
            rows.append([name, found["runs"], times[0], wanted, *times[1:], f"{found['until']:.1f}", *sizes])
    head = ("sweeper", "runs", "ms per run", "wanted", "first", "last", "s until the first")
    head += ("MB after 100", "MB after all")
    print(table(head, rows))


if __name__ == "__main__":
    main()
