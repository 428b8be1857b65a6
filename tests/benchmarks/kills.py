"""A sweep killed with `kill -9` at random moments, and started again: what is lost, what is double?

The sweep: two optimizers, two learning rates, two seeds, tracked in SQLite. Its runs write a checkpoint, and
upload, ten times a second instead of every ten seconds, so that there is much to hit. One is left alone.
The others are killed after a random share of the time that it took, started again by the same command, and
killed again, until they come to their end; then the next one begins, until all kills are used up. Counted:
- tables (`table.csv` less the seconds) that are the undisturbed sweep's, to the last bit of each objective;
- journals that are the undisturbed ones, less the times;
- steps that MLflow's metric histories hold twice, or lack, compared with the journals;
- runs and sweeps that are left RUNNING in MLflow, and MLflow runs beyond one for each run and sweep.

    python tests/benchmarks/kills.py                # 100 kills, about half an hour
    python tests/benchmarks/kills.py --kills 10
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import timed
from common import heading, table

WORDS = (
    "model=mlp", "model.widths=[16]", "model.dropout=0.2", "data.augment.shift=1", "data.limit=320",
    "scheduler=cosine", "trainer.epochs=40", "trainer.batch_size=16", "trainer.log_every=5",
    "trainer.threads=1", "optimizer=adam,sgd", "optimizer.lr=0.03,0.01", "seed=range(2)",
)  # fmt: skip

# `src/train.py` with more checkpoints.
CODE = (
    "import runpy, sys; sys.path.insert(0, 'src'); import fairsweep.runs.session as e; "
    "e.CHECKPOINT_SECONDS = 0.1; sys.argv[0] = 'src/train.py'; "
    "runpy.run_path('src/train.py', run_name='__main__')"
)

# Never the same twice.
TIMES = ("time", "epoch_seconds", "images_per_second")


def start(outputs: Path) -> subprocess.Popen[bytes]:
    """The sweep's command, in a process of its own."""
    with outputs.with_suffix(".log").open("ab") as log:
        return timed.start(log, "-c", CODE, "-m", f"record.dir={outputs}", *WORDS)


def finish(outputs: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait for a command that nothing disturbs any more, which must succeed."""
    if process.wait() != 0:
        raise SystemExit(f"exit status {process.returncode}:\n{outputs.with_suffix('.log').read_text()}")


def result(outputs: Path) -> list[dict[str, str]]:
    """The sweep's table, less the seconds."""
    (file,) = outputs.glob("sweeps/*/table.csv")
    with file.open() as content:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(content)]


def journals(outputs: Path) -> dict[str, list[dict[str, float]]]:
    """The journals of all runs, by signature."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in outputs.glob("runs/*/journal.jsonl")
    }


def figures(journal: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in journal]


def differences(outputs: Path) -> Counter[str]:
    """What MLflow has too much, or too little, of a sweep that has ended."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    found = Counter[str]()
    runs = client.search_runs(["1"])
    found["left"] = sum(run.info.status == "RUNNING" for run in runs)
    by_signature = {run.data.tags["signature"]: run for run in runs if "signature" in run.data.tags}
    expected = journals(outputs)
    found["double"] = len(runs) - len(expected) - 1
    for signature, journal in expected.items():
        run_id = by_signature[signature].info.run_id
        for key in {key for line in journal for key in line} - {"step", "epoch", "time"}:
            told = Counter((line["step"], line[key]) for line in journal if line.get(key) is not None)
            held = Counter((point.step, point.value) for point in client.get_metric_history(run_id, key))
            found["twice"] += (held - told).total()
            found["missing"] += (told - held).total()
    return found


def in_training(outputs: Path) -> bool:
    """Whether a run had begun, and had not ended, when the command died."""
    return any(
        json.loads(path.read_text())["status"] == "running" for path in outputs.glob("runs/*/status.json")
    )


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--kills", type=int, default=100, help="default: %(default)s")
    options.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = options.parse_args()
    chance = random.Random(args.seed)
    print(heading() + f"; {' '.join(WORDS)}\n", flush=True)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed = Path(scratch) / "undisturbed"
        begun = time.monotonic()
        finish(undisturbed, start(undisturbed))
        seconds = time.monotonic() - begun
        wanted, bits = result(undisturbed), journals(undisturbed)
        while found["kills"] < args.kills:
            outputs = Path(scratch) / f"sweep{found['sweeps']}"
            found["sweeps"] += 1
            process = start(outputs)
            while found["kills"] < args.kills:
                try:
                    process.wait(chance.random() * seconds)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                found["kills"] += 1
                found["in training"] += in_training(outputs)
                print(f"kill {found['kills']}/{args.kills}", file=sys.stderr, flush=True)
                process = start(outputs)
            finish(outputs, process)
            found["tables"] += result(outputs) == wanted
            found["journals"] += sum(
                figures(journal) == figures(bits[signature])
                for signature, journal in journals(outputs).items()
            )
            found += differences(outputs)
    rows = [
        ["kills, each followed by a restart", found["kills"], ""],
        ["of them while a run was in training", found["in training"], ""],
        ["tables equal to the undisturbed sweep's", f"{found['tables']} of {found['sweeps']}", "all"],
        ["journals equal", f"{found['journals']} of {found['sweeps'] * len(bits)}", "all"],
        ["steps twice in MLflow", found["twice"], 0],
        ["steps missing in MLflow", found["missing"], 0],
        ["runs left RUNNING", found["left"], 0],
        ["surplus MLflow runs", found["double"], 0],
    ]
    print(table(["what", "number", "wanted"], rows))


if __name__ == "__main__":
    main()
